//! [`Budget`]: how much memory a process lends to what comes from outside – bodies, what turns hold, what waits for
//! listeners.
//!
//! New work *reserves* before it is taken in, and is refused while there is no room. Work at hand *holds* what it needs
//! whether there is room or not: it is paid for and goes on, and new work waits for it. What is counted is an estimate, on
//! the high side: an allocator is not asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Of a process's memory, this share is lent: the rest is for the program, the store's pages, sockets, and what the
/// allocator has not given back yet.
const SHARE: (u64, u64) = (2, 5);

/// A reservation beyond this is a large one.
const LARGE: usize = 1024 * 1024;

/// What large reservations may use together: small ones always find the rest, whatever large ones come.
const SHARE_OF_LARGE: (usize, usize) = (3, 4);

/// Held memory is counted in such steps: most work stays below the first, and counts nothing.
const STEP: usize = 64 * 1024;

/// Memory that is lent. Cheap to clone: all clones are the same one.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Lent>);

#[derive(Debug)]
struct Lent {
    total: usize,
    drawn: AtomicUsize,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn of(total: usize) -> Self {
        Self(Arc::new(Lent { total, drawn: AtomicUsize::new(0) }))
    }

    /// The budget of a process that may use so many bytes of memory.
    pub fn of_memory(bytes: u64) -> Self {
        let (part, whole) = SHARE;
        Self::of(usize::try_from(bytes / whole * part).unwrap_or(usize::MAX))
    }

    /// One that never ends: for processes whose platform bounds their work.
    pub fn unlimited() -> Self {
        Self::of(usize::MAX)
    }

    /// All of it, in bytes.
    pub fn total(&self) -> usize {
        self.0.total
    }

    /// What is in use, in bytes; more than [`Budget::total`] while work at hand needs it.
    pub fn drawn(&self) -> usize {
        self.0.drawn.load(Ordering::Relaxed)
    }

    /// The most that one reservation can ever be.
    pub fn largest(&self) -> usize {
        let (part, whole) = SHARE_OF_LARGE;
        self.0.total / whole * part
    }

    /// Whether new work would find no room now.
    pub fn is_spent(&self) -> bool {
        self.drawn() >= self.largest()
    }

    /// A draw of nothing, to grow.
    pub fn draw(&self) -> Drawn {
        Drawn { budget: self.clone(), bytes: 0 }
    }
}

/// A part of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Drawn {
    budget: Budget,
    bytes: usize,
}

impl Drawn {
    /// Reserves more for new work; `false`, and nothing is reserved, if there is no room.
    #[must_use]
    pub fn reserve(&mut self, more: usize) -> bool {
        let most =
            if self.bytes.saturating_add(more) > LARGE { self.budget.largest() } else { self.budget.total() };
        let grown = |drawn: usize| drawn.checked_add(more).filter(|drawn| *drawn <= most);
        let reserved = self.budget.0.drawn.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).is_ok();
        if reserved {
            self.bytes += more;
        }
        reserved
    }

    /// Work at hand has about `bytes` in memory now.
    pub fn hold(&mut self, bytes: usize) {
        let bytes = bytes / STEP * STEP;
        let drawn = &self.budget.0.drawn;
        if bytes > self.bytes {
            drawn.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else if bytes < self.bytes {
            drawn.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// What it is, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        self.budget.0.drawn.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn new_work_is_refused_while_there_is_no_room_and_taken_when_there_is() {
        let budget = Budget::of(100 * MIB);
        let (mut first, mut second) = (budget.draw(), budget.draw());
        assert!(first.reserve(60 * MIB));
        assert!(!second.reserve(20 * MIB), "large ones may use three quarters");
        assert_eq!((second.bytes(), budget.drawn()), (0, 60 * MIB));
        drop(first);
        assert!(second.reserve(75 * MIB));
        assert!(!second.reserve(1), "it has become a large one");
        assert!(budget.is_spent());
    }

    #[test]
    fn small_work_finds_room_whatever_large_work_has_taken() {
        let budget = Budget::of(8 * MIB);
        let (mut large, mut small, mut last) = (budget.draw(), budget.draw(), budget.draw());
        assert!(large.reserve(budget.largest()));
        assert!(small.reserve(MIB));
        assert!(last.reserve(MIB));
        assert!(!small.reserve(1));
        assert_eq!(budget.drawn(), budget.total());
    }

    #[test]
    fn work_at_hand_goes_on_beyond_the_budget_and_gives_back_what_it_no_longer_needs() {
        let budget = Budget::of(10 * MIB);
        let mut turn = budget.draw();
        turn.hold(STEP - 1);
        assert_eq!(budget.drawn(), 0, "a plain turn counts nothing");
        turn.hold(20 * MIB);
        assert_eq!(budget.drawn(), 20 * MIB);
        assert!(!budget.draw().reserve(1));
        turn.hold(2 * MIB + 1);
        assert_eq!(budget.drawn(), 2 * MIB);
        drop(turn);
        assert_eq!(budget.drawn(), 0);
    }

    #[test]
    fn a_budget_without_end_refuses_nothing() {
        let budget = Budget::unlimited();
        let mut drawn = budget.draw();
        assert!(drawn.reserve(budget.largest()));
        assert_eq!(Budget::of_memory(1000).total(), 400);
    }
}
