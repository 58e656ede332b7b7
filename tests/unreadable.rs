//! Rows that cannot be read, and absurd ones: each harms what it belongs to, and nothing else goes worse for it.
//!
//! A store is filled with what is to be damaged and with what belongs to others; one thing is damaged behind its back; then
//! everything of the others must go on. Memory holds values and no bytes: nothing in it can be unreadable.

#![expect(clippy::expect_used, clippy::panic, reason = "a case that cannot be set up fails")]

#[path = "unreadable/dynamodb.rs"]
mod dynamodb;
#[path = "unreadable/reef.rs"]
mod reef;
#[path = "unreadable/sqlite.rs"]
mod sqlite;

use harness::stores::{
    answer_key, at, done, failed, keyed_turn, new_job, new_turn, run, says, start, tenant, token,
};
use serde_json::Value;
use shared::answer::{Answer, Claim};
use shared::app::Stores;
use shared::audit::AuditFilter;
use shared::error::{ErrorKind, StoreError};
use shared::id::{JobId, PrincipalId, SessionId, SessionKey, TurnId};
use shared::job::{Apart, JobFilter, JobState, Outcome, Work};
use shared::session::{Becomes, Begun, NewTurn, SessionFilter, Step, TurnOutcome, Window};
use std::time::Duration;

#[tokio::test]
async fn memory_refuses_what_others_could_not_read_back() {
    what_could_not_be_read_back_is_never_stored(&harness::stores::memory().stores).await;
}

/// More levels than can be read back.
fn too_deep() -> String {
    format!("{}{}", "[".repeat(200), "]".repeat(200))
}

/// Fills a store: what is to be damaged is named `bad…`, what belongs to others `good…`.
async fn fill(stores: &Stores) {
    for name in ["bad", "good"] {
        let (idle, held) = (format!("{name}-idle"), format!("{name}-held"));
        run(stores, &keyed_turn(&format!("{idle}-t"), &idle, &format!("{idle}-k")), 10).await;
        let lease =
            start(stores, &keyed_turn(&format!("{held}-t"), &held, &format!("{held}-k")), 20, 50).await;
        stores.sessions.append(&lease, &says("a step"), at(30), at(50)).await.expect("a step");
        stores
            .jobs
            .enqueue(&new_job(&format!("{name}-j"), "work"), Duration::ZERO, at(40))
            .await
            .expect("a job");
        stores.tokens.insert(&token(&format!("{name}-u"), 40)).await.expect("a token");
        let key = answer_key(&format!("{name}-a"), "f");
        stores.answers.claim(&key, at(40), at(90)).await.expect("a claim");
        stores.answers.store(&key, &answer(), at(40)).await.expect("an answer");
    }
}

fn answer() -> Answer {
    Answer { status: 200, content_type: "text/plain".to_owned(), body: "hi".to_owned() }
}

/// When everything that was begun is long interrupted.
const LATER: i64 = 5_000;

/// What these tests give a lease for, or longer.
const LEASE: Duration = Duration::from_secs(90);

/// Everything of the others goes on, whatever was damaged; jobs that cannot be read end as dead.
async fn others_go_on(stores: &Stores, kind: &str) {
    let deliveries = stores.jobs.receive(10, at(LATER), at(LATER + 90), &Apart::default()).await.expect(kind);
    let good = deliveries.iter().find(|delivery| delivery.job.job.id.as_str() == "good-j");
    assert!(good.is_some_and(|good| good.job.unreadable.is_none()), "{kind}: {deliveries:?}");
    for delivery in &deliveries {
        let outcome = match &delivery.job.unreadable {
            Some(why) => Outcome::Dead { reason: why.clone() },
            None => Outcome::Done,
        };
        stores.jobs.settle(&delivery.receipt, &outcome, at(LATER)).await.expect(kind);
    }
    let again = stores
        .jobs
        .receive(10, at(LATER + 1_000_000), at(LATER + 1_000_090), &Apart::default())
        .await
        .expect(kind);
    assert_eq!(again, [], "{kind}: nothing is delivered for ever");
    let jobs = JobFilter { limit: 10, ..JobFilter::default() };
    let jobs = stores.jobs.list(&tenant(), &jobs, at(LATER)).await.expect(kind);
    assert!(jobs.iter().any(|job| job.job.id.as_str() == "good-j" && job.state == JobState::Done), "{kind}");

    let interrupted = stores.index.interrupted(at(LATER), LEASE, 10).await.expect(kind);
    assert!(
        interrupted.iter().any(|found| found.turn.id.as_str() == "good-held-t"),
        "{kind}: {interrupted:?}"
    );
    let filter = SessionFilter { limit: 2, ..SessionFilter::default() };
    let sessions = stores.index.list(&tenant(), &filter).await.expect(kind);
    assert_eq!(sessions.len(), 2, "{kind}: what cannot be read takes nobody's place");
    let filter = SessionFilter { limit: 10, ..SessionFilter::default() };
    let sessions = stores.index.list(&tenant(), &filter).await.expect(kind);
    for name in ["good-idle", "good-held"] {
        assert!(sessions.iter().any(|session| session.key.as_str() == name), "{kind}: {sessions:?}");
    }
    stores.index.parked(&tenant(), 10).await.expect(kind);
    let tokens = stores.tokens.list(&tenant()).await.expect(kind);
    assert!(tokens.iter().any(|token| token.id.as_str() == "good-u"), "{kind}: {tokens:?}");
    let rows = stores.audit.list(&tenant(), &AuditFilter { limit: 100, ..AuditFilter::default() }).await;
    let rows = rows.expect(kind);
    assert!(
        rows.iter().filter(|row| row.session.as_str().starts_with("good")).count() >= 2,
        "{kind}: {rows:?}"
    );
    stores.audit.verify(&tenant()).await.expect(kind);
    let claim = stores.answers.claim(&answer_key("good-a", "f"), at(60), at(90)).await.expect(kind);
    assert_eq!(claim, Claim::Answered(answer()), "{kind}");
    let key = SessionKey::new("good-idle");
    let messages = stores.sessions.transcript(&tenant(), &key, Window::newest(10)).await.expect(kind);
    assert_eq!(messages.len(), 2, "{kind}");
    run(stores, &new_turn("good-next", "good-idle"), LATER).await;
}

/// What belongs to the damaged session itself: its interrupted turn ends as failed, on record, its key has an answer that
/// stays, and the session goes on.
async fn an_unreadable_turn_ends_and_its_session_goes_on(stores: &Stores, kind: &str) {
    let again = keyed_turn("another", "bad-held", "bad-held-k");
    let begun = stores.sessions.begin(&again, at(LATER), at(LATER + 90)).await.expect(kind);
    let Begun::Unreadable(lease) = begun else { panic!("{kind}: {begun:?}") };
    assert_eq!(lease.turn, TurnId::new("bad-held-t"), "{kind}");
    stores
        .sessions
        .commit(&lease, &says("it failed"), &failed(ErrorKind::NotFound), at(LATER))
        .await
        .expect(kind);
    for now in [LATER + 10, LATER + 1_000] {
        let begun = stores.sessions.begin(&again, at(now), at(now + 90)).await.expect(kind);
        let Begun::Replayed(turn) = begun else { panic!("{kind}: {begun:?}") };
        assert!(matches!(turn.outcome, Some(TurnOutcome::Failed(_))), "{kind}: {turn:?}");
    }
    let found = stores.sessions.turn(&tenant(), &TurnId::new("bad-held-t")).await.expect(kind);
    assert!(found.is_some_and(|turn| turn.outcome.is_some()), "{kind}");
    run(stores, &new_turn("bad-next", "bad-held"), LATER + 2_000).await;
    let interrupted = stores.index.interrupted(at(LATER * 2), LEASE, 10).await.expect(kind);
    assert!(interrupted.iter().all(|found| found.turn.session.as_str() != "bad-held"), "{kind}");
    let head = stores.sessions.load(&tenant(), &SessionKey::new("bad-held")).await.expect(kind).expect(kind);
    stores.index.delete(&tenant(), &head.key, &head.id).await.expect(kind);
}

/// A session whose head cannot be read says so, and can be reset and deleted.
async fn an_unreadable_session_can_be_reset_and_deleted(stores: &Stores, session: &str, kind: &str) {
    let (tenant, key) = (tenant(), SessionKey::new(session));
    let begun = stores.sessions.begin(&new_turn("next", session), at(LATER), at(LATER + 90)).await;
    assert!(matches!(begun, Err(StoreError::Unreadable { .. })), "{kind}: {begun:?}");
    let loaded = stores.sessions.load(&tenant, &key).await;
    assert!(!matches!(loaded, Ok(None)), "{kind}: {loaded:?}");
    let theirs = ["other".into()];
    let fresh = Becomes::Empty(SessionId::new("fresh"));
    let refused = stores.index.repair(&tenant, &key, Some(&theirs), &fresh, at(LATER)).await;
    assert!(matches!(refused, Err(StoreError::NotFound)), "{kind}: {refused:?}");
    let repaired = stores.index.repair(&tenant, &key, None, &fresh, at(LATER)).await.expect(kind);
    assert_eq!(repaired.map(|session| (session.seq, session.holder)), Some((0, None)), "{kind}");
    run(stores, &new_turn("next", session), LATER).await;
    let sound = stores.index.repair(&tenant, &key, None, &Becomes::Nothing, at(LATER)).await;
    assert!(matches!(sound, Err(StoreError::NotFound)), "{kind}: a sound one is left alone: {sound:?}");
    let head = stores.sessions.load(&tenant, &key).await.expect(kind).expect(kind);
    stores.index.delete(&tenant, &key, &head.id).await.expect(kind);
    assert_eq!(stores.sessions.load(&tenant, &key).await.expect(kind), None, "{kind}");
}

/// As before, deleted at once.
async fn an_unreadable_session_can_be_deleted(stores: &Stores, session: &str, kind: &str) {
    let (tenant, key) = (tenant(), SessionKey::new(session));
    stores.index.repair(&tenant, &key, None, &Becomes::Nothing, at(LATER)).await.expect(kind);
    assert_eq!(stores.sessions.load(&tenant, &key).await.expect(kind), None, "{kind}");
    let new_session_id = SessionId::new("another transcript");
    run(stores, &NewTurn { new_session_id, ..new_turn("after", session) }, LATER).await;
}

/// A job that cannot be read is dead by its name, says so to whoever lists it, and cannot be redriven.
async fn an_unreadable_job_is_dead_by_its_name(stores: &Stores, kind: &str) {
    let filter = JobFilter { id: Some(JobId::new("bad-j")), state: None, limit: 1 };
    let jobs = stores.jobs.list(&tenant(), &filter, at(LATER)).await.expect(kind);
    let [job] = jobs.as_slice() else { panic!("{kind}: {jobs:?}") };
    assert_eq!((job.state, job.unreadable.is_some()), (JobState::Dead, true), "{kind}: {job:?}");
    let redriven = stores.jobs.redrive(&tenant(), &JobId::new("bad-j"), at(LATER)).await;
    assert!(matches!(redriven, Err(StoreError::Unreadable { .. })), "{kind}: {redriven:?}");
}

/// A key whose answer cannot be read says so each time.
async fn an_unreadable_answer_is_said_to_be_one(stores: &Stores, kind: &str) {
    for now in [60, 1_000] {
        let claim = stores.answers.claim(&answer_key("bad-a", "f"), at(now), at(now + 90)).await.expect(kind);
        assert_eq!(claim, Claim::Unreadable, "{kind}");
    }
}

/// What could not be read back is refused before it is stored.
async fn what_could_not_be_read_back_is_never_stored(stores: &Stores) {
    let mut deep = Value::Null;
    for _ in 0..200 {
        deep = Value::Array(vec![deep]);
    }
    let mut turn = new_turn("deep", "deep");
    turn.options = deep.clone();
    let begun = stores.sessions.begin(&turn, at(10), at(100)).await;
    assert!(matches!(begun, Err(StoreError::TooDeep { .. })), "{begun:?}");
    assert_eq!(stores.sessions.load(&tenant(), &SessionKey::new("deep")).await.expect("an answer"), None);
    let mut job = new_job("deep", "work");
    let Work::Turn(request) = &mut job.work;
    request.options.echo = deep;
    let enqueued = stores.jobs.enqueue(&job, Duration::ZERO, at(10)).await;
    assert!(matches!(enqueued, Err(StoreError::TooDeep { .. })), "{enqueued:?}");
    assert_eq!(
        stores.jobs.receive(10, at(LATER), at(LATER + 90), &Apart::default()).await.expect("an answer"),
        []
    );
    let lease = start(stores, &new_turn("t", "s"), 10, 100).await;
    let ended = stores.sessions.commit(&lease, &Step::default(), &done("fine"), at(20)).await;
    assert!(ended.is_ok(), "{ended:?}");
    assert!(stores.tokens.find(&PrincipalId::new("nobody")).await.expect("an answer").is_none());
}
