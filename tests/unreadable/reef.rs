//! The real binary: what is nested too deeply is refused at the door, and what an older release let in harms nobody.

use super::too_deep;
use harness::client::Client;
use harness::process::{Process, Signal, Site};
use harness::vendor::{Answer, Gate, Stream, Vendor};
use http::{Method, StatusCode};
use rusqlite::Connection;
use serde_json::{Value, json};

const REEF: &str = env!("CARGO_BIN_EXE_reef-under-test");

fn site(vendor: &Vendor) -> Site {
    let settings = json!({
        "agents": [{"id": "one", "model": "mine/x", "workspace": "one"}],
        "models": {"providers": {"mine": {"baseUrl": format!("{}/v1", vendor.url()), "maxAttempts": 1}}},
        "turns": {"leaseSeconds": 0.5},
    });
    Site::new(REEF, &settings)
}

async fn client(site: &Site, server: &Process) -> Client {
    let token = site.token("admin").await;
    Client::new(&server.url().await.expect("a server"), &token)
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!({"type": "string"}), |inner, _| json!({"a": inner}))
}

#[tokio::test]
async fn what_is_nested_too_deeply_is_refused_on_every_surface_and_named() {
    let vendor = Vendor::start().await;
    let site = site(&vendor);
    let server = site.serve(&[]);
    let client = client(&site, &server).await;
    let schema = |levels| json!({"type": "json_schema", "name": "s", "schema": nested(levels)});
    let tool = |levels| json!([{"type": "function", "name": "t", "parameters": nested(levels)}]);
    for (path, body, place) in [
        (
            "/v1/responses",
            json!({"model": "openclaw", "input": "hi", "background": true, "tools": tool(123)}),
            "tools[0].parameters.a",
        ),
        (
            "/v1/responses",
            json!({"model": "openclaw", "input": "hi", "text": {"format": schema(70)}}),
            "text.format.schema.a",
        ),
        (
            "/v1/responses",
            json!({"model": "openclaw", "input": "hi", "ignored": nested(70)}),
            "ignored.a.a.a",
        ),
        (
            "/v1/chat/completions",
            json!({"model": "openclaw", "messages": [], "response_format": nested(64)}),
            "response_format.a.a.a",
        ),
        ("/hooks/agent", json!({"message": "hi", "x": nested(64)}), "x.a.a.a"),
        ("/tools/invoke", json!({"tool": "ls", "args": nested(64)}), "args.a.a.a"),
    ] {
        let reply = client.post(path, &[], &body).await.expect("an answer");
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{path}: {}", reply.body);
        let text = &reply.body;
        assert!(text.contains(place) && text.contains("at most 64 levels"), "{path}: {text}");
    }
    vendor.answer(Stream::text("fine"));
    let body = json!({"model": "openclaw", "input": "hi", "background": true, "tools": tool(60)});
    let reply = client.post("/v1/responses", &[], &body).await.expect("an answer");
    assert_eq!(reply.status, StatusCode::OK, "at the bound: {}", reply.body);
}

fn turn(user: &str) -> Value {
    json!({"model": "openclaw", "user": user, "messages": [{"role": "user", "content": "hi"}]})
}

/// Two turns at work when the process is killed, and a job that waits; what is stored of one turn, and of the job, is then
/// what an older release could store and never read back.
/// Returns the token that all of it belongs to.
async fn killed_with_unreadable_rows(vendor: &Vendor, site: &Site) -> String {
    let gate = Gate::new();
    let server = site.serve(&[]);
    let token = site.token("admin").await;
    let client = Client::new(&server.url().await.expect("a server"), &token);
    for _ in 0..2 {
        vendor.answer(Answer::Silence(gate.clone()));
    }
    let (poisoned, innocent) = (turn("poisoned"), turn("innocent"));
    let headers = [[("idempotency-key", "P")], [("idempotency-key", "I")]];
    let ask = |body, headers| client.send(Method::POST, "/v1/chat/completions", headers, Some(body));
    let (one, other, ()) = tokio::join!(ask(&poisoned, &headers[0]), ask(&innocent, &headers[1]), async {
        gate.reached().await;
        gate.reached().await;
        server.signal(Signal::KILL);
    });
    assert!(one.is_err() && other.is_err());
    server.exit().await;
    let database = Connection::open(site.path("data").join("reef.sqlite")).expect("the database");
    let deep = too_deep();
    let poison = "UPDATE turns SET options = ?1 WHERE session_key LIKE '%poisoned'";
    assert_eq!(database.execute(poison, [&deep]).expect("a poisoned turn"), 1);
    let job = "INSERT INTO jobs (tenant, id, work, state, attempts, token, created_at, visible_at)
         SELECT tenant, 'poisoned', ?1, 'pending', 0, 0, 0, 0 FROM turns LIMIT 1";
    assert_eq!(database.execute(job, [&deep]).expect("a poisoned job"), 1);
    token
}

#[tokio::test]
async fn after_a_kill_unreadable_rows_are_settled_and_everybody_else_goes_on() {
    let vendor = Vendor::start().await;
    let site = site(&vendor);
    let token = killed_with_unreadable_rows(&vendor, &site).await;
    let checked = site.run(&["data", "check", "--json"]).await;
    assert_eq!(checked.status.code(), Some(1));
    let checked: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    let tables: Vec<_> =
        checked["unreadable"].as_array().expect("rows").iter().map(|row| &row["table"]).collect();
    assert_eq!((tables, &checked["ok"]), (vec![&json!("turns"), &json!("jobs")], &json!(false)), "{checked}");

    for text in ["resumed", "worked"] {
        vendor.answer(Stream::text(text));
    }
    let server = site.serve(&[]);
    let client = Client::new(&server.url().await.expect("a server"), &token);
    // The sweep takes both turns, the worker the job.
    server.line(|line| line.contains("\"turn ended\"")).await.expect("the innocent turn's end");
    server
        .line(|line| line.contains("what is stored of it cannot be read"))
        .await
        .expect("the poisoned one's end");
    server
        .line(|line| line.contains("\"job ended\"") && line.contains("\"dead\""))
        .await
        .expect("a dead job");
    let hook = client.post("/hooks/agent", &[], &json!({"message": "work"})).await.expect("an answer");
    assert_eq!(hook.status, StatusCode::OK, "{}", hook.body);
    let done = |line: &str| line.contains("\"job ended\"") && line.contains("\"done\"");
    server.line(done).await.expect("the hook's end");

    let path = "/v1/chat/completions";
    let innocent =
        client.post(path, &[("idempotency-key", "I")], &turn("innocent")).await.expect("an answer");
    assert_eq!((innocent.status, innocent.is_replayed()), (StatusCode::OK, true), "{}", innocent.body);
    let (headers, body) = ([("idempotency-key", "P")], turn("poisoned"));
    let ask = || client.post(path, &headers, &body);
    let (first, second) = (ask().await.expect("an answer"), ask().await.expect("an answer"));
    assert_eq!(first.status, StatusCode::NOT_FOUND, "{}", first.body);
    assert!(first.body.contains("cannot be read any more"), "{}", first.body);
    assert_eq!((second.status, &second.body), (first.status, &first.body), "the same for good");
    vendor.answer(Stream::text("goes on"));
    let next = client.post(path, &[], &turn("poisoned")).await.expect("an answer");
    assert_eq!(next.status, StatusCode::OK, "{}", next.body);

    let jobs = site.jobs().await;
    let dead = jobs["jobs"].as_array().expect("jobs").iter().find(|job| job["id"] == "poisoned");
    let dead = dead.expect("the poisoned job");
    assert!(dead["reason"].as_str().is_some_and(|why| why.starts_with("unreadable: ")), "{dead}");
    let redriven = site.run(&["jobs", "redrive", "poisoned"]).await;
    let said = String::from_utf8_lossy(&redriven.stderr).into_owned();
    assert_eq!(redriven.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot be read, so it cannot be delivered again"), "{said}");
    let metrics = client.get("/metrics").await.expect("the metrics").body;
    for line in
        ["reef_unreadable_rows_total{table=\"jobs\"} 1", "reef_unreadable_rows_total{table=\"turns\"} 1"]
    {
        assert!(metrics.contains(line), "{metrics}");
    }
    let deleted = client.send(Method::DELETE, "/v1/sessions/agent:one:openai-user:poisoned", &[], None).await;
    assert_eq!(deleted.expect("an answer").status, StatusCode::OK);
}

#[tokio::test]
async fn a_session_whose_head_cannot_be_read_is_reset_and_deleted_by_its_name() {
    let vendor = Vendor::start().await;
    let site = site(&vendor);
    let server = site.serve(&[]);
    let client = client(&site, &server).await;
    for change in [(Method::POST, "/reset"), (Method::DELETE, "")] {
        vendor.answer(Stream::text("hello"));
        let path = "/v1/chat/completions";
        let first = client.post(path, &[], &turn("ann")).await.expect("an answer");
        assert_eq!(first.status, StatusCode::OK, "{}", first.body);
        let database = Connection::open(site.path("data").join("reef.sqlite")).expect("the database");
        database.execute("UPDATE sessions SET seq = -1", []).expect("a damaged head");
        drop(database);
        let refused = client.send(Method::POST, path, &[], Some(&turn("ann"))).await.expect("an answer");
        assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(refused.body.contains("it can be reset or deleted"), "{}", refused.body);
        let (method, end) = change;
        let path = format!("/v1/sessions/agent:one:openai-user:ann{end}");
        let changed = client.send(method, &path, &[], Some(&json!({}))).await.expect("an answer");
        assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
        vendor.answer(Stream::text("again"));
        let next = client.post("/v1/chat/completions", &[], &turn("ann")).await.expect("an answer");
        assert_eq!(next.status, StatusCode::OK, "{}", next.body);
    }
    let sound = site.run(&["data", "check"]).await;
    assert_eq!(sound.status.code(), Some(0), "{}", String::from_utf8_lossy(&sound.stdout));
}
