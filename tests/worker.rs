//! The worker and the sweep beside it: what counts as a job's attempt, and what becomes of a job that nobody ever settles.

#![expect(clippy::expect_used, reason = "a case that cannot be set up fails")]

#[path = "worker/sweep.rs"]
mod sweep;

use harness::agents::ScriptedAgents;
use harness::app::TestApp;
use harness::stores::says;
use shared::agent::{RunOptions, RunRequest};
use shared::audit::NewAudit;
use shared::clock::Clock;
use shared::error::{Error, ErrorKind};
use shared::id::{AgentId, JobId, PrincipalId, SessionId, SessionKey, TenantId, TurnId};
use shared::job::{Apart, Job, JobFilter, JobState, NewJob, Work};
use shared::message::MessageBody;
use shared::session::{Begun, NewTurn, TurnOutcome};
use std::sync::Arc;
use std::time::Duration;

/// Longer than any pause between two attempts, and than a delivery is hidden.
const LATER: Duration = Duration::from_secs(3_600);

fn job() -> NewJob {
    let request = RunRequest {
        turn: TurnId::new("t"),
        tenant: TenantId::single(),
        principal: PrincipalId::new("alice"),
        agent: AgentId::new("main"),
        session: SessionKey::new("agent:main:main"),
        sticky: true,
        idempotency: None,
        input: vec![MessageBody::user_text("hello")],
        options: RunOptions::default(),
    };
    NewJob { id: JobId::new("j"), tenant: TenantId::single(), work: Work::Turn(Box::new(request)) }
}

async fn enqueue(app: &TestApp) {
    let is_new = app.app.stores.jobs.enqueue(&job(), Duration::ZERO, app.clock.now()).await;
    assert!(is_new.expect("an answer"));
}

async fn found(app: &TestApp) -> Job {
    let filter = JobFilter { id: Some(JobId::new("j")), state: None, limit: 1 };
    let mut jobs =
        app.app.stores.jobs.list(&TenantId::single(), &filter, app.app.clock.now()).await.expect("a listing");
    jobs.pop().expect("the job")
}

/// Delivers the job to workers that die over it, as often as it may be delivered.
async fn die_over_it(app: &TestApp) {
    for _ in 0..app.app.config.turns.job_max_attempts {
        let now = app.clock.now();
        let due = app.app.stores.jobs.receive(1, now, now + Duration::from_secs(60), &Apart::default()).await;
        assert_eq!(due.expect("a delivery").len(), 1);
        app.clock.advance(LATER);
    }
}

#[tokio::test]
async fn waiting_for_a_busy_session_uses_up_no_attempts() {
    let error = |kind| Err(Error::new(kind, "not now"));
    let busy = (0..9).map(|_| error(ErrorKind::Conflict));
    let app = TestApp::with_agents(ScriptedAgents::new(busy.chain([error(ErrorKind::Upstream)])));
    enqueue(&app).await;
    for _ in 0..9 {
        assert_eq!(app.work().await, 1);
        assert_eq!((found(&app).await.state, found(&app).await.attempts), (JobState::Pending, 0));
        app.clock.advance(LATER);
    }
    assert_eq!(app.work().await, 1);
    assert_eq!(
        (found(&app).await.state, found(&app).await.attempts),
        (JobState::Pending, 1),
        "a failure is one"
    );
    app.clock.advance(LATER);
    assert_eq!(app.work().await, 1);
    assert_eq!(found(&app).await.state, JobState::Done);
}

#[tokio::test]
async fn a_job_that_its_workers_die_over_is_given_up_and_says_so() {
    let agents = ScriptedAgents::new([]);
    let app = TestApp::with_agents(Arc::clone(&agents) as Arc<_>);
    enqueue(&app).await;
    die_over_it(&app).await;
    assert_eq!(app.work().await, 1);
    let dead = found(&app).await;
    let reason = "given up after 5 attempts: each ended without a word, as if the worker had died over it";
    assert_eq!((dead.state, dead.reason.as_deref()), (JobState::Dead, Some(reason)));
    assert_eq!(agents.requests().len(), 0, "it is not tried once more");
}

#[tokio::test]
async fn a_job_whose_turn_is_done_is_done_although_nobody_settled_it() {
    let app = TestApp::with_agents(ScriptedAgents::new([]));
    enqueue(&app).await;
    let Work::Turn(request) = job().work;
    let now = app.clock.now();
    let turn = NewTurn {
        turn: request.turn,
        tenant: request.tenant,
        session: request.session,
        new_session_id: SessionId::new("transcript"),
        agent: request.agent,
        principal: request.principal.clone(),
        user: None,
        channel: "webchat".to_owned(),
        idempotency: None,
        input: request.input,
        options: serde_json::Value::Null,
        audit: NewAudit {
            id: "row".to_owned(),
            at: now,
            principal: request.principal,
            action: "turn.accepted".to_owned(),
            detail: serde_json::Value::Null,
        },
    };
    let sessions = &app.app.stores.sessions;
    let begun = sessions.begin(&turn, now, now + Duration::from_secs(60)).await.expect("a verdict");
    let Begun::Started(lease) = begun else { panic!("{begun:?}") };
    let outcome: TurnOutcome = harness::stores::done("hi");
    sessions.commit(&lease, &says("hi"), &outcome, now).await.expect("a commit");
    die_over_it(&app).await;
    assert_eq!(app.work().await, 1);
    assert_eq!((found(&app).await.state, found(&app).await.reason), (JobState::Done, None));
}

#[tokio::test]
async fn a_job_whose_worker_died_before_the_clock_was_set_back_is_done_at_once() {
    let app = TestApp::with_agents(ScriptedAgents::new([]));
    app.clock.advance(LATER);
    enqueue(&app).await;
    let now = app.clock.now();
    let due = app.app.stores.jobs.receive(1, now, now + Duration::from_secs(60), &Apart::default()).await;
    assert_eq!(due.expect("a delivery").len(), 1);
    assert_eq!(app.work().await, 0, "it is at work");
    app.clock.set_back(LATER);
    assert_eq!(app.work().await, 1);
    assert_eq!((found(&app).await.state, found(&app).await.attempts), (JobState::Done, 2));
}
