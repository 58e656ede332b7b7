//! `POST /v1/chat/completions`.

use harness::app::TestApp;
use serde_json::{Value, json};
use shared::principal::Scope;

const PATH: &str = "/v1/chat/completions";

#[tokio::test]
async fn a_plain_request_is_answered_with_openais_whole_body() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let body = json!({"model": "openclaw", "messages": [{"role": "user", "content": "Hello"}]});
    let answer = app.post(PATH, &token).json(&body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
    let turn = answer.header("x-reef-turn-id").to_owned();
    assert_eq!(
        answer.json(),
        json!({
            "id": format!("chatcmpl_{turn}"),
            "object": "chat.completion",
            "created": 1_795_132_800,
            "model": "openclaw",
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": "You said: Hello", "refusal": null},
                "logprobs": null,
                "finish_reason": "stop",
            }],
            "usage": answer.json()["usage"],
        })
    );
    assert_eq!(Value::Null, answer.json()["error"]);
}
