//! Models: what is asked of one, what it answers, and the [`ModelProvider`] port.

use crate::error::{Error, ErrorKind, Source};
use crate::message::MessageBody;
use crate::quote::quoted;
use crate::tool::ToolSpec;
use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// `provider/model`, e.g. `anthropic/claude-sonnet-4-20250514`. The model's part may hold further slashes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelRef {
    /// Id of the provider in the configuration.
    pub provider: String,
    /// The vendor's name of the model.
    pub model: String,
}

/// A text that is not `provider/model`.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not of the form provider/model")]
pub struct ModelRefError(String);

impl FromStr for ModelRef {
    type Err = ModelRefError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((provider, model)) if !provider.is_empty() && !model.is_empty() => {
                Ok(Self { provider: provider.to_owned(), model: model.to_owned() })
            }
            _ => Err(ModelRefError(quoted(text).into_owned())),
        }
    }
}

impl TryFrom<String> for ModelRef {
    type Error = ModelRefError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ModelRef> for String {
    fn from(model: ModelRef) -> Self {
        model.to_string()
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.provider, self.model)
    }
}

impl fmt::Debug for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One call of a model.
#[derive(Debug, Clone)]
pub struct ModelRequest {
    /// Which model.
    pub model: ModelRef,
    /// The system prompt; may be empty.
    pub system: String,
    /// Oldest first. Roles may repeat; a provider whose vendor wants strict alternation merges neighbours.
    pub messages: Vec<MessageBody>,
    /// Tools it may ask for; may be empty.
    pub tools: Vec<ToolSpec>,
    /// How free it is to ask for them.
    pub tool_choice: ToolChoice,
    /// Sampling and length.
    pub sampling: Sampling,
}

/// How free the model is to call tools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// It decides.
    #[default]
    Auto,
    /// It must not.
    None,
    /// It must call at least one.
    Required,
    /// It must call this one.
    Tool(String),
}

/// Sampling and length; `None` leaves it to the vendor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// Most tokens of the reply.
    pub max_tokens: Option<u32>,
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// -2 to 2.
    pub presence_penalty: Option<f64>,
    /// For vendors that take one.
    pub seed: Option<i64>,
    /// At most four.
    pub stop: Vec<String>,
    /// OpenAI's `response_format`, checked by the HTTP surface; passed on to vendors that know it.
    pub response_format: Option<Value>,
}

/// One event of a model's streamed answer.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelEvent {
    /// More text.
    Text(String),
    /// A tool call begins. Calls come one after the other, `index` from 0 without holes.
    ToolCallStart {
        /// Position among the calls of this answer.
        index: usize,
        /// The vendor's id of the call; never empty.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// More of the arguments of call `index`.
    ToolCallArguments {
        /// Which call.
        index: usize,
        /// A slice of JSON text.
        delta: String,
    },
    /// Tokens so far; the last one counts.
    Usage(Usage),
    /// The answer is complete. Always the last event.
    Stop(StopReason),
}

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// It was done.
    End,
    /// The length limit.
    Length,
    /// It wants tools run.
    ToolCalls,
    /// The vendor's filter stopped it.
    ContentFilter,
}

/// Tokens, as the vendor counted them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// All input tokens, cached ones included.
    pub input_tokens: u64,
    /// Of these, read from the vendor's cache.
    pub cached_tokens: u64,
    /// Of these, written to the vendor's cache.
    pub cache_write_tokens: u64,
    /// Output tokens, reasoning included.
    pub output_tokens: u64,
    /// Of these, reasoning.
    pub reasoning_tokens: u64,
}

impl Usage {
    /// Adds the tokens of another call.
    pub fn add(&mut self, other: &Self) {
        self.input_tokens += other.input_tokens;
        self.cached_tokens += other.cached_tokens;
        self.cache_write_tokens += other.cache_write_tokens;
        self.output_tokens += other.output_tokens;
        self.reasoning_tokens += other.reasoning_tokens;
    }

    /// Input and output together.
    pub const fn total_tokens(&self) -> u64 {
        self.input_tokens + self.output_tokens
    }
}

/// Why a model did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelFailure {
    /// The vendor's key is wrong or may not use the model: a person must act.
    Credential,
    /// The account is out of money or quota: a person must act.
    Billing,
    /// The vendor has no such model: configuration.
    UnknownModel,
    /// The vendor refused the request's form.
    Refused,
    /// The prompt is longer than the model's context.
    ContextOverflow,
    /// The vendor asks for fewer requests.
    RateLimited,
    /// The vendor is overloaded or answered 5xx.
    Overloaded,
    /// Nothing came within the time limit.
    Timeout,
    /// No connection, or it broke.
    Network,
    /// The vendor's answer is not its own protocol.
    Protocol,
}

/// A failed model call: the message is for the caller (no key, no address), the cause for the log.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ModelError {
    /// Why.
    pub failure: ModelFailure,
    /// For the caller: which model, what happened, what to do.
    pub message: String,
    /// The vendor's wish, from `Retry-After`.
    pub retry_after: Option<Duration>,
    /// For the log.
    #[source]
    pub source: Option<Source>,
}

impl ModelError {
    /// A failure with its sentence.
    pub fn new(failure: ModelFailure, message: impl Into<String>) -> Self {
        Self { failure, message: message.into(), retry_after: None, source: None }
    }

    /// Whether the same call may work a little later, at the same vendor.
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self.failure,
            ModelFailure::RateLimited
                | ModelFailure::Overloaded
                | ModelFailure::Timeout
                | ModelFailure::Network
        )
    }

    /// Whether another model of the agent's fall-back list may be tried. A refused form or an overlong prompt is
    /// the request's fault, and would only be sent to more vendors.
    pub const fn allows_fallback(&self) -> bool {
        !matches!(self.failure, ModelFailure::Refused | ModelFailure::ContextOverflow)
    }
}

impl From<ModelError> for Error {
    fn from(error: ModelError) -> Self {
        let kind = match error.failure {
            ModelFailure::Refused | ModelFailure::ContextOverflow => ErrorKind::Invalid,
            ModelFailure::RateLimited => ErrorKind::RateLimited,
            _ => ErrorKind::Upstream,
        };
        let mut out = Self::new(kind, error.message.clone());
        out.retry_after = error.retry_after;
        out.caused_by(error)
    }
}

/// A model's answer as it comes. Ends after [`ModelEvent::Stop`] or an error; dropping it ends the call.
pub type ModelStream = BoxStream<'static, Result<ModelEvent, ModelError>>;

/// A model vendor, or several models behind one wire protocol.
#[async_trait]
pub trait ModelProvider: Send + Sync {
    /// Starts one call. Retries of its own, if any, happen before the first event only.
    ///
    /// # Errors
    /// The call could not be started; [`ModelError::is_retryable`] says whether it may work later.
    async fn stream(&self, request: &ModelRequest) -> Result<ModelStream, ModelError>;
}
