//! Follows a request from its head to the end of its answer: its id, when a streamed turn told its first, one line in the
//! access log, one count.

use super::Gateway;
use super::error::ApiError;
use super::run::Spoken;
use crate::bounds::{LOGGED_BYTES, REQUEST_ID_BYTES};
use crate::error::Error;
use crate::id::PrincipalId;
use crate::metrics::Metrics;
use crate::quote::shortened;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;
use tracing::Instrument;

/// The request's id, of the caller's choice or ours; every answer names it.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Most bytes of a method in the log; those that are served are shorter.
const METHOD_BYTES: usize = 32;

/// Who turned out to be calling; filled by authentication, read by the access log.
#[derive(Debug, Clone, Default)]
pub(super) struct Who(pub(super) Arc<OnceLock<PrincipalId>>);

/// Paths that are asked every few seconds by machines: neither logged nor counted.
fn is_quiet(path: &str) -> bool {
    matches!(
        path,
        "/health"
            | "/healthz"
            | "/startup"
            | "/startupz"
            | "/ready"
            | "/readyz"
            | "/metrics"
            | "/api/diagnostics/prometheus"
    )
}

/// The caller's id if it is one that a log can hold, or a new one.
fn request_id(headers: &HeaderMap, gateway: &Gateway) -> HeaderValue {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    match headers.get(REQUEST_ID) {
        Some(id) if (1..=REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(plain) => {
            id.clone()
        }
        _ => {
            let id = gateway.app.ids.ulid(gateway.app.clock.now());
            HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("unknown"))
        }
    }
}

/// Runs the request under its id, and notes how it ended – when the last byte of its answer is out, or nobody
/// wants it any more.
pub(super) async fn follow(
    State(gateway): State<Arc<Gateway>>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers(), &gateway);
    let who = Who::default();
    request.extensions_mut().insert(who.clone());
    let quiet = is_quiet(request.uri().path());
    let mut entry = Entry {
        metrics: gateway.app.metrics.clone(),
        started,
        who,
        id: id.clone(),
        method: shortened(request.method().to_string(), METHOD_BYTES),
        path: shortened(request.uri().path().to_owned(), LOGGED_BYTES),
        status: 0,
        quiet,
        silent: None,
    };
    let span = tracing::info_span!("request", request.id = id.to_str().unwrap_or_default());
    // A panic is a bug, but one caller's bug: the process and everybody else go on.
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span).await;
    let mut response = answer.unwrap_or_else(|_| {
        ApiError::from(Error::internal("a handler panicked; the panic's message is in the error log"))
            .into_response()
    });
    response.headers_mut().insert(REQUEST_ID, id);
    entry.status = response.status().as_u16();
    entry.silent = response.extensions_mut().remove::<Spoken>();
    response.map(|body| Body::new(Followed { body, entry }))
}

/// One line of the access log, written when it is dropped.
struct Entry {
    metrics: Arc<Metrics>,
    started: Instant,
    who: Who,
    id: HeaderValue,
    method: String,
    path: String,
    status: u16,
    quiet: bool,
    /// A streamed turn, until it has told its first.
    silent: Option<Spoken>,
}

impl Entry {
    /// A frame goes out.
    fn frame(&mut self) {
        if self.silent.as_ref().is_some_and(Spoken::is_so) {
            self.silent = None;
            self.metrics.first_byte(self.started.elapsed());
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // Dropped before there was an answer: the caller left. 499 is nginx' number for it.
        let status = if self.status == 0 { 499 } else { self.status };
        if self.quiet {
            return;
        }
        let took = self.started.elapsed();
        self.metrics.request(status, took);
        let id = self.id.to_str().unwrap_or_default();
        let principal = self.who.0.get().map(PrincipalId::as_str);
        let duration_ms = took.as_secs_f64() * 1000.0;
        let Self { method, path, .. } = self;
        tracing::info!(target: "access", { request.id = id, method, path, status, duration_ms, principal }, "request");
    }
}

/// An answer's body that carries its log entry to the end.
struct Followed {
    body: Body,
    entry: Entry,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(Some(Ok(_)))) {
            self.entry.frame();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
