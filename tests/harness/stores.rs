//! Stores to test with, and the values that their tests store.

use serde_json::json;
use shared::adapters::memory::Memory;
use shared::adapters::onprem::Sqlite;
use shared::agent::{RunOptions, RunRequest};
use shared::answer::AnswerKey;
use shared::app::Stores;
use shared::audit::NewAudit;
use shared::clock::Timestamp;
use shared::error::ErrorKind;
use shared::id::{AgentId, JobId, PrincipalId, SessionId, SessionKey, TenantId, TurnId};
use shared::job::{NewJob, Work};
use shared::message::MessageBody;
use shared::model::{StopReason, Usage};
use shared::principal::{Scope, Token, secret_sha256};
use shared::session::{Begun, Failure, Idempotency, Lease, NewTurn, Reply, Session, Step, TurnOutcome};
use std::path::Path;
use std::sync::Arc;

/// Stores, and what must live as long as they do.
pub struct Backend {
    /// The stores.
    pub stores: Stores,
    pub(crate) _kept: Option<Box<dyn Send + Sync>>,
}

/// Empty stores in memory.
pub fn memory() -> Backend {
    Backend { stores: stores_of(&Arc::new(Memory::new())), _kept: None }
}

/// Empty stores of SQLite in a directory of their own.
pub fn sqlite() -> Backend {
    let directory = tempfile::tempdir().expect("a directory for data");
    Backend { stores: open_sqlite(directory.path()), _kept: Some(Box::new(directory)) }
}

/// SQLite on a directory that may hold data.
pub fn open_sqlite(directory: &Path) -> Stores {
    stores_of(&Arc::new(Sqlite::open(directory).expect("a data directory that opens")))
}

macro_rules! every_port {
    ($($port:path),* $(,)?) => {
        /// Something that is every storage port.
        pub trait EveryPort: $($port +)* 'static {}
        impl<T: $($port +)* 'static> EveryPort for T {}
    };
}
every_port!(
    shared::session::SessionStore,
    shared::session::SessionIndex,
    shared::job::JobQueue,
    shared::limit::RateLimiter,
    shared::principal::TokenStore,
    shared::answer::AnswerStore,
    shared::audit::AuditLog,
);

/// The stores that one adapter is.
pub fn stores_of<T: EveryPort>(adapter: &Arc<T>) -> Stores {
    Stores {
        sessions: adapter.clone(),
        index: adapter.clone(),
        jobs: adapter.clone(),
        limits: adapter.clone(),
        tokens: adapter.clone(),
        answers: adapter.clone(),
        audit: adapter.clone(),
    }
}

/// A time, in milliseconds.
pub const fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// The tenant of most tests.
pub fn tenant() -> TenantId {
    TenantId::new("main")
}

/// A turn of the agent `mail`, by the principal `alice`, without a key, that says `hello from <turn>`.
pub fn new_turn(turn: &str, session: &str) -> NewTurn {
    NewTurn {
        turn: TurnId::new(turn),
        tenant: tenant(),
        session: SessionKey::new(session),
        new_session_id: SessionId::new(format!("first transcript of {session}")),
        agent: AgentId::new("mail"),
        principal: PrincipalId::new("alice"),
        user: None,
        channel: "webchat".to_owned(),
        idempotency: None,
        input: vec![MessageBody::user_text(format!("hello from {turn}"))],
        options: json!({ "trigger": "chat" }),
        audit: audit(&format!("{turn} accepted"), 0, "turn.accepted"),
    }
}

/// As [`new_turn`], with an idempotency key and the fingerprint `same`.
pub fn keyed_turn(turn: &str, session: &str, key: &str) -> NewTurn {
    NewTurn { idempotency: Some(idempotency(key, "same")), ..new_turn(turn, session) }
}

/// A key and a fingerprint.
pub fn idempotency(key: &str, fingerprint: &str) -> Idempotency {
    Idempotency { key: key.to_owned(), fingerprint: fingerprint.to_owned() }
}

/// As [`idempotency`], of a request by `alice`.
pub fn answer_key(key: &str, fingerprint: &str) -> AnswerKey {
    AnswerKey {
        tenant: tenant(),
        principal: PrincipalId::new("alice"),
        idempotency: idempotency(key, fingerprint),
    }
}

/// A token without limits that may chat, whose secret is its id.
pub fn token(id: &str, created: i64) -> Token {
    Token {
        id: PrincipalId::new(id),
        tenant: tenant(),
        name: format!("token {id}"),
        secret_sha256: secret_sha256(id),
        scopes: vec![Scope::Chat],
        agents: None,
        cidrs: None,
        limit: None,
        created_at: at(created),
        expires_at: None,
        revoked_at: None,
    }
}

/// A row for the audit trail.
pub fn audit(id: &str, millis: i64, action: &str) -> NewAudit {
    NewAudit {
        id: id.to_owned(),
        at: at(millis),
        principal: PrincipalId::new("alice"),
        action: action.to_owned(),
        detail: json!({ "row": id }),
    }
}

/// A step of one assistant message and no audit row.
pub fn says(text: &str) -> Step {
    Step { messages: vec![MessageBody::assistant_text(text)], audit: Vec::new() }
}

/// A turn that ended well.
pub fn done(text: &str) -> TurnOutcome {
    TurnOutcome::Done(Reply {
        text: text.to_owned(),
        tool_calls: Vec::new(),
        stop: StopReason::End,
        usage: Usage { input_tokens: 7, output_tokens: 3, ..Usage::default() },
        model: "demo/echo".to_owned(),
        at: at(5),
    })
}

/// A turn that failed.
pub fn failed(kind: ErrorKind) -> TurnOutcome {
    TurnOutcome::Failed(Failure { kind, message: "it failed".to_owned(), param: None, retry_after: None })
}

/// Begins a turn that must start; the lease runs to `until`.
pub async fn start(stores: &Stores, turn: &NewTurn, now: i64, until: i64) -> Lease {
    match stores.sessions.begin(turn, at(now), at(until)).await {
        Ok(Begun::Started(lease)) => lease,
        other => unreachable!("{} does not start: {other:?}", turn.turn),
    }
}

/// Begins a turn and ends it with a reply, at one time.
pub async fn run(stores: &Stores, turn: &NewTurn, now: i64) -> Lease {
    let lease = start(stores, turn, now, now + 90).await;
    let reply = format!("reply to {}", turn.turn);
    stores.sessions.commit(&lease, &says(&reply), &done(&reply), at(now)).await.expect("a commit");
    lease
}

/// The id of the session's present transcript.
pub async fn transcript_of(stores: &Stores, session: &str) -> SessionId {
    let found = stores.sessions.load(&tenant(), &SessionKey::new(session)).await.expect("an answer");
    found.expect("a session").id
}

/// Deletes a session that is there, whichever its present transcript is.
pub async fn delete(stores: &Stores, session: &str) {
    let from = transcript_of(stores, session).await;
    stores.index.delete(&tenant(), &SessionKey::new(session), &from).await.expect("a deletion");
}

/// Resets a session that is there, whichever its present transcript is.
pub async fn reset(stores: &Stores, session: &str, id: &str, now: i64) -> Session {
    let (key, from) = (SessionKey::new(session), transcript_of(stores, session).await);
    let reset = stores.index.reset(&tenant(), &key, &from, &SessionId::new(id), at(now)).await;
    reset.expect("a reset")
}

/// A job whose turn begins with this text.
pub fn new_job(id: &str, text: &str) -> NewJob {
    let request = RunRequest {
        turn: TurnId::new(id),
        tenant: tenant(),
        principal: PrincipalId::new("alice"),
        agent: AgentId::new("mail"),
        session: SessionKey::new("s"),
        sticky: false,
        idempotency: None,
        input: vec![MessageBody::user_text(text)],
        options: RunOptions::default(),
    };
    NewJob { id: JobId::new(id), tenant: tenant(), work: Work::Turn(Box::new(request)) }
}
