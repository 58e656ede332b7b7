//! `GET /v1/sessions/{key}/transcript`: what was said, in OpenAI's words for messages.

use super::Gateway;
use super::auth::Caller;
use super::body::{PathArgs, QueryArgs, json};
use super::error::ApiError;
use super::fields::wrong;
use super::sessions::{self, Page};
use crate::bounds::{TRANSCRIPT_PAGE, TRANSCRIPT_PAGE_BYTES};
use crate::error::ErrorKind;
use crate::message::{Message, MessageBody, Part, ToolCall};
use crate::principal::Scope;
use crate::session::{Session, Window};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Messages of a page when the caller does not say.
const PAGE: usize = 100;
/// Messages of the first look at a page.
const FIRST_LOOK: usize = 8;

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
    let limit = sessions::limit(query.limit.as_deref(), PAGE, TRANSCRIPT_PAGE)?;
    let before = match query.before.as_deref().map(str::parse::<u64>) {
        None => None,
        // Positions are kept as signed numbers; none is near this one.
        Some(Ok(before)) if i64::try_from(before).is_ok() => Some(before),
        Some(_) => return Err(wrong("before", "must be the `first_id` of another page")),
    };
    let session = sessions::find(&gateway, &caller, &key).await?;
    let (messages, has_more) = newest(&gateway, &session, limit, before).await?;
    let page = Page {
        object: "list",
        first_id: messages.first().map(|message| message.seq.to_string()),
        last_id: messages.last().map(|message| message.seq.to_string()),
        has_more,
        data: messages.into_iter().map(MessageView::from).collect(),
    };
    Ok(json(StatusCode::OK, &page))
}

/// The newest messages before a position, oldest first – at most `most`, and no more than [`TRANSCRIPT_PAGE_BYTES`] but for
/// the newest itself –, and whether there are earlier ones. A first look at a few tells how many more will fit: a page of
/// large messages is never in memory as a whole.
async fn newest(
    gateway: &Gateway,
    session: &Session,
    most: usize,
    mut before: Option<u64>,
) -> Result<(Vec<Message>, bool), ApiError> {
    let store = &gateway.app.stores.sessions;
    let mut found: Vec<Message> = Vec::new();
    let mut bytes = 0;
    let mut count = FIRST_LOOK.min(most + 1);
    let has_more = 'page: loop {
        let window = Window { newest: count, after: 0, before };
        let older = store.transcript(&session.tenant, &session.key, window).await?;
        let is_all = older.len() < count;
        for message in older.into_iter().rev() {
            let grown = bytes + message.bytes();
            if found.len() == most || (grown > TRANSCRIPT_PAGE_BYTES && !found.is_empty()) {
                break 'page true;
            }
            bytes = grown;
            before = Some(message.seq);
            found.push(message);
        }
        if is_all {
            break false;
        }
        // One more than fits says that there is more.
        let left = TRANSCRIPT_PAGE_BYTES.saturating_sub(bytes);
        count = (left / (bytes / found.len().max(1)).max(1) + 1).min(most + 1 - found.len());
    };
    // Between two looks the session may have been given another transcript.
    if found.len() >= FIRST_LOOK {
        let now = store.load(&session.tenant, &session.key).await?;
        if now.is_none_or(|now| now.id != session.id) {
            return Err(ApiError::new(ErrorKind::Conflict, "the session was reset meanwhile; ask again"));
        }
    }
    found.reverse();
    Ok((found, has_more))
}
