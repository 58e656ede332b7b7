//! Random bytes, random JSON and almost right JSON at every route: whatever comes is the caller's fault, never ours.

use harness::app::TestApp;
use http::Method;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use shared::limit::Limit;
use shared::principal::Scope;

/// Every route that takes something from its caller.
const ROUTES: [(&str, &str); 13] = [
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/responses"),
    ("GET", "/v1/responses/"),
    ("GET", "/v1/models/"),
    ("GET", "/v1/sessions?"),
    ("GET", "/v1/sessions/"),
    ("DELETE", "/v1/sessions/"),
    ("POST", "/v1/sessions/agent:main:a/reset"),
    ("GET", "/v1/sessions/agent:main:a/transcript?"),
    ("GET", "/v1/sessions/agent:main:a/turns/"),
    ("POST", "/tools/invoke"),
    ("POST", "/hooks/agent"),
    ("POST", "/hooks/wake"),
];

/// Words that mean something somewhere.
const WORDS: [&str; 44] = [
    "model",
    "messages",
    "role",
    "content",
    "user",
    "assistant",
    "tool",
    "system",
    "type",
    "text",
    "image_url",
    "url",
    "data:image/png;base64,AAEC",
    "stream",
    "stream_options",
    "include_usage",
    "tools",
    "function",
    "name",
    "parameters",
    "tool_choice",
    "required",
    "auto",
    "tool_calls",
    "tool_call_id",
    "id",
    "arguments",
    "temperature",
    "max_tokens",
    "stop",
    "seed",
    "response_format",
    "json_schema",
    "input",
    "instructions",
    "previous_response_id",
    "message",
    "args",
    "read",
    "path",
    "agentId",
    "sessionKey",
    "openclaw",
    "demo/echo",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => proptest::sample::select(&WORDS[..]).prop_map(str::to_owned),
        1 => ".{0,20}",
    ]
}

/// JSON of words that the surfaces know.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((word(), inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// A right request in which one place holds something else.
fn almost_right() -> impl Strategy<Value = Value> {
    let right = json!({
        "model": "openclaw", "user": "u", "stream": false,
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "t"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAEC"}}]}],
        "input": [{"type": "message", "role": "user", "content": "x"}],
        "tools": [{"type": "function", "name": "f", "function": {"name": "f", "parameters": {}}}], "temperature": 1,
        "tool": "read", "args": {"path": "a"}, "message": "m", "text": "t", "sessionKey": "k",
    });
    let places: Vec<String> = places(&right, "");
    (proptest::sample::select(places), any_json()).prop_map(move |(place, other)| {
        let mut body = right.clone();
        if let Some(value) = body.pointer_mut(&place) {
            *value = other;
        }
        body
    })
}

/// The JSON pointers of everything in `value`.
fn places(value: &Value, here: &str) -> Vec<String> {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(key, value)| (format!("{here}/{key}"), value)).collect(),
        Value::Array(items) => {
            items.iter().enumerate().map(|(at, value)| (format!("{here}/{at}"), value)).collect()
        }
        _ => Vec::new(),
    };
    below
        .into_iter()
        .flat_map(|(path, value)| std::iter::once(path.clone()).chain(places(value, &path)))
        .collect()
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => vec(any::<u8>(), 0..300),
        2 => any_json().prop_map(|value| value.to_string().into_bytes()),
        4 => almost_right().prop_map(|value| value.to_string().into_bytes()),
    ]
}

/// What a client may put behind a path, percent-encoded or not.
fn tail() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9:%&=._~-]{0,40}",
        "(limit|before|agent|user)=[a-z0-9%:-]{0,20}",
        "(%[0-9A-F]{2}){0,12}"
    ]
}

fn header() -> impl Strategy<Value = (String, Vec<u8>)> {
    let names = [
        "idempotency-key",
        "x-openclaw-agent-id",
        "x-openclaw-session-key",
        "x-openclaw-model",
        "x-openclaw-message-channel",
        "x-request-id",
        "x-forwarded-for",
        "forwarded",
        "content-length",
        "authorization",
        "x-api-key",
    ];
    // Header values that a server lets through: no control characters but the tab.
    let byte = prop_oneof![0x20_u8..0x7f, 0x80_u8..=0xff];
    (proptest::sample::select(names.to_vec()).prop_map(str::to_owned), vec(byte, 0..60))
}

#[derive(Debug, Clone)]
struct Shot {
    route: usize,
    tail: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

fn shot() -> impl Strategy<Value = Shot> {
    (0..ROUTES.len(), tail(), vec(header(), 0..3), body()).prop_map(|(route, tail, headers, body)| Shot {
        route,
        tail,
        headers,
        body,
    })
}

async fn fire(app: &TestApp, token: &str, shot: &Shot) -> Result<(), TestCaseError> {
    let (method, path) = ROUTES[shot.route];
    let open_ended = path.ends_with('/') || path.ends_with('?');
    let path = if open_ended { format!("{path}{}", shot.tail) } else { path.to_owned() };
    if path.parse::<http::Uri>().is_err() {
        return Ok(());
    }
    let mut ask = app.ask(Method::from_bytes(method.as_bytes()).expect("a method"), &path, token);
    for (name, value) in &shot.headers {
        ask = ask.header_bytes(name, value);
    }
    let answer = ask.body(shot.body.clone()).await;
    let status = answer.status.as_u16();
    // 502: the demo model was asked to call a tool and had none of that name to call.
    prop_assert!(status < 500 || status == 502, "{method} {path}: {status} {}", answer.text());
    if status >= 400 && answer.header("content-type").starts_with("application/json") {
        let code = answer.code().1;
        prop_assert!(!code.is_empty() && code != "internal", "{method} {path}: {}", answer.text());
    }
    // Whatever it was, the next one is answered.
    let honest =
        json!({"model": "openclaw/email-manager", "messages": [{"role": "user", "content": "honest"}]});
    let after = app.post("/v1/chat/completions", token).json(&honest).await;
    prop_assert!(after.status == 200, "after {method} {path}: {}", after.text());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_is_never_our_failure(shots in vec(shot(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let app = TestApp::new();
            let limit = Some(Limit { per_second: 1e6, burst: 100_000 });
            let token = app.token_with("all", &[Scope::Admin], |token| token.limit = limit).await;
            for shot in &shots {
                fire(&app, &token, shot).await?;
            }
            Ok::<(), TestCaseError>(())
        })?;
    }
}
