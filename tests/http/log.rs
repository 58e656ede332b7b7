//! What the gateway writes about its requests.

use harness::app::TestApp;
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::principal::Scope;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// Log lines, kept.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("lines").write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("lines").clone()).expect("UTF-8")
    }

    /// The events of one target, in their order.
    fn of(&self, target: &str) -> Vec<Value> {
        let text = self.text();
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"));
        events.filter(|event| event["target"] == target).collect()
    }
}

/// Keeps everything that is logged while the guard lives.
fn listen() -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_max_level(tracing::Level::TRACE)
        .with_writer(lines.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    (lines, guard)
}

#[tokio::test]
async fn each_request_is_one_line_of_the_access_log_and_health_is_none() {
    let (lines, _guard) = listen();
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let stream = json!({"messages": [{"role": "user", "content": "x"}], "stream": true});
    let ask = app.post("/v1/chat/completions?a=b", &token).header("x-request-id", "r-1");
    assert_eq!(ask.json(&stream).await.status, 200);
    app.get("/v1/models", "").header("x-request-id", "r-2").send().await;
    for path in ["/health", "/readyz", "/metrics"] {
        app.get(path, "").send().await;
    }
    let mut seen = lines.of("access");
    for line in &mut seen {
        let line = line.as_object_mut().expect("an object");
        assert!(line.remove("duration_ms").is_some_and(|took| took.as_f64().is_some()));
        line.remove("timestamp");
        line.remove("span");
        line.remove("spans");
    }
    assert_eq!(
        seen,
        [
            json!({"level": "INFO", "target": "access", "message": "request", "request.id": "r-1",
                "method": "POST", "path": "/v1/chat/completions", "status": 200, "principal": "a"}),
            json!({"level": "INFO", "target": "access", "message": "request", "request.id": "r-2",
                "method": "GET", "path": "/v1/models", "status": 401}),
        ]
    );
}

#[tokio::test]
async fn a_request_whose_caller_left_before_the_answer_is_logged_as_499() {
    let (lines, _guard) = listen();
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let never = futures::stream::pending::<Result<String, io::Error>>();
    let asking = app.post("/v1/chat/completions", &token).body(axum::body::Body::from_stream(never));
    assert!(futures::FutureExt::now_or_never(asking).is_none());
    let seen = lines.of("access");
    assert_eq!((seen.len(), &seen[0]["status"], &seen[0]["principal"]), (1, &json!(499), &json!("a")));
}

#[tokio::test]
async fn no_log_line_holds_a_secret_or_what_was_said() {
    let (lines, _guard) = listen();
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Admin]).await;
    let secret = token.rsplit('_').next().expect("a secret");
    let said = "the quick brown fox";
    let chat = json!({"messages": [{"role": "user", "content": said}], "tools": said});
    app.post("/v1/chat/completions", &token).json(&chat).await;
    app.post("/v1/chat/completions", &token)
        .json(&json!({"messages": [{"role": "user", "content": said}]}))
        .await;
    app.post(&format!("/hooks/agent?token={token}"), "").json(&json!({"message": said})).await;
    app.post("/hooks/agent", &token).json(&json!({"message": said})).await;
    app.post("/tools/invoke", &token)
        .json(&json!({"tool": "write", "args": {"path": "a", "content": said}}))
        .await;
    app.get("/v1/models", &format!("reef_a_{secret}x")).send().await;
    app.turns.close();
    app.turns.wait().await;
    let text = lines.text();
    assert!(text.lines().count() >= 6, "{text}");
    for hidden in [secret, said] {
        assert!(!text.contains(hidden), "{hidden} is in\n{text}");
    }
}

#[tokio::test]
async fn the_log_says_why_a_credential_was_refused_and_which_token_it_named() {
    let (lines, _guard) = listen();
    let app = TestApp::new();
    let good = app.token("good", &[Scope::Chat]).await;
    let now = app.clock.now();
    let revoked = app.token_with("revoked", &[Scope::Chat], |token| token.revoked_at = Some(now)).await;
    let expired = app.token_with("expired", &[Scope::Chat], |token| token.expires_at = Some(now)).await;
    let wrong_secret = good.replace("0123", "3210");
    let misplaced = "reef_0123456789abcdef0123456789abcdef_x";
    for credential in
        [&good, &revoked, &expired, &wrong_secret, "reef_nobody_0123", misplaced, "sk-proj-abc", ""]
    {
        app.get("/v1/models", credential).send().await;
    }
    app.get("/v1/models", "").header("authorization", &good).send().await;
    let refused = lines.of("operation");
    let refused: Vec<_> = refused.iter().filter(|line| line["message"] == "a wrong credential").collect();
    assert!(refused.iter().all(|line| line["peer"] == "127.0.0.1"), "{refused:?}");
    let told: Vec<_> = refused.iter().map(|line| (line["reason"].as_str(), line["token"].as_str())).collect();
    assert_eq!(
        told,
        [
            (Some("revoked"), Some("revoked")),
            (Some("expired"), Some("expired")),
            (Some("wrong_secret"), Some("good")),
            (Some("unknown"), Some("nobody")),
            (Some("unknown"), None),
            (Some("malformed"), None),
            (Some("not_bearer"), None),
        ]
    );
    assert!(!lines.text().contains("0123456789abcdef"), "no secret, wherever it stood");
}
