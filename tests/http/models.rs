//! `GET /v1/models`.

use harness::app::TestApp;
use serde_json::{Value, json};
use shared::principal::Scope;

fn model(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": 0, "owned_by": "openclaw", "permission": []})
}

#[tokio::test]
async fn the_agents_are_the_models() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let ids = ["openclaw", "openclaw/default", "openclaw/main", "openclaw/email-manager"];
    assert_eq!(
        app.get("/v1/models", &token).send().await.json(),
        json!({"object": "list", "data": ids.map(model)})
    );
    for id in ids.into_iter().chain(["email-manager"]) {
        for path in [format!("/v1/models/{id}"), format!("/v1/models/{}", id.replace('/', "%2F"))] {
            assert_eq!(app.get(&path, &token).send().await.json(), model(id), "{path}");
        }
    }
}

#[tokio::test]
async fn a_model_that_is_none_is_invalid_and_an_unknown_agent_not_found() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let invalid = app.get("/v1/models/gpt-4o", &token).send().await;
    assert_eq!(invalid.code(), (400, "invalid".to_owned()));
    assert_eq!(invalid.json()["error"]["message"], "Invalid model id.");
    let unknown = app.get("/v1/models/openclaw%2Fnobody", &token).send().await;
    assert_eq!(unknown.code(), (404, "not_found".to_owned()));
}
