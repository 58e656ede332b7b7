//! What an operator meets who mistypes something or leaves it out: the real binary never does something else in silence.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use harness::client::Client;
use harness::process::{Process, Signal, Site, output};
use harness::vendor::{Stream, Vendor};
use http::StatusCode;
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const REEF: &str = env!("CARGO_BIN_EXE_reef");

/// A site whose agents are on the demo model and have instructions.
fn site(ids: &[&str], settings: &Value) -> Site {
    let agent = |id: &&str| json!({"id": id, "model": "demo/echo", "workspace": id});
    let mut all = json!({"agents": ids.iter().map(agent).collect::<Vec<_>>()});
    for (key, value) in settings.as_object().unwrap() {
        all[key] = value.clone();
    }
    let site = Site::new(REEF, &all);
    for id in ids {
        std::fs::create_dir(site.path(id)).unwrap();
        std::fs::write(site.path(id).join("AGENTS.md"), "You help.").unwrap();
    }
    site
}

/// What a command said, with `SITE/` for the site's own folder.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

async fn said(site: &Site, command: &mut tokio::process::Command) -> Said {
    let output = output(command).await;
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes).unwrap().trim_end().replace(site.path("").to_str().unwrap(), "SITE/")
    };
    Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// A command with the site's settings.
async fn run(site: &Site, arguments: &[&str]) -> Said {
    said(site, &mut site.command(arguments)).await
}

/// A command for which nobody has named the settings.
async fn run_unnamed(site: &Site, arguments: &[&str]) -> Said {
    said(site, site.command(arguments).env_remove("REEF_CONFIG")).await
}

async fn serving(site: &Site) -> Process {
    let server = site.serve(&[]);
    server.url().await.unwrap();
    server
}

async fn stop(server: &Process) {
    server.signal(Signal::TERM);
    assert_eq!(server.exit().await.code(), Some(0), "{}", server.output());
}

const TOKEN: [&str; 6] = ["token", "create", "--name", "x", "--scopes", "chat"];

#[tokio::test]
async fn a_token_is_made_where_data_is_and_elsewhere_only_on_purpose() {
    let site = site(&["one"], &json!({}));
    let told = "reef: there is no data in SITE/data; name the server's folder with --data or REEF_DATA, or make a new one \
                with --init; `reef serve` makes one, too, with a first token";
    for _ in 0..2 {
        let refused = run(&site, &TOKEN).await;
        assert_eq!((refused.code, refused.out.as_str(), refused.err.as_str()), (1, "", told));
        assert!(!site.path("data").exists(), "nothing is made");
        // An empty folder is none either.
        std::fs::create_dir(site.path("data")).unwrap();
        assert_eq!(run(&site, &TOKEN).await.err, told);
        assert_eq!(run(&site, &["token", "list"]).await.code, 1);
        assert_eq!(std::fs::read_dir(site.path("data")).unwrap().count(), 0, "nothing is made in it");
        std::fs::remove_dir(site.path("data")).unwrap();
    }
    assert_eq!(run(&site, &[&TOKEN[..], &["--init"]].concat()).await.code, 0);
    assert_eq!(run(&site, &TOKEN).await.code, 0, "now there is data");
    assert_eq!(site.json(&["token", "list", "--json"]).await.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_used_is_told_with_the_reason() {
    let site = site(&["one"], &json!({}));
    std::fs::write(site.path("data"), "a file").unwrap();
    let told = |folder: &str| {
        format!(
            "reef: the data folder {folder} cannot be used: SITE/data is a file; choose one with --data or REEF_DATA"
        )
    };
    let below = site.path("data/below").display().to_string();
    for command in [&["token", "list"][..], &["serve", "--listen", "127.0.0.1:0"], &["chat", "-m", "hi"]] {
        let refused = run(&site, command).await;
        assert_eq!(
            (refused.code, refused.err.lines().last()),
            (1, Some(told("SITE/data").as_str())),
            "{command:?}"
        );
        let refused = run_unnamed(&site, &[command, &["--data", &below]].concat()).await;
        assert_eq!(
            (refused.code, refused.err.lines().last()),
            (1, Some(told("SITE/data/below").as_str())),
            "{command:?}"
        );
    }
}

#[tokio::test]
async fn a_command_without_settings_takes_those_of_the_server_on_the_data() {
    let site = site(&["one", "two"], &json!({"timeZone": "Asia/Tokyo"}));
    stop(&serving(&site).await).await;
    let note = site.path("data/serving.json");
    assert_eq!(std::fs::metadata(&note).unwrap().mode() & 0o777, 0o600);
    assert_eq!(
        serde_json::from_str::<Value>(&std::fs::read_to_string(&note).unwrap()).unwrap(),
        json!({"settings": site.path("openclaw.json"), "demo": false})
    );
    let taken = "reef: no settings are named: taking those of the server on this data, SITE/openclaw.json";

    let agents = run_unnamed(&site, &["agents", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&agents.out).unwrap();
    let ids: Vec<_> = listed.as_array().unwrap().iter().map(|agent| &agent["id"]).collect();
    assert_eq!((ids, agents.err.as_str()), (vec![&json!("one"), &json!("two")], taken));
    let token = run_unnamed(&site, &[&TOKEN[..], &["--agents", "two"]].concat()).await;
    assert_eq!((token.code, token.err.as_str()), (0, taken));
    let chat = run_unnamed(&site, &["chat", "--agent", "two", "-m", "hi"]).await;
    assert_eq!((chat.out.as_str(), chat.err.as_str()), ("You said: hi", taken));
    assert!(!site.path("data/workspaces").exists(), "no examples are unpacked");
    let checked = run_unnamed(&site, &["config", "check"]).await;
    assert_eq!(checked.out, "SITE/openclaw.json: no problems; agents: one, two");
    let sessions = run_unnamed(&site, &["sessions", "list"]).await;
    assert!(sessions.out.contains("+09)") && sessions.err.is_empty(), "{sessions:?}");

    let mut again = site.command(&["serve", "--listen", "127.0.0.1:0"]);
    again.env_remove("REEF_CONFIG");
    let server = Process::start(again);
    server.url().await.unwrap();
    stop(&server).await;
    assert!(server.output().contains("no settings are named: serving with those"), "{}", server.output());
    assert!(server.output().contains("\"agents\":2"), "{}", server.output());
    assert!(!site.path("data/workspaces").exists(), "no examples are unpacked");
}

#[tokio::test]
async fn a_command_refuses_when_the_servers_settings_are_gone_and_names_the_option() {
    let site = site(&["one"], &json!({}));
    stop(&serving(&site).await).await;
    std::fs::rename(site.path("openclaw.json"), site.path("moved.json")).unwrap();
    let told = "reef: the data in SITE/data is served with the settings SITE/openclaw.json, which are not there any more; \
                name the present ones with --config or REEF_CONFIG";
    for command in [
        &["agents", "list"][..],
        &["chat", "-m", "hi"],
        &["config", "show"],
        &["config", "check"],
        &["serve", "--listen", "127.0.0.1:0"],
    ] {
        let refused = run_unnamed(&site, command).await;
        assert_eq!((refused.code, refused.out.as_str(), refused.err.as_str()), (1, "", told), "{command:?}");
    }
    // What needs no settings works on: in an incident nobody looks for a file first.
    let listed = run_unnamed(&site, &["token", "list", "--json"]).await;
    assert_eq!(listed.code, 0, "{listed:?}");
    let moved = site.path("moved.json").display().to_string();
    assert_eq!(run_unnamed(&site, &["agents", "list", "--config", &moved]).await.code, 0);
}

#[tokio::test]
async fn a_chat_never_unpacks_examples_into_data_of_an_unknown_installation() {
    let site = site(&["one"], &json!({}));
    assert_eq!(run(&site, &[&TOKEN[..], &["--init"]].concat()).await.code, 0);
    let chat = run_unnamed(&site, &["chat", "-m", "hi"]).await;
    assert_eq!(
        (chat.code, chat.err.as_str()),
        (
            1,
            "reef: there is data in SITE/data, but with which settings it is served is not known, and the four example \
             agents have no business there; name the settings with --config or REEF_CONFIG, or other data with --data"
        )
    );
    assert!(!site.path("data/workspaces").exists());
    let agents = run_unnamed(&site, &["agents", "list"]).await;
    let told = "reef: no settings are named, and those of the server on SITE/data are not known: taking the four example \
                agents; name a file with --config or REEF_CONFIG";
    assert_eq!((agents.code, agents.err.as_str()), (0, told));
}

#[tokio::test]
async fn another_server_with_other_settings_on_one_folder_is_warned_of() {
    let site = site(&["one"], &json!({}));
    let other = site.path("other.json");
    std::fs::copy(site.path("openclaw.json"), &other).unwrap();
    let first = serving(&site).await;
    let same = serving(&site).await;
    let second = site.start(&["serve", "--listen", "127.0.0.1:0", "--config", other.to_str().unwrap()], &[]);
    second.url().await.unwrap();
    let warning = format!(
        "was served with other settings until now: {}; now it is with {}. If that server still runs, stop one of them",
        site.path("openclaw.json").display(),
        other.display()
    );
    assert!(second.line(|line| line.contains(&warning)).await.is_some());
    for server in [&first, &same, &second] {
        stop(server).await;
    }
    for quiet in [&first, &same] {
        assert!(!quiet.output().contains("other settings"), "{}", quiet.output());
    }
    // A command with the old settings hears of it, too.
    let listed = run(&site, &["agents", "list", "--json"]).await;
    assert_eq!(listed.err, "reef: the data in SITE/data is served with other settings: SITE/other.json");
}

#[tokio::test]
async fn an_agent_without_instructions_is_warned_of_wherever_agents_are_looked_at() {
    let site = Site::new(
        REEF,
        &json!({"agents": [
            {"id": "misspelt", "model": "demo/echo", "workspace": {"root": "./agent/emial-manager"}},
            {"id": "empty", "model": "demo/echo", "workspace": {"root": "empty"}},
            {"id": "half", "model": "demo/echo", "workspace": {"root": "half"}},
            {"id": "whole", "model": "demo/echo", "workspace": {"root": "whole"}},
        ]}),
    );
    for (folder, file) in [("empty", "notes.md"), ("half", "SOUL.md"), ("whole", "AGENTS.md")] {
        std::fs::create_dir(site.path(folder)).unwrap();
        std::fs::write(site.path(folder).join(file), "You help.").unwrap();
    }
    let begins = "a relative workspace.root begins at the folder of the settings, ";
    let folder = site.path("").display().to_string();
    let folder = folder.trim_end_matches('/');
    let warnings = [
        format!(
            "agent misspelt has no instructions: there is no AGENTS.md in SITE/agent/emial-manager, a folder that does not \
             exist and is made empty at the start; {begins}{folder}"
        ),
        format!("agent empty has no instructions: there is no AGENTS.md in SITE/empty; {begins}{folder}"),
        "agent half: there is no AGENTS.md in SITE/half, only SOUL.md".to_owned(),
    ];
    let checked = run(&site, &["config", "check"]).await;
    let lines: Vec<_> = checked.out.lines().collect();
    let mut expected: Vec<_> = warnings.iter().map(|warning| format!("warning: {warning}")).collect();
    expected.push("SITE/openclaw.json: no problems; agents: misspelt, empty, half, whole".to_owned());
    assert_eq!((checked.code, lines), (0, expected.iter().map(String::as_str).collect()));

    let listed = site.json(&["agents", "list", "--json"]).await;
    let instructions: Vec<_> =
        listed.as_array().unwrap().iter().map(|agent| &agent["instructions"]).collect();
    assert_eq!(instructions, [&json!([]), &json!([]), &json!(["SOUL.md"]), &json!(["AGENTS.md"])]);
    let chat = run(&site, &["chat", "--agent", "misspelt", "-m", "hi"]).await;
    assert!(chat.err.contains(&warnings[0]), "{}", chat.err);
    std::fs::remove_dir_all(site.path("agent")).unwrap();

    let server = serving(&site).await;
    stop(&server).await;
    let output = server.output().replace(site.path("").to_str().unwrap(), "SITE/");
    for warning in &warnings {
        assert_eq!(output.matches(warning.as_str()).count(), 1, "{warning}\n{output}");
    }
    assert!(!output.contains("agent whole"), "{output}");
}

#[tokio::test]
async fn a_request_that_names_no_agent_reaches_the_one_with_default_true() {
    let agents = json!({"list": [
        {"id": "first", "model": "demo/echo"},
        {"id": "second", "default": true, "model": "demo/echo"},
    ]});
    let site = Site::new(REEF, &json!({"agents": agents}));
    let server = serving(&site).await;
    let client = Client::new(&server.url().await.unwrap(), &site.token("admin").await);
    let body = json!({"model": "openclaw", "user": "ann", "messages": [{"role": "user", "content": "hi"}]});
    let reply = client.post("/v1/chat/completions", &[], &body).await.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    assert_eq!(reply.headers["x-reef-session-key"], "agent:second:openai-user:ann");
    let hook = client.post("/hooks/agent", &[], &json!({"message": "work"})).await.unwrap();
    assert!(hook.json()["sessionKey"].as_str().unwrap().starts_with("agent:second:"), "{}", hook.body);
    stop(&server).await;
    assert!(!server.output().contains("read over"), "{}", server.output());
    assert_eq!(run(&site, &["chat", "-m", "hi"]).await.out, "You said: hi");
    let keys = site.json(&["sessions", "list", "--agent", "first", "--json"]).await;
    assert_eq!(keys, json!([]), "nothing reached the other agent");
    let listed = site.json(&["agents", "list", "--json"]).await;
    assert_eq!((&listed[0]["default"], &listed[1]["default"]), (&json!(false), &json!(true)));
}

#[tokio::test]
async fn the_audit_trail_shows_the_newest_rows_and_says_how_many_there_are() {
    let site = site(&["one", "two"], &json!({}));
    for agent in ["one", "two", "one"] {
        assert_eq!(run(&site, &["chat", "--agent", agent, "-m", "hi"]).await.code, 0);
    }
    let rows = |listed: &Value| -> Vec<String> {
        let row =
            |row: &Value| format!("{} {}", row["agent"].as_str().unwrap(), row["action"].as_str().unwrap());
        listed.as_array().unwrap().iter().map(row).collect()
    };
    let all = site.json(&["audit", "list", "--json"]).await;
    assert_eq!(
        rows(&all),
        ["one", "two", "one"]
            .map(|id| [format!("{id} turn.committed"), format!("{id} turn.accepted")])
            .concat()
    );
    let newest = run(&site, &["audit", "list", "--limit", "2"]).await;
    let lines: Vec<_> = newest.out.lines().collect();
    assert_eq!(
        *lines.last().unwrap(),
        "6 rows fit, the newest 2 are shown; see --limit, --since and --until, and --agent, --by and --action"
    );
    assert_eq!(lines.iter().filter(|line| line.contains(" turn.")).count(), 2, "{}", newest.out);
    assert!(lines[1].contains("turn.committed"), "{}", newest.out);
    let exact = run(&site, &["audit", "list", "--limit", "6"]).await;
    assert!(!exact.out.contains("rows fit"), "{}", exact.out);

    let filtered =
        site.json(&["audit", "list", "--agent", "two", "--action", "turn.accepted", "--json"]).await;
    assert_eq!(rows(&filtered), ["two turn.accepted"]);
    let by = |by: &'static str| ["audit", "list", "--by", by, "--json"];
    assert_eq!(site.json(&by("operator")).await.as_array().unwrap().len(), 6);
    assert_eq!(site.json(&by("nobody")).await, json!([]));
    let at = all[3]["at"].as_str().unwrap();
    let until = site.json(&["audit", "list", "--until", at, "--json"]).await;
    assert_eq!(rows(&until), ["one turn.committed", "one turn.accepted"]);
    let json = run(&site, &["audit", "list", "--limit", "1", "--agent", "two", "--json"]).await;
    assert!(json.err.starts_with("reef: 2 rows fit, the newest 1 are shown;"), "{}", json.err);
}

#[tokio::test]
async fn other_lists_say_that_there_are_more_and_none_takes_a_limit_of_0() {
    let site = site(&["one"], &json!({}));
    for session in ["agent:one:a", "agent:one:b"] {
        assert_eq!(run(&site, &["chat", "--session", session, "-m", "hi"]).await.code, 0);
    }
    let sessions = run(&site, &["sessions", "list", "--limit", "1"]).await;
    assert!(sessions.out.ends_with("there are more sessions than these 1; see --limit"), "{}", sessions.out);
    let whole = run(&site, &["sessions", "list", "--limit", "2"]).await;
    assert!(!whole.out.contains("more"), "{}", whole.out);
    for list in [
        &["sessions", "list"][..],
        &["sessions", "show", "agent:one:a"],
        &["jobs", "list"],
        &["audit", "list"],
    ] {
        for limit in ["0", "-1", "few", ""] {
            let refused = run(&site, &[list, &[&format!("--limit={limit}")]].concat()).await;
            assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{list:?} {limit}");
            assert!(refused.err.contains("write a whole number from 1 on, e.g. 100"), "{}", refused.err);
        }
    }
}

#[tokio::test]
async fn logs_say_the_time_in_the_settings_zone_beside_utc() {
    let site = site(&["one"], &json!({"timeZone": "Asia/Tokyo"}));
    let server = serving(&site).await;
    stop(&server).await;
    let output = server.output();
    let lines: Vec<Value> = output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert!(lines.len() >= 3, "{output}");
    for line in &lines {
        let (utc, local) = (line["ts"].as_str().unwrap(), line["ts.local"].as_str().unwrap());
        let instant = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
        assert!(utc.ends_with('Z') && local.ends_with("+09:00"), "{line}");
        assert_eq!(instant(utc), instant(local));
    }
}

#[tokio::test]
async fn a_listening_address_is_taken_as_people_write_it_or_explained() {
    let site = site(&["one"], &json!({}));
    let server = site.start(&["serve", "--listen", "localhost:0"], &[]);
    assert!(server.url().await.unwrap().starts_with("http://127.0.0.1:"), "{}", server.output());
    stop(&server).await;
    let server = site.start(&["serve"], &[("REEF_LISTEN", "0")]);
    assert!(server.url().await.unwrap().starts_with("http://127.0.0.1:"), "{}", server.output());
    stop(&server).await;
    let refused = run(&site, &["serve", "--listen", "0.0.0.0"]).await;
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("write ADDR:PORT, e.g. 127.0.0.1:18789"), "{}", refused.err);
}

#[tokio::test]
async fn a_chat_on_a_session_of_another_agent_names_that_agent() {
    let site = site(&["one", "two"], &json!({}));
    let told = |key: &str| {
        format!(
            "reef: the session {key} belongs to the agent one, not to two; say --agent one, or name another session"
        )
    };
    // A new session whose key says whose it is, then one that is there, then one whose key says nothing.
    let mixed = run(&site, &["chat", "--agent", "two", "--session", "agent:one:a", "-m", "hi"]).await;
    assert_eq!((mixed.code, mixed.err.lines().last()), (1, Some(told("agent:one:a").as_str())));
    for key in ["agent:one:a", "plain"] {
        assert_eq!(run(&site, &["chat", "--session", key, "-m", "hi"]).await.code, 0);
        let mixed = run(&site, &["chat", "--agent", "two", "--session", key, "-m", "hi"]).await;
        assert_eq!((mixed.code, mixed.out.as_str(), mixed.err.as_str()), (1, "", told(key).as_str()));
    }
    // A key that says whose session it is needs no --agent.
    assert_eq!(run(&site, &["chat", "--session", "agent:two:b", "-m", "hi"]).await.code, 0);
    let sessions = site.json(&["sessions", "list", "--agent", "two", "--json"]).await;
    assert_eq!(sessions[0]["key"], "agent:two:b");
}

#[tokio::test]
async fn a_later_start_says_how_many_tokens_are_live() {
    let site = site(&["one"], &json!({}));
    let first = serving(&site).await;
    stop(&first).await;
    assert!(!first.output().contains("tokens that are live"), "{}", first.output());
    assert_eq!(run(&site, &TOKEN).await.code, 0);
    let second = serving(&site).await;
    stop(&second).await;
    assert!(
        second.output().contains("\"tokens\":2")
            && second.output().contains("`reef token create` makes another"),
        "{}",
        second.output()
    );
    for token in site.json(&["token", "list", "--json"]).await.as_array().unwrap() {
        assert_eq!(run(&site, &["token", "revoke", token["id"].as_str().unwrap()]).await.code, 0);
    }
    let third = serving(&site).await;
    stop(&third).await;
    assert!(third.output().contains("no token is live, so nobody can come in"), "{}", third.output());
}

#[tokio::test]
async fn no_vendor_is_told_where_the_server_keeps_its_files() {
    let vendor = Vendor::start().await;
    vendor.answer(Stream::text("hello"));
    let site = Site::new(
        REEF,
        &json!({
            "agents": [{"id": "one", "model": "mine/x", "workspace": {"root": "./nowhere"}}],
            "models": {"providers": {"mine": {"baseUrl": format!("{}/v1", vendor.url()), "maxAttempts": 1}}},
        }),
    );
    assert_eq!(run(&site, &["chat", "-m", "hi"]).await.out, "hello");
    let asked = format!("{:?}", vendor.requests());
    assert!(asked.contains("[MISSING] There is no such file in this agent's workspace."), "{asked}");
    let place = site.path("").display().to_string();
    assert!(!asked.contains(place.trim_end_matches('/')), "{asked}");
}

/// The lines of the RUNBOOK that define how a server's process is found.
fn runbooks_function() -> String {
    let runbook =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/RUNBOOK.md"))
            .unwrap();
    let line = runbook.lines().map(str::trim).find(|line| line.starts_with("reef_pid()")).unwrap();
    line.to_owned()
}

#[tokio::test]
async fn the_runbooks_stop_command_finds_a_server_whatever_its_options() {
    let site = site(&["one"], &json!({}));
    let data = site.path("data").display().to_string();
    let server = site.start(&["--data", &data, "--demo", "serve", "--listen", "127.0.0.1:0"], &[]);
    server.url().await.unwrap();
    let mut find = tokio::process::Command::new("bash");
    find.args(["-c", &format!("{}\nreef_pid", runbooks_function())]);
    let found = String::from_utf8(output(&mut find).await.stdout).unwrap();
    let id = server.id().to_string();
    assert!(found.lines().any(|line| line == id), "{id} is not among {found:?}");
    stop(&server).await;
    let found = String::from_utf8(output(&mut find).await.stdout).unwrap();
    assert!(!found.lines().any(|line| line == id), "{id} is still among {found:?}");
}
