//! `GET /metrics`, in Prometheus' text format; also where OpenClaw's plug-in has it.

use super::Gateway;
use super::auth::authenticate;
use super::error::ApiError;
use super::lockout::Door;
use super::peer::Peer;
use crate::error::{Error, ErrorKind};
use crate::principal::Scope;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything that is counted, for callers on this host and for the scope `metrics`.
#[utoipa::path(
    get, path = "/metrics", operation_id = "scrapeMetrics", tag = "metrics",
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = "4XX", body = super::openapi::ErrorBody),
    ),
)]
pub(super) async fn scrape(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    if !Peer::of(&parts, &gateway.app.config.gateway)?.local {
        authenticate(&gateway, &parts, Door::Api).await?.needs(Scope::Metrics)?;
    }
    let app = &gateway.app;
    if app.metrics.is_kept() {
        let now = app.clock.now();
        match app.stores.jobs.backlog(now).await {
            Ok(backlog) => app.metrics.backlog(&backlog.unwrap_or_default(), now),
            // The rest is worth as much without it.
            Err(error) => {
                let cause = Error::from(error).cause();
                tracing::warn!(target: "error", { cause }, "the queue cannot be counted for a scrape");
            }
        }
    }
    app.metrics.memory(app.budget.drawn(), app.budget.total());
    let Some(text) = app.metrics.render() else {
        let message =
            "nothing is kept for a scrape here; the platform's metrics have what this installation reports";
        return Err(Error::new(ErrorKind::NotFound, message).into());
    };
    Ok(([(header::CONTENT_TYPE, TEXT)], text).into_response())
}
