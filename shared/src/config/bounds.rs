//! The list of every bound, with the values that the settings put in force: most rows by group in `rows`.

mod rows;

use super::Config;
use crate::bounds::{Bound, REQUEST_TOOLS, Unit};

/// The first parts of the names, in the order in which a request meets them.
const GROUPS: [&str; 20] = [
    "request",
    "connections",
    "caller",
    "turn",
    "answer",
    "listener",
    "hop",
    "tool",
    "vendor",
    "jobs",
    "key",
    "stored",
    "store",
    "unreadable",
    "clock",
    "audit",
    "word",
    "settings",
    "process",
    "aws",
];

impl Config {
    /// Every bound as it is in force, in the order in which a request meets them.
    pub fn bounds(&self) -> Vec<Bound> {
        let mut all = self.further();
        all.extend(rows::requests());
        all.extend(rows::callers(self));
        all.extend(rows::turns(self));
        all.extend(rows::tools());
        all.extend(rows::vendors(self));
        all.extend(rows::work(self));
        all.extend(rows::words());
        all.extend(rows::process(self));
        all.extend(rows::aws());
        all.sort_by_key(|bound| {
            let group = bound.name.split('.').next().unwrap_or_default();
            GROUPS.iter().position(|known| *known == group).unwrap_or(GROUPS.len())
        });
        all
    }

    /// Those beside the groups.
    fn further(&self) -> Vec<Bound> {
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
