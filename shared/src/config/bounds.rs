//! The list of every bound, with the values that the settings put in force.

use super::Config;
use crate::bounds::{
    BACKLOG_COUNTED, Bound, CLOCK_SLACK, LANES_LOOKED_AT, REQUEST_TOOLS, Unit, most_of_other, most_of_token,
};
use std::time::Duration;

impl Config {
    /// Every bound as it is in force, in the order in which a request meets them.
    pub fn bounds(&self) -> Vec<Bound> {
        let row = |name, value: usize, unit, setting, beyond| {
            // No value here is above 2^53.
            Bound { name, value: value as u64, unit, setting, beyond }
        };
        vec![
            row(
                "request.body",
                self.gateway.max_body_bytes,
                Unit::Bytes,
                Some("gateway.maxBodyBytes"),
                "413 payload_too_large",
            ),
            row("request.tools", REQUEST_TOOLS, Unit::Count, None, "400 invalid, naming `tools`"),
            row(
                "jobs.atOnce",
                self.turns.worker_concurrency,
                Unit::Count,
                Some("turns.workerConcurrency"),
                "the job waits; at half, whoever has less comes first",
            ),
            row(
                "jobs.ofToken",
                most_of_token(self.turns.worker_concurrency),
                Unit::Count,
                None,
                "the token's next job waits",
            ),
            row(
                "jobs.ofAgent",
                most_of_other(self.turns.worker_concurrency),
                Unit::Count,
                None,
                "the agent's, or its vendor's, next job waits",
            ),
            row("jobs.counted", BACKLOG_COUNTED, Unit::Count, None, "no more are counted in a scrape"),
            row(
                "jobs.lanes",
                LANES_LOOKED_AT,
                Unit::Count,
                None,
                "later ones wait until nobody holds half of the places",
            ),
            row(
                "clock.slack",
                millis(CLOCK_SLACK),
                Unit::Millis,
                None,
                "a time that lies further ahead than it can is none",
            ),
        ]
    }
}

/// Whole milliseconds.
fn millis(time: Duration) -> usize {
    usize::try_from(time.as_millis()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_bound_has_a_name_of_its_own() {
        let config = Config::load("{agents: [{id: \"a\"}]}", std::path::Path::new("/"), &|_| None, true);
        let bounds = config.unwrap_or_else(|problems| panic!("{problems}")).bounds();
        let names: BTreeSet<_> = bounds.iter().map(|bound| bound.name).collect();
        assert_eq!(names.len(), bounds.len());
    }
}
