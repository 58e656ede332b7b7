//! What every answer carries, errors included.

use super::Gateway;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;

/// Source: OWASP's secure headers for an API, and OpenClaw's gateway.
const ALWAYS: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(self), geolocation=()"),
];

/// Adds the security headers.
pub(super) async fn add(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let hsts = gateway.app.config.gateway.strict_transport_security();
    if let Some(value) = hsts.and_then(|value| HeaderValue::from_str(value).ok()) {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
    response
}
