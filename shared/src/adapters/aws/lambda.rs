//! [`LambdaInvoker`]: turns run in another function, asked by `InvokeWithResponseStream`.
//!
//! # When the answer breaks off
//!
//! A function can be killed, time out, or lose its connection while it answers. The turn is then asked for again, *with the
//! same id*: that runs nothing twice. If the turn was never accepted, it starts now; if the other function is still at work
//! on it, the second one waits for its end and repeats the stored answer; if that function is dead, the second one goes on
//! behind the turn's last recorded step when its lease has run out. Text that the caller has heard already is left out. If
//! the answer came out differently – a model call that was cut off is made anew – the caller gets an error instead of two
//! halves that do not fit; the whole answer is stored and can be asked for.

use super::on_use::OnUse;
use crate::agent::hop::{Ask, Line, Lines};
use crate::agent::{AgentInvoker, RunRequest, TurnEvent, TurnStream};
use crate::bounds::FUNCTION_SILENCE;
use crate::error::{Error, ErrorKind, Source};
use crate::id::{TenantId, TurnId};
use crate::session::{Session, SessionChange, TurnOutcome};
use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::config::{Region, StalledStreamProtectionConfig};
use aws_sdk_lambda::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_lambda::operation::invoke_with_response_stream::{
    InvokeWithResponseStreamError as InvokeError, InvokeWithResponseStreamOutput,
};
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types::InvokeWithResponseStreamResponseEvent as Part;
use futures::{StreamExt, stream};
use std::time::Duration;
use tokio::time::timeout;

/// How often a turn is asked for again after its answer broke off.
const ASK_AGAIN: u32 = 2;

/// When to try again after the platform had no room for another call.
const THROTTLED: Duration = Duration::from_secs(2);

/// Runs turns in another function. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LambdaInvoker {
    client: OnUse<Client>,
    function: String,
}

impl LambdaInvoker {
    /// Asks this function (`name`, `name:alias` or an ARN) in this region. Opens no connection.
    pub fn new(aws: &SdkConfig, region: &str, function: &str) -> Self {
        let config = aws_sdk_lambda::config::Builder::from(aws)
            .region(Region::new(region.to_owned()))
            // A model may think for minutes. What a silence means is decided here, by `FUNCTION_SILENCE`.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Self { client: OnUse::new(config, Client::from_conf), function: function.to_owned() }
    }

    async fn ask(&self, ask: &Ask) -> Result<Answer, Error> {
        let payload = serde_json::to_vec(ask).map_err(Error::internal)?;
        let (name, alias) = split(&self.function);
        let asked = self
            .client
            .invoke_with_response_stream()
            .function_name(name)
            .set_qualifier(alias)
            .payload(Blob::new(payload))
            .send()
            .await;
        let parts = asked.map_err(refused)?;
        Ok(Answer { parts, lines: Lines::default() })
    }
}

/// A name and its alias. An ARN has seven colons with an alias, six without.
fn split(function: &str) -> (&str, Option<String>) {
    let plain = if function.starts_with("arn:") { 6 } else { 0 };
    match function.match_indices(':').nth(plain) {
        Some((at, _)) => (&function[..at], Some(function[at + 1..].to_owned())),
        None => (function, None),
    }
}

/// What it means that a function could not be called.
fn refused(error: SdkError<InvokeError>) -> Error {
    let service = error.as_service_error();
    let (kind, message, after) = match service {
        Some(InvokeError::TooManyRequestsException(_) | InvokeError::Ec2ThrottledException(_)) => {
            (ErrorKind::Unavailable, "all places for turns are taken right now; try again", Some(THROTTLED))
        }
        Some(InvokeError::RequestTooLargeException(_)) => {
            (ErrorKind::Invalid, "the request is too long for this installation: at most 6 MB", None)
        }
        // Wrong rights, a wrong name: the same call will fail in the same way.
        Some(InvokeError::ResourceNotFoundException(_) | InvokeError::InvalidRequestContentException(_)) => {
            (ErrorKind::Internal, "internal error", None)
        }
        Some(other) if other.code() == Some("AccessDeniedException") => {
            (ErrorKind::Internal, "internal error", None)
        }
        _ => (
            ErrorKind::Unavailable,
            "the agents cannot be reached right now; try again",
            Some(Duration::from_secs(1)),
        ),
    };
    let mut refusal = Error::new(kind, message).caused_by(error);
    refusal.retry_after = after;
    refusal
}

/// The answer broke off. Where it did, and what became of the turn, decides who reads it.
fn broken(cause: impl Into<Source>) -> Error {
    let message = "the turn was interrupted and goes on by itself; ask again for its answer";
    Error::new(ErrorKind::Unavailable, message).after(Duration::from_secs(2)).caused_by(cause)
}

/// A function's answer as it comes.
struct Answer {
    parts: InvokeWithResponseStreamOutput,
    lines: Lines,
}

impl Answer {
    /// The next line.
    ///
    /// # Errors
    /// There is none: the function broke off, or said what no function of ours says.
    async fn next(&mut self) -> Result<Line, Error> {
        loop {
            if let Some(line) = self.lines.next_line() {
                return line.map_err(broken);
            }
            let part = match timeout(FUNCTION_SILENCE, self.parts.event_stream.recv()).await {
                Ok(part) => part.map_err(broken)?,
                Err(silence) => return Err(broken(silence)),
            };
            match part {
                Some(Part::PayloadChunk(chunk)) => {
                    self.lines.push(chunk.payload.as_ref().map_or(&[], Blob::as_ref));
                }
                Some(Part::InvokeComplete(end)) => {
                    let code = end.error_code.unwrap_or_else(|| "the answer has no end".to_owned());
                    return Err(broken(format!("{code}: {}", end.error_details.unwrap_or_default())));
                }
                Some(_) => {}
                None => return Err(broken("the answer has no end")),
            }
        }
    }
}

/// A turn in another function, followed to its end.
struct Followed {
    invoker: LambdaInvoker,
    ask: Ask,
    answer: Answer,
    asks_left: u32,
    accepted: bool,
    /// All text that the caller has heard.
    heard: String,
    /// How much of it the present answer has repeated.
    repeated: usize,
    /// The present answer says something else than the caller has heard.
    differs: bool,
    over: bool,
}

impl Followed {
    /// The next event for the caller; `None` behind the last.
    async fn next(&mut self) -> Option<Result<TurnEvent, Error>> {
        while !self.over {
            let error = match self.answer.next().await {
                Ok(Line::Event(event)) => match self.pass_on(event) {
                    Some(event) => return Some(event),
                    None => continue,
                },
                Ok(Line::Error { error }) => {
                    let error = Error::from(error);
                    // Not accepted: the caller's answer. Accepted: the turn goes on elsewhere.
                    if !self.accepted || !error.kind.is_retryable() {
                        return self.end(error);
                    }
                    error
                }
                Ok(Line::Ready { .. } | Line::Session { .. }) => broken("an answer to another question"),
                Err(error) => error,
            };
            if self.asks_left == 0 {
                return self.end(error);
            }
            self.asks_left -= 1;
            tracing::warn!(target: "operation", { error = %error, cause = error.cause() }, "a turn's answer broke off; asked for again");
            match self.invoker.ask(&self.ask).await {
                Ok(answer) => {
                    self.answer = answer;
                    self.repeated = 0;
                    self.differs = false;
                }
                Err(error) => return self.end(error),
            }
        }
        None
    }

    fn end(&mut self, error: Error) -> Option<Result<TurnEvent, Error>> {
        self.over = true;
        Some(Err(error))
    }

    /// What of an event the caller has not heard yet.
    fn pass_on(&mut self, event: TurnEvent) -> Option<Result<TurnEvent, Error>> {
        match event {
            TurnEvent::Accepted { .. } if std::mem::replace(&mut self.accepted, true) => None,
            TurnEvent::Text { delta } => self.new_text(&delta).map(|delta| Ok(TurnEvent::Text { delta })),
            TurnEvent::Ended { outcome } => {
                let all_repeated = !self.differs && self.repeated == self.heard.len();
                if matches!(outcome, TurnOutcome::Done(_)) && !all_repeated {
                    return self.end(broken("the answer came out differently after it was interrupted"));
                }
                self.over = true;
                Some(Ok(TurnEvent::Ended { outcome }))
            }
            other => Some(Ok(other)),
        }
    }

    /// Compares a delta with what was heard before, and returns what comes behind it.
    fn new_text(&mut self, delta: &str) -> Option<String> {
        let before = &self.heard[self.repeated..];
        let common = before.len().min(delta.len());
        if self.differs || before.as_bytes()[..common] != delta.as_bytes()[..common] {
            self.differs = true;
            return None;
        }
        self.repeated += common;
        // What was heard ends between two characters, so that this cuts between two as well.
        let new = delta.get(common..).filter(|new| !new.is_empty())?.to_owned();
        self.heard.push_str(&new);
        self.repeated = self.heard.len();
        Some(new)
    }
}

#[async_trait]
impl AgentInvoker for LambdaInvoker {
    async fn invoke(&self, request: RunRequest) -> Result<TurnStream, Error> {
        let ask = Ask::Run(Box::new(request));
        let answer = self.ask(&ask).await?;
        let mut followed = Followed {
            invoker: self.clone(),
            ask,
            answer,
            asks_left: ASK_AGAIN,
            accepted: false,
            heard: String::new(),
            repeated: 0,
            differs: false,
            over: false,
        };
        let Some(first) = followed.next().await else { return Err(broken("an answer without a beginning")) };
        let rest = stream::unfold(followed, |mut followed| async move {
            let event = followed.next().await?;
            Some((event, followed))
        });
        Ok(stream::iter([Ok(first?)]).chain(rest).boxed())
    }

    async fn resume(&self, tenant: &TenantId, turn: &TurnId) -> Result<TurnOutcome, Error> {
        let ask = Ask::Resume { tenant: tenant.clone(), turn: turn.clone() };
        match self.ask(&ask).await?.next().await? {
            Line::Event(TurnEvent::Ended { outcome }) => Ok(outcome),
            Line::Error { error } => Err(error.into()),
            _ => Err(broken("an answer to another question")),
        }
    }

    async fn change(&self, change: &SessionChange) -> Result<Option<Session>, Error> {
        let error = match self.ask(&Ask::Change(change.clone())).await?.next().await {
            Ok(Line::Session { session }) => return Ok(Some(*session)),
            Ok(Line::Error { error }) => return Err(error.into()),
            Ok(_) => broken("an answer to another question"),
            Err(error) => error,
        };
        // Whether it should still be done, its caller knows best.
        let message = "the session's region broke off its answer; ask again";
        Err(Error::new(ErrorKind::Unavailable, message).after(Duration::from_secs(2)).caused_by(error))
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn a_functions_alias_is_told_apart_from_its_name() {
        let arn = "arn:aws:lambda:us-east-1:123456789012:function:agent-invoke";
        assert_eq!(split("agent-invoke"), ("agent-invoke", None));
        assert_eq!(split("agent-invoke:live"), ("agent-invoke", Some("live".to_owned())));
        assert_eq!(split(arn), (arn, None));
        assert_eq!(split(&format!("{arn}:live")), (arn, Some("live".to_owned())));
    }
}
