//! What is at work when the process dies: one kind of turn each.

use harness::client::{Client, Lost, Reply};
use harness::process::{Signal, Site};
use harness::vendor::Vendor;
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// How long a turn is held without a sign of life, in seconds.
pub(crate) const LEASE_SECONDS: u64 = 1;

/// Stands in a workload's texts for what is different in each scenario.
const MARK: &str = "MARK";

/// The tool that the client of a workload runs itself.
pub(crate) const CLIENTS_TOOL: &str = "get_weather";

/// The session of every workload that names one.
const SESSION: &str = "agent:main:crash";

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    path: &'static str,
    in_session: bool,
    body: String,
}

impl Ask {
    fn new(path: &'static str, body: &Value) -> Self {
        Self { path, in_session: true, body: body.to_string() }
    }

    pub(crate) fn chat(text: &str) -> Self {
        Self::new(
            "/v1/chat/completions",
            &json!({"model": "openclaw", "messages": [{"role": "user", "content": text}]}),
        )
    }

    fn body(&self, mark: &str) -> Value {
        serde_json::from_str(&self.body.replace(MARK, mark)).expect("a body in JSON")
    }

    fn headers<'a>(&self, key: &'a str) -> Vec<(&'static str, &'a str)> {
        let session = self.in_session.then_some(("x-openclaw-session-key", SESSION));
        [("idempotency-key", key)].into_iter().chain(session).collect()
    }

    /// Sends it with this text in the mark's place and this idempotency key, and again where the answer says so.
    pub(crate) async fn send(&self, client: &Client, mark: &str, key: &str) -> Result<Reply, Lost> {
        client.post(self.path, &self.headers(key), &self.body(mark)).await
    }

    /// Sends it once.
    pub(crate) async fn send_once(&self, client: &Client, mark: &str, key: &str) -> Result<Reply, Lost> {
        client.send(Method::POST, self.path, &self.headers(key), Some(&self.body(mark))).await
    }
}

/// What the turn leaves in its workspace.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Effects {
    /// Nothing.
    None,
    /// A file of exactly this content, however often it was written.
    Written(&'static str),
    /// A file of these lines, none of them twice; a parked turn may lack some.
    Appended(&'static [&'static str]),
}

/// The file of every workload that has one.
pub(crate) const FILE: &str = "notes.txt";

impl Effects {
    /// The file in this workspace; empty if it is not there.
    pub(crate) fn file(self, workspace: &Path) -> String {
        std::fs::read_to_string(workspace.join(FILE)).unwrap_or_default()
    }

    /// What is wrong with the file.
    pub(crate) fn problems(self, found: &str, parked: bool) -> Vec<String> {
        let right = match self {
            Self::None => found.is_empty(),
            Self::Written(content) => found == content,
            Self::Appended(lines) if parked => lines.concat().starts_with(found),
            Self::Appended(lines) => lines.concat() == found,
        };
        if right { Vec::new() } else { vec![format!("effect: the file holds {found:?}")] }
    }
}

/// A kind of turn.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// Done before, in the same session.
    prelude: Option<Ask>,
    pub(crate) ask: Ask,
    pub(crate) effects: Effects,
    /// It goes through the job queue: the answer comes before the turn has run.
    pub(crate) is_job: bool,
    turns: Value,
    /// Asks the slow vendor instead of the demo model.
    is_slow: bool,
}

impl Workload {
    pub(crate) fn new(name: &'static str, ask: Ask) -> Self {
        let turns = json!({"leaseSeconds": LEASE_SECONDS});
        Self { name, prelude: None, ask, effects: Effects::None, is_job: false, turns, is_slow: false }
    }

    fn leaving(self, effects: Effects) -> Self {
        Self { effects, ..self }
    }

    /// All of them.
    pub(crate) fn all() -> Vec<Self> {
        let call = |name: &str, arguments: Value| format!("/tool {name} {arguments}");
        let append = |line: &str| call("append", json!({"path": FILE, "content": line}));
        let write = |content: &str| call("write", json!({"path": FILE, "content": content}));
        let hook = |text: String| {
            Ask::new("/hooks/agent", &json!({"name": "CI", "sessionKey": SESSION, "message": text}))
        };
        let tools = json!([{"type": "function", "function": {"name": CLIENTS_TOOL, "parameters": {"type": "object"}}}]);
        let weather = |text: &str| {
            let message = format!("{text}\n{}", call(CLIENTS_TOOL, json!({"location": "Oslo"})));
            let body = json!({"model": "openclaw", "tools": tools, "messages": [{"role": "user", "content": message}]});
            Ask::new("/v1/chat/completions", &body)
        };
        let once = Effects::Appended(&["one\n"]);
        let twice = Effects::Appended(&["one\n", "two\n"]);
        vec![
            // No session is named: each asking would have one of its own.
            Self::new("chat", Ask { in_session: false, ..Ask::chat(MARK) }),
            Self::new(
                "streamed",
                Ask::new(
                    "/v1/chat/completions",
                    &json!({"model": "openclaw", "stream": true, "stream_options": {"include_usage": true},
                        "messages": [{"role": "user", "content": "Tell me, MARK"}]}),
                ),
            ),
            Self::new("responses", Ask::new("/v1/responses", &json!({"model": "openclaw", "input": MARK}))),
            Self::new("write", Ask::chat(&format!("{MARK}\n{}\n/then\n{}", write("one"), write("two"))))
                .leaving(Effects::Written("two")),
            Self::new("append", Ask::chat(&format!("{MARK}\n{}\n{}", append("one\n"), append("two\n"))))
                .leaving(twice),
            Self::new(
                "append-steps",
                Ask::chat(&format!("{MARK}\n{}\n/then\n{}", append("one\n"), append("two\n"))),
            )
            .leaving(twice),
            Self::new("client-call", weather(MARK)),
            Self {
                prelude: Some(weather("first")),
                ..Self::new(
                    "client-result",
                    Ask::new(
                        "/v1/chat/completions",
                        &json!({"model": "openclaw", "tools": tools, "messages": [
                            {"role": "user", "content": format!("first\n{}", call(CLIENTS_TOOL, json!({"location": "Oslo"})))},
                            {"role": "assistant", "content": "You said: first", "tool_calls": [{"id": "CALL", "type": "function",
                                "function": {"name": CLIENTS_TOOL, "arguments": "{\"location\":\"Oslo\"}"}}]},
                            {"role": "tool", "tool_call_id": "CALL", "content": MARK},
                        ]}),
                    ),
                )
            },
            Self {
                prelude: Some(Ask::chat("first\n/tool ls\n/then\n/tool ls")),
                turns: json!({"leaseSeconds": LEASE_SECONDS, "windowMessages": 4, "keepMessages": 1}),
                ..Self::new("compaction", Ask::chat(MARK))
            },
            Self { is_job: true, ..Self::new("hook", hook(format!("{MARK}\n{}", write("one")))) }
                .leaving(Effects::Written("one")),
            Self { is_job: true, ..Self::new("hook-once", hook(format!("{MARK}\n{}", append("one\n")))) }
                .leaving(once),
            Self {
                is_job: true,
                ..Self::new(
                    "background",
                    Ask::new(
                        "/v1/responses",
                        &json!({"model": "openclaw", "background": true, "input": MARK}),
                    ),
                )
            },
            // Ten deltas of 100 ms: longer than two thirds of the lease.
            Self {
                is_slow: true,
                ..Self::new("slow", Ask::chat("MARK two three four five six seven eight"))
            },
        ]
    }

    /// The settings of a site on which every turn asks this vendor.
    pub(crate) fn settings_on(&self, vendor: &Vendor) -> Value {
        Self { is_slow: true, ..self.clone() }.settings(vendor)
    }

    pub(crate) fn settings(&self, vendor: &Vendor) -> Value {
        let model = if self.is_slow { "slow/echo" } else { "demo/echo" };
        json!({
            "agents": [{"id": "main", "model": model, "workspace": "./main"}],
            "models": {"providers": {"slow": {"baseUrl": format!("{}/v1", vendor.url()), "api": "openai-completions"}}},
            "turns": self.turns,
        })
    }

    /// Does what comes before the turn, which may change what is asked then.
    pub(crate) async fn prelude(&mut self, client: &Client) {
        let Some(prelude) = self.prelude.take() else { return };
        let reply = prelude.send(client, "", "prelude").await.expect("an answer");
        assert_eq!(reply.status, 200, "{}", reply.body);
        if let Some(id) = reply.json()["choices"][0]["message"]["tool_calls"][0]["id"].as_str() {
            self.ask.body = self.ask.body.replace("CALL", id);
        }
    }

    /// A site where everything before the turn has happened, and where a turn that nothing disturbs passes which
    /// points.
    pub(crate) async fn prepare(mut self, program: &str, vendor: &Vendor) -> Prepared {
        let site = Site::new(program, &self.settings(vendor));
        let token = site.token("chat,sessions,hooks").await;
        if self.prelude.is_some() {
            let process = site.serve(&[]);
            self.prelude(&Client::new(&process.url().await.expect("a server"), &token)).await;
            process.signal(Signal::TERM);
            assert!(process.exit().await.success(), "{}", process.output());
        }
        let passed = undisturbed(&site.copy(), &token, &self).await;
        Prepared { workload: self, site, token, places: places(&passed) }
    }
}

/// A workload about to begin.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) workload: Workload,
    pub(crate) site: Site,
    pub(crate) token: String,
    /// Where to kill.
    pub(crate) places: Vec<String>,
}

/// Which points the turn passes.
async fn undisturbed(site: &Site, token: &str, workload: &Workload) -> Vec<String> {
    let log = site.path("passings");
    let process = site.serve(&[("REEF_CRASH_LOG", log.to_str().expect("a path"))]);
    let client = Client::new(&process.url().await.expect("a server"), token);
    let reply = workload.ask.send(&client, "undisturbed", "undisturbed").await.expect("an answer");
    assert_eq!(reply.status, 200, "{}: {}", workload.name, reply.body);
    if workload.is_job {
        process.line(|line| line.contains("job ended")).await.expect("the job's end");
    }
    process.signal(Signal::TERM);
    assert!(process.exit().await.success(), "{}", process.output());
    let effects = workload.effects;
    let problems = effects.problems(&effects.file(&site.path("main")), false);
    assert!(problems.is_empty(), "{}: {problems:?}", workload.name);
    passings(&log)
}

/// The points that a process has written down.
pub(crate) fn passings(log: &Path) -> Vec<String> {
    std::fs::read_to_string(log).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Where to kill a process that passes these points, `POINT:N`: at the first two passings of each and its last one.
pub(crate) fn places(passed: &[String]) -> Vec<String> {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for point in passed {
        *times.entry(point).or_default() += 1;
    }
    let places = times.into_iter().flat_map(|(point, times)| {
        // How often a lease is renewed depends on the time that the turn takes.
        let last = if point.starts_with("renew.") { 2 } else { times };
        let mut at = vec![1, 2, last];
        at.retain(|at| *at <= last);
        at.dedup();
        at.into_iter().map(move |at| format!("{point}:{at}"))
    });
    places.collect()
}
