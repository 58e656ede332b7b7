//! The list of every bound, with the values that the settings put in force.

use super::Config;
use crate::bounds::{
    ANSWER_BYTES, ANSWER_BYTES_PER_TOKEN, ANSWER_CALLS, ANSWER_WIRE_BYTES, BODY_VALUES, Bound,
    HOP_LINE_BYTES, LISTENER_BYTES, MESSAGE_PARTS, REQUEST_MESSAGES, REQUEST_TOOLS, TURN_BYTES, Unit,
    VENDOR_ERROR_BYTES, VENDOR_EVENT_BYTES,
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
            row("vendor.event", VENDOR_EVENT_BYTES, Unit::Bytes, None, "502 upstream"),
            row("vendor.error", VENDOR_ERROR_BYTES, Unit::Bytes, None, "the rest is not read"),
            row("turn.recorded", TURN_BYTES, Unit::Bytes, None, "the turn ends as `length`"),
            row("listener.waiting", LISTENER_BYTES, Unit::Bytes, None, "the rest is told at the turn's end"),
            row("hop.line", HOP_LINE_BYTES, Unit::Bytes, None, "503 unavailable"),
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
