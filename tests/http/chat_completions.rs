//! `POST /v1/chat/completions`.

use harness::agents::{ScriptedAgents, done, text};
use harness::app::{Answer, TestApp};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use shared::agent::{RunOptions, RunRequest};
use shared::clock::Timestamp;
use shared::error::{Error, ErrorKind};
use shared::id::{AgentId, PrincipalId, SessionKey, TenantId, TurnId};
use shared::message::{MessageBody, Part, ToolCall};
use shared::model::{Sampling, StopReason, ToolChoice};
use shared::principal::Scope;
use shared::session::{Failure, Idempotency, Parked, TurnOutcome};
use shared::tool::{Effect, ToolSpec};
use std::time::Duration;

const PATH: &str = "/v1/chat/completions";

fn hello() -> Value {
    json!({"messages": [{"role": "user", "content": "Hello"}]})
}

fn streamed() -> Value {
    json!({"messages": [{"role": "user", "content": "Hello"}], "stream": true})
}

fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
    ToolCall { id: id.to_owned(), name: name.to_owned(), arguments: arguments.to_owned() }
}

fn failed(kind: ErrorKind) -> shared::agent::TurnEvent {
    let failure = Failure { kind, message: "it went wrong".to_owned(), param: None, retry_after: None };
    shared::agent::TurnEvent::Ended { outcome: TurnOutcome::Failed(failure) }
}

/// The deltas and finish reasons of a stream's chunks, after a look at what is the same in all of them.
fn deltas(answer: &Answer) -> Vec<Value> {
    let mut events = answer.events();
    assert_eq!(events.pop(), Some("[DONE]".into()), "{}", answer.text());
    let first = events[0].clone();
    let mut out = Vec::new();
    for event in events {
        for field in ["id", "object", "created", "model"] {
            assert_eq!(event[field], first[field], "{event}");
        }
        assert_eq!(event["object"], "chat.completion.chunk");
        let choice = &event["choices"][0];
        out.push(match choice["finish_reason"].as_str() {
            Some(reason) => json!({"delta": choice["delta"], "finish_reason": reason}),
            None if choice.is_null() => json!({"usage": event["usage"]}),
            None => choice["delta"].clone(),
        });
    }
    out
}

#[tokio::test]
async fn a_plain_request_is_answered_with_openais_whole_body() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let body = json!({"model": "openclaw", "messages": [{"role": "user", "content": "Hello"}]});
    let answer = app.post(PATH, &token).json(&body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
    let turn = answer.header("x-reef-turn-id");
    let usage = answer.json()["usage"].clone();
    assert_eq!(
        answer.json(),
        json!({
            "id": format!("chatcmpl_{turn}"),
            "object": "chat.completion",
            "created": 1_795_132_800,
            "model": "openclaw",
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": "You said: Hello", "refusal": null},
                "logprobs": null,
                "finish_reason": "stop",
            }],
            "usage": {
                "prompt_tokens": usage["prompt_tokens"],
                "completion_tokens": 3,
                "total_tokens": usage["prompt_tokens"].as_u64().unwrap() + 3,
                "prompt_tokens_details": {"cached_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0},
            },
        })
    );
}

#[tokio::test]
async fn a_stream_begins_with_the_role_and_ends_with_the_reason_the_usage_and_done() {
    let events = vec![text("Good "), text("morning"), done("Good morning", Vec::new(), StopReason::Length)];
    let app = TestApp::with_agents(ScriptedAgents::new([Ok(events)]));
    let token = app.token("a", &[Scope::Chat]).await;
    let mut body = streamed();
    body["model"] = "openclaw/main".into();
    body["stream_options"] = json!({"include_usage": true});
    let answer = app.post(PATH, &token).json(&body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "text/event-stream; charset=utf-8");
    assert_eq!(answer.header("cache-control"), "no-cache");
    assert_eq!(answer.header("x-accel-buffering"), "no");
    let head = answer.events()[0].clone();
    assert_eq!(head["id"], format!("chatcmpl_{}", answer.header("x-reef-turn-id")));
    assert_eq!(head["model"], "openclaw/main");
    assert_eq!(head["created"], 1_795_132_800);
    let usage = json!({
        "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0},
    });
    assert_eq!(
        deltas(&answer),
        [
            json!({"role": "assistant"}),
            json!({"content": "Good "}),
            json!({"content": "morning"}),
            json!({"delta": {}, "finish_reason": "length"}),
            json!({"usage": usage}),
        ]
    );
}

#[tokio::test]
async fn tool_calls_of_the_client_are_returned_whole() {
    let calls = vec![call("c1", "look", r#"{"at":"sky"}"#), call("c2", "wait", "")];
    let app = TestApp::with_agents(ScriptedAgents::new([Ok(vec![done("", calls, StopReason::ToolCalls)])]));
    let token = app.token("a", &[Scope::Chat]).await;
    let answer = app.post(PATH, &token).json(&hello()).await;
    assert_eq!(
        answer.json()["choices"],
        json!([{
            "index": 0,
            "message": {
                "role": "assistant",
                "content": null,
                "refusal": null,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "look", "arguments": r#"{"at":"sky"}"#}},
                    {"id": "c2", "type": "function", "function": {"name": "wait", "arguments": ""}},
                ],
            },
            "logprobs": null,
            "finish_reason": "tool_calls",
        }])
    );
}

#[tokio::test]
async fn streamed_tool_calls_come_with_their_arguments_in_slices_of_256_characters() {
    let arguments = format!("{{\"a\":\"{}\"}}", "ß".repeat(300));
    let events = vec![
        text("One moment."),
        done("One moment.", vec![call("c1", "look", &arguments)], StopReason::ToolCalls),
    ];
    let app = TestApp::with_agents(ScriptedAgents::new([Ok(events)]));
    let token = app.token("a", &[Scope::Chat]).await;
    let answer = app.post(PATH, &token).json(&streamed()).await;
    let slice = |from: usize, to: usize| -> String { arguments.chars().skip(from).take(to - from).collect() };
    assert_eq!(
        deltas(&answer),
        [
            json!({"role": "assistant"}),
            json!({"content": "One moment."}),
            json!({"tool_calls": [{"index": 0, "id": "c1", "type": "function",
                "function": {"name": "look", "arguments": ""}}]}),
            json!({"tool_calls": [{"index": 0, "function": {"arguments": slice(0, 256)}}]}),
            json!({"tool_calls": [{"index": 0, "function": {"arguments": slice(256, 400)}}]}),
            json!({"delta": {}, "finish_reason": "tool_calls"}),
        ]
    );
}

#[tokio::test]
async fn an_empty_reply_says_so() {
    let empty = || Ok(vec![done("", Vec::new(), StopReason::End)]);
    let app = TestApp::with_agents(ScriptedAgents::new([empty(), empty()]));
    let token = app.token("a", &[Scope::Chat]).await;
    let whole = app.post(PATH, &token).json(&hello()).await;
    assert_eq!(whole.json()["choices"][0]["message"]["content"], "No response from the agent.");
    let stream = app.post(PATH, &token).json(&streamed()).await;
    assert_eq!(deltas(&stream)[1], json!({"content": "No response from the agent."}));
}

#[tokio::test]
async fn everything_that_a_client_says_reaches_the_turn() {
    let agents = ScriptedAgents::new([]);
    let app = TestApp::with_agents(agents.clone());
    let token = app.token("a", &[Scope::Admin]).await;
    let body = json!({
        "model": "openclaw/email-manager",
        "user": "u-1",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAEC", "detail": "low"}},
            ]},
            {"role": "assistant", "content": null, "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}},
            ]},
            {"role": "developer", "content": [{"type": "text", "text": "Answer in French."}]},
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "a cat"}]},
        ],
        "tools": [{"type": "function", "function": {"name": "look", "description": "Looks.",
            "parameters": {"type": "object", "properties": {}}, "strict": true}}],
        "tool_choice": "auto",
        "max_completion_tokens": 100, "max_tokens": 5,
        "temperature": 0.5, "top_p": 1, "frequency_penalty": -2, "presence_penalty": 2, "seed": 7,
        "stop": ["END"], "response_format": {"type": "json_object"},
        "stream_options": null, "unknown_field": {"is": "read over"},
    });
    let answer = app
        .post(PATH, &token)
        .header("x-openclaw-model", "demo/echo")
        .header("x-openclaw-message-channel", "Slack")
        .header("idempotency-key", "k-1")
        .json(&body)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request = agents.request();
    let fingerprint = request.idempotency.as_ref().expect("a key").fingerprint.clone();
    assert_eq!(fingerprint.len(), 64);
    assert_eq!(
        request,
        RunRequest {
            turn: TurnId::new(answer.header("x-reef-turn-id")),
            tenant: TenantId::single(),
            principal: PrincipalId::new("a"),
            agent: AgentId::new("email-manager"),
            session: SessionKey::new("agent:email-manager:openai-user:u-1"),
            sticky: true,
            idempotency: Some(Idempotency { key: "k-1".to_owned(), fingerprint }),
            input: vec![
                MessageBody::User {
                    parts: vec![
                        Part::Text { text: "What is this?".to_owned() },
                        Part::Image { media_type: "image/png".to_owned(), data: "AAEC".to_owned() },
                    ],
                },
                MessageBody::Assistant { text: String::new(), tool_calls: vec![call("c1", "look", "{}")] },
                MessageBody::ToolResult {
                    call_id: "c1".to_owned(),
                    name: String::new(),
                    content: "a cat".to_owned(),
                    is_error: false,
                },
            ],
            options: RunOptions {
                instructions: Some("Be brief.\n\nAnswer in French.".to_owned()),
                client_tools: vec![ToolSpec {
                    name: "look".to_owned(),
                    description: "Looks.".to_owned(),
                    parameters: json!({"type": "object", "properties": {}}),
                    strict: Some(true),
                    effect: Effect::Once,
                }],
                tool_choice: ToolChoice::Auto,
                sampling: Sampling {
                    max_tokens: Some(100),
                    temperature: Some(0.5),
                    top_p: Some(1.0),
                    frequency_penalty: Some(-2.0),
                    presence_penalty: Some(2.0),
                    seed: Some(7),
                    stop: vec!["END".to_owned()],
                    response_format: Some(json!({"type": "json_object"})),
                },
                model: Some("demo/echo".parse().expect("a model")),
                user: Some("u-1".to_owned()),
                channel: "slack".to_owned(),
                trigger: "chat".to_owned(),
                requested_model: "openclaw/email-manager".to_owned(),
                echo: Value::Null,
                ..RunOptions::default()
            },
        }
    );
}

#[tokio::test]
async fn the_agent_is_chosen_by_model_and_a_header_wins() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let cases = [
        (json!(null), "", "main"),
        (json!(""), "", "main"),
        (json!("openclaw"), "", "main"),
        (json!("OpenClaw/Default"), "", "main"),
        (json!("openclaw/email-manager"), "", "email-manager"),
        (json!("openclaw:email-manager"), "", "email-manager"),
        (json!("agent:Email-Manager"), "", "email-manager"),
        (json!("email-manager"), "", "email-manager"),
        (json!("openclaw"), "email-manager", "email-manager"),
        (json!("openclaw/email-manager"), "main", "main"),
        (json!("openclaw/nobody"), "main", "main"),
    ];
    for (model, header, agent) in cases {
        let mut body = hello();
        body["model"] = model.clone();
        for name in ["x-openclaw-agent-id", "x-openclaw-agent"] {
            let mut ask = app.post(PATH, &token);
            if !header.is_empty() {
                ask = ask.header(name, header);
            }
            app.clock.advance(Duration::from_secs(1));
            let answer = ask.json(&body).await;
            assert_eq!(answer.status, 200, "{model} {header}: {}", answer.text());
            let session = answer.header("x-reef-session-key");
            assert!(session.starts_with(&format!("agent:{agent}:openai:")), "{model} {header}: {session}");
            assert_eq!(
                answer.json()["model"],
                if model.as_str().is_some_and(|m| !m.is_empty()) { model.clone() } else { "openclaw".into() }
            );
        }
    }
}

#[tokio::test]
async fn requests_meet_on_the_session_of_a_header_before_that_of_a_user() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let mut with_user = hello();
    with_user["user"] = "u".into();
    let by_user = app.post(PATH, &token).json(&with_user).await;
    assert_eq!(by_user.header("x-reef-session-key"), "agent:main:openai-user:u");
    let by_header = app.post(PATH, &token).header("x-openclaw-session-key", "orders").json(&with_user).await;
    assert_eq!(by_header.header("x-reef-session-key"), "agent:main:orders");
    let alone = app.post(PATH, &token).json(&hello()).await;
    let other = app.post(PATH, &token).json(&hello()).await;
    assert_ne!(alone.header("x-reef-session-key"), other.header("x-reef-session-key"));
}

#[tokio::test]
async fn the_same_key_and_body_get_the_same_answer_whole_or_streamed() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    for body in [hello(), streamed()] {
        let key = if body["stream"].is_null() { "whole" } else { "streamed" };
        let ask = || app.post(PATH, &token).header("idempotency-key", key);
        let first = ask().json(&body).await;
        assert_eq!((first.status.as_u16(), first.header("idempotency-replayed")), (200, ""));
        app.clock.advance(Duration::from_secs(3600));
        let again = ask().json(&body).await;
        assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (200, "true"));
        for header in ["x-reef-turn-id", "x-reef-session-key"] {
            assert_eq!(first.header(header), again.header(header));
        }
        if key == "whole" {
            assert_eq!(first.body, again.body);
        } else {
            let said = |answer: &Answer| -> String {
                deltas(answer)
                    .iter()
                    .filter_map(|delta| delta["content"].as_str().map(str::to_owned))
                    .collect()
            };
            assert_eq!(said(&again), said(&first));
        }
    }
}

#[tokio::test]
async fn the_same_key_with_another_body_or_agent_is_a_mismatch() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let ask = || app.post(PATH, &token).header("idempotency-key", "k");
    assert_eq!(ask().json(&hello()).await.status, 200);
    let mut other = hello();
    other["temperature"] = 1.into();
    assert_eq!(ask().json(&other).await.code(), (422, "idempotency_mismatch".to_owned()));
    let elsewhere = ask().header("x-openclaw-agent-id", "email-manager").json(&hello()).await;
    assert_eq!(elsewhere.code(), (422, "idempotency_mismatch".to_owned()));
    let stranger = app.token("b", &[Scope::Chat]).await;
    let answer = app.post(PATH, &stranger).header("idempotency-key", "k").json(&other).await;
    assert_eq!(answer.status, 200, "keys belong to their principal");
}

#[tokio::test]
async fn a_failed_turn_answers_with_its_kinds_status() {
    let kinds = [
        (ErrorKind::Invalid, 400, "invalid"),
        (ErrorKind::NotFound, 404, "not_found"),
        (ErrorKind::Conflict, 409, "conflict"),
        (ErrorKind::Mismatch, 422, "idempotency_mismatch"),
        (ErrorKind::RateLimited, 429, "rate_limited"),
        (ErrorKind::BudgetExceeded, 429, "budget_exceeded"),
        (ErrorKind::Upstream, 502, "upstream"),
        (ErrorKind::Unavailable, 503, "unavailable"),
        (ErrorKind::Internal, 500, "internal"),
    ];
    for (kind, status, code) in kinds {
        let after = Error::new(kind, "it went wrong").after(Duration::from_millis(1500));
        let app = TestApp::with_agents(ScriptedAgents::new([Ok(vec![failed(kind)]), Err(after)]));
        let token = app.token("a", &[Scope::Chat]).await;
        let ended = app.post(PATH, &token).json(&hello()).await;
        assert_eq!(ended.code(), (status, code.to_owned()));
        let refused = app.post(PATH, &token).json(&streamed()).await;
        assert_eq!(refused.code(), (status, code.to_owned()));
        assert_eq!(refused.header("retry-after"), "2");
    }
}

#[tokio::test]
async fn a_turn_that_failed_before_is_an_error_and_no_stream() {
    let app = TestApp::with_agents(ScriptedAgents::replaying([Ok(vec![failed(ErrorKind::Invalid)])]));
    let token = app.token("a", &[Scope::Chat]).await;
    assert_eq!(app.post(PATH, &token).json(&streamed()).await.code(), (400, "invalid".to_owned()));
}

#[tokio::test]
async fn a_failure_after_the_first_byte_is_the_streams_last_event() {
    let app =
        TestApp::with_agents(ScriptedAgents::new([Ok(vec![text("Well"), failed(ErrorKind::Upstream)])]));
    let token = app.token("a", &[Scope::Chat]).await;
    let answer = app.post(PATH, &token).json(&streamed()).await;
    assert_eq!(answer.status, 200);
    let events = answer.events();
    assert_eq!(events[1]["choices"][0]["delta"], json!({"content": "Well"}));
    let error = json!({"message": "it went wrong", "type": "api_error", "code": "upstream", "param": null});
    assert_eq!(events[2..], [json!({"error": error}), "[DONE]".into()]);
}

#[tokio::test]
async fn a_parked_turn_answers_409_parked_and_tells_the_sdks_not_to_retry() {
    let parked = Parked { call: call("c1", "append", "{}"), at: Timestamp::EPOCH };
    let ended = shared::agent::TurnEvent::Ended { outcome: TurnOutcome::Parked(parked) };
    let app = TestApp::with_agents(ScriptedAgents::new([Ok(vec![ended])]));
    let token = app.token("a", &[Scope::Chat]).await;
    let answer = app.post(PATH, &token).json(&hello()).await;
    assert_eq!(answer.code(), (409, "parked".to_owned()));
    assert_eq!(answer.header("x-should-retry"), "false");
}

#[tokio::test]
async fn a_required_tool_that_was_not_called_is_the_vendors_failure() {
    let app = TestApp::with_agents(ScriptedAgents::new([]));
    let token = app.token("a", &[Scope::Chat]).await;
    for choice in [json!("required"), json!({"type": "function", "function": {"name": "look"}})] {
        let mut body = hello();
        body["tools"] = json!([{"type": "function", "function": {"name": "look"}}]);
        body["tool_choice"] = choice;
        assert_eq!(app.post(PATH, &token).json(&body).await.code(), (502, "upstream".to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_session_is_busy_begins_with_heartbeats() {
    let wait = Duration::from_secs(25);
    let app = TestApp::with_agents(ScriptedAgents::slow([], wait));
    let token = app.token("a", &[Scope::Chat]).await;
    let started = tokio::time::Instant::now();
    let (status, _, mut body) = app.post(PATH, &token).open(streamed().to_string()).await;
    assert_eq!((status.as_u16(), started.elapsed().as_secs()), (200, 10));
    let mut seen = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let text = String::from_utf8(frame.into_data().expect("data").to_vec()).expect("UTF-8");
        seen.push((started.elapsed().as_secs(), text.starts_with(": heartbeat")));
    }
    assert_eq!(seen[..2], [(20, true), (25, false)]);
    assert!(seen[1..].iter().all(|(at, heartbeat)| *at == 25 && !heartbeat), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_refused_after_a_heartbeat_ends_with_the_refusal() {
    let busy = Error::new(ErrorKind::Conflict, "busy");
    let app = TestApp::with_agents(ScriptedAgents::slow([Err(busy)], Duration::from_secs(15)));
    let token = app.token("a", &[Scope::Chat]).await;
    let answer = app.post(PATH, &token).json(&streamed()).await;
    assert_eq!(answer.status, 200);
    let error = json!({"message": "busy", "type": "conflict", "code": "conflict", "param": null});
    assert_eq!(answer.events(), [json!({"error": error}), "[DONE]".into()]);
}

#[tokio::test]
async fn a_turn_whose_client_left_is_finished_and_can_be_fetched() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let (status, headers, body) = app.post(PATH, &token).open(streamed().to_string()).await;
    assert_eq!(status, 200);
    drop(body);
    app.turns.close();
    app.turns.wait().await;
    let header = |name: &str| headers[name].to_str().expect("ASCII").to_owned();
    let path = format!("/v1/sessions/{}/turns/{}", header("x-reef-session-key"), header("x-reef-turn-id"));
    let turn = app.get(&path, &token).send().await.json();
    assert_eq!((&turn["status"], &turn["reply"]["text"]), (&json!("done"), &json!("You said: Hello")));
}

#[tokio::test]
async fn a_draining_gateway_refuses_new_turns() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    app.app.lifecycle.drain();
    let answer = app.post(PATH, &token).json(&hello()).await;
    assert_eq!(answer.code(), (503, "unavailable".to_owned()));
    assert_eq!(answer.header("retry-after"), "2");
}

#[tokio::test]
async fn another_model_needs_the_scope_admin() {
    let app = TestApp::new();
    let plain = app.token("a", &[Scope::Chat]).await;
    let admin = app.token("b", &[Scope::Admin]).await;
    let ask = |token: &str, model: &str| {
        let ask = app.post(PATH, token).header("x-openclaw-model", model);
        async move { ask.json(&hello()).await }
    };
    assert_eq!(ask(&plain, "demo/echo").await.code(), (403, "forbidden".to_owned()));
    assert_eq!(ask(&admin, "demo/echo").await.status, 200);
    for unknown in ["nobody/echo", "echo", "demo/"] {
        let answer = ask(&admin, unknown).await;
        assert_eq!(answer.code(), (404, "not_found".to_owned()), "{unknown}");
        assert_eq!(answer.json()["error"]["message"], format!("Unknown model: {unknown}"));
    }
}
