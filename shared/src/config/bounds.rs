//! The list of every bound, with the values that the settings put in force: most rows by group in `rows`.

mod rows;

use super::Config;
use crate::bounds::{
    ANSWER_BYTES, ANSWER_BYTES_PER_TOKEN, ANSWER_CALLS, ANSWER_WIRE_BYTES, AUDIT_COUNTED, BACKLOG_COUNTED,
    BODY_LEVELS, BODY_VALUES, Bound, CLOCK_SLACK, HEAD_BYTES, HOP_LINE_BYTES, LANES_LOOKED_AT,
    LISTENER_BYTES, MESSAGE_PARTS, READ_ASIDE_WAIT, READS_ASIDE, REQUEST_MESSAGES, REQUEST_TOOLS,
    SETTINGS_LEVELS, STORED_LEVELS, TURN_BYTES, UNREADABLE_TOLD, Unit, most_of_other, most_of_token,
};
use std::time::Duration;

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
        let millis = |time: Duration| usize::try_from(time.as_millis()).unwrap_or(usize::MAX);
        let gateway = &self.gateway;
        vec![
            row(
                "connections.all",
                gateway.max_connections,
                Unit::Count,
                Some("gateway.maxConnections"),
                "503 unavailable, closed",
            ),
            row(
                "connections.perAddress",
                gateway.max_connections_per_address,
                Unit::Count,
                Some("gateway.maxConnectionsPerAddress"),
                "503 unavailable, closed",
            ),
            row("request.head", HEAD_BYTES, Unit::Bytes, None, "431, closed"),
            row(
                "answer.writeTime",
                millis(gateway.write_timeout),
                Unit::Millis,
                Some("gateway.writeTimeoutSeconds"),
                "closed",
            ),
            row(
                "request.body",
                self.gateway.max_body_bytes,
                Unit::Bytes,
                Some("gateway.maxBodyBytes"),
                "413 payload_too_large",
            ),
            row("request.tools", REQUEST_TOOLS, Unit::Count, None, "400 invalid, naming `tools`"),
            row(
                "audit.counted",
                AUDIT_COUNTED,
                Unit::Count,
                None,
                "`reef audit list` says that there are more",
            ),
            row("request.levels", BODY_LEVELS, Unit::Levels, None, "400 invalid, naming the field"),
            row("stored.levels", STORED_LEVELS, Unit::Levels, None, "400 invalid; a turn fails, on record"),
            row("settings.levels", SETTINGS_LEVELS, Unit::Levels, None, "the settings are refused"),
            row("unreadable.told", UNREADABLE_TOLD, Unit::Count, None, "counted, not told by its id"),
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
            row(
                "request.messages",
                REQUEST_MESSAGES,
                Unit::Count,
                None,
                "400 invalid, naming `messages` or `input`",
            ),
            row(
                "request.parts",
                MESSAGE_PARTS,
                Unit::Count,
                None,
                "400 invalid, naming the message's content",
            ),
            row("request.values", BODY_VALUES, Unit::Count, None, "400 invalid"),
            row("answer.bytes", ANSWER_BYTES, Unit::Bytes, None, "the turn ends as `length`"),
            row(
                "answer.bytesPerToken",
                ANSWER_BYTES_PER_TOKEN,
                Unit::Bytes,
                None,
                "the turn ends as `length`",
            ),
            row(
                "answer.toolCalls",
                ANSWER_CALLS,
                Unit::Count,
                None,
                "none is run; the turn ends as `length`",
            ),
            row("answer.wire", ANSWER_WIRE_BYTES, Unit::Bytes, None, "the turn ends as `length`"),
            row("turn.recorded", TURN_BYTES, Unit::Bytes, None, "the turn ends as `length`"),
            row("listener.waiting", LISTENER_BYTES, Unit::Bytes, None, "the rest is told at the turn's end"),
            row("hop.line", HOP_LINE_BYTES, Unit::Bytes, None, "503 unavailable"),
            row(
                "request.bytesPerRequest",
                usize::try_from(self.gateway.bytes_per_request).unwrap_or(usize::MAX),
                Unit::Bytes,
                Some("gateway.rateLimit.bytesPerRequest"),
                "429 rate_limited, once a token is 256 s ahead",
            ),
            row("store.readsAside", READS_ASIDE, Unit::Count, None, "waits in order"),
            row("store.readAsideWait", millis(READ_ASIDE_WAIT), Unit::Millis, None, "503 unavailable"),
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
