//! The response object of the Open Responses specification, made from a turn.
//!
//! Every field that the specification requires is there, also when it says nothing: clients generated from the
//! schema refuse a body without it.

use super::super::error::ApiError;
use super::super::run;
use crate::agent::RunOptions;
use crate::id::TurnId;
use crate::message::ToolCall;
use crate::model::{StopReason, ToolChoice, Usage};
use crate::session::Reply;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a response repeats of its request beyond [`RunOptions`]; kept in [`RunOptions::echo`], so that a replay and a
/// later retrieval answer the same.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Echo {
    /// The request's own `instructions`: those of the turn also hold system messages and files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_response_id: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    pub truncation: Truncation,
    /// The turn was handed to the queue.
    pub background: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safety_identifier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt_cache_key: Option<String>,
    /// In seconds since the Unix epoch, where the turn's id comes from an idempotency key and so tells no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<i64>,
}

impl Echo {
    /// The echo of a stored turn; empty for a turn that another surface made.
    pub(super) fn of(options: &RunOptions) -> Self {
        Self::deserialize(&options.echo).unwrap_or_default()
    }
}

/// What a client wants done with a transcript that is too long. Repeated only: a long session is always compacted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Truncation {
    Auto,
    #[default]
    Disabled,
}

/// Where a response, or an item of it, stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ResponseStatus)]
pub(super) enum Status {
    Queued,
    InProgress,
    Completed,
    Incomplete,
    Failed,
}

/// One item of the output.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = ResponseItem)]
pub(super) enum Item {
    Message {
        id: String,
        status: Status,
        role: &'static str,
        content: Vec<Content>,
        /// Not known while the text still comes: calls may follow it.
        #[serde(skip_serializing_if = "Option::is_none")]
        phase: Option<&'static str>,
    },
    FunctionCall {
        id: String,
        call_id: String,
        name: String,
        arguments: String,
        status: Status,
    },
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = ResponseContent)]
pub(super) enum Content {
    OutputText {
        text: String,
        /// Always empty.
        #[schema(value_type = Vec<Object>)]
        annotations: [(); 0],
        /// Always empty.
        #[schema(value_type = Vec<Object>)]
        logprobs: [(); 0],
    },
}

impl Content {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::OutputText { text: text.into(), annotations: [], logprobs: [] }
    }
}

impl Item {
    pub(super) fn message(turn: &TurnId, status: Status, text: String, phase: Option<&'static str>) -> Self {
        let content = vec![Content::text(text)];
        Self::Message { id: message_id(turn), status, role: "assistant", content, phase }
    }

    pub(super) fn function_call(turn: &TurnId, index: usize, call: ToolCall) -> Self {
        // Clients parse the arguments without looking: an empty text would break them.
        let arguments = if call.arguments.trim().is_empty() { "{}".to_owned() } else { call.arguments };
        Self::FunctionCall {
            id: format!("fc_{turn}_{index}"),
            call_id: call.id,
            name: call.name,
            arguments,
            status: Status::Completed,
        }
    }
}

pub(super) fn message_id(turn: &TurnId) -> String {
    format!("msg_{turn}")
}

pub(super) fn response_id(turn: &TurnId) -> String {
    format!("resp_{turn}")
}

/// The turn that a response's id names; `None` if the text is no such id.
pub(super) fn turn_of(response_id: &str) -> Option<TurnId> {
    let id = response_id.strip_prefix("resp_")?;
    let plain = !id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then(|| TurnId::new(id))
}

/// Seconds since the Unix epoch at which the turn got its id: known from the id alone, so that a queued, a streamed, a
/// replayed and a fetched response agree.
fn created_at(turn: &TurnId) -> i64 {
    let id = ulid::Ulid::from_string(turn.as_str()).ok();
    id.and_then(|id| i64::try_from(id.timestamp_ms() / 1000).ok()).unwrap_or_default()
}

/// Why a response failed.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct ResponseError {
    code: &'static str,
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
struct IncompleteDetails {
    reason: &'static str,
}

/// Tokens, with every detail that the stock clients look for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
#[schema(as = ResponseUsage)]
struct UsageOut {
    input_tokens: u64,
    input_tokens_details: InputDetails,
    output_tokens: u64,
    output_tokens_details: OutputDetails,
    total_tokens: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
struct InputDetails {
    cached_tokens: u64,
    cache_write_tokens: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
struct OutputDetails {
    reasoning_tokens: u64,
}

impl From<Usage> for UsageOut {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            input_tokens_details: InputDetails {
                cached_tokens: usage.cached_tokens,
                cache_write_tokens: usage.cache_write_tokens,
            },
            output_tokens: usage.output_tokens,
            output_tokens_details: OutputDetails { reasoning_tokens: usage.reasoning_tokens },
            total_tokens: usage.total_tokens(),
        }
    }
}

/// The response object.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(super) struct Response {
    /// `resp_` and the turn's id.
    id: String,
    /// `response`.
    object: &'static str,
    /// Seconds since the Unix epoch.
    created_at: i64,
    /// The same; only of a completed response.
    completed_at: Option<i64>,
    status: Status,
    incomplete_details: Option<IncompleteDetails>,
    model: String,
    previous_response_id: Option<String>,
    instructions: Option<String>,
    output: Vec<Item>,
    error: Option<ResponseError>,
    #[schema(value_type = Vec<Object>)]
    tools: Vec<Value>,
    tool_choice: Value,
    truncation: Truncation,
    /// Always true.
    parallel_tool_calls: bool,
    /// `format`, as it was asked for.
    #[schema(value_type = Object)]
    text: Value,
    top_p: f64,
    presence_penalty: f64,
    frequency_penalty: f64,
    top_logprobs: u8,
    temperature: f64,
    /// `null`.
    #[schema(value_type = Option<Object>)]
    reasoning: Option<()>,
    usage: Option<UsageOut>,
    max_output_tokens: Option<u32>,
    /// `null`.
    #[schema(value_type = Option<u64>)]
    max_tool_calls: Option<()>,
    /// Always true: every turn is stored.
    store: bool,
    background: bool,
    service_tier: &'static str,
    metadata: BTreeMap<String, String>,
    safety_identifier: Option<String>,
    prompt_cache_key: Option<String>,
    user: Option<String>,
    #[serde(skip)]
    #[schema(ignore)]
    turn: TurnId,
}

impl Response {
    /// The response of a turn that is at work.
    ///
    /// Settings that a client did not give show the specification's defaults; those that are taken but not used
    /// (`max_tool_calls`, `reasoning`, `parallel_tool_calls: false`) show what is in force. `store` is always true:
    /// every turn is stored.
    pub(super) fn new(turn: &TurnId, options: &RunOptions) -> Self {
        let echo = Echo::of(options);
        let sampling = &options.sampling;
        let tools = options.client_tools.iter().map(|tool| {
            let description = (!tool.description.is_empty()).then_some(&tool.description);
            json!({
                "type": "function", "name": tool.name, "description": description,
                "parameters": tool.parameters, "strict": tool.strict,
            })
        });
        Self {
            id: response_id(turn),
            object: "response",
            created_at: echo.created_at.unwrap_or_else(|| created_at(turn)),
            completed_at: None,
            status: Status::InProgress,
            incomplete_details: None,
            model: options.requested_model.clone(),
            previous_response_id: echo.previous_response_id,
            instructions: echo.instructions,
            output: Vec::new(),
            error: None,
            tools: tools.collect(),
            tool_choice: match &options.tool_choice {
                ToolChoice::Auto => json!("auto"),
                ToolChoice::None => json!("none"),
                ToolChoice::Required => json!("required"),
                ToolChoice::Tool(name) => json!({ "type": "function", "name": name }),
            },
            truncation: echo.truncation,
            parallel_tool_calls: true,
            text: json!({ "format": text_format(sampling.response_format.as_ref()) }),
            top_p: sampling.top_p.unwrap_or(1.0),
            presence_penalty: sampling.presence_penalty.unwrap_or(0.0),
            frequency_penalty: sampling.frequency_penalty.unwrap_or(0.0),
            top_logprobs: 0,
            temperature: sampling.temperature.unwrap_or(1.0),
            reasoning: None,
            usage: None,
            max_output_tokens: sampling.max_tokens,
            max_tool_calls: None,
            store: true,
            background: echo.background,
            service_tier: "default",
            metadata: echo.metadata,
            safety_identifier: echo.safety_identifier,
            prompt_cache_key: echo.prompt_cache_key,
            user: options.user.clone(),
            turn: turn.clone(),
        }
    }

    /// The same answer, of another turn: that of an earlier request with the same idempotency key.
    pub(super) fn of(mut self, turn: &TurnId) -> Self {
        self.id = response_id(turn);
        self.created_at = created_at(turn);
        self.turn = turn.clone();
        self
    }

    /// Of which turn.
    pub(super) const fn turn(&self) -> &TurnId {
        &self.turn
    }

    /// Where it stands.
    pub(super) const fn status(&self) -> Status {
        self.status
    }

    /// Whether it ended, one way or another.
    pub(super) const fn is_over(&self) -> bool {
        !matches!(self.status, Status::Queued | Status::InProgress)
    }

    /// Its items.
    pub(super) fn output(&self) -> &[Item] {
        &self.output
    }

    /// Accepted, but not yet begun.
    pub(super) fn queue(&mut self) {
        self.status = Status::Queued;
    }

    /// Ends it with a reply.
    pub(super) fn complete(&mut self, reply: Reply) {
        let reason = match reply.stop {
            StopReason::End | StopReason::ToolCalls => None,
            StopReason::Length => Some("max_output_tokens"),
            StopReason::ContentFilter => Some("content_filter"),
        };
        self.status = if reason.is_some() { Status::Incomplete } else { Status::Completed };
        self.incomplete_details = reason.map(|reason| IncompleteDetails { reason });
        // The specification's time of completion: a reply that was cut off has none.
        self.completed_at = reason.is_none().then(|| reply.at.as_seconds());
        self.usage = Some(reply.usage.into());
        let called = !reply.tool_calls.is_empty();
        if !reply.text.is_empty() || !called {
            let phase = if called { "commentary" } else { "final_answer" };
            let text = if reply.text.is_empty() { run::NO_TEXT.to_owned() } else { reply.text };
            self.output.push(Item::message(&self.turn, self.status, text, Some(phase)));
        }
        for (index, call) in reply.tool_calls.into_iter().enumerate() {
            self.output.push(Item::function_call(&self.turn, index, call));
        }
    }

    /// Ends it with an error; `said` is what the client had already heard.
    pub(super) fn fail(&mut self, error: &ApiError, said: Option<String>) {
        self.status = Status::Failed;
        self.error = Some(ResponseError { code: error.code(), message: error.message().to_owned() });
        if let Some(text) = said {
            self.output.push(Item::message(&self.turn, Status::Incomplete, text, None));
        }
    }
}

/// The chat surface's `response_format`, in which the format is kept, as `text.format`.
fn text_format(kept: Option<&Value>) -> Value {
    let Some(format) = kept else { return json!({ "type": "text" }) };
    if format["type"] != "json_schema" {
        return json!({ "type": format["type"] });
    }
    let schema = &format["json_schema"];
    json!({
        "type": "json_schema",
        "name": schema["name"],
        "description": schema["description"],
        // The published response schema admits only null here; the client knows what it sent.
        "schema": null,
        "strict": schema["strict"].as_bool().unwrap_or(false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_as_old_as_its_turns_id() {
        // 2026-11-20 00:00:05.678 UTC.
        let id = ulid::Ulid::from_parts(1_795_132_805_678, 7).to_string();
        assert_eq!(created_at(&TurnId::new(id)), 1_795_132_805);
        assert_eq!(created_at(&TurnId::new("T1")), 0);
    }

    #[test]
    fn only_an_id_of_our_own_form_names_a_turn() {
        assert_eq!(turn_of("resp_01HZ"), Some(TurnId::new("01HZ")));
        for text in
            ["", "resp_", "01HZ", "msg_01HZ", "resp_a/b", "resp_\u{e4}", &format!("resp_{}", "A".repeat(65))]
        {
            assert_eq!(turn_of(text), None, "{text}");
        }
    }
}
