//! `POST /v1/responses` and `GET /v1/responses/{id}`, as the Open Responses specification and OpenAI's clients know
//! them.
//!
//! A response is a turn: its id is `resp_` and the turn's. So every response is stored, whatever `store` says, and
//! `previous_response_id` goes on with the session of that turn.

mod events;
mod files;
mod items;
mod request;
mod resource;

use super::auth::Caller;
use super::body::PathArgs;
use super::error::ApiError;
use super::fields::wrong;
use super::run::{self, Run};
use super::{Gateway, body, idempotency, target};
use crate::agent::{RunOptions, RunRequest};
use crate::answer::Answer;
use crate::error::{Error, ErrorKind};
use crate::id::{AgentId, JobId, PrincipalId, SessionKey, TurnId};
use crate::job::{Job, JobFilter, JobState, NewJob, Work};
use crate::model::ToolChoice;
use crate::principal::Scope;
use crate::quote::quoted;
use crate::session::Turn;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response as HttpResponse;
use events::Progress;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use request::{CreateResponse, Read};
use resource::{Echo, Response};
use std::sync::Arc;
use std::time::Duration;

const ROUTE: &str = "/v1/responses";

/// Runs a turn and answers with its response, whole, streamed, or – in the background – queued.
#[utoipa::path(
    post, path = "/v1/responses", operation_id = "createResponse", tag = "turns",
    request_body = CreateResponse,
    params(super::openapi::IdempotencyKey, super::openapi::Routing),
    responses(
        (status = 200, description = "With `stream`, the same in the events of the Open Responses specification",
            body = Response),
        (status = "4XX", body = super::openapi::ErrorBody),
        (status = "5XX", body = super::openapi::ErrorBody),
    ),
)]
pub(super) async fn create(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    caller.needs(Scope::Chat)?;
    let bytes = body::read(&gateway, body, &headers, gateway.app.config.gateway.max_body_bytes).await?;
    gateway.takes_bytes(&caller, bytes.len())?;
    let Asked { request, response, how } = understand(&gateway, &caller, &headers, &bytes).await?;
    let lent = bytes.understood();
    match how {
        How::Background => {
            let queued = enqueue(&gateway, &caller, request).await;
            drop(lent);
            queued
        }
        How::Streamed => {
            let tool_choice = request.options.tool_choice.clone();
            let frames = move |run: Run| frames(run, response, tool_choice);
            Box::pin(run::stream(gateway, request, lent, frames, events::refusal)).await
        }
        How::Whole => {
            let tool_choice = request.options.tool_choice.clone();
            let mut run = Box::pin(run::start(&gateway, request, lent)).await?;
            let reply = run::reply_as_chosen(run.outcome().await?, &tool_choice)?;
            let mut response = response.of(&run.turn);
            response.complete(reply);
            let mut answer = body::json(StatusCode::OK, &response);
            run.name(answer.headers_mut());
            Ok(answer)
        }
    }
}

/// A response as it stands now: queued, at work, or ended.
#[utoipa::path(
    get, path = "/v1/responses/{id}", operation_id = "getResponse", tag = "turns",
    params(("id" = String, Path, description = "`resp_` and the turn's id")),
    responses(
        (status = 200, body = Response),
        (status = "4XX", body = super::openapi::ErrorBody),
        (status = "5XX", body = super::openapi::ErrorBody),
    ),
)]
pub(super) async fn retrieve(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    PathArgs(id): PathArgs<String>,
) -> Result<HttpResponse, ApiError> {
    caller.needs(Scope::Chat)?;
    let found = find(&gateway, &caller, &id).await?.ok_or_else(|| unknown(&id))?;
    Ok(body::json(StatusCode::OK, &found.response()?))
}

/// How the client wants its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Whole,
    Streamed,
    Background,
}

/// What a request asks for.
struct Asked {
    request: RunRequest,
    /// The response of the turn before it began.
    response: Response,
    how: How,
}

async fn understand(
    gateway: &Gateway,
    caller: &Caller,
    headers: &HeaderMap,
    bytes: &[u8],
) -> Result<Asked, ApiError> {
    let request: CreateResponse = body::parse(bytes)?;
    let app = &gateway.app;
    let how = match (request.background.unwrap_or(false), request.stream.unwrap_or(false)) {
        (true, true) => return Err(wrong("stream", "cannot be combined with `background`")),
        (true, false) => How::Background,
        (false, true) => How::Streamed,
        (false, false) => How::Whole,
    };
    let model = request.model.as_deref().filter(|model| !model.is_empty());
    let user = request.user.as_deref().filter(|user| !user.is_empty());
    let mut target = target::choose(gateway, caller, headers, model, user, "openresponses")?;
    let requested_model = model.unwrap_or("openclaw").to_owned();
    let user = user.map(str::to_owned);
    if let Some(previous) = &request.previous_response_id {
        let named = target::session_key_of(headers, &target.agent)?;
        target.session = session_of(gateway, caller, previous, &target.agent, named).await?;
        // All of the input is new: nothing of it is looked for in the transcript.
        target.sticky = false;
    }
    let idempotency = idempotency::of(ROUTE, headers, bytes)?;
    let Read { input, instructions, client_tools, tool_choice, sampling, echo } = request.read()?;
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
            trigger: "responses".to_owned(),
            requested_model,
            echo: serde_json::to_value(echo).map_err(Error::internal)?,
            ..RunOptions::default()
        },
    };
    let response = Response::new(&request.turn, &request.options);
    Ok(Asked { request, response, how })
}

/// The frames of a streamed response.
fn frames(run: Run, response: Response, tool_choice: ToolChoice) -> BoxStream<'static, Bytes> {
    let progress = Progress::new(response.of(&run.turn), tool_choice);
    let batches = stream::unfold((run, progress, true), |(mut run, mut progress, is_first)| async move {
        if progress.is_over() {
            return None;
        }
        // The first frames do not wait for the model.
        if !is_first {
            match run.next().await {
                Ok(event) => progress.take(event),
                Err(error) => progress.fail(&error),
            }
        }
        let frames = progress.drain();
        Some((stream::iter(frames), (run, progress, false)))
    });
    batches.flatten().boxed()
}

/// Hands the turn to the queue. The job has the turn's id, so that either can be found by the response's.
async fn enqueue(
    gateway: &Gateway,
    caller: &Caller,
    mut request: RunRequest,
) -> Result<HttpResponse, ApiError> {
    gateway.accepts_work()?;
    // The key guards the acceptance. The turn needs none: however often its job is delivered, its id is the same; and
    // so it is when a process dies between handing it in and answering, and the client asks again.
    let app = &gateway.app;
    let idempotency = request.idempotency.take();
    if let Some(idempotency) = &idempotency {
        request.turn = TurnId::new(idempotency::id_of(caller, ROUTE, idempotency));
        let created_at = Some(app.clock.now().as_seconds());
        let echo = Echo { created_at, ..Echo::of(&request.options) };
        request.options.echo = serde_json::to_value(echo).map_err(Error::internal)?;
    }
    let work = async {
        let mut response = Response::new(&request.turn, &request.options);
        let job = NewJob {
            id: JobId::new(request.turn.as_str()),
            tenant: request.tenant.clone(),
            work: Work::Turn(Box::new(request)),
        };
        let is_new = app.stores.jobs.enqueue(&job, Duration::ZERO, app.clock.now()).await?;
        if let Some(Job { job: NewJob { work: Work::Turn(stored), .. }, unreadable: None, .. }) =
            if is_new { None } else { self::job(gateway, caller, response.turn()).await? }
        {
            // A job that is done keeps nothing of what was asked; its turn does.
            response = match app.stores.sessions.turn(&caller.tenant, &stored.turn).await? {
                Some(turn) => Response::new(&turn.id, &read_options(&turn)),
                None => Response::new(&stored.turn, &stored.options),
            };
        }
        response.queue();
        let body = serde_json::to_string(&response).map_err(Error::internal)?;
        Ok(Answer { status: StatusCode::OK.as_u16(), content_type: body::JSON.to_owned(), body })
    };
    idempotency::redo(gateway, caller, idempotency, work).await
}

/// What a response's id can stand for.
enum Found {
    /// A turn, and its job if that may run it again.
    Turn(Box<Turn>, Option<Job>),
    /// Background work that never began.
    Job(Job, Box<RunRequest>),
}

impl Found {
    /// The response object of now.
    fn response(self) -> Result<Response, ApiError> {
        match self {
            Self::Turn(turn, job) => {
                let options = read_options(&turn);
                let mut response = Response::new(&turn.id, &options);
                match turn.outcome {
                    // It failed in a way that may pass, and will be tried again.
                    Some(_) if job.is_some_and(|job| job.state == JobState::Pending) => response.queue(),
                    None => {}
                    Some(outcome) => match run::reply_as_chosen(outcome, &options.tool_choice) {
                        Ok(reply) => response.complete(reply),
                        Err(error) => response.fail(&error, None),
                    },
                }
                Ok(response)
            }
            Self::Job(job, request) => {
                let mut response = Response::new(&request.turn, &request.options);
                if job.state == JobState::Pending {
                    response.queue();
                } else {
                    let reason = job.reason.as_deref().unwrap_or("no reason was recorded");
                    let message = format!("the work was given up: {reason}");
                    response.fail(&ApiError::new(ErrorKind::Unavailable, message), None);
                }
                Ok(response)
            }
        }
    }
}

/// A turn's options; the default ones if they cannot be read: such a turn has failed, or is about to.
fn read_options(turn: &Turn) -> RunOptions {
    serde::Deserialize::deserialize(&turn.options).unwrap_or_default()
}

/// Looks a response up; `None` if there is none, or if the caller may not know of it.
async fn find(gateway: &Gateway, caller: &Caller, id: &str) -> Result<Option<Found>, ApiError> {
    let Some(id) = resource::turn_of(id) else { return Ok(None) };
    let stores = &gateway.app.stores;
    let may_know = |principal: &PrincipalId, agent: &AgentId| {
        (caller.id == *principal || caller.may(Scope::Admin)) && caller.may_use(agent)
    };
    let mut turn = stores.sessions.turn(&caller.tenant, &id).await?;
    if turn.is_none() {
        let Some(job) = job(gateway, caller, &id).await? else { return Ok(None) };
        if job.state != JobState::Done {
            let Work::Turn(request) = &job.job.work;
            let request = request.clone();
            let known = may_know(&request.principal, &request.agent);
            return Ok(known.then_some(Found::Job(job, request)));
        }
        // Between the two looks the worker ran the whole turn.
        turn = stores.sessions.turn(&caller.tenant, &id).await?;
    }
    let Some(turn) = turn else { return Ok(None) };
    if !may_know(&turn.principal, &turn.agent) {
        return Ok(None);
    }
    let may_run_again = turn.outcome.as_ref().is_some_and(|outcome| outcome.may_run_again());
    let job = if may_run_again && Echo::of(&read_options(&turn)).background {
        job(gateway, caller, &id).await?
    } else {
        None
    };
    Ok(Some(Found::Turn(Box::new(turn), job)))
}

async fn job(gateway: &Gateway, caller: &Caller, turn: &TurnId) -> Result<Option<Job>, ApiError> {
    let filter = JobFilter { id: Some(JobId::new(turn.as_str())), state: None, limit: 1 };
    Ok(gateway.app.stores.jobs.list(&caller.tenant, &filter, gateway.app.clock.now()).await?.pop())
}

/// The session that `previous_response_id` goes on with; `named` is the one that a header names, if any.
async fn session_of(
    gateway: &Gateway,
    caller: &Caller,
    previous: &str,
    agent: &AgentId,
    named: Option<SessionKey>,
) -> Result<SessionKey, ApiError> {
    let field = "previous_response_id";
    let missing =
        || Error::not_found(format!("Previous response '{}' not found.", quoted(previous))).at(field);
    let found = find(gateway, caller, previous).await?.ok_or_else(missing)?;
    let turn = match found {
        Found::Turn(turn, _) => turn,
        Found::Job(job, _) if job.state == JobState::Pending => {
            let message = "the previous response is still queued; go on from it when it has begun";
            return Err(Error::new(ErrorKind::Conflict, message)
                .at(field)
                .after(Duration::from_secs(1))
                .into());
        }
        Found::Job(..) => return Err(missing().into()),
    };
    if turn.agent != *agent {
        let rule = format!("is a response of the agent '{}'; name that agent in `model`", turn.agent);
        return Err(wrong(field, &rule));
    }
    if named.is_some_and(|named| named != turn.session) {
        return Err(wrong(field, "belongs to another session than the one that the header names"));
    }
    Ok(turn.session)
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("Response '{}' not found.", quoted(id)))
}
