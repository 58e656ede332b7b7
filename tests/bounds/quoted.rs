//! Three megabytes in any field of any surface: the answer says what is wrong in a kilobyte.

use harness::app::TestApp;
use http::Method;
use serde_json::{Value, json};
use shared::config::Config;
use shared::limit::Limit;
use shared::principal::Scope;
use std::path::Path;

const LONG: usize = 3_000_000;

/// The largest body of an error.
const MOST: usize = 1024;

/// Paths within a request at which a value is put, for each surface: a number among them stands for a place in a list.
const FIELDS: [(&str, &str, &str); 5] = [
    (
        "/v1/chat/completions",
        r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "tools": [{"type": "function", "function": {"name": "f"}}]}"#,
        "model user messages messages.0 messages.0.role messages.0.content messages.0.content.0 messages.0.content.0.type \
         messages.0.content.0.text messages.0.content.0.image_url messages.0.tool_calls messages.0.tool_call_id \
         messages.0.name stream stream_options stream_options.include_usage tools tools.0 tools.0.type tools.0.function \
         tools.0.function.name tools.0.function.parameters tools.0.function.strict tool_choice tool_choice.type \
         max_completion_tokens max_tokens temperature top_p frequency_penalty presence_penalty seed stop response_format \
         response_format.type",
    ),
    (
        "/v1/responses",
        r#"{"model": "openclaw", "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}], "tools": [{"type": "function", "name": "f"}]}"#,
        "model input input.0 input.0.type input.0.role input.0.content input.0.content.0 input.0.content.0.type \
         input.0.content.0.file_data input.0.content.0.image_url instructions previous_response_id tools tools.0 \
         tools.0.type tools.0.name tools.0.strict tools.0.parameters tool_choice text text.format text.format.type \
         max_output_tokens temperature top_p presence_penalty frequency_penalty metadata metadata.k user truncation \
         stream background",
    ),
    ("/tools/invoke", r#"{"tool": "read", "args": {"path": "x"}}"#, ""),
    (
        "/hooks/agent",
        r#"{"message": "x"}"#,
        "message name agentId sessionKey sessionMode idempotencyKey waitForCompletion channel model timeoutSeconds",
    ),
    ("/hooks/wake", r#"{"text": "x"}"#, "text mode agentId sessionKey idempotencyKey"),
];

/// Its fields take two megabytes at most.
const TOOL_FIELDS: &str =
    "tool name args args.path args.offset args.other sessionKey agentId idempotencyKey dryRun";

fn put(body: &mut Value, path: &str, value: Value) {
    let mut at = body;
    for part in path.split('.') {
        at = match (part.parse::<usize>(), at.is_array()) {
            (Ok(index), true) => &mut at[index],
            _ => {
                if !at.is_object() {
                    *at = json!({});
                }
                &mut at[part]
            }
        };
    }
    *at = value;
}

/// Long values of every kind that a reader may quote.
fn values(bytes: usize) -> [Value; 4] {
    // One of each kind at the full length; the others only have to be too long.
    let long = "x".repeat(bytes.min(50_000));
    [
        Value::from("x".repeat(bytes)),
        Value::from("\u{1F600}\"\u{7}".repeat(8_000)),
        Value::from(vec![long.as_str()]),
        Value::Object([(long, Value::Null)].into_iter().collect()),
    ]
}

#[tokio::test]
async fn three_megabytes_in_a_wrong_field_give_an_error_of_a_kilobyte() {
    let app = TestApp::new();
    let limit = Some(Limit { per_second: 1e6, burst: 100_000 });
    let token = app.token_with("all", &[Scope::Admin], |token| token.limit = limit).await;
    let mut problems = Vec::new();
    let mut refused = 0;
    for (surface, body, fields) in FIELDS {
        let (fields, bytes) = match surface {
            "/tools/invoke" => (TOOL_FIELDS, LONG / 4),
            // Hooks take a quarter of a megabyte.
            _ if surface.starts_with("/hooks/") => (fields, 100_000),
            _ => (fields, LONG),
        };
        for field in fields.split_whitespace() {
            for value in values(bytes) {
                let mut body: Value = serde_json::from_str(body).expect("a request");
                put(&mut body, field, value);
                let answer = app.post(surface, &token).json(&body).await;
                if !answer.status.is_success() {
                    refused += 1;
                    let length = answer.body.len();
                    if answer.status.is_server_error() || length > MOST {
                        let text: String = answer.text().chars().take(200).collect();
                        problems.push(format!("{surface} {field}: {} {length} {text}", answer.status));
                    }
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    // Most fields do not take most of these.
    assert!(refused > 150, "{refused}");
}

#[tokio::test]
async fn long_headers_paths_and_queries_give_errors_of_a_kilobyte() {
    let app = TestApp::new();
    let limit = Some(Limit { per_second: 1e6, burst: 100_000 });
    let token = app.token_with("all", &[Scope::Admin], |token| token.limit = limit).await;
    let long = "x".repeat(60_000);
    for name in [
        "x-openclaw-agent-id",
        "x-openclaw-agent",
        "x-openclaw-session-key",
        "x-openclaw-model",
        "x-openclaw-message-channel",
        "idempotency-key",
    ] {
        for value in [&long, &format!("agent:{long}:{long}"), &format!("mine/{long}")] {
            let body = json!({"messages": [{"role": "user", "content": "x"}]});
            let answer = app.post("/v1/chat/completions", &token).header(name, value).json(&body).await;
            assert!(answer.status.is_client_error(), "{name}: {}", answer.status);
            assert!(answer.body.len() <= MOST, "{name}: {}", answer.text());
        }
    }
    for path in [
        "/v1/sessions/LONG",
        "/v1/sessions/LONG/transcript",
        "/v1/sessions/k/turns/LONG",
        "/v1/sessions?limit=LONG",
        "/v1/sessions?before=LONG",
        "/v1/sessions?limit=1&limit=LONG",
        "/v1/sessions/k/transcript?before=LONG",
        "/v1/models/LONG",
        "/v1/models/openclaw%2FLONG",
        "/v1/responses/LONG",
        "/LONG",
    ] {
        let answer = app.ask(Method::GET, &path.replace("LONG", &long), &token).send().await;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
        assert!(answer.body.len() <= MOST, "{path}: {}", answer.text());
    }
}

#[test]
fn settings_with_megabytes_in_a_value_are_told_in_a_kilobyte() {
    let agent = "agents: [{id: \"a\", model: \"demo/echo\"}]";
    let long = "x".repeat(LONG);
    for settings in [
        "{LONG: 1, AGENT}",
        "{gateway: {LONG: 1}, AGENT}",
        "{gateway: {port: \"LONG\"}, AGENT}",
        "{gateway: {bind: \"LONG\"}, AGENT}",
        "{gateway: {bind: \"custom\", customBindHost: \"LONG\"}, AGENT}",
        "{gateway: {bind: \"${LONG}\"}, AGENT}",
        "{gateway: {trustedProxies: [\"LONG\"]}, AGENT}",
        "{timeZone: \"LONG\", AGENT}",
        "{tools: [\"LONG\"], AGENT}",
        "{hooks: {allowedAgentIds: [\"LONG\"]}, AGENT}",
        "{models: {providers: {LONG: {api: \"LONG\"}}}, AGENT}",
        "{models: {providers: {x: {baseUrl: \"LONG\", headers: {\"LONG \": \"\"}}}}, AGENT}",
        "{agents: [{id: \"LONG\", model: \"demo/echo\"}]}",
        "{agents: [{id: \"a\", model: \"LONG\"}]}",
        "{agents: [{id: \"a\", model: \"LONG/x\"}]}",
        "{agents: [{id: \"a\", model: \"demo/echo\", resources: {memory: \"LONG\", cpu: \"LONG\"}}]}",
        "{agents: {entries: {LONG: {model: \"demo/echo\"}}}}",
        "{agents: LONG}",
        "{AGENT} LONG",
        "LONG",
    ] {
        let text = settings.replace("AGENT", agent).replace("LONG", &long);
        let told = Config::load(&text, Path::new("/"), &|_| None, false);
        let problems = told.expect_err(settings);
        for problem in problems.all() {
            assert!(problem.to_string().len() <= MOST, "{settings}: {problem}");
        }
    }
    let warned = "{gateway: {cluster: {enabled: true, primary: \"LONG\"}}, AGENT}".replace("AGENT", agent);
    let config = Config::load(&warned.replace("LONG", &long), Path::new("/"), &|_| None, false);
    let warnings = config.unwrap_or_else(|problems| panic!("{problems}")).warnings;
    assert!(!warnings.is_empty() && warnings.iter().all(|warning| warning.len() <= 2 * MOST), "{warnings:?}");
}
