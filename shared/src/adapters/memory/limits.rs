//! [`RateLimiter`] in memory.

use super::Memory;
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::limit::{Decision, Limit, RateLimiter, gcra};
use async_trait::async_trait;
use std::collections::HashMap;

/// Below so many subjects no sweep is worth its walk.
const SWEEP_FROM: usize = 1024;

/// Each subject's theoretical arrival time in microseconds since the Unix epoch. One that lies in the past says
/// nothing that its absence would not say, so it may be forgotten.
#[derive(Debug)]
pub(super) struct Subjects {
    arrivals: HashMap<String, i64>,
    /// The next sweep comes when there are so many subjects: twice what the last one left. A sweep's walk is thereby
    /// paid for by the subjects that were added since.
    sweep_at: usize,
}

impl Default for Subjects {
    fn default() -> Self {
        Self { arrivals: HashMap::new(), sweep_at: SWEEP_FROM }
    }
}

impl Subjects {
    fn take(&mut self, subject: &str, limit: Limit, now: Timestamp) -> Decision {
        let (decision, arrival) = gcra(self.arrivals.get(subject).copied(), limit, now);
        match (self.arrivals.get_mut(subject), arrival) {
            (Some(stored), Some(arrival)) => *stored = arrival,
            (None, Some(arrival)) => {
                if self.arrivals.len() >= self.sweep_at {
                    self.forget_idle(now);
                }
                self.arrivals.insert(subject.to_owned(), arrival);
            }
            (_, None) => {}
        }
        decision
    }

    fn forget_idle(&mut self, now: Timestamp) {
        let now = now.as_millis().saturating_mul(1000);
        self.arrivals.retain(|_, arrival| *arrival > now);
        self.sweep_at = (self.arrivals.len() * 2).max(SWEEP_FROM);
    }
}

#[async_trait]
impl RateLimiter for Memory {
    async fn take(&self, subject: &str, limit: Limit, now: Timestamp) -> Result<Decision, StoreError> {
        Ok(self.state().limits.take(subject, limit, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn idle_subjects_are_forgotten_and_busy_ones_are_not() {
        let mut subjects = Subjects::default();
        let limit = Limit { per_second: 1.0, burst: 0 };
        let start = Timestamp::from_millis(1_000);
        for number in 0..SWEEP_FROM {
            assert_eq!(subjects.take(&format!("early {number}"), limit, start), Decision::Allowed);
        }
        let later = start + Duration::from_millis(900);
        subjects.take("late", limit, later);
        assert_eq!(subjects.arrivals.len(), SWEEP_FROM + 1, "all early ones are still busy");
        let much_later = start + Duration::from_millis(1_500);
        for number in 0..SWEEP_FROM {
            subjects.take(&format!("new {number}"), limit, much_later);
        }
        assert!(subjects.arrivals.len() <= SWEEP_FROM + 1, "the early ones are gone");
        let denied = Decision::Denied { retry_after: Duration::from_millis(400) };
        assert_eq!(subjects.take("late", limit, much_later), denied);
    }
}
