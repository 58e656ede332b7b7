//! Rate limits: the generic cell rate algorithm (GCRA), and the [`RateLimiter`] port.

use crate::bounds::CLOCK_SLACK;
use crate::clock::Timestamp;
use crate::error::StoreError;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How much one subject may do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// Steady rate; above 0.
    pub per_second: f64,
    /// How many may come at once beyond the steady rate: an idle subject may send `burst + 1` at once, as with
    /// nginx `limit_req burst=… nodelay`.
    pub burst: u32,
}

/// The guide's limit for one client: 10 requests a second, burst 20.
impl Default for Limit {
    fn default() -> Self {
        Self { per_second: 10.0, burst: 20 }
    }
}

/// The limiter's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Go on; it was counted.
    Allowed,
    /// Not now; nothing was counted.
    Denied {
        /// When the next one will be allowed.
        retry_after: Duration,
    },
}

/// What a limit comes to at one moment, in microseconds since the Unix epoch: for [`gcra`], and for a store that counts by
/// a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Now.
    pub now: i64,
    /// What one more request adds.
    pub interval: i64,
    /// The latest due time of a request that is let through.
    pub latest: i64,
    /// The latest arrival time that can be: behind the last request of a whole burst, and [`CLOCK_SLACK`]. One beyond it
    /// was written by a clock that was ahead, or under a slower limit; whoever has it is idle.
    pub farthest: i64,
}

impl Schedule {
    /// That of `limit` at `now`.
    pub fn new(limit: Limit, now: Timestamp) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an interval of over 292,000 years saturates, which is meant"
        )]
        let interval = (1_000_000.0 / limit.per_second) as i64;
        let now = now.as_millis().saturating_mul(1_000);
        let latest = now.saturating_add(interval.saturating_mul(i64::from(limit.burst)));
        let slack = i64::try_from(CLOCK_SLACK.as_micros()).unwrap_or(i64::MAX);
        Self { now, interval, latest, farthest: latest.saturating_add(interval).saturating_add(slack) }
    }
}

/// GCRA: `tat` is the subject's theoretical arrival time in microseconds since the Unix epoch (`None`: idle).
/// Returns the decision and the time to store; on a denial the stored time stays as it was.
///
/// Source: ITU-T I.371, virtual scheduling algorithm, with tolerance `burst × interval`. That an arrival time which cannot
/// be counts for none is ours: one request of a moment in which the clock was a day ahead would be a day of denials.
pub fn gcra(tat: Option<i64>, limit: Limit, now: Timestamp) -> (Decision, Option<i64>) {
    let Schedule { now, interval, latest, farthest } = Schedule::new(limit, now);
    let due = tat.filter(|tat| *tat <= farthest).unwrap_or(now).max(now);
    if due <= latest {
        (Decision::Allowed, Some(due.saturating_add(interval)))
    } else {
        let wait = u64::try_from(due.saturating_sub(latest)).unwrap_or(0);
        (Decision::Denied { retry_after: Duration::from_micros(wait) }, tat)
    }
}

/// Counts requests per subject.
#[async_trait]
pub trait RateLimiter: Send + Sync {
    /// Takes one from `subject`'s allowance, atomically: of two concurrent calls for the last place one is denied.
    /// Subjects are independent; one that was idle long enough may be forgotten.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; the caller decides whether to go on.
    async fn take(&self, subject: &str, limit: Limit, now: Timestamp) -> Result<Decision, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The longest that anybody may have to wait under a limit.
    fn longest_wait(limit: Limit) -> Duration {
        Duration::from_secs_f64(1.0 / limit.per_second) + CLOCK_SLACK
    }

    proptest! {
        #[test]
        fn whatever_the_clock_was_nobody_waits_for_longer_than_the_limit_says(
            per_second in 0.01..1_000.0_f64,
            burst in 0..100_u32,
            // A clock that jumps by up to a month either way.
            jumps in prop::collection::vec(-2_592_000_000..2_592_000_000_i64, 1..40),
        ) {
            let limit = Limit { per_second, burst };
            let (mut tat, mut now) = (None, 1_800_000_000_000_i64);
            for jump in jumps {
                now += jump;
                let (decision, next) = gcra(tat, limit, Timestamp::from_millis(now));
                if let Decision::Denied { retry_after } = decision {
                    prop_assert!(retry_after <= longest_wait(limit), "{retry_after:?}");
                }
                tat = next;
            }
        }

        #[test]
        fn a_clock_that_only_goes_on_lets_through_what_the_limit_says_and_no_more(
            per_second in 0.01..1_000.0_f64,
            burst in 0..50_u32,
            steps in prop::collection::vec(0..2_000_i64, 1..200),
        ) {
            let limit = Limit { per_second, burst };
            let start = 1_800_000_000_000_i64;
            let (mut tat, mut now, mut allowed) = (None, start, 0_u32);
            for step in steps {
                now += step;
                let (decision, next) = gcra(tat, limit, Timestamp::from_millis(now));
                allowed += u32::from(decision == Decision::Allowed);
                tat = next;
                let seconds = Duration::from_millis(u64::try_from(now - start).unwrap_or(0)).as_secs_f64();
                // Whole microseconds are counted, so that an interval may be shorter by less than one.
                let most = f64::from(burst) + 1.0 + seconds * per_second * 1.001 + 1e-6;
                prop_assert!(f64::from(allowed) <= most, "{allowed} in {seconds} s");
            }
        }
    }

    #[test]
    fn a_request_of_a_day_ahead_locks_nobody_out() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let (_, ahead) = gcra(None, Limit::default(), now + Duration::from_secs(86_400));
        let (decision, next) = gcra(ahead, Limit::default(), now);
        assert_eq!(decision, Decision::Allowed);
        assert_eq!(next, Some(now.as_millis() * 1_000 + 100_000), "as after the first request");
    }

    #[test]
    fn an_idle_subject_may_send_burst_plus_one_at_once_and_then_waits_one_interval() {
        let now = Timestamp::from_millis(1_000_000);
        let mut tat = None;
        for _ in 0..21 {
            let (decision, next) = gcra(tat, Limit::default(), now);
            assert_eq!(decision, Decision::Allowed);
            tat = next;
        }
        let (decision, after) = gcra(tat, Limit::default(), now);
        assert_eq!(decision, Decision::Denied { retry_after: Duration::from_millis(100) });
        assert_eq!(after, tat, "a denial is not counted");
        let (decision, _) = gcra(tat, Limit::default(), now + Duration::from_millis(100));
        assert_eq!(decision, Decision::Allowed);
    }
}
