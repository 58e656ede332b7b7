//! What commands print: tables for people, JSON for programs, times in the operator's zone beside UTC.

use crate::host::HostArgs;
use clap::Args;
use comfy_table::{Table, presets};
use jiff::tz::TimeZone;
use serde_json::Value;
use shared::clock::Timestamp;
use std::io::{self, Write};

pub(crate) use shared::logs::rfc3339;

/// The option of every command that prints a table.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct OutputArgs {
    /// Print JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where a command's answer goes.
#[derive(Debug)]
pub(crate) struct Output {
    /// Whether a program reads it.
    pub(crate) json: bool,
    zone: TimeZone,
}

impl Output {
    pub(crate) fn new(args: OutputArgs, host: &HostArgs) -> Self {
        // JSON says times in UTC only.
        let zone = if args.json { TimeZone::UTC } else { host.time_zone() };
        Self { json: args.json, zone }
    }

    /// A time for people: UTC, and beside it the operator's zone, if it is another one.
    pub(crate) fn time(&self, at: Timestamp) -> String {
        let Some(at) = instant(at) else { return "out of range".to_owned() };
        let utc = at.to_zoned(TimeZone::UTC);
        let local = at.to_zoned(self.zone.clone());
        let shown = utc.strftime("%Y-%m-%d %H:%M:%SZ");
        if local.offset() == utc.offset() {
            shown.to_string()
        } else if local.date() == utc.date() {
            format!("{shown} ({})", local.strftime("%H:%M:%S %:::z"))
        } else {
            format!("{shown} ({})", local.strftime("%m-%d %H:%M:%S %:::z"))
        }
    }

    /// Says what there is beyond what was shown: behind a table, beside JSON.
    pub(crate) fn more(&self, note: Option<String>) -> io::Result<()> {
        match note {
            Some(note) if self.json => writeln!(io::stderr().lock(), "reef: {note}"),
            Some(note) => line(&format!("\n{note}")),
            None => Ok(()),
        }
    }

    /// A time that may be missing.
    pub(crate) fn maybe_time(&self, at: Option<Timestamp>) -> String {
        at.map_or_else(|| "-".to_owned(), |at| self.time(at))
    }
}

/// How many rows a command prints at most. None at all is nothing that anybody asks for: an empty table would look like
/// empty data.
pub(crate) fn limit(text: &str) -> Result<usize, String> {
    let wrong = || "write a whole number from 1 on, e.g. 100".to_owned();
    text.trim().parse().ok().filter(|limit| *limit > 0).ok_or_else(wrong)
}

/// Cuts a list, for which one more than `limit` was asked, to what is shown; says so if there are more.
pub(crate) fn cut<R>(rows: &mut Vec<R>, limit: usize, what: &str) -> Option<String> {
    let is_more = rows.len() > limit;
    rows.truncate(limit);
    is_more.then(|| format!("there are more {what} than these {limit}; see --limit"))
}

fn instant(at: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(at.as_millis()).ok()
}

/// Prints JSON.
pub(crate) fn json(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    writeln!(out)?;
    out.flush()
}

/// Prints a table, or a sentence instead of an empty one.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: Vec<[String; N]>,
    empty: &str,
) -> io::Result<()> {
    if rows.is_empty() {
        return line(empty);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| clean(&cell).replace('\n', " ")));
    }
    // The first and the last column are padded, too.
    for row in table.lines() {
        line(row.trim())?;
    }
    Ok(())
}

/// Prints one line.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Text from outside for a terminal: what would steer it is made visible instead.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\t' => out.push(letter),
            _ if letter.is_control() => out.extend(letter.escape_default()),
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(zone: &str) -> Output {
        Output { json: false, zone: TimeZone::get(zone).unwrap() }
    }

    #[test]
    fn a_time_is_shown_in_utc_and_beside_it_in_the_operators_zone() {
        let at = Timestamp::from_millis(1_795_192_801_000);
        assert_eq!(output("UTC").time(at), "2026-11-20 16:40:01Z");
        assert_eq!(output("Europe/Berlin").time(at), "2026-11-20 16:40:01Z (17:40:01 +01)");
        assert_eq!(output("Asia/Tokyo").time(at), "2026-11-20 16:40:01Z (11-21 01:40:01 +09)");
        assert_eq!(output("Asia/Kolkata").time(at), "2026-11-20 16:40:01Z (22:10:01 +05:30)");
        assert_eq!(rfc3339(at).unwrap(), "2026-11-20T16:40:01.000Z");
    }

    #[test]
    fn text_from_outside_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\tc\nd\u{7}é"), "a\\u{1b}[2Jb\tc\nd\\u{7}é");
    }
}
