//! The rows, group by group.

use crate::bounds::{self, Bound, Unit};
use crate::config::Config;
use std::time::Duration;

type Setting = Option<&'static str>;

fn row(name: &'static str, value: usize, unit: Unit, setting: Setting, beyond: &'static str) -> Bound {
    // No value here is above 2^53.
    Bound { name, value: value as u64, unit, setting, beyond }
}

fn count(name: &'static str, value: usize, setting: Setting, beyond: &'static str) -> Bound {
    row(name, value, Unit::Count, setting, beyond)
}

fn bytes(name: &'static str, value: usize, setting: Setting, beyond: &'static str) -> Bound {
    row(name, value, Unit::Bytes, setting, beyond)
}

fn chars(name: &'static str, value: usize, setting: Setting, beyond: &'static str) -> Bound {
    row(name, value, Unit::Chars, setting, beyond)
}

fn time(name: &'static str, value: Duration, setting: Setting, beyond: &'static str) -> Bound {
    let value = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    Bound { name, value, unit: Unit::Millis, setting, beyond }
}

/// A number that is kept in fewer bits or more than a size has.
fn size(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}

/// What a request may bring.
pub(super) fn requests() -> Vec<Bound> {
    vec![
        count("request.headers", bounds::REQUEST_HEADERS, None, "431, and the connection is closed"),
        time("request.headTime", bounds::HEAD_TIMEOUT, None, "the connection is closed"),
        time("request.bodyTime", bounds::BODY_TIME, None, "408 request_timeout"),
        bytes("request.hookBody", bounds::HOOK_BODY_BYTES, None, "413 payload_too_large, on `/hooks/…`"),
        bytes("request.toolBody", bounds::TOOL_BODY_BYTES, None, "413 payload_too_large, on `/tools/invoke`"),
        count(
            "request.pictures",
            bounds::MESSAGE_PICTURES,
            None,
            "400 invalid, naming the picture; per message",
        ),
        bytes("request.picture", bounds::PICTURE_BYTES, None, "400 invalid, naming the picture; decoded"),
        bytes(
            "request.picturesTogether",
            bounds::PICTURES_BYTES,
            None,
            "400 invalid, naming the picture; decoded, in one request",
        ),
        bytes("request.file", bounds::INPUT_FILE_BYTES, None, "400 invalid, naming the file; decoded"),
        chars("request.fileName", bounds::INPUT_FILE_NAME_CHARS, None, "the rest of the name is left out"),
        bytes("request.toolName", bounds::TOOL_NAME_BYTES, None, "400 invalid, naming the tool"),
        count("request.stop", bounds::STOP_TEXTS, None, "400 invalid, naming `stop`"),
        count(
            "request.metadata",
            bounds::METADATA_ENTRIES,
            None,
            "400 invalid, naming `metadata`; on `/v1/responses`",
        ),
        chars(
            "request.metadataKey",
            bounds::METADATA_KEY_CHARS,
            None,
            "400 invalid, naming `metadata`; on `/v1/responses`",
        ),
        chars(
            "request.metadataValue",
            bounds::METADATA_VALUE_CHARS,
            None,
            "400 invalid, naming `metadata`; on `/v1/responses`",
        ),
        bytes("request.agent", bounds::AGENT_ID_BYTES, None, "400 invalid, naming `model`"),
        bytes("request.session", bounds::SESSION_KEY_BYTES, None, "400 invalid, naming the header or field"),
        bytes("request.user", bounds::USER_BYTES, None, "400 invalid, naming `user`"),
        bytes(
            "request.model",
            bounds::MODEL_BYTES,
            None,
            "404 not_found, in `x-openclaw-model`; as an agent 400 invalid",
        ),
        bytes("request.channel", bounds::CHANNEL_BYTES, None, "400 invalid, naming the header or field"),
        bytes("request.key", bounds::IDEMPOTENCY_KEY_BYTES, None, "400 invalid, naming `Idempotency-Key`"),
        bytes("request.id", bounds::REQUEST_ID_BYTES, None, "an id of ours stands in its place"),
        chars("request.hookName", bounds::HOOK_NAME_CHARS, None, "400 invalid, naming `name`"),
        time("request.hookWait", bounds::HOOK_WAIT, None, "400 invalid, naming `timeoutSeconds`"),
        count("request.sessionsPage", bounds::SESSIONS_PAGE, None, "400 invalid, naming `limit`"),
        count("request.transcriptPage", bounds::TRANSCRIPT_PAGE, None, "400 invalid, naming `limit`"),
        bytes(
            "request.transcriptPageBytes",
            bounds::TRANSCRIPT_PAGE_BYTES,
            None,
            "the page ends before that message, with `has_more`; one message is always given",
        ),
    ]
}

/// What a caller may do.
pub(super) fn callers(config: &Config) -> Vec<Bound> {
    let limit = config.gateway.limit;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the settings' check keeps it from 0.001 to a million a second"
    )]
    let a_minute = (limit.per_second * 60.0).ceil() as usize;
    vec![
        count(
            "caller.requestsPerMinute",
            a_minute,
            Some("gateway.rateLimit.perSecond"),
            "429 rate_limited with `Retry-After`; per token, in the long run",
        ),
        count(
            "caller.burst",
            size(limit.burst),
            Some("gateway.rateLimit.burst"),
            "429 rate_limited with `Retry-After`; per token, at once beyond the rate",
        ),
        count(
            "caller.failedLogins",
            size(bounds::LOGIN_FAILURES),
            None,
            "429 rate_limited: the address is locked out; not this host itself",
        ),
        count(
            "caller.failedHookLogins",
            size(bounds::HOOK_LOGIN_FAILURES),
            None,
            "429 rate_limited: the address is locked out of `/hooks/…`",
        ),
        time("caller.failureWindow", bounds::LOGIN_WINDOW, None, "older failed log-ins count no more"),
        time("caller.lockout", bounds::LOCKOUT, None, "the address may try again"),
        count(
            "caller.addresses",
            bounds::ADDRESSES_REMEMBERED.get(),
            None,
            "the address unheard of for longest is forgotten",
        ),
        count(
            "caller.tokens",
            bounds::TOKENS_REMEMBERED.get(),
            None,
            "the token used longest ago is read from the store again",
        ),
    ]
}

/// How far a turn goes, and what it may keep others waiting for. Of the agents that have most.
pub(super) fn turns(config: &Config) -> Vec<Bound> {
    let limits = || config.agents.iter().map(|agent| agent.limits);
    let turns = &config.turns;
    vec![
        count(
            "turn.steps",
            limits().map(|limits| size(limits.steps)).max().unwrap_or_default(),
            Some("agents[].limits.steps"),
            "the turn ends with what it has, and a note",
        ),
        count(
            "turn.tokens",
            limits().map(|limits| size(limits.tokens)).max().unwrap_or_default(),
            Some("agents[].limits.tokens"),
            "the turn ends with what it has, and a note",
        ),
        time(
            "turn.time",
            limits().map(|limits| limits.wall).max().unwrap_or_default(),
            Some("agents[].limits.seconds"),
            "the turn fails, and its session is free",
        ),
        count("turn.resumptions", size(bounds::RESUMPTIONS), None, "the turn is given up, on record"),
        count(
            "turn.waiting",
            turns.max_waiting,
            Some("turns.maxWaiting"),
            "409 conflict with `Retry-After`; per session",
        ),
        time("turn.wait", turns.max_wait, Some("turns.waitSeconds"), "409 conflict with `Retry-After`"),
        time("turn.lease", turns.lease, Some("turns.leaseSeconds"), "another process takes the turn over"),
        count(
            "turn.messages",
            turns.window_messages,
            Some("turns.windowMessages"),
            "a summary stands for the older messages",
        ),
        count(
            "turn.messagesRead",
            bounds::PROMPT_MESSAGES,
            None,
            "older messages are left out of the prompt",
        ),
        chars("turn.instructionFile", bounds::INSTRUCTION_FILE_CHARS, None, "cut, and the agent is told so"),
        chars("turn.instructions", bounds::INSTRUCTIONS_CHARS, None, "cut, and the agent is told so"),
        count(
            "turn.workspacesRemembered",
            bounds::INSTRUCTIONS_REMEMBERED.get(),
            None,
            "the workspace used longest ago is read again",
        ),
        bytes(
            "turn.transcriptsRemembered",
            bounds::TRANSCRIPTS_REMEMBERED_BYTES,
            None,
            "the transcript used longest ago is read from the store again",
        ),
        bytes(
            "turn.transcriptRemembered",
            bounds::TRANSCRIPT_REMEMBERED_BYTES,
            None,
            "the transcript is read from the store by each turn",
        ),
    ]
}

/// What tools take and give.
pub(super) fn tools() -> Vec<Bound> {
    vec![
        bytes("tool.path", bounds::PATH_BYTES, None, "400 invalid, naming `args`; an agent is told"),
        bytes("tool.write", bounds::WRITE_BYTES, None, "400 invalid, naming `args`; an agent is told"),
        bytes("tool.read", size(bounds::READ_BYTES), None, "the answer says from where to read on"),
        count("tool.list", bounds::LISTED_ENTRIES, None, "the answer says how many there are"),
        bytes("tool.file", size(bounds::FILE_BYTES), None, "400 invalid; an agent is told"),
    ]
}

/// What is read of model vendors, and how long they are waited for. Of the vendors that have most.
pub(super) fn vendors(config: &Config) -> Vec<Bound> {
    let providers = || config.providers.values();
    vec![
        bytes("vendor.event", bounds::VENDOR_EVENT_BYTES, None, "502 upstream: the connection is dropped"),
        bytes("vendor.error", bounds::VENDOR_ERROR_BYTES, None, "the rest is not read"),
        chars("vendor.words", bounds::VENDOR_WORDS_CHARS, None, "cut, for callers and in the log"),
        count(
            "vendor.tries",
            providers().map(|provider| size(provider.max_attempts)).max().unwrap_or_default(),
            Some("models.providers.*.maxAttempts"),
            "502 upstream, or the agent's next model",
        ),
        time(
            "vendor.wait",
            bounds::VENDOR_WAIT,
            None,
            "502 upstream: a vendor that asks for more is not waited for",
        ),
        time(
            "vendor.connect",
            providers().map(|provider| provider.connect_timeout).max().unwrap_or_default(),
            Some("models.providers.*.connectTimeoutSeconds"),
            "502 upstream, after the tries",
        ),
        time(
            "vendor.silence",
            providers().map(|provider| provider.read_timeout).max().unwrap_or_default(),
            Some("models.providers.*.timeoutSeconds"),
            "502 upstream, after the tries",
        ),
    ]
}

/// What is worked on at once, and what is kept how long.
pub(super) fn work(config: &Config) -> Vec<Bound> {
    vec![
        count(
            "jobs.atOnce",
            config.turns.worker_concurrency,
            Some("turns.workerConcurrency"),
            "further jobs wait in the queue",
        ),
        count(
            "jobs.deliveries",
            size(config.turns.job_max_attempts),
            Some("turns.jobMaxAttempts"),
            "the job is dead, with its reason, until a person acts",
        ),
        time("jobs.kept", bounds::DONE_JOBS_KEPT, None, "a job that is done is forgotten"),
        time("key.kept", bounds::KEYS_KEPT, None, "an idempotency key counts no more"),
    ]
}

/// What is said, and to whom.
pub(super) fn words() -> Vec<Bound> {
    vec![
        chars("word.quoted", bounds::QUOTED_CHARS, None, "cut: of a value, in an error or a log line"),
        bytes(
            "word.error",
            bounds::ERROR_BYTES,
            None,
            "cut: a sentence about a failure, and its cause in the log",
        ),
        bytes("word.logged", bounds::LOGGED_BYTES, None, "cut: one field of a log line"),
        count(
            "word.logLines",
            bounds::LOG_LINES,
            None,
            "lines are dropped and counted while nobody reads them",
        ),
        count("word.labelValues", bounds::LABEL_VALUES, None, "counted as `other`; per label of a metric"),
    ]
}

/// What one process takes.
pub(super) fn process(config: &Config) -> Vec<Bound> {
    vec![
        bytes("settings.file", bounds::SETTINGS_BYTES, None, "refused, with its size"),
        count("settings.problems", bounds::SETTINGS_PROBLEMS, None, "further ones are counted"),
        count("process.threads", bounds::THREADS, None, "turns share them"),
        time(
            "process.drain",
            config.gateway.drain,
            Some("gateway.drainSeconds"),
            "a stopping process ends; its turns go on at the next start",
        ),
        time(
            "store.lockWait",
            bounds::LOCK_WAIT,
            None,
            "503 unavailable: another process writes the database",
        ),
    ]
}

/// What AWS sets.
pub(super) fn aws() -> Vec<Bound> {
    vec![
        bytes("aws.item", bounds::ITEM_BYTES, None, "kept in several items"),
        bytes("aws.step", bounds::STEP_BYTES, None, "400 invalid: too large to be stored"),
        bytes("aws.fileName", bounds::OBJECT_KEY_BYTES, None, "refused; an agent is told"),
        count("aws.regions", size(bounds::REGIONS), None, "the functions do not start, and say so"),
        time("aws.silence", bounds::FUNCTION_SILENCE, None, "the turn is asked for again"),
    ]
}
