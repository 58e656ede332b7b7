//! The load: requests over connections that are kept, so many at a time, so many in all.

use crate::Result;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::cell::Cell;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

/// What a user says: about the length of a short question.
const QUESTION: &str = "Please look at the agenda of tomorrow's meeting, say in one or two sentences what is still \
                        open, who should prepare it, and whether half an hour will be enough for it.";

/// Whom to ask.
#[derive(Clone)]
pub(crate) struct Target {
    address: SocketAddr,
    token: Option<String>,
    model: &'static str,
}

impl Target {
    /// The model itself, or the floor in front of it.
    pub(crate) const fn plain(address: SocketAddr) -> Self {
        Self { address, token: None, model: "small" }
    }

    /// The product.
    pub(crate) const fn reef(address: SocketAddr, token: String) -> Self {
        Self { address, token: Some(token), model: "openclaw/main" }
    }

    /// One question, behind this many messages of an earlier exchange.
    pub(crate) fn question(&self, history: usize, stream: bool) -> Bytes {
        let earlier = (0..history).map(|at| match at % 2 {
            0 => json!({"role": "user", "content": format!("{QUESTION} ({at})")}),
            _ => json!({"role": "assistant", "content": format!("Nothing is open, half an hour will do. ({at})")}),
        });
        let messages: Vec<Value> = earlier.chain([json!({"role": "user", "content": QUESTION})]).collect();
        json!({"model": self.model, "stream": stream, "messages": messages}).to_string().into()
    }

    /// A connection of its own.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        TaskTracker::new().spawn(connection);
        Ok(Connection { sender, target: self.clone() })
    }
}

/// How long an answer took.
#[derive(Clone, Copy)]
pub(crate) struct Took {
    /// To the first byte of its body.
    pub(crate) first_byte: Duration,
    /// To the end.
    pub(crate) whole: Duration,
}

/// A connection that is kept.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    target: Target,
}

impl Connection {
    /// Asks, and reads the answer to its end.
    ///
    /// # Errors
    /// Any answer but 200: a failed turn is no measurement.
    pub(crate) async fn ask(&mut self, body: Bytes, session: Option<&str>) -> Result<Took> {
        let started = Instant::now();
        let mut request = Request::post("/v1/chat/completions")
            .header(header::HOST, "load")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.target.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(session) = session {
            request = request.header("x-openclaw-session-key", session);
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::new(body))?).await?;
        let (head, mut body) = response.into_parts();
        let mut first_byte = None;
        let mut refusal = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame?;
            first_byte.get_or_insert_with(|| started.elapsed());
            if let (false, Some(data)) = (head.status == StatusCode::OK, frame.data_ref()) {
                refusal.extend_from_slice(data);
            }
        }
        if head.status != StatusCode::OK {
            return Err(format!("answer {}: {}", head.status, String::from_utf8_lossy(&refusal)).into());
        }
        let whole = started.elapsed();
        Ok(Took { first_byte: first_byte.unwrap_or(whole), whole })
    }
}

/// On which sessions the turns of a round are.
#[derive(Clone, Copy)]
pub(crate) enum Sessions {
    /// A new one for each turn.
    New,
    /// One per connection, the same in every round.
    Kept,
}

/// So many turns, so many at a time.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) turns: usize,
    pub(crate) at_once: usize,
    pub(crate) stream: bool,
    pub(crate) sessions: Sessions,
}

/// What a round of load took.
pub(crate) struct Round {
    pub(crate) elapsed: Duration,
    /// One per turn.
    pub(crate) took: Vec<Took>,
}

/// Sends a round of load; the connections are made before it begins.
pub(crate) async fn send(target: &Target, load: Load) -> Result<Round> {
    let mut connections = Vec::new();
    for _ in 0..load.at_once {
        connections.push(target.connect().await?);
    }
    let left = Cell::new(load.turns);
    let body = target.question(0, load.stream);
    let started = Instant::now();
    let workers = connections.into_iter().enumerate().map(|(number, mut connection)| {
        let (left, body) = (&left, &body);
        async move {
            let session = match load.sessions {
                Sessions::New => None,
                Sessions::Kept => Some(format!("load-{number}")),
            };
            let mut took = Vec::new();
            while left.get() > 0 {
                left.set(left.get() - 1);
                took.push(connection.ask(body.clone(), session.as_deref()).await?);
            }
            Result::Ok(took)
        }
    });
    let mut workers: FuturesUnordered<_> = workers.collect();
    let mut took = Vec::with_capacity(load.turns);
    while let Some(part) = workers.next().await {
        took.extend(part?);
    }
    Ok(Round { elapsed: started.elapsed(), took })
}

/// The value that this share of the durations stays below, in milliseconds.
pub(crate) fn quantile(durations: impl Iterator<Item = Duration>, share: f64) -> f64 {
    let mut sorted: Vec<f64> = durations.map(|duration| duration.as_secs_f64() * 1000.0).collect();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a length is a place within it"
    )]
    let place = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

/// The middle of some figures.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
