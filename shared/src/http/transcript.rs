//! `GET /v1/sessions/{key}/transcript`: what was said, in OpenAI's words for messages.

use super::Gateway;
use super::auth::Caller;
use super::body::{PathArgs, QueryArgs, json};
use super::error::ApiError;
use super::fields::wrong;
use super::sessions::{self, Page};
use crate::message::{Message, MessageBody, Part, ToolCall};
use crate::principal::Scope;
use crate::session::Window;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Most messages of one page.
const LARGEST_PAGE: usize = 500;
/// Messages of a page when the caller does not say.
const PAGE: usize = 100;

/// A message as callers see it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MessageView {
    /// Its position in the transcript.
    id: String,
    /// `message`.
    object: &'static str,
    /// The turn it belongs to.
    turn: String,
    /// In seconds since the Unix epoch.
    created_at: i64,
    /// `user`, `assistant`, `tool`, or `summary` for a compaction.
    role: &'static str,
    /// A text; for a user's message an array of parts.
    content: Value,
    /// Tools that the model asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    tool_calls: Option<Value>,
    /// The call that a `tool` message answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
    /// The tool that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Whether the tool failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    is_error: Option<bool>,
    /// Up to which position a `summary` stands for the messages before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    through: Option<u64>,
}

impl From<Message> for MessageView {
    fn from(message: Message) -> Self {
        let mut view = Self {
            id: message.seq.to_string(),
            object: "message",
            turn: message.turn.to_string(),
            created_at: message.at.as_seconds(),
            role: message.body.role(),
            content: Value::Null,
            tool_calls: None,
            tool_call_id: None,
            name: None,
            is_error: None,
            through: None,
        };
        match message.body {
            MessageBody::User { parts } => view.content = parts.into_iter().map(part).collect(),
            MessageBody::Assistant { text, tool_calls } => {
                view.content = text.into();
                view.tool_calls = (!tool_calls.is_empty()).then(|| calls(&tool_calls));
            }
            MessageBody::ToolResult { call_id, name, content, is_error } => {
                view.content = content.into();
                view.tool_call_id = Some(call_id);
                view.name = Some(name).filter(|name| !name.is_empty());
                view.is_error = Some(is_error);
            }
            MessageBody::Summary { text, through } => {
                view.content = text.into();
                view.through = Some(through);
            }
        }
        view
    }
}

fn part(part: Part) -> Value {
    match part {
        Part::Text { text } => json!({"type": "text", "text": text}),
        Part::Image { media_type, data } => {
            json!({"type": "image_url", "image_url": {"url": format!("data:{media_type};base64,{data}")}})
        }
    }
}

/// Tool calls in OpenAI's form.
pub(super) fn calls(calls: &[ToolCall]) -> Value {
    let calls = calls.iter().map(|ToolCall { id, name, arguments }| {
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
    });
    calls.collect()
}

/// Which part of the transcript.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TranscriptQuery {
    /// At most so many: 1 to 500, 100 if absent.
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
    /// Only what stands before this message: the `first_id` of the page after it.
    before: Option<String>,
}

/// The newest messages of the session's present transcript, oldest first; earlier ones with `before`.
#[utoipa::path(
    get, path = "/v1/sessions/{key}/transcript", operation_id = "getTranscript", tag = "sessions",
    params(("key" = String, Path, description = "The session's key, percent-encoded"), TranscriptQuery),
    responses((status = 200, body = Page<MessageView>), (status = "4XX", body = super::openapi::ErrorBody)),
)]
pub(super) async fn get(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    PathArgs(key): PathArgs<String>,
    QueryArgs(query): QueryArgs<TranscriptQuery>,
) -> Result<Response, ApiError> {
    caller.needs(Scope::Sessions)?;
    let limit = sessions::limit(query.limit.as_deref(), PAGE, LARGEST_PAGE)?;
    let before = match query.before.as_deref().map(str::parse::<u64>) {
        None => None,
        // Positions are kept as signed numbers; none is near this one.
        Some(Ok(before)) if i64::try_from(before).is_ok() => Some(before),
        Some(_) => return Err(wrong("before", "must be the `first_id` of another page")),
    };
    let session = sessions::find(&gateway, &caller, &key).await?;
    let window = Window { newest: limit + 1, after: 0, before };
    let mut messages = gateway.app.stores.sessions.transcript(&caller.tenant, &session.key, window).await?;
    let has_more = messages.len() > limit;
    if has_more {
        messages.remove(0);
    }
    let page = Page {
        object: "list",
        first_id: messages.first().map(|message| message.seq.to_string()),
        last_id: messages.last().map(|message| message.seq.to_string()),
        has_more,
        data: messages.into_iter().map(MessageView::from).collect(),
    };
    Ok(json(StatusCode::OK, &page))
}
