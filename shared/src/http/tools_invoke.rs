//! `POST /tools/invoke`: one built-in tool, called without a model.

use super::Gateway;
use super::auth::Caller;
use super::body;
use super::error::ApiError;
use super::idempotency::CutShort;
use super::{idempotency, target};
use crate::answer::Answer;
use crate::bounds::TOOL_BODY_BYTES;
use crate::error::Error;
use crate::id::TurnId;
use crate::principal::Scope;
use crate::quote::quoted;
use crate::tool::{Effect, Tool, ToolContext, ToolError, ToolOutput};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

const ROUTE: &str = "/tools/invoke";

/// A tool's own time; none of the built-in ones takes a tenth of it.
const HOLD: Duration = Duration::from_secs(120);

/// Which tool, and with what.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", expecting = "a JSON object")]
pub(super) struct InvokeRequest {
    /// The tool's name.
    tool: Option<String>,
    /// The same, by its other name.
    name: Option<String>,
    /// The tool's arguments; `{}` if absent.
    #[schema(value_type = Option<Object>)]
    args: Option<Value>,
    /// The session that the tool works for; `main` if absent.
    session_key: Option<String>,
    /// The agent whose tool and workspace it is; the default agent if absent.
    agent_id: Option<String>,
    /// As the header `Idempotency-Key`.
    idempotency_key: Option<String>,
    /// Only says whether the call would be tried.
    dry_run: Option<bool>,
}

/// What the tool answered.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Invoked {
    /// `true`.
    ok: bool,
    /// The answer; absent for a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<ToolAnswer>,
    /// Set for a dry run.
    #[serde(rename = "dryRun", skip_serializing_if = "Option::is_none")]
    dry_run: Option<bool>,
}

/// A tool's answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ToolAnswer {
    /// For the model: one text.
    #[schema(value_type = Vec<Object>)]
    content: Value,
    /// For programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    details: Option<Value>,
}

/// Calls a tool.
#[utoipa::path(
    post, path = "/tools/invoke", operation_id = "invokeTool", tag = "tools",
    request_body = InvokeRequest, params(super::openapi::IdempotencyKey),
    responses((status = 200, body = Invoked), (status = "4XX", body = super::openapi::ErrorBody)),
)]
pub(super) async fn invoke(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    run(&gateway, &caller, &headers, body).await.map_err(ApiError::ok_false)
}

async fn run(
    gateway: &Gateway,
    caller: &Caller,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    caller.needs(Scope::Tools)?;
    let app = &gateway.app;
    let bytes =
        body::read(gateway, body, headers, TOOL_BODY_BYTES.min(app.config.gateway.max_body_bytes)).await?;
    gateway.takes_bytes(caller, bytes.len())?;
    let request: InvokeRequest = body::parse(&bytes)?;
    let idempotency = idempotency::of_body(ROUTE, headers, request.idempotency_key.as_deref(), &bytes)?;
    let name = request.tool.or(request.name).filter(|name| !name.trim().is_empty());
    let name = name.ok_or_else(|| ApiError::invalid_at("name", "tools.invoke requires name"))?;
    let arguments = request.args.unwrap_or_else(|| json!({}));
    if !arguments.is_object() {
        return Err(ApiError::invalid_at("args", "`args` must be an object."));
    }
    let agent = match request.agent_id.as_deref() {
        Some(id) => target::known(&app.config, id)?,
        None => target::agent(&app.config, caller, headers, None)?,
    };
    target::allowed(caller, agent)?;
    let session =
        target::session_key(&agent.id, request.session_key.as_deref().unwrap_or("main"), "sessionKey")?;
    // A tool that is unknown and one that is not allowed look the same.
    let tool = app.tools.get(&name).filter(|_| agent.tools.contains(&name));
    let tool = tool.ok_or_else(|| ApiError::not_found(format!("Tool not available: {}", quoted(&name))))?;
    if request.dry_run.unwrap_or(false) {
        return Ok(body::json(StatusCode::OK, &Invoked { ok: true, result: None, dry_run: Some(true) }));
    }
    gateway.accepts_work()?;
    let now = app.clock.now();
    let turn = TurnId::new(app.ids.ulid(now));
    // The same for the same key, so that an `idempotent` tool knows a second try.
    let call_id = match &idempotency {
        Some(idempotency) => format!("call_{}", idempotency::id_of(caller, ROUTE, idempotency)),
        None => format!("call_{turn}"),
    };
    let context = ToolContext {
        tenant: caller.tenant.clone(),
        agent: agent.id.clone(),
        session: Some(session),
        turn,
        call_id,
        now,
        time_zone: agent.time_zone.clone(),
        workspace: agent.workspace.clone(),
    };
    let cut_short = match tool.spec().effect {
        Effect::Once => CutShort::Parked(ApiError::parked("call", &name).ok_false()),
        Effect::None | Effect::Idempotent => CutShort::Again,
    };
    let work = call(gateway, tool.as_ref(), &context, &arguments);
    idempotency::once(gateway, caller, idempotency, HOLD, cut_short, work).await
}

async fn call(
    gateway: &Gateway,
    tool: &dyn Tool,
    context: &ToolContext,
    arguments: &Value,
) -> Result<Answer, ApiError> {
    let name = &tool.spec().name;
    let called = tool.call(context, arguments).await;
    let outcome = if called.is_ok() { "completed" } else { "error" };
    gateway.app.metrics.tool_execution(name, outcome);
    tracing::info!(target: "operation", { tool = name, agent = %context.agent, outcome }, "tool called");
    match called {
        Ok(ToolOutput { content, details }) => {
            let result = ToolAnswer { content: json!([{"type": "text", "text": content}]), details };
            Ok(Answer::json(&Invoked { ok: true, result: Some(result), dry_run: None }))
        }
        Err(ToolError::Arguments(message)) => Err(ApiError::invalid_at("args", message).ok_false()),
        Err(error) => {
            let may_have_worked = error.may_have_worked();
            let error = ApiError::from(Error::from(error)).ok_false();
            // Whether a `once` tool that broke did its work is not known: the key must not run it again.
            if may_have_worked && tool.spec().effect == Effect::Once {
                error.log();
                return Ok(error.to_answer());
            }
            Err(error)
        }
    }
}
