//! Who may call: tokens, their limits, and where they may come from.

use harness::app::{Answer, TestApp};
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::error::ErrorKind;
use shared::id::{AgentId, PrincipalId, TenantId};
use shared::limit::Limit;
use shared::principal::Scope;
use std::time::Duration;

const MODELS: &str = "/v1/models";

fn unauthorized() -> Value {
    json!({"error": {"message": "Unauthorized", "type": "unauthorized", "code": "unauthenticated", "param": null}})
}

async fn lock_out(app: &TestApp, path: &str, peer: &str, attempts: usize) -> Answer {
    for attempt in 0..attempts {
        let answer = app.post(path, "reef_x_wrong").from(peer).send().await;
        assert_eq!(answer.status, 401, "attempt {attempt}: {}", answer.text());
    }
    app.post(path, "reef_x_wrong").from(peer).send().await
}

#[tokio::test]
async fn a_request_without_a_valid_token_is_unauthorized() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let wrong_secret = token.replace("0123", "3210");
    for credential in ["reef_nobody_0123456789abcdef", wrong_secret.as_str()] {
        let answer = app.get(MODELS, credential).send().await;
        assert_eq!((answer.status.as_u16(), answer.json()), (401, unauthorized()), "{credential:?}");
    }
}

#[tokio::test]
async fn a_credential_that_cannot_be_a_token_is_told_what_is_wrong_with_it() {
    const NONE: &str =
        "Unauthorized: no token was sent; send it as `Authorization: Bearer reef_<id>_<secret>`";
    const NOT_BEARER: &str =
        "Unauthorized: `Authorization` must be the word `Bearer`, a space, and the token";
    const FOREIGN: &str = "Unauthorized: what was sent is no token of this gateway; they look like \
                           `reef_<id>_<secret>`, and `reef token create` makes one";
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    for (name, value, message) in [
        ("accept", "*/*", NONE),
        ("authorization", "", NONE),
        ("x-api-key", " ", NONE),
        ("authorization", token.as_str(), NOT_BEARER),
        ("authorization", "Basic cmVlZjp4", NOT_BEARER),
        ("authorization", "Bearer", NOT_BEARER),
        ("authorization", "Bearer sk-proj-abc", FOREIGN),
        ("authorization", "Bearer reef_a_", FOREIGN),
        ("authorization", "Bearer reef__x", FOREIGN),
        ("x-api-key", "x", FOREIGN),
    ] {
        let answer = app.get(MODELS, "").header(name, value).send().await;
        let mut expected = unauthorized();
        expected["error"]["message"] = json!(message);
        assert_eq!((answer.status.as_u16(), answer.json()), (401, expected), "{name}: {value}");
    }
}

#[tokio::test]
async fn a_token_is_taken_as_bearer_or_as_x_api_key() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let bearer = app.get(MODELS, "").header("authorization", &format!("bEaReR  {token} ")).send().await;
    let key = app.get(MODELS, "").header("x-api-key", &token).send().await;
    let hook = app.get(MODELS, "").header("x-openclaw-token", &token).send().await;
    assert_eq!([bearer.status.as_u16(), key.status.as_u16(), hook.status.as_u16()], [200, 200, 401]);
}

#[tokio::test]
async fn a_token_ends_at_its_expiry() {
    let app = TestApp::new();
    let expiry = app.clock.now() + Duration::from_secs(60);
    let token = app.token_with("a", &[Scope::Chat], |token| token.expires_at = Some(expiry)).await;
    app.clock.advance(Duration::from_millis(59_999));
    assert_eq!(app.get(MODELS, &token).send().await.status, 200);
    app.clock.advance(Duration::from_millis(1));
    assert_eq!(app.get(MODELS, &token).send().await.json(), unauthorized());
}

#[tokio::test]
async fn a_revoked_token_ends_within_a_second() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    assert_eq!(app.get(MODELS, &token).send().await.status, 200);
    let now = app.clock.now();
    app.app.stores.tokens.revoke(&TenantId::single(), &PrincipalId::new("a"), now).await.expect("a token");
    app.clock.advance(Duration::from_secs(1));
    assert_eq!(app.get(MODELS, &token).send().await.json(), unauthorized());
}

#[tokio::test]
async fn a_token_is_taken_from_its_own_networks_only() {
    let app = TestApp::behind_a_proxy();
    let nets = vec!["192.0.2.0/24".parse().expect("a network")];
    let token = app.token_with("a", &[Scope::Chat], |token| token.cidrs = Some(nets)).await;
    let from = async |caller: &str| app.get(MODELS, &token).through_the_proxy(caller).send().await;
    assert_eq!(from("192.0.2.7").await.status, 200);
    assert_eq!(from("198.51.100.7").await.code(), (403, "forbidden".to_owned()));
    // This host needs no proxy, and is not among those networks either.
    assert_eq!(app.get(MODELS, &token).send().await.code(), (403, "forbidden".to_owned()));
}

#[tokio::test]
async fn every_route_names_the_scope_that_is_missing() {
    let app = TestApp::new();
    let token =
        app.token_with("a", &[], |token| token.limit = Some(Limit { per_second: 1e6, burst: 100 })).await;
    let body = json!({"messages": [{"role": "user", "content": "x"}], "input": "x", "tool": "x", "message": "x", "text": "x"});
    let routes = [
        ("POST", "/v1/chat/completions", "chat"),
        ("POST", "/v1/responses", "chat"),
        ("GET", "/v1/responses/resp_x", "chat"),
        ("GET", "/v1/models", "chat"),
        ("GET", "/v1/models/openclaw", "chat"),
        ("GET", "/v1/sessions", "sessions"),
        ("GET", "/v1/sessions/k", "sessions"),
        ("DELETE", "/v1/sessions/k", "sessions"),
        ("POST", "/v1/sessions/k/reset", "sessions"),
        ("GET", "/v1/sessions/k/transcript", "sessions"),
        ("GET", "/v1/sessions/k/turns/t", "sessions"),
        ("POST", "/tools/invoke", "tools"),
        ("POST", "/hooks/agent", "hooks"),
        ("POST", "/hooks/wake", "hooks"),
    ];
    for (method, path, scope) in routes {
        let method = method.parse().expect("a method");
        let answer = app.ask(method, path, &token).json(&body).await;
        assert_eq!(answer.status, 403, "{path}");
        assert_eq!(
            answer.json(),
            json!({"ok": false, "error": {
                "type": "forbidden",
                "message": format!("missing scope: {scope}"),
                "code": "forbidden",
                "param": null,
                "details": {"code": "MISSING_SCOPE", "missingScope": scope, "requiredScopes": [scope]},
            }}),
            "{path}"
        );
    }
    let metrics = app.token("b", &[Scope::Chat]).await;
    let answer = behind_a_proxy_with(&metrics, "/metrics").await;
    assert_eq!(answer.json()["error"]["details"]["missingScope"], "metrics");
}

/// Asks a site from another host, with a token for chat.
async fn behind_a_proxy_with(_token: &str, path: &str) -> Answer {
    let app = TestApp::behind_a_proxy();
    let token = app.token("b", &[Scope::Chat]).await;
    app.get(path, &token).through_the_proxy("192.0.2.7").send().await
}

#[tokio::test]
async fn a_token_for_one_agent_sees_and_uses_no_other() {
    let app = TestApp::new();
    let mail = vec![AgentId::new("email-manager")];
    let token = app.token_with("a", &[Scope::Chat], |token| token.agents = Some(mail)).await;
    let models = app.get(MODELS, &token).send().await.json();
    let ids: Vec<_> =
        models["data"].as_array().expect("a list").iter().map(|model| model["id"].clone()).collect();
    assert_eq!(ids, ["openclaw/email-manager"]);
    for (model, code) in [("openclaw", 403), ("openclaw/main", 403), ("openclaw/email-manager", 200)] {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "x"}]});
        let answer = app.post("/v1/chat/completions", &token).json(&body).await;
        assert_eq!(answer.status, code, "{model}: {}", answer.text());
    }
}

#[tokio::test]
async fn an_idle_principal_may_send_21_requests_at_once_and_another_one_is_not_touched() {
    let app = TestApp::new();
    let (token, other) = (app.token("a", &[Scope::Chat]).await, app.token("b", &[Scope::Chat]).await);
    for _ in 0..21 {
        assert_eq!(app.get(MODELS, &token).send().await.status, 200);
    }
    let denied = app.get(MODELS, &token).send().await;
    assert_eq!(denied.code(), (429, "rate_limited".to_owned()));
    assert_eq!(denied.header("retry-after"), "1");
    assert_eq!(app.get(MODELS, &other).send().await.status, 200);
    app.clock.advance(Duration::from_millis(100));
    assert_eq!(app.get(MODELS, &token).send().await.status, 200);
}

#[tokio::test]
async fn a_tokens_own_limit_goes_before_the_installations() {
    let app = TestApp::new();
    let limit = Some(Limit { per_second: 0.1, burst: 1 });
    let token = app.token_with("a", &[Scope::Chat], |token| token.limit = limit).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(app.get(MODELS, &token).send().await.status.as_u16());
    }
    assert_eq!(seen, [200, 200, 429]);
    assert_eq!(app.get(MODELS, &token).send().await.header("retry-after"), "10");
}

#[tokio::test]
async fn an_address_with_ten_wrong_tokens_is_locked_out_even_with_a_right_one() {
    let app = TestApp::behind_a_proxy();
    let token = app.token("a", &[Scope::Chat]).await;
    let answer = lock_out(&app, MODELS, "192.0.2.7", 0).await;
    assert_eq!(answer.status, 405, "the method is looked at first");
    for _ in 0..10 {
        assert_eq!(app.get(MODELS, "reef_x_wrong").through_the_proxy("192.0.2.7").send().await.status, 401);
    }
    let locked = app.get(MODELS, &token).through_the_proxy("192.0.2.7").send().await;
    assert_eq!(locked.status, 429);
    assert_eq!(
        locked.json()["error"],
        json!({
            "message": "Too many failed authentication attempts. Please try again later.",
            "type": "rate_limited", "code": "rate_limited", "param": null,
        })
    );
    assert_eq!(locked.header("retry-after"), "300");
    assert_eq!(app.get(MODELS, &token).through_the_proxy("192.0.2.8").send().await.status, 200);
    app.clock.advance(Duration::from_secs(300));
    assert_eq!(app.get(MODELS, &token).through_the_proxy("192.0.2.7").send().await.status, 200);
}

#[tokio::test]
async fn this_host_is_locked_out_of_hooks_only() {
    let app = TestApp::new();
    let hooks = lock_out(&app, "/hooks/wake", "127.0.0.1", 20).await;
    assert_eq!(hooks.code(), (429, "rate_limited".to_owned()));
    let api = lock_out(&app, "/tools/invoke", "127.0.0.1", 30).await;
    assert_eq!(api.code(), (401, "unauthenticated".to_owned()));
}

#[tokio::test]
async fn a_token_over_plain_http_from_another_host_is_refused() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let answer = app.get(MODELS, &token).from("192.0.2.7").send().await;
    assert_eq!(answer.code(), (403, "tls_required".to_owned()));
    let said = answer.json()["error"]["message"].to_string();
    assert!(said.contains("`gateway.trustedProxies`"), "{said}");
    let anonymous = app.get(MODELS, "").from("192.0.2.7").send().await;
    assert_eq!(anonymous.code(), (401, "unauthenticated".to_owned()));
}

#[tokio::test]
async fn tls_in_front_is_believed_of_trusted_proxies_only() {
    let app = TestApp::with(|config| {
        config.gateway.trusted_proxies = vec!["10.0.0.1/32".parse().expect("a network")];
        config.gateway.tls_in_front = true;
    });
    let token = app.token("a", &[Scope::Chat]).await;
    let ask = |peer: &str| app.get(MODELS, &token).from(peer);
    for (answer, status) in [
        (ask("192.0.2.7").send().await, 403),
        (ask("192.0.2.7").header("x-forwarded-proto", "https").send().await, 403),
        (ask("10.0.0.1").send().await, 200),
        (ask("10.0.0.1").header("x-forwarded-proto", "http").send().await, 403),
        (ask("127.0.0.1").send().await, 200),
    ] {
        assert_eq!(answer.status, status, "{}", answer.text());
        if status == 403 {
            assert_eq!(answer.code().1, "tls_required");
        }
    }
}

#[tokio::test]
async fn forwarded_addresses_are_believed_of_trusted_proxies_only() {
    let app = TestApp::behind_a_proxy();
    let token = app.token("a", &[Scope::Chat]).await;
    for (peer, header) in [("192.0.2.7", "x-forwarded-for"), ("127.0.0.1", "x-real-ip"), ("::1", "forwarded")]
    {
        let answer = app.get(MODELS, &token).from(peer).header(header, "10.0.0.9").send().await;
        assert_eq!(answer.code(), (403, "proxy_attribution_required".to_owned()), "{peer} {header}");
        assert_eq!(answer.json()["error"]["type"], "proxy_attribution_required");
    }
    let healthy = app.get("/health", "").from("192.0.2.7").header("x-forwarded-for", "1.1.1.1").send().await;
    assert_eq!(healthy.status, 200, "health is nobody's secret");
}

#[tokio::test]
async fn failures_count_against_the_caller_behind_the_proxy_not_the_proxy() {
    let app = TestApp::behind_a_proxy();
    let token = app.token("a", &[Scope::Chat]).await;
    let through = |token: &str, caller: &str| {
        let ask = app.get(MODELS, token).through_the_proxy(caller);
        async move { ask.send().await }
    };
    for _ in 0..10 {
        // What stands before the newest hop is the caller's own invention.
        through("reef_x_wrong", "6.6.6.6, 203.0.113.9").await;
    }
    assert_eq!(through(&token, "203.0.113.9").await.code(), (429, ErrorKind::RateLimited.code().to_owned()));
    assert_eq!(through(&token, "203.0.113.10").await.status, 200);
}

#[tokio::test]
async fn a_clock_that_was_a_day_ahead_for_a_moment_locks_nobody_out() {
    const DAY: Duration = Duration::from_secs(86_400);
    let app = TestApp::behind_a_proxy();
    let token = app.token("a", &[Scope::Chat]).await;
    let ask = async |token: &str, caller: &str| {
        app.get(MODELS, token).through_the_proxy(caller).send().await.status
    };
    app.clock.advance(DAY);
    assert_eq!(ask(&token, "192.0.2.8").await, 200);
    for _ in 0..10 {
        assert_eq!(ask("reef_x_wrong", "192.0.2.7").await, 401);
    }
    assert_eq!(ask(&token, "192.0.2.7").await, 429);
    app.clock.set_back(DAY);
    for caller in ["192.0.2.7", "192.0.2.8"] {
        assert_eq!(ask(&token, caller).await, 200, "{caller}");
    }
}
