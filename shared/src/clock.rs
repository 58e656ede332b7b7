//! Time as an argument: [`Timestamp`], and the [`Clock`] it comes from.
//!
//! Nothing below the process's entry point reads the wall clock; adapters get `now` as an argument, so that a
//! test decides what time it is.

use crate::bounds::CLOCK_SLACK;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time: whole milliseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down (OpenAI's `created`).
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The first whole second that is not before this time. Stores that forget by the second and those that forget by the
    /// millisecond agree on it.
    pub const fn up_to_second(self) -> Self {
        Self(self.0.saturating_add(999).div_euclid(1000) * 1000)
    }

    /// Whether what was given for at most `longest`, and ends at this time, still runs at `now`.
    ///
    /// An end that lies further ahead was written by a clock that was ahead, or this one was set back since: nobody knows
    /// when it was meant to be, and to wait for it could take a day. It counts as past. Up to [`CLOCK_SLACK`] more is
    /// believed, so that two clocks which differ a little do not take each other's work away.
    pub fn runs_at(self, now: Self, longest: Duration) -> bool {
        self > now && self <= now + longest + CLOCK_SLACK
    }

    /// Whether this time, at which something was written, is one that the clock will only come to: it was set back since,
    /// or another one was ahead, by more than [`CLOCK_SLACK`].
    pub fn is_to_come(self, now: Self) -> bool {
        self > now + CLOCK_SLACK
    }

    /// The time from `earlier` to `self`, zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    /// Plain milliseconds; people are shown times by `http::time` and the command line, in their time zone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where "now" comes from.
pub trait Clock: Send + Sync {
    /// The present time. Never goes backwards by more than the host's clock does.
    fn now(&self) -> Timestamp;
}

/// The host's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
    fn now(&self) -> Timestamp {
        let since_epoch =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::EPOCH + since_epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_lies_further_ahead_than_it_can_is_none() {
        let (now, longest) = (Timestamp::from_millis(1_000_000), Duration::from_secs(90));
        let runs = |from_now: i64| Timestamp::from_millis(1_000_000 + from_now).runs_at(now, longest);
        assert_eq!([-1, 0, 1, 90_000].map(runs), [false, false, true, true]);
        assert_eq!([95_000, 95_001, 86_400_000].map(runs), [true, false, false], "a little more is believed");
        assert!(!Timestamp::from_millis(i64::MAX).runs_at(now, longest));
    }

    #[test]
    fn what_was_written_a_little_ahead_of_now_was_written_by_another_clock() {
        let now = Timestamp::from_millis(1_000_000);
        let is_to_come = |from_now: i64| Timestamp::from_millis(1_000_000 + from_now).is_to_come(now);
        assert_eq!([0, 5_000, 5_001].map(is_to_come), [false, false, true]);
    }
}
