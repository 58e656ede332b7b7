//! The socket: accepts connections and serves the router on them until told to stop.

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

/// Connections that may wait to be accepted: a thousand clients may come at once.
const BACKLOG: u32 = 1024;

/// Longest time for a request's head: a connection that sends nothing does not stay for ever.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

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

/// Opens the socket.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart need not wait for the last process' connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until `stop`; connections run on `tasks`, and end after the answer they are at.
pub(crate) async fn accept(
    listener: TcpListener,
    router: Router,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                tasks.spawn(serve(stream, peer, router.clone(), stop.clone()));
            }
            Err(error) => {
                tracing::error!(target: "error", { cause = %error }, "a connection could not be accepted");
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, router: Router, stop: CancellationToken) {
    // Small frames of a streamed answer go out at once. If the system refuses, they come a little later.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        // A router is always ready.
        router.clone().call(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // What ends a connection early – a client that leaves, a head that is no HTTP – is the client's affair.
    let _ = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

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
