//! `/v1/sessions`: listing, reading, resetting and deleting sessions.
//!
//! A session belongs to the tenant. A caller whose token names agents sees those agents' sessions only; any other
//! session does not exist for it.

use super::Gateway;
use super::auth::Caller;
use super::body::{self, PathArgs, QueryArgs, json};
use super::error::ApiError;
use super::fields::wrong;
use super::idempotency;
use crate::answer::Answer;
use crate::bounds::SESSIONS_PAGE;
use crate::error::{ErrorKind, StoreError};
use crate::id::{AgentId, SessionId, SessionKey};
use crate::principal::Scope;
use crate::session::{Becomes, Session, SessionChange, SessionFilter};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};

/// Sessions of a page when the caller does not say.
const PAGE: usize = 20;

/// A session as callers see it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SessionView {
    /// The session's key.
    #[schema(value_type = String)]
    id: SessionKey,
    /// `session`.
    object: &'static str,
    /// Its present transcript.
    #[schema(value_type = String)]
    session_id: SessionId,
    /// Whose session.
    #[schema(value_type = String)]
    agent: AgentId,
    /// The end user that a client named.
    user: Option<String>,
    /// Where it is held, e.g. `webchat`.
    channel: String,
    /// In seconds since the Unix epoch.
    created_at: i64,
    /// When a message was last recorded, in seconds since the Unix epoch.
    updated_at: i64,
    /// Messages in its present transcript.
    messages: u64,
    /// The turn at work, if there is one.
    turn: Option<String>,
}

impl From<Session> for SessionView {
    fn from(session: Session) -> Self {
        Self {
            id: session.key,
            object: "session",
            session_id: session.id,
            agent: session.agent,
            user: session.user,
            channel: session.channel,
            created_at: session.created_at.as_seconds(),
            updated_at: session.updated_at.as_seconds(),
            messages: session.seq,
            turn: session.holder.map(|holder| holder.turn.to_string()),
        }
    }
}

/// A page in the shape of OpenAI's lists.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<T> {
    /// `list`.
    pub(super) object: &'static str,
    /// The entries.
    pub(super) data: Vec<T>,
    /// The first entry's id.
    pub(super) first_id: Option<String>,
    /// The last entry's id.
    pub(super) last_id: Option<String>,
    /// Whether there is a further page.
    pub(super) has_more: bool,
}

/// Which sessions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// At most so many: 1 to 100, 20 if absent.
    #[param(value_type = Option<u32>)]
    limit: Option<String>,
    /// Only what comes behind this session: the `last_id` of the page before.
    before: Option<String>,
    /// Only this agent's.
    agent: Option<String>,
    /// Only this end user's.
    user: Option<String>,
}

/// Reads `limit`.
///
/// # Errors
/// 400: not a whole number from 1 to `most`.
pub(super) fn limit(text: Option<&str>, default: usize, most: usize) -> Result<usize, ApiError> {
    let Some(text) = text else { return Ok(default) };
    match text.parse() {
        Ok(limit) if (1..=most).contains(&limit) => Ok(limit),
        _ => Err(wrong("limit", &format!("must be a whole number from 1 to {most}"))),
    }
}

/// The session, if the caller may know of it.
///
/// # Errors
/// 404.
pub(super) async fn find(gateway: &Gateway, caller: &Caller, key: &str) -> Result<Session, ApiError> {
    let missing = || ApiError::not_found("there is no such session");
    // A name that no session can have is not looked up.
    if key.len() > 1024 || key.chars().any(char::is_control) {
        return Err(missing());
    }
    let session = gateway.app.stores.sessions.load(&caller.tenant, &SessionKey::new(key)).await?;
    session.filter(|session| caller.may_use(&session.agent)).ok_or_else(missing)
}

/// Lists sessions, last changed first.
#[utoipa::path(
    get, path = "/v1/sessions", operation_id = "listSessions", tag = "sessions", params(ListQuery),
    responses((status = 200, body = Page<SessionView>), (status = "4XX", body = super::openapi::ErrorBody)),
)]
pub(super) async fn list(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    QueryArgs(query): QueryArgs<ListQuery>,
) -> Result<Response, ApiError> {
    caller.needs(Scope::Sessions)?;
    let limit = limit(query.limit.as_deref(), PAGE, SESSIONS_PAGE)?;
    let behind = match query.before.as_deref() {
        None => None,
        Some(key) => Some(find(&gateway, &caller, key).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => wrong("before", "must be the `last_id` of an earlier page"),
            _ => error,
        })?),
    };
    let agents = match query.agent.map(AgentId::new) {
        Some(agent) if caller.may_use(&agent) => Some(vec![agent]),
        Some(_) => Some(Vec::new()),
        None => caller.agents.clone(),
    };
    let filter = SessionFilter { agents, user: query.user, updated_before: None, limit: 0 };
    let mut sessions = behind_cursor(&gateway, &caller, filter, behind.as_ref(), limit + 1).await?;
    let has_more = sessions.len() > limit;
    sessions.truncate(limit);
    let page = Page {
        object: "list",
        first_id: sessions.first().map(|session| session.key.to_string()),
        last_id: sessions.last().map(|session| session.key.to_string()),
        has_more,
        data: sessions.into_iter().map(SessionView::from).collect(),
    };
    Ok(json(StatusCode::OK, &page))
}

/// The first `count` sessions behind `cursor`. The index pages by time alone, so sessions changed in the cursor's own
/// millisecond are read again and left out here.
async fn behind_cursor(
    gateway: &Gateway,
    caller: &Caller,
    mut filter: SessionFilter,
    cursor: Option<&Session>,
    count: usize,
) -> Result<Vec<Session>, ApiError> {
    filter.updated_before = cursor.map(|cursor| cursor.updated_at + Duration::from_millis(1));
    filter.limit = count + 16;
    loop {
        let mut sessions = gateway.app.stores.index.list(&caller.tenant, &filter).await?;
        let is_all = sessions.len() < filter.limit;
        if let Some(cursor) = cursor {
            let seen =
                |session: &Session| session.updated_at == cursor.updated_at && session.key <= cursor.key;
            sessions.retain(|session| !seen(session));
        }
        if is_all || sessions.len() >= count {
            return Ok(sessions);
        }
        filter.limit *= 4;
    }
}

/// One session.
#[utoipa::path(
    get, path = "/v1/sessions/{key}", operation_id = "getSession", tag = "sessions",
    params(("key" = String, Path, description = "The session's key, percent-encoded")),
    responses((status = 200, body = SessionView), (status = "4XX", body = super::openapi::ErrorBody)),
)]
pub(super) async fn get(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    PathArgs(key): PathArgs<String>,
) -> Result<Response, ApiError> {
    caller.needs(Scope::Sessions)?;
    let session = find(&gateway, &caller, &key).await?;
    Ok(json(StatusCode::OK, &SessionView::from(session)))
}

/// What is asked for a session that the caller may know of.
fn change(session: Session, to: Becomes) -> SessionChange {
    SessionChange { tenant: session.tenant, session: session.key, from: session.id, to }
}

/// Makes of a session whose head cannot be read what is asked for; `error` is why it was not found.
///
/// # Errors
/// `error`, unless that is the reason; those of the store.
async fn repair(
    gateway: &Gateway,
    caller: &Caller,
    key: &str,
    to: Becomes,
    error: ApiError,
) -> Result<Option<Session>, ApiError> {
    if error.kind() != ErrorKind::Internal {
        return Err(error);
    }
    let (app, name) = (&gateway.app, SessionKey::new(key));
    let repaired =
        app.stores.index.repair(&caller.tenant, &name, caller.agents.as_deref(), &to, app.clock.now()).await;
    match repaired {
        Ok(session) => {
            tracing::warn!(target: "operation", { session.key = %key, principal = %caller.id }, "a session that could not be read was reset or deleted");
            Ok(session)
        }
        Err(StoreError::NotFound) => Err(error),
        Err(other) => Err(other.into()),
    }
}

/// Gives the session a new, empty transcript.
#[utoipa::path(
    post, path = "/v1/sessions/{key}/reset", operation_id = "resetSession", tag = "sessions",
    params(("key" = String, Path, description = "The session's key, percent-encoded"), super::openapi::IdempotencyKey),
    responses((status = 200, body = SessionView), (status = "4XX", body = super::openapi::ErrorBody)),
)]
pub(super) async fn reset(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    PathArgs(key): PathArgs<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    caller.needs(Scope::Sessions)?;
    let bytes = body::read(&gateway, body, &headers, gateway.app.config.gateway.max_body_bytes).await?;
    let route = format!("/v1/sessions/{key}/reset");
    let idempotency = idempotency::of(&route, &headers, &bytes)?;
    let app = &gateway.app;
    let now = app.clock.now();
    let fresh = SessionId::new(match &idempotency {
        Some(idempotency) => idempotency::id_of(&caller, &route, idempotency),
        None => app.ids.ulid(now),
    });
    let work = async {
        let session = match find(&gateway, &caller, &key).await {
            Ok(session) => session,
            Err(error) => {
                let repaired = repair(&gateway, &caller, &key, Becomes::Empty(fresh), error).await?;
                return Ok(Answer::json(&repaired.map(SessionView::from)));
            }
        };
        let session = app.change(&change(session, Becomes::Empty(fresh))).await?;
        tracing::info!(target: "operation", { session.key = %key, principal = %caller.id }, "session reset");
        Ok(Answer::json(&SessionView::from(session)))
    };
    idempotency::redo(&gateway, &caller, idempotency, work).await
}

/// A session that is gone.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Deleted {
    /// The session's key.
    #[schema(value_type = String)]
    id: SessionKey,
    /// `session.deleted`.
    object: &'static str,
    /// `true`.
    deleted: bool,
}

/// Deletes the session with all its transcripts, turns and jobs, also those that wait; the audit trail stays.
#[utoipa::path(
    delete, path = "/v1/sessions/{key}", operation_id = "deleteSession", tag = "sessions",
    params(("key" = String, Path, description = "The session's key, percent-encoded")),
    responses((status = 200, body = Deleted), (status = "4XX", body = super::openapi::ErrorBody)),
)]
pub(super) async fn delete(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    PathArgs(key): PathArgs<String>,
) -> Result<Response, ApiError> {
    caller.needs(Scope::Sessions)?;
    let id = match find(&gateway, &caller, &key).await {
        Ok(session) => gateway.app.change(&change(session, Becomes::Nothing)).await?.key,
        Err(error) => {
            repair(&gateway, &caller, &key, Becomes::Nothing, error).await?;
            SessionKey::new(key.as_str())
        }
    };
    tracing::info!(target: "operation", { session.key = %key, principal = %caller.id }, "session deleted");
    Ok(json(StatusCode::OK, &Deleted { id, object: "session.deleted", deleted: true }))
}
