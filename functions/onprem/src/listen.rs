//! The socket: accepts connections, as many as there are places for, and serves the router on them until told to stop.
//!
//! Nobody keeps a connection by doing nothing: a head has [`HEAD_TIMEOUT`], a body the time that its surface gives it, and
//! an answer that its peer does not read the settings' write time-out. When the process stops, what is in no turn goes at
//! once.

mod activity;
mod places;
mod stream;

pub(crate) use places::Places;

use activity::Activity;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use places::{Full, Place};
use shared::bounds::{HEAD_BYTES, HEAD_TIMEOUT};
use shared::metrics::Metrics;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use stream::Stream;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

/// Connections that may wait to be accepted: a thousand clients may come at once.
const BACKLOG: u32 = 1024;

/// What the system keeps of an answer that its peer has not taken yet; Linux doubles it for its own bookkeeping. By itself
/// it would keep up to 4 MB of each connection.
const SEND_BUFFER: u32 = 64 * 1024;

/// Pause after the system refused a connection, e.g. for want of file descriptors.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// An address to listen on as a person writes it: `ADDR:PORT`, a port alone for this machine only, `localhost` for its
/// address.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let of_this_machine = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let port = text.strip_prefix("localhost:").unwrap_or(text);
    port.parse().map(of_this_machine).map_err(|_| {
        "write ADDR:PORT, e.g. 127.0.0.1:18789 for this machine only, 0.0.0.0:18789 for every address, [::1]:18789".to_owned()
    })
}
/// How long a stopping process waits for a head, a body, or a peer that takes no more of its answer.
const GRACE: Duration = Duration::from_millis(250);

/// Refused connections are told of once in this time; the metrics count them all.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// The answer to a connection for which there is no place. Written at once: its request is not waited for.
const FULL: &str = "HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/json; charset=utf-8\r\n\
    content-length: 118\r\n\
    retry-after: 1\r\n\
    connection: close\r\n\
    x-content-type-options: nosniff\r\n\
    \r\n\
    {\"error\":{\"message\":\"Too many connections are open. Try again.\",\"type\":\"api_error\",\"code\":\"unavailable\",\"param\":null}}";

/// Opens the socket.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart need not wait for the last process' connections to be forgotten.
    socket.set_reuseaddr(true)?;
    // Connections inherit it. If the system refuses, it keeps more of each answer.
    let _ = socket.set_send_buffer_size(SEND_BUFFER);
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What serves connections.
#[derive(Clone)]
pub(crate) struct Server {
    /// Answers requests.
    pub(crate) router: Router,
    /// Counts connections.
    pub(crate) metrics: Arc<Metrics>,
    /// How many may be open.
    pub(crate) places: Arc<Places>,
    /// How long a peer may take nothing of its answer.
    pub(crate) write_timeout: Duration,
    /// Connections run on these, and end after the answer they are at.
    pub(crate) tasks: TaskTracker,
    /// Ends it.
    pub(crate) stop: CancellationToken,
}

impl Server {
    /// Accepts until told to stop.
    pub(crate) async fn accept(self, listener: TcpListener) {
        let mut told: Option<Instant> = None;
        while let Some(accepted) = self.stop.run_until_cancelled(listener.accept()).await {
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::error!(target: "error", { cause = %error }, "a connection could not be accepted");
                    sleep(REFUSED_PAUSE).await;
                    continue;
                }
            };
            match self.places.take(peer.ip()) {
                Ok(place) => {
                    self.tasks.spawn(self.clone().serve(socket, peer, place));
                }
                Err(full) => {
                    self.metrics.connection_refused(full.as_str());
                    if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                        told = Some(Instant::now());
                        tell(full, peer);
                    }
                    refuse(socket);
                }
            }
        }
    }

    async fn serve(self, socket: TcpStream, peer: SocketAddr, place: Place) {
        self.metrics.connection_opened();
        // Small frames of a streamed answer go out at once. If the system refuses, they come a little later.
        let _ = socket.set_nodelay(true);
        let closed = self.answer(socket, peer).await;
        self.metrics.connection_closed(closed);
        drop(place);
    }

    /// Answers until the peer leaves or has to. Says why it had to.
    async fn answer(&self, socket: TcpStream, peer: SocketAddr) -> Option<&'static str> {
        let activity = Arc::new(Activity::default());
        let stream = Stream::new(socket, self.write_timeout, self.stop.clone(), Arc::clone(&activity));
        let service = {
            let (activity, router) = (Arc::clone(&activity), self.router.clone());
            service_fn(move |request: hyper::Request<Incoming>| {
                let mut request = request.map(|body| Body::new(activity.receiving(body)));
                request.extensions_mut().insert(ConnectInfo(peer));
                let answer = activity.answering();
                // A router is always ready.
                let handled = router.clone().call(request);
                async move { handled.await.map(|response| response.map(|body| answer.of(body))) }
            })
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_header_size(HEAD_BYTES)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                // No request behind the one at hand.
                connection.as_mut().graceful_shutdown();
                let mut grace = pin!(sleep(GRACE));
                let finished = poll_fn(|context| match connection.as_mut().poll(context) {
                    Poll::Ready(ended) => Poll::Ready(Some(ended)),
                    Poll::Pending if grace.as_mut().poll(context).is_ready() && activity.is_no_turn() => {
                        Poll::Ready(None)
                    }
                    Poll::Pending => Poll::Pending,
                });
                match finished.await {
                    Some(ended) if !activity.has_stalled() => ended,
                    _ => return Some("drain"),
                }
            }
        };
        // What else ends a connection early – a client that leaves, a head that is no HTTP – is the client's affair.
        match ended {
            Err(_) if activity.has_stalled() => Some("write_timeout"),
            Err(error) if error.is_timeout() => Some("head_timeout"),
            _ => None,
        }
    }
}

/// Tells the operator that there are more connections than places.
fn tell(full: Full, peer: SocketAddr) {
    let (which, setting) = match full {
        Full::All => ("as many connections as there may be", "gateway.maxConnections"),
        Full::Address => {
            ("as many connections of one address as there may be", "gateway.maxConnectionsPerAddress")
        }
    };
    tracing::warn!(
        target: "operation",
        { peer = %peer.ip(), setting },
        "there are {which}: further ones are refused; reef_connections_refused_total counts them"
    );
}

/// Says that there is no place, if that can be said at once.
fn refuse(socket: TcpStream) {
    let Ok(mut socket) = socket.into_std() else { return };
    // What has come is taken: a socket that is closed on unread bytes resets the connection, and the answer may be lost.
    let mut unread = [0; 4096];
    let _ = socket.read(&mut unread);
    // It is a few bytes into an empty buffer; a peer that is gone needs no answer.
    let _ = socket.write(FULL.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_how_long_it_is() {
        let (head, body) = FULL.split_once("\r\n\r\n").unwrap_or_default();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
    }

    #[test]
    fn an_address_is_taken_as_people_write_it_and_a_wrong_one_is_explained() {
        for (text, expected) in [
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:80", "[::1]:80"),
            ("18789", "127.0.0.1:18789"),
            ("localhost:18789", "127.0.0.1:18789"),
            (" 127.0.0.1:0 ", "127.0.0.1:0"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), expected);
        }
        for text in ["", "nowhere", "localhost", "127.0.0.1", "70000", "example.com:80", ":80", "-1", "[::1]"]
        {
            assert!(
                address(text).unwrap_err().starts_with("write ADDR:PORT, e.g. 127.0.0.1:18789"),
                "{text}"
            );
        }
    }
}
