//! Log lines for programs: one JSON object each.
//!
//! Every line belongs to one of three streams, told apart by its field `stream`: `access` (requests), `operation` (what
//! agents did, and what this process does) and `error`.

use crate::bounds::LOGGED_BYTES;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::quote::shortened;
use serde_json::Value;
use std::fmt;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// A time for programs: RFC 3339, UTC, milliseconds; `None` outside of the calendar.
pub fn rfc3339(at: Timestamp) -> Option<String> {
    let at = jiff::Timestamp::from_millisecond(at.as_millis()).ok()?;
    Some(at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

/// Logs panics as what they are, before whatever catches them.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("unknown");
        tracing::error!(target: "error", { place, cause = message }, "a panic: this is a bug of Reef");
    }));
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
#[derive(Debug, Clone, Copy)]
pub struct JsonLines;

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
        self.member(field, &Value::from(shortened(value.to_owned(), LOGGED_BYTES)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.member(field, &Value::from(shortened(format!("{value:?}"), LOGGED_BYTES)));
    }
}
