//! Cases by surface. Each is refused with one status, one code, and – where a field is to blame – that field's name.

use harness::app::{Answer, TestApp};
use http::Method;
use serde_json::{Value, json};
use shared::limit::Limit;
use shared::principal::Scope;

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const TOOLS: &str = "/tools/invoke";
const HOOK: &str = "/hooks/agent";
const WAKE: &str = "/hooks/wake";

/// A token that may do everything, as fast as the tests like.
async fn anything(app: &TestApp) -> String {
    let limit = Some(Limit { per_second: 1e6, burst: 100_000 });
    app.token_with("all", &[Scope::Admin], |token| token.limit = limit).await
}

fn param(answer: &Answer) -> String {
    answer.json()["error"]["param"].as_str().unwrap_or_default().to_owned()
}

/// A chat request with one more field, or another one.
fn chat(field: &str, value: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
    body[field] = value;
    body
}

fn saying(messages: Value) -> Value {
    chat("messages", messages)
}

fn picture(url: &str) -> Value {
    saying(json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]))
}

fn tool(function: Value) -> Value {
    let mut tool = json!({"type": "function"});
    tool["function"] = function;
    chat("tools", Value::from(vec![tool]))
}

/// Asks each and compares status, code and field.
async fn check(path: &str, cases: Vec<(Value, u16, &str, &str)>) {
    let app = TestApp::new();
    let token = anything(&app).await;
    for (body, status, code, field) in cases {
        let shown: String = body.to_string().chars().take(200).collect();
        let answer = app.post(path, &token).json(&body).await;
        assert_eq!(
            (answer.code(), param(&answer)),
            ((status, code.to_owned()), field.to_owned()),
            "{path} {shown}\n{}",
            answer.text()
        );
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_refused_on_every_surface() {
    let app = TestApp::new();
    let token = anything(&app).await;
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let nested = format!(r#"{{"messages":{deep}}}"#);
    let bodies: [&[u8]; 18] = [
        b"",
        b" ",
        b"{",
        b"}",
        b"null",
        b"[]",
        b"[1,2]",
        b"\"text\"",
        b"12",
        b"{\"a\":}",
        b"{\"a\":1,}",
        b"{\"a\":1}{",
        b"{'a':1}",
        b"{\"a\":\"\x01\"}",
        b"{\"a\":\"\\ud800\"}",
        b"{\"a\":\"\xff\xfe\"}",
        deep.as_bytes(),
        nested.as_bytes(),
    ];
    for path in [CHAT, RESPONSES, TOOLS, HOOK, WAKE] {
        for body in bodies {
            let answer = app.post(path, &token).body(body.to_vec()).await;
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            assert_eq!(answer.code(), (400, "invalid".to_owned()), "{path} {shown}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn bad_bytes_are_named_and_bad_json_says_where() {
    let app = TestApp::new();
    let token = anything(&app).await;
    let bytes = app.post(CHAT, &token).body(b"{\"a\":\"\xff\"}".to_vec()).await;
    assert_eq!(bytes.json()["error"]["message"], "the body is not valid UTF-8");
    let text = app.post(CHAT, &token).body("{\"messages\": [}").await;
    assert_eq!(
        text.json(),
        json!({"error": {"message": "expected value at line 1 column 15", "type": "invalid_request_error",
            "code": "invalid", "param": null}})
    );
}

#[tokio::test]
async fn chat_fields_of_a_wrong_type_are_named() {
    check(
        CHAT,
        vec![
            (chat("model", json!(5)), 400, "invalid", "model"),
            (chat("user", json!(["u"])), 400, "invalid", "user"),
            (chat("messages", json!("x")), 400, "invalid", "messages"),
            (chat("messages", json!({"role": "user"})), 400, "invalid", "messages"),
            (chat("stream", json!("yes")), 400, "invalid", "stream"),
            (chat("stream", json!(1)), 400, "invalid", "stream"),
            (chat("stream_options", json!(true)), 400, "invalid", "stream_options"),
            (
                chat("stream_options", json!({"include_usage": "x"})),
                400,
                "invalid",
                "stream_options.include_usage",
            ),
            (chat("tools", json!({})), 400, "invalid", "tools"),
            (saying(json!([5])), 400, "invalid", "messages[0]"),
            (saying(json!([{"content": "x"}])), 400, "invalid", "messages[0]"),
            (saying(json!([{"role": 7, "content": "x"}])), 400, "invalid", "messages[0].role"),
            (saying(json!([{"role": "user", "content": 7}])), 400, "invalid", "messages[0].content"),
            (saying(json!([{"role": "user", "content": {"a": 1}}])), 400, "invalid", "messages[0].content"),
            (saying(json!([{"role": "user", "content": [7]}])), 400, "invalid", "messages[0].content[0]"),
            (
                saying(json!([{"role": "user", "content": [{"type": "text", "text": 7}]}])),
                400,
                "invalid",
                "messages[0].content[0].text",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn chat_numbers_out_of_range_are_named() {
    check(
        CHAT,
        vec![
            (chat("temperature", json!(2.01)), 400, "invalid", "temperature"),
            (chat("temperature", json!(-0.1)), 400, "invalid", "temperature"),
            (chat("temperature", json!("hot")), 400, "invalid", "temperature"),
            (chat("top_p", json!(1.5)), 400, "invalid", "top_p"),
            (chat("top_p", json!([])), 400, "invalid", "top_p"),
            (chat("frequency_penalty", json!(-2.5)), 400, "invalid", "frequency_penalty"),
            (chat("presence_penalty", json!(3)), 400, "invalid", "presence_penalty"),
            (chat("max_tokens", json!(0)), 400, "invalid", "max_tokens"),
            (chat("max_tokens", json!(-1)), 400, "invalid", "max_tokens"),
            (chat("max_tokens", json!(1.5)), 400, "invalid", "max_tokens"),
            (chat("max_tokens", json!(9_007_199_254_740_992_u64)), 400, "invalid", "max_tokens"),
            (chat("max_completion_tokens", json!("10")), 400, "invalid", "max_completion_tokens"),
            (chat("seed", json!(1.25)), 400, "invalid", "seed"),
            (chat("seed", json!(u64::MAX)), 400, "invalid", "seed"),
            (chat("seed", json!("1")), 400, "invalid", "seed"),
            (chat("stop", json!(["a", "b", "c", "d", "e"])), 400, "invalid", "stop"),
            (chat("stop", json!([1])), 400, "invalid", "stop"),
            (chat("stop", json!(7)), 400, "invalid", "stop"),
        ],
    )
    .await;
    let app = TestApp::new();
    let token = anything(&app).await;
    let answer = app.post(CHAT, &token).json(&chat("temperature", json!(2.5))).await;
    assert_eq!(answer.json()["error"]["message"], "`temperature` must be between 0 and 2.");
    let huge = r#"{"messages":[{"role":"user","content":"x"}],"temperature":1e999}"#;
    assert_eq!(app.post(CHAT, &token).body(huge).await.code(), (400, "invalid".to_owned()));
}

#[tokio::test]
async fn chat_messages_that_make_no_turn_are_refused() {
    let user = json!({"role": "user", "content": "x"});
    check(CHAT, vec![
        (json!({}), 400, "invalid", "messages"),
        (saying(json!([])), 400, "invalid", "messages"),
        (saying(json!(null)), 400, "invalid", "messages"),
        (saying(json!([{"role": "system", "content": "x"}])), 400, "invalid", "messages"),
        (saying(json!([user, {"role": "assistant", "content": "x"}])), 400, "invalid", "messages"),
        (saying(json!([{"role": "user", "content": ""}])), 400, "invalid", "messages"),
        (saying(json!([{"role": "user", "content": null}])), 400, "invalid", "messages"),
        (saying(json!([{"role": "user", "content": []}])), 400, "invalid", "messages"),
        (saying(json!([{"role": "robot", "content": "x"}])), 400, "invalid", "messages[0].role"),
        (saying(json!([{"role": "User", "content": "x"}])), 400, "invalid", "messages[0].role"),
        (saying(json!([{"role": "tool", "content": "x"}])), 400, "invalid", "messages[0].tool_call_id"),
        (saying(json!([{"role": "tool", "tool_call_id": "", "content": "x"}])), 400, "invalid", "messages[0].tool_call_id"),
        (saying(json!([{"role": "user", "content": [{"type": "text"}]}])), 400, "invalid", "messages[0].content[0].text"),
        (saying(json!([{"role": "user", "content": [{"type": "input_audio"}]}])), 400, "invalid", "messages[0].content[0].type"),
        (saying(json!([{"role": "system", "content": [{"type": "image_url"}]}, user])), 400, "invalid", "messages[0].content[0].type"),
        (saying(json!([{"role": "assistant", "tool_calls": [{"id": "c", "function": {}}]}, user])), 400, "invalid", "messages[0].tool_calls[0].function"),
        (saying(json!([{"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "function": {"name": "f"}}]}, user])), 400, "invalid", "messages[0].tool_calls[0].type"),
    ])
    .await;
    let app = TestApp::new();
    let token = anything(&app).await;
    let answer = app.post(CHAT, &token).json(&json!({})).await;
    assert_eq!(answer.json()["error"]["message"], "Missing user message in `messages`.");
}

#[tokio::test]
async fn pictures_that_cannot_be_taken_are_refused() {
    let nine: Vec<_> = (0..9)
        .map(|_| json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAEC"}}))
        .collect();
    let url = "messages[0].content[0].image_url.url";
    let large = format!("data:image/png;base64,{}", "A".repeat(14 * 1024 * 1024));
    check(
        CHAT,
        vec![
            (picture("https://example.com/a.png"), 400, "invalid", url),
            (picture("http://169.254.169.254/latest/meta-data"), 400, "invalid", url),
            (picture("file:///etc/passwd"), 400, "invalid", url),
            (picture(""), 400, "invalid", url),
            (picture("data:image/png,rawbytes"), 400, "invalid", url),
            (picture("data:image/svg+xml;base64,AAEC"), 400, "invalid", url),
            (picture("data:text/html;base64,AAEC"), 400, "invalid", url),
            (picture("data:image/png;base64,not base64!"), 400, "invalid", url),
            (picture("data:image/png;base64,AAE"), 400, "invalid", url),
            (picture("data:image/png;base64,"), 400, "invalid", url),
            (picture(&large), 400, "invalid", url),
            (
                saying(json!([{"role": "user", "content": nine}])),
                400,
                "invalid",
                "messages[0].content[8].image_url.url",
            ),
            (
                saying(json!([{"role": "user", "content": [{"type": "image_url"}]}])),
                400,
                "invalid",
                "messages[0].content[0].image_url",
            ),
            (
                saying(json!([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}])),
                400,
                "invalid",
                "messages[0].content[0].image_url",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn tools_that_cannot_be_offered_are_refused() {
    let many: Vec<_> =
        (0..129).map(|n| json!({"type": "function", "function": {"name": format!("f{n}")}})).collect();
    let one = json!([{"type": "function", "function": {"name": "f"}}]);
    let choosing = |choice: Value| {
        let mut body = chat("tools", one.clone());
        body["tool_choice"] = choice;
        body
    };
    check(
        CHAT,
        vec![
            (chat("tools", json!([{"type": "web_search"}])), 400, "invalid", "tools[0].type"),
            (chat("tools", json!([{"type": "function"}])), 400, "invalid", "tools[0].function"),
            (tool(json!({})), 400, "invalid", "tools[0].function"),
            (tool(json!({"name": ""})), 400, "invalid", "tools[0].function.name"),
            (tool(json!({"name": "bad name"})), 400, "invalid", "tools[0].function.name"),
            (tool(json!({"name": "f".repeat(65)})), 400, "invalid", "tools[0].function.name"),
            (tool(json!({"name": "f", "parameters": []})), 400, "invalid", "tools[0].function.parameters"),
            (chat("tools", json!([one[0], one[0]])), 400, "invalid", "tools[1].function.name"),
            (chat("tools", json!(many)), 400, "invalid", "tools"),
            (chat("tool_choice", json!("required")), 400, "invalid", "tool_choice"),
            (choosing(json!("sometimes")), 400, "invalid", "tool_choice"),
            (choosing(json!(7)), 400, "invalid", "tool_choice"),
            (choosing(json!({"type": "function", "function": {"name": "g"}})), 400, "invalid", "tool_choice"),
            (choosing(json!({"type": "function"})), 400, "invalid", "tool_choice"),
            (chat("response_format", json!({"type": "xml"})), 400, "invalid", "response_format.type"),
            (chat("response_format", json!("json")), 400, "invalid", "response_format.type"),
            (
                chat("response_format", json!({"type": "json_schema"})),
                400,
                "invalid",
                "response_format.json_schema",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn unknown_agents_and_models_are_refused() {
    check(
        CHAT,
        vec![
            (chat("model", json!("gpt-4o")), 400, "invalid", "model"),
            (chat("model", json!("openclaw/")), 400, "invalid", "model"),
            (chat("model", json!("openclaw/nope")), 400, "invalid", "model"),
            (chat("model", json!("openclaw/../main")), 400, "invalid", "model"),
            (chat("model", json!("agent:-x")), 400, "invalid", "model"),
            (chat("model", json!("x".repeat(100_000))), 400, "invalid", "model"),
        ],
    )
    .await;
    let app = TestApp::new();
    let token = anything(&app).await;
    let message = async |model: &str| {
        let answer = app.post(CHAT, &token).json(&chat("model", json!(model))).await;
        answer.json()["error"]["message"].as_str().expect("a message").to_owned()
    };
    assert_eq!(message("gpt-4o").await, "Invalid `model`. Use `openclaw` or `openclaw/<agentId>`.");
    assert_eq!(message("openclaw/nope").await, "Unknown agent 'nope'.");
}

#[tokio::test]
async fn headers_that_mean_nothing_or_too_much_are_refused() {
    let app = TestApp::new();
    let token = anything(&app).await;
    let long = "k".repeat(513);
    let cases = [
        ("x-openclaw-agent-id", "nope", 400, "invalid"),
        ("x-openclaw-agent", "../main", 400, "invalid"),
        ("x-openclaw-session-key", "subagent:x", 400, "invalid"),
        ("x-openclaw-session-key", "cron:nightly", 400, "invalid"),
        ("x-openclaw-session-key", "acp:x", 400, "invalid"),
        ("x-openclaw-session-key", "agent:main:subagent:x", 400, "invalid"),
        ("x-openclaw-session-key", "AGENT:main:CRON:x", 400, "invalid"),
        ("x-openclaw-session-key", "agent:email-manager:main", 400, "invalid"),
        ("x-openclaw-session-key", "agent:main:", 400, "invalid"),
        ("x-openclaw-session-key", &long, 400, "invalid"),
        ("x-openclaw-message-channel", "a b", 400, "invalid"),
        ("x-openclaw-message-channel", "c\u{e9}", 400, "invalid"),
        ("x-openclaw-model", "nobody/nothing", 404, "not_found"),
        ("x-openclaw-model", "gpt", 404, "not_found"),
        ("idempotency-key", "", 400, "invalid"),
        ("idempotency-key", "two words", 400, "invalid"),
        ("idempotency-key", "\u{e9}", 400, "invalid"),
        ("idempotency-key", &"k".repeat(256), 400, "invalid"),
    ];
    for (name, value, status, code) in cases {
        let answer = app.post(CHAT, &token).header(name, value).json(&chat("n", json!(1))).await;
        assert_eq!(answer.code(), (status, code.to_owned()), "{name}: {value}\n{}", answer.text());
    }
    let twice = app.post(CHAT, &token).header("idempotency-key", "a").header("idempotency-key", "b");
    assert_eq!(twice.json(&chat("n", json!(1))).await.code(), (400, "invalid".to_owned()));
    for user in ["\u{0}", "a\nb", &"u".repeat(257)] {
        let answer = app.post(CHAT, &token).json(&chat("user", json!(user))).await;
        assert_eq!((answer.code(), param(&answer)), ((400, "invalid".to_owned()), "user".to_owned()));
    }
}

#[tokio::test]
async fn tool_calls_that_cannot_be_made_are_refused() {
    check(
        TOOLS,
        vec![
            (json!({}), 400, "invalid", "name"),
            (json!({"tool": ""}), 400, "invalid", "name"),
            (json!({"tool": 7}), 400, "invalid", "tool"),
            (json!({"tool": "exec"}), 404, "not_found", ""),
            (json!({"tool": "read", "args": []}), 400, "invalid", "args"),
            (json!({"tool": "read", "args": {}}), 400, "invalid", "args"),
            (json!({"tool": "read", "args": {"path": 7}}), 400, "invalid", "args"),
            (json!({"tool": "read", "args": {"path": "../../etc/passwd"}}), 400, "invalid", ""),
            (json!({"tool": "read", "args": {"path": "/etc/passwd"}}), 400, "invalid", ""),
            (json!({"tool": "write", "args": {"path": "a/../../b", "content": "x"}}), 400, "invalid", ""),
            (json!({"tool": "write", "args": {"path": "AGENTS.md", "content": "x"}}), 400, "invalid", ""),
            (json!({"tool": "read", "agentId": "nope"}), 400, "invalid", "model"),
            (json!({"tool": "read", "sessionKey": "cron:x"}), 400, "invalid", "sessionKey"),
            (json!({"tool": "read", "sessionKey": "agent:email-manager:main"}), 400, "invalid", "sessionKey"),
            (json!({"tool": "read", "idempotencyKey": ""}), 400, "invalid", "idempotencyKey"),
            (json!({"tool": "read", "dryRun": "yes"}), 400, "invalid", "dryRun"),
        ],
    )
    .await;
    let app = TestApp::new();
    let token = anything(&app).await;
    let large = format!("{{\"tool\":\"{}\"}}", "x".repeat(2 * 1024 * 1024));
    assert_eq!(app.post(TOOLS, &token).body(large).await.code(), (413, "payload_too_large".to_owned()));
}

#[tokio::test]
async fn hooks_that_make_no_work_are_refused() {
    let hook = |field: &str, value: Value| {
        let mut body = json!({"message": "x"});
        body[field] = value;
        body
    };
    check(
        HOOK,
        vec![
            (json!({}), 400, "invalid", "message"),
            (hook("message", json!("  ")), 400, "invalid", "message"),
            (hook("message", json!(7)), 400, "invalid", "message"),
            (hook("name", json!("a\nb")), 400, "invalid", "name"),
            (hook("name", json!("n".repeat(101))), 400, "invalid", "name"),
            (hook("agentId", json!("nope")), 400, "invalid", "model"),
            (hook("sessionKey", json!("subagent:x")), 400, "invalid", "sessionKey"),
            (hook("sessionKey", json!("")), 400, "invalid", "sessionKey"),
            (hook("sessionMode", json!("shared")), 400, "invalid", "sessionMode"),
            (hook("timeoutSeconds", json!(0)), 400, "invalid", "timeoutSeconds"),
            (hook("timeoutSeconds", json!(-1)), 400, "invalid", "timeoutSeconds"),
            (hook("timeoutSeconds", json!(601)), 400, "invalid", "timeoutSeconds"),
            (hook("model", json!("nobody/nothing")), 404, "not_found", ""),
            (hook("channel", json!("a b")), 400, "invalid", "channel"),
            (hook("idempotencyKey", json!("a b")), 400, "invalid", "idempotencyKey"),
            (hook("waitForCompletion", json!("yes")), 400, "invalid", "waitForCompletion"),
        ],
    )
    .await;
    check(
        WAKE,
        vec![
            (json!({}), 400, "invalid", "text"),
            (json!({"text": "x", "mode": "later"}), 400, "invalid", "mode"),
            (json!({"text": "x", "sessionKey": "acp:x"}), 400, "invalid", "sessionKey"),
        ],
    )
    .await;
    let app = TestApp::new();
    let token = anything(&app).await;
    let large = format!("{{\"message\":\"{}\"}}", "x".repeat(256 * 1024));
    assert_eq!(app.post(HOOK, &token).body(large).await.code(), (413, "payload_too_large".to_owned()));
}

#[tokio::test]
async fn paths_and_queries_that_name_nothing_are_refused() {
    let app = TestApp::new();
    let token = anything(&app).await;
    let long = format!("/v1/sessions/{}", "k".repeat(5000));
    let cases = [
        (Method::GET, "/v1/sessions?limit=0", 400, "invalid"),
        (Method::GET, "/v1/sessions?limit=101", 400, "invalid"),
        (Method::GET, "/v1/sessions?limit=-1", 400, "invalid"),
        (Method::GET, "/v1/sessions?limit=x", 400, "invalid"),
        (Method::GET, "/v1/sessions?limit=", 400, "invalid"),
        (Method::GET, "/v1/sessions?limit=99999999999999999999", 400, "invalid"),
        (Method::GET, "/v1/sessions?limit=1&limit=2", 400, "invalid"),
        (Method::GET, "/v1/sessions?before=nothing", 400, "invalid"),
        (Method::GET, "/v1/sessions/nothing", 404, "not_found"),
        (Method::GET, "/v1/sessions/%FF", 400, "invalid"),
        (Method::GET, "/v1/sessions/a%00b", 404, "not_found"),
        (Method::GET, long.as_str(), 404, "not_found"),
        (Method::GET, "/v1/sessions/k/transcript?limit=501", 400, "invalid"),
        (Method::GET, "/v1/sessions/k/transcript?before=-1", 400, "invalid"),
        (Method::GET, "/v1/sessions/k/transcript?before=18446744073709551615", 400, "invalid"),
        (Method::GET, "/v1/sessions/k/transcript?before=x", 400, "invalid"),
        (Method::GET, "/v1/sessions/k/transcript", 404, "not_found"),
        (Method::GET, "/v1/sessions/k/turns/%FF", 400, "invalid"),
        (Method::GET, "/v1/sessions/k/turns/t", 404, "not_found"),
        (Method::POST, "/v1/sessions/k/reset", 404, "not_found"),
        (Method::DELETE, "/v1/sessions/k", 404, "not_found"),
        (Method::GET, "/v1/models/gpt-4o", 400, "invalid"),
        (Method::GET, "/v1/models/%FF", 400, "invalid"),
        (Method::GET, "/v1/models/openclaw%2Fnope", 404, "not_found"),
        (Method::GET, "/v1/responses/resp_nothing", 404, "not_found"),
        (Method::GET, "/v1/nothing", 404, "not_found"),
        (Method::POST, "/hooks/other", 404, "not_found"),
        (Method::GET, "/hooks/agent", 405, "method_not_allowed"),
        (Method::PUT, CHAT, 405, "method_not_allowed"),
        (Method::POST, "/v1/models", 405, "method_not_allowed"),
    ];
    for (method, path, status, code) in cases {
        let answer = app.ask(method.clone(), path, &token).send().await;
        let shown: String = path.chars().take(80).collect();
        assert_eq!(answer.code(), (status, code.to_owned()), "{method} {shown}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_body_of_more_than_20_megabytes_is_refused() {
    let app = TestApp::new();
    let token = anything(&app).await;
    for path in [CHAT, RESPONSES, "/v1/sessions/k/reset"] {
        let answer = app.post(path, &token).body(vec![b' '; 20 * 1024 * 1024 + 1]).await;
        assert_eq!(answer.code(), (413, "payload_too_large".to_owned()), "{path}");
    }
}
