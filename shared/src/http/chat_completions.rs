//! `POST /v1/chat/completions`, as OpenAI's clients know it.

mod request;

use super::auth::Caller;
use super::error::ApiError;
use super::run::{self, Run};
use super::transcript::calls;
use super::{Gateway, body, idempotency, sse, target};
use crate::agent::{RunOptions, RunRequest, TurnEvent};
use crate::clock::Timestamp;
use crate::id::TurnId;
use crate::model::{StopReason, ToolChoice, Usage};
use crate::principal::Scope;
use crate::session::{Reply, TurnOutcome};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use request::{ChatRequest, Read};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use utoipa::ToSchema;

const ROUTE: &str = "/v1/chat/completions";

/// Most characters of a tool call's arguments in one chunk. Source: OpenClaw's gateway.
const ARGUMENTS_SLICE: usize = 256;

/// Runs a turn and answers with its reply, whole or streamed.
#[utoipa::path(
    post, path = "/v1/chat/completions", operation_id = "createChatCompletion", tag = "turns",
    request_body = ChatRequest,
    params(super::openapi::IdempotencyKey, super::openapi::Routing),
    responses(
        (status = 200, description = "With `stream`, the same as `chat.completion.chunk` events", body = Completion),
        (status = "4XX", body = super::openapi::ErrorBody),
        (status = "5XX", body = super::openapi::ErrorBody),
    ),
)]
pub(super) async fn create(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    caller.needs(Scope::Chat)?;
    let bytes = body::read(&gateway, body, &headers, gateway.app.config.gateway.max_body_bytes).await?;
    gateway.takes_bytes(&caller, bytes.len())?;
    let (request, asked) = understand(&gateway, &caller, &headers, &bytes)?;
    let lent = bytes.understood();
    if asked.stream {
        let started_at = gateway.app.clock.now();
        let frames = move |run: Run| Chunks::of(run, asked, started_at);
        Box::pin(run::stream(gateway, request, lent, frames, refusal)).await
    } else {
        let mut run = Box::pin(run::start(&gateway, request, lent)).await?;
        let reply = run::reply_as_chosen(run.outcome().await?, &asked.tool_choice)?;
        let mut response = body::json(StatusCode::OK, &completion(&run.turn, &asked.model, &reply));
        run.name(response.headers_mut());
        Ok(response)
    }
}

/// What the answer must know of the request.
struct Asked {
    model: String,
    stream: bool,
    include_usage: bool,
    tool_choice: ToolChoice,
}

fn understand(
    gateway: &Gateway,
    caller: &Caller,
    headers: &HeaderMap,
    bytes: &[u8],
) -> Result<(RunRequest, Asked), ApiError> {
    let request: ChatRequest = body::parse(bytes)?;
    let model = request.model.as_deref();
    let target = target::choose(gateway, caller, headers, model, request.user.as_deref(), "openai")?;
    let asked_model = model.filter(|model| !model.is_empty()).unwrap_or("openclaw").to_owned();
    let user = request.user.as_deref().filter(|user| !user.is_empty()).map(str::to_owned);
    let idempotency = idempotency::of(ROUTE, headers, bytes)?;
    let Read { input, instructions, client_tools, tool_choice, sampling, stream, include_usage } =
        request.read()?;
    let app = &gateway.app;
    let asked = Asked { model: asked_model.clone(), stream, include_usage, tool_choice: tool_choice.clone() };
    let request = RunRequest {
        turn: TurnId::new(app.ids.ulid(app.clock.now())),
        tenant: caller.tenant.clone(),
        principal: caller.id.clone(),
        agent: target.agent,
        session: target.session,
        sticky: target.sticky,
        idempotency,
        input,
        options: RunOptions {
            instructions,
            client_tools,
            tool_choice,
            sampling,
            model: target.model,
            user,
            channel: target.channel,
            trigger: "chat".to_owned(),
            requested_model: asked_model,
            echo: Value::Null,
            ..RunOptions::default()
        },
    };
    Ok((request, asked))
}

const fn finish_reason(stop: StopReason) -> &'static str {
    match stop {
        StopReason::End => "stop",
        StopReason::Length => "length",
        StopReason::ToolCalls => "tool_calls",
        StopReason::ContentFilter => "content_filter",
    }
}

/// Tokens, in OpenAI's words.
#[derive(Debug, Serialize, ToSchema)]
struct TokenUsage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

/// Of the prompt's tokens.
#[derive(Debug, Serialize, ToSchema)]
struct PromptDetails {
    /// Read from the vendor's cache.
    cached_tokens: u64,
}

/// Of the reply's tokens.
#[derive(Debug, Serialize, ToSchema)]
struct CompletionDetails {
    /// Spent on reasoning.
    reasoning_tokens: u64,
}

impl From<&Usage> for TokenUsage {
    fn from(usage: &Usage) -> Self {
        Self {
            prompt_tokens: usage.input_tokens,
            completion_tokens: usage.output_tokens,
            total_tokens: usage.total_tokens(),
            prompt_tokens_details: PromptDetails { cached_tokens: usage.cached_tokens },
            completion_tokens_details: CompletionDetails { reasoning_tokens: usage.reasoning_tokens },
        }
    }
}

/// The whole answer: the same for the same turn, whenever it is asked for.
#[derive(Debug, Serialize, ToSchema)]
struct Completion<'a> {
    /// `chatcmpl_` and the turn's id.
    id: String,
    /// `chat.completion`.
    object: &'static str,
    /// When the reply was complete, in seconds since the Unix epoch.
    created: i64,
    /// As asked for.
    model: &'a str,
    /// One.
    choices: [CompletionChoice<'a>; 1],
    /// Tokens of all model calls of the turn.
    usage: TokenUsage,
}

/// The reply.
#[derive(Debug, Serialize, ToSchema)]
struct CompletionChoice<'a> {
    index: u8,
    message: CompletionMessage<'a>,
    /// `null`.
    #[schema(value_type = Option<Object>)]
    logprobs: (),
    /// `stop`, `length`, `tool_calls` or `content_filter`.
    finish_reason: &'static str,
}

/// The reply's message.
#[derive(Debug, Serialize, ToSchema)]
struct CompletionMessage<'a> {
    /// `assistant`.
    role: &'static str,
    /// The text; may be `null` beside tool calls.
    content: Option<&'a str>,
    /// `null`.
    #[schema(value_type = Option<String>)]
    refusal: (),
    /// Tools that the client is asked to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    tool_calls: Option<Value>,
}

fn completion<'a>(turn: &TurnId, model: &'a str, reply: &'a Reply) -> Completion<'a> {
    let tool_calls = (!reply.tool_calls.is_empty()).then(|| calls(&reply.tool_calls));
    let content = match (reply.text.as_str(), &tool_calls) {
        ("", Some(_)) => None,
        ("", None) => Some(run::NO_TEXT),
        (text, _) => Some(text),
    };
    let message = CompletionMessage { role: "assistant", content, refusal: (), tool_calls };
    let finish_reason = finish_reason(reply.stop);
    Completion {
        id: format!("chatcmpl_{turn}"),
        object: "chat.completion",
        created: reply.at.as_seconds(),
        model,
        choices: [CompletionChoice { index: 0, message, logprobs: (), finish_reason }],
        usage: TokenUsage::from(&reply.usage),
    }
}

/// The frames of a stream that never began.
fn refusal(error: &ApiError) -> Vec<Bytes> {
    vec![sse::data(&error.body()), sse::DONE]
}

/// A streamed answer.
struct Chunks {
    run: Run,
    id: String,
    created: i64,
    asked: Asked,
    ready: VecDeque<Bytes>,
    has_text: bool,
    ended: bool,
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    choices: [Choice<'a>; 1],
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u8,
    delta: Delta<'a>,
    finish_reason: Option<&'static str>,
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[Value; 1]>,
}

impl Chunks {
    fn of(run: Run, asked: Asked, started_at: Timestamp) -> BoxStream<'static, Bytes> {
        let mut chunks = Self {
            id: format!("chatcmpl_{}", run.turn),
            created: started_at.as_seconds(),
            run,
            asked,
            ready: VecDeque::new(),
            has_text: false,
            ended: false,
        };
        chunks.push(Delta { role: Some("assistant"), ..Delta::default() }, None);
        stream::unfold(chunks, Self::next).boxed()
    }

    async fn next(mut self) -> Option<(Bytes, Self)> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some((frame, self));
            }
            if self.ended {
                return None;
            }
            match self.run.next().await {
                Ok(TurnEvent::Text { delta }) => self.text(&delta),
                Ok(TurnEvent::Ended { outcome }) => self.end(outcome),
                Ok(_) => {}
                Err(error) => self.fail(&error),
            }
        }
    }

    fn push(&mut self, delta: Delta<'_>, finish_reason: Option<&'static str>) {
        let frame = sse::data(&Chunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.asked.model,
            choices: [Choice { index: 0, delta, finish_reason }],
        });
        self.ready.push_back(frame);
    }

    fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.has_text = true;
            self.push(Delta { content: Some(text), ..Delta::default() }, None);
        }
    }

    fn end(&mut self, outcome: TurnOutcome) {
        let reply = match run::reply_as_chosen(outcome, &self.asked.tool_choice) {
            Ok(reply) => reply,
            Err(error) => return self.fail(&error),
        };
        // A turn that ended before has its text here only.
        if !self.has_text {
            self.text(&reply.text);
        }
        if !self.has_text && reply.tool_calls.is_empty() {
            self.text(run::NO_TEXT);
        }
        for (index, call) in reply.tool_calls.iter().enumerate() {
            let head = json!({"index": index, "id": call.id, "type": "function",
                "function": {"name": call.name, "arguments": ""}});
            self.push(Delta { tool_calls: Some([head]), ..Delta::default() }, None);
            for slice in slices(&call.arguments) {
                let more = json!({"index": index, "function": {"arguments": slice}});
                self.push(Delta { tool_calls: Some([more]), ..Delta::default() }, None);
            }
        }
        self.push(Delta::default(), Some(finish_reason(reply.stop)));
        if self.asked.include_usage {
            self.ready.push_back(sse::data(&json!({
                "id": self.id, "object": "chat.completion.chunk", "created": self.created,
                "model": self.asked.model, "choices": [], "usage": TokenUsage::from(&reply.usage),
            })));
        }
        self.ready.push_back(sse::DONE);
        self.ended = true;
    }

    fn fail(&mut self, error: &ApiError) {
        error.log();
        self.ready.extend(refusal(error));
        self.ended = true;
    }
}

/// The text in slices of [`ARGUMENTS_SLICE`] characters.
fn slices(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.char_indices().nth(ARGUMENTS_SLICE).map_or(rest.len(), |(index, _)| index);
        let (slice, after) = rest.split_at(end);
        rest = after;
        (!slice.is_empty()).then_some(slice)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_sliced_between_characters() {
        let text = "ä".repeat(600);
        let lengths: Vec<_> = slices(&text).map(|slice| slice.chars().count()).collect();
        assert_eq!(lengths, [256, 256, 88]);
        assert_eq!(slices("").count(), 0);
    }
}
