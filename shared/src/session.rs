//! Sessions and turns: a turn's life from its acceptance to its stored reply, and the ports that keep it.
//!
//! The transcript is the journal: there is no second log. A turn takes the session's lease in [`SessionStore::begin`],
//! journals each step with [`SessionStore::append`] and ends with [`SessionStore::commit`]; each is one atomic step.

use crate::audit::NewAudit;
use crate::bounds::KEYS_KEPT;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, StoreError};
use crate::id::{AgentId, PrincipalId, SessionId, SessionKey, TenantId, TurnId};
use crate::message::{Message, MessageBody, ToolCall};
use crate::model::{StopReason, Usage};
use crate::region::Home;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::cmp::Ordering;
use std::time::Duration;

/// A session's head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Whose data.
    pub tenant: TenantId,
    /// Its stable name.
    pub key: SessionKey,
    /// Its present transcript.
    pub id: SessionId,
    /// Whose session.
    pub agent: AgentId,
    /// The end user that a client named, if any.
    pub user: Option<String>,
    /// Where it is held, e.g. `webchat`.
    pub channel: String,
    /// When the key was first used.
    pub created_at: Timestamp,
    /// When a message was last recorded, or the session was made or reset.
    pub updated_at: Timestamp,
    /// Grows at each change of home; 0 on a site.
    pub epoch: u64,
    /// Position of the newest message; 0 when there is none.
    pub seq: u64,
    /// The prompt starts behind this position: what a compaction summary covers. 0 without one.
    pub summarised_through: u64,
    /// The turn at work, or interrupted, if there is one, and until when its lease runs.
    pub holder: Option<Holder>,
}

/// Who holds a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The turn.
    pub turn: TurnId,
    /// From then on another process may take the turn over.
    pub until: Timestamp,
}

/// The right to write one session until [`Lease::until`], and what the session looked like when it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whose data.
    pub tenant: TenantId,
    /// Which session.
    pub session: SessionKey,
    /// Which transcript.
    pub session_id: SessionId,
    /// For which turn.
    pub turn: TurnId,
    /// Grows with each lease on the session: a write with an older one is refused.
    pub fence: u64,
    /// From then on another process may take over.
    pub until: Timestamp,
    /// See [`Session::epoch`].
    pub epoch: u64,
    /// Position of the newest message, this turn's input included.
    pub seq: u64,
    /// See [`Session::summarised_through`].
    pub summarised_through: u64,
}

/// A client's promise that two requests are the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// The client's key; unique within tenant and principal.
    pub key: String,
    /// SHA-256 of what was asked, in hex.
    pub fingerprint: String,
}

impl Idempotency {
    /// How long a key is remembered: 30 days. Whoever asks again for somebody else is a queue, and SQS keeps a message
    /// for 14 days at most, those among the dead letters included.
    ///
    /// From then on the key is free, whatever became of the request. Nothing that may come later rests on its record:
    ///
    /// - A turn is found by its id and by its session. That is how the sweep finishes an interrupted one, how a job that
    ///   is delivered or redriven again meets its own turn (jobs' turns have no key, their id is the job's), and how
    ///   `/v1/responses` looks one up. Turns go with their session only.
    /// - A turn that is still at work, or was interrupted, holds its session: a request that uses the key anew waits for
    ///   it or finishes it first, as any other request does, and is then a turn of its own.
    /// - Late turns of another region are told apart by when they were accepted: two under one key are the same only if
    ///   one was accepted while the record of the other still counted.
    /// - What a request makes under an id of its key (a hook's turn, a background response, a reset) has that id for
    ///   good: the same request makes nothing a second time, also when its answer is forgotten.
    pub const KEPT: Duration = KEYS_KEPT;

    /// Until when the record of a key counts that was last accepted at this time: at that moment it counts no longer.
    pub fn kept_until(accepted: Timestamp) -> Timestamp {
        (accepted + Self::KEPT).up_to_second()
    }
}

/// A turn about to be accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTurn {
    /// A new id, or that of a turn to resume.
    pub turn: TurnId,
    /// Whose data.
    pub tenant: TenantId,
    /// On which session; it is made if it is new.
    pub session: SessionKey,
    /// The transcript's id if the session is new.
    pub new_session_id: SessionId,
    /// Whose session. A session never changes its agent.
    pub agent: AgentId,
    /// Who asks.
    pub principal: PrincipalId,
    /// The end user that the client named.
    pub user: Option<String>,
    /// Where, e.g. `webchat`.
    pub channel: String,
    /// The client's key and fingerprint.
    pub idempotency: Option<Idempotency>,
    /// What the transcript gains, oldest first. Not written again when the turn is resumed.
    pub input: Vec<MessageBody>,
    /// [`crate::agent::RunOptions`] as JSON: what a resumption in another process must know.
    pub options: Value,
    /// Written with the input, in the same atomic step.
    pub audit: NewAudit,
}

/// What [`SessionStore::begin`] found.
#[derive(Debug, Clone, PartialEq)]
pub enum Begun {
    /// Accepted and stored. The lease's turn is the caller's, or, after a failure that may be retried under the same
    /// idempotency key, the earlier one's.
    Started(Lease),
    /// The same turn, interrupted: its lease had run out, and is the caller's now.
    Resumed {
        /// The new lease.
        lease: Lease,
        /// What the turn had recorded after its input, oldest first: continue behind it.
        steps: Vec<Message>,
        /// How often it was resumed since it recorded its newest message, this time included.
        tries: u32,
    },
    /// The same turn, interrupted, and what is stored of it cannot be read: its lease is the caller's now, to end it. Whether
    /// it went on anywhere is not known, so it is not run again.
    Unreadable(Lease),
    /// The same turn, finished before.
    Replayed(Box<Turn>),
    /// The session is at work until (at most) then: on this very turn, or on another one.
    Busy {
        /// The lease's end.
        until: Timestamp,
        /// Which turn holds it.
        turn: TurnId,
    },
    /// Another turn on this session was interrupted and its lease has run out: resume that one first, then ask again.
    Orphaned(Box<Turn>),
    /// The idempotency key was used with another fingerprint.
    Mismatch,
    /// Another region writes the session: ask there. Never answered by a store of one region.
    Elsewhere(Home),
}

/// What is recorded in one atomic step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Step {
    /// Appended to the transcript; may be empty.
    pub messages: Vec<MessageBody>,
    /// Written to the audit trail; may be empty.
    pub audit: Vec<NewAudit>,
}

/// How a turn ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum TurnOutcome {
    /// With a reply.
    Done(Reply),
    /// With an error.
    Failed(Failure),
    /// A `once` tool was interrupted: whether it ran cannot be known. Never run again by itself.
    Parked(Parked),
}

/// A turn's reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// All text of the turn, steps joined as they were streamed.
    pub text: String,
    /// Tools that the client is asked to run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Why the model stopped.
    pub stop: StopReason,
    /// Tokens of all model calls of the turn.
    pub usage: Usage,
    /// Which model answered, `provider/model`.
    pub model: String,
    /// When it was complete.
    pub at: Timestamp,
}

/// A turn's error, storable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind.
    pub kind: ErrorKind,
    /// For the caller.
    pub message: String,
    /// The request's field, if one was wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
    /// When to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            kind: error.kind,
            message: error.message.clone(),
            param: error.param.clone(),
            retry_after: error.retry_after,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let mut error = Self::new(failure.kind, failure.message);
        error.param = failure.param;
        error.retry_after = failure.retry_after;
        error
    }
}

/// A tool call whose effect is not known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parked {
    /// The call.
    pub call: ToolCall,
    /// When it was found interrupted.
    pub at: Timestamp,
}

impl Failure {
    /// What is left to be said of a turn whose record cannot be read. For good: nobody knows what running it again would do
    /// twice.
    pub fn unreadable() -> Self {
        Self {
            kind: ErrorKind::NotFound,
            message: "what was stored of this turn cannot be read any more, so it was ended as failed; whether its tools \
                      took effect is not known. To ask again, use a new idempotency key"
                .to_owned(),
            param: None,
            retry_after: None,
        }
    }
}

impl TurnOutcome {
    /// Whether the same idempotency key may run the turn again: after a failure that can pass.
    pub const fn may_run_again(&self) -> bool {
        matches!(self, Self::Failed(failure) if failure.kind.is_retryable())
    }
}

/// A turn as stored. Of one whose record cannot be read, what can be: its options are null then, and if it has ended, and
/// not even its outcome is left, that is [`Failure::unreadable`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Which.
    pub id: TurnId,
    /// Whose data.
    pub tenant: TenantId,
    /// On which session.
    pub session: SessionKey,
    /// On which transcript.
    pub session_id: SessionId,
    /// Whose session.
    pub agent: AgentId,
    /// Who asked.
    pub principal: PrincipalId,
    /// The end user that the client named.
    pub user: Option<String>,
    /// Where.
    pub channel: String,
    /// See [`NewTurn::options`].
    pub options: Value,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// When it ended; `None` while it is at work or interrupted.
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<TurnOutcome>,
}

/// A turn without an end whose lease ran out.
#[derive(Debug, Clone, PartialEq)]
pub struct Interrupted {
    /// The turn.
    pub turn: Turn,
    /// How often it was resumed since its last step.
    pub tries: u32,
}

impl Interrupted {
    /// Resumptions in vain from which on a turn is a suspect: it may be what its process dies of. The first may have been
    /// taken along by another one's end.
    pub const SUSPECT_FROM: u32 = 2;

    /// Whether it may be what its process dies of.
    pub const fn is_suspect(&self) -> bool {
        self.tries >= Self::SUSPECT_FROM
    }

    /// The order in which they are found: suspects last, so that many of them hide no sound one; then by acceptance; ties
    /// by tenant and id.
    pub fn in_order(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }

    fn place(&self) -> (bool, Timestamp, &TenantId, &TurnId) {
        (self.is_suspect(), self.turn.accepted_at, &self.turn.tenant, &self.turn.id)
    }
}

/// What a session is to become as a whole. Asking for it again does nothing twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionChange {
    /// Whose data.
    pub tenant: TenantId,
    /// Which session.
    pub session: SessionKey,
    /// The transcript that whoever asks takes for the present one. A newer one, not yet known there, is left alone.
    pub from: SessionId,
    /// What.
    pub to: Becomes,
}

/// What becomes of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Becomes {
    /// It is reset: an empty transcript under this id, always the same for one request.
    Empty(SessionId),
    /// It is deleted.
    Nothing,
}

/// Which part of a transcript: the newest messages that fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// At most so many.
    pub newest: usize,
    /// Only positions above this one; 0 for all.
    pub after: u64,
    /// Only positions below this one.
    pub before: Option<u64>,
}

impl Window {
    /// The newest `newest` messages.
    pub const fn newest(newest: usize) -> Self {
        Self { newest, after: 0, before: None }
    }
}

/// Keeps sessions, transcripts and turns. See the module's head for a turn's life.
#[async_trait]
pub trait SessionStore: Send + Sync {
    /// The session's head, or `None` if the key was never used (or was deleted).
    async fn load(&self, tenant: &TenantId, key: &SessionKey) -> Result<Option<Session>, StoreError>;

    /// Messages of the session's present transcript, oldest first; empty for an unknown session.
    async fn transcript(
        &self,
        tenant: &TenantId,
        key: &SessionKey,
        window: Window,
    ) -> Result<Vec<Message>, StoreError>;

    /// A turn by its id, at work or ended.
    async fn turn(&self, tenant: &TenantId, id: &TurnId) -> Result<Option<Turn>, StoreError>;

    /// Accepts a turn, atomically: takes the session's lease until `until` and stores input, turn, idempotency record
    /// and audit row – or does nothing and says why. When it returns [`Begun::Started`], all is durable.
    ///
    /// In this order: the idempotency key (within tenant and principal) or, failing that, the turn's id names a known
    /// turn – then [`Begun::Mismatch`] if the fingerprint differs, [`Begun::Replayed`] if it ended, [`Begun::Busy`]
    /// or [`Begun::Resumed`] if it has not. A turn whose outcome [may run again](TurnOutcome::may_run_again) counts as
    /// new, under its old id. Then the session's holder: [`Begun::Busy`] or [`Begun::Orphaned`]. Then it starts.
    ///
    /// A key is known for [`Idempotency::KEPT`], counted anew when its turn runs again; then it is as if it had never been
    /// used. A turn that is named by its id is known as long as its session.
    ///
    /// A known turn stays on the session it was accepted on, whatever session the caller names: the lease tells. One
    /// that runs again gets its input appended anew, behind whatever came since; of its messages in the transcript
    /// only those from the lease's input on count. Input and audit row are not written for [`Begun::Resumed`]. A
    /// lease has run out from its end on (`end <= now`), and also if it ends so much later than `until` that no clock which
    /// is right can have given it: see [`Timestamp::runs_at`], with `until` less `now` for the longest.
    ///
    /// A known turn that has not ended and cannot be read is [`Begun::Unreadable`] when its lease has run out; one that has
    /// ended is replayed as far as it can be read.
    ///
    /// # Errors
    /// [`StoreError::Broken`] if the session belongs to another agent; [`StoreError::Unreadable`] if its head, or what is kept
    /// under the key, cannot be read.
    async fn begin(&self, turn: &NewTurn, now: Timestamp, until: Timestamp) -> Result<Begun, StoreError>;

    /// Journals a step and extends the lease to `until`, atomically; an empty step only extends. Returns the lease to
    /// go on with. A step with messages is progress: [`Begun::Resumed`] counts its tries anew.
    ///
    /// May be repeated after [`StoreError::Unavailable`]: if exactly the step's messages stand behind the lease's position
    /// already, it only extends. A step without messages leaves the position as it is, so its audit rows are written
    /// again.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the lease is no longer the session's newest, whatever the clock says, or if other
    /// messages stand behind its position.
    async fn append(
        &self,
        lease: &Lease,
        step: &Step,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Lease, StoreError>;

    /// Ends the turn, atomically: appends `last`, stores the outcome, releases the session. `last` goes behind whatever
    /// the turn has recorded, also behind a step whose [`SessionStore::append`] was given up half way.
    ///
    /// May be repeated after [`StoreError::Unavailable`]: if the turn has ended with this very outcome, nothing is
    /// written.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the lease is no longer the session's newest, whatever the clock says.
    async fn commit(
        &self,
        lease: &Lease,
        last: &Step,
        outcome: &TurnOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError>;
}

/// Which sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Only of these agents; `None` for all.
    pub agents: Option<Vec<AgentId>>,
    /// Only of this end user.
    pub user: Option<String>,
    /// Only changed before this time (the next page).
    pub updated_before: Option<Timestamp>,
    /// At most so many.
    pub limit: usize,
}

/// Finds and manages sessions as a whole: what operators, sweeps and clean-ups need beyond a turn.
#[async_trait]
pub trait SessionIndex: Send + Sync {
    /// Sessions that fit, last changed first; ties by key. What cannot be read is left out.
    async fn list(&self, tenant: &TenantId, filter: &SessionFilter) -> Result<Vec<Session>, StoreError>;

    /// Turns without an end whose lease does not [run](Timestamp::runs_at) at `now`, a lease being given for `lease`; oldest
    /// first: to be resumed. Of every tenant; of several regions, those at home here, and those whose home may be gone.
    async fn interrupted(
        &self,
        now: Timestamp,
        lease: Duration,
        limit: usize,
    ) -> Result<Vec<Interrupted>, StoreError>;

    /// Turns that ended [`TurnOutcome::Parked`], newest first.
    async fn parked(&self, tenant: &TenantId, limit: usize) -> Result<Vec<Turn>, StoreError>;

    /// Gives the session, whose present transcript is `from`, a new, empty one under `id`; the old one is kept until the
    /// session is deleted. Returns the new head. If `id` is one of its transcripts already, the reset was done before:
    /// nothing changes, and the present head is returned.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also if `from` is not the present transcript; [`StoreError::Fenced`] while a turn holds
    /// the session or was interrupted on it.
    async fn reset(
        &self,
        tenant: &TenantId,
        key: &SessionKey,
        from: &SessionId,
        id: &SessionId,
        now: Timestamp,
    ) -> Result<Session, StoreError>;

    /// Makes a session whose head cannot be read usable again: gives it an empty transcript under the id named, as a reset
    /// does, whoever holds it – or deletes it with whatever of it can be found. Only of one of these agents, if they are
    /// named. Returns the new head after a reset.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such session, if its head can be read, or if it is not known to belong to one
    /// of the agents; [`StoreError::Unreadable`] if a reset cannot find out whose session it is: it can only be deleted.
    async fn repair(
        &self,
        _tenant: &TenantId,
        _key: &SessionKey,
        _agents: Option<&[AgentId]>,
        _to: &Becomes,
        _now: Timestamp,
    ) -> Result<Option<Session>, StoreError> {
        // A store whose heads are no bytes has none that cannot be read.
        Err(StoreError::NotFound)
    }

    /// Deletes the session, whose present transcript is `from`, with all its transcripts, turns and jobs; the audit trail
    /// stays. A job that waits never runs: it would make the session anew.
    ///
    /// # Errors
    /// As [`SessionIndex::reset`]; [`StoreError::Fenced`] also while a job of the session is delivered and not settled.
    async fn delete(&self, tenant: &TenantId, key: &SessionKey, from: &SessionId) -> Result<(), StoreError>;
}
