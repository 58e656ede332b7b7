//! Turns that no process brings to an end: resumed in vain, out of time, or with something too large to be stored.

use super::{actions, call, calling, interrupted};
use async_trait::async_trait;
use harness::lab::{Lab, ended};
use harness::vendor::{Answer, Gate, Stream};
use serde_json::json;
use shared::adapters::memory::Memory;
use shared::agent::AgentInvoker;
use shared::agent::runner::{Deadline, Runner, RunnerParts};
use shared::clock::{Clock, Timestamp};
use shared::error::{ErrorKind, StoreError};
use shared::id::{SessionKey, TenantId, TurnId};
use shared::message::{Message, MessageBody};
use shared::metrics::{Measured, Metrics, Sink};
use shared::session::{Begun, Lease, NewTurn, Session, SessionStore, Step, Turn, TurnOutcome, Window};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// Longer than a lease.
const LATER: Duration = Duration::from_secs(91);

/// Processes that take the turn over and die before they get any further.
async fn die_over_it(lab: &Lab, turn: &NewTurn) {
    for _ in 0..5 {
        lab.clock.advance(LATER);
        let now = lab.clock.now();
        let begun = lab.memory.begin(turn, now, now + Duration::from_secs(90)).await.unwrap();
        assert!(matches!(begun, Begun::Resumed { .. }), "{begun:?}");
    }
    lab.clock.advance(LATER);
}

/// A turn that died at its first step, as it was asked for.
async fn poisoned(lab: &Lab) -> NewTurn {
    let request = lab.keyed("k", "poison");
    let new = NewTurn {
        turn: request.turn,
        tenant: request.tenant,
        session: request.session,
        new_session_id: "s-of-the-dead".into(),
        agent: request.agent,
        principal: request.principal,
        user: None,
        channel: "webchat".into(),
        idempotency: request.idempotency,
        input: request.input,
        options: serde_json::to_value(&request.options).unwrap(),
        audit: harness::stores::audit("row", 0, "turn.accepted"),
    };
    let now = lab.clock.now();
    let begun = lab.memory.begin(&new, now, now + Duration::from_secs(90)).await.unwrap();
    assert!(matches!(begun, Begun::Started(_)), "{begun:?}");
    new
}

const GIVEN_UP: &str = "the turn was given up: it was interrupted and resumed 5 times and got no further";

#[tokio::test]
async fn a_turn_that_was_resumed_five_times_in_vain_is_given_up_by_the_sweep() {
    let lab = Lab::new().await;
    let new = poisoned(&lab).await;
    die_over_it(&lab, &new).await;
    let outcome = lab.runner.resume(&TenantId::single(), &new.turn).await.unwrap();
    let TurnOutcome::Failed(failure) = &outcome else { panic!("{outcome:?}") };
    assert_eq!((failure.kind, failure.message.as_str()), (ErrorKind::Internal, GIVEN_UP));
    assert_eq!(lab.vendor.requests().len(), 0, "no model is asked once more");
    assert_eq!(actions(&lab).await, ["turn.accepted", "turn.given_up"]);
    let again = lab.outcome(lab.keyed("k", "poison")).await.unwrap();
    assert_eq!(again, outcome, "its key gives the same answer");
    lab.vendor.answer(Stream::text("Fine."));
    assert_eq!(lab.reply(lab.request("and now?")).await.text, "Fine.", "the session is free");
}

#[tokio::test]
async fn a_turn_that_was_resumed_five_times_in_vain_is_given_up_before_its_caller_asks_again() {
    let lab = Lab::new().await;
    let new = poisoned(&lab).await;
    die_over_it(&lab, &new).await;
    let outcome = lab.outcome(lab.keyed("k", "poison")).await.unwrap();
    let TurnOutcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.message, GIVEN_UP);
    assert_eq!(lab.vendor.requests().len(), 0);
}

#[tokio::test]
async fn a_turn_that_is_resumed_for_the_fifth_time_is_still_run() {
    let lab = Lab::new().await;
    let (turn, _) = interrupted(&lab, "hello", Vec::new()).await;
    for _ in 0..4 {
        lab.clock.advance(LATER);
        let stopped = Runner::with_deadline(lab.parts(), passed()).resume(&TenantId::single(), &turn).await;
        assert_eq!(stopped.unwrap_err().kind, ErrorKind::Conflict);
    }
    lab.clock.advance(LATER);
    lab.vendor.answer(Stream::text("Done."));
    let outcome = lab.runner.resume(&TenantId::single(), &turn).await.unwrap();
    let TurnOutcome::Done(reply) = outcome else { panic!("{outcome:?}") };
    assert_eq!(reply.text, "Done.");
}

/// The time of a process that is over.
fn passed() -> Deadline {
    let deadline = Deadline::default();
    deadline.set(Instant::now());
    deadline
}

#[tokio::test(start_paused = true)]
async fn a_turn_whose_process_has_no_time_left_is_at_work_elsewhere_and_no_failure() {
    let lab = Lab::new().await;
    lab.vendor.answer(Answer::Silence(Gate::new()));
    let deadline = Deadline::default();
    deadline.set(Instant::now() + Duration::from_secs(30));
    let told = Arc::new(Told::default());
    let metrics = Arc::new(Metrics::told(Some(Arc::clone(&told) as Arc<dyn Sink>)));
    let runner = Runner::with_deadline(RunnerParts { metrics, ..lab.parts() }, deadline);
    let stopped = ended(&runner, lab.request("hello")).await.unwrap_err();
    // What a queue does not count as an attempt.
    assert_eq!(stopped.kind, ErrorKind::Conflict);
    assert!(stopped.retry_after.is_some());
    assert_eq!(*told.0.lock().unwrap(), [], "it is no error, and has no end yet");
}

/// What operators are told.
#[derive(Default)]
struct Told(Mutex<Vec<Measured>>);

impl Sink for Told {
    fn tell(&self, measured: Measured) {
        self.0.lock().unwrap().push(measured);
    }
}

/// Stores that take no more than 150 bytes of messages at once.
struct Small(Memory);

fn fits(step: &Step) -> Result<(), StoreError> {
    let bytes = step.messages.iter().map(|body| serde_json::to_string(body).unwrap().len()).sum();
    if bytes > 150 { Err(StoreError::TooLarge { bytes, most: 150 }) } else { Ok(()) }
}

#[async_trait]
impl SessionStore for Small {
    async fn load(&self, tenant: &TenantId, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        self.0.load(tenant, key).await
    }
    async fn transcript(
        &self,
        tenant: &TenantId,
        key: &SessionKey,
        window: Window,
    ) -> Result<Vec<Message>, StoreError> {
        self.0.transcript(tenant, key, window).await
    }
    async fn turn(&self, tenant: &TenantId, id: &TurnId) -> Result<Option<Turn>, StoreError> {
        self.0.turn(tenant, id).await
    }
    async fn begin(&self, turn: &NewTurn, now: Timestamp, until: Timestamp) -> Result<Begun, StoreError> {
        self.0.begin(turn, now, until).await
    }
    async fn append(
        &self,
        lease: &Lease,
        step: &Step,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Lease, StoreError> {
        fits(step)?;
        self.0.append(lease, step, now, until).await
    }
    async fn commit(
        &self,
        lease: &Lease,
        last: &Step,
        outcome: &TurnOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        fits(last)?;
        self.0.commit(lease, last, outcome, now).await
    }
}

fn on_small_stores(lab: &Lab) -> Runner {
    Runner::new(RunnerParts { sessions: Arc::new(Small(lab.memory.clone())), ..lab.parts() })
}

#[tokio::test]
async fn a_reply_that_is_too_large_to_be_stored_fails_its_turn_and_frees_the_session() {
    let lab = Lab::new().await;
    let runner = on_small_stores(&lab);
    lab.vendor.answer(Stream::text(&"long ".repeat(30)));
    let outcome = ended(&runner, lab.keyed("k", "tell me all")).await.unwrap();
    let TurnOutcome::Failed(failure) = &outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.kind, ErrorKind::Invalid);
    assert!(failure.message.starts_with("this is too large to be stored"), "{}", failure.message);
    assert_eq!(actions(&lab).await, ["turn.accepted", "turn.committed"]);
    assert_eq!(ended(&runner, lab.keyed("k", "tell me all")).await.unwrap(), outcome, "it is stored");
    let session = lab.memory.load(&TenantId::single(), &SessionKey::new("agent:a:main")).await.unwrap();
    assert_eq!(session.unwrap().holder, None);
}

#[tokio::test]
async fn a_step_that_is_too_large_to_be_stored_fails_its_turn_with_what_it_did_on_record() {
    let lab = Lab::new().await;
    std::fs::write(lab.workspace.path().join("large.txt"), "much ".repeat(30)).unwrap();
    let read = call("c1", "read", &json!({"path": "large.txt"}));
    lab.vendor.answer(Stream::new().then_call("c1", "read", &json!({"path": "large.txt"})));
    let outcome = ended(&on_small_stores(&lab), lab.request("read it")).await.unwrap();
    let TurnOutcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.kind, ErrorKind::Invalid);
    assert_eq!(actions(&lab).await, ["turn.accepted", "tool.called", "turn.committed"]);
    let transcript = lab.transcript().await;
    assert_eq!(transcript[1], calling(vec![read]));
    assert!(matches!(&transcript[2], MessageBody::Assistant { .. }), "{transcript:?}");
    let session = lab.memory.load(&TenantId::single(), &SessionKey::new("agent:a:main")).await.unwrap();
    assert_eq!(session.unwrap().holder, None);
}
