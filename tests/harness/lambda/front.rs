//! An API gateway, emulated: HTTP requests become proxy events of a REST API, streamed answers come back as they are made.

use super::{NotTaken, Part, Platform, Shared};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::stream;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Ends the prelude of a streamed answer.
const PRELUDE_END: [u8; 8] = [0; 8];

/// An API gateway before one function; gone when dropped.
pub struct Front {
    url: String,
    server: JoinHandle<()>,
}

impl Front {
    /// Serves this function of the platform.
    pub async fn start(platform: &Platform, function: &str) -> Self {
        let desk = Desk { shared: Arc::clone(&platform.shared), function: function.to_owned() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("a bound address");
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("a connection"));
        let router = Router::new().fallback(handle).with_state(Arc::new(desk));
        let server = platform.shared.tasks.spawn(async move {
            let service = router.into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(listener, service).await.expect("the listener works");
        });
        Self { url: format!("http://{address}"), server }
    }

    /// Its base URL.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Desk {
    shared: Arc<Shared>,
    function: String,
}

async fn handle(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let event = event(request, peer).await;
    let mut parts = match desk.shared.invoke(&desk.function, event.to_string().into()).await {
        Ok(parts) => parts,
        Err(NotTaken::Throttled) => return failed(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests"),
        Err(NotTaken::Unknown) => return failed(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error"),
    };
    let mut head = BytesMut::new();
    let (prelude, first) = loop {
        match parts.recv().await {
            Some(Part::Data(data)) => head.extend_from_slice(&data),
            _ => return failed(StatusCode::BAD_GATEWAY, "Internal server error"),
        }
        if let Some(at) = head.windows(PRELUDE_END.len()).position(|window| window == PRELUDE_END) {
            let prelude = head.split_to(at);
            break (prelude, head.split_off(PRELUDE_END.len()).freeze());
        }
    };
    let prelude: Value = serde_json::from_slice(&prelude).expect("a prelude in JSON");
    let rest = stream::unfold(Some(parts), |parts| async move {
        let mut parts = parts?;
        match parts.recv().await {
            Some(Part::Data(data)) => Some((Ok(data), Some(parts))),
            Some(Part::End) => None,
            // The connection breaks off in the middle of the answer.
            Some(Part::Error { code, .. }) => Some((Err(std::io::Error::other(code)), None)),
            None => Some((Err(std::io::Error::other("an answer without an end")), None)),
        }
    });
    let first = stream::iter((!first.is_empty()).then_some(Ok::<Bytes, std::io::Error>(first)));
    let mut response = Response::new(Body::from_stream(futures::StreamExt::chain(first, rest)));
    let status = prelude["statusCode"].as_u64().and_then(|status| u16::try_from(status).ok());
    *response.status_mut() = StatusCode::from_u16(status.expect("a status code")).expect("a status");
    for (name, value) in prelude["headers"].as_object().into_iter().flatten() {
        let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
        for value in values.iter().filter_map(Value::as_str) {
            let name: HeaderName = name.parse().expect("a header name");
            // The length is the front's own business: it streams.
            if name != http::header::CONTENT_LENGTH {
                response.headers_mut().append(name, HeaderValue::from_str(value).expect("a header value"));
            }
        }
    }
    response
}

fn failed(status: StatusCode, message: &str) -> Response {
    (status, [("content-type", "application/json")], json!({"message": message}).to_string()).into_response()
}

/// The proxy event of a REST API that API Gateway makes of a request.
async fn event(request: Request, peer: SocketAddr) -> Value {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let (text, is_base64) = match std::str::from_utf8(&body) {
        Ok(text) => (text.to_owned(), false),
        Err(_) => (STANDARD.encode(&body), true),
    };
    let mut sent = parts.headers;
    forwarded(&mut sent, peer);
    let (mut headers, mut many) = (Map::new(), Map::new());
    for name in sent.keys() {
        let values: Vec<_> = sent.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        headers.insert(name.to_string(), json!(values.last()));
        many.insert(name.to_string(), json!(values));
    }
    let pairs =
        Query::<Vec<(String, String)>>::try_from_uri(&parts.uri).map(|query| query.0).unwrap_or_default();
    let (mut query, mut many_query) = (Map::new(), Map::<String, Value>::new());
    for (name, value) in pairs {
        query.insert(name.clone(), json!(value));
        match many_query.entry(name).or_insert_with(|| json!([])) {
            Value::Array(values) => values.push(json!(value)),
            _ => unreachable!("only lists are put in"),
        }
    }
    let or_null = |map: Map<String, Value>| if map.is_empty() { Value::Null } else { Value::Object(map) };
    let path = parts.uri.path();
    json!({
        "resource": "/{proxy+}",
        "path": path,
        "httpMethod": parts.method.as_str(),
        "headers": headers,
        "multiValueHeaders": many,
        "queryStringParameters": or_null(query),
        "multiValueQueryStringParameters": or_null(many_query),
        "pathParameters": {"proxy": path.trim_start_matches('/')},
        "stageVariables": null,
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "emulated",
            "resourceId": "emulated",
            "resourcePath": "/{proxy+}",
            "httpMethod": parts.method.as_str(),
            "path": format!("/live{path}"),
            "stage": "live",
            "protocol": "HTTP/1.1",
            "requestId": "00000000-0000-0000-0000-000000000000",
            "identity": {"sourceIp": peer.ip().to_string()},
        },
        "body": if text.is_empty() { Value::Null } else { text.into() },
        "isBase64Encoded": is_base64,
    })
}

/// What API Gateway says of the caller.
fn forwarded(headers: &mut HeaderMap, peer: SocketAddr) {
    let before = headers.get("x-forwarded-for").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let hops = before.into_iter().chain([peer.ip().to_string()]).collect::<Vec<_>>().join(", ");
    headers.insert("x-forwarded-for", hops.parse().expect("a header value"));
    headers.insert("x-forwarded-port", HeaderValue::from_static("443"));
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
}
