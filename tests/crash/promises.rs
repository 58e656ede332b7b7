//! What must be true of a turn after a kill, whatever it ran on: a [`Wish`] knows what was asked, an [`Aftermath`] what is
//! there.

use crate::workload::{CLIENTS_TOOL, Effects, Workload};
use harness::client::{Client, Lost, Reply};
use harness::transcript;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// What the client does after the first kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Asks again, with the same idempotency key, until there is an answer.
    AsksAgain,
    /// Is gone until all is over: what was accepted must end by itself.
    Leaves,
}

/// What came of a scenario.
#[derive(Debug, Default)]
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

/// Tells what came of all scenarios, each with its name, and fails if anything is wrong. Returns how many processes died.
pub(crate) fn judge(reports: &[(String, Report)], most_held: Duration) -> usize {
    let mut kills: BTreeMap<&str, usize> = BTreeMap::new();
    let mut failed = Vec::new();
    for (name, report) in reports {
        for point in &report.deaths {
            *kills.entry(point).or_default() += 1;
        }
        let mut problems = report.problems.clone();
        if report.held > most_held {
            problems.push(format!("held: for {:?}", report.held));
        }
        if !problems.is_empty() {
            failed.push(format!("{name}\n  {}", problems.join("\n  ")));
        }
    }
    let parked = reports.iter().filter(|(_, report)| report.parked).count();
    let longest = reports.iter().map(|(_, report)| report.held).max().unwrap_or_default();
    let total: usize = kills.values().sum();
    println!(
        "{} scenarios, {total} kills, {} failed, {parked} parked, held for at most {longest:?}; kills: {kills:?}",
        reports.len(),
        failed.len()
    );
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    total
}

/// The turn as a client can see it.
pub(crate) struct Seen {
    pub(crate) turn: String,
    /// A turn that the session is held by.
    pub(crate) holder: Value,
    /// It has ended, as this.
    pub(crate) status: String,
    pub(crate) transcript: Vec<Value>,
}

/// What is there when all is over.
pub(crate) struct Aftermath {
    /// The work was known to be accepted before its caller came back.
    pub(crate) accepted: bool,
    /// What the caller was told, at least twice; the last time all was over.
    pub(crate) answers: Vec<Reply>,
    pub(crate) seen: Option<Seen>,
    /// The file that the turn's tools write.
    pub(crate) file: String,
    /// Jobs and parked turns, as an operator sees them; null if nobody looked.
    pub(crate) work: Value,
    pub(crate) audit_problem: Option<String>,
}

impl Aftermath {
    pub(crate) fn status(&self) -> &str {
        self.seen.as_ref().map_or("never begun", |seen| &seen.status)
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.status() == "parked"
    }
}

/// A turn as its caller knows it.
pub(crate) struct Wish<'a> {
    pub(crate) workload: &'a Workload,
    pub(crate) caller: Caller,
    mark: String,
    key: String,
}

impl<'a> Wish<'a> {
    /// A turn of this kind, about to be asked for.
    pub(crate) fn new(workload: &'a Workload, number: usize, caller: Caller) -> Self {
        let mark = format!("mark-{}-{number}-", workload.name);
        Self { workload, caller, mark, key: format!("key-{number}") }
    }

    /// Asks for it, and again where the answer says so.
    pub(crate) async fn ask(&self, client: &Client) -> Result<Reply, Lost> {
        self.workload.ask.send(client, &self.mark, &self.key).await
    }

    /// Asks for it once and does not listen.
    pub(crate) async fn ask_and_leave(&self, client: &Client) {
        // Whatever the answer would be.
        let _ = self.workload.ask.send_once(client, &self.mark, &self.key).await;
    }

    /// The turn, if it has begun.
    pub(crate) async fn look(&self, client: &Client) -> Result<Option<Seen>, Lost> {
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

    /// Which points a process is certain to have passed when the work is accepted: from here on it must end.
    pub(crate) fn is_accepted(&self, passings: &[String]) -> bool {
        let durable = if self.workload.is_job { "enqueue.after" } else { "begin.after" };
        passings.iter().any(|point| point.trim_start_matches('!') == durable)
    }

    /// Whether there is nothing more to ask for.
    pub(crate) fn is_answer(&self, reply: &Reply) -> bool {
        is_parked(reply) || (reply.status == 200 && self.told(reply) != Value::Null)
    }

    /// Everything that is wrong.
    pub(crate) fn problems(&self, after: &Aftermath) -> Vec<String> {
        let mut problems = Vec::new();
        let parked = after.is_parked();
        if !parked && after.status() != "done" {
            problems.push(format!("lost: the turn is {}", after.status()));
        }
        if parked && !matches!(self.workload.effects, Effects::Appended(_)) {
            problems.push("parked: a turn without a tool that must not run twice".to_owned());
        }
        problems.extend(self.of_answers(after));
        if let Some(seen) = &after.seen {
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
        problems.extend(self.workload.effects.problems(&after.file, parked));
        problems.extend(after.audit_problem.iter().map(|problem| format!("audit: {problem}")));
        if after.work != Value::Null {
            problems.extend(self.of_work(after));
        }
        problems
    }

    /// The same key gives the same answer.
    fn of_answers(&self, after: &Aftermath) -> Vec<String> {
        let mut problems = Vec::new();
        let mut wrong = |what: String| problems.push(format!("answer: {what}"));
        if after.is_parked() && !self.workload.is_job {
            for reply in after.answers.iter().filter(|reply| !is_parked(reply)) {
                wrong(format!("a parked turn is answered {} {}", reply.status, reply.body));
            }
            return problems;
        }
        for reply in &after.answers {
            if reply.status != 200 || self.told(reply) == Value::Null {
                wrong(format!("{} {}", reply.status, reply.body));
            }
        }
        for pair in after.answers.windows(2) {
            if self.told(&pair[0]) != self.told(&pair[1]) {
                wrong(format!("not the same: {} and {}", pair[0].body, pair[1].body));
            }
        }
        if !after.answers.last().is_some_and(Reply::is_replayed) {
            wrong("a repeated one is not marked as such".to_owned());
        }
        let ended_alone = self.caller == Caller::Leaves && after.accepted && !self.workload.is_job;
        if ended_alone && !after.answers[0].is_replayed() {
            wrong("the turn ended before, but its answer is new".to_owned());
        }
        problems
    }

    /// What an answer says, however it was cut into frames. Null if it says nothing, or an error at its end.
    fn told(&self, reply: &Reply) -> Value {
        if self.workload.name != "streamed" {
            return reply.json();
        }
        let frames = reply.body.lines().filter_map(|line| line.strip_prefix("data: "));
        let frames: Vec<Value> = frames.filter_map(|frame| serde_json::from_str(frame).ok()).collect();
        let is_whole =
            reply.body.ends_with("data: [DONE]\n\n") && frames.iter().all(|frame| frame["error"].is_null());
        let Some(last) = frames.last().filter(|_| is_whole) else { return Value::Null };
        let text: String =
            frames.iter().filter_map(|frame| frame["choices"][0]["delta"]["content"].as_str()).collect();
        serde_json::json!([last["id"], text, last["usage"]])
    }

    /// What an operator sees of jobs and parked turns.
    fn of_work(&self, after: &Aftermath) -> Vec<String> {
        let (mut problems, parked) = (Vec::new(), after.is_parked());
        let turn = after.seen.as_ref().map(|seen| seen.turn.as_str()).unwrap_or_default();
        let listed = after.work["parked"].as_array();
        let listed = listed.is_some_and(|parked| parked.iter().any(|one| one["turn"] == turn));
        if listed != parked {
            problems.push(format!("parked: listed is {listed}, but parked is {parked}: {}", after.work));
        }
        let jobs: Vec<_> =
            after.work["jobs"].as_array().into_iter().flatten().map(|job| &job["state"]).collect();
        let state = if parked { "dead" } else { "done" };
        let right = if self.workload.is_job { jobs == [state] } else { jobs.is_empty() };
        if !right {
            problems.push(format!("jobs: {jobs:?}"));
        }
        problems
    }
}

fn is_parked(reply: &Reply) -> bool {
    (reply.status.as_u16(), reply.code().as_str()) == (409, "parked")
}
