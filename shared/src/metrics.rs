//! Metrics: what operators watch, by names they know.
//!
//! The two request metrics are the guide's; the others carry OpenClaw's names and labels, so that its dashboards work
//! on them. Nothing here is process-wide: a process may hold several [`Metrics`], as tests do.
//!
//! A process that somebody scrapes keeps everything in a [`Ledger`]. Where nobody does, a platform hears of the few things
//! it sounds alarms about as they happen, by a [`Sink`], and nothing is kept.
//!
//! Label values that come from outside (a channel's name, a model's) are bounded: after [`LABEL_VALUES`] different
//! ones per label, further ones count as `other`.

use crate::bounds::LABEL_VALUES;
use crate::clock::Timestamp;
use crate::job::Backlog;
use crate::model::Usage;
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, NoopRecorder, Recorder};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Observed durations wait in memory until they are folded into their histogram; that is done each so many.
const FOLD_EVERY: u32 = 1024;

const METADATA: Metadata<'static> = Metadata::new("reef", Level::INFO, None);

/// What a finished run is counted under.
#[derive(Debug, Clone, Copy)]
pub struct RunLabels<'a> {
    /// Where it was held, e.g. `webchat`.
    pub channel: &'a str,
    /// The model's provider.
    pub provider: &'a str,
    /// The vendor's name of the model.
    pub model: &'a str,
    /// What made the turn: `chat`, `responses`, `hook`, `cli`.
    pub trigger: &'a str,
}

/// What a platform is told as it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measured {
    /// The first frame of a streamed answer that tells something of the turn went out, so long after the request's head
    /// came in.
    FirstByte(Duration),
    /// A turn ended, well or not.
    Turn,
    /// A turn failed, or was left unfinished.
    TurnError,
    /// A job was given up.
    DeadJob,
    /// Somebody who asked was told that no traffic may come.
    NotReady,
    /// A row of the store cannot be read.
    UnreadableRow,
}

/// Who is told. Does not block: requests and turns wait for it.
pub trait Sink: Send + Sync {
    /// This happened now.
    fn tell(&self, measured: Measured);
}

/// Keeps counts and times until they are scraped.
pub trait Ledger: Recorder + Send + Sync {
    /// Everything, in Prometheus' text format 0.0.4.
    fn render(&self) -> String;

    /// Puts what was observed one by one into histograms; until then it takes memory for each.
    fn fold(&self);
}

/// Counts and times. Cheap to record, rendered on demand.
pub struct Metrics {
    sink: Option<Arc<dyn Sink>>,
    ledger: Option<Box<dyn Ledger>>,
    seen: Mutex<BTreeMap<&'static str, BTreeSet<String>>>,
    since_fold: AtomicU32,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Kept here for whoever scrapes, with every count at zero.
    pub fn kept(ledger: impl Ledger + 'static) -> Self {
        let metrics = Self { ledger: Some(Box::new(ledger)), ..Self::told(None) };
        metrics.describe();
        metrics
    }

    /// Not kept: the sink, if there is one, is told from now on.
    pub fn told(sink: Option<Arc<dyn Sink>>) -> Self {
        Self { sink, ledger: None, seen: Mutex::new(BTreeMap::new()), since_fold: AtomicU32::new(0) }
    }

    /// A streamed answer told the first of its turn, `took` after the request's head came in. Answers in one piece have
    /// no such moment: their only one is the end of the turn.
    pub fn first_byte(&self, took: Duration) {
        self.tell(Measured::FirstByte(took));
    }

    /// An HTTP request was answered; `took` runs to the end of the answer's body.
    pub fn request(&self, status: u16, took: Duration) {
        self.counter("openclaw_requests_total", vec![Label::new("status", status.to_string())]).increment(1);
        self.observe("openclaw_request_duration_seconds", Vec::new(), took);
    }

    /// A turn ended. `outcome`: `completed`, `failed` or `parked`.
    pub fn run_completed(&self, run: RunLabels<'_>, outcome: &'static str, took: Duration) {
        let labels = || {
            vec![
                self.label("channel", run.channel),
                self.label("model", run.model),
                Label::from_static_parts("outcome", outcome),
                self.label("provider", run.provider),
                self.label("trigger", run.trigger),
            ]
        };
        self.counter("openclaw_run_completed_total", labels()).increment(1);
        self.observe("openclaw_run_duration_seconds", labels(), took);
        self.tell(Measured::Turn);
        if outcome == "failed" {
            self.tell(Measured::TurnError);
        }
    }

    /// A turn stopped without an end of its own: it is resumed later, or could not be run at all.
    pub fn run_broken_off(&self) {
        self.tell(Measured::TurnError);
    }

    /// A job was given up.
    pub fn job_dead(&self) {
        self.tell(Measured::DeadJob);
    }

    /// A check was told that no traffic may come.
    pub fn not_ready(&self) {
        self.tell(Measured::NotReady);
    }

    /// A row of this table cannot be read; told once per row and process.
    pub fn unreadable_row(&self, table: &'static str) {
        let labels = vec![Label::from_static_parts("table", table)];
        self.counter("reef_unreadable_rows_total", labels).increment(1);
        self.tell(Measured::UnreadableRow);
    }

    /// A model was called. `outcome`: `completed` or `error`.
    pub fn model_call(&self, provider: &str, model: &str, outcome: &'static str, took: Duration) {
        let labels = || {
            vec![
                self.label("model", model),
                Label::from_static_parts("outcome", outcome),
                self.label("provider", provider),
            ]
        };
        self.counter("openclaw_model_call_total", labels()).increment(1);
        self.observe("openclaw_model_call_duration_seconds", labels(), took);
    }

    /// Tokens of one model call.
    pub fn model_tokens(&self, provider: &str, model: &str, usage: &Usage) {
        let kinds = [
            ("input", usage.input_tokens.saturating_sub(usage.cached_tokens + usage.cache_write_tokens)),
            ("cache_read", usage.cached_tokens),
            ("cache_write", usage.cache_write_tokens),
            ("output", usage.output_tokens),
        ];
        for (kind, tokens) in kinds.into_iter().filter(|(_, tokens)| *tokens > 0) {
            let labels = vec![
                self.label("model", model),
                self.label("provider", provider),
                Label::from_static_parts("token_type", kind),
            ];
            self.counter("openclaw_model_tokens_total", labels).increment(tokens);
        }
    }

    /// A built-in tool ran. `outcome`: `completed` or `error`.
    pub fn tool_execution(&self, tool: &str, outcome: &'static str) {
        let labels = vec![Label::from_static_parts("outcome", outcome), self.label("tool", tool)];
        self.counter("openclaw_tool_execution_total", labels).increment(1);
    }

    /// A hook was called. `outcome`: `accepted`, `replayed` or `refused`.
    pub fn webhook_received(&self, hook: &'static str, outcome: &'static str) {
        let labels =
            vec![Label::from_static_parts("outcome", outcome), Label::from_static_parts("webhook", hook)];
        self.counter("openclaw_webhook_received_total", labels).increment(1);
    }

    /// A turn was accepted on a session.
    pub fn session_turn_created(&self, channel: &str, trigger: &str) {
        let labels = vec![self.label("channel", channel), self.label("trigger", trigger)];
        self.counter("openclaw_session_turn_created_total", labels).increment(1);
    }

    /// A request starts to wait in a lane (`session`: for its busy session). Pair with [`Metrics::lane_left`].
    pub fn lane_entered(&self, lane: &'static str) {
        self.lane(lane).increment(1.0);
    }

    /// A request left a lane, after that long.
    pub fn lane_left(&self, lane: &'static str, waited: Duration) {
        self.lane(lane).decrement(1.0);
        let labels = vec![Label::from_static_parts("lane", lane)];
        self.observe("openclaw_queue_lane_wait_seconds", labels, waited);
    }

    /// A client connected. Pair with [`Metrics::connection_closed`].
    pub fn connection_opened(&self) {
        self.gauge("reef_connections", Vec::new()).increment(1.0);
    }

    /// A connection ended; by us, if there is a reason: `write_timeout`, `head_timeout` or `drain`.
    pub fn connection_closed(&self, reason: Option<&'static str>) {
        self.gauge("reef_connections", Vec::new()).decrement(1.0);
        if let Some(reason) = reason {
            let labels = vec![Label::from_static_parts("reason", reason)];
            self.counter("reef_connections_closed_total", labels).increment(1);
        }
    }

    /// A connection was refused, because there were too many: `all`, or of one `address`.
    pub fn connection_refused(&self, reason: &'static str) {
        let labels = vec![Label::from_static_parts("reason", reason)];
        self.counter("reef_connections_refused_total", labels).increment(1);
    }

    /// Whether anything is kept for a scrape.
    pub fn is_kept(&self) -> bool {
        self.ledger.is_some()
    }

    /// How much waits in the queue at `now`.
    pub fn backlog(&self, backlog: &Backlog, now: Timestamp) {
        for (state, count) in [("due", backlog.due), ("hidden", backlog.hidden), ("dead", backlog.dead)] {
            let labels = vec![Label::from_static_parts("state", state)];
            self.gauge("reef_jobs", labels).set(to_f64(count));
        }
        self.gauge("reef_jobs_pending", Vec::new()).set(to_f64(backlog.due + backlog.hidden));
        let age = backlog.oldest_due.map(|since| now.since(since)).unwrap_or_default();
        self.gauge("reef_jobs_oldest_due_seconds", Vec::new()).set(age.as_secs_f64());
    }

    /// How many jobs this process works on at once, at most.
    pub fn worker_places(&self, all: usize) {
        self.gauge("reef_worker_places", Vec::new()).set(to_f64(all as u64));
    }

    /// How many jobs this process works on.
    pub fn worker_places_in_use(&self, in_use: usize) {
        self.gauge("reef_worker_places_in_use", Vec::new()).set(to_f64(in_use as u64));
    }

    /// What work has drawn of the memory that is lent to it, in bytes.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; memory is far below 2^53 bytes")]
    pub fn memory(&self, drawn: usize, total: usize) {
        self.gauge("reef_memory_budget_drawn_bytes", Vec::new()).set(drawn as f64);
        self.gauge("reef_memory_budget_bytes", Vec::new()).set(total as f64);
    }

    /// New work was refused, because there was no memory for it.
    pub fn memory_refused(&self) {
        self.counter("reef_memory_refusals_total", Vec::new()).increment(1);
    }

    /// Everything that is kept, in Prometheus' text format 0.0.4; `None` if nothing is.
    pub fn render(&self) -> Option<String> {
        let ledger = self.ledger.as_ref()?;
        if let Some(bytes) = resident_bytes() {
            self.gauge("openclaw_memory_rss_bytes", Vec::new()).set(to_f64(bytes));
        }
        Some(ledger.render())
    }

    fn tell(&self, measured: Measured) {
        if let Some(sink) = &self.sink {
            sink.tell(measured);
        }
    }

    fn lane(&self, lane: &'static str) -> Gauge {
        self.gauge("openclaw_queue_lane_size", vec![Label::from_static_parts("lane", lane)])
    }

    fn recorder(&self) -> &dyn Recorder {
        match &self.ledger {
            Some(ledger) => ledger.as_ref(),
            None => &NoopRecorder,
        }
    }

    fn counter(&self, name: &'static str, labels: Vec<Label>) -> Counter {
        self.recorder().register_counter(&Key::from_parts(name, labels), &METADATA)
    }

    fn gauge(&self, name: &'static str, labels: Vec<Label>) -> Gauge {
        self.recorder().register_gauge(&Key::from_parts(name, labels), &METADATA)
    }

    fn observe(&self, name: &'static str, labels: Vec<Label>, took: Duration) {
        let histogram: Histogram =
            self.recorder().register_histogram(&Key::from_parts(name, labels), &METADATA);
        histogram.record(took.as_secs_f64());
        if let Some(ledger) = &self.ledger
            && self.since_fold.fetch_add(1, Ordering::Relaxed) >= FOLD_EVERY
        {
            self.since_fold.store(0, Ordering::Relaxed);
            ledger.fold();
        }
    }

    /// The label, or `other` when its name has too many values already.
    fn label(&self, name: &'static str, value: &str) -> Label {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let values = seen.entry(name).or_default();
        if !values.contains(value) {
            if values.len() >= LABEL_VALUES {
                return Label::from_static_parts(name, "other");
            }
            values.insert(value.to_owned());
        }
        Label::new(name, value.to_owned())
    }

    fn describe(&self) {
        let counters = [
            ("openclaw_requests_total", "HTTP requests answered, without health checks and scrapes"),
            ("openclaw_run_completed_total", "Turns ended"),
            ("openclaw_model_call_total", "Model calls"),
            ("openclaw_model_tokens_total", "Tokens of model calls, as the vendor counted them"),
            ("openclaw_tool_execution_total", "Built-in tools run"),
            ("openclaw_webhook_received_total", "Hooks called"),
            ("openclaw_session_turn_created_total", "Turns accepted"),
            ("reef_connections_closed_total", "Connections that were ended here, not by the client"),
            ("reef_connections_refused_total", "Connections for which there was no place"),
            ("reef_unreadable_rows_total", "Rows of the store that this process could not read"),
            ("reef_memory_refusals_total", "Requests refused because the memory budget was drawn"),
        ];
        for (name, text) in counters {
            self.recorder().describe_counter(name.into(), None, text.into());
        }
        let gauges = [
            ("openclaw_queue_lane_size", "Requests waiting in a lane"),
            ("openclaw_memory_rss_bytes", "Resident memory of this process"),
            ("reef_connections", "Connections that are open"),
            (
                "reef_jobs",
                "Jobs by state, each counted up to 10,000: due, hidden (at work, or waiting for their time), dead",
            ),
            ("reef_jobs_pending", "Jobs that have not ended: the due and the hidden ones"),
            ("reef_jobs_oldest_due_seconds", "For how long the longest due job has been due"),
            ("reef_worker_places", "Jobs that this process works on at once, at most"),
            ("reef_worker_places_in_use", "Jobs that this process works on"),
            ("reef_memory_budget_bytes", "Memory that is lent to bodies, turns and listeners"),
            ("reef_memory_budget_drawn_bytes", "What bodies, turns and listeners have drawn of it"),
        ];
        for (name, text) in gauges {
            self.recorder().describe_gauge(name.into(), None, text.into());
        }
        let durations = [
            ("openclaw_request_duration_seconds", "Time from a request's head to the end of its answer"),
            ("openclaw_run_duration_seconds", "Time from a turn's acceptance to its end"),
            ("openclaw_model_call_duration_seconds", "Time of a model call, to the end of its stream"),
            ("openclaw_queue_lane_wait_seconds", "Time that a request waited in a lane"),
        ];
        for (name, text) in durations {
            self.recorder().describe_histogram(name.into(), None, text.into());
        }
    }
}

/// A gauge is a float.
#[expect(clippy::cast_precision_loss, reason = "no count and no memory comes near 2^53")]
fn to_f64(number: u64) -> f64 {
    number as f64
}

/// Resident memory, from the second field of Linux' `statm` in pages of 4 KiB; `None` elsewhere.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4096)
}
