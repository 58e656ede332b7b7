//! A client with nothing but a socket: it can do what no client library would.

use bytes::Bytes;
use futures::future::{Either, select};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, tcp};

/// Most bytes of an answer that are looked at: a head and an error.
const LOOKED_AT: usize = 64 * 1024;

/// Bytes of a large body that are written at once.
const SLICE: usize = 64 * 1024;

/// A connection.
pub(crate) struct Wire {
    stream: TcpStream,
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The status; 0 if the connection ended without one.
    pub(crate) status: u16,
    /// All bytes of the answer, the head included.
    pub(crate) bytes: usize,
}

/// How a body is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sending {
    /// In chunks, so that nobody knows how much will come.
    pub(crate) chunked: bool,
    /// Before each slice.
    pub(crate) pause: Duration,
}

impl Sending {
    /// With its length, as fast as it goes.
    pub(crate) const PLAIN: Self = Self { chunked: false, pause: Duration::ZERO };
}

impl Wire {
    /// Connects from this address of this host, and takes in at most so many bytes that nobody reads.
    pub(crate) async fn connect(to: SocketAddr, from: Ipv4Addr, buffer: Option<u32>) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.bind(SocketAddr::from((from, 0)))?;
        Ok(Self { stream: socket.connect(to).await? })
    }

    /// Writes as much as the other side takes within this time, and reads nothing.
    pub(crate) async fn push(&mut self, bytes: &[u8], within: Duration) -> io::Result<()> {
        tokio::time::timeout(within, self.stream.write_all(bytes)).await.unwrap_or(Ok(()))
    }

    /// Reads until the other side closes.
    pub(crate) async fn closed(&mut self) -> usize {
        let mut read = 0;
        let mut piece = [0; 4096];
        while let Ok(bytes @ 1..) = self.stream.read(&mut piece).await {
            read += bytes;
        }
        read
    }

    /// Sends a request and reads its answer to the end. An answer that comes before the whole body was sent ends the
    /// sending, as in a decent client.
    pub(crate) async fn ask(&mut self, head: &str, body: &Bytes, how: Sending) -> io::Result<Answer> {
        let (mut from, mut to) = self.stream.split();
        let answer = pin!(read(&mut from));
        let sending = pin!(send(&mut to, head, body, how));
        match select(answer, sending).await {
            Either::Left((answer, _)) => answer,
            // Refused while it was sent: the answer may be there all the same.
            Either::Right((_, answer)) => answer.await,
        }
    }
}

async fn send(to: &mut tcp::WriteHalf<'_>, head: &str, body: &Bytes, how: Sending) -> io::Result<()> {
    let framing = match (body.is_empty(), how.chunked) {
        (true, _) => String::new(),
        (false, true) => "transfer-encoding: chunked\r\n".to_owned(),
        (false, false) => format!("content-length: {}\r\n", body.len()),
    };
    to.write_all(format!("{head}{framing}\r\n").as_bytes()).await?;
    for slice in body.chunks(SLICE) {
        if !how.pause.is_zero() {
            tokio::time::sleep(how.pause).await;
        }
        if how.chunked {
            to.write_all(format!("{:x}\r\n", slice.len()).as_bytes()).await?;
        }
        to.write_all(slice).await?;
        if how.chunked {
            to.write_all(b"\r\n").await?;
        }
    }
    if how.chunked && !body.is_empty() {
        to.write_all(b"0\r\n\r\n").await?;
    }
    Ok(())
}

/// Reads an answer to its end: these clients ask for `connection: close`.
async fn read(from: &mut tcp::ReadHalf<'_>) -> io::Result<Answer> {
    let mut start = Vec::new();
    let mut answer = Answer::default();
    let mut piece = vec![0; 16 * 1024];
    loop {
        let read = match from.read(&mut piece).await {
            Ok(0) => break,
            Ok(read) => read,
            // A reset behind the status: the server closed while the body was still on its way.
            Err(_) if !start.is_empty() => break,
            Err(error) => return Err(error),
        };
        answer.bytes += read;
        if start.len() < LOOKED_AT {
            start.extend_from_slice(&piece[..read]);
        }
    }
    let status = start.get(9..12).and_then(|status| std::str::from_utf8(status).ok());
    answer.status = status.and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok(answer)
}
