//! What a turn tells whoever listens: a [`Teller`] on the turn's side, [`Heard`] on the other.
//!
//! A turn never waits for its listener, and a listener that does not read must not fill the memory. So what waits for it is
//! bounded: small pieces of text are joined, and beyond [`LISTENER_BYTES`] no more of them is kept. The end of the turn
//! always is, and holds the whole text: what was left out is told from it just before, so that a listener that reads again
//! misses nothing.

use super::TurnEvent;
use crate::bounds::LISTENER_BYTES;
use crate::budget::{Budget, Drawn};
use crate::error::{Error, ErrorKind};
use crate::id::{SessionKey, TurnId};
use crate::session::TurnOutcome;
use futures::Stream;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// About what an event takes beside its text, in bytes.
const OVERHEAD: usize = 128;

/// Events that wait as they came; further text is joined to the last one.
const APART: usize = 64;

/// Both ends. The turn's address is for a listener that could not be told everything.
pub(super) fn channel(budget: &Budget, session: SessionKey, turn: TurnId) -> (Teller, Heard) {
    let waiting = Waiting {
        events: VecDeque::new(),
        bytes: 0,
        lost: false,
        end: None,
        told_all: false,
        nobody_listens: false,
        waker: None,
        drawn: budget.draw(),
    };
    let waiting = Arc::new(Mutex::new(waiting));
    (Teller(Arc::clone(&waiting)), Heard { waiting, heard: 0, session, turn })
}

/// The turn's side.
pub(super) struct Teller(Arc<Mutex<Waiting>>);

/// The listener's side: the turn's events.
pub(super) struct Heard {
    waiting: Arc<Mutex<Waiting>>,
    /// Bytes of text that were given out.
    heard: usize,
    session: SessionKey,
    turn: TurnId,
}

struct Waiting {
    events: VecDeque<TurnEvent>,
    /// About what the events take.
    bytes: usize,
    /// Text was left out. No more is kept from then on, so that what was given out stays a beginning of the whole.
    lost: bool,
    /// What comes behind all events.
    end: Option<Result<TurnEvent, Error>>,
    /// The turn is gone.
    told_all: bool,
    /// The listener is gone.
    nobody_listens: bool,
    waker: Option<Waker>,
    drawn: Drawn,
}

/// No change to it can be cut short by a panic.
fn held(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Teller {
    /// Tells it, if somebody listens.
    pub(super) fn tell(&self, event: Result<TurnEvent, Error>) {
        let mut waiting = held(&self.0);
        if waiting.nobody_listens {
            return;
        }
        match event {
            Ok(TurnEvent::Text { delta }) => waiting.keep_text(delta),
            Ok(event @ (TurnEvent::Accepted { .. } | TurnEvent::ToolStarted { .. })) => waiting.keep(event),
            Ok(event @ TurnEvent::ToolFinished { .. }) => waiting.keep(event),
            end => waiting.end = Some(end),
        }
        waiting.weigh();
        waiting.wake();
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        let mut waiting = held(&self.0);
        waiting.told_all = true;
        waiting.wake();
    }
}

impl Waiting {
    fn keep_text(&mut self, delta: String) {
        if self.lost || self.bytes + delta.len() + OVERHEAD > LISTENER_BYTES {
            self.lost |= !delta.is_empty();
            return;
        }
        if self.events.len() >= APART
            && let Some(TurnEvent::Text { delta: last }) = self.events.back_mut()
        {
            self.bytes += delta.len();
            last.push_str(&delta);
            return;
        }
        self.keep(TurnEvent::Text { delta });
    }

    /// What does not fit is left out: it only says how the turn goes on.
    fn keep(&mut self, event: TurnEvent) {
        let bytes = bytes_of(&event);
        if self.bytes + bytes <= LISTENER_BYTES {
            self.bytes += bytes;
            self.events.push_back(event);
        }
    }

    fn weigh(&mut self) {
        let end = match &self.end {
            Some(Ok(TurnEvent::Ended { outcome: TurnOutcome::Done(reply) })) => reply.text.len(),
            _ => 0,
        };
        let bytes = self.bytes + end;
        self.drawn.hold(bytes);
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// About what an event takes.
fn bytes_of(event: &TurnEvent) -> usize {
    let text = match event {
        TurnEvent::Text { delta } => delta.len(),
        TurnEvent::ToolStarted { call } => call.arguments.len(),
        _ => 0,
    };
    OVERHEAD + text
}

impl Heard {
    /// The part of the turn's text that was left out, or why it cannot be told.
    fn missed(&self, text: &str) -> Result<String, Error> {
        text.get(self.heard..).map(str::to_owned).ok_or_else(|| {
            let message = format!(
                "part of the text was left out, because it was not read in time; the whole reply is stored: see turn \
                 {} of session {}",
                self.turn, self.session
            );
            Error::new(ErrorKind::Unavailable, message)
        })
    }
}

impl Stream for Heard {
    type Item = Result<TurnEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = {
            let mut waiting = held(&self.waiting);
            if let Some(event) = waiting.events.pop_front() {
                waiting.bytes -= bytes_of(&event);
                waiting.weigh();
                Ok(event)
            } else if waiting.lost
                && let Some(Ok(TurnEvent::Ended { outcome: TurnOutcome::Done(reply) })) = &waiting.end
            {
                let missed = self.missed(&reply.text);
                waiting.lost = false;
                if missed.is_err() {
                    // A stream that lacks text must not look complete.
                    waiting.end = None;
                }
                missed.map(|delta| TurnEvent::Text { delta })
            } else if let Some(end) = waiting.end.take() {
                waiting.weigh();
                end
            } else if waiting.told_all {
                return Poll::Ready(None);
            } else {
                waiting.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
        };
        if let Ok(TurnEvent::Text { delta }) = &next {
            self.heard += delta.len();
        }
        Poll::Ready(Some(next))
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        let mut waiting = held(&self.waiting);
        waiting.nobody_listens = true;
        waiting.events = VecDeque::new();
        waiting.end = None;
        waiting.bytes = 0;
        waiting.weigh();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::model::{StopReason, Usage};
    use crate::session::Reply;
    use futures::executor::block_on_stream;

    fn ends() -> (Teller, Heard, Budget) {
        let budget = Budget::of(1 << 30);
        let (teller, heard) = channel(&budget, SessionKey::new("agent:a:main"), TurnId::new("t"));
        (teller, heard, budget)
    }

    fn text(delta: &str) -> TurnEvent {
        TurnEvent::Text { delta: delta.to_owned() }
    }

    fn ended(text: &str) -> TurnEvent {
        let reply = Reply {
            text: text.to_owned(),
            tool_calls: Vec::new(),
            stop: StopReason::End,
            usage: Usage::default(),
            model: "m/x".to_owned(),
            at: Timestamp::EPOCH,
        };
        TurnEvent::Ended { outcome: TurnOutcome::Done(reply) }
    }

    #[test]
    fn a_listener_that_reads_hears_every_event_as_it_was_told() {
        let (teller, heard, _) = ends();
        let told = [text("a"), text(""), text("b"), ended("ab")];
        told.iter().cloned().for_each(|event| teller.tell(Ok(event)));
        drop(teller);
        assert_eq!(block_on_stream(heard).map(Result::unwrap).collect::<Vec<_>>(), told);
    }

    #[test]
    fn what_waits_for_a_listener_that_does_not_read_is_bounded_and_it_misses_nothing_when_it_does() {
        let (teller, heard, budget) = ends();
        let piece = "äb".repeat(100);
        let pieces = 10 * LISTENER_BYTES / piece.len();
        for _ in 0..pieces {
            teller.tell(Ok(text(&piece)));
            let waiting = held(&teller.0);
            assert!(waiting.bytes <= LISTENER_BYTES && waiting.events.len() <= APART, "{}", waiting.bytes);
        }
        assert!(budget.drawn() <= LISTENER_BYTES);
        let whole = piece.repeat(pieces);
        teller.tell(Ok(ended(&whole)));
        drop(teller);
        let mut said = String::new();
        let mut last = None;
        for event in block_on_stream(heard) {
            match event.unwrap() {
                TurnEvent::Text { delta } => said.push_str(&delta),
                other => last = Some(other),
            }
        }
        assert!(said == whole, "{} of {} bytes", said.len(), whole.len());
        assert_eq!(last, Some(ended(&whole)));
        assert_eq!(budget.drawn(), 0);
    }

    #[test]
    fn tiny_pieces_are_joined_so_that_they_take_no_more_than_their_text() {
        let (teller, mut heard, _) = ends();
        (0..10_000).for_each(|_| teller.tell(Ok(text("x"))));
        assert_eq!(held(&teller.0).events.len(), APART);
        teller.tell(Ok(ended(&"x".repeat(10_000))));
        let mut stream = block_on_stream(&mut heard);
        let said: usize = stream
            .by_ref()
            .map_while(|event| match event.unwrap() {
                TurnEvent::Text { delta } => Some(delta.len()),
                _ => None,
            })
            .sum();
        assert_eq!(said, 10_000);
    }

    #[test]
    fn a_stream_that_lacks_text_which_is_nowhere_ends_with_an_error_that_names_the_turn() {
        let (teller, heard, _) = ends();
        let piece = "x".repeat(LISTENER_BYTES / 2);
        (0..4).for_each(|_| teller.tell(Ok(text(&piece))));
        teller.tell(Ok(ended("shorter")));
        drop(teller);
        let events: Vec<_> = block_on_stream(heard).collect();
        let error = events.last().unwrap().as_ref().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(error.message.contains("turn t of session agent:a:main"), "{error}");
    }

    #[test]
    fn nothing_is_kept_for_a_listener_that_left() {
        let (teller, heard, budget) = ends();
        teller.tell(Ok(text(&"x".repeat(LISTENER_BYTES / 2))));
        assert!(budget.drawn() > 0);
        drop(heard);
        teller.tell(Ok(text("x")));
        assert_eq!((held(&teller.0).events.len(), budget.drawn()), (0, 0));
    }
}
