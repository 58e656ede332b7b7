//! A case for each row, by its name.

use crate::flows;
use crate::ground::{Ask, Ground};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use serde_json::{Value, json};

/// How a row is shown to be true.
pub(crate) enum Case {
    /// Two requests: at the bound, and one beyond it.
    Asks(Ask, Ask),
    /// The same in bytes, on a connection of their own.
    Raw(String, String),
    /// What it says is wrong.
    Flow(for<'a> fn(&'a Ground, usize) -> BoxFuture<'a, Result<(), String>>),
    /// A test of the component, for what cannot be reached from outside within reasonable time: its file, its name, why.
    Elsewhere(&'static str, &'static str, &'static str),
    /// A library keeps it, given the number: which, and how.
    Library(&'static str),
}

impl Case {
    /// How, for people.
    pub(crate) fn how(&self) -> String {
        match self {
            Self::Asks(..) | Self::Raw(..) | Self::Flow(_) => "here, on the real binary".to_owned(),
            Self::Elsewhere(file, test, why) => format!("{why}: {test} in {file}"),
            Self::Library(which) => format!("kept by {which}"),
        }
    }
}

fn chat(at: Value, past: Value) -> Case {
    Case::Asks(Ask::chat(at), Ask::chat(past))
}

fn response(at: Value, past: Value) -> Case {
    Case::Asks(Ask::response(at), Ask::response(past))
}

fn header(name: &'static str, at: String, past: String) -> Case {
    Case::Asks(Ask::chat(json!({})).header(name, at), Ask::chat(json!({})).header(name, past))
}

fn long(bytes: usize) -> String {
    "k".repeat(bytes)
}

fn tools(count: usize, name_bytes: usize) -> Value {
    let tool = |number: usize| {
        let name = format!("{number:0name_bytes$}");
        json!({"type": "function", "function": {"name": name}})
    };
    json!({"tools": (0..count).map(tool).collect::<Vec<_>>()})
}

fn pictures(sizes: &[usize]) -> Value {
    let part = |size: &usize| {
        let url = format!("data:image/png;base64,{}", STANDARD.encode(vec![0_u8; *size]));
        json!({"type": "image_url", "image_url": {"url": url}})
    };
    json!({"messages": [{"role": "user", "content": sizes.iter().map(part).collect::<Vec<_>>()}]})
}

fn file(bytes: usize) -> Value {
    let data = STANDARD.encode(vec![b'a'; bytes]);
    let file = json!({"type": "input_file", "filename": "a.txt", "file_data": data});
    let text = json!({"type": "input_text", "text": "x"});
    json!({"input": [{"type": "message", "role": "user", "content": [text, file]}]})
}

fn metadata(entries: usize, key: usize, value: usize) -> Value {
    let entry = |number: usize| (format!("{number:0key$}"), Value::from(long(value)));
    json!({"metadata": (0..entries).map(entry).collect::<serde_json::Map<_, _>>()})
}

fn health(headers: usize) -> String {
    let mut text = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".to_owned();
    for number in 2..headers {
        text.push_str(&format!("X-{number}: y\r\n"));
    }
    text + "\r\n"
}

/// A body of so many levels of objects and lists.
fn levels(n: usize) -> Value {
    let mut value = json!([]);
    for _ in 2..n {
        value = json!([value]);
    }
    json!({ "ignored": value })
}

fn messages(count: usize) -> Value {
    json!({"messages": vec![json!({"role": "user", "content": "x"}); count]})
}

fn parts(count: usize) -> Value {
    let parts = vec![json!({"type": "text", "text": "x"}); count];
    json!({"messages": [{"role": "user", "content": parts}]})
}

/// The case of the row of this name, whose value is `n`; `None` if it has none yet.
pub(crate) fn case(name: &str, n: usize) -> Option<Case> {
    use Case::{Asks, Elsewhere, Flow, Library, Raw};
    let seconds = n / 1000;
    Some(match name {
        "request.body" => Asks(Ask::chat(json!({})).padded(n), Ask::chat(json!({})).padded(n + 1)),
        "request.hookBody" => Asks(Ask::hook(json!({})).padded(n), Ask::hook(json!({})).padded(n + 1)),
        "request.toolBody" => {
            let ask = || Ask::tool("current_time", json!({}));
            Asks(ask().padded(n), ask().padded(n + 1))
        }
        "request.headers" => Raw(health(n), health(n + 1)),
        "request.headTime" => Elsewhere(
            "tests/bounds.rs",
            "a_head_that_does_not_come_to_its_end_closes_the_connection",
            "it takes a minute, beside this walk",
        ),
        "request.bodyTime" => Elsewhere(
            "tests/http/edges.rs",
            "a_body_that_takes_longer_than_30_seconds_is_given_up",
            "by a clock that is set",
        ),
        "request.bytesPerRequest" => Elsewhere(
            "tests/http/edges.rs",
            "a_token_that_brings_more_bytes_than_its_rate_allows_waits",
            "by a clock that is set",
        ),
        "request.tools" => chat(tools(n, 3), tools(n + 1, 3)),
        "request.toolName" => chat(tools(1, n), tools(1, n + 1)),
        "request.pictures" => chat(pictures(&vec![1; n]), pictures(&vec![1; n + 1])),
        "request.picture" => chat(pictures(&[n]), pictures(&[n + 1])),
        "request.picturesTogether" => chat(pictures(&[n / 2, n - n / 2]), pictures(&[n / 2, n - n / 2, 1])),
        "request.file" => response(file(n), file(n + 1)),
        "request.fileName" => Elsewhere(
            "shared/src/http/responses/files.rs",
            "a_long_name_is_cut",
            "the name is seen by the model only",
        ),
        "request.stop" => chat(json!({"stop": vec!["a"; n]}), json!({"stop": vec!["a"; n + 1]})),
        "request.metadata" => response(metadata(n, 2, 1), metadata(n + 1, 2, 1)),
        "request.metadataKey" => response(metadata(1, n, 1), metadata(1, n + 1, 1)),
        "request.metadataValue" => response(metadata(1, 1, n), metadata(1, 1, n + 1)),
        "request.agent" => {
            let model = |bytes| json!({"model": format!("openclaw/{}", "a".repeat(bytes))});
            chat(model(n), model(n + 1))
        }
        "request.session" => header("x-openclaw-session-key", long(n), long(n + 1)),
        "request.user" => chat(json!({"user": long(n)}), json!({"user": long(n + 1)})),
        "request.model" => Flow(flows::model),
        "request.channel" => header("x-openclaw-message-channel", long(n), long(n + 1)),
        "request.key" => header("idempotency-key", long(n), long(n + 1)),
        "request.id" => Flow(flows::request_id),
        "request.hookName" => {
            Asks(Ask::hook(json!({"name": long(n)})), Ask::hook(json!({"name": long(n + 1)})))
        }
        "request.hookWait" => Asks(
            Ask::hook(json!({"timeoutSeconds": seconds})),
            Ask::hook(json!({"timeoutSeconds": seconds + 1})),
        ),
        "request.sessionsPage" => Asks(
            Ask::get(format!("/v1/sessions?limit={n}")),
            Ask::get(format!("/v1/sessions?limit={}", n + 1)),
        ),
        "request.transcriptPage" => {
            let page = |limit| Ask::get(format!("/v1/sessions/agent:main:page/transcript?limit={limit}"));
            Asks(page(n), page(n + 1))
        }
        "request.transcriptPageBytes" => Elsewhere(
            "tests/http/sessions.rs",
            "a_page_of_large_messages_ends_early_and_says_so",
            "several pages",
        ),
        "caller.requestsPerMinute" => Elsewhere(
            "tests/conformance/limits.rs",
            "an_allowance_comes_back_at_the_steady_rate",
            "by a clock that is set, on each store",
        ),
        "caller.burst" => Flow(flows::burst),
        "caller.failedLogins" => Elsewhere(
            "tests/http/auth.rs",
            "an_address_with_ten_wrong_tokens_is_locked_out_even_with_a_right_one",
            "this host itself is never locked out",
        ),
        "caller.failedHookLogins" => Elsewhere(
            "tests/http/auth.rs",
            "this_host_is_locked_out_of_hooks_only",
            "it would lock the other cases out",
        ),
        "caller.failureWindow" => Elsewhere(
            "shared/src/http/lockout.rs",
            "failures_that_are_far_apart_do_not_add_up",
            "by a clock that is set",
        ),
        "caller.lockout" => Elsewhere(
            "shared/src/http/lockout.rs",
            "ten_failures_within_a_minute_lock_an_address_out_for_five_minutes",
            "by a clock that is set",
        ),
        "caller.addresses" => Elsewhere(
            "shared/src/http/lockout.rs",
            "the_address_unheard_of_for_longest_is_forgotten_first",
            "thousands of addresses",
        ),
        "caller.tokens" | "turn.workspacesRemembered" => Library("lru: a cache of this capacity"),
        "turn.steps" => Elsewhere(
            "tests/runner.rs",
            "a_turn_stops_at_its_limit_of_model_calls_with_what_it_has",
            "a scripted model",
        ),
        "turn.tokens" => {
            Elsewhere("tests/runner.rs", "a_turn_stops_at_its_limit_of_tokens", "a scripted model")
        }
        "turn.time" => Elsewhere(
            "tests/runner.rs",
            "a_turn_that_takes_too_long_fails_and_frees_its_session",
            "by a clock that is set",
        ),
        "turn.resumptions" => Elsewhere(
            "tests/runner/unfinished.rs",
            "a_turn_that_was_resumed_five_times_in_vain_is_given_up_by_the_sweep",
            "as many crashes",
        ),
        "turn.waiting" => Elsewhere(
            "tests/runner.rs",
            "requests_for_a_busy_session_wait_in_order_and_one_too_many_is_refused",
            "a scripted model that waits",
        ),
        "turn.wait" => Elsewhere(
            "shared/src/agent/lane.rs",
            "a_request_that_waited_too_long_is_refused",
            "by a clock that is set",
        ),
        "turn.lease" => Elsewhere(
            "tests/sqlite.rs",
            "a_lease_taken_over_by_another_process_is_fenced",
            "by times that are given",
        ),
        "turn.messages" => Elsewhere(
            "tests/runner.rs",
            "a_long_session_is_summarised_and_the_prompt_starts_with_the_summary",
            "a scripted model",
        ),
        "turn.messagesRead" => Elsewhere(
            "tests/conformance/sessions.rs",
            "windows_are_the_newest_messages_that_fit",
            "a window of the store, on each store",
        ),
        "turn.instructionFile" => Elsewhere(
            "shared/src/agent/workspace.rs",
            "a_long_file_is_cut_at_a_character_and_says_so",
            "instructions are seen by the model only",
        ),
        "turn.instructions" => Elsewhere(
            "shared/src/agent/workspace.rs",
            "all_files_together_are_capped_too",
            "instructions are seen by the model only",
        ),
        "turn.transcriptsRemembered" | "turn.transcriptRemembered" => Elsewhere(
            "shared/src/agent/recent.rs",
            "the_one_used_longest_ago_makes_room_and_one_that_is_too_long_is_not_kept",
            "nothing of it is seen from outside",
        ),
        "tool.path" => {
            let path = |bytes: usize| format!("{}{}", "./".repeat(bytes / 2), &"."[..bytes % 2]);
            let list = |bytes| Ask::tool("ls", json!({"path": path(bytes)}));
            Asks(list(n), list(n + 1))
        }
        "tool.write" => {
            let write = |bytes| Ask::tool("write", json!({"path": "w.txt", "content": long(bytes)}));
            Asks(write(n), write(n + 1))
        }
        "tool.read" => Flow(flows::read),
        "tool.list" => Flow(flows::list),
        "tool.file" => Flow(flows::grow),
        "vendor.event" => Elsewhere(
            "shared/src/adapters/models/sse.rs",
            "an_event_beyond_all_bounds_is_refused_not_stored",
            "the reader of events itself",
        ),
        "vendor.error" => Elsewhere(
            "tests/bounds/flows.rs",
            "of_a_vendors_error_no_more_is_read_than_its_bound",
            "a vendor that sends megabytes",
        ),
        "vendor.words" => Elsewhere(
            "shared/src/adapters/models/fault.rs",
            "a_vendors_novel_is_cut_short",
            "the sentence itself",
        ),
        "vendor.tries" => Elsewhere(
            "tests/providers/retries.rs",
            "the_last_attempts_failure_is_the_calls",
            "by a clock that is set",
        ),
        "vendor.wait" => Elsewhere(
            "tests/providers/retries.rs",
            "a_wish_beyond_the_longest_wait_ends_the_tries",
            "by a clock that is set",
        ),
        "vendor.connect" => Elsewhere(
            "tests/providers/socket.rs",
            "a_host_that_does_not_take_the_connection_is_given_up_at_the_limit",
            "an address that is silent",
        ),
        "vendor.silence" => Elsewhere(
            "tests/providers/socket.rs",
            "silence_before_and_within_an_answer_ends_at_the_limit",
            "by a clock that is set",
        ),
        "jobs.atOnce" => Library("tokio: a semaphore of as many permits"),
        "jobs.deliveries" => Elsewhere(
            "tests/worker.rs",
            "a_job_that_its_workers_die_over_is_given_up_and_says_so",
            "as many crashes",
        ),
        "jobs.kept" => Elsewhere(
            "tests/sqlite.rs",
            "what_is_forgotten_is_cleared_away_by_what_comes_after_it",
            "by times that are given",
        ),
        "key.kept" => Elsewhere(
            "tests/conformance/retention.rs",
            "records_are_kept_for_thirty_days",
            "by times that are given",
        ),
        "word.quoted" => Flow(flows::quoted),
        "word.error" => Elsewhere(
            "shared/src/error.rs",
            "a_sentence_and_its_cause_are_cut",
            "our own sentences are shorter",
        ),
        "word.logged" => Flow(flows::logged),
        "word.logLines" => {
            Library("tracing-appender: a lossy channel of this length, which counts what it drops")
        }
        "word.labelValues" => Elsewhere(
            "shared/src/adapters/prometheus.rs",
            "a_label_with_too_many_values_counts_the_rest_as_other",
            "the ledger itself",
        ),
        "settings.file" => Flow(flows::settings_file),
        "settings.problems" => Flow(flows::settings_problems),
        "process.threads" => Library("tokio: a runtime of as many workers, or as many as there are cores"),
        "process.drain" => Elsewhere(
            "tests/cli.rs",
            "a_turn_that_outlasts_the_drain_goes_on_at_the_next_start",
            "it ends the server",
        ),
        "store.lockWait" => Elsewhere(
            "tests/bounds/flows.rs",
            "a_database_that_another_process_holds_is_waited_for_and_then_given_up",
            "it takes ten seconds, beside this walk",
        ),
        "aws.item" => {
            Elsewhere("tests/dynamodb.rs", "what_is_too_large_for_an_item_is_kept_in_several", "emulated")
        }
        "aws.step" => {
            Elsewhere("tests/dynamodb.rs", "what_is_too_large_for_a_transaction_is_refused", "emulated")
        }
        "aws.fileName" => Elsewhere("tests/aws_files.rs", "what_can_be_no_key_is_refused", "emulated"),
        "aws.regions" => Elsewhere(
            "shared/src/config/cloud.rs",
            "a_list_of_regions_must_make_sense",
            "the functions' settings",
        ),
        "aws.silence" => Library("tokio: a timeout around each part of a function's answer"),
        _ => return further(name, n),
    })
}

/// The same, of rows that came later.
fn further(name: &str, n: usize) -> Option<Case> {
    use Case::Elsewhere;
    Some(match name {
        "request.levels" => chat(levels(n), levels(n + 1)),
        "request.messages" => chat(messages(n), messages(n + 1)),
        "request.parts" => chat(parts(n), parts(n + 1)),
        "request.values" => Elsewhere(
            "tests/http/budget.rs",
            "a_body_of_very_many_values_is_refused_before_they_are_read",
            "a body of very many values",
        ),
        "request.head" => Elsewhere(
            "tests/connections.rs",
            "a_head_beyond_its_bound_is_refused_and_one_below_is_taken",
            "with sockets of its own",
        ),
        "connections.all" => Elsewhere(
            "functions/onprem/src/listen/places.rs",
            "there_are_no_more_places_than_in_all_whoever_asks",
            "thousands of connections",
        ),
        "connections.perAddress" => Elsewhere(
            "tests/connections.rs",
            "a_connection_beyond_the_most_is_refused_with_a_word_and_counted",
            "with sockets of its own",
        ),
        "answer.writeTime" => Elsewhere(
            "tests/connections.rs",
            "connections_that_pipeline_and_never_read_take_little_memory_and_are_closed",
            "with sockets of its own",
        ),
        "answer.bytes" | "answer.bytesPerToken" => Elsewhere(
            "tests/runner/bounded.rs",
            "an_answer_longer_than_its_model_may_write_ends_as_length_on_record_and_is_not_asked_for_again",
            "a scripted model",
        ),
        "answer.toolCalls" => Elsewhere(
            "tests/runner/bounded.rs",
            "an_answer_of_too_many_calls_runs_none_of_them",
            "a scripted model",
        ),
        "answer.wire" => Elsewhere(
            "tests/providers/replay.rs",
            "an_answer_that_is_longer_than_any_model_writes_is_cut_at_its_length",
            "a recorded stream",
        ),
        "turn.recorded" => Elsewhere(
            "tests/runner/bounded.rs",
            "a_turn_whose_tools_answer_more_than_may_be_stops_there",
            "a scripted model",
        ),
        "listener.waiting" => Elsewhere(
            "tests/runner/bounded.rs",
            "a_listener_that_never_reads_holds_little_and_hears_all_when_it_does",
            "a scripted model",
        ),
        "hop.line" => Elsewhere(
            "shared/src/agent/hop.rs",
            "a_line_without_end_is_an_error_and_is_not_kept",
            "between two functions",
        ),
        "stored.levels" => Elsewhere(
            "shared/src/nesting.rs",
            "what_is_stored_at_its_bound_is_read_back_and_one_level_more_is_not",
            "nothing so deep comes in",
        ),
        "settings.levels" => Elsewhere(
            "shared/src/config/source.rs",
            "what_is_nested_too_deeply_is_a_problem_and_ends_no_process",
            "the reader itself",
        ),
        "unreadable.told" => Elsewhere(
            "shared/src/unreadable.rs",
            "beyond_the_bound_rows_are_counted_and_not_kept",
            "a thousand unreadable rows",
        ),
        "store.readsAside" | "store.readAsideWait" => Elsewhere(
            "shared/src/adapters/onprem/sqlite.rs",
            "a_long_read_waits_for_its_place_and_not_for_ever",
            "reads that last",
        ),
        "jobs.ofToken" => Elsewhere(
            "shared/src/worker/places.rs",
            "a_token_alone_gets_all_but_a_quarter_and_gives_way_from_half_on",
            "jobs that last",
        ),
        "jobs.ofAgent" => Elsewhere(
            "shared/src/worker/places.rs",
            "a_silent_vendor_leaves_a_place_to_the_others_whoever_asks_it",
            "jobs that last",
        ),
        "jobs.lanes" => Elsewhere(
            "tests/sqlite.rs",
            "however_many_jobs_are_left_aside_they_hide_no_other",
            "thousands of jobs",
        ),
        "jobs.counted" => Case::Library("SQLite: a LIMIT of the statement that counts"),
        "clock.slack" => Elsewhere(
            "shared/src/clock.rs",
            "what_was_written_a_little_ahead_of_now_was_written_by_another_clock",
            "by a clock that is set",
        ),
        "audit.counted" => Elsewhere(
            "tests/operator.rs",
            "the_audit_trail_shows_the_newest_rows_and_says_how_many_there_are",
            "thousands of rows",
        ),
        _ => return None,
    })
}
