//! Scenarios on AWS, emulated: functions are killed at labelled points, and the platform starts others when they are needed.
//!
//! Each scenario has functions and tables of its own; all share one platform and its servers.

use crate::promises::{Aftermath, Caller, Report, Wish};
use crate::workload::{FILE, Workload, passings, places};
use harness::client::{Client, Reply};
use harness::cloud::{AGENT_INVOKE, Account, Deployment, GATEWAY, Programs, QUEUE_WORKER, REGION};
use harness::vendor::Vendor;
use serde_json::{Value, json};
use shared::clock::Timestamp;
use shared::id::TenantId;
use shared::job::{JobFilter, JobState};
use shared::session::SessionFilter;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// What can be killed.
const FUNCTIONS: [&str; 3] = [GATEWAY, AGENT_INVOKE, QUEUE_WORKER];

/// No turn takes so long, however often its functions are killed.
const LIMIT: Duration = Duration::from_secs(60);

/// A client whose answer is lost more often than this gives up.
const MOST_ASKINGS: usize = 10;

/// Between two events of the schedule; on AWS a minute.
const SCHEDULE: Duration = Duration::from_millis(250);

/// Kills an instance of a function before it has accepted anything.
const AT_ONCE: &str = "begin.before:1";

/// What all scenarios share.
pub(crate) struct Ground {
    pub(crate) account: Account,
    pub(crate) vendor: Vendor,
    pub(crate) programs: Programs,
}

/// Where an instance of a function dies: `POINT:N`.
#[derive(Clone)]
pub(crate) struct Crash {
    function: &'static str,
    place: String,
}

impl fmt::Debug for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.function, self.place)
    }
}

/// A scenario to be run. Of each function, the first instance dies at its first crash, the next at its second, and later
/// ones live; its first crash is certain to be passed.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) number: usize,
    pub(crate) crashes: Vec<Crash>,
    pub(crate) caller: Caller,
}

/// A workload, and the places that its functions pass when nothing disturbs them.
pub(crate) struct Prepared {
    pub(crate) workload: Workload,
    places: Vec<Crash>,
}

/// Runs the workload undisturbed.
pub(crate) async fn prepare(ground: &Ground, workload: Workload) -> Prepared {
    let (mut own, suffix) = (workload.clone(), format!("-{}", workload.name));
    let stage = Stage::new(ground, &mut own, &suffix).await;
    stage.arm(&[]);
    let wish = Wish::new(&own, 0, Caller::AsksAgain);
    let reply = wish.ask(&stage.client).await.expect("an answer");
    assert!(wish.is_answer(&reply), "{}: {}", own.name, reply.body);
    if own.is_job {
        stage.job_ended().await;
    }
    let of =
        |function| places(&stage.passings(function)).into_iter().map(move |place| Crash { function, place });
    let places = FUNCTIONS.into_iter().flat_map(of).collect();
    Prepared { workload, places }
}

impl Prepared {
    /// What to run: kills at every place, and several in a row.
    pub(crate) fn plans(&self) -> Vec<(Vec<Crash>, Caller)> {
        let single = self.places.iter().enumerate().flat_map(|(at, crash)| {
            let callers = callers(at, crash).into_iter();
            callers.map(|caller| match (crash.function, caller) {
                (AGENT_INVOKE, Caller::Leaves) => (given_up(crash), caller),
                _ => (vec![crash.clone()], caller),
            })
        });
        single.chain((0..8).map(|at| self.nested(at))).collect()
    }

    /// Two or three kills in a row: whoever makes good a death dies of another one. Which places meet is decided by steps
    /// through the list that have no common divisor with most lengths, so that all kinds of pairs come.
    fn nested(&self, at: usize) -> (Vec<Crash>, Caller) {
        let runner = if self.workload.is_job { QUEUE_WORKER } else { AGENT_INVOKE };
        let of_runner: Vec<_> = self.places.iter().filter(|crash| crash.function == runner).collect();
        // What a resumption passes: its first passings.
        let early: Vec<_> = of_runner.iter().filter(|crash| crash.place.ends_with(":1")).collect();
        let first = of_runner[(at * 5 + 1) % of_runner.len()].clone();
        let again = |at: usize| (*early[at % early.len()]).clone();
        if !self.workload.is_job && at.is_multiple_of(2) {
            // The worker goes on with the turn, and dies of it, too.
            let by_worker = |at: usize| Crash { function: QUEUE_WORKER, ..again(at) };
            let mut crashes = given_up(&first);
            crashes.extend([by_worker(at * 7 + 3), by_worker(at * 3 + 2)]);
            return (crashes, Caller::Leaves);
        }
        let mut crashes = vec![first, again(at * 7 + 3), again(at * 3 + 2)];
        // The gateway dies along with it.
        let of_gateway: Vec<_> = self.places.iter().filter(|crash| crash.function == GATEWAY).collect();
        crashes.push(of_gateway[at % of_gateway.len()].clone());
        (crashes, Caller::AsksAgain)
    }
}

/// A point is met for the first time with both callers, later with one of them. The worker's caller has long been answered.
fn callers(at: usize, crash: &Crash) -> Vec<Caller> {
    let mut callers = vec![Caller::AsksAgain, Caller::Leaves];
    if crash.function == QUEUE_WORKER || !crash.place.ends_with(":1") {
        callers.remove(at % 2);
    }
    callers
}

/// A function dies here, and again whenever the gateway asks it to go on, which is twice: the turn is left to the schedule.
fn given_up(crash: &Crash) -> Vec<Crash> {
    let at_once = || Crash { function: crash.function, place: AT_ONCE.to_owned() };
    vec![crash.clone(), at_once(), at_once()]
}

/// Runs a scenario.
pub(crate) async fn run(ground: &Ground, workload: &Workload, plan: &Plan) -> Report {
    let mut workload = workload.clone();
    let stage = Stage::new(ground, &mut workload, &format!("-{}", plan.number)).await;
    let wish = Wish::new(&workload, plan.number, plan.caller);
    stage.arm(&plan.crashes);
    let report = timeout(LIMIT, stage.play(&wish)).await.unwrap_or_else(|_| {
        let stuck = format!("stuck: not over after {LIMIT:?}");
        Report { problems: vec![stuck], ..Report::default() }
    });
    let deaths = FUNCTIONS.into_iter().flat_map(|function| stage.deaths(function));
    let mut report = Report { deaths: deaths.collect(), ..report };
    if let Some(first) = plan.crashes.first().filter(|first| !report.deaths.contains(&first.point())) {
        report.problems.push(format!("killed: nothing died at {}", first.point()));
    }
    if !report.problems.is_empty() {
        for function in FUNCTIONS {
            report.problems.push(format!("{function} passed: {}", stage.passings(function).join(" ")));
        }
        report.problems.push(format!("said: {}", stage.deployment.unusual()));
    }
    report
}

impl Crash {
    /// The point, without which passing it is.
    fn point(&self) -> String {
        let point = self.place.split(':').next().unwrap_or_default();
        format!("{} {point}", self.function)
    }
}

/// The functions of one scenario.
struct Stage {
    deployment: Deployment,
    client: Client,
    suffix: String,
}

impl Stage {
    /// Deploys them, and does what comes before the turn.
    async fn new(ground: &Ground, workload: &mut Workload, suffix: &str) -> Self {
        let settings = workload.settings(&ground.vendor);
        let deployment = ground.account.deploy(ground.programs, &settings, &[REGION], suffix).await;
        let client = Client::new(deployment.front.url(), &deployment.admin().await);
        workload.prelude(&client).await;
        Self { deployment, client, suffix: suffix.to_owned() }
    }

    fn name(&self, function: &str) -> String {
        format!("{function}{}", self.suffix)
    }

    /// Where a function writes down what it passes.
    fn log(&self, function: &str) -> PathBuf {
        self.deployment.layer().join(format!("passings-{function}"))
    }

    /// What a function has passed so far; a fatal point is told apart by `!`.
    fn passings(&self, function: &str) -> Vec<String> {
        passings(&self.log(function))
    }

    /// Where instances of a function have died.
    fn deaths(&self, function: &'static str) -> Vec<String> {
        let passings = self.passings(function);
        let fatal = passings.iter().filter_map(|point| point.strip_prefix('!'));
        fatal.map(|point| format!("{function} {point}")).collect()
    }

    /// From now on the functions write down what they pass, and die there.
    fn arm(&self, crashes: &[Crash]) {
        for function in FUNCTIONS {
            let places = crashes.iter().filter(|crash| crash.function == function);
            let places: Vec<_> = places.map(|crash| crash.place.clone()).collect();
            let log = self.log(function);
            self.deployment.change(&self.name(function), |function| {
                let function = function.env("REEF_CRASH_LOG", log.to_str().expect("a path"));
                function.env_in_turn("REEF_CRASH_AT", places)
            });
        }
    }

    /// When the last instance died that nobody had replaced.
    fn last_death(&self) -> Option<Instant> {
        let platform = &self.deployment.platform;
        FUNCTIONS.into_iter().flat_map(|function| platform.deaths(&self.name(function))).max()
    }

    /// Deploys the functions again, without crash points.
    fn disarm(&self) {
        FUNCTIONS
            .into_iter()
            .for_each(|function| self.deployment.change(&self.name(function), |function| function));
    }

    /// Has the wish asked for while functions die, until it is fulfilled; then looks with functions that do not die.
    async fn play(&self, wish: &Wish<'_>) -> Report {
        let mut answers = Vec::new();
        match wish.caller {
            Caller::AsksAgain => answers.extend(self.until_answered(wish).await),
            Caller::Leaves => wish.ask_and_leave(&self.client).await,
        }
        let has_answer = !answers.is_empty();
        let passings: Vec<_> = FUNCTIONS.into_iter().flat_map(|function| self.passings(function)).collect();
        let accepted = wish.is_accepted(&passings);
        if accepted && wish.workload.is_job {
            self.job_ended().await;
        } else if accepted && wish.caller == Caller::Leaves {
            self.swept().await;
        }
        let ended_at = Instant::now();
        let held = self.last_death().map(|died_at| ended_at - died_at).unwrap_or_default();

        self.disarm();
        answers.extend(self.until_answered(wish).await);
        if wish.workload.is_job {
            self.job_ended().await;
        }
        answers.extend(wish.ask(&self.client).await);
        let after = Aftermath {
            accepted,
            answers,
            seen: wish.look(&self.client).await.expect("an answer"),
            file: self.file().await,
            work: self.work().await,
            audit_problem: self.audit_problem().await,
        };
        let mut problems = wish.problems(&after);
        if wish.caller == Caller::AsksAgain && !has_answer {
            problems.push(format!("answer: none after {MOST_ASKINGS} times"));
        }
        if !problems.is_empty() {
            let transcript = after.seen.as_ref().map(|seen| &seen.transcript);
            problems.push(format!("transcript: {transcript:#?}"));
        }
        Report { deaths: Vec::new(), parked: after.is_parked(), held, problems }
    }

    /// Asks until there is an answer.
    async fn until_answered(&self, wish: &Wish<'_>) -> Option<Reply> {
        for _ in 0..MOST_ASKINGS {
            if let Ok(reply) = wish.ask(&self.client).await
                && wish.is_answer(&reply)
            {
                return Some(reply);
            }
        }
        None
    }

    /// Brings the queue's messages until the job has ended.
    async fn job_ended(&self) {
        let pending = JobFilter { id: None, state: Some(JobState::Pending), limit: 1 };
        let jobs = &self.deployment.stores.jobs;
        while !jobs.list(&TenantId::single(), &pending, Timestamp::EPOCH).await.expect("the jobs").is_empty()
        {
            self.deployment.poller.poll().await;
        }
    }

    /// Brings the schedule's event until no session is held.
    async fn swept(&self) {
        let event =
            json!({"source": "aws.scheduler", "detail-type": "Scheduled Event", "detail": {}}).to_string();
        let mut schedule = tokio::time::interval(SCHEDULE);
        let filter = SessionFilter { limit: 10, ..SessionFilter::default() };
        loop {
            let sessions = self.deployment.stores.index.list(&TenantId::single(), &filter).await;
            if sessions.expect("the sessions").iter().all(|session| session.holder.is_none()) {
                return;
            }
            schedule.tick().await;
            // Whether the worker has lived to answer does not matter: the schedule comes again.
            let _ = self.deployment.platform.answer(&self.name(QUEUE_WORKER), event.clone()).await;
        }
    }

    /// The file that the turn's tools have written.
    async fn file(&self) -> String {
        let objects = self.deployment.bucket.objects().await;
        objects.get(&format!("agents/main/main/{FILE}")).cloned().unwrap_or_default()
    }

    async fn work(&self) -> Value {
        let (stores, tenant) = (&self.deployment.stores, TenantId::single());
        let jobs = JobFilter { limit: 50, ..JobFilter::default() };
        let jobs = stores.jobs.list(&tenant, &jobs, Timestamp::EPOCH).await.expect("the jobs");
        let jobs: Vec<_> = jobs.iter().map(|job| json!({"state": job.state})).collect();
        let parked = stores.index.parked(&tenant, 50).await.expect("the parked turns");
        let parked: Vec<_> = parked.iter().map(|turn| json!({"turn": turn.id})).collect();
        json!({"jobs": jobs, "parked": parked})
    }

    async fn audit_problem(&self) -> Option<String> {
        let verdict = self.deployment.stores.audit.verify(&TenantId::single()).await.expect("a verdict");
        (!verdict.broken.is_empty() || verdict.rows == 0).then(|| format!("{verdict:?}"))
    }
}
