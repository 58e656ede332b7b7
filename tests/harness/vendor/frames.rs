//! A streamed answer in the frames of either protocol.

use super::{Gate, Step, Stream};
use bytes::Bytes;
use serde_json::{Value, json};
use shared::model::StopReason;
use std::time::Duration;

/// Which protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI chat completions.
    OpenAi,
}

/// What the socket does next.
pub(super) enum Piece {
    Bytes(Bytes),
    Pause(Duration),
    Hold(Gate),
    Cut,
}

/// The whole answer; bytes between two waits are one piece.
pub(super) fn pieces(wire: Wire, model: &str, stream: Stream) -> Vec<Piece> {
    let calls = stream.steps.iter().any(|step| matches!(step, Step::ToolCall { .. }));
    let stop = stream.stop.unwrap_or(if calls { StopReason::ToolCalls } else { StopReason::End });
    let mut out =
        Writer { wire, model: model.to_owned(), pieces: Vec::new(), bytes: Vec::new(), ..Writer::default() };
    out.begin(&stream);
    for step in stream.steps {
        match step {
            Step::Text(text) => out.text(&text),
            Step::ToolCall { id, name, arguments } => out.call(&id, &name, &arguments),
            Step::Raw(bytes) => out.bytes.extend_from_slice(&bytes),
            Step::Pause(pause) => out.piece(Piece::Pause(pause)),
            Step::Hold(gate) => out.piece(Piece::Hold(gate)),
            Step::Cut => {
                out.piece(Piece::Cut);
                return out.pieces;
            }
        }
    }
    out.end(stop, &stream.usage);
    out.flush();
    out.pieces
}

struct Writer {
    wire: Wire,
    model: String,
    pieces: Vec<Piece>,
    bytes: Vec<u8>,
    /// Anthropic's content blocks so far.
    blocks: usize,
    /// A text block is open.
    in_text: bool,
    /// OpenAI's tool calls so far.
    calls: usize,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            wire: Wire::Anthropic,
            model: String::new(),
            pieces: Vec::new(),
            bytes: Vec::new(),
            blocks: 0,
            in_text: false,
            calls: 0,
        }
    }
}

impl Writer {
    fn flush(&mut self) {
        if !self.bytes.is_empty() {
            self.pieces.push(Piece::Bytes(std::mem::take(&mut self.bytes).into()));
        }
    }

    fn piece(&mut self, piece: Piece) {
        self.flush();
        self.pieces.push(piece);
    }

    fn event(&mut self, kind: &str, mut data: Value) {
        data["type"] = json!(kind);
        self.bytes.extend_from_slice(format!("event: {kind}\ndata: {data}\n\n").as_bytes());
    }

    fn chunk(&mut self, choices: &Value, usage: &Value) {
        let data = json!({
            "id": "chatcmpl-fake",
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "model": self.model,
            "choices": choices,
            "usage": usage,
        });
        self.bytes.extend_from_slice(format!("data: {data}\n\n").as_bytes());
    }

    fn delta(&mut self, delta: &Value) {
        self.chunk(&json!([{"index": 0, "delta": delta, "finish_reason": null}]), &Value::Null);
    }

    fn begin(&mut self, stream: &Stream) {
        match self.wire {
            Wire::Anthropic => {
                let usage = &stream.usage;
                let fresh = usage.input_tokens.saturating_sub(usage.cached_tokens + usage.cache_write_tokens);
                let message = json!({
                    "id": "msg_fake",
                    "type": "message",
                    "role": "assistant",
                    "model": self.model,
                    "content": [],
                    "stop_reason": null,
                    "stop_sequence": null,
                    "usage": {
                        "input_tokens": fresh,
                        "cache_read_input_tokens": usage.cached_tokens,
                        "cache_creation_input_tokens": usage.cache_write_tokens,
                        "output_tokens": 1,
                    },
                });
                self.event("message_start", json!({"message": message}));
            }
            Wire::OpenAi => self.delta(&json!({"role": "assistant", "content": ""})),
        }
    }

    fn text(&mut self, text: &str) {
        match self.wire {
            Wire::Anthropic => {
                if !self.in_text {
                    self.in_text = true;
                    let block = json!({"type": "text", "text": ""});
                    self.event("content_block_start", json!({"index": self.blocks, "content_block": block}));
                }
                let delta = json!({"type": "text_delta", "text": text});
                self.event("content_block_delta", json!({"index": self.blocks, "delta": delta}));
            }
            Wire::OpenAi => self.delta(&json!({"content": text})),
        }
    }

    fn close_text(&mut self) {
        if self.in_text {
            self.in_text = false;
            self.event("content_block_stop", json!({"index": self.blocks}));
            self.blocks += 1;
        }
    }

    fn call(&mut self, id: &str, name: &str, arguments: &[String]) {
        match self.wire {
            Wire::Anthropic => {
                self.close_text();
                let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                self.event("content_block_start", json!({"index": self.blocks, "content_block": block}));
                for slice in arguments {
                    let delta = json!({"type": "input_json_delta", "partial_json": slice});
                    self.event("content_block_delta", json!({"index": self.blocks, "delta": delta}));
                }
                self.event("content_block_stop", json!({"index": self.blocks}));
                self.blocks += 1;
            }
            Wire::OpenAi => {
                let index = self.calls;
                self.calls += 1;
                let function = json!({"name": name, "arguments": ""});
                self.delta(&json!({
                    "tool_calls": [{"index": index, "id": id, "type": "function", "function": function}],
                }));
                for slice in arguments {
                    self.delta(&json!({"tool_calls": [{"index": index, "function": {"arguments": slice}}]}));
                }
            }
        }
    }

    fn end(&mut self, stop: StopReason, usage: &shared::model::Usage) {
        match self.wire {
            Wire::Anthropic => {
                self.close_text();
                let reason = match stop {
                    StopReason::End => "end_turn",
                    StopReason::Length => "max_tokens",
                    StopReason::ToolCalls => "tool_use",
                    StopReason::ContentFilter => "refusal",
                };
                self.event(
                    "message_delta",
                    json!({
                        "delta": {"stop_reason": reason, "stop_sequence": null},
                        "usage": {"output_tokens": usage.output_tokens},
                    }),
                );
                self.event("message_stop", json!({}));
            }
            Wire::OpenAi => {
                let reason = match stop {
                    StopReason::End => "stop",
                    StopReason::Length => "length",
                    StopReason::ToolCalls => "tool_calls",
                    StopReason::ContentFilter => "content_filter",
                };
                self.chunk(&json!([{"index": 0, "delta": {}, "finish_reason": reason}]), &Value::Null);
                let usage = json!({
                    "prompt_tokens": usage.input_tokens,
                    "completion_tokens": usage.output_tokens,
                    "total_tokens": usage.total_tokens(),
                    "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
                    "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
                });
                self.chunk(&json!([]), &usage);
                self.bytes.extend_from_slice(b"data: [DONE]\n\n");
            }
        }
    }
}
