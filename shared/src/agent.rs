//! Agents: what one is, what it is asked ([`RunRequest`]), what it answers ([`TurnEvent`]), and the [`AgentInvoker`]
//! port. A turn is sent to its session's [`home`], accepted by [`runner`] and run by its `turn`; how a transcript becomes a
//! model request is [`prompt`].

pub mod history;
pub mod home;
pub mod hop;
pub mod lane;
mod listener;
pub mod prompt;
mod recent;
pub mod relay;
pub mod runner;
mod turn;
pub mod workspace;

use crate::clock::Timestamp;
use crate::error::Error;
use crate::id::{AgentId, PrincipalId, SessionId, SessionKey, TenantId, TurnId};
use crate::message::{MessageBody, ToolCall};
use crate::model::{ModelRef, Sampling, ToolChoice};
use crate::session::{Idempotency, Session, SessionChange, TurnOutcome};
use crate::tool::ToolSpec;
use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// A configured persona.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Its name, for people.
    pub name: String,
    /// What it is for, for people.
    pub description: Option<String>,
    /// The model it asks.
    pub model: ModelRef,
    /// Asked in this order when the model does not answer; each use is audited.
    pub fallbacks: Vec<ModelRef>,
    /// Its instructions (`AGENTS.md`, …) and the files its tools see.
    pub workspace: PathBuf,
    /// Names of the built-in tools it may call.
    pub tools: Vec<String>,
    /// IANA name of its time zone.
    pub time_zone: String,
    /// How far one turn may go.
    pub limits: TurnLimits,
    /// What the configuration reserves for it; enforced by the host it runs on, shown to the operator.
    pub resources: Resources,
}

/// How far one turn may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnLimits {
    /// Most model calls.
    pub steps: u32,
    /// Longest time that one process works on the turn: from its acceptance, or its resumption, to its reply.
    pub wall: Duration,
    /// Most tokens of all model calls, input and output.
    pub tokens: u64,
}

impl Default for TurnLimits {
    fn default() -> Self {
        Self { steps: 24, wall: Duration::from_secs(600), tokens: 2_000_000 }
    }
}

/// What the guide's configuration reserves for an agent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Resources {
    /// Bytes.
    pub memory: Option<u64>,
    /// Cores.
    pub cpu: Option<f64>,
}

/// A turn that somebody asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRequest {
    /// The turn's id, new for each request. The answer may carry an earlier one, if the idempotency key was known.
    pub turn: TurnId,
    /// Whose data.
    pub tenant: TenantId,
    /// Who asks.
    pub principal: PrincipalId,
    /// Of whom.
    pub agent: AgentId,
    /// On which session.
    pub session: SessionKey,
    /// Whether other requests are meant to meet on this session: a client's session key or user, not one made for
    /// this request alone.
    pub sticky: bool,
    /// The client's key.
    pub idempotency: Option<Idempotency>,
    /// What the client sent, oldest first, without system messages: the new message last, before it any history that
    /// the client repeats. Never empty.
    pub input: Vec<MessageBody>,
    /// All the rest.
    pub options: RunOptions,
}

impl RunRequest {
    /// About how many bytes it takes in memory.
    pub fn bytes(&self) -> usize {
        let instructions = self.options.instructions.as_ref().map_or(0, String::len);
        self.input.iter().map(MessageBody::bytes).sum::<usize>() + instructions
    }
}

/// What else shapes a turn. Stored with it, so that another process can go on with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunOptions {
    /// The client's system text, put behind the agent's own instructions.
    pub instructions: Option<String>,
    /// Tools that the client runs itself.
    pub client_tools: Vec<ToolSpec>,
    /// How free the model is to call tools.
    pub tool_choice: ToolChoice,
    /// Sampling and length.
    pub sampling: Sampling,
    /// Asked instead of the agent's model; no fall-back then.
    pub model: Option<ModelRef>,
    /// The end user that the client named.
    pub user: Option<String>,
    /// Where, e.g. `webchat`; empty counts as `webchat`.
    pub channel: String,
    /// What made the turn, for metrics and audit: `chat`, `responses`, `hook`, `cli`.
    pub trigger: String,
    /// The client sees the agent as this model name; kept to answer the same again.
    pub requested_model: String,
    /// When the turn was put into the queue; none if it is run at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enqueued_at: Option<Timestamp>,
    /// Another region may have run the turn before: it parks before a tool that must not run twice.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub may_have_run: bool,
    /// What else of the request a surface repeats in its answers, in the surface's own form; nobody else reads it.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub echo: Value,
}

/// One event of a turn. [`TurnEvent::Accepted`] comes first and [`TurnEvent::Ended`] last, exactly once each, unless
/// the stream ends with an error before the turn was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TurnEvent {
    /// The turn is stored: from here on it will end, whatever happens to the caller.
    Accepted {
        /// Its id.
        turn: TurnId,
        /// On which session.
        session: SessionKey,
        /// On which transcript.
        session_id: SessionId,
        /// It had ended before: what follows is its stored answer.
        replayed: bool,
    },
    /// More of the reply.
    Text {
        /// The text.
        delta: String,
    },
    /// A built-in tool starts.
    ToolStarted {
        /// The call.
        call: ToolCall,
    },
    /// A built-in tool answered.
    ToolFinished {
        /// [`ToolCall::id`].
        call_id: String,
        /// The answer is an error.
        is_error: bool,
    },
    /// The turn ended and its outcome is stored.
    Ended {
        /// How. Text and client tool calls are here in full, too.
        outcome: TurnOutcome,
    },
}

/// A turn as it comes. Dropping it does not end the turn.
pub type TurnStream = BoxStream<'static, Result<TurnEvent, Error>>;

/// Runs turns: here, or by asking another process.
#[async_trait]
pub trait AgentInvoker: Send + Sync {
    /// Accepts the turn and returns its events; returns once it is known whether the turn is accepted.
    ///
    /// # Errors
    /// The turn was not accepted, and nothing was stored: unknown agent or model, session busy, key mismatch, store
    /// unavailable. Once accepted, a failure is an outcome.
    async fn invoke(&self, request: RunRequest) -> Result<TurnStream, Error>;

    /// Goes on with a turn that was interrupted; its events are for nobody.
    ///
    /// # Errors
    /// It could not be taken over: held by another process, or the store is unavailable.
    async fn resume(&self, tenant: &TenantId, turn: &TurnId) -> Result<TurnOutcome, Error>;

    /// Has a session changed by the region that is its home, and returns it as [`crate::app::App::change`] does; `None` if
    /// it is at home here, and the caller is to change it.
    ///
    /// # Errors
    /// Those of [`crate::app::App::change`]; [`crate::error::ErrorKind::Unavailable`] if it is not known what was done.
    async fn change(&self, _: &SessionChange) -> Result<Option<Session>, Error> {
        Ok(None)
    }
}
