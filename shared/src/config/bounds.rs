//! The list of every bound, with the values that the settings put in force.

use super::Config;
use crate::bounds::{Bound, LOCK_WAIT, READ_ASIDE_WAIT, READS_ASIDE, REQUEST_TOOLS, Unit};
use std::time::Duration;

fn millis(time: Duration) -> usize {
    usize::try_from(time.as_millis()).unwrap_or(usize::MAX)
}

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
                "request.bytesPerRequest",
                usize::try_from(self.gateway.bytes_per_request).unwrap_or(usize::MAX),
                Unit::Bytes,
                Some("gateway.rateLimit.bytesPerRequest"),
                "429 rate_limited, once a token is 256 s ahead",
            ),
            row("store.readsAside", READS_ASIDE, Unit::Count, None, "waits in order"),
            row("store.readAsideWait", millis(READ_ASIDE_WAIT), Unit::Millis, None, "503 unavailable"),
            row("store.lockWait", millis(LOCK_WAIT), Unit::Millis, None, "503 unavailable"),
        ]
    }
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
