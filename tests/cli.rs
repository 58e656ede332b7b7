//! The command line, as users and scripts meet it: the real binary on a real disk.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set itself up fails")]

#[path = "cli/folder.rs"]
mod folder;
#[path = "cli/memory.rs"]
mod memory;

use harness::client::Client;
use harness::process::{Process, Signal, Site};
use harness::vendor::{Answer, Gate, Step, Stream, Vendor};
use http::StatusCode;
use serde_json::{Value, json};
use std::process::{Command, Output, Stdio};

const REEF: &str = env!("CARGO_BIN_EXE_reef");

fn demo_site() -> Site {
    let agents = json!([
        {"id": "one", "name": "One", "model": "demo/echo", "workspace": "one", "timeZone": "Asia/Tokyo"},
        {"id": "two", "model": {"primary": "demo/echo", "fallbacks": ["ollama/x"]}, "workspace": "two", "tools": ["ls"]},
    ]);
    let site = Site::new(REEF, &json!({"agents": agents, "timeZone": "UTC"}));
    for agent in ["one", "two"] {
        std::fs::create_dir(site.path(agent)).unwrap();
        std::fs::write(site.path(agent).join("AGENTS.md"), "You help.").unwrap();
    }
    site
}

/// One agent on a vendor that does what the test says.
fn vendor_site(vendor: &Vendor, settings: &Value) -> Site {
    let mut all = json!({
        "agents": [{"id": "one", "model": "mine/x", "workspace": "one"}],
        "models": {"providers": {"mine": {"baseUrl": format!("{}/v1", vendor.url()), "maxAttempts": 1}}},
    });
    for (key, value) in settings.as_object().unwrap() {
        all[key] = value.clone();
    }
    Site::new(REEF, &all)
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command that fails says, and its exit code.
async fn failure(site: &Site, arguments: &[&str]) -> (i32, String) {
    let output = site.run(arguments).await;
    assert_eq!(stdout(&output), "", "{arguments:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said.trim_end().replace(site.path("").to_str().unwrap(), "SITE/"))
}

async fn client(site: &Site, server: &Process) -> Client {
    let token = site.token("admin").await;
    Client::new(&server.url().await.unwrap(), &token)
}

fn turn(text: &str) -> Value {
    json!({"model": "openclaw", "user": "ann", "messages": [{"role": "user", "content": text}]})
}

/// The same without what differs between two runs.
fn steady(mut value: Value, keys: &[&str]) -> Value {
    for key in keys {
        assert!(value[key].is_string(), "{key} of {value}");
        value[key] = json!("…");
    }
    value
}

#[tokio::test]
async fn without_settings_the_guides_four_agents_are_served_and_the_start_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(REEF);
        command.args(arguments).env_clear().env("TZ", "Europe/Berlin").current_dir(folder.path());
        command.output().unwrap()
    };
    let listed: Value = serde_json::from_slice(&run(&["agents", "list", "--json"]).stdout).unwrap();
    let agents: Vec<_> =
        listed.as_array().unwrap().iter().map(|agent| (&agent["id"], &agent["model"])).collect();
    let ids = ["email-manager", "calendar-manager", "doc-processor", "data-analyst"].map(Value::from);
    let echo = json!("demo/echo");
    assert_eq!(agents, ids.iter().map(|id| (id, &echo)).collect::<Vec<_>>());
    assert_eq!(listed[0]["time_zone"], "Europe/Berlin");

    let said = run(&["chat", "--agent", "data-analyst", "--message", "hello"]);
    assert_eq!(stdout(&said), "You said: hello\n");
    assert!(folder.path().join("data/workspaces/data-analyst/AGENTS.md").is_file());
    // What the owner changed stays as it is.
    std::fs::remove_file(folder.path().join("data/workspaces/data-analyst/SOUL.md")).unwrap();
    run(&["chat", "--message", "hello"]);
    assert!(!folder.path().join("data/workspaces/data-analyst/SOUL.md").exists());

    let checked = run(&["config", "check"]);
    assert_eq!(
        stdout(&checked),
        "warning: no settings are named: serving the four example agents on the demo model demo/echo, which only \
         echoes; name a file with --config or REEF_CONFIG\n\
         the built-in example agents: no problems; agents: email-manager, calendar-manager, doc-processor, \
         data-analyst\n"
    );
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked_while_the_server_runs() {
    let site = demo_site();
    let server = site.serve(&[]);
    let url = server.url().await.unwrap();
    let made = site
        .json(&[
            "token",
            "create",
            "--name",
            "bob",
            "--scopes",
            "chat,hooks",
            "--agents",
            "two",
            "--cidrs",
            "127.0.0.1,10.0.0.0/8",
            "--expires",
            "30d",
            "--rate-limit",
            "2.5,7",
            "--json",
        ])
        .await;
    let text = made["token"].as_str().unwrap().to_owned();
    let mut expected = json!({
        "id": "…",
        "name": "bob",
        "state": "live",
        "scopes": ["chat", "hooks"],
        "agents": ["two"],
        "cidrs": ["127.0.0.1/32", "10.0.0.0/8"],
        "rate_limit": {"per_second": 2.5, "burst": 7},
        "created_at": "…",
        "expires_at": "…",
        "revoked_at": null,
        "token": "…",
    });
    let keys = ["id", "created_at", "expires_at"];
    assert_eq!(steady(made.clone(), &[&keys[..], &["token"]].concat()), expected);
    expected.as_object_mut().unwrap().remove("token");
    let listed = site.json(&["token", "list", "--json"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 2, "the first admin's token, and the new one");
    assert_eq!(steady(listed[1].clone(), &keys), expected);

    let bob = Client::new(&url, &text);
    let say = |model: &str| json!({"model": model, "messages": [{"role": "user", "content": "hi"}]});
    let allowed = bob.post("/v1/chat/completions", &[], &say("openclaw/two")).await.unwrap();
    assert_eq!(allowed.status, StatusCode::OK, "{}", allowed.body);
    let refused = bob.get("/v1/sessions").await.unwrap();
    assert_eq!((refused.status, refused.code().as_str()), (StatusCode::FORBIDDEN, "forbidden"));

    let id = made["id"].as_str().unwrap();
    let revoked = site.json(&["token", "revoke", id, "--json"]).await;
    expected["state"] = json!("revoked");
    expected["revoked_at"] = json!("…");
    assert_eq!(steady(revoked, &[&keys[..], &["revoked_at"]].concat()), expected);
    // A server may go on for a second with what it knows of a token.
    let mut refused = bob.post("/v1/chat/completions", &[], &say("openclaw/two")).await.unwrap();
    for _ in 0..100 {
        if refused.status == StatusCode::OK {
            refused = bob.post("/v1/chat/completions", &[], &say("openclaw/two")).await.unwrap();
        }
    }
    assert_eq!((refused.status, refused.code().as_str()), (StatusCode::UNAUTHORIZED, "unauthenticated"));
}

#[tokio::test]
async fn sessions_are_listed_shown_and_exported_while_the_server_runs() {
    let site = demo_site();
    let server = site.serve(&[]);
    let client = client(&site, &server).await;
    for text in ["one\u{1b}[31m", "two"] {
        let reply = client.post("/v1/chat/completions", &[], &turn(text)).await.unwrap();
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    }
    let key = "agent:one:openai-user:ann";
    let head = json!({
        "key": key,
        "id": "…",
        "agent": "one",
        "user": "ann",
        "channel": "webchat",
        "messages": 4,
        "created_at": "…",
        "updated_at": "…",
        "turn": null,
    });
    let changing = ["id", "created_at", "updated_at"];
    let listed = site.json(&["sessions", "list", "--json"]).await;
    assert_eq!(steady(listed[0].clone(), &changing), head);
    assert_eq!(site.json(&["sessions", "list", "--agent", "two", "--json"]).await, json!([]));

    let mut shown = site.json(&["sessions", "show", key, "--limit", "1", "--json"]).await;
    let transcript = shown.as_object_mut().unwrap().remove("transcript").unwrap();
    assert_eq!(steady(shown, &changing), head);
    let exported = stdout(&site.run(&["sessions", "export", key]).await);
    let lines: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(transcript, json!([lines[3]]));
    let messages: Vec<_> = lines.into_iter().map(|line| steady(line, &["at", "turn"])).collect();
    let user = |seq: u64, text: &str| json!({"seq": seq, "role": "user", "parts": [{"type": "text", "text": text}], "at": "…", "turn": "…"});
    let assistant =
        |seq: u64, text: &str| json!({"seq": seq, "role": "assistant", "text": text, "at": "…", "turn": "…"});
    assert_eq!(
        messages,
        [
            user(1, "one\u{1b}[31m"),
            assistant(2, "You said: one\u{1b}[31m"),
            user(3, "two"),
            assistant(4, "You said: two"),
        ]
    );

    let told = stdout(&site.run(&["sessions", "show", key]).await);
    assert!(told.contains("\nYou said: one\\u{1b}[31m\n"), "nothing steers the terminal: {told}");
    assert_eq!(
        failure(&site, &["sessions", "show", "agent:one:nothing"]).await,
        (1, "reef: there is no session agent:one:nothing; see `reef sessions list`".to_owned())
    );
}

#[tokio::test]
async fn chat_says_one_message_or_reads_standard_input_and_stores_the_turn() {
    let site = demo_site();
    let said = site.run(&["chat", "--agent", "two", "--message", "/tool ls {}"]).await;
    assert!(said.status.success());
    assert!(stdout(&said).contains("\n"), "{}", stdout(&said));
    let data = site.path("data").display().to_string();
    assert_eq!(
        String::from_utf8(said.stderr).unwrap(),
        format!("reef: there was no data in {data}: it is made there now\n[ls {{}}]\n")
    );

    let mut piped = Command::new(REEF)
        .args(["chat", "--session", "agent:one:notes", "--json"])
        .env("REEF_DATA", site.path("data"))
        .env("REEF_CONFIG", site.path("openclaw.json"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut piped.stdin.take().unwrap(), b"two\nlines\n").unwrap();
    let answer: Value = serde_json::from_slice(&piped.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(
        (&answer["status"], &answer["session"], &answer["text"], &answer["model"]),
        (&json!("done"), &json!("agent:one:notes"), &json!("You said: two\nlines"), &json!("demo/echo"))
    );
    let sessions = site.json(&["sessions", "list", "--json"]).await;
    let keys: Vec<_> = sessions.as_array().unwrap().iter().map(|session| &session["key"]).collect();
    assert_eq!(keys, ["agent:one:notes", "agent:two:main"]);

    assert_eq!(
        failure(&site, &["chat", "--agent", "three", "-m", "hi"]).await,
        (1, "reef: there is no agent three; see `reef agents list`".to_owned())
    );
    assert_eq!(
        failure(&site, &["chat"]).await,
        (1, "reef: there is nothing to say; give --message, or text on standard input".to_owned())
    );
}

#[tokio::test]
async fn a_failed_turn_of_a_chat_says_why_and_exits_with_1() {
    let vendor = Vendor::start().await;
    let site = vendor_site(&vendor, &json!({}));
    vendor.answer(Answer::error(400, "invalid_request_error", "no"));
    let (code, said) = failure(&site, &["chat", "-m", "hi"]).await;
    assert_eq!(code, 1);
    assert!(said.starts_with("reef: ") && said.contains("mine/x"), "{said}");
}

#[tokio::test]
async fn a_dead_job_is_listed_with_its_reason_and_delivered_again() {
    let vendor = Vendor::start().await;
    vendor.answer(Answer::error(400, "invalid_request_error", "no"));
    let site = vendor_site(&vendor, &json!({}));
    let server = site.serve(&[]);
    let client = client(&site, &server).await;
    let accepted = client.post("/hooks/agent", &[], &json!({"message": "work"})).await.unwrap();
    assert_eq!(accepted.status, StatusCode::OK, "{}", accepted.body);

    let dead = job(&site, "dead").await;
    let (id, reason) = (dead["id"].as_str().unwrap(), dead["reason"].as_str().unwrap());
    assert!(reason.starts_with("invalid: "), "{reason}");
    assert_eq!(
        (&dead["state"], &dead["agent"], &dead["attempts"]),
        (&json!("dead"), &json!("one"), &json!(1))
    );

    let again = site.json(&["jobs", "redrive", id, "--json"]).await;
    assert_eq!(again["id"], id);
    assert_eq!(
        failure(&site, &["jobs", "redrive", "nothing"]).await,
        (1, "reef: there is no dead job nothing; see `reef jobs list --state dead`".to_owned())
    );
    let listed = site.json(&["jobs", "list", "--json"]).await;
    assert_eq!((listed["jobs"][0]["id"].as_str(), &listed["parked"]), (Some(id), &json!([])));
}

/// The only job, as soon as it is in this state.
async fn job(site: &Site, state: &str) -> Value {
    // Every look is a process of its own, which takes far longer than the queue does.
    for _ in 0..1000 {
        let listed = site.json(&["jobs", "list", "--state", state, "--json"]).await;
        if let Some(job) = listed["jobs"].get(0) {
            return job.clone();
        }
    }
    panic!("no job is {state}: {}", site.json(&["jobs", "list", "--json"]).await);
}

#[tokio::test]
async fn the_audit_trail_is_listed_and_verified() {
    let site = demo_site();
    site.run(&["chat", "-m", "hi"]).await;
    let listed = site.json(&["audit", "list", "--session", "agent:one:main", "--json"]).await;
    let rows = listed.as_array().unwrap();
    let actions: Vec<_> = rows.iter().map(|row| (&row["action"], &row["principal"])).collect();
    let operator = json!("operator");
    assert_eq!(actions, [(&json!("turn.committed"), &operator), (&json!("turn.accepted"), &operator)]);
    let later = ["audit", "list", "--since", "2100-01-01T00:00:00Z", "--json"];
    assert_eq!(site.json(&later).await, json!([]));
    assert_eq!(site.json(&["audit", "verify", "--json"]).await, json!({"ok": true, "rows": 2, "broken": []}));
}

#[tokio::test]
async fn config_check_tells_every_problem_and_exits_with_1() {
    let settings = json!({"agents": [{"id": "A", "model": "antropic/x"}], "gatway": {}});
    let site = Site::new(REEF, &settings);
    let problems = [
        ("gatway", "unknown key; did you mean `gateway`?"),
        (
            "agents[0].id",
            "\"A\" is not an agent's id: 1 to 64 of a-z, 0-9, `_` and `-`, the first a letter or digit",
        ),
        (
            "agents[0].model",
            "unknown provider \"antropic\"; known are anthropic, demo, lmstudio, ollama, openai, vllm; add \
             models.providers.antropic or correct the name",
        ),
    ];
    let lines: Vec<_> = problems.iter().map(|(path, message)| format!("\n  {path}: {message}")).collect();
    let told = (1, format!("reef: SITE/openclaw.json: 3 problems{}", lines.concat()));
    assert_eq!(failure(&site, &["config", "check"]).await, told);
    assert_eq!(failure(&site, &["serve"]).await, told, "the server does not start on them either");

    let file = site.path("openclaw.json").display().to_string();
    let checked = site.run(&["config", "check", &file, "--json"]).await;
    assert_eq!(checked.status.code(), Some(1));
    let problems: Vec<_> =
        problems.iter().map(|(path, message)| json!({"path": path, "message": message})).collect();
    assert_eq!(
        serde_json::from_slice::<Value>(&checked.stdout).unwrap(),
        json!({"file": file, "ok": false, "problems": problems, "warnings": []})
    );

    let site = demo_site();
    let file = site.path("openclaw.json").display().to_string();
    assert_eq!(
        site.json(&["config", "check", "--json"]).await,
        json!({"file": file, "ok": true, "problems": [], "warnings": []})
    );
}

#[tokio::test]
async fn wrong_settings_do_not_stop_commands_that_need_none() {
    let site = Site::new(REEF, &json!({}));
    let made = site.run(&["token", "create", "--init", "--name", "x", "--scopes", "chat"]).await;
    assert!(made.status.success());
    let listed = site.run(&["token", "list"]).await;
    assert!(stdout(&listed).contains(" x "), "{}", stdout(&listed));
    assert_eq!(
        String::from_utf8(listed.stderr).unwrap(),
        "reef: the settings cannot be read, so times are shown in UTC; see `reef config check`\n"
    );
}

#[tokio::test]
async fn config_show_hides_secrets_and_config_schema_is_the_checked_in_one() {
    let provider =
        json!({"baseUrl": "https://example.com/v1", "apiKey": "sk-hunter2", "headers": {"x-a": "hunter2"}});
    let site = Site::new(
        REEF,
        &json!({"agents": [{"id": "a", "model": "mine/x"}], "models": {"providers": {"mine": provider}}}),
    );
    let shown = site.json(&["config", "show"]).await;
    assert!(!shown.to_string().contains("hunter2"), "{shown}");
    assert_eq!(shown["models"]["providers"]["mine"]["apiKey"], "[redacted]");
    let schema = stdout(&site.run(&["config", "schema"]).await);
    assert!(schema == include_str!("../shared/openclaw.schema.json"));
}

#[tokio::test]
async fn agents_are_listed_with_what_they_may_use() {
    let site = demo_site();
    let listed = site.json(&["agents", "list", "--json"]).await;
    assert_eq!(
        listed[1],
        json!({
            "id": "two",
            "default": false,
            "name": "two",
            "description": null,
            "model": "demo/echo",
            "fallbacks": ["ollama/x"],
            "tools": ["ls"],
            "time_zone": "UTC",
            "workspace": site.path("two"),
            "instructions": ["AGENTS.md"],
        })
    );
    // Where no vendor's key is known, the list is as good.
    let keyless = Site::new(REEF, &json!({"agents": [{"id": "a", "model": "anthropic/x"}]}));
    assert_eq!(keyless.json(&["agents", "list", "--json"]).await[0]["model"], "anthropic/x");
    assert_eq!(failure(&keyless, &["config", "check"]).await.0, 1);

    let table = stdout(&site.run(&["agents", "list"]).await);
    let rows: Vec<_> = table.lines().map(|line| line.split("  ").next().unwrap()).collect();
    assert_eq!(rows, ["ID", "one", "two"]);
}

#[tokio::test]
async fn errors_say_what_where_and_what_next() {
    let site = demo_site();
    let missing = site.path("nothing.json").display().to_string();
    assert_eq!(
        failure(&site, &["agents", "list", "--config", &missing]).await,
        (
            1,
            "reef: the settings SITE/nothing.json cannot be read: No such file or directory (os error 2); name the file \
             with --config or REEF_CONFIG"
                .to_owned()
        )
    );
    let nowhere = site.path("nowhere").display().to_string();
    assert_eq!(
        failure(&site, &["token", "list", "--data", &nowhere]).await,
        (
            1,
            "reef: there is no data in SITE/nowhere; name the server's folder with --data or REEF_DATA"
                .to_owned()
        )
    );
    assert!(!site.path("nowhere").exists(), "a command that only looks makes nothing");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = failure(&site, &["serve", "--listen", &address]).await;
    let problem = format!(
        "reef: cannot listen on {address}; choose with --listen ADDR:PORT: Address already in use (os error 98)"
    );
    assert_eq!((code, said.lines().last()), (1, Some(problem.as_str())));
    assert_eq!(
        failure(&site, &["token", "create", "--name", "x", "--scopes", "chat", "--agents", "three"]).await,
        (1, "reef: --agents: there is no agent three; there are one, two".to_owned())
    );
    assert_eq!(
        failure(&site, &["token", "revoke", "nothing"]).await,
        (1, "reef: there is no token nothing; see `reef token list`".to_owned())
    );
}

#[tokio::test]
async fn wrong_usage_exits_with_2() {
    let site = demo_site();
    for arguments in [
        &["token", "create", "--name", "x"][..],
        &["token", "create", "--name", "x", "--scopes", "chit"],
        &["token", "create", "--name", "x", "--scopes", "chat", "--expires", "soon"],
        &["serve", "--listen", "nowhere"],
        &["jobs", "list", "--state", "odd"],
        &["frobnicate"],
        &[],
    ] {
        let (code, said) = failure(&site, arguments).await;
        assert_eq!(code, 2, "{arguments:?}: {said}");
    }
    let (_, said) = failure(&site, &["token", "create", "--name", "x", "--scopes", "chit"]).await;
    assert!(
        said.contains("unknown scope `chit`; known are chat, sessions, tools, hooks, metrics, admin"),
        "{said}"
    );
}

#[tokio::test]
async fn completions_are_made_for_every_shell() {
    let site = demo_site();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&site.run(&["completions", shell]).await);
        assert!(script.contains("redrive"), "{shell}");
    }
}

#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    for arguments in [
        &["config", "schema"][..],
        &["completions", "bash"],
        &["agents", "list"],
        &["agents", "list", "--json"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(REEF)
            .args(arguments)
            .env_clear()
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(
            (output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
}

#[tokio::test]
async fn a_stopping_server_finishes_the_turn_it_is_at_and_exits_with_0() {
    let vendor = Vendor::start().await;
    let gate = Gate::new();
    vendor.answer(Stream::text("so ").then(Step::Hold(gate.clone())).then_text("it was"));
    let site = vendor_site(&vendor, &json!({}));
    let server = site.serve(&[]);
    let client = client(&site, &server).await;
    let body = turn("hi");
    let asking = client.send(http::Method::POST, "/v1/chat/completions", &[], Some(&body));
    let (reply, ()) = tokio::join!(asking, async {
        gate.reached().await;
        server.signal(Signal::TERM);
        server.line(|line| line.contains("stopping: no new work")).await.unwrap();
        gate.open();
    });
    let reply = reply.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    assert_eq!(reply.json()["choices"][0]["message"]["content"], "so it was");
    assert_eq!(server.exit().await.code(), Some(0));
    assert!(server.output().contains("stopped: everything is finished"), "{}", server.output());
}

#[tokio::test]
async fn a_turn_that_outlasts_the_drain_goes_on_at_the_next_start() {
    let vendor = Vendor::start().await;
    let gate = Gate::new();
    vendor.answer(Answer::Silence(gate.clone()));
    vendor.answer(Stream::text("at last"));
    let site =
        vendor_site(&vendor, &json!({"gateway": {"drainSeconds": 0.05}, "turns": {"leaseSeconds": 0.2}}));
    let server = site.serve(&[]);
    let client = client(&site, &server).await;
    let body = turn("hi");
    let asking = client.send(http::Method::POST, "/v1/chat/completions", &[], Some(&body));
    let (lost, ()) = tokio::join!(asking, async {
        gate.reached().await;
        server.signal(Signal::TERM);
    });
    assert!(lost.is_err());
    assert_eq!(server.exit().await.code(), Some(0));
    let server = site.serve(&[]);
    server.line(|line| line.contains("\"turn ended\"")).await.unwrap();
    let shown = site.json(&["sessions", "show", "agent:one:openai-user:ann", "--json"]).await;
    let texts: Vec<_> =
        shown["transcript"].as_array().unwrap().iter().map(|message| &message["role"]).collect();
    assert_eq!(texts, ["user", "assistant"]);
    assert_eq!(shown["transcript"][1]["text"], "at last");
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let vendor = Vendor::start().await;
    let gate = Gate::new();
    vendor.answer(Answer::Silence(gate.clone()));
    let site = vendor_site(&vendor, &json!({}));
    let server = site.serve(&[]);
    let client = client(&site, &server).await;
    let body = turn("hi");
    let asking = client.send(http::Method::POST, "/v1/chat/completions", &[], Some(&body));
    let (lost, ()) = tokio::join!(asking, async {
        gate.reached().await;
        server.signal(Signal::TERM);
        server.line(|line| line.contains("stopping: no new work")).await.unwrap();
        server.signal(Signal::INT);
    });
    assert!(lost.is_err());
    assert_eq!(server.exit().await.code(), Some(1));
}

#[tokio::test]
async fn logs_are_json_lines_in_three_streams_and_lose_nothing_at_the_end() {
    let vendor = Vendor::start().await;
    vendor.answer(Answer::error(500, "api_error", "broken"));
    let site = vendor_site(&vendor, &json!({}));
    let server = site.serve(&[]);
    let client = client(&site, &server).await;
    for _ in 0..2 {
        client.send(http::Method::POST, "/v1/chat/completions", &[], Some(&turn("hi"))).await.unwrap();
    }
    server.signal(Signal::TERM);
    server.exit().await;
    let output = server.output();
    let lines: Vec<Value> = output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let logged = output.lines().filter(|line| line.starts_with('{')).count();
    assert_eq!(lines.len(), logged, "every line is JSON: {output}");
    let streams = ["access", "operation", "error"];
    assert!(lines.iter().all(|line| streams.iter().any(|stream| line["stream"] == **stream)), "{output}");
    let access: Vec<_> = lines.iter().filter(|line| line["stream"] == "access").collect();
    assert_eq!(access.iter().map(|line| line["status"].as_u64().unwrap()).collect::<Vec<_>>(), [502, 200]);
    let keys: Vec<_> = access[1].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "duration_ms",
            "level",
            "message",
            "method",
            "path",
            "principal",
            "request.id",
            "status",
            "stream",
            "ts"
        ]
    );
    let ended = lines.iter().filter(|line| line["message"] == "turn ended").count();
    assert_eq!(ended, 2, "{output}");
    assert_eq!(lines.last().unwrap()["message"], "stopped: everything is finished");
}

#[tokio::test]
async fn reef_log_chooses_what_is_logged() {
    let site = demo_site();
    let server = site.serve(&[("REEF_LOG", "info,access=off")]);
    let client = client(&site, &server).await;
    client.get("/v1/sessions").await.unwrap();
    server.signal(Signal::TERM);
    server.exit().await;
    assert!(!server.output().contains("\"access\""), "{}", server.output());
    assert!(server.output().contains("\"operation\""), "{}", server.output());
}

#[tokio::test]
async fn a_gateway_that_other_machines_cannot_use_says_so_at_its_start() {
    const LISTENS: &str = "put its address into gateway.trustedProxies";
    const BELIEVED: &str = "is believed of the proxies in gateway.trustedProxies only, and none is named";
    for (gateway, warning) in [
        (json!({"bind": "loopback"}), None),
        (json!({"bind": "all"}), Some(LISTENS)),
        (json!({"bind": "all", "trustedProxies": ["127.0.0.1"]}), None),
        (json!({"bind": "all", "trustedProxies": ["127.0.0.1"], "tls": "inFront"}), None),
        (json!({"bind": "all", "tls": "inFront"}), Some(BELIEVED)),
    ] {
        let mut settings = json!({
            "agents": [{"id": "one", "model": "demo/echo", "workspace": "one"}],
            "gateway": gateway.clone(),
        });
        settings["gateway"]["port"] = json!(0);
        let site = Site::new(REEF, &settings);
        let server = site.start(&["serve"], &[]);
        server.url().await.unwrap();
        server.signal(Signal::TERM);
        server.exit().await;
        let said = server.output();
        let warned: Vec<_> = [LISTENS, BELIEVED].into_iter().filter(|text| said.contains(text)).collect();
        assert_eq!(warned, warning.into_iter().collect::<Vec<_>>(), "{gateway}: {said}");
    }
}
