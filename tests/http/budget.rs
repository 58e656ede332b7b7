//! What a request may bring, and what happens when there is no memory for it.

use axum::body::Body;
use harness::app::{Answer, TestApp};
use http::StatusCode;
use serde_json::{Value, json};
use shared::bounds::{ANSWER_CALLS, BODY_VALUES, BODY_WEIGHT, MESSAGE_PARTS, REQUEST_MESSAGES};
use shared::clock::Clock;
use shared::job::{JobFilter, JobState};
use shared::principal::Scope;
use shared::worker;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";

/// A process that lends 8 MiB.
fn small() -> TestApp {
    TestApp::with(|config| config.gateway.memory_budget = Some(8 << 20))
}

fn saying(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}]})
}

fn metric(app: &TestApp, name: &str) -> String {
    let text = app.app.metrics.render().unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
    line.map(|line| line[name.len() + 1..].to_owned()).unwrap_or_default()
}

fn assert_refused(answer: &Answer) {
    assert_eq!(answer.code(), (503, "unavailable".to_owned()), "{}", answer.text());
    assert_eq!(answer.header("retry-after"), "2");
    let message = "this gateway has no memory for the request right now; try again";
    assert_eq!(answer.json()["error"]["message"], message);
}

/// A body with so many of something.
type OfMany<'a> = &'a dyn Fn(usize) -> Value;

#[tokio::test]
async fn a_body_is_refused_while_there_is_no_memory_for_it_and_taken_afterwards() {
    let app = small();
    let token = app.token("a", &[Scope::Chat]).await;
    let large = saying(&"x".repeat(300_000));
    let mut others = app.app.budget.draw();
    assert!(others.reserve(app.app.budget.largest()));
    assert_refused(&app.post(CHAT, &token).header("content-length", "300100").json(&large).await);
    let text = large.to_string();
    let pieces = text.as_bytes().chunks(10_000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec()));
    let pieces = Body::from_stream(futures::stream::iter(pieces.collect::<Vec<_>>()));
    assert_refused(&app.post(CHAT, &token).body(pieces).await);
    assert_refused(&app.post(RESPONSES, &token).json(&json!({"input": "x".repeat(300_000)})).await);
    assert_eq!(metric(&app, "reef_memory_refusals_total"), "3");
    let plain = app.post(CHAT, &token).json(&saying("hello")).await;
    assert_eq!(plain.status, StatusCode::OK, "small requests always find room: {}", plain.text());
    drop(others);
    assert_eq!(app.post(CHAT, &token).json(&large).await.status, StatusCode::OK);
}

#[tokio::test]
async fn whatever_becomes_of_a_request_what_was_lent_for_it_is_given_back() {
    let app = small();
    let token = app.token("a", &[Scope::Chat, Scope::Tools, Scope::Hooks]).await;
    let text = "x".repeat(100_000);
    let streamed = json!({"messages": [{"role": "user", "content": text}], "stream": true});
    let queued = json!({"input": text, "background": true});
    let unknown = json!({"model": "openclaw/nobody", "messages": [{"role": "user", "content": text}]});
    let hook = json!({"message": text});
    let asked = [
        (CHAT, saying(&text), 200),
        (CHAT, streamed, 200),
        (RESPONSES, json!({"input": text}), 200),
        (RESPONSES, queued, 200),
        (CHAT, unknown, 400),
        ("/hooks/agent", hook, 200),
    ];
    for (path, body, status) in asked {
        let answer = app.post(path, &token).json(&body).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text());
    }
    app.turns.close();
    app.turns.wait().await;
    assert_eq!(app.app.budget.drawn(), 0);
}

#[tokio::test]
async fn a_body_that_this_process_could_never_hold_is_too_large() {
    let app = small();
    let token = app.token("a", &[Scope::Chat]).await;
    let most = app.app.budget.largest() / BODY_WEIGHT;
    let answer = app.post(CHAT, &token).json(&saying(&"x".repeat(most))).await;
    assert_eq!(answer.code(), (413, "payload_too_large".to_owned()));
    let fits = app.post(CHAT, &token).json(&saying(&"x".repeat(most - 100))).await;
    assert_eq!(fits.status, StatusCode::OK, "{}", fits.text());
}

#[tokio::test]
async fn lists_may_be_as_long_as_their_bounds_and_one_more_is_refused_by_name() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let user = || json!({"role": "user", "content": "x"});
    let messages = |count| json!({"messages": vec![user(); count]});
    let items = |count| json!({"input": vec![user(); count]});
    let parts = |count| json!({"messages": [{"role": "user", "content": vec![json!({"type": "text", "text": "x"}); count]}]});
    let pieces = |count| json!({"input": [{"role": "user", "content": vec![json!({"type": "input_text", "text": "x"}); count]}]});
    let calls = |count| {
        let call = json!({"id": "c", "function": {"name": "f", "arguments": "{}"}});
        json!({"messages": [{"role": "assistant", "tool_calls": vec![call; count]}, user()]})
    };
    let kinds: [(&str, &str, OfMany<'_>, usize); 5] = [
        (CHAT, "messages", &messages, REQUEST_MESSAGES),
        (RESPONSES, "input", &items, REQUEST_MESSAGES),
        (CHAT, "messages[0].content", &parts, MESSAGE_PARTS),
        (RESPONSES, "input[0].content", &pieces, MESSAGE_PARTS),
        (CHAT, "messages[0].tool_calls", &calls, ANSWER_CALLS),
    ];
    for (path, param, of, most) in kinds {
        let fits = app.post(path, &token).json(&of(most)).await;
        assert_eq!(fits.status, StatusCode::OK, "{param}: {}", fits.text());
        let refused = app.post(path, &token).json(&of(most + 1)).await;
        assert_eq!(refused.code(), (400, "invalid".to_owned()), "{param}");
        assert_eq!(refused.json()["error"]["param"], param);
        let message = format!("`{param}` has {} entries; at most {most} are taken.", most + 1);
        assert_eq!(refused.json()["error"]["message"], message);
    }
}

#[tokio::test]
async fn a_body_of_very_many_values_is_refused_before_they_are_read() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let tiny = vec![json!({"role": "user", "content": ""}); BODY_VALUES];
    let answer = app.post(CHAT, &token).json(&json!({"messages": tiny})).await;
    assert_eq!(answer.code(), (400, "invalid".to_owned()));
    assert_eq!(answer.json()["error"]["param"], "messages");
    let schema = json!({"type": "object", "enum": vec![json!({"a": 1}); BODY_VALUES]});
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": schema}});
    let answer = app.post(CHAT, &token).json(&json!({"messages": [], "tools": [tool]})).await;
    assert_eq!(answer.code(), (400, "invalid".to_owned()));
    let message = format!("the body holds more than {BODY_VALUES} values; send a shorter request");
    assert_eq!(answer.json()["error"]["message"], message);
    assert_eq!(app.app.budget.drawn(), 0);
}

#[tokio::test(start_paused = true)]
async fn jobs_wait_while_the_memory_is_drawn_and_are_run_afterwards() {
    let app = small();
    let token = app.token("a", &[Scope::Hooks]).await;
    let mut others = app.app.budget.draw();
    assert!(others.reserve(app.app.budget.largest()));
    let accepted = app.post("/hooks/agent", &token).json(&json!({"message": "hello"})).await;
    assert_eq!(accepted.status, StatusCode::OK, "{}", accepted.text());
    let stop = CancellationToken::new();
    let work = worker::run(app.app.clone(), app.turns.clone(), stop.clone());
    let pending = || async {
        let filter = JobFilter { id: None, state: Some(JobState::Pending), limit: 10 };
        let jobs = &app.app.stores.jobs;
        let tenant = &app.app.tenant;
        jobs.list(tenant, &filter, app.clock.now()).await.unwrap().len()
    };
    let look = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let waiting = pending().await;
        drop(others);
        while pending().await > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        stop.cancel();
        waiting
    };
    let ((), waiting) = tokio::join!(work, look);
    assert_eq!(waiting, 1);
}
