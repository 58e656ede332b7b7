//! `background: true`: queued, worked on later, fetched.

use super::*;

#[tokio::test]
async fn background_work_is_queued_once_per_key_then_done_and_fetched() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let body = json!({"input": "later", "background": true, "metadata": {"a": "b"}});
    let ask = || app.post(PATH, &token).header("idempotency-key", "k").json(&body);
    let queued = ask().await;
    let again = ask().await;
    assert_eq!(queued.json(), again.json());
    assert_eq!((queued.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
    let queued = queued.json();
    assert_eq!(
        (&queued["status"], &queued["background"], &queued["output"]),
        (&json!("queued"), &json!(true), &json!([]))
    );

    let path = format!("{PATH}/{}", queued["id"].as_str().unwrap_or_default());
    assert_eq!(app.get(&path, &token).send().await.json(), queued);
    let too_soon = json!({"input": "more", "previous_response_id": queued["id"]});
    let answer = app.post(PATH, &token).json(&too_soon).await;
    assert_eq!(answer.code(), (409, "conflict".to_owned()));
    assert_eq!(answer.header("retry-after"), "1");

    assert_eq!(app.work().await, 1);
    let done = app.get(&path, &token).send().await.json();
    let expected = json!({
        "status": "completed", "completed_at": done["completed_at"], "usage": done["usage"],
        "output": [{
            "type": "message", "id": format!("msg_{}", &queued["id"].as_str().unwrap_or_default()[5..]),
            "status": "completed", "role": "assistant", "content": [text_part("You said: later")],
            "phase": "final_answer",
        }],
    });
    assert_eq!(done, with(queued, expected));
    assert_eq!(app.work().await, 0);
    assert_eq!(ask_on(&app, &token, &done).await["status"], "completed");
}

async fn ask_on(app: &TestApp, token: &str, response: &Value) -> Value {
    ask(app, token, json!({"input": "more", "previous_response_id": response["id"]})).await
}

#[tokio::test]
async fn background_work_that_fails_is_queued_again_until_it_is_given_up() {
    let app = TestApp::new();
    let admin = app.token("a", &[Scope::Admin]).await;
    let body = json!({"input": "later", "background": true});
    // The demo provider knows no such model: a failure of the vendor, which may pass.
    let queued = app.post(PATH, &admin).header("x-openclaw-model", "demo/nothing").json(&body).await.json();
    let path = format!("{PATH}/{}", queued["id"].as_str().unwrap_or_default());
    for _ in 0..app.app.config.turns.job_max_attempts {
        assert_eq!(app.get(&path, &admin).send().await.json(), queued);
        assert_eq!(app.work().await, 1);
        app.clock.advance(Duration::from_secs(3600));
    }
    let failed = app.get(&path, &admin).send().await.json();
    let expected =
        json!({"status": "failed", "error": {"code": "upstream", "message": failed["error"]["message"]}});
    assert_eq!(failed, with(queued, expected));
    assert_eq!(app.work().await, 0);
}

#[tokio::test]
async fn background_work_that_was_never_accepted_is_fetched_as_failed() {
    /// Accepts nothing.
    struct Refusing;
    #[async_trait]
    impl AgentInvoker for Refusing {
        async fn invoke(&self, _request: RunRequest) -> Result<TurnStream, Error> {
            Err(Error::invalid("not this one"))
        }
        async fn resume(&self, _tenant: &TenantId, _turn: &TurnId) -> Result<TurnOutcome, Error> {
            Err(Error::not_found("nothing to resume"))
        }
    }
    let app = TestApp::with_agents(Arc::new(Refusing));
    let token = app.token("a", &[Scope::Chat]).await;
    let queued = ask(&app, &token, json!({"input": "later", "background": true})).await;
    assert_eq!(app.work().await, 1);
    let path = format!("{PATH}/{}", queued["id"].as_str().unwrap_or_default());
    let error = json!({"code": "unavailable", "message": "the work was given up: invalid: not this one"});
    let expected = json!({"status": "failed", "error": error});
    assert_eq!(app.get(&path, &token).send().await.json(), with(queued.clone(), expected));
    let body = json!({"input": "more", "previous_response_id": queued["id"]});
    assert_eq!(app.post(PATH, &token).json(&body).await.code(), (404, "not_found".to_owned()));
}
