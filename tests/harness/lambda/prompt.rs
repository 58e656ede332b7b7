//! Connections that nobody waits on: what is written goes out at once, what is read is acknowledged at once.
//!
//! The client of `lambda_runtime` leaves Nagle's algorithm on: a piece of an answer goes out when the piece before it has
//! been acknowledged, and the system holds acknowledgements back for up to 40 ms. Measured here that would be a function's
//! time, and it is none.

use axum::serve::Listener;
use rustix::net::sockopt::set_tcp_quickack;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// A listener for such connections.
pub(super) struct Prompt(pub(super) TcpListener);

/// One of them.
pub(super) struct PromptStream(TcpStream);

impl Listener for Prompt {
    type Io = PromptStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (PromptStream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // The other side may have gone this very moment; reading will tell.
        let _ = stream.set_nodelay(true);
        (PromptStream(stream), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl AsyncRead for PromptStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_read(context, buffer))?;
        // Linux takes it back by itself, so after each reading.
        let _ = set_tcp_quickack(&self.0, true);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PromptStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
