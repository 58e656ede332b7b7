//! The life of a simulated process: where it ends, stops, or does not hear an answer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The life of one process. A dead one never hears from its tables again.
#[derive(Debug)]
pub(super) struct Life {
    over: CancellationToken,
    frozen: AtomicBool,
    thawed: Notify,
    /// Writes until it dies, times two, plus one if it dies after the write was done; `u64::MAX` for never.
    left: AtomicU64,
    /// As `left`, until it does not hear the answer of one, and lives on.
    heard: AtomicU64,
    /// Of so many writes the last one's answer is lost; 0 for none.
    losing: AtomicU64,
    /// Writes that were done.
    done: AtomicU64,
}

/// What becomes of a write's answer.
pub(super) enum Answer {
    Heard,
    /// The request is repeated, as the SDK does, and its answer is heard then.
    Repeated,
    /// So are those to its repetitions.
    Lost,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            over: CancellationToken::new(),
            frozen: AtomicBool::new(false),
            thawed: Notify::new(),
            left: AtomicU64::new(u64::MAX),
            heard: AtomicU64::new(u64::MAX),
            losing: AtomicU64::new(0),
            done: AtomicU64::new(0),
        }
    }
}

impl Life {
    /// Whether it is over.
    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Ends it now.
    pub(super) fn end(&self) {
        self.over.cancel();
    }

    /// Ends it at a write to come: an even point just before the write of number `point / 2`, an odd one just after it.
    pub(super) fn end_at(&self, point: u64) {
        self.left.store(point, Ordering::SeqCst);
    }

    /// Keeps the answer of a write to come from it: at an even point the write is not done, at an odd one it is.
    pub(super) fn loses_answer_at(&self, point: u64) {
        self.heard.store(point, Ordering::SeqCst);
    }

    /// Whether the answer of this write is lost, and if so, whether the write is done.
    pub(super) fn loses_answer(&self) -> Option<bool> {
        let heard = self.heard.load(Ordering::SeqCst);
        let lost = match heard {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        };
        let left = if lost.is_some() || heard == u64::MAX { u64::MAX } else { heard - 2 };
        self.heard.store(left, Ordering::SeqCst);
        lost
    }

    /// From now on the answer to each write of this number is lost on its way; 0 for none.
    pub(super) fn lose_answers(&self, every: u64) {
        self.losing.store(every, Ordering::SeqCst);
    }

    /// Counts a write that was done; what becomes of its answer.
    pub(super) fn answer(&self) -> Answer {
        let done = self.done.fetch_add(1, Ordering::SeqCst) + 1;
        match self.losing.load(Ordering::SeqCst) {
            0 => Answer::Heard,
            every if !done.is_multiple_of(every) => Answer::Heard,
            every if (done / every).is_multiple_of(2) => Answer::Repeated,
            _ => Answer::Lost,
        }
    }

    /// Waits while it is frozen, and for ever if it is over.
    pub(super) async fn goes_on(&self) {
        while self.frozen.load(Ordering::SeqCst) {
            self.thawed.notified().await;
        }
        if self.is_over() {
            std::future::pending::<()>().await;
        }
    }

    /// Stops it, wherever it is, until it is thawed; or thaws it.
    pub(super) fn set_frozen(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
        if !frozen {
            self.thawed.notify_waiters();
        }
    }

    /// Waits for `work`; `None` if the life ends before.
    pub(super) async fn during<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.over.run_until_cancelled(work).await
    }

    /// Counts a write; ends the life before or after it.
    pub(super) fn counts_a_write(&self, before: bool) {
        let left = self.left.load(Ordering::SeqCst);
        match (left, before) {
            (u64::MAX, _) => {}
            (0, true) | (1, false) => self.end(),
            (_, true) => {}
            (_, false) => self.left.store(left.saturating_sub(2), Ordering::SeqCst),
        }
    }
}
