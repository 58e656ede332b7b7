//! Every bound of the product, in one place: how much of what is taken, and what is answered beyond it.
//!
//! The values stand here as constants, each with where its number comes from; the code that keeps a bound names its
//! constant. A bound with a setting is a field of the settings whose default is the constant. [`crate::config::Config::bounds`]
//! lists them all with the values in force.

use serde::Serialize;
use std::time::Duration;

/// Most bytes of a request's body unless the settings say otherwise: a picture or two as data URLs, and twenty bodies at
/// once within the memory of the guide's smallest machine (1 GB).
pub const BODY_BYTES: usize = 20 * 1024 * 1024;

/// Most tools that a request may bring. Source: OpenAI's limit.
pub const REQUEST_TOOLS: usize = 128;

/// By how much two clocks of one installation may differ before what one of them wrote counts as written by a wrong one.
/// Source: clocks kept by NTP differ by less than a tenth of a second, machines whose clock nobody keeps by a few seconds
/// in a month.
pub const CLOCK_SLACK: Duration = Duration::from_secs(5);

/// Most places of one token, of so many that a worker has: all but a quarter, and at least two are left. What is left is for
/// others, for a job holds its place for as long as its vendor is silent.
pub const fn most_of_token(places: usize) -> usize {
    let left = if places / 4 > 2 { places / 4 } else { 2 };
    if places > left + 1 { places - left } else { 1 }
}

/// Most places of one agent, and of one vendor, where there are others: all but one.
pub const fn most_of_other(places: usize) -> usize {
    if places > 2 { places - 1 } else { 1 }
}

/// Up to so many jobs of a state are counted for a scrape: about a millisecond's look at an index. Whoever has more knows
/// enough.
pub const BACKLOG_COUNTED: usize = 10_000;

/// Different pairs of an agent and a token whose waiting jobs are looked at when some are left aside: some 10 us each.
pub const LANES_LOOKED_AT: usize = 4_096;

/// Jobs that a queue on AWS looks at when some are left aside: each is a read.
pub const JOBS_LOOKED_AT: usize = 100;

/// What a bound counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things.
    Count,
    /// Levels of nesting.
    Levels,
    /// Milliseconds.
    Millis,
}

/// One bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bound {
    /// `what.of`, e.g. `request.tools`: unique.
    pub name: &'static str,
    /// The greatest value that is taken.
    pub value: u64,
    /// What the value counts.
    pub unit: Unit,
    /// The setting that changes it, e.g. `gateway.maxBodyBytes`; `None` if none does.
    pub setting: Option<&'static str>,
    /// What happens beyond it, e.g. `413 payload_too_large`.
    pub beyond: &'static str,
}
