//! Tools: what an agent can do, and the [`Tool`] port.

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Source};
use crate::files::FileError;
use crate::id::{AgentId, SessionKey, TenantId, TurnId};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// What a tool is, as the model and the turn's journal see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// `[a-zA-Z0-9_-]{1,64}`.
    pub name: String,
    /// For the model.
    #[serde(default)]
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: Value,
    /// OpenAI's `strict`, passed on to vendors that know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
    /// What running it twice would do.
    #[serde(default)]
    pub effect: Effect,
}

/// What running a tool twice would do; decides what happens to a call that a crash interrupted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing: it only looks. Run again.
    None,
    /// The same end as running it once with the same call id. Run again.
    Idempotent,
    /// Something a second time. Never run again: parked for a person.
    #[default]
    Once,
}

/// What a tool may know of the call.
#[derive(Debug, Clone)]
pub struct ToolContext {
    /// Whose agent it is.
    pub tenant: TenantId,
    /// Whose tool it is.
    pub agent: AgentId,
    /// In which session; none when called directly over HTTP without one.
    pub session: Option<SessionKey>,
    /// In which turn.
    pub turn: TurnId,
    /// The call's id: the same after a crash, so an idempotency token.
    pub call_id: String,
    /// The present time.
    pub now: Timestamp,
    /// The agent's time zone, an IANA name.
    pub time_zone: String,
    /// The agent's folder; tools see nothing outside.
    pub workspace: PathBuf,
}

/// What a tool answered, for the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOutput {
    /// Text for the model.
    pub content: String,
    /// Machine-readable details for `/tools/invoke`.
    pub details: Option<Value>,
}

impl ToolOutput {
    /// Only text.
    pub fn text(content: impl Into<String>) -> Self {
        Self { content: content.into(), details: None }
    }
}

/// Why a tool did nothing. The model is told, and may try something else.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The arguments are wrong; the text says which and how.
    #[error("{0}")]
    Arguments(String),
    /// The thing asked for is not there or not allowed; the text says what.
    #[error("{0}")]
    Refused(String),
    /// Not right now, but perhaps later; the text is for the model, the cause for the log.
    #[error("{message}")]
    Unavailable {
        /// For the model.
        message: String,
        /// Nothing was changed, that is certain: it may be called again.
        unchanged: bool,
        /// For the log.
        #[source]
        source: Source,
    },
    /// It broke; the text is for the model, the cause for the log.
    #[error("{message}")]
    Failed {
        /// For the model.
        message: String,
        /// For the log.
        #[source]
        source: Source,
    },
}

impl ToolError {
    /// The cause, for the log; none if it is the caller's mistake.
    pub fn cause(&self) -> Option<&Source> {
        match self {
            Self::Arguments(_) | Self::Refused(_) => None,
            Self::Unavailable { source, .. } | Self::Failed { source, .. } => Some(source),
        }
    }

    /// Whether it may have done its work, or part of it.
    pub const fn may_have_worked(&self) -> bool {
        match self {
            Self::Arguments(_) | Self::Refused(_) => false,
            Self::Unavailable { unchanged, .. } => !*unchanged,
            Self::Failed { .. } => true,
        }
    }
}

/// When to ask again for what cannot be done right now: a full disk is not emptied within a second.
const COMES_AGAIN: Duration = Duration::from_secs(30);

impl From<ToolError> for Error {
    fn from(error: ToolError) -> Self {
        match error {
            ToolError::Arguments(message) | ToolError::Refused(message) => Self::invalid(message),
            ToolError::Unavailable { message, unchanged, source } => {
                let error = Self::new(ErrorKind::Unavailable, message).caused_by(source);
                // What may have been done is not to be asked for again without a look.
                if unchanged { error.after(COMES_AGAIN) } else { error }
            }
            ToolError::Failed { message, source } => {
                Self::new(ErrorKind::Internal, message).caused_by(source)
            }
        }
    }
}

impl From<FileError> for ToolError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Path(_) => Self::Arguments(error.to_string()),
            FileError::Missing(_) | FileError::Folder(_) | FileError::Refused(_) => {
                Self::Refused(error.to_string())
            }
            FileError::Unavailable { message, unchanged, source } => {
                Self::Unavailable { message, unchanged, source }
            }
            FileError::Failed { message, source } => Self::Failed { message, source },
        }
    }
}

/// Something an agent can do on our side.
#[async_trait]
pub trait Tool: Send + Sync {
    /// Name, arguments, effect.
    fn spec(&self) -> &ToolSpec;

    /// Runs it once. Called again with the same [`ToolContext::call_id`] after a crash, unless the effect is
    /// [`Effect::Once`].
    ///
    /// # Errors
    /// Wrong arguments, a refusal, or a failure; each is told to the model.
    async fn call(&self, context: &ToolContext, arguments: &Value) -> Result<ToolOutput, ToolError>;
}
