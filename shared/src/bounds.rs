//! Every bound of the product, in one place: how much of what is taken, and what is answered beyond it.
//!
//! The values stand here as constants, each with where its number comes from; the code that keeps a bound names its
//! constant. A bound with a setting is a field of the settings whose default is the constant. [`crate::config::Config::bounds`]
//! lists them all with the values in force.

use serde::Serialize;
use std::num::NonZeroUsize;
use std::time::Duration;

/// Most entries of a request's head. Source: hyper's own limit.
pub const REQUEST_HEADERS: usize = 100;

/// Longest time for a request's head: a connection that sends nothing does not stay for ever. Source: nginx'
/// `client_header_timeout`.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest time for a whole body to arrive. Source: OpenClaw's gateway.
pub const BODY_TIME: Duration = Duration::from_secs(30);

/// Most bytes of a hook's body. Source: OpenClaw's gateway.
pub const HOOK_BODY_BYTES: usize = 256 * 1024;

/// Most bytes of a body of `/tools/invoke`. Source: OpenClaw's gateway.
pub const TOOL_BODY_BYTES: usize = 2 * 1024 * 1024;

/// Most pictures of one message. Source, as of the two below: OpenClaw's gateway.
pub const MESSAGE_PICTURES: usize = 8;

/// Most bytes of one picture, decoded.
pub const PICTURE_BYTES: usize = 10 * 1024 * 1024;

/// Most bytes of all pictures of a request, decoded.
pub const PICTURES_BYTES: usize = 20 * 1024 * 1024;

/// Most bytes of a file in a request, decoded. Source: OpenClaw's gateway.
pub const INPUT_FILE_BYTES: usize = 5 * 1024 * 1024;

/// Most characters of such a file's name: a line of a prompt.
pub const INPUT_FILE_NAME_CHARS: usize = 120;

/// Longest name of a tool. Source: OpenAI's limit.
pub const TOOL_NAME_BYTES: usize = 64;

/// Most texts before which a reply ends. Source: OpenAI's limit.
pub const STOP_TEXTS: usize = 4;

/// Most entries of `metadata`. Source: the Open Responses specification, and OpenAI's for the keys.
pub const METADATA_ENTRIES: usize = 16;

/// Most characters of a key of `metadata`.
pub const METADATA_KEY_CHARS: usize = 64;

/// Most characters of a value of `metadata`.
pub const METADATA_VALUE_CHARS: usize = 512;

/// Longest id of an agent: part of names of sessions, folders and models.
pub const AGENT_ID_BYTES: usize = 64;

/// Longest name of a session as a caller gives it: with the agent's before it, below the 1,024 bytes of a key of DynamoDB.
pub const SESSION_KEY_BYTES: usize = 512;

/// Longest name of an end user: part of a session's name.
pub const USER_BYTES: usize = 256;

/// Longest name of a model, `provider/model`: a label of a metric. The longest of the vendors' have a hundred letters.
pub const MODEL_BYTES: usize = 256;

/// Longest name of a channel: a label of a metric.
pub const CHANNEL_BYTES: usize = 64;

/// Longest idempotency key. Source: Stripe's limit, which clients know.
pub const IDEMPOTENCY_KEY_BYTES: usize = 255;

/// Longest id of a request of the caller's choice: it stands in every log line.
pub const REQUEST_ID_BYTES: usize = 128;

/// Longest name of a hook's sender: one line for people.
pub const HOOK_NAME_CHARS: usize = 100;

/// Longest wait of a hook for its turn's end; a longer turn goes on all the same. As long as a turn may take.
pub const HOOK_WAIT: Duration = Duration::from_secs(600);

/// Most sessions of a page. Source: OpenAI's limit for lists.
pub const SESSIONS_PAGE: usize = 100;

/// Most messages of a page of a transcript.
pub const TRANSCRIPT_PAGE: usize = 500;

/// Bytes of messages with which such a page ends: a tenth of what the guide's smallest machine has for a process.
pub const TRANSCRIPT_PAGE_BYTES: usize = 8 * 1024 * 1024;

/// Failed log-ins of an address before it is locked out. Source of all four: OpenClaw's gateway.
pub const LOGIN_FAILURES: u32 = 10;

/// The same at the door of hooks.
pub const HOOK_LOGIN_FAILURES: u32 = 20;

/// Failures count together within this time.
pub const LOGIN_WINDOW: Duration = Duration::from_secs(60);

/// How long an address is locked out.
pub const LOCKOUT: Duration = Duration::from_secs(300);

/// Addresses with failed log-ins that a process remembers: about 100 bytes each.
pub const ADDRESSES_REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// Tokens that a process keeps at hand: about half a kilobyte each.
pub const TOKENS_REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// How often a turn is resumed without recording anything new. What comes from outside – a deployment, a machine that
/// goes – hardly meets the same step so often; a step that is too much for its process ends it each time, takes others
/// along, and costs a model call.
pub const RESUMPTIONS: u32 = 5;

/// Most messages read for one prompt. A compaction keeps a session far below; a client may import a long history.
pub const PROMPT_MESSAGES: usize = 4_096;

/// Most characters of one file of instructions. Source: OpenClaw's `bootstrapMaxChars`.
pub const INSTRUCTION_FILE_CHARS: usize = 20_000;

/// Most characters of all files of instructions together. Source: OpenClaw's `bootstrapTotalMaxChars`.
pub const INSTRUCTIONS_CHARS: usize = 60_000;

/// Workspaces whose instructions a process keeps: with [`INSTRUCTIONS_CHARS`] each a few tens of megabytes at most.
pub const INSTRUCTIONS_REMEMBERED: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Most bytes of all transcripts that a process keeps for the next turn on their session.
pub const TRANSCRIPTS_REMEMBERED_BYTES: usize = 4 * 1024 * 1024;

/// Most bytes of one of them: a longer one is seldom, and would push many others out.
pub const TRANSCRIPT_REMEMBERED_BYTES: usize = 256 * 1024;

/// Longest path of a tool's file. Source: Linux's own `PATH_MAX`.
pub const PATH_BYTES: usize = 4_096;

/// Most bytes of one answer of `read`: about 64,000 tokens of English.
pub const READ_BYTES: u64 = 256 * 1024;

/// Most bytes of one call of `write` or `append`.
pub const WRITE_BYTES: usize = 1024 * 1024;

/// Most entries in one answer of `ls`: about 40 KB of text.
pub const LISTED_ENTRIES: usize = 1_000;

/// A file grows no longer than so many bytes, so that an agent in a loop fills no disk with one.
pub const FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Longest piece of a vendor's words that is passed on.
pub const VENDOR_WORDS_CHARS: usize = 300;

/// Longest wait before a vendor is asked again.
pub const VENDOR_WAIT: Duration = Duration::from_secs(20);

/// How long an idempotency key and its answer are kept.
pub const KEYS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How long a job is kept that is done: as long as a message about it may lie in SQS, dead letters included.
pub const DONE_JOBS_KEPT: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Most characters of anybody's value that a sentence of ours quotes: enough to find it by.
pub const QUOTED_CHARS: usize = 100;

/// Longest sentence about a failure, for callers and in the log: several lines.
pub const ERROR_BYTES: usize = 2_000;

/// Longest value of one field of a log line.
pub const LOGGED_BYTES: usize = 4 * 1024;

/// Log lines that may wait for whoever reads them: a few megabytes.
pub const LOG_LINES: usize = 8_192;

/// Most different values of one label of a metric; a site has some tens of models, agents and tools.
pub const LABEL_VALUES: usize = 200;

/// Most bytes of the settings' file: some thousands of agents.
pub const SETTINGS_BYTES: usize = 4 * 1024 * 1024;

/// Most problems of the settings that are told at once.
pub const SETTINGS_PROBLEMS: usize = 100;

/// Threads that run turns, at most: a turn waits much and computes little.
pub const THREADS: usize = 4;

/// Most bytes of one item of DynamoDB. Source: its 400 KB, less room for everything but the body.
pub const ITEM_BYTES: usize = 300 * 1024;

/// Most bytes of one step in DynamoDB. Source: its 4 MB for a transaction.
pub const STEP_BYTES: usize = 3_500_000;

/// Longest name of a file in S3. Source: S3's own limit for keys.
pub const OBJECT_KEY_BYTES: usize = 1_024;

/// Most regions of one installation: an epoch is a number whose remainder by this says whose it is.
pub const REGIONS: u64 = 16;

/// A function that says nothing for so long is dead: it sends an empty line every 10 s, and starts within seconds.
pub const FUNCTION_SILENCE: Duration = Duration::from_secs(45);

/// Most bytes of a request's body unless the settings say otherwise: a picture or two as data URLs, and twenty bodies at
/// once within the memory of the guide's smallest machine (1 GB).
pub const BODY_BYTES: usize = 20 * 1024 * 1024;

/// Most bytes of a request's head. Source: what common servers in front take (nginx 32 KiB in all, Node 16 KiB). It is also
/// how much of requests, and of an answer, a connection keeps in the process.
pub const HEAD_BYTES: usize = 32 * 1024;

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
    /// Characters.
    Chars,
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

impl Bound {
    /// The value for people: `20 MiB`, `128`, `60 s`.
    pub fn amount(&self) -> String {
        const MIB: u64 = 1024 * 1024;
        const DAY: u64 = 24 * 60 * 60 * 1000;
        let Self { value, unit, .. } = *self;
        match unit {
            Unit::Bytes if value >= MIB && value.is_multiple_of(MIB) => format!("{} MiB", value / MIB),
            Unit::Bytes if value >= 1024 && value.is_multiple_of(1024) => format!("{} KiB", value / 1024),
            Unit::Bytes => format!("{} bytes", grouped(value)),
            Unit::Count => grouped(value),
            Unit::Chars => format!("{} characters", grouped(value)),
            Unit::Levels => format!("{} levels", grouped(value)),
            Unit::Millis if value >= DAY && value.is_multiple_of(DAY) => format!("{} days", value / DAY),
            Unit::Millis if value.is_multiple_of(1000) => format!("{} s", grouped(value / 1000)),
            Unit::Millis => format!("{} ms", grouped(value)),
        }
    }
}

/// A number with a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_shown_with_its_unit() {
        let shown = |value, unit| Bound { name: "a.b", value, unit, setting: None, beyond: "" }.amount();
        assert_eq!(shown(20 * 1024 * 1024, Unit::Bytes), "20 MiB");
        assert_eq!(shown(256 * 1024, Unit::Bytes), "256 KiB");
        assert_eq!(shown(3_500_000, Unit::Bytes), "3,500,000 bytes");
        assert_eq!(shown(128, Unit::Count), "128");
        assert_eq!(shown(1_000, Unit::Chars), "1,000 characters");
        assert_eq!(shown(64, Unit::Levels), "64 levels");
        assert_eq!(shown(30 * 24 * 60 * 60 * 1000, Unit::Millis), "30 days");
        assert_eq!(shown(600_000, Unit::Millis), "600 s");
        assert_eq!(shown(50, Unit::Millis), "50 ms");
    }
}
