//! Keeps a turn's prompt within its model's context: what is old gives way to a summary.

use super::{Halt, TurnRun};
use crate::agent::prompt;
use crate::message::MessageBody;
use crate::model::ModelRef;
use serde_json::json;
use std::sync::Arc;

impl TurnRun {
    /// Makes a compaction if the prompt comes near the model's context, or holds too many messages.
    pub(super) async fn compact_if_due(&mut self) -> Result<(), Halt> {
        let turns = &self.shared.parts.config.turns;
        let (most, keep) = (turns.window_messages, turns.keep_messages);
        let model = self.first_model().clone();
        let info = self.model_info(&model);
        let room = u64::from(info.context_window.saturating_sub(info.max_tokens));
        // Nearly full is four fifths: the estimate is rough, and tools and instructions take their part.
        let full = prompt::newest_that_fit(&self.transcript, room / 5 * 4) < self.transcript.len();
        if full {
            let keep = keep.min(prompt::newest_that_fit(&self.transcript, room / 2));
            self.compact(keep, model).await?;
        } else if self.transcript.len() > most {
            self.compact(keep, model).await?;
        }
        Ok(())
    }

    /// Replaces all but about `keep` messages of the prompt by a summary that the model writes. `false` if there is
    /// nothing to cut or the model would not: the turn goes on with the whole prompt.
    pub(super) async fn compact(&mut self, keep: usize, model: ModelRef) -> Result<bool, Halt> {
        let Some(through) = prompt::cut(&self.transcript, keep) else {
            return Ok(false);
        };
        let info = self.model_info(&model);
        let room = u64::from(info.context_window.saturating_sub(info.max_tokens)) / 2;
        let request = prompt::summary_request(model.clone(), &self.transcript, through, room);
        let provider = Arc::clone(self.shared.provider(&model).map_err(Halt::Failed)?);
        let listener = self.listener.take();
        let text_so_far = std::mem::take(&mut self.text);
        let summarised = self.stream(&model, provider.stream(&request), &mut false).await;
        self.listener = listener;
        self.text = text_so_far;
        match summarised? {
            Ok(answer) if !answer.text.trim().is_empty() => {
                self.note("session.compacted", json!({"through": through, "model": model.to_string()}));
                self.record(vec![MessageBody::Summary { text: answer.text, through }]).await?;
                self.transcript.retain(|message| message.seq > through);
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(error) => {
                let reason = serde_json::to_value(error.failure).unwrap_or_default();
                self.note("session.compaction_failed", json!({"model": model.to_string(), "reason": reason}));
                Ok(false)
            }
        }
    }
}
