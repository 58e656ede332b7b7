//! `POST /tools/invoke`.

use async_trait::async_trait;
use futures::FutureExt;
use harness::app::TestApp;
use harness::stores::stores_of;
use serde_json::{Value, json};
use shared::adapters::memory::Memory;
use shared::answer::{Answer, AnswerKey, AnswerStore, Claim};
use shared::app::Stores;
use shared::clock::Timestamp;
use shared::error::StoreError;
use shared::id::AgentId;
use shared::principal::Scope;
use shared::tool::{Effect, Tool, ToolContext, ToolError, ToolOutput, ToolSpec};
use std::sync::Arc;
use std::time::Duration;

const PATH: &str = "/tools/invoke";

fn write(path: &str, content: &str) -> Value {
    json!({"tool": "write", "args": {"path": path, "content": content}})
}

#[tokio::test]
async fn a_tool_is_called_by_either_name_with_and_without_arguments() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Tools]).await;
    for body in [json!({"tool": "current_time"}), json!({"name": "current_time", "args": {}, "action": "x"})]
    {
        let answer = app.post(PATH, &token).json(&body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let result = answer.json();
        assert_eq!(result["ok"], true);
        assert_eq!(result["result"]["content"][0]["type"], "text");
        let text = result["result"]["content"][0]["text"].as_str().expect("a text");
        assert!(text.contains("2026-11-20"), "{text}");
    }
}

#[tokio::test]
async fn a_tool_works_in_the_workspace_of_the_agent_that_is_named() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Tools]).await;
    let mut body = write("note.txt", "for mail");
    body["agentId"] = "email-manager".into();
    assert_eq!(app.post(PATH, &token).json(&body).await.status, 200);
    let answer = app
        .post(PATH, &token)
        .header("x-openclaw-agent-id", "email-manager")
        .json(&write("b.txt", "b"))
        .await;
    assert_eq!(answer.status, 200);
    let read = |path: &str| std::fs::read_to_string(app.files.path().join(path)).ok();
    assert_eq!(read("mail/note.txt").as_deref(), Some("for mail"));
    assert_eq!(read("mail/b.txt").as_deref(), Some("b"));
    assert_eq!(read("main/note.txt"), None);
}

#[tokio::test]
async fn a_tool_that_is_unknown_and_one_that_is_not_allowed_look_the_same() {
    let app = TestApp::with(|config| config.agents[0].tools.retain(|tool| tool != "write"));
    let token = app.token("a", &[Scope::Tools]).await;
    for (tool, body) in [("exec", json!({"tool": "exec"})), ("write", write("a", "b"))] {
        let answer = app.post(PATH, &token).json(&body).await;
        let error = json!({"type": "not_found", "message": format!("Tool not available: {tool}"),
            "code": "not_found", "param": null});
        assert_eq!((answer.status.as_u16(), answer.json()), (404, json!({"ok": false, "error": error})));
    }
}

#[tokio::test]
async fn the_same_key_writes_once_and_answers_the_same() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Tools]).await;
    let append = |key: &str| {
        let mut body = json!({"tool": "append", "args": {"path": "log.txt", "content": "line\n"}});
        body["idempotencyKey"] = key.into();
        body
    };
    let first = app.post(PATH, &token).json(&append("k1")).await;
    assert_eq!((first.status.as_u16(), first.header("idempotency-replayed")), (200, ""), "{}", first.text());
    let again = app.post(PATH, &token).json(&append("k1")).await;
    assert_eq!((again.body.clone(), again.header("idempotency-replayed")), (first.body, "true"));
    let other = app.post(PATH, &token).json(&append("k2")).await;
    assert_eq!(other.header("idempotency-replayed"), "");
    let log = std::fs::read_to_string(app.files.path().join("main/log.txt")).expect("a log");
    assert_eq!(log, "line\nline\n");
    let mut mismatch = append("k1");
    mismatch["args"]["content"] = "other".into();
    assert_eq!(app.post(PATH, &token).json(&mismatch).await.code(), (422, "idempotency_mismatch".to_owned()));
    let two = app.post(PATH, &token).header("idempotency-key", "k3").json(&append("k1")).await;
    assert_eq!(two.code(), (400, "invalid".to_owned()));
}

/// A tool that is at work until its caller gives up.
struct Endless(ToolSpec);

#[async_trait]
impl Tool for Endless {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }
    async fn call(&self, _context: &ToolContext, _arguments: &Value) -> Result<ToolOutput, ToolError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_once_tool_that_was_interrupted_is_parked_and_never_run_again_under_its_key() {
    let (busy, parked) = ((409, "conflict".to_owned()), (409, "parked".to_owned()));
    for (effect, later) in [(Effect::Once, Some(parked)), (Effect::Idempotent, None)] {
        let (name, description) = ("endless".to_owned(), String::new());
        let spec = ToolSpec { name, description, parameters: json!({}), strict: None, effect };
        let app = TestApp::with_tool(Arc::new(Endless(spec)));
        let token = app.token("a", &[Scope::Tools]).await;
        let body = json!({"tool": "endless", "idempotencyKey": "k"});
        // Each caller leaves if its call is at work; that of a call that was refused gets its code.
        let call = || app.post(PATH, &token).json(&body).now_or_never().map(|answer| answer.code());
        assert_eq!(call(), None);
        assert_eq!(call(), Some(busy.clone()), "at work");
        app.clock.advance(Duration::from_secs(3600));
        assert_eq!(call(), later, "{effect:?}");
        let the_same = later.or(Some(busy.clone()));
        assert_eq!(call(), the_same, "{effect:?}, asked again");
    }
}

#[tokio::test]
async fn a_refused_call_is_an_answer_too() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Tools]).await;
    let body = json!({"tool": "read", "args": {"path": "../secret"}, "idempotencyKey": "k"});
    let first = app.post(PATH, &token).json(&body).await;
    assert_eq!(first.code(), (400, "invalid".to_owned()));
    assert_eq!(first.json()["ok"], false);
    let again = app.post(PATH, &token).json(&body).await;
    assert_eq!((again.code(), again.header("idempotency-replayed")), (first.code(), "true"));
    assert_eq!(again.body, first.body);
}

/// Keeps no answer of more than 1,000 bytes.
struct Small(Memory);

#[async_trait]
impl AnswerStore for Small {
    async fn claim(&self, key: &AnswerKey, now: Timestamp, until: Timestamp) -> Result<Claim, StoreError> {
        self.0.claim(key, now, until).await
    }
    async fn store(&self, key: &AnswerKey, answer: &Answer, now: Timestamp) -> Result<(), StoreError> {
        match answer.body.len() {
            bytes @ 1_001.. => Err(StoreError::TooLarge { bytes, most: 1_000 }),
            _ => self.0.store(key, answer, now).await,
        }
    }
    async fn release(&self, key: &AnswerKey) -> Result<(), StoreError> {
        self.0.release(key).await
    }
}

#[tokio::test]
async fn an_answer_that_is_too_large_to_be_kept_is_refused_for_good() {
    let memory = Memory::new();
    let answers = Arc::new(Small(memory.clone()));
    let app = TestApp::with_stores(Stores { answers, ..stores_of(&Arc::new(memory)) });
    let token = app.token("a", &[Scope::Tools]).await;
    std::fs::write(app.files.path().join("main/large.txt"), "much ".repeat(1_000)).expect("a file");
    let mut body = json!({"tool": "read", "args": {"path": "large.txt"}});
    assert_eq!(app.post(PATH, &token).json(&body).await.status, 200, "nothing is kept without a key");
    body["idempotencyKey"] = "k".into();
    let refused = (400, "invalid".to_owned());
    assert_eq!(app.post(PATH, &token).json(&body).await.code(), refused);
    let again = app.post(PATH, &token).json(&body).await;
    assert_eq!(
        (again.code(), again.header("idempotency-replayed")),
        (refused, "true"),
        "it is not done again"
    );
}

#[tokio::test]
async fn a_dry_run_only_looks() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Tools]).await;
    let mut body = write("a.txt", "b");
    body["dryRun"] = true.into();
    assert_eq!(app.post(PATH, &token).json(&body).await.json(), json!({"ok": true, "dryRun": true}));
    assert!(!app.files.path().join("main/a.txt").exists());
    body["tool"] = "exec".into();
    assert_eq!(app.post(PATH, &token).json(&body).await.code(), (404, "not_found".to_owned()));
}

#[tokio::test]
async fn a_token_for_another_agent_may_not_use_this_ones_tools() {
    let app = TestApp::new();
    let mail = vec![AgentId::new("email-manager")];
    let token = app.token_with("a", &[Scope::Tools], |token| token.agents = Some(mail)).await;
    let answer = app.post(PATH, &token).json(&json!({"tool": "current_time"})).await;
    assert_eq!(answer.code(), (403, "forbidden".to_owned()));
    assert_eq!(answer.json()["ok"], false);
}
