//! `GET /v1/models`: the agents, under the names by which OpenAI's clients choose one.

use super::Gateway;
use super::auth::Caller;
use super::body::{PathArgs, json};
use super::error::ApiError;
use super::target::{self, Named};
use crate::principal::Scope;
use crate::quote::quoted;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// An agent as a model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Model {
    /// `openclaw`, `openclaw/default` or `openclaw/<agentId>`.
    id: String,
    /// `model`.
    object: &'static str,
    /// 0: agents have no date.
    created: u8,
    /// `openclaw`.
    owned_by: &'static str,
    /// Empty.
    permission: [&'static str; 0],
}

/// All of them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelList {
    /// `list`.
    object: &'static str,
    /// The default agent under its two names, then every agent that the caller may use.
    data: Vec<Model>,
}

impl Model {
    fn named(id: String) -> Self {
        Self { id, object: "model", created: 0, owned_by: "openclaw", permission: [] }
    }
}

/// Lists the agents as models.
#[utoipa::path(
    get, path = "/v1/models", operation_id = "listModels", tag = "models",
    responses((status = 200, body = ModelList), (status = "4XX", body = super::openapi::ErrorBody)),
)]
pub(super) async fn list(State(gateway): State<Arc<Gateway>>, caller: Caller) -> Result<Response, ApiError> {
    caller.needs(Scope::Chat)?;
    let config = &gateway.app.config;
    let mut names = Vec::new();
    if caller.may_use(&config.default_agent().id) {
        names.extend(["openclaw".to_owned(), "openclaw/default".to_owned()]);
    }
    let agents = config.agents.iter().filter(|agent| caller.may_use(&agent.id));
    names.extend(agents.map(|agent| format!("openclaw/{}", agent.id)));
    let data = names.into_iter().map(Model::named).collect();
    Ok(json(StatusCode::OK, &ModelList { object: "list", data }))
}

/// One agent as a model.
#[utoipa::path(
    get, path = "/v1/models/{id}", operation_id = "getModel", tag = "models",
    params(("id" = String, Path, description = "The model's id; `openclaw/<agentId>` may be percent-encoded")),
    responses((status = 200, body = Model), (status = "4XX", body = super::openapi::ErrorBody)),
)]
pub(super) async fn get(
    State(gateway): State<Arc<Gateway>>,
    caller: Caller,
    PathArgs(id): PathArgs<String>,
) -> Result<Response, ApiError> {
    caller.needs(Scope::Chat)?;
    let config = &gateway.app.config;
    let agent = match target::named(config, &id) {
        None => return Err(ApiError::invalid_at("id", "Invalid model id.")),
        Some(Named::Default) => Some(config.default_agent()),
        Some(Named::Agent(name)) => target::known(config, name).ok(),
    };
    match agent.filter(|agent| caller.may_use(&agent.id)) {
        Some(_) => Ok(json(StatusCode::OK, &Model::named(id))),
        None => Err(ApiError::not_found(format!("The model `{}` does not exist.", quoted(&id)))
            .with_type("invalid_request_error")),
    }
}
