//! A [`ModelRequest`] as the body of `POST /v1/messages`. Pure, and borrowed from the request: no picture is copied.
//!
//! The protocol has no `frequency_penalty`, `presence_penalty` and `seed`: they are left out. Its temperature ends
//! at 1: a higher one becomes 1. A JSON schema goes into `output_config`; for JSON without a schema, which the
//! protocol does not know, the system prompt asks.

use crate::adapters::models::{SUMMARY_OF, arguments};
use crate::config::ModelInfo;
use crate::message::{MessageBody, Part};
use crate::model::{ModelRequest, ToolChoice};
use crate::tool::ToolSpec;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// What stands at the end of the system prompt when JSON without a schema is wanted.
const ASK_FOR_JSON: &str = "Answer with one JSON object and nothing else.";

/// The body. `info` gives `max_tokens`, which the protocol demands, when the request names none.
pub fn body(request: &ModelRequest, info: ModelInfo) -> impl Serialize + Sync {
    let sampling = &request.sampling;
    let format = sampling.response_format.as_ref();
    let schema = format.and_then(|format| format.pointer("/json_schema/schema"));
    let wants_json =
        format.is_some_and(|format| format["type"] == "json_object" || format["type"] == "json_schema");
    let system = match (wants_json && schema.is_none(), request.system.as_str()) {
        (false, system) => Cow::Borrowed(system),
        (true, "") => Cow::Borrowed(ASK_FOR_JSON),
        (true, system) => Cow::Owned(format!("{system}\n\n{ASK_FOR_JSON}")),
    };
    let (tools, tool_choice) = match request.tools.as_slice() {
        [] => {
            let tools = called_tools(&request.messages);
            let forbidden = (!tools.is_empty()).then_some(Choice::None);
            (tools, forbidden)
        }
        tools => (tools.iter().map(tool).collect(), choice(&request.tool_choice)),
    };
    Body {
        model: &request.model.model,
        max_tokens: sampling.max_tokens.unwrap_or(info.max_tokens).min(info.context_window),
        stream: true,
        system,
        messages: turns(&request.messages),
        tools,
        tool_choice,
        temperature: sampling.temperature.map(|temperature| temperature.min(1.0)),
        top_p: sampling.top_p,
        stop_sequences: &sampling.stop,
        output_config: schema.map(|schema| OutputConfig { format: Format::JsonSchema { schema } }),
    }
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    max_tokens: u32,
    stream: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    system: Cow<'a, str>,
    messages: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop_sequences: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig<'a>>,
}

#[derive(Serialize)]
struct OutputConfig<'a> {
    format: Format<'a>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Format<'a> {
    JsonSchema { schema: &'a Value },
}

#[derive(Serialize)]
struct Turn<'a> {
    role: Role,
    content: Vec<Block<'a>>,
}

#[derive(Serialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Role {
    User,
    Assistant,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    Text {
        text: Cow<'a, str>,
    },
    Image {
        source: Source<'a>,
    },
    ToolUse {
        id: Cow<'a, str>,
        name: &'a str,
        input: Cow<'a, RawValue>,
    },
    ToolResult {
        tool_use_id: Cow<'a, str>,
        #[serde(skip_serializing_if = "str::is_empty")]
        content: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Source<'a> {
    Base64 { media_type: &'a str, data: &'a str },
}

#[derive(Serialize)]
struct Tool<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    input_schema: Cow<'a, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Choice<'a> {
    None,
    Any,
    Tool { name: &'a str },
}

fn choice(choice: &ToolChoice) -> Option<Choice<'_>> {
    match choice {
        ToolChoice::Auto => None,
        ToolChoice::None => Some(Choice::None),
        ToolChoice::Required => Some(Choice::Any),
        ToolChoice::Tool(name) => Some(Choice::Tool { name }),
    }
}

fn tool(spec: &ToolSpec) -> Tool<'_> {
    // The protocol demands a schema of type `object`; a function without parameters may come without one.
    let input_schema = match &spec.parameters {
        Value::Object(schema) if schema.contains_key("type") => Cow::Borrowed(&spec.parameters),
        Value::Object(schema) => {
            let mut schema = schema.clone();
            schema.insert("type".to_owned(), json!("object"));
            Cow::Owned(Value::Object(schema))
        }
        _ => Cow::Owned(json!({"type": "object"})),
    };
    Tool { name: &spec.name, description: &spec.description, input_schema, strict: spec.strict }
}

/// The tools that were called before, by name only. Where none is offered any more they stand in for the offer: some
/// servers (Amazon's) refuse calls and results in a request without tools.
fn called_tools(messages: &[MessageBody]) -> Vec<Tool<'_>> {
    let calls = messages.iter().filter_map(|message| match message {
        MessageBody::Assistant { tool_calls, .. } => Some(tool_calls),
        _ => None,
    });
    let names: BTreeSet<&str> = calls.flatten().map(|call| call.name.as_str()).collect();
    let tool = |name| Tool {
        name,
        description: "",
        input_schema: Cow::Owned(json!({"type": "object"})),
        strict: None,
    };
    names.into_iter().map(tool).collect()
}

/// The messages with neighbours of one role merged, empty texts left out (the protocol refuses them), and tool
/// results at the beginning of their message, where the protocol wants them.
fn turns(messages: &[MessageBody]) -> Vec<Turn<'_>> {
    let mut turns: Vec<Turn<'_>> = Vec::new();
    for message in messages {
        match message {
            MessageBody::User { parts } => {
                for part in parts {
                    match part {
                        Part::Text { text } => put_text(&mut turns, Role::User, text.as_str().into()),
                        Part::Image { media_type, data } => {
                            put(
                                &mut turns,
                                Role::User,
                                Block::Image { source: Source::Base64 { media_type, data } },
                            );
                        }
                    }
                }
            }
            MessageBody::Summary { text, .. } => {
                put_text(&mut turns, Role::User, format!("{SUMMARY_OF}{text}").into());
            }
            MessageBody::Assistant { text, tool_calls } => {
                put_text(&mut turns, Role::Assistant, text.as_str().into());
                for call in tool_calls {
                    let block = Block::ToolUse {
                        id: call_id(&call.id),
                        name: &call.name,
                        input: arguments(&call.arguments),
                    };
                    put(&mut turns, Role::Assistant, block);
                }
            }
            MessageBody::ToolResult { call_id: id, content, is_error, .. } => {
                let block = Block::ToolResult { tool_use_id: call_id(id), content, is_error: *is_error };
                put(&mut turns, Role::User, block);
            }
        }
    }
    turns
}

fn put_text<'a>(turns: &mut Vec<Turn<'a>>, role: Role, text: Cow<'a, str>) {
    if !text.trim().is_empty() {
        put(turns, role, Block::Text { text });
    }
}

fn put<'a>(turns: &mut Vec<Turn<'a>>, role: Role, block: Block<'a>) {
    let content = match turns.last_mut() {
        Some(turn) if turn.role == role => &mut turn.content,
        _ => {
            turns.push(Turn { role, content: vec![block] });
            return;
        }
    };
    let at = match block {
        Block::ToolResult { .. } => {
            content.iter().take_while(|block| matches!(block, Block::ToolResult { .. })).count()
        }
        _ => content.len(),
    };
    content.insert(at, block);
}

/// The id in the protocol's alphabet, `[a-zA-Z0-9_-]`: a client that repeats its history may have used others.
fn call_id(id: &str) -> Cow<'_, str> {
    let fits = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    if id.chars().all(fits) { id.into() } else { id.replace(|letter| !fits(letter), "_").into() }
}
