//! Server-sent events: frames, a heartbeat in silence, and an answer whose head is sent at once.

use super::body::write_json;
use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use serde::Serialize;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// OpenAI's mark of the end of a stream.
pub(super) const DONE: Bytes = Bytes::from_static(b"data: [DONE]\n\n");
/// A comment: keeps proxies from taking a thinking model for a dead connection.
const HEARTBEAT: Bytes = Bytes::from_static(b": heartbeat\n\n");

/// One event without a name.
pub(super) fn data<T: Serialize>(value: &T) -> Bytes {
    frame(None, value)
}

/// One event, with its name in an `event:` line.
pub(super) fn event<T: Serialize>(name: &str, value: &T) -> Bytes {
    frame(Some(name), value)
}

fn frame<T: Serialize>(name: Option<&str>, value: &T) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\n");
    }
    out.extend_from_slice(b"data: ");
    // JSON text holds no line feed, so one `data:` line is enough.
    write_json(&mut out, value);
    out.extend_from_slice(b"\n\n");
    out.freeze()
}

/// Answers with `frames` as they come; a comment after each `heartbeat` of silence.
pub(super) fn respond(frames: BoxStream<'static, Bytes>, heartbeat: Duration) -> Response {
    let frames = Heartbeat { frames, heartbeat, silence: Box::pin(sleep(heartbeat)) };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // nginx would else collect a stream before it passes it on.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (StatusCode::OK, headers, Body::from_stream(frames)).into_response()
}

/// Frames, and comments in between.
struct Heartbeat {
    frames: BoxStream<'static, Bytes>,
    heartbeat: Duration,
    silence: Pin<Box<Sleep>>,
}

impl Stream for Heartbeat {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let out = match self.frames.poll_next_unpin(context) {
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(frame)) => frame,
            Poll::Pending => match self.silence.as_mut().poll(context) {
                Poll::Ready(()) => HEARTBEAT,
                Poll::Pending => return Poll::Pending,
            },
        };
        let next = Instant::now() + self.heartbeat;
        self.silence.as_mut().reset(next);
        Poll::Ready(Some(Ok(out)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use serde_json::json;

    #[test]
    fn a_frame_is_one_line_whatever_the_text() {
        assert_eq!(data(&json!({"a": "x\ny\r\u{2028}"})), "data: {\"a\":\"x\\ny\\r\u{2028}\"}\n\n");
        assert_eq!(event("e.f", &json!({})), "event: e.f\ndata: {}\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_filled_with_one_comment_per_heartbeat() {
        let started = Instant::now();
        let frames = stream::once(async {
            sleep(Duration::from_secs(25)).await;
            DONE
        });
        let mut frames = Heartbeat {
            frames: frames.boxed(),
            heartbeat: Duration::from_secs(10),
            silence: Box::pin(sleep(Duration::from_secs(10))),
        };
        let mut seen = Vec::new();
        while let Some(Ok(frame)) = frames.next().await {
            seen.push((started.elapsed().as_secs(), frame));
        }
        assert_eq!(seen, [(10, HEARTBEAT), (20, HEARTBEAT), (25, DONE)]);
    }
}
