//! Health and metrics.

use harness::app::TestApp;
use serde_json::json;
use shared::principal::Scope;
use std::time::Duration;

#[tokio::test]
async fn the_health_family_answers_without_a_token() {
    let app = TestApp::new();
    app.clock.advance(Duration::from_millis(1234));
    for path in ["/health", "/healthz"] {
        assert_eq!(app.get(path, "").send().await.json(), json!({"ok": true, "status": "live"}));
    }
    for path in ["/startup", "/startupz"] {
        assert_eq!(
            app.get(path, "").send().await.json(),
            json!({"ok": true, "status": "started", "version": env!("CARGO_PKG_VERSION"), "uptimeMs": 1234})
        );
    }
    for path in ["/ready", "/readyz"] {
        assert_eq!(
            app.get(path, "").send().await.json(),
            json!({"ready": true, "failing": [], "uptimeMs": 1234})
        );
    }
}

#[tokio::test]
async fn a_draining_process_is_alive_but_not_ready() {
    let app = TestApp::new();
    app.app.lifecycle.drain();
    assert_eq!(app.get("/healthz", "").send().await.status, 200);
    let startup = app.get("/startupz", "").send().await;
    assert_eq!((startup.status.as_u16(), &startup.json()["status"]), (503, &json!("draining")));
    let ready = app.get("/readyz", "").send().await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json(), json!({"ready": false, "failing": ["draining"], "uptimeMs": 0}));
}

#[tokio::test]
async fn a_stranger_is_told_no_details_of_readiness() {
    let app = TestApp::behind_a_proxy();
    let chat = app.token("a", &[Scope::Chat]).await;
    let metrics = app.token("b", &[Scope::Metrics]).await;
    for token in ["", "reef_x_y", &chat] {
        let answer = app.get("/readyz", token).through_the_proxy("192.0.2.7").send().await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"ready": true})), "{token}");
    }
    let told = app.get("/readyz", &metrics).through_the_proxy("192.0.2.7").send().await;
    assert_eq!(told.json(), json!({"ready": true, "failing": [], "uptimeMs": 0}));
}

#[tokio::test]
async fn metrics_count_requests_and_runs_under_the_names_that_dashboards_know() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat, Scope::Hooks]).await;
    let body = json!({"messages": [{"role": "user", "content": "Hello"}]});
    assert_eq!(app.post("/v1/chat/completions", &token).json(&body).await.status, 200);
    assert_eq!(app.get("/nothing", "").send().await.status, 404);
    app.get("/healthz", "").send().await;
    assert_eq!(app.post("/hooks/wake", &token).json(&json!({"text": "x"})).await.status, 200);
    app.turns.close();
    app.turns.wait().await;
    for path in ["/metrics", "/api/diagnostics/prometheus"] {
        let answer = app.get(path, "").send().await;
        assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        let text = answer.text();
        let run = r#"{channel="webchat",model="echo",outcome="completed",provider="demo",trigger="chat"}"#;
        for line in [
            r#"openclaw_requests_total{status="200"} 2"#,
            r#"openclaw_requests_total{status="404"} 1"#,
            "openclaw_request_duration_seconds_count 3",
            &format!("openclaw_run_completed_total{run} 1"),
            r#"openclaw_session_turn_created_total{channel="webchat",trigger="chat"} 1"#,
            r#"openclaw_webhook_received_total{outcome="accepted",webhook="wake"} 1"#,
            r#"openclaw_queue_lane_size{lane="session"} 0"#,
        ] {
            assert!(text.lines().any(|seen| seen == line), "{line} is not in\n{text}");
        }
        for begin in [
            r#"openclaw_request_duration_seconds{quantile="0.95"} "#,
            "openclaw_run_duration_seconds_bucket{",
            "openclaw_model_call_total{",
            "openclaw_model_call_duration_seconds_bucket{",
            "openclaw_model_tokens_total{",
            "openclaw_queue_lane_wait_seconds_bucket{",
            "openclaw_memory_rss_bytes ",
        ] {
            assert!(text.lines().any(|seen| seen.starts_with(begin)), "{begin} is not in\n{text}");
        }
    }
}

#[tokio::test]
async fn metrics_are_for_this_host_and_the_scope_metrics() {
    let app = TestApp::behind_a_proxy();
    let token = app.token("a", &[Scope::Metrics]).await;
    let other = app.token("b", &[Scope::Chat]).await;
    let from = |token: &str| {
        let ask = app.get("/metrics", token).through_the_proxy("192.0.2.7");
        async move { ask.send().await }
    };
    assert_eq!(from("").await.code(), (401, "unauthenticated".to_owned()));
    assert_eq!(from(&other).await.code(), (403, "forbidden".to_owned()));
    assert_eq!(from(&token).await.status, 200);
    let forwarded = app.get("/metrics", "").header("x-forwarded-for", "127.0.0.1").send().await;
    assert_eq!(forwarded.code(), (403, "proxy_attribution_required".to_owned()));
}
