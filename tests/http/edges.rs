//! What every answer has in common.

use harness::app::{Answer, TestApp};
use http::Method;
use serde_json::json;
use shared::config::Hsts;
use shared::principal::Scope;
use std::time::Duration;

fn assert_security_headers(answer: &Answer, what: &str) {
    let seen = ["x-content-type-options", "x-frame-options", "referrer-policy", "permissions-policy"]
        .map(|name| answer.header(name).to_owned());
    assert_eq!(
        seen,
        ["nosniff", "DENY", "no-referrer", "camera=(), microphone=(self), geolocation=()"],
        "{what}"
    );
    assert!(!answer.header("x-request-id").is_empty(), "{what}");
}

#[tokio::test]
async fn every_answer_carries_the_security_headers_errors_and_streams_included() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let chat = "/v1/chat/completions";
    let stream = json!({"messages": [{"role": "user", "content": "x"}], "stream": true});
    assert_security_headers(&app.get("/health", "").send().await, "200");
    assert_security_headers(&app.post(chat, &token).json(&stream).await, "stream");
    assert_security_headers(&app.post(chat, &token).body("{").await, "400");
    assert_security_headers(&app.post(chat, "").send().await, "401");
    assert_security_headers(&app.get("/nothing", "").send().await, "404");
    assert_security_headers(&app.get(chat, "").send().await, "405");
    let plain = app.get("/health", "").send().await;
    assert_eq!(plain.header("strict-transport-security"), "");
}

#[tokio::test]
async fn hsts_is_sent_where_tls_ends_in_front_unless_the_settings_say_otherwise() {
    let own = || Hsts::Always("max-age=1".to_owned());
    for (tls_in_front, proxies, hsts, sent) in [
        (true, "", Hsts::WithTls, "max-age=63072000"),
        (false, "10.0.0.1/32", Hsts::WithTls, "max-age=63072000"),
        (true, "", Hsts::Never, ""),
        (false, "10.0.0.1/32", Hsts::Never, ""),
        (true, "", own(), "max-age=1"),
        (false, "", Hsts::WithTls, ""),
        (false, "", own(), "max-age=1"),
    ] {
        let app = TestApp::with(|config| {
            config.gateway.tls_in_front = tls_in_front;
            config.gateway.trusted_proxies = proxies.parse().into_iter().collect();
            config.gateway.hsts = hsts.clone();
        });
        let answer = app.get("/nothing", "").send().await;
        assert_eq!(answer.header("strict-transport-security"), sent, "{tls_in_front} {proxies} {hsts:?}");
    }
}

#[tokio::test]
async fn an_unknown_path_and_a_wrong_method_are_errors_that_say_where_the_api_is() {
    let app = TestApp::new();
    let long = format!("/{}", "x".repeat(5000));
    for (path, hint) in [
        ("/chat/completions", "give your client a base URL that ends in /v1"),
        ("/responses", "give your client a base URL that ends in /v1"),
        ("/models/openclaw", "give your client a base URL that ends in /v1"),
        ("/v1/v1/chat/completions", "It holds /v1 twice"),
        ("/v1/chat/completion", "/openapi.json lists every path"),
        ("/v1", "/openapi.json lists every path"),
        ("/nothing", "/openapi.json lists every path"),
        (&long, "/openapi.json lists every path"),
    ] {
        let unknown = app.get(path, "").send().await;
        assert_eq!(unknown.code(), (404, "not_found".to_owned()), "{path}");
        assert_eq!(unknown.json()["error"]["type"], "not_found");
        let said = unknown.json()["error"]["message"].to_string();
        let beginning: String = path.chars().take(50).collect();
        assert!(said.contains(hint) && said.contains(&format!("GET {beginning}")), "{path}: {said}");
        assert!(said.len() < 300, "{said}");
    }
    let wrong = app.get("/v1/chat/completions", "").send().await;
    assert_eq!((wrong.code(), wrong.header("allow")), ((405, "method_not_allowed".to_owned()), "POST"));
    let error = json!({
        "message": "/v1/chat/completions does not take the method GET; the header `Allow` says which it takes.",
        "type": "invalid_request_error", "code": "method_not_allowed", "param": null,
    });
    assert_eq!(wrong.json(), json!({"error": error}));
}

#[tokio::test]
async fn the_bare_address_says_what_runs_here_and_where_everything_is() {
    let app = TestApp::new();
    let program = app.get("/", "").send().await;
    assert_eq!(program.status, 200);
    let told = program.json();
    assert_eq!(
        (&told["name"], &told["status"], &told["api"]),
        (&json!("Reef"), &json!("running"), &json!("/v1"))
    );
    for path in ["openapi", "health", "ready"] {
        let path = told[path].as_str().expect("a path");
        assert_eq!(app.get(path, "").send().await.status, 200, "{path}");
    }
    let browser = app.get("/", "").header("accept", "text/html,application/xhtml+xml,*/*;q=0.8").send().await;
    assert_eq!((browser.status.as_u16(), browser.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(browser.text().contains("ends in <code>/v1</code>"), "{}", browser.text());
    assert_security_headers(&browser, "the page");
}

#[tokio::test]
async fn a_request_keeps_a_plain_id_of_its_callers_choice() {
    let app = TestApp::new();
    let kept = app.get("/health", "").header("x-request-id", "trace-1.a:b_c").send().await;
    assert_eq!(kept.header("x-request-id"), "trace-1.a:b_c");
    for strange in ["a b", "\"x\"", &"a".repeat(129)] {
        let answer = app.get("/health", "").header("x-request-id", strange).send().await;
        assert_eq!(answer.header("x-request-id").len(), 26, "{strange}");
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_whether_or_not_it_says_its_length() {
    let app = TestApp::with(|config| config.gateway.max_body_bytes = 1000);
    let token = app.token("a", &[Scope::Chat]).await;
    let chat = "/v1/chat/completions";
    let said = app.post(chat, &token).header("content-length", "1001").body(" ".repeat(1001)).await;
    let pieces = futures::stream::iter((0..11).map(|_| Ok::<_, std::io::Error>(" ".repeat(100))));
    let unsaid = app.post(chat, &token).body(axum::body::Body::from_stream(pieces)).await;
    for answer in [said, unsaid] {
        assert_eq!(answer.status, 413);
        assert_eq!(
            answer.json(),
            json!({"error": {"message": "Payload too large", "type": "invalid_request_error",
                "code": "payload_too_large", "param": null}})
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_takes_longer_than_30_seconds_is_given_up() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let started = tokio::time::Instant::now();
    let never = futures::stream::pending::<Result<String, std::io::Error>>();
    let answer = app.post("/v1/chat/completions", &token).body(axum::body::Body::from_stream(never)).await;
    assert_eq!(answer.code(), (408, "request_timeout".to_owned()));
    assert_eq!(answer.json()["error"]["message"], "Request body timeout");
    assert_eq!(started.elapsed(), Duration::from_secs(30));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_wrong_request() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let broken = futures::stream::iter([Ok("{"), Err(std::io::Error::other("gone"))]);
    let answer = app.post("/v1/chat/completions", &token).body(axum::body::Body::from_stream(broken)).await;
    assert_eq!(answer.code(), (400, "invalid".to_owned()));
}

#[tokio::test]
async fn head_is_answered_where_get_is() {
    let app = TestApp::new();
    for path in ["/health", "/healthz", "/startup", "/startupz", "/ready", "/readyz"] {
        let answer = app.ask(Method::HEAD, path, "").send().await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_brings_more_bytes_than_its_rate_allows_waits() {
    let app = TestApp::with(|config| config.gateway.bytes_per_request = 1024);
    let token = app.token("a", &[Scope::Chat]).await;
    // At ten requests a second 10 KB a second; 60 MB may come at once, whatever the rate. What it is does not count.
    let ask = |token: &str| app.post("/v1/chat/completions", token).body("x".repeat(8 * 1024 * 1024));
    let mut taken = 0;
    let refused = loop {
        let answer = ask(&token).await;
        if answer.status != 400 {
            break answer;
        }
        taken += 1;
        assert!(taken < 20, "nothing stops it");
        // So that it is not the number of requests that counts.
        app.clock.advance(Duration::from_secs(10));
    };
    assert_eq!(taken, 8, "60 MB, and the one that goes beyond");
    assert_eq!(refused.code(), (429, "rate_limited".to_owned()));
    assert!(refused.text().contains("Too many bytes"), "{}", refused.text());
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    let other = app.token("b", &[Scope::Chat]).await;
    assert_eq!(ask(&other).await.status, 400, "another token is not touched");
    tokio::time::advance(Duration::from_secs(wait)).await;
    app.clock.advance(Duration::from_secs(wait));
    let small = json!({"messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(app.post("/v1/chat/completions", &token).json(&small).await.status, 200);
}
