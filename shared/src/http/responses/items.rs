//! Input items, as the Open Responses specification writes them, to the messages of a turn.

use super::super::error::ApiError;
use super::super::fields::{self, wrong};
use super::super::images::Pictures;
use super::files;
use crate::message::{MessageBody, Part, ToolCall};
use serde_json::{Map, Value};

/// What a request's `input` says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Input {
    /// Oldest first; only user, assistant and tool messages.
    pub messages: Vec<MessageBody>,
    /// Texts of system and developer messages, in order.
    pub system: Vec<String>,
    /// Files, wrapped as untrusted content, in order.
    pub files: Vec<String>,
}

/// Reads `input`: a text, or a list of items.
///
/// By hand and not by derived types: a message may leave out its `type`, and an error must name the item.
///
/// # Errors
/// 400, with the item's path: an unknown type, a missing or wrong field, a picture or file that cannot be taken; no
/// user message or tool result at the end.
pub(super) fn read(input: Value) -> Result<Input, ApiError> {
    let mut reader = Reader { input: Input::default(), loose: false, pictures: Pictures::default() };
    match input {
        Value::String(text) => reader.user(vec![Part::Text { text }]),
        Value::Array(items) => {
            fields::entries(items.len(), "input")?;
            for (index, item) in items.into_iter().enumerate() {
                reader.item(item, &format!("input[{index}]"))?;
            }
        }
        _ => return Err(wrong("input", "must be a string or an array of items")),
    }
    match reader.input.messages.last() {
        Some(MessageBody::User { .. } | MessageBody::ToolResult { .. }) => Ok(reader.input),
        _ => Err(ApiError::invalid_at("input", "Missing user message in `input`.")),
    }
}

struct Reader {
    input: Input,
    /// The newest message was made of a content part that stood among the items.
    loose: bool,
    pictures: Pictures,
}

impl Reader {
    fn item(&mut self, item: Value, at: &str) -> Result<(), ApiError> {
        let Value::Object(mut item) = item else {
            return Err(wrong(at, "must be an object"));
        };
        let kind = match item.remove("type") {
            Some(Value::String(kind)) => kind,
            None | Some(Value::Null) if item.contains_key("role") => "message".to_owned(),
            None | Some(Value::Null) if item.contains_key("id") => "item_reference".to_owned(),
            _ => return Err(wrong(&format!("{at}.type"), "is missing")),
        };
        let loose = std::mem::take(&mut self.loose);
        match kind.as_str() {
            "message" => self.message(item, at),
            "function_call" => {
                let call = ToolCall {
                    id: string(&mut item, "call_id", at)?,
                    name: string(&mut item, "name", at)?,
                    arguments: string(&mut item, "arguments", at)?,
                };
                // A turn's text and calls are one message of the transcript, so they are here.
                if let Some(MessageBody::Assistant { tool_calls, .. }) = self.input.messages.last_mut() {
                    tool_calls.push(call);
                } else {
                    let body = MessageBody::Assistant { text: String::new(), tool_calls: vec![call] };
                    self.input.messages.push(body);
                }
                Ok(())
            }
            "function_call_output" => {
                let call_id = string(&mut item, "call_id", at)?;
                let content = output_text(item.remove("output"), &format!("{at}.output"))?;
                let name = self.name_of(&call_id);
                let body = MessageBody::ToolResult { call_id, name, content, is_error: false };
                self.input.messages.push(body);
                Ok(())
            }
            "input_text" | "input_image" | "input_file" => {
                if !loose {
                    self.pictures.next_message();
                }
                let part = self.part(&kind, item, at)?;
                match self.input.messages.last_mut() {
                    Some(MessageBody::User { parts }) if loose => parts.push(part),
                    _ => self.input.messages.push(MessageBody::User { parts: vec![part] }),
                }
                self.loose = true;
                Ok(())
            }
            // The session's own transcript stands in their place.
            "reasoning" | "item_reference" | "compaction" => Ok(()),
            _ => Err(wrong(&format!("{at}.type"), "is of a kind that is not supported")),
        }
    }

    fn message(&mut self, mut item: Map<String, Value>, at: &str) -> Result<(), ApiError> {
        let role = string(&mut item, "role", at)?;
        let content_at = format!("{at}.content");
        let content = item.remove("content").unwrap_or_default();
        match role.as_str() {
            "user" => {
                let parts = match content {
                    Value::String(text) => vec![Part::Text { text }],
                    content => self.parts(content, &content_at)?,
                };
                self.user(parts);
            }
            "assistant" => {
                let text = texts(content, &content_at)?.concat();
                if !text.is_empty() {
                    self.input.messages.push(MessageBody::assistant_text(text));
                }
            }
            "system" | "developer" => {
                let text = texts(content, &content_at)?.join("\n");
                if !text.trim().is_empty() {
                    self.input.system.push(text);
                }
            }
            _ => {
                let rule = "must be `user`, `assistant`, `system` or `developer`";
                return Err(wrong(&format!("{at}.role"), rule));
            }
        }
        Ok(())
    }

    /// Adds a user's message; blank texts say nothing, and are left out.
    fn user(&mut self, mut parts: Vec<Part>) {
        parts.retain(|part| !matches!(part, Part::Text { text } if text.trim().is_empty()));
        if !parts.is_empty() {
            self.input.messages.push(MessageBody::User { parts });
        }
    }

    fn parts(&mut self, content: Value, at: &str) -> Result<Vec<Part>, ApiError> {
        let items = array(content, at)?;
        self.pictures.next_message();
        let mut parts = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let at = format!("{at}[{index}]");
            let (kind, item) = typed(item, &at)?;
            parts.push(self.part(&kind, item, &at)?);
        }
        Ok(parts)
    }

    fn part(&mut self, kind: &str, mut item: Map<String, Value>, at: &str) -> Result<Part, ApiError> {
        match kind {
            "input_text" => Ok(Part::Text { text: string(&mut item, "text", at)? }),
            "input_image" => {
                let (url, at) = image_url(item, at)?;
                self.pictures.read(&url, &at)
            }
            "input_file" => {
                let file = files::read(item, at)?;
                self.input.files.push(file.for_the_model());
                // Stays in the transcript when the content, given for this turn only, is gone.
                Ok(Part::Text { text: format!("[attached file: {}]", file.name) })
            }
            _ => Err(wrong(&format!("{at}.type"), "must be `input_text`, `input_image` or `input_file`")),
        }
    }

    /// The name of a call that the same input repeats.
    fn name_of(&self, call_id: &str) -> String {
        let calls = self.input.messages.iter().rev().filter_map(|message| match message {
            MessageBody::Assistant { tool_calls, .. } => Some(tool_calls),
            _ => None,
        });
        let found = calls.flatten().find(|call| call.id == call_id);
        found.map(|call| call.name.clone()).unwrap_or_default()
    }
}

/// The URL of a picture: in `image_url`, or in OpenClaw's `source`.
fn image_url(mut item: Map<String, Value>, at: &str) -> Result<(String, String), ApiError> {
    if let Some(Value::Object(mut source)) = item.remove("source") {
        let at = format!("{at}.source");
        return match string(&mut source, "type", &at)?.as_str() {
            "base64" => {
                let media_type = string(&mut source, "media_type", &at)?;
                let data = string(&mut source, "data", &at)?;
                Ok((format!("data:{media_type};base64,{data}"), format!("{at}.data")))
            }
            _ => Ok((string(&mut source, "url", &at)?, format!("{at}.url"))),
        };
    }
    if item.get("file_id").is_some_and(|id| !id.is_null()) {
        let rule = "is not supported; send the picture as a `data:` URL in `image_url`";
        return Err(wrong(&format!("{at}.file_id"), rule));
    }
    Ok((string(&mut item, "image_url", at)?, format!("{at}.image_url")))
}

/// A tool's output: a text, or text parts joined.
fn output_text(output: Option<Value>, at: &str) -> Result<String, ApiError> {
    match output {
        Some(Value::String(text)) => Ok(text),
        Some(output) => Ok(texts(output, at)?.join("\n")),
        None => Err(wrong(at, "is missing")),
    }
}

/// A text, or the texts of a list of text parts.
fn texts(content: Value, at: &str) -> Result<Vec<String>, ApiError> {
    if let Value::String(text) = content {
        return Ok(vec![text]);
    }
    let parts = array(content, at)?.into_iter().enumerate().map(|(index, part)| {
        let at = format!("{at}[{index}]");
        let (kind, mut part) = typed(part, &at)?;
        match kind.as_str() {
            "input_text" | "output_text" | "text" => string(&mut part, "text", &at),
            "refusal" => string(&mut part, "refusal", &at),
            _ => Err(wrong(&format!("{at}.type"), "must be a text in such an item")),
        }
    });
    parts.collect()
}

fn typed(part: Value, at: &str) -> Result<(String, Map<String, Value>), ApiError> {
    let Value::Object(mut part) = part else {
        return Err(wrong(at, "must be an object"));
    };
    let kind = string(&mut part, "type", at)?;
    Ok((kind, part))
}

fn array(content: Value, at: &str) -> Result<Vec<Value>, ApiError> {
    match content {
        Value::Array(items) => {
            fields::parts(items.len(), at)?;
            Ok(items)
        }
        _ => Err(wrong(at, "must be a string or an array")),
    }
}

/// Takes a field that must be a text.
pub(super) fn string(object: &mut Map<String, Value>, field: &str, at: &str) -> Result<String, ApiError> {
    match object.remove(field) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(wrong(&format!("{at}.{field}"), "must be a string")),
    }
}
