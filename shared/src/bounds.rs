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

/// Most levels of objects and lists within each other in a request's body. What is stored of a request stands some levels
/// deeper (work > turn > options > echo), and must stay below [`STORED_LEVELS`]. Source: twice what OpenAI takes of a schema
/// (10 levels of objects, each of which is `properties` and a name), and half of what can be read back.
pub const BODY_LEVELS: usize = 64;

/// Most levels of what is stored as JSON. Source: `serde_json` reads 127 levels and refuses the 128th.
pub const STORED_LEVELS: usize = 127;

/// Most levels of objects and lists in the settings' file, brackets in its comments counted. Source: ten times what any setting
/// needs; the reader of JSON5 goes down by calling itself and dies of a hundred thousand.
pub const SETTINGS_LEVELS: usize = 128;

/// Most rows that one process tells of by their ids when it cannot read them; further ones are only counted. Source: more
/// lines than a person reads, in less memory than a request takes.
pub const UNREADABLE_TOLD: usize = 1_000;

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
