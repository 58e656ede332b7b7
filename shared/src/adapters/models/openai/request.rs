//! A [`ModelRequest`] as the body of `POST /chat/completions`. Pure, and borrowed from the request: no picture is
//! copied.
//!
//! The system prompt is a `system` message: `developer` is known to OpenAI's own models only, which take both.

use crate::adapters::models::{SUMMARY_OF, arguments};
use crate::config::ModelInfo;
use crate::message::{MessageBody, Part};
use crate::model::{ModelRequest, ToolChoice};
use crate::tool::ToolSpec;
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::borrow::Cow;

/// What stands before the text of a failed tool: the protocol has no field for it.
const FAILED: &str = "Error: ";

/// Whose reading of the protocol: they differ in the name of the length limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `max_completion_tokens`: OpenAI and Azure, whose reasoning models refuse the old name.
    OpenAi,
    /// `max_tokens`: everybody else; Ollama and older servers read over the new name, and would write without end.
    Compatible,
}

impl Dialect {
    /// The dialect spoken at this host.
    pub fn of_host(host: &str) -> Self {
        let openai = ["openai.com", "openai.azure.com"];
        let of = |domain: &&str| {
            host.strip_suffix(*domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if openai.iter().any(of) { Self::OpenAi } else { Self::Compatible }
    }
}

/// The body. Without `info` – the model is not in the configuration – and without a wish of the client no length
/// limit is sent: a guess might be more than a local model takes.
pub fn body(request: &ModelRequest, info: Option<ModelInfo>, dialect: Dialect) -> impl Serialize + Sync {
    let sampling = &request.sampling;
    let limit = sampling.max_tokens.or(info.map(|info| info.max_tokens));
    let limit = limit.map(|limit| info.map_or(limit, |info| limit.min(info.context_window)));
    let system = Some(request.system.as_str()).filter(|system| !system.is_empty());
    let system = system.map(|content| Message::System { content });
    Body {
        model: &request.model.model,
        stream: true,
        stream_options: StreamOptions { include_usage: true },
        messages: system.into_iter().chain(request.messages.iter().filter_map(message)).collect(),
        tools: request.tools.iter().map(tool).collect(),
        tool_choice: if request.tools.is_empty() { None } else { choice(&request.tool_choice) },
        max_completion_tokens: limit.filter(|_| dialect == Dialect::OpenAi),
        max_tokens: limit.filter(|_| dialect == Dialect::Compatible),
        temperature: sampling.temperature,
        top_p: sampling.top_p,
        frequency_penalty: sampling.frequency_penalty,
        presence_penalty: sampling.presence_penalty,
        seed: sampling.seed,
        stop: &sampling.stop,
        response_format: sampling.response_format.as_ref(),
    }
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    stream: bool,
    stream_options: StreamOptions,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<Choice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<&'a Value>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
#[serde(tag = "role", rename_all = "snake_case")]
enum Message<'a> {
    System {
        content: &'a str,
    },
    User {
        content: Content<'a>,
    },
    Assistant {
        #[serde(skip_serializing_if = "str::is_empty")]
        content: &'a str,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<Call<'a>>,
    },
    Tool {
        tool_call_id: &'a str,
        content: Cow<'a, str>,
    },
}

/// One text is sent as a string: some local models' templates know nothing else.
#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(Cow<'a, str>),
    Parts(Vec<ContentPart<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ContentPart<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: Picture<'a> },
}

#[derive(Serialize)]
struct Picture<'a> {
    url: DataUrl<'a>,
}

struct DataUrl<'a> {
    media_type: &'a str,
    data: &'a str,
}

impl Serialize for DataUrl<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("data:{};base64,{}", self.media_type, self.data))
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Call<'a> {
    Function { id: &'a str, function: Invocation<'a> },
}

#[derive(Serialize)]
struct Invocation<'a> {
    name: &'a str,
    arguments: Cow<'a, str>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Tool<'a> {
    Function { function: Function<'a> },
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Choice<'a> {
    Word(&'static str),
    Tool(NamedTool<'a>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum NamedTool<'a> {
    Function { function: Name<'a> },
}

#[derive(Serialize)]
struct Name<'a> {
    name: &'a str,
}

fn choice(choice: &ToolChoice) -> Option<Choice<'_>> {
    match choice {
        ToolChoice::Auto => None,
        ToolChoice::None => Some(Choice::Word("none")),
        ToolChoice::Required => Some(Choice::Word("required")),
        ToolChoice::Tool(name) => Some(Choice::Tool(NamedTool::Function { function: Name { name } })),
    }
}

fn tool(spec: &ToolSpec) -> Tool<'_> {
    Tool::Function {
        function: Function {
            name: &spec.name,
            description: &spec.description,
            parameters: Some(&spec.parameters).filter(|parameters| !parameters.is_null()),
            strict: spec.strict,
        },
    }
}

/// The message; `None` for a reply without words and calls, which some servers refuse.
fn message(message: &MessageBody) -> Option<Message<'_>> {
    Some(match message {
        MessageBody::User { parts } => match parts.as_slice() {
            [Part::Text { text }] => Message::User { content: Content::Text(text.as_str().into()) },
            parts => Message::User { content: Content::Parts(parts.iter().map(part).collect()) },
        },
        MessageBody::Summary { text, .. } => {
            Message::User { content: Content::Text(format!("{SUMMARY_OF}{text}").into()) }
        }
        MessageBody::Assistant { text, tool_calls } if text.is_empty() && tool_calls.is_empty() => {
            return None;
        }
        MessageBody::Assistant { text, tool_calls } => Message::Assistant {
            content: text,
            tool_calls: tool_calls
                .iter()
                .map(|call| Call::Function {
                    id: &call.id,
                    function: Invocation { name: &call.name, arguments: arguments_text(&call.arguments) },
                })
                .collect(),
        },
        MessageBody::ToolResult { call_id, content, is_error, .. } => Message::Tool {
            tool_call_id: call_id,
            content: if *is_error { format!("{FAILED}{content}").into() } else { content.as_str().into() },
        },
    })
}

fn part(part: &Part) -> ContentPart<'_> {
    match part {
        Part::Text { text } => ContentPart::Text { text },
        Part::Image { media_type, data } => {
            ContentPart::ImageUrl { image_url: Picture { url: DataUrl { media_type, data } } }
        }
    }
}

fn arguments_text(text: &str) -> Cow<'_, str> {
    match arguments(text) {
        Cow::Borrowed(object) => object.get().into(),
        Cow::Owned(object) => object.get().to_owned().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_openai_and_azure_speak_openais_dialect() {
        let of = Dialect::of_host;
        assert_eq!(of("api.openai.com"), Dialect::OpenAi);
        assert_eq!(of("eu.api.openai.com"), Dialect::OpenAi);
        assert_eq!(of("ours.openai.azure.com"), Dialect::OpenAi);
        assert_eq!(of("api.notopenai.com"), Dialect::Compatible);
        assert_eq!(of("127.0.0.1"), Dialect::Compatible);
    }
}
