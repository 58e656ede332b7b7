//! The stream of `POST /chat/completions`, chunk by chunk.
//!
//! What the servers make of it, and is read here: a tool call whole in one chunk; without `index`, without `id`, or
//! with the id or name again in each chunk; several calls all with index 0, told apart by id; arguments as an object
//! instead of its text; `finish_reason` `stop` although tools are called; usage in the last chunk, in the finishing
//! one, or in all; no `[DONE]`; an error as a chunk. `reasoning_content` is not part of the reply and is read over.

use crate::adapters::models::fault::{Fault, VendorError};
use crate::adapters::models::sse::SseEvent;
use crate::adapters::models::wire::Protocol;
use crate::model::{ModelEvent, StopReason, Usage};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write;

/// What has been read of an answer.
#[derive(Debug, Default)]
pub struct Answer {
    /// Ids of the calls so far, as given out.
    ids: Vec<String>,
    /// The call that is being read: always the last one.
    open: Option<OpenCall>,
    finish: Option<StopReason>,
}

#[derive(Debug)]
struct OpenCall {
    /// The vendor's index; many send none.
    index: Option<u64>,
    /// The vendor's id; empty if it sent none.
    id: String,
    name: String,
    /// Arguments have come.
    filled: bool,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    created: Option<&'a RawValue>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(default)]
    usage: Option<Counts>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: Option<u64>,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    refusal: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<CallDelta<'a>>>,
}

#[derive(Deserialize)]
struct CallDelta<'a> {
    #[serde(default)]
    index: Option<u64>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    function: Option<FunctionDelta<'a>>,
}

#[derive(Deserialize, Default)]
struct FunctionDelta<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
    #[serde(default)]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default)]
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Deserialize, Default)]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
    #[serde(default)]
    cache_write_tokens: Option<u64>,
}

#[derive(Deserialize, Default)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
}

impl From<Counts> for Usage {
    fn from(counts: Counts) -> Self {
        let prompt = counts.prompt_tokens_details.unwrap_or_default();
        let completion = counts.completion_tokens_details.unwrap_or_default();
        Self {
            input_tokens: counts.prompt_tokens.unwrap_or(0),
            cached_tokens: prompt.cached_tokens.unwrap_or(0),
            cache_write_tokens: prompt.cache_write_tokens.unwrap_or(0),
            output_tokens: counts.completion_tokens.unwrap_or(0),
            reasoning_tokens: completion.reasoning_tokens.unwrap_or(0),
        }
    }
}

impl Protocol for Answer {
    fn read(&mut self, event: &SseEvent, out: &mut VecDeque<ModelEvent>) -> Result<(), Fault> {
        if event.data.trim() == "[DONE]" {
            return match self.finish {
                Some(_) => self.end(out),
                None => Err(Fault::protocol("[DONE] without a finish_reason")),
            };
        }
        let chunk: Chunk<'_> =
            serde_json::from_str(&event.data).map_err(|error| Fault::protocol(error.to_string()))?;
        if chunk.error.is_some() || event.name == "error" {
            let error = VendorError::from_body(event.data.as_bytes());
            return Err(Fault::of_vendor(None, None, &error));
        }
        let choices = chunk.choices.unwrap_or_default();
        // Other choices than the first are never asked for.
        for choice in choices.into_iter().filter(|choice| choice.index.unwrap_or(0) == 0) {
            if let Some(delta) = choice.delta {
                for text in
                    [delta.content, delta.refusal].into_iter().flatten().filter(|text| !text.is_empty())
                {
                    out.push_back(ModelEvent::Text(text.into_owned()));
                }
                for call in delta.tool_calls.unwrap_or_default() {
                    let source = [chunk.id.as_deref().unwrap_or(""), chunk.created.map_or("", RawValue::get)];
                    self.call(call, source, out)?;
                }
            }
            if let Some(reason) = choice.finish_reason.filter(|reason| !reason.is_empty()) {
                self.close_call(out);
                self.finish = Some(self.stop_reason(&reason));
            }
        }
        out.extend(chunk.usage.map(|counts| ModelEvent::Usage(counts.into())));
        Ok(())
    }

    fn end(&mut self, out: &mut VecDeque<ModelEvent>) -> Result<(), Fault> {
        let stop = self.finish.ok_or_else(Fault::broken_off)?;
        self.close_call(out);
        out.push_back(ModelEvent::Stop(stop));
        Ok(())
    }
}

impl Answer {
    fn call(
        &mut self,
        delta: CallDelta<'_>,
        source: [&str; 2],
        out: &mut VecDeque<ModelEvent>,
    ) -> Result<(), Fault> {
        let CallDelta { index, id, function } = delta;
        let id = id.unwrap_or_default();
        let FunctionDelta { name, arguments } = function.unwrap_or_default();
        let name = name.unwrap_or_default();
        let begins = match &self.open {
            None => true,
            Some(_) if name.is_empty() => false,
            Some(open) if *name != open.name => true,
            Some(open) if id.is_empty() => index.is_none() || index != open.index,
            Some(open) => *id != open.id,
        };
        if begins {
            if name.is_empty() {
                return Err(Fault::protocol("a tool call without a name"));
            }
            self.close_call(out);
            let at = self.ids.len();
            let given = if id.is_empty() || self.ids.iter().any(|known| *known == *id) {
                made_up_id(source, at)
            } else {
                id.clone().into_owned()
            };
            self.ids.push(given.clone());
            let name = name.into_owned();
            out.push_back(ModelEvent::ToolCallStart { index: at, id: given, name: name.clone() });
            self.open = Some(OpenCall { index, id: id.into_owned(), name, filled: false });
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        if index.is_some() && index != open.index {
            return Err(Fault::protocol("a tool call went on after the next one had begun"));
        }
        let text = match arguments.map(RawValue::get) {
            None | Some("null") => return Ok(()),
            Some(json) if json.starts_with('"') => {
                serde_json::from_str::<String>(json).map_err(|error| Fault::protocol(error.to_string()))?
            }
            Some(json) => json.to_owned(),
        };
        if !text.is_empty() {
            open.filled = true;
            out.push_back(ModelEvent::ToolCallArguments { index: self.ids.len() - 1, delta: text });
        }
        Ok(())
    }

    fn close_call(&mut self, out: &mut VecDeque<ModelEvent>) {
        if let Some(OpenCall { filled: false, .. }) = self.open.take() {
            out.push_back(ModelEvent::ToolCallArguments {
                index: self.ids.len() - 1,
                delta: "{}".to_owned(),
            });
        }
    }

    fn stop_reason(&self, reason: &str) -> StopReason {
        match reason {
            "length" => StopReason::Length,
            "content_filter" => StopReason::ContentFilter,
            _ if !self.ids.is_empty() => StopReason::ToolCalls,
            _ => StopReason::End,
        }
    }
}

/// An id for a call that came without one, or with one that another call of the answer has: the same whenever the
/// same stream is read, another one for any other answer, as far as its chunks' `id` and `created` differ.
fn made_up_id(source: [&str; 2], position: usize) -> String {
    let mut digest = Sha256::new();
    for piece in source {
        digest.update(piece);
        digest.update([0]);
    }
    digest.update(position.to_string());
    digest.finalize().iter().take(12).fold("call_".to_owned(), |mut id, byte| {
        // Writing to a String does not fail.
        let _ = write!(id, "{byte:02x}");
        id
    })
}
