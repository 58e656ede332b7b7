//! Metrics as log lines: CloudWatch's embedded metric format. The platform makes a metric of each line on standard output
//! that has the member `_aws`; no call is made, and nothing is left to run behind an answer.
//!
//! The metrics have no dimensions: each is billed once per region, and only in months in which it is written. A line is
//! written whatever `REEF_LOG` says, because alarms hang on it.

use crate::clock::{Clock, Timestamp};
use crate::metrics::{Measured, Sink};
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;

/// Writes a line to standard output for each thing measured.
pub struct EmfSink {
    namespace: String,
    clock: Arc<dyn Clock>,
}

impl EmfSink {
    /// Keeps the metrics under `namespace`, e.g. `Reef/prod`.
    pub fn new(namespace: &str, clock: Arc<dyn Clock>) -> Self {
        Self { namespace: namespace.to_owned(), clock }
    }
}

impl Sink for EmfSink {
    fn tell(&self, measured: Measured) {
        let line = line(&self.namespace, self.clock.now(), measured);
        // In one piece, so that no other line gets in between. If it cannot be written, neither can a complaint.
        let _ = std::io::stdout().lock().write_all(line.as_bytes());
    }
}

/// The metric's name, its unit in CloudWatch's words, and its value.
fn metric(measured: Measured) -> (&'static str, &'static str, Value) {
    match measured {
        Measured::FirstByte(took) => {
            // To the microsecond, like the times in the log.
            let millis = (took.as_secs_f64() * 1e6).round() / 1e3;
            ("FirstByte", "Milliseconds", json!(millis))
        }
        Measured::Turn => ("Turns", "Count", json!(1)),
        Measured::TurnError => ("TurnErrors", "Count", json!(1)),
        Measured::DeadJob => ("DeadJobs", "Count", json!(1)),
        Measured::NotReady => ("NotReady", "Count", json!(1)),
        Measured::UnreadableRow => ("UnreadableRows", "Count", json!(1)),
    }
}

/// One document of the format, and a line feed. Lambda passes on a line that is JSON as it is; one without a level it would
/// take for `info`, too.
fn line(namespace: &str, at: Timestamp, measured: Measured) -> String {
    let (name, unit, value) = metric(measured);
    let directive =
        json!({"Namespace": namespace, "Dimensions": [[]], "Metrics": [{"Name": name, "Unit": unit}]});
    let document = json!({
        "_aws": {"Timestamp": at.as_millis(), "CloudWatchMetrics": [directive]},
        "level": "info",
        "stream": "metric",
        name: value,
    });
    format!("{document}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn written(measured: Measured) -> String {
        line("Reef/prod", Timestamp::from_millis(1_700_000_000_123), measured)
    }

    #[test]
    fn a_time_is_one_line_of_the_embedded_metric_format_in_milliseconds() {
        let expected = concat!(
            r#"{"FirstByte":12.346,"_aws":{"CloudWatchMetrics":[{"Dimensions":[[]],"#,
            r#""Metrics":[{"Name":"FirstByte","Unit":"Milliseconds"}],"Namespace":"Reef/prod"}],"#,
            r#""Timestamp":1700000000123},"level":"info","stream":"metric"}"#,
            "\n"
        );
        assert_eq!(written(Measured::FirstByte(Duration::from_nanos(12_345_678))), expected);
    }

    #[test]
    fn what_is_counted_is_one_of_its_name_in_each_line() {
        for (measured, name) in [
            (Measured::Turn, "Turns"),
            (Measured::TurnError, "TurnErrors"),
            (Measured::DeadJob, "DeadJobs"),
            (Measured::NotReady, "NotReady"),
            (Measured::UnreadableRow, "UnreadableRows"),
        ] {
            let expected = json!({
                "_aws": {
                    "Timestamp": 1_700_000_000_123_i64,
                    "CloudWatchMetrics": [{
                        "Namespace": "Reef/prod",
                        "Dimensions": [[]],
                        "Metrics": [{"Name": name, "Unit": "Count"}],
                    }],
                },
                "level": "info",
                "stream": "metric",
                name: 1,
            });
            assert_eq!(written(measured), format!("{expected}\n"));
        }
    }
}
