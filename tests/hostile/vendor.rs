//! The vendor of all agents: a good one, and one of each kind that does harm, each under a path of its own.
//!
//! What harms is made of one piece of bytes that is given again and again: however much is said, this process holds it
//! once. The good one counts who was asked for, so that a turn that ran twice shows.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use futures::{Stream, StreamExt, future, stream};
use http::header;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::task::TaskTracker;

/// What an honest input looks like: this and what follows up to the next space.
pub(crate) const MARK: &str = "honest-";

/// The vendors, by the names of their paths, providers and agents.
pub(crate) const KINDS: [&str; 6] = ["honest", "open", "sink", "flood", "endless", "silent"];

/// Text of one event of a vendor that says too much.
const PIECE: usize = 8 * 1024;

/// Events of an answer of 100 MB.
const FLOOD: usize = 100 * 1024 * 1024 / PIECE;

/// Events of the one that never stops: more than anybody takes, and still an end.
const ENDLESS: usize = 40 * FLOOD;

/// How often each honest input was sent to the vendor.
type Calls = Mutex<BTreeMap<String, usize>>;

/// Listens; gone when dropped.
pub(crate) struct Vendor {
    address: SocketAddr,
    calls: Arc<Calls>,
    server: tokio::task::JoinHandle<()>,
}

impl Vendor {
    pub(crate) async fn start() -> Self {
        let calls = Arc::new(Calls::default());
        let routes = Router::new()
            .route("/honest/v1/chat/completions", post(honest))
            .route("/open/v1/chat/completions", post(sink))
            .route("/sink/v1/chat/completions", post(sink))
            .route("/flood/v1/chat/completions", post(|body| too_much(body, FLOOD)))
            .route("/endless/v1/chat/completions", post(|body| too_much(body, ENDLESS)))
            .route("/silent/v1/chat/completions", post(silent))
            .with_state(Arc::clone(&calls));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("a bound address");
        let server = TaskTracker::new().spawn(async move {
            axum::serve(listener, routes).await.expect("the listener works");
        });
        Self { address, calls, server }
    }

    /// Settings with an agent for each kind, the honest one first.
    pub(crate) fn settings(&self) -> Value {
        let agents = KINDS.map(|kind| {
            json!({"id": kind, "model": format!("{kind}/small"), "workspace": format!("./{kind}"), "tools": []})
        });
        let providers = KINDS.map(|kind| {
            let url = format!("http://{}/{kind}/v1", self.address);
            (kind.to_owned(), json!({"baseUrl": url, "api": "openai-completions"}))
        });
        json!({"agents": agents, "models": {"providers": Value::Object(providers.into_iter().collect())}})
    }

    /// How often the vendor was asked for each honest input.
    pub(crate) fn calls(&self) -> BTreeMap<String, usize> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Answers `Heard: <mark>` to the one mark of the newest message. A message with several asks for a summary of an earlier part
/// of the session, and is no turn.
async fn honest(State(calls): State<Arc<Calls>>, body: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let newest = request["messages"].as_array().and_then(|messages| messages.last()).map(Value::to_string);
    let newest = newest.unwrap_or_default();
    let said = match mark_of(&newest) {
        Some(mark) if newest.matches(MARK).count() == 1 => {
            *calls.lock().unwrap_or_else(PoisonError::into_inner).entry(mark.to_owned()).or_default() += 1;
            format!("Heard: {mark}")
        }
        _ => "They greeted each other.".to_owned(),
    };
    events_of(stream::iter([event(&said, None), event("", Some("stop")), done()]))
}

/// The first mark in a text.
fn mark_of(text: &str) -> Option<&str> {
    let from = &text[text.find(MARK)?..];
    let is_mark = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    Some(&from[..from.find(|letter| !is_mark(letter)).unwrap_or(from.len())])
}

/// Reads whatever comes, keeps nothing of it, and answers briefly.
async fn sink(request: Request) -> Response {
    swallow(request.into_body()).await;
    events_of(stream::iter([event("fine", None), event("", Some("stop")), done()]))
}

async fn too_much(request: Request, events: usize) -> Response {
    swallow(request.into_body()).await;
    let piece = event(&"much ".repeat(PIECE / 5), None);
    let end = stream::iter([event("", Some("stop")), done()]);
    events_of(stream::iter(std::iter::repeat_n(piece, events)).chain(end))
}

/// Not even a head.
async fn silent(request: Request) -> Response {
    swallow(request.into_body()).await;
    future::pending().await
}

async fn swallow(body: Body) {
    let mut pieces = body.into_data_stream();
    while let Some(Ok(_)) = pieces.next().await {}
}

fn event(text: &str, stop: Option<&str>) -> Bytes {
    let usage = stop.map(|_| json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}));
    let data = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "small", "usage": usage,
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": stop}],
    });
    format!("data: {data}\n\n").into()
}

fn done() -> Bytes {
    Bytes::from_static(b"data: [DONE]\n\n")
}

fn events_of(events: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let mut response = Response::new(Body::from_stream(events.map(Ok::<_, Infallible>)));
    let kind = header::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
