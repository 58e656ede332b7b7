//! One scenario: a turn whose process is killed, perhaps again and again, and what must be true afterwards.

use crate::promises::{Aftermath, Caller, Report, Wish};
use crate::workload::{Prepared, Workload};
use harness::client::{Client, Lost, Reply};
use harness::process::{Process, Signal, Site};
use serde_json::Value;
use std::os::unix::process::ExitStatusExt;
use tokio::time::Instant;

/// A scenario to be run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) number: usize,
    /// `POINT:N` of each process in turn; the first is certain to be passed.
    pub(crate) crashes: Vec<String>,
    pub(crate) caller: Caller,
}

/// A scenario at work.
pub(crate) struct Scenario<'a> {
    wish: Wish<'a>,
    site: Site,
    token: &'a str,
}

/// Runs it.
pub(crate) async fn run(prepared: &Prepared, plan: &Plan) -> Report {
    let site = prepared.site.copy();
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
        Self { wish: Wish::new(workload, number, caller), site, token }
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
        self.wish.is_accepted(&self.passings())
    }

    /// Asks for the turn.
    pub(crate) async fn ask(&self, client: &Client) -> Result<Reply, Lost> {
        self.wish.ask(client).await
    }

    /// Serves until the process dies at this point, or – if it does not come by, which is not `certain` – until there
    /// is nothing more to do.
    async fn until_killed(&self, crash: &str, certain: bool) {
        let process = self.serve(Some(crash));
        let asks = certain || self.wish.caller == Caller::AsksAgain;
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
            let is_done = if self.wish.workload.is_job {
                self.job_state().await.is_some_and(|state| state != "pending")
            } else {
                self.wish.look(client).await?.is_some_and(|seen| seen.status != "running")
            };
            if is_done {
                return Ok(());
            }
            // A job that is to be tried again has not ended.
            let end = |line: &str| match self.wish.workload.is_job {
                true => line.contains("job ended") && !line.contains("\"outcome\":\"retry\""),
                false => line.contains("turn ended"),
            };
            process.line_from(&mut from, end).await.ok_or(Lost)?;
            if self.wish.workload.is_job {
                return Ok(());
            }
        }
    }

    /// The state of the job, if there is one.
    async fn job_state(&self) -> Option<String> {
        let jobs = self.site.jobs().await;
        jobs["jobs"][0]["state"].as_str().map(str::to_owned)
    }

    /// The last, clean start, and all that must be true.
    pub(crate) async fn finish(&self, killed_at: Instant) -> Report {
        let accepted = self.is_accepted();
        let process = self.site.serve(&[]);
        let client = Client::new(&process.url().await.expect("a server"), self.token);
        let goes_on_alone = self.wish.caller == Caller::Leaves && accepted;
        if goes_on_alone {
            self.ended(&process, &client).await.expect("a server that stays");
        }
        let left_alone = Instant::now();
        let first = self.ask(&client).await.expect("an answer");
        self.ended(&process, &client).await.expect("a server that stays");
        let held = if goes_on_alone { left_alone } else { Instant::now() } - killed_at;
        let again = self.ask(&client).await.expect("an answer");
        let seen = self.wish.look(&client).await.expect("an answer");
        process.signal(Signal::TERM);
        let status = process.exit().await;

        let mut after = Aftermath {
            accepted,
            answers: vec![first, again],
            seen,
            file: self.wish.workload.effects.file(&self.site.path("main")),
            work: Value::Null,
            audit_problem: self.site.audit_problem().await,
        };
        if after.is_parked() || self.wish.workload.is_job {
            after.work = self.site.jobs().await;
        }
        let mut problems = self.wish.problems(&after);
        if !status.success() {
            problems.push(format!("stop: {status}"));
        }
        let passings = self.passings();
        let deaths = passings.iter().filter_map(|point| point.strip_prefix('!')).map(str::to_owned).collect();
        let parked = after.is_parked();
        if !problems.is_empty() {
            problems.push(format!("passed: {}", passings.join(" ")));
            problems.push(format!("transcript: {:#?}", after.seen.map(|seen| seen.transcript)));
            problems.push(format!("last process: {}", process.output()));
        }
        Report { deaths, parked, held, problems }
    }
}
