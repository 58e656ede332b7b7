//! A turn as the OpenAI surfaces see it: started, then either awaited or streamed.

use super::Gateway;
use super::error::ApiError;
use super::{idempotency, sse};
use crate::agent::{RunRequest, TurnEvent, TurnStream};
use crate::budget::Drawn;
use crate::error::{Error, ErrorKind};
use crate::id::{SessionKey, TurnId};
use crate::model::ToolChoice;
use crate::session::{Reply, TurnOutcome};
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use futures::stream::{BoxStream, Peekable};
use futures::{FutureExt, StreamExt, stream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// The answer's header: the turn's id.
const TURN_ID: HeaderName = HeaderName::from_static("x-reef-turn-id");
/// The answer's header: the session's key.
const SESSION_KEY: HeaderName = HeaderName::from_static("x-reef-session-key");

/// An accepted turn. Dropping it does not end the turn.
pub(super) struct Run {
    /// Its id; an earlier request's if the idempotency key was known.
    pub(super) turn: TurnId,
    /// On which session.
    pub(super) session: SessionKey,
    /// It ended before this request came.
    pub(super) replayed: bool,
    events: Peekable<TurnStream>,
    spoken: Spoken,
}

/// Whether a turn has told the first of itself: a text, or how it ended. A streamed answer carries it in its extensions, for
/// its opening frames and its heartbeats tell nothing of the model.
#[derive(Debug, Clone, Default)]
pub(super) struct Spoken(Arc<AtomicBool>);

impl Spoken {
    /// Whether it has.
    pub(super) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Has the turn accepted. What is `lent` for its request is given back then: the turn counts what it holds itself.
///
/// # Errors
/// It was not: those of [`crate::agent::AgentInvoker::invoke`], or the gateway takes no more work.
pub(super) async fn start(gateway: &Gateway, request: RunRequest, lent: Drawn) -> Result<Run, ApiError> {
    gateway.accepts_work()?;
    let mut events = gateway.app.agents.invoke(request).await?;
    drop(lent);
    match events.next().await {
        Some(Ok(TurnEvent::Accepted { turn, session, replayed, .. })) => {
            Ok(Run { turn, session, replayed, events: events.peekable(), spoken: Spoken::default() })
        }
        Some(Err(error)) => Err(error.into()),
        Some(Ok(_)) | None => Err(lost()),
    }
}

impl Run {
    /// The next event.
    ///
    /// # Errors
    /// The turn goes on, but not within sight of this process.
    pub(super) async fn next(&mut self) -> Result<TurnEvent, ApiError> {
        match self.events.next().await {
            Some(Ok(event)) => {
                let tells = match &event {
                    TurnEvent::Text { delta } => !delta.is_empty(),
                    TurnEvent::Ended { .. } => true,
                    _ => false,
                };
                self.spoken.0.fetch_or(tells, Ordering::Relaxed);
                Ok(event)
            }
            Some(Err(error)) => Err(error.into()),
            None => Err(lost()),
        }
    }

    /// How it ends, whatever happens on the way.
    ///
    /// # Errors
    /// As [`Run::next`].
    pub(super) async fn outcome(&mut self) -> Result<TurnOutcome, ApiError> {
        loop {
            if let TurnEvent::Ended { outcome } = self.next().await? {
                return Ok(outcome);
            }
        }
    }

    /// Says in the answer's head which turn it was.
    pub(super) fn name(&self, headers: &mut HeaderMap) {
        if let Ok(turn) = HeaderValue::from_str(self.turn.as_str()) {
            headers.insert(TURN_ID, turn);
        }
        if let Ok(session) = HeaderValue::from_bytes(self.session.as_str().as_bytes()) {
            headers.insert(SESSION_KEY, session);
        }
        if self.replayed {
            headers.insert(idempotency::REPLAYED, HeaderValue::from_static("true"));
        }
    }

    /// A turn that failed before this request came is an error like any other, not a stream that ends in one.
    async fn refuse_if_failed_before(&mut self) -> Result<(), ApiError> {
        if self.replayed
            && let Some(Ok(TurnEvent::Ended { outcome })) = Pin::new(&mut self.events).peek().await
            && !matches!(outcome, TurnOutcome::Done(_))
        {
            reply(outcome.clone())?;
        }
        Ok(())
    }
}

/// Starts the turn and answers with its frames as they come.
///
/// The answer's head is sent as soon as the turn is accepted. If its session is busy for longer than a heartbeat, the
/// head is sent nevertheless, so that no proxy gives up; a refusal then is an event: what `refusal` makes of it.
///
/// # Errors
/// Those of [`start`], and a replayed turn's failure.
pub(super) async fn stream<F>(
    gateway: Arc<Gateway>,
    request: RunRequest,
    lent: Drawn,
    frames: F,
    refusal: fn(&ApiError) -> Vec<Bytes>,
) -> Result<Response, ApiError>
where
    F: FnOnce(Run) -> BoxStream<'static, Bytes> + Send + 'static,
{
    let heartbeat = gateway.app.config.gateway.heartbeat;
    let spoken = Spoken::default();
    let told = spoken.clone();
    let mut starting =
        async move { start(&gateway, request, lent).await.map(|run| Run { spoken: told, ..run }) }.boxed();
    let Ok(started) = timeout(heartbeat, &mut starting).await else {
        let late = starting.map(move |started| match started {
            Ok(run) => frames(run),
            Err(error) => {
                error.log();
                stream::iter(refusal(&error)).boxed()
            }
        });
        let mut response = sse::respond(late.flatten_stream().boxed(), heartbeat);
        response.extensions_mut().insert(spoken);
        return Ok(response);
    };
    let mut run = started?;
    run.refuse_if_failed_before().await?;
    let mut head = HeaderMap::new();
    run.name(&mut head);
    let mut response = sse::respond(frames(run), heartbeat);
    response.headers_mut().extend(head);
    response.extensions_mut().insert(spoken);
    Ok(response)
}

/// The reply of a turn that has one.
///
/// # Errors
/// The turn's failure; 409 `parked` for one that waits for a person.
pub(super) fn reply(outcome: TurnOutcome) -> Result<Reply, ApiError> {
    match outcome {
        TurnOutcome::Done(reply) => Ok(reply),
        TurnOutcome::Failed(failure) => Err(Error::from(failure).into()),
        TurnOutcome::Parked(parked) => Err(ApiError::parked("turn", &parked.call.name)),
    }
}

/// Holds a reply to the client's `tool_choice`.
///
/// # Errors
/// 502 when a tool call was required and the model made none.
fn satisfies(reply: &Reply, choice: &ToolChoice) -> Result<(), ApiError> {
    let satisfied = match choice {
        ToolChoice::Auto | ToolChoice::None => true,
        ToolChoice::Required => !reply.tool_calls.is_empty(),
        ToolChoice::Tool(name) => reply.tool_calls.iter().any(|call| call.name == *name),
    };
    if satisfied {
        return Ok(());
    }
    let message = "the model did not call the tool that `tool_choice` requires";
    Err(ApiError::new(ErrorKind::Upstream, message))
}

/// The reply of a turn that has one, held to the client's `tool_choice`.
///
/// # Errors
/// Those of [`reply`] and [`satisfies`].
pub(super) fn reply_as_chosen(outcome: TurnOutcome, choice: &ToolChoice) -> Result<Reply, ApiError> {
    let reply = reply(outcome)?;
    satisfies(&reply, choice)?;
    Ok(reply)
}

/// The text that stands for an empty reply: some clients take an empty message for a failure.
pub(super) const NO_TEXT: &str = "No response from the agent.";

fn lost() -> ApiError {
    let message =
        "the turn was accepted and goes on, but this process lost sight of it; ask for its answer again";
    Error::new(ErrorKind::Unavailable, message).after(Duration::from_secs(1)).into()
}
