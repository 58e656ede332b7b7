//! Each durable backend compared with memory over random lists of operations: every answer, and at the end everything
//! that is kept.
//!
//! An operation picks what it works on by index, modulo what there is, so that any part of a failing list is a valid
//! list and a failure shrinks to the few operations that matter.

#![expect(clippy::expect_used, reason = "a case that cannot be set up fails")]

use harness::dynamo::dynamodb;
use harness::stores::{Backend, at, audit, done, failed, idempotency, memory, says, sqlite};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;
use shared::agent::{RunOptions, RunRequest};
use shared::answer::{Answer, AnswerKey};
use shared::app::Stores;
use shared::audit::AuditFilter;
use shared::error::{ErrorKind, StoreError};
use shared::id::{AgentId, JobId, PrincipalId, SessionId, SessionKey, TenantId, TurnId};
use shared::job::{Apart, JobFilter, JobState, NewJob, Outcome, Receipt, Work};
use shared::limit::Limit;
use shared::message::{MessageBody, ToolCall};
use shared::principal::Token;
use shared::session::{Begun, Lease, NewTurn, Parked, SessionFilter, Step, TurnOutcome, Window};
use std::fmt::Debug;
use std::time::Duration;

/// When the operations begin: late enough that a clock which is set back by any of them stays behind the epoch.
const START: i64 = 1_795_132_800_000;

/// The longest that an operation here gives a lease for.
const LEASE: Duration = Duration::from_millis(60);

/// What is asked of both stores. Small numbers pick from small sets, so that operations meet.
#[derive(Debug, Clone)]
enum Op {
    Wait {
        millis: u16,
    },
    /// Long enough that some of what is kept for a while is forgotten.
    WaitDays {
        days: u8,
    },
    /// The clock is set right: it was ahead.
    SetBack {
        seconds: u16,
    },
    Begin {
        turn: Pick,
        session: u8,
        key: Option<u8>,
        body: bool,
        principal: bool,
        tenant: bool,
        lease: u8,
    },
    Append {
        lease: usize,
        messages: u8,
        summary: bool,
        audits: u8,
        extend: u8,
    },
    Commit {
        lease: usize,
        outcome: u8,
    },
    Transcript {
        session: u8,
        newest: u8,
        after: u8,
        before: Option<u8>,
    },
    List {
        agents: Option<u8>,
        before: Option<u8>,
        limit: u8,
    },
    Interrupted {
        limit: u8,
    },
    Parked {
        limit: u8,
    },
    Reset {
        session: u8,
        stale: bool,
    },
    Delete {
        session: u8,
        stale: bool,
    },
    Enqueue {
        job: u8,
        delay: u8,
    },
    Receive {
        max: u8,
        hidden: u8,
        aside: Option<u8>,
    },
    Extend {
        receipt: usize,
        hidden: u8,
    },
    Settle {
        receipt: usize,
        outcome: u8,
    },
    Redrive {
        job: u8,
    },
    ListJobs {
        state: u8,
        limit: u8,
    },
    Take {
        subject: u8,
    },
    InsertToken {
        token: u8,
    },
    Revoke {
        token: u8,
    },
    Claim {
        key: u8,
        body: bool,
        lease: u8,
    },
    Store {
        key: u8,
        body: bool,
    },
    Release {
        key: u8,
        body: bool,
    },
    Prune {
        age: u16,
    },
    ListAudit {
        session: Option<u8>,
        since: Option<u8>,
        limit: u8,
    },
}

/// Which turn: a new one, or one that was named before.
#[derive(Debug, Clone)]
enum Pick {
    New,
    Known(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let pick = prop_oneof![3 => Just(Pick::New), 1 => any::<usize>().prop_map(Pick::Known)];
    let begin =
        (pick, 0..4_u8, prop::option::of(0..4_u8), prop::bool::weighted(0.9), any::<bool>(), 0..60_u8)
            .prop_flat_map(|(turn, session, key, body, principal, lease)| {
                prop::bool::weighted(0.2).prop_map(move |tenant| {
                    let turn = turn.clone();
                    Op::Begin { turn, session, key, body, principal, tenant, lease }
                })
            });
    prop_oneof![
        3 => (0..80_u16).prop_map(|millis| Op::Wait { millis }),
        1 => (1..32_u8).prop_map(|days| Op::WaitDays { days }),
        1 => (1..4_000_u16).prop_map(|seconds| Op::SetBack { seconds }),
        9 => begin,
        5 => (any::<usize>(), 0..3_u8, prop::bool::weighted(0.2), 0..3_u8, 0..60_u8).prop_map(
            |(lease, messages, summary, audits, extend)| Op::Append { lease, messages, summary, audits, extend }
        ),
        7 => (any::<usize>(), 0..6_u8).prop_map(|(lease, outcome)| Op::Commit { lease, outcome }),
        1 => (0..4_u8, 0..8_u8, 0..6_u8, prop::option::of(0..9_u8)).prop_map(
            |(session, newest, after, before)| Op::Transcript { session, newest, after, before }
        ),
        1 => (prop::option::of(0..8_u8), prop::option::of(0..90_u8), 0..5_u8).prop_map(
            |(agents, before, limit)| Op::List { agents, before, limit }
        ),
        1 => (0..4_u8).prop_map(|limit| Op::Interrupted { limit }),
        1 => (0..4_u8).prop_map(|limit| Op::Parked { limit }),
        1 => (0..4_u8, prop::bool::weighted(0.2)).prop_map(|(session, stale)| Op::Reset { session, stale }),
        1 => (0..4_u8, prop::bool::weighted(0.2)).prop_map(|(session, stale)| Op::Delete { session, stale }),
        2 => (0..5_u8, 0..40_u8).prop_map(|(job, delay)| Op::Enqueue { job, delay }),
        3 => (0..4_u8, 0..60_u8, prop::option::of(0..3_u8)).prop_map(
            |(max, hidden, aside)| Op::Receive { max, hidden, aside }
        ),
        1 => (any::<usize>(), 0..60_u8).prop_map(|(receipt, hidden)| Op::Extend { receipt, hidden }),
        3 => (any::<usize>(), 0..4_u8).prop_map(|(receipt, outcome)| Op::Settle { receipt, outcome }),
        1 => (0..5_u8).prop_map(|job| Op::Redrive { job }),
        1 => (0..4_u8, 0..5_u8).prop_map(|(state, limit)| Op::ListJobs { state, limit }),
        2 => (0..3_u8).prop_map(|subject| Op::Take { subject }),
        1 => (0..3_u8).prop_map(|token| Op::InsertToken { token }),
        1 => (0..3_u8).prop_map(|token| Op::Revoke { token }),
        2 => (0..4_u8, prop::bool::weighted(0.9), 0..60_u8).prop_map(
            |(key, body, lease)| Op::Claim { key, body, lease }
        ),
        1 => (0..4_u8, prop::bool::weighted(0.9)).prop_map(|(key, body)| Op::Store { key, body }),
        1 => (0..4_u8, prop::bool::weighted(0.9)).prop_map(|(key, body)| Op::Release { key, body }),
        1 => (0..300_u16).prop_map(|age| Op::Prune { age }),
        1 => (prop::option::of(0..4_u8), prop::option::of(0..90_u8), 0..6_u8).prop_map(
            |(session, since, limit)| Op::ListAudit { session, since, limit }
        ),
    ]
}

/// What the operations may name: everything that one of the stores has handed out. Both stores answer the same, so
/// one list does for both.
#[derive(Default)]
struct World {
    now: i64,
    was_set_back: bool,
    waited_days: bool,
    made: u32,
    turns: Vec<TurnId>,
    leases: Vec<Lease>,
    receipts: Vec<Receipt>,
}

fn pick<T: Clone>(from: &[T], index: usize) -> Option<T> {
    from.get(index.checked_rem(from.len())?).cloned()
}

fn tenant(other: bool) -> TenantId {
    TenantId::new(if other { "other" } else { "main" })
}

fn session(number: u8) -> SessionKey {
    SessionKey::new(format!("s{number}"))
}

/// Each session has its agent.
fn agent(number: u8) -> AgentId {
    AgentId::new(["mail", "research", "code"][usize::from(number) % 3])
}

fn answer_key(key: u8, body: bool) -> AnswerKey {
    AnswerKey {
        tenant: tenant(false),
        principal: PrincipalId::new("alice"),
        idempotency: idempotency(&format!("k{key}"), if body { "same" } else { "other" }),
    }
}

fn job(number: u8) -> NewJob {
    let request = RunRequest {
        turn: TurnId::new("t"),
        tenant: tenant(false),
        principal: PrincipalId::new("alice"),
        agent: agent(number),
        session: session(number),
        sticky: false,
        idempotency: None,
        input: vec![MessageBody::user_text("hello")],
        options: RunOptions::default(),
    };
    NewJob {
        id: JobId::new(format!("j{number}")),
        tenant: tenant(false),
        work: Work::Turn(Box::new(request)),
    }
}

fn outcome(number: u8, now: i64) -> TurnOutcome {
    match number {
        0 => failed(ErrorKind::Upstream),
        1 => failed(ErrorKind::Internal),
        2 => {
            let call = ToolCall { id: "c".to_owned(), name: "pay".to_owned(), arguments: "{}".to_owned() };
            TurnOutcome::Parked(Parked { call, at: at(now) })
        }
        _ => done("hi"),
    }
}

/// A text that two equal answers share; of an error its kind, since causes differ between technologies.
fn text<T: Debug>(answer: &Result<T, StoreError>) -> String {
    match answer {
        Ok(answer) => format!("{answer:?}"),
        Err(StoreError::Fenced) => "fenced".to_owned(),
        Err(StoreError::NotFound) => "not found".to_owned(),
        Err(StoreError::TooLarge { .. }) => "too large".to_owned(),
        Err(StoreError::TooDeep { .. }) => "too deep".to_owned(),
        Err(StoreError::Elsewhere { .. }) => "elsewhere".to_owned(),
        Err(StoreError::Unreadable { .. }) => "unreadable".to_owned(),
        Err(StoreError::Broken(_)) => "broken".to_owned(),
        Err(StoreError::Unavailable(cause)) => unreachable!("a store on this machine is not there: {cause}"),
    }
}

/// Asks both stores; fails unless they answer the same.
macro_rules! both {
    ($stores:ident, $port:ident.$method:ident($($arg:expr),*)) => {{
        let reference = $stores[0].$port.$method($($arg),*).await;
        let answer = $stores[1].$port.$method($($arg),*).await;
        prop_assert_eq!(text(&answer), text(&reference), "the backend (left) and memory (right) differ");
        reference
    }};
}

/// The session's present transcript, or one that is not.
async fn present(stores: &Stores, number: u8, stale: bool) -> SessionId {
    let found = stores.sessions.load(&tenant(false), &session(number)).await.ok().flatten();
    let present = found.filter(|_| !stale).map(|session| session.id);
    present.unwrap_or_else(|| SessionId::new("not the present one"))
}

impl World {
    fn fresh(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what} {:04}", self.made)
    }

    async fn apply(&mut self, op: Op, stores: &[&Stores; 2]) -> Result<(), TestCaseError> {
        let now = at(self.now);
        let later = |millis: u8| now + Duration::from_millis(u64::from(millis));
        let ago = |millis: u8| now - Duration::from_millis(u64::from(millis));
        match op {
            Op::Wait { millis } => self.now += i64::from(millis),
            Op::WaitDays { days } => {
                self.now += i64::from(days) * 24 * 60 * 60 * 1_000;
                self.waited_days = true;
            }
            // What was forgotten while the clock was ahead may be gone or not.
            Op::SetBack { .. } if self.waited_days => {}
            Op::SetBack { seconds } => {
                self.now -= i64::from(seconds) * 1_000;
                self.was_set_back = true;
            }
            Op::Begin { turn, session: number, key, body, principal, tenant: other, lease } => {
                let known = if let Pick::Known(index) = turn { pick(&self.turns, index) } else { None };
                let turn = known.unwrap_or_else(|| TurnId::new(self.fresh("turn")));
                let new = NewTurn {
                    turn: turn.clone(),
                    tenant: tenant(other),
                    session: session(number),
                    new_session_id: SessionId::new(self.fresh("transcript")),
                    agent: agent(number),
                    principal: PrincipalId::new(if principal { "alice" } else { "bob" }),
                    user: (number % 2 == 0).then(|| format!("user {number}")),
                    channel: "webchat".to_owned(),
                    idempotency: key
                        .map(|key| idempotency(&format!("k{key}"), if body { "same" } else { "other" })),
                    input: vec![MessageBody::user_text(self.fresh("input"))],
                    options: json!({ "turn": turn.as_str() }),
                    audit: audit(&self.fresh("row"), self.now, "turn.accepted"),
                };
                let until = later(lease);
                match both!(stores, sessions.begin(&new, now, until)) {
                    Ok(Begun::Started(lease) | Begun::Resumed { lease, .. }) => self.leases.push(lease),
                    Ok(Begun::Orphaned(orphan)) => self.turns.push(orphan.id),
                    _ => {}
                }
                self.turns.push(turn);
            }
            Op::Append { lease, messages, summary, audits, extend } => {
                let Some(lease) = pick(&self.leases, lease) else { return Ok(()) };
                let mut step = Step::default();
                for _ in 0..messages {
                    step.messages.push(MessageBody::assistant_text(self.fresh("step")));
                }
                if summary {
                    step.messages
                        .push(MessageBody::Summary { text: self.fresh("summary"), through: lease.seq });
                }
                for _ in 0..audits {
                    step.audit.push(audit(&self.fresh("row"), self.now, "model.fallback"));
                }
                let until = later(extend);
                if let Ok(next) = both!(stores, sessions.append(&lease, &step, now, until)) {
                    self.leases.push(next);
                }
                // As after an answer that was lost.
                let _ = both!(stores, sessions.append(&lease, &step, now, until));
            }
            Op::Commit { lease, outcome: number } => {
                let Some(lease) = pick(&self.leases, lease) else { return Ok(()) };
                let mut last = says(&self.fresh("reply"));
                last.audit.push(audit(&self.fresh("row"), self.now, "turn.committed"));
                let outcome = outcome(number, self.now);
                let _ = both!(stores, sessions.commit(&lease, &last, &outcome, now));
                let _ = both!(stores, sessions.commit(&lease, &last, &outcome, now));
            }
            Op::Transcript { session: number, newest, after, before } => {
                let window =
                    Window { newest: newest.into(), after: after.into(), before: before.map(u64::from) };
                let _ = both!(stores, sessions.transcript(&tenant(false), &session(number), window));
            }
            Op::List { agents, before, limit } => {
                let filter = SessionFilter {
                    agents: agents
                        .map(|mask| (0..3).filter(|bit| mask & (1 << bit) != 0).map(agent).collect()),
                    user: (limit == 4).then(|| "user 2".to_owned()),
                    updated_before: before.map(ago),
                    limit: limit.into(),
                };
                let _ = both!(stores, index.list(&tenant(false), &filter));
            }
            Op::Interrupted { limit } => {
                let _ = both!(stores, index.interrupted(now, LEASE, limit.into()));
            }
            Op::Parked { limit } => {
                let _ = both!(stores, index.parked(&tenant(false), limit.into()));
            }
            Op::Reset { session: number, stale } => {
                let id = SessionId::new(self.fresh("transcript"));
                let from = present(stores[0], number, stale).await;
                let _ = both!(stores, index.reset(&tenant(false), &session(number), &from, &id, now));
            }
            Op::Delete { session: number, stale } => {
                let from = present(stores[0], number, stale).await;
                let _ = both!(stores, index.delete(&tenant(false), &session(number), &from));
            }
            Op::Enqueue { job: number, delay } => {
                let delay = Duration::from_millis(delay.into());
                let _ = both!(stores, jobs.enqueue(&job(number), delay, now));
            }
            Op::Receive { max, hidden, aside } => {
                let until = later(hidden);
                let mut apart = Apart::default();
                if let Some(number) = aside {
                    apart.agents.insert(agent(number));
                }
                let deliveries =
                    both!(stores, jobs.receive(max.into(), now, until, &apart)).unwrap_or_default();
                self.receipts.extend(deliveries.into_iter().map(|delivery| delivery.receipt));
            }
            Op::Extend { receipt, hidden } => {
                let Some(receipt) = pick(&self.receipts, receipt) else { return Ok(()) };
                let until = later(hidden);
                let _ = both!(stores, jobs.extend(&receipt, now, until));
            }
            Op::Settle { receipt, outcome } => {
                let Some(receipt) = pick(&self.receipts, receipt) else { return Ok(()) };
                let reason = self.fresh("reason");
                let after = Duration::from_millis(20);
                let outcome = match outcome {
                    0 => Outcome::Done,
                    1 => Outcome::Dead { reason },
                    _ => Outcome::Retry { after, counts: outcome % 2 == 0, reason },
                };
                let _ = both!(stores, jobs.settle(&receipt, &outcome, now));
            }
            Op::Redrive { job: number } => {
                let _ = both!(stores, jobs.redrive(&tenant(false), &job(number).id, now));
            }
            Op::ListJobs { state, limit } => {
                let states = [None, Some(JobState::Pending), Some(JobState::Done), Some(JobState::Dead)];
                let filter = JobFilter { id: None, state: states[usize::from(state)], limit: limit.into() };
                let _ = both!(stores, jobs.list(&tenant(false), &filter, now));
            }
            Op::Take { subject } => {
                let limit = Limit { per_second: 30.0, burst: 1 };
                let _ = both!(stores, limits.take(&format!("subject {subject}"), limit, now));
            }
            Op::InsertToken { token } => {
                let token = Token {
                    tenant: tenant(token == 2),
                    name: self.fresh("token"),
                    agents: Some(vec![agent(token)]),
                    limit: Some(Limit::default()),
                    created_at: now,
                    ..harness::stores::token(&format!("token{token}"), 0)
                };
                let _ = both!(stores, tokens.insert(&token));
            }
            Op::Revoke { token } => {
                let id = PrincipalId::new(format!("token{token}"));
                let _ = both!(stores, tokens.revoke(&tenant(false), &id, now));
                let _ = both!(stores, tokens.find(&id));
            }
            Op::Claim { key, body, lease } => {
                let until = later(lease);
                let _ = both!(stores, answers.claim(&answer_key(key, body), now, until));
            }
            Op::Store { key, body } => {
                let body_text = self.fresh("body");
                let answer = Answer { status: 200, content_type: "text/plain".to_owned(), body: body_text };
                let _ = both!(stores, answers.store(&answer_key(key, body), &answer, now));
            }
            Op::Release { key, body } => {
                let _ = both!(stores, answers.release(&answer_key(key, body)));
            }
            // In a chain whose times do not grow rows are missing between others afterwards.
            Op::Prune { .. } if self.was_set_back => {}
            Op::Prune { age } => {
                let before = now - Duration::from_millis(age.into());
                let _ = both!(stores, audit.prune(&tenant(false), before));
            }
            Op::ListAudit { session: number, since, limit } => {
                let filter = AuditFilter {
                    session: number.map(session),
                    since: since.map(ago),
                    until: (limit == 5).then_some(now),
                    limit: limit.into(),
                    ..AuditFilter::default()
                };
                let _ = both!(stores, audit.list(&tenant(false), &filter));
                let _ = both!(stores, audit.count(&tenant(false), &filter));
            }
        }
        Ok(())
    }

    /// Compares everything that the stores keep.
    async fn compare(&self, stores: &[&Stores; 2]) -> Result<(), TestCaseError> {
        let end_of_time = at(i64::MAX);
        let _ = both!(stores, index.interrupted(end_of_time, LEASE, usize::MAX));
        for tenant in [tenant(false), tenant(true)] {
            let sessions = SessionFilter { limit: usize::MAX, ..SessionFilter::default() };
            let _ = both!(stores, index.list(&tenant, &sessions));
            for number in 0..4 {
                let everything = Window::newest(usize::MAX);
                let _ = both!(stores, sessions.load(&tenant, &session(number)));
                let _ = both!(stores, sessions.transcript(&tenant, &session(number), everything));
            }
            for turn in &self.turns {
                let _ = both!(stores, sessions.turn(&tenant, turn));
            }
            let _ = both!(stores, index.parked(&tenant, usize::MAX));
            let jobs = JobFilter { limit: usize::MAX, ..JobFilter::default() };
            let _ = both!(stores, jobs.list(&tenant, &jobs, at(self.now)));
            let _ = both!(stores, tokens.list(&tenant));
            let rows = AuditFilter { limit: usize::MAX, ..AuditFilter::default() };
            let _ = both!(stores, audit.list(&tenant, &rows));
            let verdict = both!(stores, audit.verify(&tenant)).expect("a verdict");
            prop_assert_eq!(verdict.broken, Vec::<String>::new());
        }
        for key in 0..4 {
            let _ = both!(stores, answers.claim(&answer_key(key, true), at(self.now), end_of_time));
        }
        Ok(())
    }
}

/// Asks memory and this backend.
async fn compare(ops: Vec<Op>, durable: &Backend) -> Result<(), TestCaseError> {
    let reference = memory();
    let stores = [&reference.stores, &durable.stores];
    let mut world = World { now: START, ..World::default() };
    for op in ops {
        world.apply(op, &stores).await?;
    }
    world.compare(&stores).await
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

proptest! {
    // Bounded for CI: a few seconds in a debug build.
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_answers_as_memory_does(ops in vec(op(), 1..120)) {
        runtime().block_on(compare(ops, &sqlite()))?;
    }
}

proptest! {
    // Each operation is several requests over HTTP.
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn dynamodb_answers_as_memory_does(ops in vec(op(), 1..160)) {
        // Jobs that a clock hid are found by their messages there.
        let ops = ops.into_iter().filter(|op| !matches!(op, Op::SetBack { .. })).collect();
        runtime().block_on(async { compare(ops, &dynamodb().await).await })?;
    }
}
