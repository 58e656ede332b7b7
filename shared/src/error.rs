//! What went wrong, in the words a caller can act on.
//!
//! Every concept has a small error of its own; each maps to one [`ErrorKind`]. What a kind means to an HTTP
//! client and to the job queue stands in two total tables here, and nowhere else.

use crate::bounds::ERROR_BYTES;
use crate::quote::{quoted, shortened};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// A cause, kept for the log of the edge that answers; never shown to a caller.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// What kind of failure it is: decides the HTTP status, the `code`, and what the job queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request is wrong and will stay wrong.
    Invalid,
    /// No credential, or not a valid one.
    Unauthenticated,
    /// A valid credential that may not do this.
    Forbidden,
    /// The named thing does not exist, or the caller may not know that it does.
    NotFound,
    /// Busy: the session, or the same idempotency key, is at work. The same request may work later.
    Conflict,
    /// The idempotency key was used before with another body.
    Mismatch,
    /// Too many requests.
    RateLimited,
    /// A budget is spent.
    BudgetExceeded,
    /// The model's vendor failed.
    Upstream,
    /// A part of this installation is not there right now.
    Unavailable,
    /// A bug, or data that cannot be read.
    Internal,
}

/// What the job queue does with a job that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobVerdict {
    /// Dead-letter it: trying again gives the same answer.
    Dead,
    /// Try again with back-off, or after the time that the error names.
    Retry,
}

impl ErrorKind {
    /// The `code` of an error body: the kind in snake case, except that a mismatch says what mismatched.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Mismatch => "idempotency_mismatch",
            Self::RateLimited => "rate_limited",
            Self::BudgetExceeded => "budget_exceeded",
            Self::Upstream => "upstream",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Mismatch => 422,
            Self::RateLimited | Self::BudgetExceeded => 429,
            Self::Upstream => 502,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }

    /// What the queue does with a job that failed so.
    pub const fn job_verdict(self) -> JobVerdict {
        match self {
            Self::Conflict
            | Self::RateLimited
            | Self::BudgetExceeded
            | Self::Upstream
            | Self::Unavailable => JobVerdict::Retry,
            Self::Invalid
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::NotFound
            | Self::Mismatch
            | Self::Internal => JobVerdict::Dead,
        }
    }

    /// Whether the same request can succeed later without a change.
    pub const fn is_retryable(self) -> bool {
        matches!(self.job_verdict(), JobVerdict::Retry)
    }
}

/// A failure on its way to a caller: kind, a sentence for the caller, and a cause for the log.
#[derive(Debug)]
pub struct Error {
    /// What kind of failure.
    pub kind: ErrorKind,
    /// For the caller: what was wrong, where, and what to do. Never holds a secret or an internal cause.
    pub message: String,
    /// The request's field that was wrong, e.g. `messages[2].content`.
    pub param: Option<String>,
    /// When the same request may work.
    pub retry_after: Option<Duration>,
    source: Option<Source>,
}

impl Error {
    /// A failure with nothing but its kind and sentence, which is cut after [`ERROR_BYTES`].
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = shortened(message.into(), ERROR_BYTES);
        Self { kind, message, param: None, retry_after: None, source: None }
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// The named thing is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// A bug or unreadable data: the caller hears `internal error`, the log hears the cause.
    pub fn internal(source: impl Into<Source>) -> Self {
        Self::new(ErrorKind::Internal, "internal error").caused_by(source)
    }

    /// Names the field that was wrong.
    pub fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(quoted(&param.into()).into_owned());
        self
    }

    /// Says when to try again.
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The chain of causes in one line, for the log only, cut after [`ERROR_BYTES`]; empty without one.
    pub fn cause(&self) -> String {
        let mut text = String::new();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        shortened(text, ERROR_BYTES)
    }

    /// Keeps the cause, for the log only.
    pub fn caused_by(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// What a storage port answers when it cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The lease or receipt is no longer the current one: somebody else owns the work now. Stop; write nothing.
    #[error("the lease is no longer current")]
    Fenced,
    /// There is no such row.
    #[error("there is no such entry")]
    NotFound,
    /// The store cannot be reached or is too busy. What was to be written may have been written or not: try again with
    /// what may be repeated, or look.
    #[error("the store cannot be reached")]
    Unavailable(#[source] Source),
    /// What is to be stored is larger than the store takes.
    #[error("{bytes} bytes are more than the store takes at once")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The most in bytes.
        most: usize,
    },
    /// What is to be stored is nested deeper than could be read back.
    #[error("more than {most} levels of nesting could not be read back")]
    TooDeep {
        /// The most levels.
        most: usize,
    },
    /// What is stored of this cannot be read any more. What else there is goes on; a person must look.
    #[error("what is stored of {what} cannot be read")]
    Unreadable {
        /// Of what, for the caller: e.g. `the session`.
        what: &'static str,
        /// Why.
        source: Source,
    },
    /// It is another region's: ask there.
    #[error("it belongs to the region {region}")]
    Elsewhere {
        /// Whose it is.
        region: String,
    },
    /// The store holds something that cannot be read, or refused what it should accept. A person must look.
    #[error("the store holds something unreadable")]
    Broken(#[source] Source),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Fenced => Self::new(
                ErrorKind::Conflict,
                "another process took this turn over; ask again for its answer",
            )
            .after(Duration::from_secs(1)),
            StoreError::NotFound => Self::not_found("there is no such entry"),
            StoreError::Unavailable(source) => {
                Self::new(ErrorKind::Unavailable, "the store cannot be reached right now; try again")
                    .after(Duration::from_secs(1))
                    .caused_by(source)
            }
            StoreError::TooLarge { bytes, most } => Self::invalid(format!(
                "this is too large to be stored: {bytes} bytes, at most {most} at once; send or ask for less"
            )),
            StoreError::TooDeep { most } => Self::invalid(format!(
                "this is nested too deeply to be stored: at most {most} levels of objects and lists"
            )),
            StoreError::Unreadable { what, source } => Self::new(
                ErrorKind::Internal,
                format!("what is stored of {what} cannot be read any more; whoever runs this installation must look"),
            )
            .caused_by(source),
            StoreError::Elsewhere { region } => {
                Self::invalid(format!("it belongs to the region {region}: ask for it there"))
            }
            StoreError::Broken(source) => Self::internal(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_and_its_cause_are_cut() {
        let fits = "x".repeat(ERROR_BYTES);
        let long = "x".repeat(3_000_000);
        assert_eq!(Error::invalid(fits.as_str()).message, fits);
        let error = Error::invalid(long.as_str()).at(long.as_str()).caused_by(long);
        assert_eq!([error.message.len(), error.cause().len()], [ERROR_BYTES; 2]);
        assert!(error.message.ends_with('…') && error.param.is_some_and(|param| param.len() <= 103));
    }
}
