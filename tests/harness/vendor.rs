//! A model vendor on a loopback socket, speaking both wire protocols: `POST /v1/messages` (Anthropic) and
//! `POST /v1/chat/completions` (OpenAI).
//!
//! Two ways to use it. *Scripted*: answers are queued with [`Vendor::answer`], one per request, and the requests are
//! kept to be looked at. *Free*: with nothing queued it echoes, by rules that can be steered from the user's message:
//!
//! - a line `/tool NAME {…}` of the newest user message makes it call that tool, if it is offered;
//! - when the newest messages are tool results, it quotes them;
//! - otherwise it says `You said: …`, or the fixed text of [`Options::text`], a word per delta.
//!
//! It never reads a clock and waits only where a script or [`Options::pause`] says so.

mod echo;
mod frames;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, StatusCode, header};
use serde_json::Value;
use shared::model::{StopReason, Usage};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

pub use frames::Wire;

/// How a vendor without a script behaves.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Said to everybody instead of the echo.
    pub text: Option<String>,
    /// Before each delta: a slow model.
    pub pause: Duration,
    /// Requests are not kept: for load, where they would only fill the memory.
    pub forget: bool,
}

/// A request that the vendor got.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Which protocol.
    pub wire: Wire,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Value,
}

/// What a vendor knows, shared by all of its connections.
#[derive(Debug, Default)]
pub struct Desk {
    options: Options,
    queue: Mutex<VecDeque<Answer>>,
    requests: Mutex<Vec<Recorded>>,
    connections: AtomicUsize,
}

impl Desk {
    /// A desk without a script.
    pub fn new(options: Options) -> Arc<Self> {
        Arc::new(Self { options, ..Self::default() })
    }

    /// Puts an answer behind those that wait; each is given once.
    pub fn answer(&self, answer: impl Into<Answer>) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(answer.into());
    }

    /// The requests so far, oldest first.
    pub fn requests(&self) -> Vec<Recorded> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers that nobody has asked for yet.
    pub fn waiting(&self) -> usize {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// The routes of both protocols.
pub fn router(desk: Arc<Desk>) -> Router {
    Router::new()
        .route("/v1/messages", post(|state, headers, body| serve(Wire::Anthropic, state, headers, body)))
        .route("/v1/chat/completions", post(|state, headers, body| serve(Wire::OpenAi, state, headers, body)))
        .layer(axum::extract::DefaultBodyLimit::max(64 * 1024 * 1024))
        .with_state(desk)
}

async fn serve(wire: Wire, State(desk): State<Arc<Desk>>, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(body) = serde_json::from_slice::<Value>(&body) else {
        return (StatusCode::BAD_REQUEST, "that is no JSON").into_response();
    };
    let queued = desk.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let answer = queued.unwrap_or_else(|| echo::answer(wire, &body, &desk.options));
    let model = body["model"].as_str().unwrap_or("unnamed").to_owned();
    if !desk.options.forget {
        let recorded = Recorded { wire, headers, body };
        desk.requests.lock().unwrap_or_else(PoisonError::into_inner).push(recorded);
    }
    match answer {
        Answer::Stream(stream) => stream.into_response(wire, &model),
        Answer::Status { status, headers, body } => {
            let mut response = (status, body.to_string()).into_response();
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
            response.headers_mut().extend(headers);
            response
        }
        Answer::Silence(gate) => {
            gate.pass().await;
            StatusCode::GATEWAY_TIMEOUT.into_response()
        }
    }
}

/// The answer to one request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A stream of events.
    Stream(Stream),
    /// A status other than 200, with a JSON body.
    Status {
        /// The status.
        status: StatusCode,
        /// Further headers.
        headers: HeaderMap,
        /// The body.
        body: Value,
    },
    /// Not even headers, until the gate opens.
    Silence(Gate),
}

impl Answer {
    /// An error as the vendors phrase it: `kind` is Anthropic's `type`, and OpenAI's `code`.
    pub fn error(status: u16, kind: &str, message: &str) -> Self {
        Self::Status {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: HeaderMap::new(),
            body: serde_json::json!({
                "type": "error",
                "error": {"type": kind, "code": kind, "message": message, "param": null},
            }),
        }
    }

    /// With one more header, if this is an error.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        if let Self::Status { headers, .. } = &mut self {
            headers.insert(name, value.parse().expect("a header value"));
        }
        self
    }
}

impl From<Stream> for Answer {
    fn from(stream: Stream) -> Self {
        Self::Stream(stream)
    }
}

/// A streamed answer, step by step.
#[derive(Debug, Clone)]
pub struct Stream {
    steps: Vec<Step>,
    stop: Option<StopReason>,
    usage: Usage,
}

/// One step of a streamed answer.
#[derive(Debug, Clone)]
pub enum Step {
    /// A delta of text.
    Text(String),
    /// A whole tool call, its arguments in these slices.
    ToolCall {
        /// The call's id.
        id: String,
        /// The tool's name.
        name: String,
        /// Slices of JSON text; none at all for a call without arguments.
        arguments: Vec<String>,
    },
    /// Waits, by the runtime's clock.
    Pause(Duration),
    /// Waits until the gate is opened.
    Hold(Gate),
    /// These bytes, whatever they are.
    Raw(Bytes),
    /// Breaks the connection off; nothing comes after it.
    Cut,
}

impl Stream {
    /// An answer without content yet.
    #[must_use]
    pub fn new() -> Self {
        let usage = Usage { input_tokens: 10, output_tokens: 5, ..Usage::default() };
        Self { steps: Vec::new(), stop: None, usage }
    }

    /// An answer of this text, a word per delta.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::new().then_text(text)
    }

    /// More text, a word per delta.
    #[must_use]
    pub fn then_text(mut self, text: &str) -> Self {
        self.steps.extend(text.split_inclusive(' ').map(|word| Step::Text(word.to_owned())));
        self
    }

    /// A tool call, its arguments in two slices.
    #[must_use]
    pub fn then_call(self, id: &str, name: &str, arguments: &Value) -> Self {
        let text = arguments.to_string();
        let middle = text.char_indices().nth(text.chars().count() / 2).map_or(0, |(at, _)| at);
        let (first, second) = text.split_at(middle);
        self.then(Step::ToolCall {
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: vec![first.to_owned(), second.to_owned()],
        })
    }

    /// One more step.
    #[must_use]
    pub fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Why it stops; without this it is the end, or the tool calls if there are any.
    #[must_use]
    pub fn stopping(mut self, stop: StopReason) -> Self {
        self.stop = Some(stop);
        self
    }

    /// What it says it used.
    #[must_use]
    pub fn using(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }

    /// With a pause before each text or tool call.
    #[must_use]
    fn slowly(mut self, pause: Duration) -> Self {
        if !pause.is_zero() {
            self.steps = self.steps.into_iter().flat_map(|step| [Step::Pause(pause), step]).collect();
        }
        self
    }

    fn into_response(self, wire: Wire, model: &str) -> Response {
        let pieces = frames::pieces(wire, model, self);
        let body = futures::stream::iter(pieces).filter_map(|piece| async move {
            match piece {
                frames::Piece::Bytes(bytes) => Some(Ok(bytes)),
                frames::Piece::Pause(pause) => {
                    tokio::time::sleep(pause).await;
                    None
                }
                frames::Piece::Hold(gate) => {
                    gate.pass().await;
                    None
                }
                frames::Piece::Cut => {
                    // What was sent before must leave the socket first: hyper flushes when the body is pending.
                    tokio::task::yield_now().await;
                    Some(Err(std::io::Error::other("cut off by the script")))
                }
            }
        });
        let kind = header::HeaderValue::from_static("text/event-stream; charset=utf-8");
        let mut response = Response::new(Body::from_stream(body));
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}

/// Something that waits until a test opens it. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate {
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self { arrived: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) }
    }

    /// Waits until somebody stands before it; one call per arrival.
    pub async fn reached(&self) {
        self.arrived.acquire().await.expect("never closed").forget();
    }

    /// Opens it, for good.
    pub fn open(&self) {
        self.open.close();
    }

    async fn pass(&self) {
        self.arrived.add_permits(1);
        // A closed semaphore is an open gate.
        let _ = self.open.acquire().await;
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// A vendor that listens; gone when dropped.
#[derive(Debug)]
pub struct Vendor {
    desk: Arc<Desk>,
    address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

impl Vendor {
    /// Starts one that keeps the requests it gets.
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// Starts one.
    pub async fn with(options: Options) -> Self {
        let desk = Desk::new(options);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("a bound address");
        let routes = router(desk.clone());
        let counting = desk.clone();
        let listener = listener.tap_io(move |_| {
            counting.connections.fetch_add(1, Ordering::Relaxed);
        });
        let server = tokio_util::task::TaskTracker::new().spawn(async move {
            axum::serve(listener, routes).await.expect("the listener works");
        });
        Self { desk, address, server }
    }

    /// Its address as a provider's base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// See [`Desk::answer`].
    pub fn answer(&self, answer: impl Into<Answer>) {
        self.desk.answer(answer);
    }

    /// See [`Desk::requests`].
    pub fn requests(&self) -> Vec<Recorded> {
        self.desk.requests()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.desk.connections.load(Ordering::Relaxed)
    }

    /// See [`Desk::waiting`].
    pub fn waiting(&self) -> usize {
        self.desk.waiting()
    }
}

impl Drop for Vendor {
    fn drop(&mut self) {
        self.server.abort();
    }
}
