//! The model's part of a turn: its fall-backs, and what it says as it says it.

use super::{Halt, TurnRun};
use crate::agent::{TurnEvent, prompt};
use crate::bounds::{ANSWER_BYTES, ANSWER_CALLS, answer_bytes};
use crate::config::ModelInfo;
use crate::error::Error;
use crate::message::ToolCall;
use crate::model::{
    ModelError, ModelEvent, ModelFailure, ModelRef, ModelRequest, ModelStream, StopReason, ToolChoice, Usage,
};
use futures::StreamExt;
use serde_json::json;
use std::future::Future;
use std::sync::Arc;
use tokio::time::Instant;

/// One model call's answer.
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) calls: Vec<ToolCall>,
    pub(super) stop: StopReason,
}

impl TurnRun {
    /// Asks the agent's model, then its fall-backs, and passes the text on as it comes.
    pub(super) async fn ask_the_model(&mut self) -> Result<Answer, Halt> {
        let candidates = match &self.options.model {
            Some(model) => vec![model.clone()],
            None => std::iter::once(&self.agent.model).chain(&self.agent.fallbacks).cloned().collect(),
        };
        let mut request = self.model_request(self.first_model().clone());
        let mut failed: Option<(ModelRef, ModelError)> = None;
        for model in candidates {
            if let Some((from, error)) = &failed {
                let reason = serde_json::to_value(error.failure).unwrap_or_default();
                self.note(
                    "model.fallback",
                    json!({"from": from.to_string(), "to": model.to_string(), "reason": reason}),
                );
                tracing::warn!(target: "operation", { turn.id = %self.lease.turn,
                    from = %from,
                    to = %model,
                    error = %error }, "model fell back");
            }
            request.model = model.clone();
            let provider = Arc::clone(self.shared.provider(&model).map_err(Halt::Failed)?);
            let started = Instant::now();
            let mut told = false;
            let answered = self.stream(&model, provider.stream(&request), &mut told).await?;
            let word = if answered.is_ok() { "completed" } else { "error" };
            self.shared.parts.metrics.model_call(&model.provider, &model.model, word, started.elapsed());
            match answered {
                Ok(answer) => {
                    self.model = Some(model);
                    return Ok(answer);
                }
                Err(error)
                    if error.failure == ModelFailure::ContextOverflow
                        && !told
                        && !self.compacted_on_overflow =>
                {
                    self.compacted_on_overflow = true;
                    if self.compact(2, model).await? {
                        return Box::pin(self.ask_the_model()).await;
                    }
                    return Err(Halt::Failed(error.into()));
                }
                Err(error) if told || !error.allows_fallback() => return Err(Halt::Failed(error.into())),
                Err(error) => failed = Some((model, error)),
            }
        }
        let error =
            failed.map_or_else(|| Error::internal("an agent has no model"), |(_, error)| error.into());
        Err(Halt::Failed(error))
    }

    /// One call's answer; `told` says whether any of it was passed on.
    pub(super) async fn stream(
        &mut self,
        model: &ModelRef,
        call: impl Future<Output = Result<ModelStream, ModelError>>,
        told: &mut bool,
    ) -> Result<Result<Answer, ModelError>, Halt> {
        let mut answer = Answer { text: String::new(), calls: Vec::new(), stop: StopReason::End };
        let most = self.room(model);
        let mut room = most;
        let mut drawn = self.shared.parts.budget.draw();
        let mut usage = Usage::default();
        let mut events = match self.while_holding(call).await? {
            Ok(events) => events,
            Err(error) => return Ok(Err(error)),
        };
        loop {
            // Once as it is put together, once as it waits to be stored.
            drawn.hold(2 * (most - room));
            let event = match self.while_holding(events.next()).await? {
                Some(Ok(event)) => event,
                Some(Err(error)) => return Ok(Err(error)),
                None => {
                    let message = "the model's answer broke off before its end";
                    return Ok(Err(ModelError::new(ModelFailure::Protocol, message)));
                }
            };
            match event {
                ModelEvent::Text(mut delta) => {
                    let fits = delta.floor_char_boundary(room);
                    let too_long = fits < delta.len();
                    delta.truncate(fits);
                    room -= fits;
                    if answer.text.is_empty() && !self.text.is_empty() && !delta.is_empty() {
                        self.tell(Ok(TurnEvent::Text { delta: "\n\n".to_owned() }));
                    }
                    answer.text.push_str(&delta);
                    *told = true;
                    self.tell(Ok(TurnEvent::Text { delta }));
                    if too_long {
                        self.cut(model, &mut answer);
                        break;
                    }
                }
                ModelEvent::ToolCallStart { id, name, .. } => {
                    let taken = room.checked_sub(id.len() + name.len());
                    let Some(left) = taken.filter(|_| answer.calls.len() < ANSWER_CALLS) else {
                        self.cut(model, &mut answer);
                        break;
                    };
                    room = left;
                    answer.calls.push(ToolCall { id, name, arguments: String::new() });
                }
                ModelEvent::ToolCallArguments { index, delta } => {
                    let Some(left) = room.checked_sub(delta.len()) else {
                        self.cut(model, &mut answer);
                        break;
                    };
                    room = left;
                    if let Some(call) = answer.calls.get_mut(index) {
                        call.arguments.push_str(&delta);
                    }
                }
                ModelEvent::Usage(latest) => usage = latest,
                ModelEvent::Stop(stop) => {
                    answer.stop = stop;
                    if stop == StopReason::Length {
                        // A call that was cut off is not the one that the model meant.
                        answer.calls.pop_if(|call| call.parsed_arguments().is_err());
                    }
                    break;
                }
            }
        }
        self.usage.add(&usage);
        self.shared.parts.metrics.model_tokens(&model.provider, &model.model, &usage);
        Ok(Ok(answer))
    }

    /// Most bytes that the model's answer may have.
    fn room(&self, model: &ModelRef) -> usize {
        let provider = self.shared.parts.config.providers.get(&model.provider);
        let named = provider.and_then(|provider| provider.models.get(&model.model));
        let tokens = self.options.sampling.max_tokens.or(named.map(|info| info.max_tokens));
        answer_bytes(tokens).min(ANSWER_BYTES.saturating_sub(self.text.len()))
    }

    /// Ends an answer that is longer than may be. Its calls are none: the last one is cut off, and a model that has lost
    /// its way shall not act.
    fn cut(&self, model: &ModelRef, answer: &mut Answer) {
        tracing::warn!(target: "operation", { turn.id = %self.lease.turn,
            session.key = %self.lease.session,
            model = %model,
            bytes = answer.text.len(),
            calls = answer.calls.len() }, "a model's answer was cut: it was longer than its limit of tokens can be");
        answer.calls.clear();
        answer.stop = StopReason::Length;
    }

    fn model_request(&self, model: ModelRef) -> ModelRequest {
        let own = self.shared.instructions.load(&self.agent.workspace);
        let mut tools = self.options.client_tools.clone();
        if self.options.tool_choice != ToolChoice::None {
            tools.extend(self.own_tools());
        }
        // The client's wish to force a call is for its own first answer: forced again after the tools ran, the model
        // could never reply.
        let forced = matches!(self.options.tool_choice, ToolChoice::Required | ToolChoice::Tool(_));
        let tool_choice =
            if forced && self.steps > 1 { ToolChoice::Auto } else { self.options.tool_choice.clone() };
        ModelRequest {
            model,
            system: prompt::system(&own, &self.agent.time_zone, self.options.instructions.as_deref()),
            messages: prompt::messages(&self.transcript),
            tools,
            tool_choice,
            sampling: self.options.sampling.clone(),
        }
    }

    pub(super) fn first_model(&self) -> &ModelRef {
        self.options.model.as_ref().unwrap_or(&self.agent.model)
    }

    pub(super) fn model_info(&self, model: &ModelRef) -> ModelInfo {
        let provider = self.shared.parts.config.providers.get(&model.provider);
        provider.and_then(|provider| provider.models.get(&model.model)).copied().unwrap_or_default()
    }
}
