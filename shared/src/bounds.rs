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

/// Most bytes of a request's head. Source: what common servers in front take (nginx 32 KiB in all, Node 16 KiB). It is also
/// how much of requests, and of an answer, a connection keeps in the process.
pub const HEAD_BYTES: usize = 32 * 1024;

/// Longest time for a request's head: a connection that sends nothing does not stay for ever. Source: nginx'
/// `client_header_timeout`.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest time in which a peer takes nothing of its answer, unless the settings say otherwise. Source: half of nginx'
/// `send_timeout`; who reads at all takes 64 KiB in that time.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Most connections, unless the settings say otherwise: with a socket to a model each, what 16,384 file descriptors are
/// enough for.
pub const CONNECTIONS: usize = 8_000;

/// Most connections of one address, unless the settings say otherwise: a browser opens six, a program with a pool some
/// tens. This host and trusted proxies, which speak for many, are not counted.
pub const CONNECTIONS_PER_ADDRESS: usize = 128;

/// Most tools that a request may bring. Source: OpenAI's limit.
pub const REQUEST_TOOLS: usize = 128;

/// Most audit rows that `reef audit list` counts before it says only that there are more: what a table on AWS answers in
/// about a second.
pub const AUDIT_COUNTED: usize = 10_000;

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
