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

/// Bytes that a token may bring for each request of its rate, unless the settings say otherwise: at the guide's ten requests
/// a second about a megabyte a second, so that one token takes hours, not minutes, for a disk of 20 GB.
pub const BYTES_PER_REQUEST: u32 = 100 * 1024;

/// How far a token may be ahead of its rate of bytes: at a megabyte a second a quarter of a gigabyte.
pub const BYTES_AT_ONCE_SECONDS: Duration = Duration::from_secs(256);

/// What a token may bring at once however low its rate: three of the largest bodies.
pub const BYTES_AT_ONCE_LEAST: usize = 3 * BODY_BYTES;

/// Long reads of the embedded store – listings, long transcripts – that are at work at once: as many as it keeps
/// connections for, and more than the smallest machine has cores.
pub const READS_ASIDE: usize = 4;

/// How long a long read waits for its place. One takes some milliseconds; whoever waits longer is told to come again.
pub const READ_ASIDE_WAIT: Duration = Duration::from_secs(5);

/// How long a write of the embedded store waits for another process's. Longer than the longest transaction, shorter than
/// a caller's patience.
pub const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Free pages that the embedded store keeps for what comes next; further ones are given back to the disk. 4 MB: the churn
/// of ordinary turns stays below it.
pub const FREE_PAGES_KEPT: u32 = 1024;

/// Free pages that are given back in one step: 1 MB, some milliseconds of the writer's time.
pub const FREE_PAGES_PER_STEP: u32 = 256;

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
