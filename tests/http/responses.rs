//! `POST /v1/responses` and `GET /v1/responses/{id}`.

#[path = "responses/background.rs"]
mod background;
#[path = "responses/previous.rs"]
mod previous;

use async_trait::async_trait;
use futures::StreamExt;
use harness::app::{Answer, TestApp};
use serde_json::{Value, json};
use shared::agent::{AgentInvoker, RunRequest, TurnEvent, TurnStream};
use shared::clock::Timestamp;
use shared::error::{Error, ErrorKind};
use shared::id::{AgentId, SessionId, SessionKey, TenantId, TurnId};
use shared::message::{MessageBody, Part, ToolCall};
use shared::model::{StopReason, ToolChoice, Usage};
use shared::principal::Scope;
use shared::session::{Failure, Reply, TurnOutcome, Window};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATH: &str = "/v1/responses";
/// An id of the right form that nothing has.
const NOBODY: &str = "resp_01HZZZZZZZZZZZZZZZZZZZZZZZ";

/// Answers every turn with the same events, and keeps what was asked.
struct Scripted {
    events: Vec<TurnEvent>,
    asked: Mutex<Vec<RunRequest>>,
}

impl Scripted {
    fn new(events: Vec<TurnEvent>) -> Arc<Self> {
        Arc::new(Self { events, asked: Mutex::default() })
    }

    /// The only request so far.
    fn request(&self) -> RunRequest {
        let asked = self.asked.lock().expect("no panic elsewhere");
        assert_eq!(asked.len(), 1);
        asked[0].clone()
    }
}

#[async_trait]
impl AgentInvoker for Scripted {
    async fn invoke(&self, request: RunRequest) -> Result<TurnStream, Error> {
        let accepted = TurnEvent::Accepted {
            turn: TurnId::new("T1"),
            session: request.session.clone(),
            session_id: SessionId::new("S1"),
            replayed: false,
        };
        self.asked.lock().expect("no panic elsewhere").push(request);
        let events: Vec<_> = std::iter::once(accepted).chain(self.events.clone()).map(Ok).collect();
        Ok(futures::stream::iter(events).boxed())
    }

    async fn resume(&self, _tenant: &TenantId, _turn: &TurnId) -> Result<TurnOutcome, Error> {
        Err(Error::not_found("nothing to resume"))
    }
}

fn said(delta: &str) -> TurnEvent {
    TurnEvent::Text { delta: delta.to_owned() }
}

fn call(id: &str, arguments: &str) -> ToolCall {
    ToolCall { id: id.to_owned(), name: "look_up".to_owned(), arguments: arguments.to_owned() }
}

fn ended(text: &str, tool_calls: Vec<ToolCall>, stop: StopReason) -> TurnEvent {
    let usage = Usage {
        input_tokens: 10,
        cached_tokens: 4,
        cache_write_tokens: 1,
        output_tokens: 5,
        reasoning_tokens: 2,
    };
    let at = Timestamp::from_millis(1_795_132_805_000);
    let model = "demo/echo".to_owned();
    let text = text.to_owned();
    TurnEvent::Ended { outcome: TurnOutcome::Done(Reply { text, tool_calls, stop, usage, model, at }) }
}

/// The response that a request without any settings gets, before it is at its end.
fn begun() -> Value {
    json!({
        "id": "resp_T1", "object": "response", "created_at": 0, "completed_at": null, "status": "in_progress",
        "incomplete_details": null, "model": "openclaw", "previous_response_id": null, "instructions": null,
        "output": [], "error": null, "tools": [], "tool_choice": "auto", "truncation": "disabled",
        "parallel_tool_calls": true, "text": {"format": {"type": "text"}}, "top_p": 1.0,
        "presence_penalty": 0.0, "frequency_penalty": 0.0, "top_logprobs": 0, "temperature": 1.0,
        "reasoning": null, "usage": null, "max_output_tokens": null, "max_tool_calls": null, "store": true,
        "background": false, "service_tier": "default", "metadata": {}, "safety_identifier": null,
        "prompt_cache_key": null, "user": null,
    })
}

/// `base` with other fields.
fn with(mut base: Value, change: Value) -> Value {
    let (Some(fields), Value::Object(change)) = (base.as_object_mut(), change) else { return base };
    fields.extend(change);
    base
}

fn usage() -> Value {
    json!({
        "input_tokens": 10, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 1},
        "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 15,
    })
}

fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn message(status: &str, text: &str, phase: &str) -> Value {
    json!({
        "type": "message", "id": "msg_T1", "status": status, "role": "assistant",
        "content": [text_part(text)], "phase": phase,
    })
}

/// The events, each with its `event:` line checked and its number taken off; then `[DONE]`.
fn events(answer: &Answer) -> Vec<Value> {
    let mut events = answer.events();
    assert_eq!(events.pop(), Some("[DONE]".into()));
    let names: Vec<_> = answer.text().lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    for (number, event) in events.iter_mut().enumerate() {
        assert_eq!(event["type"], names[number]);
        let fields = event.as_object_mut().expect("an object");
        assert_eq!(fields.remove("sequence_number"), Some(number.into()));
    }
    events
}

async fn stream(app: &TestApp, body: Value) -> Vec<Value> {
    let token = app.token("a", &[Scope::Chat]).await;
    let answer = app.post(PATH, &token).json(&with(body, json!({"stream": true}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "text/event-stream; charset=utf-8");
    events(&answer)
}

fn of_text(kind: &str, more: Value) -> Value {
    with(json!({"type": kind, "item_id": "msg_T1", "output_index": 0, "content_index": 0}), more)
}

#[tokio::test]
async fn a_text_is_streamed_with_every_event_of_the_specification() {
    let script = Scripted::new(vec![
        said("Good "),
        TurnEvent::ToolStarted { call: call("c0", "{}") },
        TurnEvent::ToolFinished { call_id: "c0".to_owned(), is_error: false },
        said("day."),
        ended("Good day.", vec![], StopReason::End),
    ]);
    let app = TestApp::with_agents(script);
    let item = message("completed", "Good day.", "final_answer");
    let whole = json!({
        "status": "completed", "completed_at": 1_795_132_805, "output": [item.clone()], "usage": usage(),
    });
    assert_eq!(
        stream(&app, json!({"input": "hi"})).await,
        [
            json!({"type": "response.created", "response": begun()}),
            json!({"type": "response.in_progress", "response": begun()}),
            json!({"type": "response.output_item.added", "output_index": 0, "item": {
                "type": "message", "id": "msg_T1", "status": "in_progress", "role": "assistant", "content": [],
            }}),
            of_text("response.content_part.added", json!({"part": text_part("")})),
            of_text("response.output_text.delta", json!({"delta": "Good ", "logprobs": []})),
            of_text("response.output_text.delta", json!({"delta": "day.", "logprobs": []})),
            of_text("response.output_text.done", json!({"text": "Good day.", "logprobs": []})),
            of_text("response.content_part.done", json!({"part": text_part("Good day.")})),
            json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
            json!({"type": "response.completed", "response": with(begun(), whole)}),
        ]
    );
}

#[tokio::test]
async fn calls_of_the_clients_tools_are_streamed_behind_the_text() {
    let calls = vec![call("c1", r#"{"q":1}"#), call("c2", "")];
    let script = Scripted::new(vec![said("Looking."), ended("Looking.", calls, StopReason::ToolCalls)]);
    let app = TestApp::with_agents(script);
    let tools = json!([{"type": "function", "name": "look_up"}]);
    let streamed = stream(&app, json!({"input": "hi", "tools": tools})).await;
    let item = |n: usize, status: &str, arguments: &str| {
        json!({
            "type": "function_call", "id": format!("fc_T1_{n}"), "call_id": format!("c{}", n + 1),
            "name": "look_up", "arguments": arguments, "status": status,
        })
    };
    let mut expected = Vec::new();
    for (n, arguments) in [(0, r#"{"q":1}"#), (1, "{}")] {
        let at = json!({"item_id": format!("fc_T1_{n}"), "output_index": n + 1});
        let of = |kind: &str, more: Value| with(with(json!({"type": kind}), at.clone()), more);
        expected.extend([
            json!({"type": "response.output_item.added", "output_index": n + 1, "item": item(n, "in_progress", "")}),
            of("response.function_call_arguments.delta", json!({"delta": arguments})),
            of("response.function_call_arguments.done", json!({"name": "look_up", "arguments": arguments})),
            json!({"type": "response.output_item.done", "output_index": n + 1,
                "item": item(n, "completed", arguments)}),
        ]);
    }
    let last = streamed.len() - 1;
    assert_eq!(streamed[8..last], expected);
    let response = &streamed[last]["response"];
    assert_eq!(
        response["output"],
        json!([
            message("completed", "Looking.", "commentary"),
            item(0, "completed", r#"{"q":1}"#),
            item(1, "completed", "{}"),
        ])
    );
    let parameters = json!({"type": "object", "properties": {}});
    assert_eq!(
        response["tools"],
        json!([{
            "type": "function", "name": "look_up", "description": null, "parameters": parameters, "strict": null,
        }])
    );
}

#[tokio::test]
async fn a_reply_without_deltas_or_without_words_still_has_its_text_event() {
    for (given, shown) in [("All at once.", "All at once."), ("", "No response from the agent.")] {
        let app = TestApp::with_agents(Scripted::new(vec![ended(given, vec![], StopReason::End)]));
        let streamed = stream(&app, json!({"input": "hi"})).await;
        assert_eq!(
            streamed[4],
            of_text("response.output_text.delta", json!({"delta": shown, "logprobs": []}))
        );
        assert_eq!(streamed[8]["response"]["output"], json!([message("completed", shown, "final_answer")]));
    }
}

#[tokio::test]
async fn a_reply_that_was_cut_off_ends_incomplete_with_its_reason() {
    for (stop, reason) in
        [(StopReason::Length, "max_output_tokens"), (StopReason::ContentFilter, "content_filter")]
    {
        let app = TestApp::with_agents(Scripted::new(vec![said("Half"), ended("Half", vec![], stop)]));
        let streamed = stream(&app, json!({"input": "hi"})).await;
        let whole = json!({
            "status": "incomplete", "incomplete_details": {"reason": reason}, "usage": usage(),
            "output": [message("incomplete", "Half", "final_answer")],
        });
        let expected = json!({"type": "response.incomplete", "response": with(begun(), whole)});
        assert_eq!(streamed.last(), Some(&expected));
    }
}

#[tokio::test]
async fn a_turn_that_fails_on_the_way_ends_the_stream_with_a_failed_response() {
    let failure = Failure {
        kind: ErrorKind::Upstream,
        message: "the model did not answer".to_owned(),
        param: None,
        retry_after: None,
    };
    let script =
        Scripted::new(vec![said("Half"), TurnEvent::Ended { outcome: TurnOutcome::Failed(failure.clone()) }]);
    let streamed = stream(&TestApp::with_agents(script), json!({"input": "hi"})).await;
    let mut item = message("incomplete", "Half", "");
    item.as_object_mut().and_then(|item| item.remove("phase"));
    let whole = json!({
        "status": "failed", "output": [item.clone()],
        "error": {"code": "upstream", "message": "the model did not answer"},
    });
    assert_eq!(
        streamed[5..],
        [
            of_text("response.output_text.done", json!({"text": "Half", "logprobs": []})),
            of_text("response.content_part.done", json!({"part": text_part("Half")})),
            json!({"type": "response.output_item.done", "output_index": 0, "item": item}),
            json!({"type": "response.failed", "response": with(begun(), whole)}),
        ]
    );

    let app =
        TestApp::with_agents(Scripted::new(vec![TurnEvent::Ended { outcome: TurnOutcome::Failed(failure) }]));
    let token = app.token("a", &[Scope::Chat]).await;
    let answer = app.post(PATH, &token).json(&json!({"input": "hi"})).await;
    assert_eq!(answer.code(), (502, "upstream".to_owned()));
}

#[tokio::test]
async fn a_turn_that_is_lost_from_sight_ends_the_stream_with_a_failed_response() {
    let streamed =
        stream(&TestApp::with_agents(Scripted::new(vec![said("Half")])), json!({"input": "hi"})).await;
    let last = streamed.last().expect("an event");
    assert_eq!(
        (&last["type"], &last["response"]["error"]["code"]),
        (&json!("response.failed"), &json!("unavailable"))
    );
}

#[tokio::test]
async fn every_setting_reaches_the_turn_and_is_repeated_in_the_response() {
    let script = Scripted::new(vec![ended("Yes.", vec![call("c1", "{}")], StopReason::ToolCalls)]);
    let app = TestApp::with_agents(script.clone());
    let token = app.token("a", &[Scope::Chat]).await;
    let schema = json!({"type": "object"});
    let tool = json!({
        "type": "function", "name": "look_up", "description": "Looks up.", "parameters": schema, "strict": true,
    });
    let format = json!({"type": "json_schema", "name": "it", "schema": schema, "strict": true});
    let body = json!({
        "model": "openclaw/email-manager", "input": "hi", "instructions": "Be brief.", "tools": [tool],
        "tool_choice": {"type": "function", "name": "look_up"}, "text": {"format": format, "verbosity": "low"},
        "max_output_tokens": 50, "temperature": 0.5, "top_p": 0.25, "presence_penalty": 1, "frequency_penalty": -1,
        "metadata": {"k": "v"}, "user": "ada", "safety_identifier": "s", "prompt_cache_key": "p",
        "truncation": "auto", "store": false, "reasoning": {"effort": "low"}, "parallel_tool_calls": false,
        "max_tool_calls": 3, "service_tier": "flex", "include": [], "previous_response_id": null,
        "stream": null, "background": false,
    });
    let answer = app.post(PATH, &token).json(&body).await;
    let asked = script.request();
    assert_eq!(asked.agent, AgentId::new("email-manager"));
    assert_eq!(asked.session, SessionKey::new("agent:email-manager:openresponses-user:ada"));
    assert!(asked.sticky);
    assert_eq!(asked.input, [MessageBody::user_text("hi")]);
    let options = asked.options;
    assert_eq!(options.instructions.as_deref(), Some("Be brief."));
    assert_eq!(options.tool_choice, ToolChoice::Tool("look_up".to_owned()));
    assert_eq!(
        (options.trigger.as_str(), options.requested_model.as_str()),
        ("responses", "openclaw/email-manager")
    );
    assert_eq!(
        options.sampling.response_format,
        Some(json!({"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": true}}))
    );
    assert_eq!((options.sampling.max_tokens, options.sampling.temperature), (Some(50), Some(0.5)));
    assert_eq!(
        (options.sampling.top_p, options.sampling.presence_penalty, options.sampling.frequency_penalty),
        (Some(0.25), Some(1.0), Some(-1.0))
    );
    let whole = json!({
        "status": "completed", "completed_at": 1_795_132_805, "model": "openclaw/email-manager",
        "instructions": "Be brief.", "tools": [tool], "tool_choice": {"type": "function", "name": "look_up"},
        "text": {"format": {
            "type": "json_schema", "name": "it", "description": null, "schema": null, "strict": true,
        }},
        "max_output_tokens": 50, "temperature": 0.5, "top_p": 0.25, "presence_penalty": 1.0,
        "frequency_penalty": -1.0, "metadata": {"k": "v"}, "user": "ada", "safety_identifier": "s",
        "prompt_cache_key": "p", "truncation": "auto", "usage": usage(),
        "output": [
            message("completed", "Yes.", "commentary"),
            {"type": "function_call", "id": "fc_T1_0", "call_id": "c1", "name": "look_up", "arguments": "{}",
             "status": "completed"},
        ],
    });
    assert_eq!(answer.json(), with(begun(), whole));
    assert_eq!(answer.header("x-reef-turn-id"), "T1");
}

#[tokio::test]
async fn items_become_messages_and_system_text() {
    let script = Scripted::new(vec![ended("Yes.", vec![], StopReason::End)]);
    let app = TestApp::with_agents(script.clone());
    let token = app.token("a", &[Scope::Chat]).await;
    let input = json!([
        {"type": "message", "role": "system", "content": "Rule one."},
        {"role": "developer", "content": [{"type": "input_text", "text": "Rule two."}]},
        {"role": "user", "content": "look"},
        {"type": "reasoning", "summary": []},
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
         "content": [{"type": "output_text", "text": "Looking.", "annotations": []}]},
        {"type": "function_call", "call_id": "c1", "name": "look_up", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "look_down", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c2", "output": "down"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "up"}]},
        {"id": "rs_1"},
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "what is it?"},
            {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
            {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,aGk="},
        ]},
        {"type": "input_text", "text": "and this"},
        {"type": "input_image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
    ]);
    let answer = app.post(PATH, &token).json(&json!({"input": input, "instructions": "Be brief."})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = |text: &str| Part::Text { text: text.to_owned() };
    let image = || Part::Image { media_type: "image/png".to_owned(), data: "AAAA".to_owned() };
    let named = |id: &str, name: &str| ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        arguments: "{}".to_owned(),
    };
    let result = |id: &str, name: &str, content: &str| MessageBody::ToolResult {
        call_id: id.to_owned(),
        name: name.to_owned(),
        content: content.to_owned(),
        is_error: false,
    };
    let asked = script.request();
    assert_eq!(
        asked.input,
        [
            MessageBody::user_text("look"),
            MessageBody::Assistant {
                text: "Looking.".to_owned(),
                tool_calls: vec![named("c1", "look_up"), named("c2", "look_down")],
            },
            result("c2", "look_down", "down"),
            result("c1", "look_up", "up"),
            MessageBody::User { parts: vec![text("what is it?"), image(), text("[attached file: a.txt]")] },
            MessageBody::User { parts: vec![text("and this"), image()] },
        ]
    );
    let instructions = asked.options.instructions.expect("a system text");
    assert!(
        instructions.starts_with("Be brief.\n\nRule one.\n\nRule two.\n\nThe user attached"),
        "{instructions}"
    );
    assert!(instructions.contains("\nhi\n"), "{instructions}");
    assert_eq!(answer.json()["instructions"], "Be brief.");
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_with_its_field() {
    let app = TestApp::new();
    let token = app.token_with("a", &[Scope::Chat], |token| {
        token.limit = Some(shared::limit::Limit { per_second: 1.0, burst: 1000 });
    });
    let token = token.await;
    let part = |part: Value| json!({"input": [{"role": "user", "content": [part]}]});
    let many: serde_json::Map<String, Value> = (0..17).map(|n| (n.to_string(), json!(""))).collect();
    for (body, param) in [
        (json!({}), "input"),
        (json!({"input": 7}), "input"),
        (json!({"input": ""}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": [{"role": "assistant", "content": "hi"}]}), "input"),
        (json!({"input": [7]}), "input[0]"),
        (json!({"input": [{}]}), "input[0].type"),
        (json!({"input": [{"type": "web_search_call", "id": "x"}]}), "input[0].type"),
        (json!({"input": [{"role": "robot", "content": "hi"}]}), "input[0].role"),
        (json!({"input": [{"role": "user", "content": 7}]}), "input[0].content"),
        (part(json!({"type": "input_text"})), "input[0].content[0].text"),
        (part(json!({"type": "input_audio"})), "input[0].content[0].type"),
        (
            part(json!({"type": "input_image", "image_url": "https://example.com/a.png"})),
            "input[0].content[0].image_url",
        ),
        (part(json!({"type": "input_image", "file_id": "file_1"})), "input[0].content[0].file_id"),
        (
            part(json!({"type": "input_file", "file_data": "data:application/pdf;base64,aGk="})),
            "input[0].content[0].file_data",
        ),
        (
            part(json!({"type": "input_file", "file_url": "https://example.com/a"})),
            "input[0].content[0].file_url",
        ),
        (json!({"input": [{"type": "function_call", "call_id": "c", "name": "n"}]}), "input[0].arguments"),
        (json!({"input": [{"type": "function_call_output", "call_id": "c"}]}), "input[0].output"),
        (json!({"input": "hi", "tools": [{"type": "web_search"}]}), "tools[0].type"),
        (json!({"input": "hi", "tools": [{"type": "function", "name": "no name"}]}), "tools[0].name"),
        (json!({"input": "hi", "tools": [{"type": "function"}]}), "tools[0]"),
        (json!({"input": "hi", "tool_choice": "required"}), "tool_choice"),
        (json!({"input": "hi", "tool_choice": {"type": "function", "name": "x"}}), "tool_choice"),
        (json!({"input": "hi", "text": {"format": {"type": "grammar"}}}), "text.format.type"),
        (
            json!({"input": "hi", "text": {"format": {"type": "json_schema", "name": "a"}}}),
            "text.format.schema",
        ),
        (
            json!({"input": "hi", "text": {"format": {"type": "json_schema", "schema": {}}}}),
            "text.format.name",
        ),
        (json!({"input": "hi", "temperature": 2.1}), "temperature"),
        (json!({"input": "hi", "max_output_tokens": 0}), "max_output_tokens"),
        (json!({"input": "hi", "metadata": {"a": 7}}), "metadata.a"),
        (json!({"input": "hi", "metadata": many}), "metadata"),
        (json!({"input": "hi", "metadata": {"a": "x".repeat(513)}}), "metadata"),
        (json!({"input": "hi", "truncation": "always"}), "truncation"),
        (json!({"input": "hi", "stream": true, "background": true}), "stream"),
        (json!({"input": "hi", "model": "gpt-4o"}), "model"),
    ] {
        let answer = app.post(PATH, &token).json(&body).await;
        assert_eq!(answer.code(), (400, "invalid".to_owned()), "{body}");
        assert_eq!(answer.json()["error"]["param"], param, "{body}");
    }
}

async fn ask(app: &TestApp, token: &str, body: Value) -> Value {
    let answer = app.post(PATH, token).json(&body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn a_session_is_named_by_header_then_user_then_for_this_request_alone() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let body = json!({"input": "hi", "user": "ada"});
    let by_header = app.post(PATH, &token).header("x-openclaw-session-key", "orders").json(&body).await;
    assert_eq!(by_header.header("x-reef-session-key"), "agent:main:orders");
    let by_user = app.post(PATH, &token).json(&body).await;
    assert_eq!(by_user.header("x-reef-session-key"), "agent:main:openresponses-user:ada");
    let alone = app.post(PATH, &token).json(&json!({"input": "hi"})).await;
    assert!(alone.header("x-reef-session-key").starts_with("agent:main:openresponses:"));
}

#[tokio::test]
async fn the_same_key_gets_the_same_response_whole_and_streamed() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    for body in [json!({"input": "hi", "metadata": {"a": "b"}}), json!({"input": "hi there", "stream": true})]
    {
        let key = format!("key of {}", body["input"].as_str().map_or(0, str::len)).replace(' ', "-");
        let ask = || app.post(PATH, &token).header("idempotency-key", &key).json(&body);
        let first = ask().await;
        let again = ask().await;
        assert_eq!(
            (first.header("idempotency-replayed"), again.header("idempotency-replayed")),
            ("", "true")
        );
        assert_eq!(first.header("x-reef-turn-id"), again.header("x-reef-turn-id"));
        if body["stream"].is_null() {
            assert_eq!(first.json(), again.json());
        } else {
            assert_eq!(events(&first).pop(), events(&again).pop());
        }
        let other = with(body.clone(), json!({"input": "something else"}));
        let other = app.post(PATH, &token).header("idempotency-key", &key).json(&other).await;
        assert_eq!(other.code(), (422, "idempotency_mismatch".to_owned()));
    }
}

#[tokio::test]
async fn a_finished_response_is_fetched_as_it_was_answered() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let tools = json!([{"type": "function", "name": "look_up", "parameters": {"type": "object"}}]);
    for body in [
        json!({"input": "hi", "instructions": "Be brief.", "metadata": {"a": "b"}, "user": "ada"}),
        json!({"input": "/tool look_up {}", "tools": tools}),
        json!({"input": "/words 40", "max_output_tokens": 16}),
        json!({"input": [{"role": "system", "content": "Not an instruction."}, {"role": "user", "content": "hi"}]}),
    ] {
        let first = ask(&app, &token, body).await;
        let path = format!("{PATH}/{}", first["id"].as_str().unwrap_or_default());
        assert_eq!(app.get(&path, &token).send().await.json(), first);
    }
}

#[tokio::test]
async fn a_stream_whose_turn_is_refused_at_once_is_an_error_and_no_stream() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let body = json!({"input": "hi", "stream": true, "previous_response_id": NOBODY});
    assert_eq!(app.post(PATH, &token).json(&body).await.code(), (404, "not_found".to_owned()));
    app.app.lifecycle.drain();
    for body in [
        json!({"input": "hi", "stream": true}),
        json!({"input": "hi"}),
        json!({"input": "hi", "background": true}),
    ] {
        assert_eq!(app.post(PATH, &token).json(&body).await.code(), (503, "unavailable".to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_the_head_was_sent_is_an_error_event() {
    /// Finds the session busy for a minute, then gives up.
    struct Busy;
    #[async_trait]
    impl AgentInvoker for Busy {
        async fn invoke(&self, _request: RunRequest) -> Result<TurnStream, Error> {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Err(Error::new(ErrorKind::Conflict, "the session is busy"))
        }
        async fn resume(&self, _tenant: &TenantId, _turn: &TurnId) -> Result<TurnOutcome, Error> {
            Err(Error::not_found("nothing to resume"))
        }
    }
    let app = TestApp::with_agents(Arc::new(Busy));
    let error = json!({
        "message": "the session is busy", "type": "conflict", "code": "conflict", "param": null,
    });
    assert_eq!(stream(&app, json!({"input": "hi"})).await, [json!({"type": "error", "error": error})]);
}
