//! The body of `POST /v1/responses`, and what a turn makes of it.

use super::super::error::ApiError;
use super::super::fields::{self, Function, Tools, number, tokens, wrong};
use super::items;
use super::resource::{Echo, Truncation};
use crate::bounds::{METADATA_ENTRIES, METADATA_KEY_CHARS, METADATA_VALUE_CHARS};
use crate::message::MessageBody;
use crate::model::{Sampling, ToolChoice};
use crate::quote::reason;
use crate::tool::ToolSpec;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A request for a response. `null` counts as left out. Fields that are not here are read over.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub(super) struct CreateResponse {
    /// The agent: `openclaw`, `openclaw/default` or `openclaw/<agentId>`.
    pub model: Option<String>,
    /// A text, or a list of items; see [`items::read`].
    #[schema(value_type = Value, required = true)]
    pub input: Option<Value>,
    /// For this turn, behind the agent's own instructions.
    pub instructions: Option<String>,
    /// Goes on with that response's session.
    pub previous_response_id: Option<String>,
    /// Functions that the client runs itself.
    pub tools: Option<Vec<ResponseTool>>,
    /// `auto`, `none`, `required`, or one function.
    pub tool_choice: Option<Value>,
    /// The form of the text: `text`, `json_object` or `json_schema`.
    pub text: Option<TextSettings>,
    /// Most tokens of the reply.
    #[schema(value_type = Option<u64>)]
    pub max_output_tokens: Option<Value>,
    /// 0 to 2.
    #[schema(value_type = Option<f64>)]
    pub temperature: Option<Value>,
    /// 0 to 1.
    #[schema(value_type = Option<f64>)]
    pub top_p: Option<Value>,
    /// -2 to 2.
    #[schema(value_type = Option<f64>)]
    pub presence_penalty: Option<Value>,
    /// -2 to 2.
    #[schema(value_type = Option<f64>)]
    pub frequency_penalty: Option<Value>,
    /// Up to 16 texts, repeated in the response.
    pub metadata: Option<BTreeMap<String, String>>,
    /// The end user; names a session of its own.
    pub user: Option<String>,
    /// Repeated in the response.
    pub safety_identifier: Option<String>,
    /// Repeated in the response.
    pub prompt_cache_key: Option<String>,
    /// Repeated in the response; long sessions are always compacted.
    pub truncation: Option<Truncation>,
    /// Answer with server-sent events.
    pub stream: Option<bool>,
    /// Answer at once, with status `queued`, and work later.
    pub background: Option<bool>,
}

/// The `text` field.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub(super) struct TextSettings {
    /// Of type `text`, `json_object` or `json_schema`.
    #[schema(value_type = Option<Object>)]
    format: Option<Value>,
}

/// A tool: only functions are taken.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub(super) struct ResponseTool {
    /// `function`.
    r#type: String,
    /// `name`, `description`, `parameters` and `strict`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    fields: Map<String, Value>,
}

/// What the request says, checked.
#[derive(Debug)]
pub(super) struct Read {
    pub input: Vec<MessageBody>,
    pub instructions: Option<String>,
    pub client_tools: Vec<ToolSpec>,
    pub tool_choice: ToolChoice,
    pub sampling: Sampling,
    pub echo: Echo,
}

impl CreateResponse {
    /// Checks every field but those that say whom the request is for.
    ///
    /// # Errors
    /// 400, naming the field.
    pub(super) fn read(mut self) -> Result<Read, ApiError> {
        let sampling = self.sampling()?;
        let client_tools = tools(self.tools.take().unwrap_or_default())?;
        let tool_choice = fields::tool_choice(self.tool_choice.as_ref(), &client_tools, chosen)?;
        let input = self.input.take().ok_or_else(|| wrong("input", "is missing"))?;
        let items::Input { messages: input, system, files } = items::read(input)?;
        let own = self.instructions.iter().filter(|text| !text.trim().is_empty()).cloned();
        let texts: Vec<String> = own.chain(system).chain(files).collect();
        let instructions = (!texts.is_empty()).then(|| texts.join("\n\n"));
        let echo = self.echo()?;
        Ok(Read { input, instructions, client_tools, tool_choice, sampling, echo })
    }

    fn sampling(&mut self) -> Result<Sampling, ApiError> {
        Ok(Sampling {
            max_tokens: tokens(self.max_output_tokens.as_ref(), "max_output_tokens")?,
            temperature: number(self.temperature.as_ref(), "temperature", 0.0, 2.0)?,
            top_p: number(self.top_p.as_ref(), "top_p", 0.0, 1.0)?,
            frequency_penalty: number(self.frequency_penalty.as_ref(), "frequency_penalty", -2.0, 2.0)?,
            presence_penalty: number(self.presence_penalty.as_ref(), "presence_penalty", -2.0, 2.0)?,
            seed: None,
            stop: Vec::new(),
            response_format: self
                .text
                .take()
                .and_then(|text| text.format)
                .map_or(Ok(None), response_format)?,
        })
    }

    fn echo(self) -> Result<Echo, ApiError> {
        let metadata = self.metadata.unwrap_or_default();
        if metadata.len() > METADATA_ENTRIES {
            return Err(wrong("metadata", &format!("must have at most {METADATA_ENTRIES} entries")));
        }
        let is_long = |key: &str, value: &str| {
            key.chars().count() > METADATA_KEY_CHARS || value.chars().count() > METADATA_VALUE_CHARS
        };
        if metadata.iter().any(|(key, value)| is_long(key, value)) {
            let rule = format!(
                "must have keys of at most {METADATA_KEY_CHARS} characters and values of {METADATA_VALUE_CHARS}"
            );
            return Err(wrong("metadata", &rule));
        }
        Ok(Echo {
            instructions: self.instructions,
            previous_response_id: self.previous_response_id,
            metadata,
            truncation: self.truncation.unwrap_or_default(),
            background: self.background.unwrap_or_default(),
            safety_identifier: self.safety_identifier,
            prompt_cache_key: self.prompt_cache_key,
            created_at: None,
        })
    }
}

fn tools(tools: Vec<ResponseTool>) -> Result<Vec<ToolSpec>, ApiError> {
    let mut specs = Tools::of(tools.len())?;
    for (index, tool) in tools.into_iter().enumerate() {
        let at = format!("tools[{index}]");
        if tool.r#type != "function" {
            return Err(wrong(&format!("{at}.type"), "must be `function`"));
        }
        let function = Function::deserialize(Value::Object(tool.fields))
            .map_err(|error| wrong(&at, &format!("cannot be read: {}", reason(&error.to_string()))))?;
        specs.add(function, &at)?;
    }
    Ok(specs.checked())
}

/// The function that a `tool_choice` object names.
fn chosen(object: &Map<String, Value>) -> Option<&str> {
    object.get("name")?.as_str()
}

/// `text.format` as the chat surface's `response_format`, in which it is kept.
fn response_format(format: Value) -> Result<Option<Value>, ApiError> {
    match format["type"].as_str() {
        Some("text") => return Ok(None),
        Some("json_object") => return Ok(Some(json!({ "type": "json_object" }))),
        Some("json_schema") => {}
        _ => return Err(wrong("text.format.type", "must be `text`, `json_object` or `json_schema`")),
    }
    if !format["name"].is_string() {
        return Err(wrong("text.format.name", "must be a string"));
    }
    if !format["schema"].is_object() {
        return Err(wrong("text.format.schema", "must be an object"));
    }
    let mut schema = Map::new();
    if let Value::Object(mut format) = format {
        for field in ["name", "description", "schema", "strict"] {
            schema.extend(format.remove_entry(field).filter(|(_, value)| !value.is_null()));
        }
    }
    Ok(Some(json!({ "type": "json_schema", "json_schema": schema })))
}
