//! `previous_response_id`: what a response can be gone on from, and by whom it is known.

use super::*;

#[tokio::test]
async fn a_previous_response_goes_on_with_its_session() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let first = ask(&app, &token, json!({"input": "one"})).await;
    let second = ask(&app, &token, json!({"input": "two", "previous_response_id": first["id"]})).await;
    assert_eq!(second["previous_response_id"], first["id"]);
    let body = json!({"input": "three", "previous_response_id": second["id"], "user": "ada"});
    let third = app.post(PATH, &token).json(&body).await;
    let session = SessionKey::new(third.header("x-reef-session-key"));
    let transcript = app
        .app
        .stores
        .sessions
        .transcript(&app.app.tenant, &session, Window::newest(10))
        .await
        .expect("a transcript");
    let bodies: Vec<_> = transcript.into_iter().map(|message| message.body.text()).collect();
    assert_eq!(bodies, ["one", "You said: one", "two", "You said: two", "three", "You said: three"]);
}

#[tokio::test]
async fn several_tool_results_answer_a_previous_response() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let tools = json!([{"type": "function", "name": "look_up"}]);
    let asked = json!({"input": "/tool look_up {}\n/tool look_up {\"q\":1}", "tools": tools});
    let first = ask(&app, &token, asked).await;
    let ids: Vec<_> = [0, 1].map(|n| first["output"][n]["call_id"].clone()).into();
    let results: Vec<_> = ids
        .iter()
        .map(|id| json!({"type": "function_call_output", "call_id": id, "output": format!("of {id}")}))
        .collect();
    let body = json!({"input": results, "tools": tools, "previous_response_id": first["id"]});
    let second = ask(&app, &token, body).await;
    let text = second["output"][0]["content"][0]["text"].as_str().unwrap_or_default().to_owned();
    assert!(ids.iter().all(|id| text.contains(&format!("of {id}"))), "{text}");
}

#[tokio::test]
async fn all_input_behind_a_previous_response_is_taken_as_it_is() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let tools = json!([{"type": "function", "name": "look_up"}]);
    let first = ask(&app, &token, json!({"input": "/tool look_up {}", "tools": tools})).await;
    let result =
        json!({"type": "function_call_output", "call_id": first["output"][0]["call_id"], "output": "up"});
    let more = json!({"role": "user", "content": "and?"});
    let body = json!({"input": [result, more], "previous_response_id": first["id"]});
    let second = app.post(PATH, &token).json(&body).await;
    let session = SessionKey::new(second.header("x-reef-session-key"));
    let stored = app.app.stores.sessions.transcript(&app.app.tenant, &session, Window::newest(3)).await;
    let said: Vec<_> = stored.expect("a transcript").into_iter().map(|message| message.body).collect();
    let call_id = first["output"][0]["call_id"].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        said,
        [
            MessageBody::ToolResult {
                call_id,
                name: String::new(),
                content: "up".to_owned(),
                is_error: false
            },
            MessageBody::user_text("and?"),
            MessageBody::assistant_text("You said: and?"),
        ]
    );
}

#[tokio::test]
async fn a_response_that_the_caller_may_not_know_of_is_not_found() {
    let app = TestApp::new();
    let owner = app.token("a", &[Scope::Chat]).await;
    let other = app.token("b", &[Scope::Chat]).await;
    let admin = app.token("c", &[Scope::Admin]).await;
    let barred = app
        .token_with("d", &[Scope::Admin], |token| token.agents = Some(vec![AgentId::new("email-manager")]))
        .await;
    let first = ask(&app, &owner, json!({"input": "one"})).await;
    let id = first["id"].as_str().unwrap_or_default().to_owned();
    for (token, id) in
        [(&other, id.as_str()), (&barred, id.as_str()), (&owner, NOBODY), (&owner, "resp_"), (&owner, "x")]
    {
        let fetched = app.get(&format!("{PATH}/{id}"), token).send().await;
        assert_eq!(fetched.code(), (404, "not_found".to_owned()), "{id}");
        let body = json!({"input": "two", "model": "openclaw/email-manager", "previous_response_id": id});
        let answer = app.post(PATH, token).json(&body).await;
        assert_eq!(answer.code(), (404, "not_found".to_owned()), "{id}");
        assert_eq!(answer.json()["error"]["param"], "previous_response_id");
    }
    assert_eq!(app.get(&format!("{PATH}/{id}"), &admin).send().await.json(), first);
    let answer = app.get(&format!("{PATH}/{id}"), &app.token("e", &[Scope::Tools]).await).send().await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn a_previous_response_of_another_agent_or_session_is_refused() {
    let app = TestApp::new();
    let token = app.token("a", &[Scope::Chat]).await;
    let first = ask(&app, &token, json!({"input": "one"})).await;
    let body = json!({"input": "two", "previous_response_id": first["id"]});
    let of_agent = with(body.clone(), json!({"model": "openclaw/email-manager"}));
    let answer = app.post(PATH, &token).json(&of_agent).await;
    assert_eq!(answer.code(), (400, "invalid".to_owned()));
    assert_eq!(answer.json()["error"]["param"], "previous_response_id");
    let answer = app.post(PATH, &token).header("x-openclaw-session-key", "elsewhere").json(&body).await;
    assert_eq!(answer.code(), (400, "invalid".to_owned()));
    assert_eq!(answer.json()["error"]["param"], "previous_response_id");
}
