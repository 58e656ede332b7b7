//! Health: is the process alive, has it started, may traffic come. Asked without a token.

use super::Gateway;
use super::auth::authenticate;
use super::body::json;
use super::lockout::Door;
use super::peer::Peer;
use crate::principal::Scope;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The process is alive.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Live {
    /// `true`.
    ok: bool,
    /// `live`.
    status: &'static str,
}

/// Whether the process has started.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Started {
    /// Whether it has, and is not about to end.
    ok: bool,
    /// `started` or `draining`.
    status: &'static str,
    /// This build's version.
    version: &'static str,
    /// Since the start.
    uptime_ms: u64,
}

/// Whether traffic may come. Who is neither on this host nor holds the scope `metrics` is told `ready` alone.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ready {
    /// Whether it may.
    ready: bool,
    /// What stands against it: `draining`, `store`, `folder` (the data folder was removed or replaced), `disk` (it cannot be
    /// written to), `region` (out of service).
    #[serde(skip_serializing_if = "Option::is_none")]
    failing: Option<Vec<&'static str>>,
    /// Since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    uptime_ms: Option<u64>,
}

fn uptime_ms(gateway: &Gateway) -> u64 {
    let uptime = gateway.app.clock.now().since(gateway.app.lifecycle.started_at());
    u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX)
}

/// The process is alive; also at `/healthz`.
#[utoipa::path(get, path = "/health", operation_id = "health", tag = "health", security(()), responses((status = 200, body = Live)))]
pub(super) async fn live() -> Response {
    json(StatusCode::OK, &Live { ok: true, status: "live" })
}

/// The process has started; also at `/startupz`.
#[utoipa::path(
    get, path = "/startup", operation_id = "startup", tag = "health", security(()),
    responses((status = 200, body = Started), (status = 503, body = Started)),
)]
pub(super) async fn started(State(gateway): State<Arc<Gateway>>) -> Response {
    let draining = gateway.app.lifecycle.is_draining();
    let (code, status) =
        if draining { (StatusCode::SERVICE_UNAVAILABLE, "draining") } else { (StatusCode::OK, "started") };
    let version = env!("CARGO_PKG_VERSION");
    json(code, &Started { ok: !draining, status, version, uptime_ms: uptime_ms(&gateway) })
}

/// Traffic may come; also at `/readyz`.
#[utoipa::path(
    get, path = "/ready", operation_id = "ready", tag = "health", security(()),
    responses((status = 200, body = Ready), (status = 503, body = Ready)),
)]
pub(super) async fn ready(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    let mut failing = Vec::new();
    if gateway.app.lifecycle.is_draining() {
        failing.push("draining");
    }
    if !gateway.app.store_answers().await {
        failing.push("store");
    }
    failing.extend(gateway.app.lifecycle.unready().await);
    if !gateway.app.is_in_service().await {
        failing.push("region");
    }
    let ready = failing.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if !ready {
        gateway.app.metrics.not_ready();
    }
    let told = if sees_details(&gateway, request).await {
        Ready { ready, failing: Some(failing), uptime_ms: Some(uptime_ms(&gateway)) }
    } else {
        Ready { ready, failing: None, uptime_ms: None }
    };
    json(status, &told)
}

/// Whether the caller is on this host, or may read metrics.
pub(super) async fn sees_details(gateway: &Gateway, request: Request) -> bool {
    let (parts, _) = request.into_parts();
    if Peer::of(&parts, &gateway.app.config.gateway).is_ok_and(|peer| peer.local) {
        return true;
    }
    authenticate(gateway, &parts, Door::Api).await.is_ok_and(|caller| caller.may(Scope::Metrics))
}
