//! Somebody who runs turns as a test says: for answers that no model gives on demand, and to see what a surface asks.

use async_trait::async_trait;
use futures::{StreamExt, stream};
use shared::agent::{AgentInvoker, RunRequest, TurnEvent, TurnStream};
use shared::clock::Timestamp;
use shared::error::Error;
use shared::id::{SessionId, TenantId, TurnId};
use shared::message::ToolCall;
use shared::model::{StopReason, Usage};
use shared::session::{Reply, TurnOutcome};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One turn's events behind its acceptance, or why it was not accepted.
pub type Script = Result<Vec<TurnEvent>, Error>;

/// Runs turns by a script; keeps what was asked.
#[derive(Debug, Default)]
pub struct ScriptedAgents {
    scripts: Mutex<VecDeque<Script>>,
    requests: Mutex<Vec<RunRequest>>,
    /// Time before a turn is accepted.
    pub delay: Duration,
    /// Every turn had ended before.
    pub replays: bool,
}

impl ScriptedAgents {
    /// Answers one request after the other; further ones with `fine`.
    pub fn new(scripts: impl IntoIterator<Item = Script>) -> Arc<Self> {
        Arc::new(Self { scripts: Mutex::new(scripts.into_iter().collect()), ..Self::default() })
    }

    /// Accepts each turn that much later.
    pub fn slow(scripts: impl IntoIterator<Item = Script>, delay: Duration) -> Arc<Self> {
        Arc::new(Self { scripts: Mutex::new(scripts.into_iter().collect()), delay, ..Self::default() })
    }

    /// Gives each turn as one that had ended before.
    pub fn replaying(scripts: impl IntoIterator<Item = Script>) -> Arc<Self> {
        Arc::new(Self {
            scripts: Mutex::new(scripts.into_iter().collect()),
            replays: true,
            ..Self::default()
        })
    }

    /// What was asked so far, oldest first.
    pub fn requests(&self) -> Vec<RunRequest> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The only request so far.
    pub fn request(&self) -> RunRequest {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:#?}");
        requests.into_iter().next().expect("one request")
    }
}

/// The end of a turn with a reply.
pub fn done(text: &str, tool_calls: Vec<ToolCall>, stop: StopReason) -> TurnEvent {
    let usage = Usage { input_tokens: 3, output_tokens: 2, ..Usage::default() };
    let at = Timestamp::from_millis(1_795_132_805_000);
    let reply = Reply { text: text.to_owned(), tool_calls, stop, usage, model: "demo/echo".to_owned(), at };
    TurnEvent::Ended { outcome: TurnOutcome::Done(reply) }
}

/// More text.
pub fn text(delta: &str) -> TurnEvent {
    TurnEvent::Text { delta: delta.to_owned() }
}

#[async_trait]
impl AgentInvoker for ScriptedAgents {
    async fn invoke(&self, request: RunRequest) -> Result<TurnStream, Error> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        let accepted = TurnEvent::Accepted {
            turn: request.turn.clone(),
            session: request.session.clone(),
            session_id: SessionId::new("transcript"),
            replayed: self.replays,
        };
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        let script = self.scripts.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let events = script.unwrap_or_else(|| Ok(vec![done("fine", Vec::new(), StopReason::End)]))?;
        Ok(stream::iter([accepted]).chain(stream::iter(events)).map(Ok).boxed())
    }

    async fn resume(&self, _tenant: &TenantId, _turn: &TurnId) -> Result<TurnOutcome, Error> {
        Err(Error::not_found("no turn of a script is ever interrupted"))
    }
}
