//! One scenario: a turn whose process is killed, perhaps again and again, and what must be true afterwards.

use crate::workload::{CLIENTS_TOOL, Effects, Prepared, Workload};
use harness::client::{Client, Lost, Reply};
use harness::process::{Process, Signal, Site};
use harness::transcript;
use serde_json::Value;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;
use tokio::time::Instant;

/// What the client does after the first kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Asks each new process again, with the same idempotency key.
    AsksAgain,
    /// Is gone until all is over: what was accepted must end by itself.
    Leaves,
}

/// A scenario to be run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) number: usize,
    /// `POINT:N` of each process in turn; the first is certain to be passed.
    pub(crate) crashes: Vec<String>,
    pub(crate) caller: Caller,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Report {
    /// The points at which processes died.
    pub(crate) deaths: Vec<String>,
    /// The turn ended parked.
    pub(crate) parked: bool,
    /// From the last kill to the turn's end.
    pub(crate) held: Duration,
    /// What was wrong, each beginning with the name of what noticed it.
    pub(crate) problems: Vec<String>,
}

/// The turn as a client can see it.
struct Seen {
    turn: String,
    /// A turn that the session is held by.
    holder: Value,
    /// It has ended, as this.
    status: String,
    transcript: Vec<Value>,
}

/// A scenario at work.
pub(crate) struct Scenario<'a> {
    workload: &'a Workload,
    site: Site,
    token: &'a str,
    mark: String,
    key: String,
    caller: Caller,
}

/// Runs it.
pub(crate) async fn run(prepared: &Prepared, plan: &Plan) -> Report {
    let site = prepared.site.copy().await;
    let scenario = Scenario::new(&prepared.workload, site, &prepared.token, plan.number, plan.caller);
    let mut killed_at = Instant::now();
    for (start, crash) in plan.crashes.iter().enumerate() {
        scenario.until_killed(crash, start == 0).await;
        killed_at = Instant::now();
        if plan.caller == Caller::Leaves && !scenario.is_accepted() {
            break;
        }
    }
    scenario.finish(killed_at).await
}

impl<'a> Scenario<'a> {
    /// A turn of this kind, about to be asked for.
    pub(crate) fn new(
        workload: &'a Workload,
        site: Site,
        token: &'a str,
        number: usize,
        caller: Caller,
    ) -> Self {
        let mark = format!("mark-{}-{number}-", workload.name);
        Self { workload, site, token, mark, key: format!("key-{number}"), caller }
    }

    /// Starts a process that dies at this point and writes down what it passes.
    pub(crate) fn serve(&self, crash: Option<&str>) -> Process {
        let log = self.site.path("passings");
        let log = ("REEF_CRASH_LOG", log.to_str().expect("a path"));
        match crash {
            Some(crash) => self.site.serve(&[log, ("REEF_CRASH_AT", crash)]),
            None => self.site.serve(&[log]),
        }
    }

    /// Which points were passed so far; a fatal one is told apart by `!`.
    fn passings(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.site.path("passings")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// Whether the work was accepted: from here on it must end.
    fn is_accepted(&self) -> bool {
        let durable = if self.workload.is_job { "enqueue.after" } else { "begin.after" };
        self.passings().iter().any(|point| point.trim_start_matches('!') == durable)
    }

    /// Asks for the turn.
    pub(crate) async fn ask(&self, client: &Client) -> Result<Reply, Lost> {
        self.workload.ask.send(client, &self.mark, &self.key).await
    }

    /// Serves until the process dies at this point, or – if it does not come by, which is not `certain` – until there
    /// is nothing more to do.
    async fn until_killed(&self, crash: &str, certain: bool) {
        let process = self.serve(Some(crash));
        let asks = certain || self.caller == Caller::AsksAgain;
        let all_done = async {
            let Some(url) = process.url().await else { return std::future::pending().await };
            let client = Client::new(&url, self.token);
            let answered = !asks || self.ask(&client).await.is_ok();
            let ended = answered && self.ended(&process, &client).await.is_ok();
            if certain || !ended {
                std::future::pending::<()>().await;
            }
        };
        let status = tokio::select! {
            status = process.exit() => status,
            () = all_done => {
                process.signal(Signal::KILL);
                process.exit().await
            }
        };
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{crash}: {}", process.output());
    }

    /// Waits until the accepted work has ended.
    async fn ended(&self, process: &Process, client: &Client) -> Result<(), Lost> {
        let mut from = 0;
        loop {
            let is_done = if self.workload.is_job {
                self.job_state().await.is_some_and(|state| state != "pending")
            } else {
                self.look(client).await?.is_some_and(|seen| seen.status != "running")
            };
            if is_done {
                return Ok(());
            }
            // A job that is to be tried again has not ended.
            let end = |line: &str| match self.workload.is_job {
                true => line.contains("job ended") && !line.contains("\"outcome\":\"retry\""),
                false => line.contains("turn ended"),
            };
            process.line_from(&mut from, end).await.ok_or(Lost)?;
            if self.workload.is_job {
                return Ok(());
            }
        }
    }

    /// The state of the job, if there is one.
    async fn job_state(&self) -> Option<String> {
        let jobs = self.site.jobs().await;
        jobs["jobs"][0]["state"].as_str().map(str::to_owned)
    }

    /// The turn, if it has begun.
    async fn look(&self, client: &Client) -> Result<Option<Seen>, Lost> {
        let sessions = client.get("/v1/sessions").await?.json();
        let Some(session) = sessions["data"][0]["id"].as_str() else { return Ok(None) };
        let holder = sessions["data"][0]["turn"].clone();
        let page = client.get(&format!("/v1/sessions/{session}/transcript?limit=500")).await?.json();
        let transcript = page["data"].as_array().cloned().unwrap_or_default();
        let asked = transcript.iter().find(|message| message["content"].to_string().contains(&self.mark));
        let Some(turn) = asked.and_then(|message| message["turn"].as_str()) else { return Ok(None) };
        let found = client.get(&format!("/v1/sessions/{session}/turns/{turn}")).await?.json();
        let status = found["status"].as_str().unwrap_or_default().to_owned();
        Ok(Some(Seen { turn: turn.to_owned(), holder, status, transcript }))
    }

    /// The last, clean start, and all that must be true.
    pub(crate) async fn finish(&self, killed_at: Instant) -> Report {
        let accepted = self.is_accepted();
        let process = self.site.serve(&[]);
        let client = Client::new(&process.url().await.expect("a server"), self.token);
        let mut problems = Vec::new();
        if self.caller == Caller::Leaves && accepted {
            self.ended(&process, &client).await.expect("a server that stays");
        }
        let left_alone = Instant::now();
        let first = self.ask(&client).await.expect("an answer");
        self.ended(&process, &client).await.expect("a server that stays");
        let held =
            if self.caller == Caller::Leaves && accepted { left_alone } else { Instant::now() } - killed_at;
        let again = self.ask(&client).await.expect("an answer");
        let seen = self.look(&client).await.expect("an answer");
        process.signal(Signal::TERM);
        let status = process.exit().await;
        if !status.success() {
            problems.push(format!("stop: {status}"));
        }

        let status = seen.as_ref().map_or("never begun", |seen| &seen.status).to_owned();
        let parked = status == "parked";
        if !parked && status != "done" {
            problems.push(format!("lost: the turn is {status}"));
        }
        if parked && !matches!(self.workload.effects, Effects::Appended(_)) {
            problems.push("parked: a turn without a tool that must not run twice".to_owned());
        }
        problems.extend(self.of_answers(&first, &again, parked, accepted));
        if let Some(seen) = &seen {
            if seen.holder != Value::Null {
                problems.push(format!("held: by {}", seen.holder));
            }
            let order = transcript::problems(&seen.transcript, CLIENTS_TOOL);
            problems.extend(order.into_iter().map(|problem| format!("transcript: {problem}")));
            let times = transcript::count(&seen.transcript, &self.mark);
            if times != 1 {
                problems.push(format!("transcript: the user's message is there {times} times"));
            }
        }
        problems.extend(self.workload.effects.problems(&self.site.path("main"), parked));
        problems.extend(self.of_the_operator(seen.as_ref(), parked).await);
        let passings = self.passings();
        let deaths = passings.iter().filter_map(|point| point.strip_prefix('!')).map(str::to_owned).collect();
        if !problems.is_empty() {
            problems.push(format!("passed: {}", passings.join(" ")));
            problems.push(format!("transcript: {:#?}", seen.map(|seen| seen.transcript)));
            problems.push(format!("last process: {}", process.output()));
        }
        Report { deaths, parked, held, problems }
    }

    /// The same key gives the same answer.
    fn of_answers(&self, first: &Reply, again: &Reply, parked: bool, accepted: bool) -> Vec<String> {
        let mut problems = Vec::new();
        let mut wrong = |what: String| problems.push(format!("answer: {what}"));
        if parked && !self.workload.is_job {
            for reply in [first, again] {
                if (reply.status.as_u16(), reply.code().as_str()) != (409, "parked") {
                    wrong(format!("a parked turn is answered {} {}", reply.status, reply.body));
                }
            }
            return problems;
        }
        for reply in [first, again] {
            if reply.status != 200 || self.told(reply) == Value::Null {
                wrong(format!("{} {}", reply.status, reply.body));
            }
        }
        if self.told(first) != self.told(again) {
            wrong(format!("not the same: {} and {}", first.body, again.body));
        }
        if !again.is_replayed() {
            wrong("a repeated one is not marked as such".to_owned());
        }
        if self.caller == Caller::Leaves && accepted && !self.workload.is_job && !first.is_replayed() {
            wrong("the turn ended before, but its answer is new".to_owned());
        }
        problems
    }

    /// What an answer says, however it was cut into frames. Null if it says nothing.
    fn told(&self, reply: &Reply) -> Value {
        if self.workload.name != "streamed" {
            return reply.json();
        }
        let frames = reply.body.lines().filter_map(|line| line.strip_prefix("data: "));
        let frames: Vec<Value> = frames.filter_map(|frame| serde_json::from_str(frame).ok()).collect();
        let Some(last) = frames.last().filter(|_| reply.body.ends_with("data: [DONE]\n\n")) else {
            return Value::Null;
        };
        let text: String =
            frames.iter().filter_map(|frame| frame["choices"][0]["delta"]["content"].as_str()).collect();
        serde_json::json!([last["id"], text, last["usage"]])
    }

    /// What the operator's commands say.
    async fn of_the_operator(&self, seen: Option<&Seen>, parked: bool) -> Vec<String> {
        let mut problems = Vec::new();
        problems.extend(self.site.audit_problem().await.map(|problem| format!("audit: {problem}")));
        if !parked && !self.workload.is_job {
            return problems;
        }
        let work = self.site.jobs().await;
        let turn = seen.map(|seen| seen.turn.as_str()).unwrap_or_default();
        let listed =
            work["parked"].as_array().is_some_and(|parked| parked.iter().any(|one| one["turn"] == turn));
        if listed != parked {
            problems.push(format!("parked: listed is {listed}, but parked is {parked}: {}", work["parked"]));
        }
        let jobs: Vec<_> = work["jobs"].as_array().into_iter().flatten().map(|job| &job["state"]).collect();
        let state = if parked { "dead" } else { "done" };
        let right = if self.workload.is_job { jobs == [state] } else { jobs.is_empty() };
        if !right {
            problems.push(format!("jobs: {jobs:?}"));
        }
        problems
    }
}
