//! Rate limits: the generic cell rate algorithm (GCRA), and the [`RateLimiter`] port.

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

/// GCRA: `tat` is the subject's theoretical arrival time in microseconds since the Unix epoch (`None`: idle).
/// Returns the decision and the time to store; on a denial the stored time stays as it was.
///
/// Source: ITU-T I.371, virtual scheduling algorithm, with tolerance `burst × interval`.
pub fn gcra(tat: Option<i64>, limit: Limit, now: Timestamp) -> (Decision, Option<i64>) {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an interval of over 292,000 years saturates, which is meant"
    )]
    let interval = (1_000_000.0 / limit.per_second) as i64;
    let now = now.as_millis().saturating_mul(1000);
    let due = tat.unwrap_or(now).max(now);
    let allowed_from = due.saturating_sub(interval.saturating_mul(i64::from(limit.burst)));
    if now >= allowed_from {
        (Decision::Allowed, Some(due.saturating_add(interval)))
    } else {
        let wait = u64::try_from(allowed_from - now).unwrap_or(0);
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
