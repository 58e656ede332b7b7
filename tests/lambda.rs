//! The three functions, as real processes on an emulated Lambda: through API Gateway's events, `gateway` and
//! `agent-invoke` to the stores, and from the queue through `queue-worker`.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

#[path = "lambda/regions.rs"]
mod regions;

use futures::StreamExt;
use harness::app::TestApp;
use harness::client::Client;
use harness::clients::{self, Target};
use harness::cloud::{AGENT_INVOKE, Deployment, GATEWAY, Programs, QUEUE_WORKER};
use harness::lambda::Part as Piece;
use harness::vendor::{Gate, Step, Stream, Vendor};
use http::StatusCode;
use serde_json::{Value, json};
use shared::agent::hop::{Ask, Check};
use shared::agent::relay::relay;
use shared::agent::{RunOptions, RunRequest};
use shared::clock::{Clock, SystemClock, Timestamp};
use shared::id::TenantId;
use shared::job::{JobFilter, JobState, NewJob, Work};
use shared::limit::Limit;
use shared::message::{MessageBody, Part};
use shared::principal::Scope;
use shared::region::Regions;
use shared::session::{TurnOutcome, Window};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

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

/// What the schedule sends to the worker.
fn schedule() -> String {
    json!({"source": "aws.scheduler", "detail-type": "Scheduled Event", "detail": {}}).to_string()
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
    let _source = deployment.bring_messages(1);
    let suite = clients::python(&target(&deployment).await).await;
    assert_eq!(suite, Ok(()), "the functions said:\n{}", deployment.unusual());
}

#[tokio::test]
async fn the_stock_node_client_gets_right_answers() {
    let deployment = Deployment::start(PROGRAMS, &echoing()).await;
    let _source = deployment.bring_messages(1);
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
        Self::post(deployment, token, CHAT, &question(text, true)).await
    }

    async fn post(deployment: &Deployment, token: &str, path: &str, body: &Value) -> Self {
        let asked = reqwest::Client::builder().no_proxy().build().expect("a client");
        let response = asked
            .post(format!("{}{path}", deployment.front.url()))
            .bearer_auth(token)
            .json(body)
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
    assert!(told.contains("turn handed over"), "{told}");
    assert!(!told.contains("timed out"), "{told}");
    assert_eq!(deployment.metric(AGENT_INVOKE, "TurnErrors").await, [0.0; 0], "nobody noticed");
    assert_eq!(deployment.metric(AGENT_INVOKE, "Turns").await, [1.0]);
}

#[tokio::test]
async fn a_turn_that_fails_half_way_is_counted_though_its_answer_has_long_said_200() {
    let vendor = Vendor::start().await;
    vendor.answer(Stream::text("one ").then(Step::Cut));
    let deployment = Deployment::start(PROGRAMS, &asking(&vendor)).await;
    let token = deployment.admin().await;
    let mut answer = Streamed::ask(&deployment, &token, "count").await;
    answer.until("data: [DONE]").await;
    assert!(answer.heard.contains(r#""code":"upstream""#), "{}", answer.heard);
    assert_eq!(deployment.metric(AGENT_INVOKE, "TurnErrors").await, [1.0]);
    assert_eq!(deployment.metric(AGENT_INVOKE, "Turns").await, [1.0]);
}

#[tokio::test]
async fn the_time_to_a_models_first_words_is_reported_once_for_each_streamed_answer() {
    let (vendor, gate) = (Vendor::start().await, Gate::new());
    vendor.answer(Stream::text("whole"));
    vendor.answer(Stream::text("one ").then(Step::Hold(gate.clone())).then_text("two"));
    let deployment = Deployment::start(PROGRAMS, &asking(&vendor)).await;
    let token = deployment.admin().await;
    let client = Client::new(deployment.front.url(), &token);
    for path in ["/health", "/readyz", "/v1/models"] {
        assert_eq!(client.get(path).await.expect("an answer").status, StatusCode::OK);
    }
    let whole = client.post(CHAT, &[], &question("whole", false)).await.expect("an answer");
    assert_eq!(whole.status, StatusCode::OK, "{}", whole.body);
    // The stream's last word comes when the gate opens, its first one well before.
    let mut answer = Streamed::ask(&deployment, &token, "count").await;
    answer.until("one ").await;
    let before_the_end = deployment.metric(GATEWAY, "FirstByte").await;
    assert_eq!(before_the_end.len(), 1);
    assert!(before_the_end.iter().all(|millis| (0.0..30_000.0).contains(millis)), "{before_the_end:?}");
}

#[tokio::test]
async fn a_vendor_that_keeps_silent_is_waited_for_by_the_metric_whatever_opens_the_stream() {
    let vendor = Vendor::start().await;
    for _ in 0..2 {
        vendor.answer(Stream::new().then(Step::Hold(Gate::new())));
    }
    let deployment = Deployment::start(PROGRAMS, &asking(&vendor)).await;
    let token = deployment.admin().await;
    let mut chat = Streamed::ask(&deployment, &token, "count").await;
    chat.until("assistant").await;
    let body = json!({"model": "openclaw", "stream": true, "input": "count"});
    let mut response = Streamed::post(&deployment, &token, "/v1/responses", &body).await;
    response.until("response.in_progress").await;
    assert_eq!(deployment.metric(GATEWAY, "FirstByte").await, [0.0; 0]);
}

#[tokio::test]
async fn nothing_is_kept_for_a_scrape() {
    let deployment = Deployment::start(PROGRAMS, &echoing()).await;
    let client = Client::new(deployment.front.url(), &deployment.admin().await);
    assert_eq!(client.get("/metrics").await.expect("an answer").code(), "not_found");
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
async fn what_an_agent_writes_is_in_the_bucket_and_its_layer_stays_as_it_was() {
    let deployment = Deployment::start(PROGRAMS, &echoing()).await;
    let folder = deployment.layer().join("main");
    std::fs::create_dir(&folder).expect("the agent's folder");
    std::fs::write(folder.join("AGENTS.md"), "Take notes.").expect("its instructions");
    std::fs::write(folder.join("log.txt"), "of the layer\n").expect("a file");
    let token = deployment.admin().await;
    let client = Client::new(deployment.front.url(), &token);
    // One function writes, another one adds, and the first one reads what both made.
    let ask = async |text: &str| {
        let answer = client.post(CHAT, &[], &question(text, false)).await.expect("an answer");
        assert_eq!(answer.status, StatusCode::OK, "{} {}", answer.body, deployment.unusual());
        answer.json()["choices"][0]["message"]["content"].as_str().expect("a text").to_owned()
    };
    ask(r#"/tool write {"path": "notes/a.md", "content": "one\n"}"#).await;
    let call = json!({"tool": "append", "args": {"path": "notes/a.md", "content": "two\n"}});
    let answer = client.post("/tools/invoke", &[], &call).await.expect("an answer");
    assert_eq!(answer.status, StatusCode::OK, "{} {}", answer.body, deployment.unusual());
    ask(r#"/tool append {"path": "log.txt", "content": "of the agent\n"}"#).await;
    let read = ask(r#"/tool read {"path": "notes/a.md"}"#).await;
    assert!(read.contains("one\ntwo\n"), "{read}");
    let listed = ask("/tool ls {}").await;
    assert!(listed.contains("AGENTS.md  11\nlog.txt  26\nnotes/"), "{listed}");
    let expected = [("log.txt", "of the layer\nof the agent\n"), ("notes/a.md", "one\ntwo\n")];
    let expected = expected.map(|(path, text)| (format!("agents/main/main/{path}"), text.to_owned()));
    assert_eq!(deployment.bucket.objects().await, expected.into());
    let mut names: Vec<_> =
        std::fs::read_dir(&folder).expect("it").map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["AGENTS.md", "log.txt"]);
    assert_eq!(std::fs::read_to_string(folder.join("log.txt")).expect("the file"), "of the layer\n");
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
async fn the_functions_logs_say_the_time_in_the_settings_zone_beside_utc() {
    let mut settings = echoing();
    settings["timeZone"] = json!("Asia/Tokyo");
    let deployment = Deployment::start(PROGRAMS, &settings).await;
    let client = Client::new(deployment.front.url(), &deployment.admin().await);
    let answer =
        client.send(http::Method::POST, CHAT, &[], Some(&question("hello", false))).await.expect("an answer");
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.body);
    for function in ["gateway", AGENT_INVOKE] {
        let words = deployment.platform.last_words(function).await;
        let lines = words.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        // Lines for metrics have their time as CloudWatch wants it.
        let lines: Vec<_> = lines.filter(|line| line["stream"] != "metric").collect();
        assert!(!lines.is_empty(), "{function}: {words:?}");
        for line in lines {
            let (utc, local) =
                (line["ts"].as_str().unwrap_or_default(), line["ts.local"].as_str().unwrap_or_default());
            assert!(local.ends_with("+09:00"), "{function}: {line}");
            // Tokyo is whole hours away: minutes, seconds and what is behind them are the same.
            assert_eq!(utc.get(13..23), local.get(13..23), "{function}: {line}");
        }
    }
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

#[tokio::test(start_paused = true)]
async fn an_answer_ends_only_when_nothing_of_it_is_at_work_and_says_meanwhile_that_it_is_alive() {
    let app = TestApp::new();
    let gate = Arc::new(Notify::new());
    let left_behind = Arc::clone(&gate);
    app.turns.spawn(async move { left_behind.notified().await });
    let ask = Ask::Check(Check::Ready);
    let mut lines = relay(app.app.clone(), ask, app.turns.clone(), Duration::from_secs(10));
    let mut next = async || lines.next().await.map(|line| String::from_utf8(line).expect("text"));
    assert_eq!(next().await.as_deref(), Some("{\"ready\":true}\n"));
    assert_eq!([next().await.as_deref(), next().await.as_deref()], [Some("\n"), Some("\n")]);
    gate.notify_one();
    assert_eq!(next().await, None);
}

/// A job whose turn is on a session of its own; one in twenty is for an agent that does not exist.
fn job(number: usize) -> NewJob {
    let id = format!("job-{number:05}");
    let agent = if is_poison(number) { "nobody" } else { "main" };
    let request = RunRequest {
        turn: format!("turn-{number:05}").into(),
        tenant: TenantId::single(),
        principal: "test".into(),
        agent: agent.into(),
        session: format!("agent:{agent}:{id}").into(),
        sticky: false,
        idempotency: None,
        input: vec![MessageBody::User { parts: vec![Part::Text { text: format!("number {number}") }] }],
        options: RunOptions::default(),
    };
    NewJob { id: id.into(), tenant: TenantId::single(), work: Work::Turn(Box::new(request)) }
}

const fn is_poison(number: usize) -> bool {
    number % 20 == 7
}

#[tokio::test]
async fn of_many_jobs_with_poison_among_them_none_is_lost_and_none_runs_twice_though_workers_are_killed() {
    // `REEF_TEST_JOBS=10000` for the long run.
    let count = std::env::var("REEF_TEST_JOBS").ok().and_then(|text| text.parse().ok()).unwrap_or(400);
    let mut settings = echoing();
    settings["turns"] = json!({"leaseSeconds": 2});
    let deployment = Deployment::start(PROGRAMS, &settings).await;
    let (tenant, stores) = (TenantId::single(), &deployment.stores);
    let enqueued = futures::stream::iter(0..count).map(|number| async move {
        stores.jobs.enqueue(&job(number), Duration::ZERO, SystemClock.now()).await.expect("a stored job")
    });
    enqueued.buffer_unordered(16).for_each(|is_new| async move { assert!(is_new) }).await;

    let mut answered = deployment.platform.answered();
    let source = deployment.bring_messages(4);
    let with = |state, limit| JobFilter { id: None, state: Some(state), limit };
    let mut kills = 0;
    loop {
        let batches = *answered.borrow_and_update();
        // Five times, at different points of their work.
        if batches > (kills + 1) * (count as u64 / 80) && kills < 5 {
            assert!(deployment.platform.kill(QUEUE_WORKER) > 0);
            kills += 1;
        }
        if stores
            .jobs
            .list(&tenant, &with(JobState::Pending, 1), Timestamp::EPOCH)
            .await
            .expect("the jobs")
            .is_empty()
        {
            break;
        }
        answered.changed().await.expect("the platform");
    }
    drop(source);
    assert_eq!(kills, 5, "the workers were never killed in their work");

    let dead =
        stores.jobs.list(&tenant, &with(JobState::Dead, count), Timestamp::EPOCH).await.expect("the jobs");
    let dead: BTreeSet<_> = dead.into_iter().map(|job| job.job.id).collect();
    assert_eq!(dead, (0..count).filter(|number| is_poison(*number)).map(|number| job(number).id).collect());
    for number in (0..count).filter(|number| !is_poison(*number)) {
        let Work::Turn(request) = job(number).work;
        let turn = stores.sessions.turn(&tenant, &request.turn).await.expect("the turn").expect("a turn");
        assert!(matches!(turn.outcome, Some(TurnOutcome::Done(_))), "{turn:?}");
        let transcript = stores.sessions.transcript(&tenant, &request.session, Window::newest(9)).await;
        assert_eq!(transcript.expect("the transcript").len(), 2, "question and answer of {}", turn.id);
    }
}

#[tokio::test]
async fn a_region_whose_queue_fails_gives_its_sign_of_life_all_the_same() {
    let deployment = Deployment::start_in(PROGRAMS, &echoing(), &["eu-central-1", "us-east-1"]).await;
    // A job that lost its message, and no queue to send it another one.
    deployment.stores.jobs.enqueue(&job(1), Duration::ZERO, Timestamp::EPOCH).await.expect("a stored job");
    deployment.change(QUEUE_WORKER, |function| function.env("REEF_QUEUE_URL", "http://sqs.invalid/0/gone"));
    deployment.platform.answer(QUEUE_WORKER, schedule()).await.expect_err("no queue");
    let states = deployment.regions.states(SystemClock.now()).await.expect("the regions");
    let here = states.iter().find(|state| state.is_here).expect("this region");
    assert!(here.beat_at.is_some(), "{states:?} {}", deployment.unusual());
}

#[tokio::test]
async fn a_turn_whose_worker_was_killed_is_finished_by_the_schedule() {
    let (vendor, gate) = (Vendor::start().await, Gate::new());
    vendor.answer(Stream::text("one ").then(Step::Hold(gate.clone())).then_text("never heard"));
    vendor.answer(Stream::text("one two three"));
    let deployment = Deployment::start(PROGRAMS, &asking(&vendor)).await;
    let (tenant, now) = (TenantId::single(), SystemClock.now());
    deployment.stores.jobs.enqueue(&job(1), Duration::ZERO, now).await.expect("a stored job");
    let pointer = json!({"tenant": "main", "job": "job-00001"}).to_string();
    let event = json!({"Records": [{"messageId": "m", "body": pointer}]}).to_string();
    let mut killed = deployment.platform.invoke(QUEUE_WORKER, event).await.expect("an instance");
    gate.reached().await;
    assert_eq!(deployment.platform.kill(QUEUE_WORKER), 1);
    assert!(matches!(killed.recv().await, Some(Piece::Error { .. })));

    loop {
        let answer = deployment.platform.answer(QUEUE_WORKER, schedule()).await.expect("an answer");
        let answer: Value = serde_json::from_slice(&answer).expect("an answer in JSON");
        // Until its lease has run out there is nothing to do.
        if answer["resumed"] == 1 {
            break;
        }
        assert_eq!(answer, json!({"resumed": 0, "resent": 0}));
    }
    let turn = deployment.stores.sessions.turn(&tenant, &"turn-00001".into()).await.expect("the turn");
    let Some(TurnOutcome::Done(reply)) = turn.expect("a turn").outcome else { panic!("it is not done") };
    assert_eq!(reply.text, "one two three");
}
