//! The stream of `POST /v1/messages`, event by event.

use crate::adapters::models::fault::{Fault, VendorError};
use crate::adapters::models::sse::SseEvent;
use crate::adapters::models::wire::Protocol;
use crate::model::{ModelEvent, StopReason, Usage};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::VecDeque;

/// What has been read of an answer.
#[derive(Debug, Default)]
pub struct Answer {
    counts: Counts,
    calls: usize,
    /// The content block of the tool call that is being read.
    open: Option<OpenCall>,
    stop: Option<StopReason>,
}

#[derive(Debug)]
struct OpenCall {
    block: u64,
    /// Arguments have come.
    filled: bool,
    /// The arguments that came with the block's beginning; the vendor sends `{}` there, some imitations all of them.
    initial: String,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

#[derive(Deserialize)]
struct MessageStart {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct BlockStart<'a> {
    index: u64,
    #[serde(borrow)]
    content_block: Block<'a>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct BlockDelta<'a> {
    index: u64,
    #[serde(borrow)]
    delta: Delta<'a>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Cow<'a, str>,
    #[serde(borrow, default)]
    partial_json: Cow<'a, str>,
}

#[derive(Deserialize)]
struct BlockStop {
    index: u64,
}

#[derive(Deserialize)]
struct MessageDelta {
    delta: StopDelta,
    #[serde(default)]
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct StopDelta {
    #[serde(default)]
    stop_reason: Option<String>,
}

/// The vendor's counters. Later ones replace earlier ones: they are totals.
#[derive(Debug, Default, Clone, Deserialize)]
struct Counts {
    input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Debug, Default, Clone, Deserialize)]
struct OutputDetails {
    thinking_tokens: Option<u64>,
}

impl Counts {
    fn update(&mut self, newer: Self) {
        self.input_tokens = newer.input_tokens.or(self.input_tokens);
        self.cache_read_input_tokens = newer.cache_read_input_tokens.or(self.cache_read_input_tokens);
        self.cache_creation_input_tokens =
            newer.cache_creation_input_tokens.or(self.cache_creation_input_tokens);
        self.output_tokens = newer.output_tokens.or(self.output_tokens);
        self.output_tokens_details = newer.output_tokens_details.or(self.output_tokens_details.take());
    }

    /// The vendor counts cached tokens beside the input, we count them within it.
    fn usage(&self) -> Usage {
        let cached_tokens = self.cache_read_input_tokens.unwrap_or(0);
        let cache_write_tokens = self.cache_creation_input_tokens.unwrap_or(0);
        let fresh = self.input_tokens.unwrap_or(0);
        Usage {
            input_tokens: fresh.saturating_add(cached_tokens).saturating_add(cache_write_tokens),
            cached_tokens,
            cache_write_tokens,
            output_tokens: self.output_tokens.unwrap_or(0),
            reasoning_tokens: self
                .output_tokens_details
                .as_ref()
                .and_then(|d| d.thinking_tokens)
                .unwrap_or(0),
        }
    }
}

impl Protocol for Answer {
    fn read(&mut self, event: &SseEvent, out: &mut VecDeque<ModelEvent>) -> Result<(), Fault> {
        let kind = parse::<Kind<'_>>(event)?.kind;
        match &*kind {
            "message_start" => {
                if let Some(counts) = parse::<MessageStart>(event)?.message.usage {
                    self.count(counts, out);
                }
            }
            "content_block_start" => self.block_starts(parse(event)?, out)?,
            "content_block_delta" => self.block_goes_on(parse(event)?, out)?,
            "content_block_stop" => {
                let BlockStop { index } = parse(event)?;
                if self.open.as_ref().is_some_and(|open| open.block == index) {
                    self.close_call(out);
                }
            }
            "message_delta" => {
                let MessageDelta { delta, usage } = parse(event)?;
                if let Some(reason) = delta.stop_reason {
                    self.stop = Some(self.stop_reason(&reason));
                }
                if let Some(counts) = usage {
                    self.count(counts, out);
                }
            }
            "message_stop" => {
                let stop = self.stop.ok_or_else(|| Fault::protocol("message_stop without a stop_reason"))?;
                self.close_call(out);
                out.push_back(ModelEvent::Stop(stop));
            }
            "error" => {
                let error = VendorError::from_body(event.data.as_bytes());
                return Err(Fault::of_vendor(None, None, &error));
            }
            // `ping`, and whatever is invented later: the vendor asks clients to read over it.
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, _out: &mut VecDeque<ModelEvent>) -> Result<(), Fault> {
        Err(Fault::broken_off())
    }
}

fn parse<'a, T: Deserialize<'a>>(event: &'a SseEvent) -> Result<T, Fault> {
    serde_json::from_str(&event.data)
        .map_err(|error| Fault::protocol(format!("event `{}`: {error}", event.name)))
}

impl Answer {
    fn count(&mut self, counts: Counts, out: &mut VecDeque<ModelEvent>) {
        self.counts.update(counts);
        out.push_back(ModelEvent::Usage(self.counts.usage()));
    }

    fn block_starts(&mut self, start: BlockStart<'_>, out: &mut VecDeque<ModelEvent>) -> Result<(), Fault> {
        let BlockStart { index: block, content_block } = start;
        match &*content_block.kind {
            "text" => put_text(content_block.text, out),
            "tool_use" => {
                if content_block.id.is_empty() || content_block.name.is_empty() {
                    return Err(Fault::protocol("a tool call without id or name"));
                }
                self.close_call(out);
                out.push_back(ModelEvent::ToolCallStart {
                    index: self.calls,
                    id: content_block.id.into_owned(),
                    name: content_block.name.into_owned(),
                });
                let initial = content_block.input.map_or("{}", RawValue::get).to_owned();
                self.open = Some(OpenCall { block, filled: false, initial });
                self.calls += 1;
            }
            // Thinking, and tools that run at the vendor: never asked for.
            _ => {}
        }
        Ok(())
    }

    fn block_goes_on(&mut self, delta: BlockDelta<'_>, out: &mut VecDeque<ModelEvent>) -> Result<(), Fault> {
        let BlockDelta { index: block, delta } = delta;
        match &*delta.kind {
            "text_delta" => put_text(delta.text, out),
            "input_json_delta" if !delta.partial_json.is_empty() => {
                let open = self.open.as_mut().filter(|open| open.block == block);
                let open =
                    open.ok_or_else(|| Fault::protocol("arguments of a tool call that is not open"))?;
                open.filled = true;
                out.push_back(ModelEvent::ToolCallArguments {
                    index: self.calls - 1,
                    delta: delta.partial_json.into_owned(),
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn close_call(&mut self, out: &mut VecDeque<ModelEvent>) {
        if let Some(OpenCall { filled: false, initial, .. }) = self.open.take() {
            out.push_back(ModelEvent::ToolCallArguments { index: self.calls - 1, delta: initial });
        }
    }

    fn stop_reason(&self, reason: &str) -> StopReason {
        match reason {
            "max_tokens" | "model_context_window_exceeded" => StopReason::Length,
            "refusal" => StopReason::ContentFilter,
            _ if self.calls > 0 => StopReason::ToolCalls,
            // `end_turn`, `stop_sequence`, and whatever is invented later.
            _ => StopReason::End,
        }
    }
}

fn put_text(text: Cow<'_, str>, out: &mut VecDeque<ModelEvent>) {
    if !text.is_empty() {
        out.push_back(ModelEvent::Text(text.into_owned()));
    }
}
