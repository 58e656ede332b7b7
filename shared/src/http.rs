//! Every HTTP surface: [`router`], top to bottom.
//!
//! A request passes [`trace`] (its id, the access log, metrics), [`headers`] (what every answer carries), then its
//! handler. A handler that names a [`auth::Caller`] among its arguments is met by authenticated, rate-limited callers
//! only, and says as its first act which scope it needs.

mod auth;
mod body;
mod byte_rate;
mod chat_completions;
mod error;
mod fields;
mod headers;
mod health;
mod hooks;
mod idempotency;
mod images;
mod lockout;
mod metrics;
mod models;
pub mod openapi;
mod paths;
mod peer;
mod responses;
mod run;
mod sessions;
mod sse;
mod target;
mod tools_invoke;
mod trace;
mod transcript;
mod turns;

use crate::app::App;
use crate::error::{Error, ErrorKind};
use auth::{Caller, Credentials};
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use byte_rate::ByteRate;
use bytes::Bytes;
use error::ApiError;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What every handler is given: the app, and what this gateway remembers of its callers.
struct Gateway {
    app: App,
    credentials: Credentials,
    /// The description of every surface, once somebody has asked for it.
    openapi: OnceLock<Bytes>,
    bytes: ByteRate,
}

impl Gateway {
    /// Counts the bytes that a caller brought and that may be kept.
    fn takes_bytes(&self, caller: &Caller, bytes: usize) -> Result<(), ApiError> {
        let config = &self.app.config.gateway;
        let rate = caller.limit.unwrap_or(config.limit).per_second * f64::from(config.bytes_per_request);
        self.bytes.take(caller, rate, bytes)
    }

    /// Refuses new work while the process drains.
    fn accepts_work(&self) -> Result<(), ApiError> {
        if self.app.lifecycle.is_draining() {
            let error = Error::new(ErrorKind::Unavailable, "this gateway is shutting down; try again");
            return Err(error.after(Duration::from_secs(2)).into());
        }
        Ok(())
    }
}

/// All surfaces. The peer's address is taken from axum's `ConnectInfo<SocketAddr>`.
pub fn router(app: App) -> Router {
    let gateway = Arc::new(Gateway {
        app,
        credentials: Credentials::new(),
        openapi: OnceLock::new(),
        bytes: ByteRate::new(),
    });
    Router::new()
        // OpenAI's surfaces.
        .route("/v1/chat/completions", post(chat_completions::create))
        .route("/v1/responses", post(responses::create))
        .route("/v1/responses/{id}", get(responses::retrieve))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::get))
        // Sessions, their transcripts and turns.
        .route("/v1/sessions", get(sessions::list))
        .route("/v1/sessions/{key}", get(sessions::get).delete(sessions::delete))
        .route("/v1/sessions/{key}/reset", post(sessions::reset))
        .route("/v1/sessions/{key}/transcript", get(transcript::get))
        .route("/v1/sessions/{key}/turns/{id}", get(turns::get))
        // OpenClaw's surfaces for programs.
        .route("/tools/invoke", post(tools_invoke::invoke))
        .route("/hooks/agent", post(hooks::agent))
        .route("/hooks/wake", post(hooks::wake))
        // For people who only have the address.
        .route("/", get(paths::welcome))
        // For operators and their machines.
        .route("/health", get(health::live))
        .route("/healthz", get(health::live))
        .route("/startup", get(health::started))
        .route("/startupz", get(health::started))
        .route("/ready", get(health::ready))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::scrape))
        .route("/api/diagnostics/prometheus", get(metrics::scrape))
        .route("/openapi.json", get(openapi::serve))
        // Whatever else is asked for.
        .fallback(paths::not_found)
        .method_not_allowed_fallback(paths::method_not_allowed)
        // The first one is the outermost.
        .layer((
            from_fn_with_state(gateway.clone(), trace::follow),
            from_fn_with_state(gateway.clone(), headers::add),
        ))
        .with_state(gateway)
}
