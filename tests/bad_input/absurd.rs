//! Absurd values in every field: too deep, too long, too many. Whatever is made of one, the next caller is answered, and the
//! queue goes on.
//!
//! On SQLite, for there everything that is accepted is written as text and read back from it.

use harness::app::{Answer, TestApp};
use harness::stores::sqlite;
use serde_json::{Value, json};
use shared::limit::Limit;
use shared::principal::Scope;

/// Routes that take a body, a right request of each with every field that it knows, and fields beside them.
fn surfaces() -> Vec<(&'static str, Value)> {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    vec![
        (
            "/v1/chat/completions",
            json!({
                "model": "openclaw/main", "messages": [{"role": "user", "content": "x"}], "user": null, "stream": false,
                "stream_options": null, "temperature": 1, "top_p": 1, "max_tokens": 10, "max_completion_tokens": null,
                "stop": [], "seed": 1, "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
                "tool_choice": "auto", "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}},
                "metadata": {"a": "b"}, "reasoning_effort": "low", "unknown": 1,
            }),
        ),
        (
            "/v1/responses",
            json!({
                "model": "openclaw/main", "input": "x", "instructions": "x", "background": true, "user": null,
                "stream": false, "temperature": 1, "top_p": 1, "max_output_tokens": 10, "tool_choice": "auto",
                "tools": [{"type": "function", "name": "f", "parameters": schema}], "previous_response_id": null,
                "text": {"format": {"type": "json_schema", "name": "s", "schema": schema}}, "metadata": {"a": "b"},
                "reasoning": {"effort": "low"}, "unknown": 1,
            }),
        ),
        ("/tools/invoke", json!({"tool": "ls", "args": {"path": "."}, "sessionKey": "main", "unknown": 1})),
        (
            "/hooks/agent",
            json!({
                "message": "x", "name": "x", "agentId": "main", "sessionMode": "isolated", "idempotencyKey": null,
                "waitForCompletion": false, "channel": "hook", "timeoutSeconds": 1, "unknown": 1,
            }),
        ),
        (
            "/hooks/wake",
            json!({"text": "x", "mode": "now", "agentId": "main", "idempotencyKey": null, "unknown": 1}),
        ),
    ]
}

/// JSON texts that nobody sends in good faith in this field.
fn absurdities(field: &str) -> Vec<String> {
    let lists = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    // Around the depth at which the parser gives up, 128.
    let mut all: Vec<_> = [100, 120, 124, 126, 127, 128, 10_000].into_iter().map(objects).collect();
    all.extend([
        lists(127),
        format!("\"{}\"", "x".repeat(300_000)),
        format!("\"{}\"", "\\u0000".repeat(10_000)),
        format!("\"{}\"", "\u{202e}".repeat(10_000)),
        "9".repeat(10_000),
        "1e309".to_owned(),
        "-0".to_owned(),
        format!("[{}]", vec!["null"; 20_000].join(",")),
        format!("[{}]", vec![r#"{"role":"user","content":"x"}"#; 3_000].join(",")),
        format!("[{}]", vec![r#""x""#; 20_000].join(",")),
        format!("{{{}}}", (0..10_000).map(|at| format!("\"{at}\":1")).collect::<Vec<_>>().join(",")),
        format!("{{\"{}\":1}}", "k".repeat(200_000)),
    ]);
    // In the form that the field has, around the depths that are left of it inside what is stored.
    for depth in [60, 100, 110, 114, 116, 117, 118, 119, 120, 121, 122, 123, 124] {
        let (objects, lists) = (objects(depth), lists(depth));
        let schema = format!(r#"{{"type":"json_schema","name":"s","schema":{objects}}}"#);
        all.extend(match field {
            "response_format" => {
                Some(format!(r#"{{"type":"json_schema","json_schema":{{"name":"s","schema":{objects}}}}}"#))
            }
            "text" => Some(format!(r#"{{"format":{schema}}}"#)),
            "tools" => Some(format!(
                r#"[{{"type":"function","name":"f","parameters":{objects},"function":{{"name":"f","parameters":{objects}}}}}]"#
            )),
            "messages" | "input" => Some(format!(r#"[{{"role":"user","content":{lists}}}]"#)),
            _ => None,
        });
    }
    all
}

/// The request with another text in the place of a field.
fn with(right: &Value, field: &str, absurd: &str) -> String {
    let fields = right.as_object().into_iter().flatten();
    let fields = fields.map(|(name, value)| match name == field {
        true => format!("\"{name}\":{absurd}"),
        false => format!("\"{name}\":{value}"),
    });
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

/// What somebody else gets meanwhile: a chat's answer, and, if the queue may hold something else now, a hook's turn that the
/// queue comes to.
async fn honest(app: &TestApp, token: &str, number: usize, queued: bool) -> Result<(), String> {
    let text = format!("honest {number}");
    let chat = json!({"model": "openclaw/email-manager", "messages": [{"role": "user", "content": text}]});
    let answer = app.post("/v1/chat/completions", token).json(&chat).await;
    if answer.status != 200 || !answer.text().contains(&text) {
        return Err(format!("a chat is answered with {} {}", answer.status, answer.text()));
    }
    if !queued {
        return Ok(());
    }
    let hook = json!({"message": text, "agentId": "email-manager"});
    let accepted = app.post("/hooks/agent", token).json(&hook).await.json();
    app.work().await;
    let (key, turn) = (&accepted["sessionKey"], &accepted["runId"]);
    let path = format!(
        "/v1/sessions/{}/turns/{}",
        key.as_str().unwrap_or_default(),
        turn.as_str().unwrap_or_default()
    );
    let turn = app.get(&path, token).send().await;
    let is_done = turn.json()["status"] == "done";
    is_done.then_some(()).ok_or_else(|| format!("a hook's turn is {} after {accepted}", turn.text()))
}

/// What is wrong with the answer to an absurd request.
fn problem(answer: &Answer) -> Option<String> {
    let (status, code) = answer.code();
    // 502: the demo model was asked to call a tool and had none of that name to call.
    if (status >= 500 && status != 502) || code == "internal" {
        return Some(format!("{status} {code}"));
    }
    let is_long = status >= 400 && answer.body.len() > 2_000;
    is_long.then(|| format!("a refusal of {} bytes", answer.body.len()))
}

#[tokio::test]
async fn after_each_of_a_thousand_absurd_requests_others_are_answered() {
    let backend = sqlite();
    let app = TestApp::with_stores(backend.stores.clone());
    let limit = Some(Limit { per_second: 1e6, burst: 1_000_000 });
    let hostile = app.token_with("hostile", &[Scope::Admin], |token| token.limit = limit).await;
    let token = app.token_with("honest", &[Scope::Admin], |token| token.limit = limit).await;
    let (mut number, mut problems) = (0, Vec::new());
    for (path, right) in surfaces() {
        let answer = app.post(path, &hostile).json(&right).await;
        assert_eq!(answer.status, 200, "{path} as it should be: {}", answer.text());
        for field in right.as_object().into_iter().flatten().map(|(name, _)| name) {
            for absurd in &absurdities(field) {
                let answer = app.post(path, &hostile).body(with(&right, field, absurd)).await;
                let shown: String = absurd.chars().take(80).collect();
                let what = format!("request {number}, {path} with {field}: {shown} ({} bytes)", absurd.len());
                problems.extend(problem(&answer).map(|problem| format!("{what}: {problem}")));
                if let Err(problem) = honest(&app, &token, number, answer.status == 200).await {
                    // From here on nothing would be learnt any more.
                    panic!("after {what}, which was answered with {}: {problem}", answer.status);
                }
                number += 1;
            }
        }
    }
    let count = problems.len();
    problems.truncate(30);
    assert!(problems.is_empty(), "{count} problems:\n{}", problems.join("\n"));
    assert!(number >= 1_000, "{number}");
}
