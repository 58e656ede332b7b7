//! Log lines for programs: one JSON object each.
//!
//! Every line belongs to one of three streams, told apart by its field `stream`: `access` (requests), `operation` (what
//! agents did, and what this process does) and `error`. Each has its time in UTC (`ts`) and, where the settings name
//! another zone, beside it in that zone (`ts.local`): people compare logs with their own clock.

use crate::clock::{Clock, SystemClock, Timestamp};
use jiff::Zoned;
use jiff::tz::TimeZone;
use serde_json::Value;
use std::fmt;
use std::sync::{Arc, OnceLock};
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

/// The zone in which people read times, beside UTC.
#[derive(Debug, Clone)]
pub struct LocalZone(TimeZone);

impl LocalZone {
    /// By its IANA name, as the settings have it; UTC for a name that there is not, which the settings' check refuses.
    pub fn named(name: &str) -> Self {
        Self(TimeZone::get(name).unwrap_or(TimeZone::UTC))
    }

    /// None but UTC: before the settings are read.
    pub const fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// The time in the zone for programs, e.g. `2026-11-21T01:40:01.000+09:00`; `None` in UTC itself.
    pub fn rfc3339(&self, at: Timestamp) -> Option<String> {
        Some(self.local(at)?.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string())
    }

    /// The time for people: UTC, and behind it in the zone, if that is another time.
    pub fn both(&self, at: Timestamp) -> Option<String> {
        let utc = rfc3339(at)?;
        Some(match self.local(at) {
            Some(local) => format!("{utc} ({})", local.strftime("%m-%d %H:%M:%S %:::z")),
            None => utc,
        })
    }

    /// The time in the zone, if that is another one than in UTC.
    fn local(&self, at: Timestamp) -> Option<Zoned> {
        if self.0 == TimeZone::UTC {
            return None;
        }
        let local = jiff::Timestamp::from_millisecond(at.as_millis()).ok()?.to_zoned(self.0.clone());
        (local.offset().seconds() != 0).then_some(local)
    }
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

/// One JSON object a line: `ts`, `ts.local`, `level`, `stream`, `message`, the event's own fields, those of the spans
/// around it.
#[derive(Debug, Clone, Default)]
pub struct JsonLines {
    /// Set once the settings are read: what is wrong with them is logged, too.
    zone: Arc<OnceLock<LocalZone>>,
}

impl JsonLines {
    /// Has the lines from now on say the time in this zone, too. The first one counts.
    pub fn set_zone(&self, zone: LocalZone) {
        let _ = self.zone.set(zone);
    }
}

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
        let now = SystemClock.now();
        let ts = rfc3339(now).unwrap_or_default();
        write!(writer, "{{\"ts\":\"{ts}\"")?;
        if let Some(local) = self.zone.get().and_then(|zone| zone.rfc3339(now)) {
            write!(writer, ",\"ts.local\":\"{local}\"")?;
        }
        let level = metadata.level().as_str().to_ascii_lowercase();
        write!(writer, ",\"level\":\"{level}\",\"stream\":\"{}\"", stream(metadata))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_said_in_utc_and_in_the_zone_that_people_read() {
        let at = Timestamp::from_millis(1_795_192_801_000);
        let told = |zone: &LocalZone| (zone.rfc3339(at), zone.both(at).unwrap());
        let utc = "2026-11-20T16:40:01.000Z";
        for zone in
            [LocalZone::utc(), LocalZone::named("Nowhere/Land"), LocalZone::named("Atlantic/Reykjavik")]
        {
            assert_eq!(told(&zone), (None, utc.to_owned()));
        }
        for (name, rfc3339, both) in [
            ("Asia/Tokyo", "2026-11-21T01:40:01.000+09:00", "11-21 01:40:01 +09"),
            ("America/St_Johns", "2026-11-20T13:10:01.000-03:30", "11-20 13:10:01 -03:30"),
        ] {
            let expected = (Some(rfc3339.to_owned()), format!("{utc} ({both})"));
            assert_eq!(told(&LocalZone::named(name)), expected);
        }
    }
}
