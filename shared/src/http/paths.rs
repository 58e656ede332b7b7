//! What is answered where no surface is: the bare address, paths that do not exist, methods that a path does not take.

use super::body::json;
use super::error::ApiError;
use crate::error::ErrorKind;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Where the API is.
const BASE: &str = "/v1";

/// Most letters of a method and a path that are repeated to whoever asked for it.
const QUOTED: usize = 100;

/// As much of it as is repeated.
fn quoted(text: &str) -> &str {
    // Methods and paths are ASCII, or the request would not have come this far.
    text.get(..QUOTED).unwrap_or(text)
}

/// What somebody finds who only has the address.
#[derive(Debug, Serialize)]
struct Welcome {
    name: &'static str,
    version: &'static str,
    status: &'static str,
    /// What clients' base URL ends in.
    api: &'static str,
    models: &'static str,
    openapi: &'static str,
    health: &'static str,
    ready: &'static str,
    docs: &'static str,
}

const WELCOME: Welcome = Welcome {
    name: "Reef",
    version: env!("CARGO_PKG_VERSION"),
    status: "running",
    api: BASE,
    models: "/v1/models",
    openapi: "/openapi.json",
    health: "/health",
    ready: "/ready",
    docs: "README.md of the source tree",
};

/// The same for a browser.
const PAGE: &str = concat!(
    "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Reef</title>\n",
    "<p>Reef ",
    env!("CARGO_PKG_VERSION"),
    " is running.\n",
    "<ul>\n",
    "<li>OpenAI clients: a base URL that ends in <code>/v1</code>, and a token as API key\n",
    "<li>Every path: <a href=\"/openapi.json\">/openapi.json</a>\n",
    "<li>Health: <a href=\"/health\">/health</a>, <a href=\"/ready\">/ready</a>\n",
    "<li>Documentation: <code>README.md</code> of the source tree\n",
    "</ul>\n</html>\n",
);

/// `GET /`: that it runs, and where everything is.
pub(super) async fn welcome(headers: HeaderMap) -> Response {
    let wanted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut response = if wanted.contains("text/html") {
        ([(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))], PAGE).into_response()
    } else {
        json(StatusCode::OK, &WELCOME)
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// No such path.
pub(super) async fn not_found(method: Method, uri: Uri) -> ApiError {
    let path = uri.path();
    let hint = if is_api(path) {
        "The API is below /v1: give your client a base URL that ends in /v1."
    } else if path.strip_prefix(BASE).is_some_and(is_below_base) {
        "It holds /v1 twice: a client's base URL ends in one /v1."
    } else {
        "A client's base URL ends in /v1; /openapi.json lists every path."
    };
    ApiError::not_found(format!("There is no {} {} here. {hint}", quoted(method.as_str()), quoted(path)))
}

/// The path exists, but not with this method; axum adds `Allow`.
pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let (path, method) = (quoted(uri.path()), quoted(method.as_str()));
    let message =
        format!("{path} does not take the method {method}; the header `Allow` says which it takes.");
    ApiError::new(ErrorKind::Invalid, message)
        .with_status(StatusCode::METHOD_NOT_ALLOWED)
        .with_code("method_not_allowed")
}

/// Whether somebody forgot the `/v1` before one of OpenAI's or our own paths.
fn is_api(path: &str) -> bool {
    ["/chat/completions", "/responses", "/models", "/sessions"]
        .iter()
        .any(|known| path.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

fn is_below_base(path: &str) -> bool {
    path == BASE || path.strip_prefix(BASE).is_some_and(|rest| rest.starts_with('/'))
}
