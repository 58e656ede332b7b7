//! The request's fields: which are read, and what each may be.

use super::super::error::ApiError;
use super::super::fields::{self, Function, Tools, number, tokens, whole, wrong};
use super::super::images::Pictures;
use crate::bounds::STOP_TEXTS;
use crate::message::{MessageBody, Part, ToolCall};
use crate::model::{Sampling, ToolChoice};
use crate::tool::ToolSpec;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;
use utoipa::ToSchema;

const NO_USER_MESSAGE: &str = "Missing user message in `messages`.";

/// OpenAI's request; fields beyond these are read over.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "a JSON object")]
pub(super) struct ChatRequest<'a> {
    /// `openclaw` (the default agent), `openclaw/<agentId>`, or an agent's id.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    pub(super) model: Option<Cow<'a, str>>,
    /// The end user: requests that name the same one meet on one session.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    pub(super) user: Option<Cow<'a, str>>,
    /// Oldest first; the last one must be a user's or a tool's.
    #[serde(borrow)]
    #[schema(value_type = Vec<ChatMessage>, required = true)]
    messages: Option<Vec<ChatMessage<'a>>>,
    /// Answer with server-sent events.
    stream: Option<bool>,
    /// For streams.
    stream_options: Option<StreamOptions>,
    /// Functions that the client runs itself.
    tools: Option<Vec<ChatTool>>,
    /// `auto`, `none`, `required`, or `{"type":"function","function":{"name":…}}`.
    tool_choice: Option<Value>,
    /// Most tokens of the reply.
    #[schema(value_type = Option<u64>)]
    max_completion_tokens: Option<Value>,
    /// The same, by its older name.
    #[schema(value_type = Option<u64>)]
    max_tokens: Option<Value>,
    /// 0 to 2.
    #[schema(value_type = Option<f64>)]
    temperature: Option<Value>,
    /// 0 to 1.
    #[schema(value_type = Option<f64>)]
    top_p: Option<Value>,
    /// -2 to 2.
    #[schema(value_type = Option<f64>)]
    frequency_penalty: Option<Value>,
    /// -2 to 2.
    #[schema(value_type = Option<f64>)]
    presence_penalty: Option<Value>,
    /// For vendors that take one.
    #[schema(value_type = Option<i64>)]
    seed: Option<Value>,
    /// A text or at most four, before which the reply ends.
    stop: Option<Value>,
    /// Of type `text`, `json_object` or `json_schema`.
    #[schema(value_type = Option<Object>)]
    response_format: Option<Value>,
}

/// For streams.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
struct StreamOptions {
    /// End with a chunk that holds the usage.
    include_usage: Option<bool>,
}

/// One message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
struct ChatMessage<'a> {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    #[serde(borrow)]
    #[schema(value_type = String)]
    role: Cow<'a, str>,
    /// A text, or an array of parts of type `text` or (a user's) `image_url`.
    #[serde(borrow, default)]
    #[schema(value_type = Value)]
    content: Content<'a>,
    /// What the assistant asked for.
    tool_calls: Option<Vec<ChatToolCall>>,
    /// Which call a tool's message answers.
    tool_call_id: Option<String>,
    /// The tool's name.
    name: Option<String>,
}

/// A message's content: nothing, a text, or parts.
#[derive(Debug, Default)]
enum Content<'a> {
    #[default]
    Nothing,
    Text(Cow<'a, str>),
    Parts(Vec<ContentPart<'a>>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Content<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, an array of parts, or null")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Content::Nothing)
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Content::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                self.visit_string(text.to_owned())
            }
            fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Self::Value, E> {
                Ok(Content::Text(Cow::Owned(text)))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = seq.next_element()? {
                    parts.push(part);
                }
                Ok(Content::Parts(parts))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
struct ContentPart<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    #[serde(borrow)]
    refusal: Option<Cow<'a, str>>,
    #[serde(borrow)]
    image_url: Option<ImageUrl<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(expecting = "an object")]
struct ImageUrl<'a> {
    #[serde(borrow)]
    url: Cow<'a, str>,
}

/// A call that the assistant made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
struct ChatToolCall {
    id: String,
    #[serde(rename = "type", default = "function")]
    kind: String,
    function: CalledFunction,
}

/// What it called.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
struct CalledFunction {
    name: String,
    #[serde(default)]
    arguments: String,
}

/// A tool of type `function`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
struct ChatTool {
    #[serde(rename = "type", default = "function")]
    kind: String,
    function: Option<Function>,
}

fn function() -> String {
    "function".to_owned()
}

/// What the request says, checked.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) input: Vec<MessageBody>,
    pub(super) instructions: Option<String>,
    pub(super) client_tools: Vec<ToolSpec>,
    pub(super) tool_choice: ToolChoice,
    pub(super) sampling: Sampling,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
}

impl ChatRequest<'_> {
    /// Checks every field.
    ///
    /// # Errors
    /// 400, naming the field.
    pub(super) fn read(self) -> Result<Read, ApiError> {
        let sampling = self.sampling()?;
        let client_tools = tools(self.tools.unwrap_or_default())?;
        let tool_choice = fields::tool_choice(self.tool_choice.as_ref(), &client_tools, chosen)?;
        let (input, instructions) = messages(self.messages.unwrap_or_default())?;
        Ok(Read {
            input,
            instructions,
            client_tools,
            tool_choice,
            sampling,
            stream: self.stream.unwrap_or(false),
            include_usage: self.stream_options.unwrap_or_default().include_usage.unwrap_or(false),
        })
    }

    fn sampling(&self) -> Result<Sampling, ApiError> {
        let max_tokens = match tokens(self.max_completion_tokens.as_ref(), "max_completion_tokens")? {
            Some(most) => Some(most),
            None => tokens(self.max_tokens.as_ref(), "max_tokens")?,
        };
        Ok(Sampling {
            max_tokens,
            temperature: number(self.temperature.as_ref(), "temperature", 0.0, 2.0)?,
            top_p: number(self.top_p.as_ref(), "top_p", 0.0, 1.0)?,
            frequency_penalty: number(self.frequency_penalty.as_ref(), "frequency_penalty", -2.0, 2.0)?,
            presence_penalty: number(self.presence_penalty.as_ref(), "presence_penalty", -2.0, 2.0)?,
            seed: seed(self.seed.as_ref())?,
            stop: stop(self.stop.as_ref())?,
            response_format: response_format(self.response_format.as_ref())?,
        })
    }
}

fn seed(value: Option<&Value>) -> Result<Option<i64>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    whole(value).map(Some).ok_or_else(|| wrong("seed", "must be an integer"))
}

fn stop(value: Option<&Value>) -> Result<Vec<String>, ApiError> {
    let strings = |list: &[Value]| -> Option<Vec<String>> {
        list.iter().map(|item| item.as_str().map(str::to_owned)).collect()
    };
    match value {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(list)) if list.len() > STOP_TEXTS => {
            Err(wrong("stop", &format!("must have at most {STOP_TEXTS} entries")))
        }
        Some(Value::Array(list)) => {
            strings(list).ok_or_else(|| wrong("stop", "must be a string or an array of strings"))
        }
        Some(_) => Err(wrong("stop", "must be a string or an array of strings")),
    }
}

fn response_format(value: Option<&Value>) -> Result<Option<Value>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    match value.get("type").and_then(Value::as_str) {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(value.clone())),
        Some("json_schema") => {
            let schema = &value["json_schema"];
            if schema["name"].is_string() && (schema["schema"].is_object() || schema["schema"].is_null()) {
                Ok(Some(value.clone()))
            } else {
                Err(wrong("response_format.json_schema", "must have a `name` and a `schema`"))
            }
        }
        _ => Err(wrong("response_format.type", "must be `text`, `json_object` or `json_schema`")),
    }
}

fn tools(tools: Vec<ChatTool>) -> Result<Vec<ToolSpec>, ApiError> {
    let mut specs = Tools::of(tools.len())?;
    for (index, tool) in tools.into_iter().enumerate() {
        if tool.kind != "function" {
            return Err(wrong(&format!("tools[{index}].type"), "must be `function`"));
        }
        let at = format!("tools[{index}].function");
        specs.add(tool.function.ok_or_else(|| wrong(&at, "is missing"))?, &at)?;
    }
    Ok(specs.checked())
}

/// The function that a `tool_choice` object names.
fn chosen(object: &Map<String, Value>) -> Option<&str> {
    object.get("function")?["name"].as_str()
}

/// What was said, oldest first, and the texts of all system and developer messages.
fn messages(messages: Vec<ChatMessage<'_>>) -> Result<(Vec<MessageBody>, Option<String>), ApiError> {
    fields::entries(messages.len(), "messages")?;
    let mut input = Vec::with_capacity(messages.len());
    let mut instructions: Vec<String> = Vec::new();
    let mut pictures = Pictures::default();
    for (index, message) in messages.into_iter().enumerate() {
        let at = format!("messages[{index}]");
        match &*message.role {
            "system" | "developer" => {
                let text = text_of(message.content, &at)?;
                if !text.trim().is_empty() {
                    instructions.push(text);
                }
            }
            "user" => {
                pictures.next_message();
                let parts = user_parts(message.content, &at, &mut pictures)?;
                if !parts.is_empty() {
                    input.push(MessageBody::User { parts });
                }
            }
            "assistant" => {
                let tool_calls = tool_calls(message.tool_calls.unwrap_or_default(), &at)?;
                let text = text_of(message.content, &at)?;
                if !text.is_empty() || !tool_calls.is_empty() {
                    input.push(MessageBody::Assistant { text, tool_calls });
                }
            }
            "tool" => {
                let call_id = message.tool_call_id.filter(|id| !id.is_empty());
                let call_id = call_id.ok_or_else(|| wrong(&format!("{at}.tool_call_id"), "is missing"))?;
                let content = text_of(message.content, &at)?;
                let name = message.name.unwrap_or_default();
                input.push(MessageBody::ToolResult { call_id, name, content, is_error: false });
            }
            _ => {
                let rule = "must be `system`, `developer`, `user`, `assistant` or `tool`";
                return Err(wrong(&format!("{at}.role"), rule));
            }
        }
    }
    match input.last() {
        Some(MessageBody::User { .. } | MessageBody::ToolResult { .. }) => {
            let instructions = (!instructions.is_empty()).then(|| instructions.join("\n\n"));
            Ok((input, instructions))
        }
        _ => Err(ApiError::invalid_at("messages", NO_USER_MESSAGE)),
    }
}

/// The text of a message that can have no pictures.
fn text_of(content: Content<'_>, at: &str) -> Result<String, ApiError> {
    let parts = match content {
        Content::Nothing => return Ok(String::new()),
        Content::Text(text) => return Ok(text.into_owned()),
        Content::Parts(parts) => parts,
    };
    fields::parts(parts.len(), &format!("{at}.content"))?;
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let text = match &*part.kind {
            "text" => part.text,
            "refusal" => part.refusal,
            _ => {
                return Err(wrong(
                    &format!("{at}.content[{index}].type"),
                    "must be `text` in such a message",
                ));
            }
        };
        let text = text.ok_or_else(|| wrong(&format!("{at}.content[{index}].text"), "is missing"))?;
        texts.push(text.into_owned());
    }
    Ok(texts.join("\n"))
}

/// A user's parts; an empty list if there is nothing in them.
fn user_parts(content: Content<'_>, at: &str, pictures: &mut Pictures) -> Result<Vec<Part>, ApiError> {
    let parts = match content {
        Content::Nothing => return Ok(Vec::new()),
        Content::Text(text) if text.trim().is_empty() => return Ok(Vec::new()),
        Content::Text(text) => return Ok(vec![Part::Text { text: text.into_owned() }]),
        Content::Parts(parts) => parts,
    };
    fields::parts(parts.len(), &format!("{at}.content"))?;
    let mut out = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let at = format!("{at}.content[{index}]");
        match &*part.kind {
            "text" => {
                let text = part.text.ok_or_else(|| wrong(&format!("{at}.text"), "is missing"))?;
                if !text.trim().is_empty() {
                    out.push(Part::Text { text: text.into_owned() });
                }
            }
            "image_url" => {
                let image = part.image_url.ok_or_else(|| wrong(&format!("{at}.image_url"), "is missing"))?;
                out.push(pictures.read(&image.url, &format!("{at}.image_url.url"))?);
            }
            _ => return Err(wrong(&format!("{at}.type"), "must be `text` or `image_url`")),
        }
    }
    Ok(out)
}

fn tool_calls(calls: Vec<ChatToolCall>, at: &str) -> Result<Vec<ToolCall>, ApiError> {
    fields::calls(calls.len(), &format!("{at}.tool_calls"))?;
    let mut out = Vec::with_capacity(calls.len());
    for (index, call) in calls.into_iter().enumerate() {
        if call.kind != "function" {
            return Err(wrong(&format!("{at}.tool_calls[{index}].type"), "must be `function`"));
        }
        let ChatToolCall { id, function: CalledFunction { name, arguments }, .. } = call;
        out.push(ToolCall { id, name, arguments });
    }
    Ok(out)
}
