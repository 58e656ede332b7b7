//! An accepted turn on its way to its reply: model call, tool steps – each journaled before the next begins – commit.
//!
//! What a crash leaves behind is read back here, too: a turn goes on behind its last recorded step. The first call
//! without a recorded result may have been under way; if running it twice would matter, the turn is parked.

mod ask;
mod compaction;
mod record;
mod tool_calls;

use super::history::{self, FAILED_NOTE};
use super::listener::Teller;
use super::runner::Shared;
use super::{Agent, RunOptions, TurnEvent};
use crate::audit::NewAudit;
use crate::bounds::{PROMPT_MESSAGES, TURN_BYTES};
use crate::budget::Drawn;
use crate::error::{Error, ErrorKind, StoreError};
use crate::id::PrincipalId;
use crate::message::{Message, MessageBody, ToolCall};
use crate::metrics::RunLabels;
use crate::model::{ModelRef, StopReason, Usage};
use crate::session::{Failure, Lease, Parked, Reply, Step, TurnOutcome, Window};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What the model is told of a call whose effect is not known.
const UNKNOWN_EFFECT: &str =
    "[This call was interrupted. Whether it took effect is not known; a person has to look.]";

/// Ends the transcript of a parked turn.
const PARKED_NOTE: &str = "[This turn stopped at a call whose effect is not known. A person has to look.]";

/// How often a turn has a large text in memory: as transcript, as prompt, and as what goes to the vendor.
const COPIES: usize = 3;

/// One turn at work.
pub(super) struct TurnRun {
    shared: Arc<Shared>,
    agent: Agent,
    principal: PrincipalId,
    options: RunOptions,
    lease: Lease,
    listener: Option<Teller>,
    /// The transcript behind the last summary, this turn's messages included.
    transcript: Vec<Message>,
    /// Bytes of the steps that the turn has recorded.
    recorded: usize,
    /// What it has in memory.
    drawn: Drawn,
    /// All text of the turn so far.
    text: String,
    usage: Usage,
    /// Model calls so far.
    steps: u32,
    /// Rows that the next write takes along.
    audit: Vec<NewAudit>,
    /// When the lease is renewed unless a step does it before.
    renew_at: Instant,
    /// The `once` call under way: if the turn is cut off now, its effect is not known.
    under_way: Option<ToolCall>,
    /// The last model that answered.
    model: Option<ModelRef>,
    compacted_on_overflow: bool,
    /// Another region may have run the turn further than is known here: what must not run twice is not run.
    may_have_run: bool,
}

/// What the transcript holds of a turn when it is set going.
pub(super) enum SoFar {
    /// This input, just stored.
    Input(Vec<MessageBody>),
    /// Its input, and these steps that were recorded before it was interrupted.
    Steps(Vec<Message>),
}

/// Why a turn does not go on.
enum Halt {
    /// The lease or the store is lost: nothing more may be written. The turn will be resumed elsewhere.
    Lost(Error),
    /// This process has to stop, and gave the lease back: another one goes on.
    HandedOver(Error),
    /// It failed, and the failure is its outcome.
    Failed(Error),
    /// A call's effect is not known.
    Parked(ToolCall),
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        match error {
            // It would be as large for whoever resumed the turn.
            StoreError::TooLarge { .. } | StoreError::TooDeep { .. } => Self::Failed(error.into()),
            _ => Self::Lost(error.into()),
        }
    }
}

impl TurnRun {
    pub(super) fn new(
        shared: Arc<Shared>,
        agent: Agent,
        principal: PrincipalId,
        options: RunOptions,
        lease: Lease,
        listener: Option<Teller>,
    ) -> Self {
        let renew_at = Instant::now() + shared.parts.config.turns.lease / 3;
        let may_have_run = options.may_have_run;
        let drawn = shared.parts.budget.draw();
        Self {
            shared,
            agent,
            principal,
            options,
            lease,
            listener,
            transcript: Vec::new(),
            recorded: 0,
            drawn,
            text: String::new(),
            usage: Usage::default(),
            steps: 0,
            audit: Vec::new(),
            renew_at,
            under_way: None,
            model: None,
            compacted_on_overflow: false,
            may_have_run,
        }
    }

    /// Counts what the turn has in memory, its beginning included if that is no part of its transcript yet.
    pub(super) fn weigh(&mut self, so_far: &SoFar) {
        let transcript = self.transcript.iter().map(|message| message.body.bytes()).sum::<usize>();
        let begun = match so_far {
            SoFar::Input(input) => input.iter().map(MessageBody::bytes).sum(),
            SoFar::Steps(steps) => steps.iter().map(|step| step.body.bytes()).sum::<usize>(),
        };
        let instructions = self.options.instructions.as_ref().map_or(0, String::len);
        self.drawn.hold((transcript + begun + instructions) * COPIES);
    }

    /// Ends an accepted turn that cannot be run.
    pub(super) async fn refuse(
        shared: &Arc<Shared>,
        lease: &Lease,
        error: Error,
        audit: Vec<NewAudit>,
    ) -> Result<TurnOutcome, Error> {
        let outcome = TurnOutcome::Failed(Failure::from(&error));
        let last = Step { messages: vec![MessageBody::assistant_text(FAILED_NOTE)], audit };
        shared.parts.metrics.run_broken_off();
        shared.parts.sessions.commit(lease, &last, &outcome, shared.now()).await?;
        Ok(outcome)
    }

    /// Runs the turn, from where it stands.
    ///
    /// # Errors
    /// The lease or the store was lost: the turn has no end yet and will be resumed.
    pub(super) async fn complete(mut self, so_far: SoFar) -> Result<TurnOutcome, Error> {
        let started = Instant::now();
        let wall = self.agent.limits.wall;
        let deadline = self.shared.deadline.passed();
        let ran = tokio::select! {
            biased;
            ran = tokio::time::timeout(wall, Box::pin(self.run(so_far))) => ran,
            () = deadline => Ok(Err(self.out_of_time().await)),
        };
        let halt = match ran {
            Ok(Ok((last, reply))) => return self.end(last, TurnOutcome::Done(reply), started).await,
            Ok(Err(halt)) => halt,
            Err(_) => match self.under_way.take() {
                Some(call) => Halt::Parked(call),
                None => Halt::Failed(Error::new(
                    ErrorKind::Upstream,
                    format!(
                        "the turn was stopped: it took longer than the agent's limit of {} s",
                        wall.as_secs()
                    ),
                )),
            },
        };
        match halt {
            Halt::Lost(error) => {
                tracing::error!(target: "error", { turn.id = %self.lease.turn,
                    session.key = %self.lease.session,
                    error = %error,
                    cause = error.cause() }, "a turn was left unfinished; it is resumed when its lease has run out");
                self.shared.parts.metrics.run_broken_off();
                self.tell(Err(Failure::from(&error).into()));
                Err(error)
            }
            Halt::HandedOver(error) => {
                tracing::info!(target: "operation", { turn.id = %self.lease.turn,
                    session.key = %self.lease.session }, "turn handed over: the time of this process is over");
                self.tell(Err(Failure::from(&error).into()));
                Err(error)
            }
            Halt::Failed(error) => {
                tracing::error!(target: "error", { turn.id = %self.lease.turn,
                    session.key = %self.lease.session,
                    error.kind = error.kind.code(),
                    error = %error,
                    cause = error.cause() }, "a turn failed");
                let outcome = TurnOutcome::Failed(Failure::from(&error));
                self.end(vec![MessageBody::assistant_text(FAILED_NOTE)], outcome, started).await
            }
            Halt::Parked(call) => {
                let last = vec![
                    MessageBody::ToolResult {
                        call_id: call.id.clone(),
                        name: call.name.clone(),
                        content: UNKNOWN_EFFECT.to_owned(),
                        is_error: true,
                    },
                    MessageBody::assistant_text(PARKED_NOTE),
                ];
                self.note("tool.parked", json!({"tool": call.name, "call": call.id}));
                let outcome = TurnOutcome::Parked(Parked { call, at: self.shared.now() });
                self.end(last, outcome, started).await
            }
        }
    }

    /// This process has to stop: gives the lease back, so that another one goes on at once and not when it runs out.
    async fn out_of_time(&self) -> Halt {
        let now = self.shared.now();
        // If that fails, the turn goes on later.
        let _ = self.shared.parts.sessions.append(&self.lease, &Step::default(), now, now).await;
        let message = "the time of this process is over; the turn goes on in another one";
        // Not a failure: somebody else is at work on it from now on.
        Halt::HandedOver(Error::new(ErrorKind::Conflict, message).after(Duration::from_secs(1)))
    }

    /// Stores the outcome and tells it.
    async fn end(
        &mut self,
        last: Vec<MessageBody>,
        outcome: TurnOutcome,
        started: Instant,
    ) -> Result<TurnOutcome, Error> {
        let word = match &outcome {
            TurnOutcome::Done(_) => "completed",
            TurnOutcome::Failed(_) => "failed",
            TurnOutcome::Parked(_) => "parked",
        };
        let model = self.model.clone().unwrap_or_else(|| self.first_model().clone());
        let detail = json!({
            "outcome": word,
            "model": model.to_string(),
            "steps": self.steps,
            "input_tokens": self.usage.input_tokens,
            "output_tokens": self.usage.output_tokens,
        });
        self.note("turn.committed", detail);
        let last = Step { messages: last, audit: std::mem::take(&mut self.audit) };
        if let Err(error) = self.commit(&last, &outcome).await {
            let is_too_large = matches!(error, StoreError::TooLarge { .. } | StoreError::TooDeep { .. });
            let error = Error::from(error);
            if is_too_large && !matches!(outcome, TurnOutcome::Failed(_)) {
                // Resumed, it would come to the same end. What it did stays on record, less the end that it did not have.
                self.audit = last.audit;
                self.audit.pop();
                let failed = TurnOutcome::Failed(Failure::from(&error));
                let note = vec![MessageBody::assistant_text(FAILED_NOTE)];
                return Box::pin(self.end(note, failed, started)).await;
            }
            tracing::error!(target: "error", { turn.id = %self.lease.turn,
                error = %error,
                cause = error.cause() }, "a turn's end could not be stored; it is resumed when its lease has run out");
            self.shared.parts.metrics.run_broken_off();
            self.tell(Err(Failure::from(&error).into()));
            return Err(error);
        }
        if matches!(outcome, TurnOutcome::Done(_)) {
            self.extend_transcript(self.lease.seq + 1, last.messages);
            self.shared.recent.keep(&self.lease, std::mem::take(&mut self.transcript));
        }
        let took = started.elapsed();
        let channel = if self.options.channel.is_empty() { "webchat" } else { &self.options.channel };
        let labels = RunLabels {
            channel,
            provider: &model.provider,
            model: &model.model,
            trigger: &self.options.trigger,
        };
        self.shared.parts.metrics.run_completed(labels, word, took);
        tracing::info!(target: "operation", { turn.id = %self.lease.turn,
            session.key = %self.lease.session,
            agent.id = %self.agent.id,
            outcome = word,
            model = %model,
            steps = self.steps,
            input_tokens = self.usage.input_tokens,
            output_tokens = self.usage.output_tokens,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX) }, "turn ended");
        self.tell(Ok(TurnEvent::Ended { outcome: outcome.clone() }));
        Ok(outcome)
    }

    /// Model call, tool steps, model call … until there is a reply. Returns the messages that the commit appends.
    async fn run(&mut self, so_far: SoFar) -> Result<(Vec<MessageBody>, Reply), Halt> {
        match so_far {
            SoFar::Input(input) => self.read_before(input).await?,
            SoFar::Steps(steps) => {
                self.transcript = self.read(self.lease.seq + 1).await?;
                self.may_have_run |= self.began_elsewhere(&steps);
                self.note("turn.resumed", json!({}));
                self.go_on_behind(&steps).await?;
            }
        }
        loop {
            if self.steps >= self.agent.limits.steps {
                let note = format!("[Stopped: the agent's limit of {} model calls per turn.]", self.steps);
                return Ok(self.stopped_at_limit(note));
            }
            if self.usage.total_tokens() > self.agent.limits.tokens {
                let note =
                    format!("[Stopped: the agent's limit of {} tokens per turn.]", self.agent.limits.tokens);
                return Ok(self.stopped_at_limit(note));
            }
            if self.recorded > TURN_BYTES {
                let note =
                    format!("[Stopped: the limit of {TURN_BYTES} bytes of tool calls and results per turn.]");
                return Ok(self.stopped_at_limit(note));
            }
            self.compact_if_due().await?;
            self.weigh(&SoFar::Input(Vec::new()));
            self.steps += 1;
            let answer = self.ask_the_model().await?;
            history::join(&mut self.text, &answer.text);
            let said = MessageBody::Assistant { text: answer.text, tool_calls: answer.calls.clone() };
            if answer.calls.is_empty() {
                let reply = self.reply(Vec::new(), answer.stop);
                return Ok((vec![said], reply));
            }
            let (own, clients): (Vec<_>, Vec<_>) =
                answer.calls.into_iter().partition(|call| !self.is_clients(&call.name));
            if own.is_empty() {
                let reply = self.reply(clients, StopReason::ToolCalls);
                return Ok((vec![said], reply));
            }
            // Before any tool runs it is on record that it is about to.
            self.record(vec![said]).await?;
            self.call_tools(own).await?;
            if !clients.is_empty() {
                let reply = self.reply(clients, StopReason::ToolCalls);
                return Ok((Vec::new(), reply));
            }
        }
    }

    /// The transcript: what stands before the input, which is at hand already – on a new session that is nothing.
    async fn read_before(&mut self, input: Vec<MessageBody>) -> Result<(), Halt> {
        let first = (self.lease.seq + 1).saturating_sub(input.len() as u64);
        if first > self.lease.summarised_through + 1 {
            self.transcript = match self.shared.recent.take(&self.lease, first) {
                Some(kept) => kept,
                None => self.read(first).await?,
            };
        }
        self.extend_transcript(first, input);
        Ok(())
    }

    /// The messages before this position that no summary covers.
    async fn read(&self, before: u64) -> Result<Vec<Message>, Halt> {
        let Lease { tenant, session, summarised_through: after, .. } = &self.lease;
        let there = usize::try_from(before.saturating_sub(after + 1)).unwrap_or(PROMPT_MESSAGES);
        // Asking for no more than there can be lets a store see that the read is short.
        let window = Window { newest: there.min(PROMPT_MESSAGES), after: *after, before: Some(before) };
        Ok(self.shared.parts.sessions.transcript(tenant, session, window).await?)
    }

    /// Whether part of a resumed turn was written under another epoch: by another region, which may have gone on with it
    /// without our knowing.
    fn began_elsewhere(&self, steps: &[Message]) -> bool {
        let input = self.lease.seq.saturating_sub(steps.len() as u64);
        let of_turn = |message: &&Message| message.seq >= input && message.turn == self.lease.turn;
        self.transcript.iter().filter(of_turn).chain(steps).any(|message| message.epoch != self.lease.epoch)
    }

    /// Goes on where an interrupted turn stopped: takes over what it had said, and runs the calls without a result.
    async fn go_on_behind(&mut self, steps: &[Message]) -> Result<(), Halt> {
        let mut open: Vec<ToolCall> = Vec::new();
        for step in steps {
            self.recorded += step.body.bytes();
            match &step.body {
                MessageBody::Assistant { text, tool_calls } => {
                    self.steps += 1;
                    history::join(&mut self.text, text);
                    open.clone_from(tool_calls);
                }
                MessageBody::ToolResult { call_id, .. } => open.retain(|call| call.id != *call_id),
                MessageBody::User { .. } | MessageBody::Summary { .. } => {}
            }
        }
        // Whoever listens to the resumed turn has heard nothing of it yet.
        if !self.text.is_empty() {
            self.tell(Ok(TurnEvent::Text { delta: self.text.clone() }));
        }
        open.retain(|call| !self.is_clients(&call.name));
        if let Some(first) = open.first()
            && self.runs_once(&first.name)
        {
            return Err(Halt::Parked(first.clone()));
        }
        self.call_tools(open).await
    }

    fn reply(&mut self, tool_calls: Vec<ToolCall>, stop: StopReason) -> Reply {
        let model = self.model.as_ref().unwrap_or_else(|| self.first_model()).to_string();
        let text = std::mem::take(&mut self.text);
        Reply { text, tool_calls, stop, usage: self.usage, model, at: self.shared.now() }
    }

    fn stopped_at_limit(&mut self, note: String) -> (Vec<MessageBody>, Reply) {
        if !self.text.is_empty() {
            self.tell(Ok(TurnEvent::Text { delta: "\n\n".to_owned() }));
        }
        self.tell(Ok(TurnEvent::Text { delta: note.clone() }));
        history::join(&mut self.text, &note);
        let reply = self.reply(Vec::new(), StopReason::Length);
        (vec![MessageBody::assistant_text(note)], reply)
    }

    /// Tells whoever listens; nobody has to.
    fn tell(&self, event: Result<TurnEvent, Error>) {
        if let Some(listener) = &self.listener {
            listener.tell(event);
        }
    }
}
