//! `/v1/sessions` and what is below it.

use async_trait::async_trait;
use harness::agents::ScriptedAgents;
use harness::app::{Answer, TestApp};
use harness::stores::stores_of;
use http::Method;
use serde_json::{Value, json};
use shared::adapters::memory::Memory;
use shared::answer::{AnswerKey, AnswerStore, Claim};
use shared::app::Stores;
use shared::bounds::TRANSCRIPT_PAGE_BYTES;
use shared::clock::{Clock, Timestamp};
use shared::error::StoreError;
use shared::id::{AgentId, SessionKey, TenantId};
use shared::limit::Limit;
use shared::principal::Scope;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A token that may do what these tests do, as fast as they like.
async fn operator(app: &TestApp) -> String {
    let scopes = [Scope::Chat, Scope::Sessions];
    app.token_with("op", &scopes, |token| token.limit = Some(Limit { per_second: 1e6, burst: 1000 })).await
}

/// Says something on a session, and waits for the turn's end.
async fn say(app: &TestApp, token: &str, session: &str, text: &str) -> Answer {
    let body = json!({"messages": [{"role": "user", "content": text}], "user": "u"});
    let agent = session.split(':').nth(1).expect("a full key").to_owned();
    let ask = app.post("/v1/chat/completions", token);
    let ask = ask.header("x-openclaw-session-key", session).header("x-openclaw-agent-id", &agent);
    let answer = ask.json(&body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

fn ids(page: &Value) -> Vec<&str> {
    page["data"].as_array().expect("a list").iter().map(|item| item["id"].as_str().expect("an id")).collect()
}

#[tokio::test]
async fn a_session_is_listed_and_shown_with_what_it_is() {
    let app = TestApp::new();
    let token = operator(&app).await;
    say(&app, &token, "agent:main:orders", "Hello").await;
    let shown = app.get("/v1/sessions/agent:main:orders", &token).send().await.json();
    let session_id = shown["session_id"].clone();
    let session = json!({
        "id": "agent:main:orders",
        "object": "session",
        "session_id": session_id,
        "agent": "main",
        "user": "u",
        "channel": "webchat",
        "created_at": 1_795_132_800,
        "updated_at": 1_795_132_800,
        "messages": 2,
        "turn": null,
    });
    assert_eq!(shown, session);
    assert_eq!(
        app.get("/v1/sessions", &token).send().await.json(),
        json!({"object": "list", "data": [session], "first_id": "agent:main:orders",
            "last_id": "agent:main:orders", "has_more": false})
    );
}

#[tokio::test]
async fn a_session_whose_key_needs_percent_encoding_is_found() {
    let app = TestApp::new();
    let token = operator(&app).await;
    say(&app, &token, "agent:main:a/b c?d#é%2F", "Hello").await;
    let path = "/v1/sessions/agent%3Amain%3Aa%2Fb%20c%3Fd%23%C3%A9%252F";
    let shown = app.get(path, &token).send().await.json();
    assert_eq!(shown["id"], "agent:main:a/b c?d#é%2F");
}

#[tokio::test]
async fn pages_of_sessions_show_each_one_once_also_those_changed_in_the_same_millisecond() {
    let app = TestApp::new();
    let token = operator(&app).await;
    for number in 0..25 {
        say(&app, &token, &format!("agent:main:s{number:02}"), "x").await;
        if number % 10 == 0 {
            app.clock.advance(Duration::from_millis(1));
        }
    }
    let mut seen = Vec::new();
    let mut path = "/v1/sessions?limit=4".to_owned();
    loop {
        let page = app.get(&path, &token).send().await.json();
        seen.extend(ids(&page).into_iter().map(str::to_owned));
        assert_eq!(page["first_id"].as_str(), ids(&page).first().copied());
        if page["has_more"] == false {
            break;
        }
        path = format!("/v1/sessions?limit=4&before={}", page["last_id"].as_str().expect("an id"));
    }
    let all = app.get("/v1/sessions?limit=100", &token).send().await.json();
    assert_eq!(seen, ids(&all));
    assert_eq!(seen.len(), 25);
}

#[tokio::test]
async fn sessions_are_filtered_by_agent_and_user_and_by_what_the_token_may_see() {
    let app = TestApp::new();
    let token = operator(&app).await;
    say(&app, &token, "agent:main:a", "x").await;
    say(&app, &token, "agent:email-manager:b", "x").await;
    let mail = vec![AgentId::new("email-manager")];
    let narrow = app.token_with("n", &[Scope::Sessions], |token| token.agents = Some(mail)).await;
    let list = async |token: &str, query: &str| {
        let page = app.get(&format!("/v1/sessions{query}"), token).send().await.json();
        ids(&page).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(list(&token, "?agent=main").await, ["agent:main:a"]);
    assert_eq!(list(&token, "?user=u&agent=email-manager").await, ["agent:email-manager:b"]);
    assert_eq!(list(&token, "?user=nobody").await, [""; 0]);
    assert_eq!(list(&narrow, "").await, ["agent:email-manager:b"]);
    assert_eq!(list(&narrow, "?agent=main").await, [""; 0]);
    for (method, path) in [
        (Method::GET, "/v1/sessions/agent:main:a"),
        (Method::GET, "/v1/sessions/agent:main:a/transcript"),
        (Method::POST, "/v1/sessions/agent:main:a/reset"),
        (Method::DELETE, "/v1/sessions/agent:main:a"),
    ] {
        let answer = app.ask(method, path, &narrow).send().await;
        assert_eq!(answer.code(), (404, "not_found".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn a_transcript_is_read_backwards_page_by_page() {
    let app = TestApp::new();
    let token = operator(&app).await;
    for text in ["one", "two", "three"] {
        say(&app, &token, "agent:main:t", text).await;
    }
    let path = "/v1/sessions/agent%3Amain%3At/transcript";
    let newest = app.get(&format!("{path}?limit=4"), &token).send().await.json();
    let turn = newest["data"][0]["turn"].clone();
    assert_eq!(
        newest["data"][0],
        json!({"id": "3", "object": "message", "turn": turn, "created_at": 1_795_132_800, "role": "user",
            "content": [{"type": "text", "text": "two"}]})
    );
    assert_eq!(newest["data"][3]["content"], "You said: three");
    assert_eq!(ids(&newest), ["3", "4", "5", "6"]);
    assert_eq!((&newest["first_id"], &newest["last_id"]), (&json!("3"), &json!("6")));
    assert_eq!(newest["has_more"], true);
    let older = app.get(&format!("{path}?limit=4&before=3"), &token).send().await.json();
    assert_eq!((ids(&older), &older["has_more"]), (vec!["1", "2"], &json!(false)));
    let none = app.get(&format!("{path}?before=1"), &token).send().await.json();
    assert_eq!(
        none,
        json!({"object": "list", "data": [], "first_id": null, "last_id": null, "has_more": false})
    );
}

#[tokio::test]
async fn a_page_of_large_messages_ends_early_and_says_so() {
    let app = TestApp::new();
    let token = operator(&app).await;
    let history = |sizes: &[usize]| {
        let said = sizes.iter().map(|size| json!({"role": "user", "content": "x".repeat(*size)}));
        json!({"messages": said.collect::<Vec<_>>()})
    };
    for (session, sizes) in
        [("large", &[3_000_000, 3_000_000, 3_000_000, 1][..]), ("huge", &[TRANSCRIPT_PAGE_BYTES + 1, 1])]
    {
        let ask = app.post("/v1/chat/completions", &token).header("x-openclaw-session-key", session);
        assert_eq!(ask.json(&history(sizes)).await.status, 200);
    }
    let path = "/v1/sessions/agent%3Amain%3Alarge/transcript";
    let newest = app.get(path, &token).send().await;
    assert!(newest.body.len() <= TRANSCRIPT_PAGE_BYTES + 10_000, "{}", newest.body.len());
    assert_eq!((&newest.json()["first_id"], &newest.json()["has_more"]), (&json!("2"), &json!(true)));
    let older = app.get(&format!("{path}?before=2"), &token).send().await.json();
    assert_eq!((ids(&older), &older["has_more"]), (vec!["1"], &json!(false)));
    // One that is larger than a page is a page of its own.
    let path = "/v1/sessions/agent%3Amain%3Ahuge/transcript";
    let small = app.get(path, &token).send().await.json();
    assert_eq!((&small["first_id"], &small["has_more"]), (&json!("2"), &json!(true)));
    let huge = app.get(&format!("{path}?before=2"), &token).send().await.json();
    assert_eq!((ids(&huge), &huge["has_more"]), (vec!["1"], &json!(false)));
}

#[tokio::test]
async fn a_long_transcript_comes_in_one_page_of_any_size() {
    let app = TestApp::new();
    let token = operator(&app).await;
    for _ in 0..10 {
        say(&app, &token, "agent:main:long", "x").await;
    }
    let path = "/v1/sessions/agent%3Amain%3Along/transcript";
    for limit in [1, 7, 8, 9, 19, 20, 21, 500] {
        let page = app.get(&format!("{path}?limit={limit}"), &token).send().await.json();
        let first = 21_usize.saturating_sub(limit).max(1);
        let expected: Vec<String> = (first..=20).map(|seq| seq.to_string()).collect();
        assert_eq!(
            (ids(&page), &page["has_more"]),
            (expected.iter().map(String::as_str).collect(), &json!(limit < 20))
        );
    }
}

#[tokio::test]
async fn a_transcript_shows_tool_calls_and_their_answers_in_openais_words() {
    let app = TestApp::new();
    let token = operator(&app).await;
    say(&app, &token, "agent:main:t", "/tool read {\"path\":\"missing.txt\"}").await;
    let page = app.get("/v1/sessions/agent:main:t/transcript", &token).send().await.json();
    let (asked, answered) = (&page["data"][1], &page["data"][2]);
    let id = asked["tool_calls"][0]["id"].clone();
    assert_eq!(
        asked["tool_calls"],
        json!([{"id": id, "type": "function",
            "function": {"name": "read", "arguments": "{\"path\":\"missing.txt\"}"}}])
    );
    assert_eq!((&answered["role"], &answered["tool_call_id"]), (&json!("tool"), &id));
    assert_eq!((&answered["name"], &answered["is_error"]), (&json!("read"), &json!(true)));
}

#[tokio::test]
async fn a_reset_gives_a_session_an_empty_transcript_once_per_key() {
    let app = TestApp::new();
    let token = operator(&app).await;
    say(&app, &token, "agent:main:r", "Hello").await;
    let before = app.get("/v1/sessions/agent:main:r", &token).send().await.json();
    let reset = || app.post("/v1/sessions/agent:main:r/reset", &token).header("idempotency-key", "k");
    let first = reset().send().await;
    assert_eq!((first.status.as_u16(), &first.json()["messages"]), (200, &json!(0)));
    assert_ne!(first.json()["session_id"], before["session_id"]);
    say(&app, &token, "agent:main:r", "Again").await;
    let again = reset().send().await;
    assert_eq!((again.body.clone(), again.header("idempotency-replayed")), (first.body, "true"));
    let after = app.get("/v1/sessions/agent:main:r", &token).send().await.json();
    assert_eq!(after["messages"], 2, "the second reset did nothing");
}

/// Keeps answers, but for the first one.
struct Forgetful(Memory, AtomicBool);

#[async_trait]
impl AnswerStore for Forgetful {
    async fn claim(&self, key: &AnswerKey, now: Timestamp, until: Timestamp) -> Result<Claim, StoreError> {
        self.0.claim(key, now, until).await
    }
    async fn store(
        &self,
        key: &AnswerKey,
        answer: &shared::answer::Answer,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if self.1.swap(true, Ordering::SeqCst) {
            return self.0.store(key, answer, now).await;
        }
        Err(StoreError::Unavailable("not yet".into()))
    }
    async fn release(&self, key: &AnswerKey) -> Result<(), StoreError> {
        self.0.release(key).await
    }
}

#[tokio::test]
async fn a_reset_whose_answer_was_not_kept_is_answered_even_after_another_one() {
    let memory = Memory::new();
    let answers = Arc::new(Forgetful(memory.clone(), AtomicBool::new(false)));
    let app = TestApp::with_stores(Stores { answers, ..stores_of(&Arc::new(memory)) });
    let token = operator(&app).await;
    say(&app, &token, "agent:main:r", "Hello").await;
    let reset = || app.post("/v1/sessions/agent:main:r/reset", &token);
    let keyed = || reset().header("idempotency-key", "k").send();
    assert_eq!(keyed().await.code(), (503, "unavailable".to_owned()));
    assert_eq!(reset().send().await.status, 200);
    say(&app, &token, "agent:main:r", "Again").await;
    let present = app.get("/v1/sessions/agent:main:r", &token).send().await.json();
    app.clock.advance(Duration::from_secs(3600));
    let again = keyed().await;
    assert_eq!((again.status.as_u16(), again.json()), (200, present));
}

#[tokio::test]
async fn a_deleted_session_is_gone() {
    let app = TestApp::new();
    let token = operator(&app).await;
    say(&app, &token, "agent:main:d", "Hello").await;
    let gone = app.ask(Method::DELETE, "/v1/sessions/agent:main:d", &token).send().await;
    assert_eq!(gone.json(), json!({"id": "agent:main:d", "object": "session.deleted", "deleted": true}));
    for (method, path) in
        [(Method::GET, ""), (Method::DELETE, ""), (Method::GET, "/transcript"), (Method::POST, "/reset")]
    {
        let answer = app.ask(method, &format!("/v1/sessions/agent:main:d{path}"), &token).send().await;
        assert_eq!(answer.code(), (404, "not_found".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn a_session_at_work_is_neither_reset_nor_deleted() {
    let app = TestApp::new();
    let token = operator(&app).await;
    hold(&app, "agent:main:b").await;
    let shown = app.get("/v1/sessions/agent:main:b", &token).send().await.json();
    assert_eq!(shown["turn"], "turn-at-work");
    let reset =
        app.post("/v1/sessions/agent:main:b/reset", &token).header("idempotency-key", "k").send().await;
    let deleted = app.ask(Method::DELETE, "/v1/sessions/agent:main:b", &token).send().await;
    for answer in [&reset, &deleted] {
        assert_eq!(answer.code(), (409, "conflict".to_owned()));
        assert_eq!(answer.header("retry-after"), "1");
    }
    let again =
        app.post("/v1/sessions/agent:main:b/reset", &token).header("idempotency-key", "k").send().await;
    assert_eq!(again.body, reset.body, "the key was given back");
    assert_eq!(again.header("idempotency-replayed"), "", "a refusal that can pass is not kept");
}

/// Begins a turn that nobody runs.
async fn hold(app: &TestApp, session: &str) {
    use shared::audit::NewAudit;
    use shared::id::{PrincipalId, SessionId, TurnId};
    use shared::message::MessageBody;
    use shared::session::NewTurn;
    let now = app.clock.now();
    let principal = PrincipalId::new("somebody");
    let turn = NewTurn {
        turn: TurnId::new("turn-at-work"),
        tenant: TenantId::single(),
        session: SessionKey::new(session),
        new_session_id: SessionId::new("transcript"),
        agent: AgentId::new("main"),
        principal: principal.clone(),
        user: None,
        channel: "webchat".to_owned(),
        idempotency: None,
        input: vec![MessageBody::user_text("x")],
        options: Value::Null,
        audit: NewAudit {
            id: "row".to_owned(),
            at: now,
            principal,
            action: "turn.accepted".to_owned(),
            detail: Value::Null,
        },
    };
    let begun = app.app.stores.sessions.begin(&turn, now, now + Duration::from_secs(90)).await;
    begun.expect("a turn at work");
}

#[tokio::test]
async fn a_turn_is_shown_to_its_principal_and_to_the_scope_sessions_alone() {
    let app = TestApp::new();
    let mine = app.token("a", &[Scope::Chat]).await;
    let other = app.token("b", &[Scope::Chat]).await;
    let reader = app.token("c", &[Scope::Sessions]).await;
    let answer = say(&app, &mine, "agent:main:t", "Hello").await;
    let turn = answer.header("x-reef-turn-id");
    let path = format!("/v1/sessions/agent:main:t/turns/{turn}");
    let shown = app.get(&path, &mine).send().await.json();
    assert_eq!(
        shown,
        json!({
            "id": turn,
            "object": "turn",
            "session": "agent:main:t",
            "agent": "main",
            "status": "done",
            "accepted_at": 1_795_132_800,
            "ended_at": 1_795_132_800,
            "reply": {
                "text": "You said: Hello",
                "tool_calls": [],
                "stop": "end",
                "usage": shown["reply"]["usage"],
                "model": "demo/echo",
            },
            "error": null,
        })
    );
    assert_eq!(app.get(&path, &reader).send().await.json(), shown);
    assert_eq!(app.get(&path, &other).send().await.code(), (404, "not_found".to_owned()));
    for wrong in
        [format!("/v1/sessions/agent:main:u/turns/{turn}"), "/v1/sessions/agent:main:t/turns/x".to_owned()]
    {
        assert_eq!(app.get(&wrong, &reader).send().await.code(), (404, "not_found".to_owned()), "{wrong}");
    }
}

#[tokio::test]
async fn a_turn_at_work_is_running_and_one_in_the_queue_queued() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Sessions, Scope::Hooks]).await;
    hold(&app, "agent:main:b").await;
    let running = app.get("/v1/sessions/agent:main:b/turns/turn-at-work", &token).send().await.json();
    assert_eq!((&running["status"], &running["ended_at"]), (&json!("running"), &Value::Null));
    let hook = app.post("/hooks/agent", &token).json(&json!({"message": "x"})).await.json();
    let path = format!(
        "/v1/sessions/{}/turns/{}",
        hook["sessionKey"].as_str().expect("a key"),
        hook["runId"].as_str().expect("an id")
    );
    assert_eq!(app.get(&path, &token).send().await.json()["status"], "queued");
    assert_eq!(app.work().await, 1);
    assert_eq!(app.get(&path, &token).send().await.json()["status"], "done");
}

#[tokio::test]
async fn work_that_was_given_up_is_a_failed_turn_with_its_reason() {
    let refusal = shared::error::Error::invalid("no such thing");
    let app = TestApp::with_agents(ScriptedAgents::new([Err(refusal)]));
    let token = app.token("a", &[Scope::Hooks]).await;
    let hook = app.post("/hooks/agent", &token).json(&json!({"message": "x"})).await.json();
    assert_eq!(app.work().await, 1);
    let path = format!(
        "/v1/sessions/{}/turns/{}",
        hook["sessionKey"].as_str().expect("a key"),
        hook["runId"].as_str().expect("an id")
    );
    let turn = app.get(&path, &token).send().await.json();
    let error = json!({"message": "invalid: no such thing", "code": "dead", "param": null});
    assert_eq!((&turn["status"], &turn["error"]), (&json!("failed"), &error));
}
