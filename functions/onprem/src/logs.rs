//! Logs, on standard error: for people on a terminal, one JSON object a line otherwise.
//!
//! Lines are written by a thread of their own, so that no turn waits for a slow terminal; behind a stuck one the newest
//! lines are dropped, and the last line says how many.

use crate::fault::Fault;
use crate::host;
use shared::clock::{Clock, SystemClock};
use shared::logs::{JsonLines, LocalZone, report_panics};
use std::fmt;
use std::io::{self, IsTerminal, Write as _};
use tracing::Subscriber;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::FormatTime;
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

/// Starts logging, with times in UTC and in this zone. `REEF_LOG` says what, e.g. `info,access=off` or `debug`; default
/// `info`.
pub(crate) fn start(zone: LocalZone) -> Result<Logs, Fault> {
    let wanted = host::variable("REEF_LOG").filter(|text| !text.trim().is_empty());
    let filter: Targets = wanted.as_deref().unwrap_or("info").parse().map_err(|error| {
        Fault::because("REEF_LOG is not understood; write e.g. info, debug or info,access=off", &error)
    })?;
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES).lossy(true).finish(io::stderr());
    let dropped = writer.error_counter();
    let registry = tracing_subscriber::registry().with(filter);
    if io::stderr().is_terminal() {
        registry.with(for_people(writer, zone)).init();
    } else {
        let json = JsonLines::default();
        json.set_zone(zone);
        let lines = tracing_subscriber::fmt::layer().event_format(json).fmt_fields(JsonFields::new());
        registry.with(lines.with_writer(writer)).init();
    }
    report_panics();
    Ok(Logs { guard: Some(guard), dropped })
}

fn for_people<S>(writer: NonBlocking, zone: LocalZone) -> impl tracing_subscriber::Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_subscriber::fmt::layer().compact().with_timer(BothTimes(zone)).with_writer(writer)
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

/// UTC, and beside it the zone of the settings.
struct BothTimes(LocalZone);

impl FormatTime for BothTimes {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str(&self.0.both(SystemClock.now()).unwrap_or_default())
    }
}
