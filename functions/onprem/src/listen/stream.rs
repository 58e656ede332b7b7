//! A connection's socket, with an end to the patience for a peer that does not read.

use super::GRACE;
use super::activity::Activity;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;

/// The socket. A write that makes no progress for `patience` fails, and so ends the connection.
pub(super) struct Stream {
    socket: TcpStream,
    patience: Duration,
    /// From then on the patience is [`GRACE`].
    stop: CancellationToken,
    activity: Arc<Activity>,
    /// While a write waits.
    wait: Option<Wait>,
}

/// A write waits for its peer.
struct Wait {
    end: Pin<Box<Sleep>>,
    is_last: bool,
}

impl Stream {
    pub(super) fn new(
        socket: TcpStream,
        patience: Duration,
        stop: CancellationToken,
        activity: Arc<Activity>,
    ) -> Self {
        Self { socket, patience, stop, activity, wait: None }
    }

    /// What a write came to: as it is, or an error if none has come to anything for too long.
    fn written(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if polled.is_ready() {
            if self.wait.take().is_some() {
                self.activity.blocked(false);
            }
            return polled;
        }
        let stops = self.stop.is_cancelled();
        let wait = self.wait.get_or_insert_with(|| {
            self.activity.blocked(true);
            let patience = if stops { GRACE } else { self.patience };
            Wait { end: Box::pin(sleep(patience)), is_last: stops }
        });
        if stops && !wait.is_last {
            wait.is_last = true;
            wait.end.as_mut().reset(Instant::now() + GRACE);
        }
        ready!(wait.end.as_mut().poll(context));
        self.activity.stalled();
        // What the system keeps for the peer goes as well. If it cannot be told so, it gives up by itself, later.
        let _ = self.socket.set_zero_linger();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.written(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.written(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
