//! `GET /v1/sessions/{key}/turns/{id}`: a turn's state and its reply, for clients that went away meanwhile.

use super::Gateway;
use super::auth::Caller;
use super::body::{PathArgs, json};
use super::error::ApiError;
use super::transcript::calls;
use crate::agent::RunRequest;
use crate::id::{JobId, TurnId};
use crate::job::{Job, JobFilter, JobState, Work};
use crate::model::{StopReason, Usage};
use crate::principal::Scope;
use crate::session::{Failure, Reply, Turn, TurnOutcome};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;

/// A turn as callers see it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TurnView {
    /// Its id.
    id: String,
    /// `turn`.
    object: &'static str,
    /// The session's key.
    session: String,
    /// Whose session.
    agent: String,
    /// Where the turn stands.
    status: TurnStatus,
    /// In seconds since the Unix epoch; absent while it waits in the queue.
    accepted_at: Option<i64>,
    /// In seconds since the Unix epoch; absent until it ended.
    ended_at: Option<i64>,
    /// Its reply, if it is `done`.
    reply: Option<ReplyView>,
    /// Why it has none, if it is `failed` or `parked`.
    error: Option<TurnError>,
}

/// Where a turn stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum TurnStatus {
    /// It waits in the queue.
    Queued,
    /// It is at work, or was interrupted and will go on.
    Running,
    /// It has a reply.
    Done,
    /// It failed.
    Failed,
    /// A tool was interrupted and whether it did its work is not known: a person must look.
    Parked,
}

/// A turn's reply.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReplyView {
    /// All text.
    text: String,
    /// Tools that the client is asked to run, in OpenAI's form.
    #[schema(value_type = Vec<Object>)]
    tool_calls: Value,
    /// `end`, `length`, `tool_calls` or `content_filter`.
    #[schema(value_type = String)]
    stop: StopReason,
    /// Tokens of all model calls of the turn.
    #[schema(value_type = Object)]
    usage: Usage,
    /// Which model answered.
    model: String,
}

/// Why a turn has no reply.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TurnError {
    /// For people.
    message: String,
    /// For programs.
    code: String,
    /// The request's field that was wrong.
    param: Option<String>,
}

impl From<Turn> for TurnView {
    fn from(turn: Turn) -> Self {
        let mut view = Self {
            id: turn.id.to_string(),
            object: "turn",
            session: turn.session.to_string(),
            agent: turn.agent.to_string(),
            status: TurnStatus::Running,
            accepted_at: Some(turn.accepted_at.as_seconds()),
            ended_at: turn.ended_at.map(|at| at.as_seconds()),
            reply: None,
            error: None,
        };
        match turn.outcome {
            None => {}
            Some(TurnOutcome::Done(Reply { text, tool_calls, stop, usage, model, .. })) => {
                view.status = TurnStatus::Done;
                view.reply = Some(ReplyView { text, tool_calls: calls(&tool_calls), stop, usage, model });
            }
            Some(TurnOutcome::Failed(Failure { kind, message, param, .. })) => {
                view.status = TurnStatus::Failed;
                view.error = Some(TurnError { message, code: kind.code().to_owned(), param });
            }
            Some(TurnOutcome::Parked(parked)) => {
                view.status = TurnStatus::Parked;
                let message = format!(
                    "the tool `{}` was interrupted; whether it did its work is not known",
                    parked.call.name
                );
                view.error = Some(TurnError { message, code: "parked".to_owned(), param: None });
            }
        }
        view
    }
}

impl TurnView {
    /// A turn that is still only a job.
    fn of_job(job: &Job, request: &RunRequest) -> Self {
        let dead = job.state == JobState::Dead;
        let message = || job.reason.clone().unwrap_or_else(|| "the turn was given up".to_owned());
        Self {
            id: request.turn.to_string(),
            object: "turn",
            session: request.session.to_string(),
            agent: request.agent.to_string(),
            status: if dead { TurnStatus::Failed } else { TurnStatus::Queued },
            accepted_at: None,
            ended_at: None,
            reply: None,
            error: dead.then(|| TurnError { message: message(), code: "dead".to_owned(), param: None }),
        }
    }
}

/// One turn, for callers with the scope `sessions`, and for whoever started it.
#[utoipa::path(
    get, path = "/v1/sessions/{key}/turns/{id}", operation_id = "getTurn", tag = "sessions",
    params(
        ("key" = String, Path, description = "The session's key, percent-encoded"),
        ("id" = String, Path, description = "The turn's id, as in `x-reef-turn-id` or a hook's `runId`"),
    ),
    responses((status = 200, body = TurnView), (status = "4XX", body = super::openapi::ErrorBody)),
)]
pub(super) async fn get(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    PathArgs((key, id)): PathArgs<(String, String)>,
) -> Result<Response, ApiError> {
    if ![Scope::Sessions, Scope::Chat, Scope::Hooks].iter().any(|scope| caller.may(*scope)) {
        return Err(ApiError::missing_scope(Scope::Sessions));
    }
    let missing = || ApiError::not_found("there is no such turn on this session");
    if id.len() > 128 || id.chars().any(char::is_control) {
        return Err(missing());
    }
    let stores = &gateway.app.stores;
    let (view, agent, principal) =
        match stores.sessions.turn(&caller.tenant, &TurnId::new(id.as_str())).await? {
            Some(turn) => {
                let (agent, principal) = (turn.agent.clone(), turn.principal.clone());
                (TurnView::from(turn), agent, principal)
            }
            None => {
                let filter = JobFilter { id: Some(JobId::new(id)), state: None, limit: 1 };
                let now = gateway.app.clock.now();
                let job = stores.jobs.list(&caller.tenant, &filter, now).await?.pop().ok_or_else(missing)?;
                let Work::Turn(request) = &job.job.work;
                (TurnView::of_job(&job, request), request.agent.clone(), request.principal.clone())
            }
        };
    let visible = caller.may_use(&agent) && (caller.may(Scope::Sessions) || principal == caller.id);
    if view.session != key || !visible {
        return Err(missing());
    }
    Ok(json(StatusCode::OK, &view))
}

impl TurnStatus {
    /// As `/hooks/agent` names it when it waited.
    pub(super) const fn completion(self) -> &'static str {
        match self {
            Self::Queued | Self::Running => "timeout",
            Self::Done => "ok",
            Self::Failed => "error",
            Self::Parked => "parked",
        }
    }
}

/// Where a turn that a hook started stands.
///
/// # Errors
/// Those of the stores.
pub(super) async fn status(gateway: &Gateway, caller: &Caller, id: &TurnId) -> Result<TurnStatus, ApiError> {
    let stores = &gateway.app.stores;
    let filter = JobFilter { id: Some(JobId::new(id.as_str())), state: None, limit: 1 };
    let job = stores.jobs.list(&caller.tenant, &filter, gateway.app.clock.now()).await?.pop();
    let turn = stores.sessions.turn(&caller.tenant, id).await?;
    Ok(match (turn.and_then(|turn| turn.outcome), job.map(|job| job.state)) {
        (Some(TurnOutcome::Done(_)), _) => TurnStatus::Done,
        (Some(TurnOutcome::Parked(_)), _) => TurnStatus::Parked,
        // A failure that can pass is tried again as long as its job lives.
        (Some(TurnOutcome::Failed(failure)), Some(JobState::Pending)) if failure.kind.is_retryable() => {
            TurnStatus::Running
        }
        (Some(TurnOutcome::Failed(_)), _) | (None, Some(JobState::Dead)) => TurnStatus::Failed,
        (None, _) => TurnStatus::Running,
    })
}
