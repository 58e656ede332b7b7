//! `GET /openapi.json`: the description of every surface, generated from the handlers themselves.

use super::Gateway;
use super::body::JSON;
use super::{
    chat_completions, health, hooks, metrics, models, responses, sessions, tools_invoke, transcript, turns,
};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use std::sync::Arc;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{IntoParams, Modify, OpenApi, ToSchema};

/// An error, in OpenAI's shape.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorBody {
    /// What went wrong.
    pub(super) error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ErrorDetail {
    /// For people.
    pub(super) message: String,
    /// The family of errors.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// For programs: `invalid`, `unauthenticated`, `forbidden`, `not_found`, `conflict`, `idempotency_mismatch`,
    /// `rate_limited`, `budget_exceeded`, `upstream`, `unavailable`, `internal`, or a narrower one.
    pub(super) code: String,
    /// The request's field that was wrong.
    pub(super) param: Option<String>,
}

/// The header that makes a POST safe to repeat.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes a header; read by the document's generator alone")]
pub(super) struct IdempotencyKey {
    /// 1 to 255 visible ASCII characters. The same key with the same request gets the same answer for 30 days. Then the key is free; a hook, a background response or a reset that is asked for again as it was is still not done twice.
    #[param(rename = "Idempotency-Key", required = false)]
    key: Option<String>,
}

/// The headers that say whom a turn is for.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes headers; read by the document's generator alone")]
pub(super) struct Routing {
    /// The agent; wins over `model`.
    #[param(rename = "x-openclaw-agent-id", required = false)]
    agent: Option<String>,
    /// The session, in full (`agent:<id>:…`) or by its last part; wins over `user`.
    #[param(rename = "x-openclaw-session-key", required = false)]
    session: Option<String>,
    /// `provider/model` instead of the agent's; needs the scope `admin`.
    #[param(rename = "x-openclaw-model", required = false)]
    model: Option<String>,
    /// Where the session is held; `webchat` if absent.
    #[param(rename = "x-openclaw-message-channel", required = false)]
    channel: Option<String>,
}

/// The document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Reef",
        description = "Durable AI agent turns behind OpenAI's and OpenClaw's HTTP surfaces.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        chat_completions::create,
        responses::create, responses::retrieve,
        models::list, models::get,
        sessions::list, sessions::get, sessions::reset, sessions::delete, transcript::get, turns::get,
        tools_invoke::invoke,
        hooks::agent, hooks::wake,
        health::live, health::started, health::ready,
        metrics::scrape,
    ),
    security(("token" = [])),
    modifiers(&Token),
)]
struct Document;

/// Adds how callers authenticate.
struct Token;

impl Modify for Token {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("reef_<id>_<secret>");
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(bearer.build()));
    }
}

/// The document as it is kept in the source tree and served.
pub fn document() -> String {
    let mut text = Document::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// The document. Made once: it is asked for without a token, and every answer shares its bytes.
pub(super) async fn serve(State(gateway): State<Arc<Gateway>>) -> Response {
    let document = gateway.openapi.get_or_init(|| Bytes::from(document())).clone();
    ([(header::CONTENT_TYPE, JSON)], document).into_response()
}
