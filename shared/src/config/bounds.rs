//! The list of every bound, with the values that the settings put in force.

use super::Config;
use crate::bounds::{
    BODY_LEVELS, Bound, REQUEST_TOOLS, SETTINGS_LEVELS, STORED_LEVELS, UNREADABLE_TOLD, Unit,
};

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
            row("request.levels", BODY_LEVELS, Unit::Levels, None, "400 invalid, naming the field"),
            row("stored.levels", STORED_LEVELS, Unit::Levels, None, "400 invalid; a turn fails, on record"),
            row("settings.levels", SETTINGS_LEVELS, Unit::Levels, None, "the settings are refused"),
            row("unreadable.told", UNREADABLE_TOLD, Unit::Count, None, "counted, not told by its id"),
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
