//! [`Ledger`] of Prometheus' own kind.

use crate::metrics::Ledger;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// Bounds of duration histograms in seconds: from a store's write to the longest turn.
const BOUNDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Counts and times as Prometheus reads them.
pub struct Prometheus {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Default for Prometheus {
    fn default() -> Self {
        let recorder = builder().build_recorder();
        let handle = recorder.handle();
        Self { recorder, handle }
    }
}

impl Ledger for Prometheus {
    fn render(&self) -> String {
        self.handle.render()
    }

    fn fold(&self) {
        self.handle.run_upkeep();
    }
}

#[deny(clippy::missing_trait_methods, reason = "whatever a recorder can do is done by the one within")]
impl Recorder for Prometheus {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.recorder.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.recorder.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.recorder.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.recorder.register_histogram(key, metadata)
    }
}

/// Durations are histograms, except the guide's request duration, whose alert reads a summary's 0.95 quantile.
fn builder() -> PrometheusBuilder {
    let histograms = ["openclaw_run_", "openclaw_model_", "openclaw_queue_"];
    histograms.into_iter().fold(PrometheusBuilder::new(), |builder, prefix| {
        #[expect(
            clippy::expect_used,
            reason = "fails for an empty list of bounds only, and this one is a constant"
        )]
        builder
            .set_buckets_for_metric(Matcher::Prefix(prefix.to_owned()), BOUNDS)
            .expect("bounds are not empty")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::LABEL_VALUES;
    use crate::metrics::Metrics;
    use std::time::Duration;

    fn lines_of(text: &str, name: &str) -> Vec<String> {
        text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
    }

    #[test]
    fn requests_are_counted_by_status_and_summed_up_with_the_guides_quantile() {
        let metrics = Metrics::kept(Prometheus::default());
        metrics.request(200, Duration::from_millis(250));
        metrics.request(200, Duration::from_millis(250));
        metrics.request(404, Duration::from_millis(250));
        let text = metrics.render().expect("kept");
        let mut counts = lines_of(&text, "openclaw_requests_total");
        counts.sort();
        assert_eq!(
            counts,
            [r#"openclaw_requests_total{status="200"} 2"#, r#"openclaw_requests_total{status="404"} 1"#]
        );
        assert_eq!(
            lines_of(&text, r#"openclaw_request_duration_seconds{quantile="0.95"}"#).len(),
            1,
            "{text}"
        );
        assert_eq!(
            lines_of(&text, "openclaw_request_duration_seconds_count"),
            ["openclaw_request_duration_seconds_count 3"]
        );
    }

    #[test]
    fn a_label_with_too_many_values_counts_the_rest_as_other() {
        let metrics = Metrics::kept(Prometheus::default());
        for number in 0..LABEL_VALUES + 50 {
            metrics.tool_execution(&format!("tool-{number}"), "completed");
        }
        let text = metrics.render().expect("kept");
        assert_eq!(lines_of(&text, "openclaw_tool_execution_total").len(), LABEL_VALUES + 1);
        assert!(
            text.contains(r#"openclaw_tool_execution_total{outcome="completed",tool="other"} 50"#),
            "{text}"
        );
    }

    #[test]
    fn a_label_value_cannot_break_out_of_its_line() {
        let metrics = Metrics::kept(Prometheus::default());
        metrics.session_turn_created("a\"} 1\nfake 1", "chat");
        let text = metrics.render().expect("kept");
        assert_eq!(lines_of(&text, "fake"), Vec::<String>::new());
    }

    #[test]
    fn a_lane_grows_and_shrinks_and_its_waits_are_a_histogram() {
        let metrics = Metrics::kept(Prometheus::default());
        metrics.lane_entered("session");
        metrics.lane_entered("session");
        metrics.lane_left("session", Duration::from_millis(20));
        let text = metrics.render().expect("kept");
        assert_eq!(
            lines_of(&text, "openclaw_queue_lane_size"),
            [r#"openclaw_queue_lane_size{lane="session"} 1"#]
        );
        assert_eq!(
            lines_of(&text, "openclaw_queue_lane_wait_seconds_bucket{lane=\"session\",le=\"0.025\"}"),
            [r#"openclaw_queue_lane_wait_seconds_bucket{lane="session",le="0.025"} 1"#]
        );
    }
}
