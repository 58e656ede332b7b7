//! Every bound of the product, in one place: how much of what is taken, and what is answered beyond it.
//!
//! The values stand here as constants, each with where its number comes from; the code that keeps a bound names its
//! constant. A bound with a setting is a field of the settings whose default is the constant. [`crate::config::Config::bounds`]
//! lists them all with the values in force.

use serde::Serialize;

/// Most bytes of a request's body unless the settings say otherwise: a picture or two as data URLs, and twenty bodies at
/// once within the memory of the guide's smallest machine (1 GB).
pub const BODY_BYTES: usize = 20 * 1024 * 1024;

/// Most tools that a request may bring. Source: OpenAI's limit.
pub const REQUEST_TOOLS: usize = 128;

/// Most entries of `messages` or `input`: as many as are read for one prompt, so that a client that repeats a long
/// history is not refused before it would be cut anyway.
pub const REQUEST_MESSAGES: usize = 4_096;

/// Most parts of one message: some hundred pages as pictures or pieces of text.
pub const MESSAGE_PARTS: usize = 512;

/// Most JSON values in one body, counted roughly (commas and opening brackets outside of texts): thirty for each of
/// [`REQUEST_MESSAGES`]. A small value takes up to some hundred times its bytes once it is read.
pub const BODY_VALUES: usize = 128 * 1024;

/// A body below this is not counted for its values: it cannot hold many.
pub const COUNTED_BODY_BYTES: usize = 64 * 1024;

/// What is lent of the memory budget for each byte of a body until its turn is accepted: the body, its texts, the turn's
/// input as it is stored, and what that takes on its way to the disk. Measured: 5.5 for bodies of 19 MB.
pub const BODY_WEIGHT: usize = 6;

/// What is lent for each value of a body that is counted ([`COUNTED_BODY_BYTES`]): a small object takes one node of a map.
pub const VALUE_WEIGHT: usize = 640;

/// Most bytes of an answer for each token that its model may write. A token is about four letters of English or one of
/// Japanese; the longest common ones, of white space, are sixteen.
pub const ANSWER_BYTES_PER_TOKEN: usize = 16;

/// Bytes that an answer may have however few tokens were asked for: some servers take no limit, and so much harms nobody.
pub const ANSWER_LEAST_BYTES: usize = 64 * 1024;

/// Most bytes of one answer, and of all text of a turn: twice what the longest models write (128,000 tokens), and so
/// much that its message and its outcome still fit into one step on DynamoDB (3.5 MB).
pub const ANSWER_BYTES: usize = 1536 * 1024;

/// Most tool calls in one answer: as many as a request may bring tools.
pub const ANSWER_CALLS: usize = REQUEST_TOOLS;

/// Most bytes that are read from a vendor for one answer, frames and reasoning included: 128,000 tokens in frames of 500
/// bytes each.
pub const ANSWER_WIRE_BYTES: usize = 64 * 1024 * 1024;

/// Most bytes of one event of a vendor's stream: a whole answer in one event, its quotes escaped.
pub const VENDOR_EVENT_BYTES: usize = 4 * 1024 * 1024;

/// Most bytes of a vendor's error that are read.
pub const VENDOR_ERROR_BYTES: usize = 64 * 1024;

/// Most bytes that a turn records on its way, calls and results together: sixteen of the largest files that a tool
/// writes at once.
pub const TURN_BYTES: usize = 16 * 1024 * 1024;

/// Most bytes of a turn that wait for a listener who does not read. He hears what he missed at the turn's end.
pub const LISTENER_BYTES: usize = 256 * 1024;

/// Most bytes of one line between two functions: a turn's outcome, escaped.
pub const HOP_LINE_BYTES: usize = 16 * 1024 * 1024;

/// Most bytes of an answer for which at most `tokens` were asked; `None` if the vendor decided.
pub fn answer_bytes(tokens: Option<u32>) -> usize {
    let asked = tokens.and_then(|tokens| usize::try_from(tokens).ok());
    asked.map_or(ANSWER_BYTES, |tokens| {
        tokens.saturating_mul(ANSWER_BYTES_PER_TOKEN).clamp(ANSWER_LEAST_BYTES, ANSWER_BYTES)
    })
}

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
