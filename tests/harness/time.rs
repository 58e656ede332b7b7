//! Time and names that a test decides.

use shared::clock::{Clock, Timestamp};
use shared::id::IdSource;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// A clock that stands still until a test moves it. Starts on 2026-11-20, 00:00 UTC.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl Default for ManualClock {
    fn default() -> Self {
        Self(AtomicI64::new(1_795_132_800_000))
    }
}

impl ManualClock {
    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).expect("a duration of a test");
        self.0.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets the clock back: it was ahead.
    pub fn set_back(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).expect("a duration of a test");
        self.0.fetch_sub(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// Identifiers in order: `00000000000000000000000001`, `…2`. As long as a ULID.
#[derive(Debug, Default)]
pub struct SequentialIds(AtomicU64);

impl IdSource for SequentialIds {
    fn ulid(&self, _now: Timestamp) -> String {
        format!("{:026}", self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }
}
