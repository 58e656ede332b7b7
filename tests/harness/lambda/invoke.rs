//! Lambda's own API, as far as a function calls another one: `InvokeWithResponseStream`.

use super::{NotTaken, Part, Parts, Shared, in_region};
use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures::stream;
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;

pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/2021-11-15/functions/{name}/response-streaming-invocations", post(streamed))
        .layer(DefaultBodyLimit::disable())
        .with_state(shared)
}

async fn streamed(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    event: Bytes,
) -> Response {
    let there = in_region(&name, region(&headers));
    let name = if shared.has(&there) { there } else { name };
    match shared.invoke(&name, event).await {
        Ok(parts) => {
            let messages = stream::unfold(Some(parts), |parts| async move {
                let mut parts: Parts = parts?;
                let (message, is_last) = message(parts.recv().await);
                Some((Ok::<_, Infallible>(message), (!is_last).then_some(parts)))
            });
            let kind = [("content-type", "application/vnd.amazon.eventstream")];
            (kind, Body::from_stream(messages)).into_response()
        }
        Err(NotTaken::Throttled) => {
            refusal(StatusCode::TOO_MANY_REQUESTS, "TooManyRequestsException", "Rate Exceeded.")
        }
        Err(NotTaken::Unknown) => {
            refusal(StatusCode::NOT_FOUND, "ResourceNotFoundException", "Function not found")
        }
    }
}

/// The region that a signed call is for: `Credential=<key>/<date>/<region>/lambda/aws4_request`.
fn region(headers: &HeaderMap) -> &str {
    let signature = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    signature.split('/').nth(2).unwrap_or_default()
}

fn refusal(status: StatusCode, kind: &'static str, message: &str) -> Response {
    let headers = [("x-amzn-errortype", kind), ("content-type", "application/json")];
    (status, headers, json!({"Type": "User", "message": message}).to_string()).into_response()
}

/// A piece of an answer as a message of the event stream, and whether it is the last.
fn message(part: Option<Part>) -> (Bytes, bool) {
    let (kind, content, payload, is_last) = match part {
        Some(Part::Data(data)) => ("PayloadChunk", "application/octet-stream", data, false),
        Some(Part::End) => ("InvokeComplete", "application/json", Bytes::from_static(b"{}"), true),
        Some(Part::Error { code, details }) => {
            let told = json!({"ErrorCode": code, "ErrorDetails": details}).to_string();
            ("InvokeComplete", "application/json", told.into(), true)
        }
        None => {
            let told = json!({"ErrorCode": "Runtime.ExitError"}).to_string();
            ("InvokeComplete", "application/json", told.into(), true)
        }
    };
    let header =
        |name: &'static str, value: &'static str| Header::new(name, HeaderValue::String(value.into()));
    let message = Message::new(payload)
        .add_header(header(":message-type", "event"))
        .add_header(header(":event-type", kind))
        .add_header(header(":content-type", content));
    let mut bytes = Vec::new();
    write_message_to(&message, &mut bytes).expect("a message that can be written");
    (bytes.into(), is_last)
}
