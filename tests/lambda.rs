//! The three functions, as real processes on an emulated Lambda: through API Gateway's events, `gateway` and
//! `agent-invoke` to the stores, and from the queue through `queue-worker`.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use futures::StreamExt;
use harness::client::Client;
use harness::clients::{self, Target};
use harness::cloud::{AGENT_INVOKE, Deployment, Programs};
use harness::vendor::{Gate, Step, Stream, Vendor};
use http::StatusCode;
use serde_json::{Value, json};
use shared::limit::Limit;
use shared::principal::Scope;
use std::time::Duration;

const PROGRAMS: Programs = Programs {
    gateway: env!("CARGO_BIN_EXE_gateway-under-test"),
    agent_invoke: env!("CARGO_BIN_EXE_agent-invoke-under-test"),
    queue_worker: env!("CARGO_BIN_EXE_queue-worker-under-test"),
};

const CHAT: &str = "/v1/chat/completions";

/// Two agents on the demo model.
fn echoing() -> Value {
    let agent = |id: &str| json!({"id": id, "model": "demo/echo", "workspace": id});
    json!({"agents": [agent("main"), agent("email-manager")]})
}

/// One agent that asks this vendor; a lost lease is found soon.
fn asking(vendor: &Vendor) -> Value {
    json!({
        "agents": [{"id": "main", "model": "lab/model", "workspace": "main"}],
        "models": {"providers": {"lab": {
            "api": "openai-completions", "baseUrl": format!("{}/v1", vendor.url()), "apiKey": "x", "maxAttempts": 1,
        }}},
        "turns": {"leaseSeconds": 2},
    })
}

fn question(text: &str, stream: bool) -> Value {
    json!({"model": "openclaw", "stream": stream, "messages": [{"role": "user", "content": text}]})
}

async fn target(deployment: &Deployment) -> Target {
    let plenty = Limit { per_second: 100_000.0, burst: 100_000 };
    Target {
        url: deployment.front.url().to_owned(),
        token: deployment.token(&[Scope::Chat], plenty).await,
        slow_token: deployment.token(&[Scope::Chat], Limit { per_second: 1.0, burst: 0 }).await,
    }
}

#[tokio::test]
async fn the_stock_python_client_and_the_open_responses_cases_get_right_answers() {
    let deployment = Deployment::start(PROGRAMS, &echoing()).await;
    let suite = clients::python(&target(&deployment).await).await;
    assert_eq!(suite, Ok(()), "the functions said:\n{}", deployment.unusual());
}

#[tokio::test]
async fn the_stock_node_client_gets_right_answers() {
    let deployment = Deployment::start(PROGRAMS, &echoing()).await;
    let suite = clients::node(&target(&deployment).await).await;
    assert_eq!(suite, Ok(()), "the functions said:\n{}", deployment.unusual());
}

/// A streamed answer, chunk by chunk.
struct Streamed {
    body: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    heard: String,
}

impl Streamed {
    async fn ask(deployment: &Deployment, token: &str, text: &str) -> Self {
        let asked = reqwest::Client::builder().no_proxy().build().expect("a client");
        let response = asked
            .post(format!("{}{CHAT}", deployment.front.url()))
            .bearer_auth(token)
            .json(&question(text, true))
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "{}", deployment.unusual());
        Self { body: response.bytes_stream().boxed(), heard: String::new() }
    }

    /// Reads on until the answer holds this.
    async fn until(&mut self, text: &str) {
        while !self.heard.contains(text) {
            let more = self.body.next().await.unwrap_or_else(|| panic!("it ended with {}", self.heard));
            self.heard.push_str(std::str::from_utf8(&more.expect("more of the answer")).expect("text"));
        }
    }

    /// The whole text, at the answer's end.
    async fn text(mut self) -> String {
        self.until("data: [DONE]").await;
        let chunks = self
            .heard
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
        let deltas = chunks.filter_map(|chunk| {
            assert_eq!(chunk.get("error"), None, "{}", self.heard);
            Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned())
        });
        deltas.collect()
    }
}

#[tokio::test]
async fn the_first_words_arrive_while_the_model_still_holds_back_the_last() {
    let (vendor, gate) = (Vendor::start().await, Gate::new());
    vendor.answer(Stream::text("one ").then(Step::Hold(gate.clone())).then_text("two"));
    let deployment = Deployment::start(PROGRAMS, &asking(&vendor)).await;
    let token = deployment.admin().await;
    let mut answer = Streamed::ask(&deployment, &token, "count").await;
    answer.until("one ").await;
    gate.open();
    assert_eq!(answer.text().await, "one two");
}

#[tokio::test]
async fn a_function_that_dies_in_the_middle_of_a_turn_costs_its_client_nothing_but_time() {
    let (vendor, gate) = (Vendor::start().await, Gate::new());
    vendor.answer(Stream::text("one ").then(Step::Hold(gate.clone())).then_text("never heard"));
    vendor.answer(Stream::text("one two three"));
    let deployment = Deployment::start(PROGRAMS, &asking(&vendor)).await;
    let token = deployment.admin().await;
    let mut answer = Streamed::ask(&deployment, &token, "count").await;
    answer.until("one ").await;
    assert_eq!(deployment.platform.kill(AGENT_INVOKE), 1);
    assert_eq!(answer.text().await, "one two three", "{}", deployment.unusual());
    assert_eq!(vendor.requests().len(), 2);
}

#[tokio::test]
async fn an_answer_that_came_out_differently_after_its_function_died_is_an_error_and_can_be_asked_for() {
    let (vendor, gate) = (Vendor::start().await, Gate::new());
    vendor.answer(Stream::text("one ").then(Step::Hold(gate.clone())).then_text("never heard"));
    vendor.answer(Stream::text("something else"));
    let deployment = Deployment::start(PROGRAMS, &asking(&vendor)).await;
    let token = deployment.admin().await;
    let mut answer = Streamed::ask(&deployment, &token, "count").await;
    answer.until("one ").await;
    assert_eq!(deployment.platform.kill(AGENT_INVOKE), 1);
    answer.until("data: [DONE]").await;
    assert!(answer.heard.contains(r#""code":"unavailable""#), "{}", answer.heard);
    assert!(!answer.heard.contains("something"), "{}", answer.heard);
}

#[tokio::test]
async fn a_turn_that_does_not_end_within_its_invocation_goes_on_in_the_next() {
    let (vendor, gate) = (Vendor::start().await, Gate::new());
    vendor.answer(Stream::text("one ").then(Step::Hold(gate.clone())).then_text("never heard"));
    vendor.answer(Stream::text("one two three"));
    let deployment = Deployment::start(PROGRAMS, &asking(&vendor)).await;
    deployment.change(AGENT_INVOKE, |mut function| {
        function.timeout = Duration::from_secs(8);
        function
    });
    let token = deployment.admin().await;
    let answer = Streamed::ask(&deployment, &token, "count").await;
    assert_eq!(answer.text().await, "one two three", "{}", deployment.unusual());
    let told = deployment.platform.logs(AGENT_INVOKE).join("\n");
    assert!(told.contains("a turn was left unfinished"), "{told}");
    assert!(!told.contains("timed out"), "{told}");
}

#[tokio::test]
async fn a_turn_ends_though_its_client_has_left() {
    let (vendor, gate) = (Vendor::start().await, Gate::new());
    vendor.answer(Stream::text("one ").then(Step::Hold(gate.clone())).then_text("two"));
    let deployment = Deployment::start(PROGRAMS, &asking(&vendor)).await;
    let token = deployment.admin().await;
    let mut answer = Streamed::ask(&deployment, &token, "count").await;
    answer.until("one ").await;
    drop(answer);
    gate.open();
    let client = Client::new(deployment.front.url(), &token);
    loop {
        let sessions = client.get("/v1/sessions").await.expect("an answer").json();
        let key = sessions["data"][0]["id"].as_str().unwrap_or_default().to_owned();
        let transcript = client.get(&format!("/v1/sessions/{key}/transcript")).await.expect("an answer");
        if transcript.body.contains("one two") {
            break;
        }
    }
}

#[tokio::test]
async fn no_room_for_another_turn_is_a_503_that_says_when_to_try_again() {
    let deployment = Deployment::start(PROGRAMS, &echoing()).await;
    deployment.change(AGENT_INVOKE, |mut function| {
        function.concurrency = 0;
        function
    });
    let client = Client::new(deployment.front.url(), &deployment.admin().await);
    let answer =
        client.send(http::Method::POST, CHAT, &[], Some(&question("hello", false))).await.expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (503, "unavailable"));
    assert_eq!(answer.headers["retry-after"], "2");
}

#[tokio::test]
async fn a_function_with_wrong_settings_does_not_start_and_says_all_that_is_wrong() {
    let deployment =
        Deployment::start(PROGRAMS, &json!({"agents": [{"id": "Wrong Id", "model": "demo/echo"}]})).await;
    deployment.change(AGENT_INVOKE, |mut function| {
        function.environment.retain(|(name, _)| name != "REEF_AGENT_FUNCTION");
        function
    });
    for function in ["gateway", AGENT_INVOKE] {
        let ended = deployment.platform.answer(function, "{}").await;
        assert_eq!(ended.map_err(|(code, _)| code), Err("Runtime.ExitError".to_owned()));
    }
    let told = |name: &str| {
        let lines = deployment
            .platform
            .logs(name)
            .into_iter()
            .map(|line| serde_json::from_str::<Value>(&line).expect("a line of JSON"));
        lines.map(|line| line["setting"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(told(AGENT_INVOKE), ["REEF_AGENT_FUNCTION"]);
    assert_eq!(told("gateway"), ["agents[0].id"]);
}
