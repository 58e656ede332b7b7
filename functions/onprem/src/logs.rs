//! Logs, on standard error: for people on a terminal, one JSON object a line otherwise.
//!
//! Every line belongs to one of three streams, told apart by its field `stream`: `access` (requests), `operation` (what
//! agents did, and what this process does) and `error`. Lines are written by a thread of their own, so that no turn
//! waits for a slow terminal; behind a stuck one the newest lines are dropped, and the last line says how many.

use crate::fault::Fault;
use crate::host;
use crate::output::rfc3339;
use serde_json::Value;
use shared::clock::{Clock, SystemClock};
use std::fmt;
use std::io::{self, IsTerminal, Write as _};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Lines that may wait for the terminal: a few megabytes.
const WAITING_LINES: usize = 8192;

/// Keeps the writing thread; dropped last, it writes what still waits.
pub(crate) struct Logs {
    guard: Option<WorkerGuard>,
    dropped: ErrorCounter,
}

/// Starts logging. `REEF_LOG` says what, e.g. `info,access=off` or `debug`; default `info`.
pub(crate) fn start() -> Result<Logs, Fault> {
    let wanted = host::variable("REEF_LOG").filter(|text| !text.trim().is_empty());
    let filter: Targets = wanted.as_deref().unwrap_or("info").parse().map_err(|error| {
        Fault::because("REEF_LOG is not understood; write e.g. info, debug or info,access=off", &error)
    })?;
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).lossy(true).finish(io::stderr());
    let dropped = writer.error_counter();
    let registry = tracing_subscriber::registry().with(filter);
    if io::stderr().is_terminal() {
        registry.with(for_people(writer)).init();
    } else {
        let lines = tracing_subscriber::fmt::layer().event_format(JsonLines).fmt_fields(JsonFields::new());
        registry.with(lines.with_writer(writer)).init();
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("unknown");
        tracing::error!(target: "error", { place, cause = message }, "a panic: this is a bug of Reef");
    }));
    Ok(Logs { guard: Some(guard), dropped })
}

fn for_people<S>(writer: NonBlocking) -> impl tracing_subscriber::Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_subscriber::fmt::layer().compact().with_timer(Utc).with_writer(writer)
}

impl Drop for Logs {
    fn drop(&mut self) {
        self.guard.take();
        let dropped = self.dropped.dropped_lines();
        if dropped > 0 {
            let _ = writeln!(
                io::stderr().lock(),
                "reef: {dropped} log lines were dropped: standard error was stuck"
            );
        }
    }
}

struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str(&rfc3339(SystemClock.now()).unwrap_or_default())
    }
}

/// Which stream a line belongs to.
fn stream(metadata: &Metadata<'_>) -> &'static str {
    match metadata.target() {
        "access" => "access",
        "error" => "error",
        _ if *metadata.level() == Level::ERROR => "error",
        _ => "operation",
    }
}

/// One JSON object a line: `ts`, `level`, `stream`, `message`, the event's own fields, those of the spans around it.
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let ts = rfc3339(SystemClock.now()).unwrap_or_default();
        let level = metadata.level().as_str().to_ascii_lowercase();
        write!(writer, "{{\"ts\":\"{ts}\",\"level\":\"{level}\",\"stream\":\"{}\"", stream(metadata))?;
        let mut fields = JsonMembers { writer: &mut writer, done: Ok(()) };
        event.record(&mut fields);
        fields.done?;
        for span in context.event_scope().into_iter().flatten() {
            // A span that the event repeats is left out whole: no key comes twice.
            let repeated =
                span.metadata().fields().iter().any(|field| metadata.fields().field(field.name()).is_some());
            let extensions = span.extensions();
            let formatted = extensions.get::<FormattedFields<N>>().filter(|_| !repeated);
            let members = formatted.and_then(|fields| fields.fields.strip_prefix('{')?.strip_suffix('}'));
            if let Some(members) = members.filter(|members| !members.is_empty()) {
                write!(writer, ",{members}")?;
            }
        }
        writer.write_str("}\n")
    }
}

/// Writes fields as members of an object, each behind a comma.
struct JsonMembers<'a, 'w> {
    writer: &'a mut Writer<'w>,
    done: fmt::Result,
}

impl JsonMembers<'_, '_> {
    fn member(&mut self, field: &Field, value: &Value) {
        if self.done.is_ok() {
            self.done = write!(self.writer, ",\"{}\":{value}", field.name());
        }
    }
}

impl Visit for JsonMembers<'_, '_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // Thousandths are as fine as our times are.
        self.member(field, &Value::from((value * 1000.0).round() / 1000.0));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, &Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, &Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, &Value::from(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, &Value::from(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field, &Value::from(format!("{value:?}")));
    }
}
