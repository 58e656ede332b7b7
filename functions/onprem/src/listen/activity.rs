//! What a connection is at, as far as it matters to a process that stops: its socket, its requests' bodies and its answers
//! note it here.

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// Written and read by one connection's task alone.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// A request is being answered: from its head to the last byte of its answer.
    answering: AtomicBool,
    /// Its handler waits for more of the body.
    receiving: AtomicBool,
    /// The peer takes no more of an answer.
    blocked: AtomicBool,
    /// The peer took nothing for too long.
    stalled: AtomicBool,
}

impl Activity {
    /// Whether nothing is lost but a request that is not there in full. What is [`Activity::blocked`] has a time of its own.
    pub(super) fn is_no_turn(&self) -> bool {
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        !is(&self.blocked) && (!is(&self.answering) || is(&self.receiving))
    }

    /// Notes whether the peer lets an answer's bytes wait.
    pub(super) fn blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// Notes that it did for too long.
    pub(super) fn stalled(&self) {
        self.stalled.store(true, Ordering::Relaxed);
    }

    /// Whether it did.
    pub(super) fn has_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// A request's body that notes when it is waited for.
    pub(super) fn receiving(self: &Arc<Self>, body: Incoming) -> Receiving {
        Receiving { body, activity: Arc::clone(self) }
    }

    /// Notes that a request is being answered, until what is returned is dropped.
    pub(super) fn answering(self: &Arc<Self>) -> Answering {
        self.answering.store(true, Ordering::Relaxed);
        Answering(Arc::clone(self))
    }
}

/// A request's body.
pub(super) struct Receiving {
    body: Incoming,
    activity: Arc<Activity>,
}

impl HttpBody for Receiving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        self.activity.receiving.store(polled.is_pending(), Ordering::Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.activity.receiving.store(false, Ordering::Relaxed);
    }
}

/// A request is being answered.
pub(super) struct Answering(Arc<Activity>);

impl Answering {
    /// Goes on until the body's end.
    pub(super) fn of(self, body: Body) -> Answer {
        Answer { body, _until_its_end: self }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.store(false, Ordering::Relaxed);
    }
}

/// An answer's body.
pub(super) struct Answer {
    body: Body,
    _until_its_end: Answering,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
