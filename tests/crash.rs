//! What a kill -9 must not do: the real binary on a real disk dies at every labelled point of a turn, is started again
//! and asked again with the same idempotency key – or is left alone. The same with the three functions, each of which dies at
//! every point that it passes, on AWS (emulated).
//!
//! Afterwards: no accepted turn is lost; the same key has one answer; the model is shown nothing twice; an idempotent
//! effect is there once, and a `once` tool ran at most once – if that is not known, its turn is parked and listed; no
//! session is held for longer than its lease and five seconds; the audit trail's chains hold.

#![expect(clippy::print_stdout, reason = "the summary is for people")]

#[path = "crash/drain.rs"]
mod drain;
#[path = "crash/functions.rs"]
mod functions;
#[path = "crash/promises.rs"]
mod promises;
#[path = "crash/scenario.rs"]
mod scenario;
#[path = "crash/storm.rs"]
mod storm;
#[path = "crash/workload.rs"]
mod workload;

use drain::End;
use functions::Ground;
use futures::StreamExt;
use futures::stream;
use harness::cloud::{Account, Programs};
use harness::vendor::{Options, Vendor};
use promises::{Caller, Report, judge};
use scenario::Plan;
use std::time::Duration;
use workload::{LEASE_SECONDS, Prepared, Workload};

const REEF: &str = env!("CARGO_BIN_EXE_reef-under-test");
const REEF_CRASH: &str = env!("CARGO_BIN_EXE_reef-crash");
const FUNCTIONS_CRASH: Programs = Programs {
    gateway: env!("CARGO_BIN_EXE_gateway-crash"),
    agent_invoke: env!("CARGO_BIN_EXE_agent-invoke-crash"),
    queue_worker: env!("CARGO_BIN_EXE_queue-worker-crash"),
};

/// Scenarios at once: their processes mostly wait for leases.
const AT_ONCE: usize = 16;

/// How long a session may be held after a kill.
const MOST_HELD: Duration = Duration::from_secs(LEASE_SECONDS + 5);

/// The same on AWS. Its emulators share the processors with all of the test's processes: this says that no session is
/// stuck, not how soon it goes on.
const MOST_HELD_EMULATED: Duration = Duration::from_secs(LEASE_SECONDS + 29);

/// A vendor that is slow.
async fn vendor() -> Vendor {
    Vendor::with(Options { pause: Duration::from_millis(100), ..Options::default() }).await
}

/// Every place of the workload, each time with a client that asks again and with one that leaves.
fn single(prepared: &Prepared) -> Vec<(Vec<String>, Caller)> {
    let places = prepared.places.iter();
    places
        .flat_map(|place| [Caller::AsksAgain, Caller::Leaves].map(|caller| (vec![place.clone()], caller)))
        .collect()
}

/// Two or three kills in a row: the process dies again while it makes good the death before. Which places meet is
/// decided by steps through the list that have no common divisor with most lengths, so that all kinds of pairs come.
fn nested(prepared: &Prepared) -> Vec<(Vec<String>, Caller)> {
    let places = &prepared.places;
    let place = |at: usize| places[at % places.len()].clone();
    // What a resumption passes: its first passings.
    let early: Vec<String> = places.iter().filter(|place| place.ends_with(":1")).cloned().collect();
    let again = |at: usize| early[at % early.len()].clone();
    let plan = |at: usize| {
        let mut crashes = vec![place(at * 5 + 1), again(at * 7 + 3)];
        if at % 2 == 1 {
            crashes.push(again(at * 3 + 2));
        }
        (crashes, if at.is_multiple_of(3) { Caller::Leaves } else { Caller::AsksAgain })
    };
    (0..8).map(plan).collect()
}

/// Runs every scenario of `reef`; how many processes were killed.
async fn kill_reef_at_every_point() -> usize {
    let vendor = vendor().await;
    let prepared = stream::iter(Workload::all()).map(|workload| workload.prepare(REEF_CRASH, &vendor));
    let prepared: Vec<Prepared> = prepared.buffered(4).collect().await;
    let mut plans = Vec::new();
    for prepared in &prepared {
        for (crashes, caller) in single(prepared).into_iter().chain(nested(prepared)) {
            plans.push((prepared, Plan { number: plans.len(), crashes, caller }));
        }
    }
    let run = |(prepared, plan): (_, Plan)| async move {
        let report = scenario::run(prepared, &plan).await;
        (format!("{} {:?} {:?}", prepared.workload.name, plan.caller, plan.crashes), report)
    };
    let reports: Vec<(String, Report)> =
        stream::iter(plans).map(run).buffer_unordered(AT_ONCE).collect().await;
    judge(&reports, MOST_HELD)
}

/// Runs every scenario of the functions; how many instances were killed.
async fn kill_functions_at_every_point() -> usize {
    let ground = Ground { account: Account::open().await, vendor: vendor().await, programs: FUNCTIONS_CRASH };
    let ground = &ground;
    let prepared = stream::iter(Workload::all()).map(|workload| functions::prepare(ground, workload));
    let prepared: Vec<functions::Prepared> = prepared.buffered(4).collect().await;
    let mut plans = Vec::new();
    for prepared in &prepared {
        for (crashes, caller) in prepared.plans() {
            plans.push((&prepared.workload, functions::Plan { number: plans.len(), crashes, caller }));
        }
    }
    let run = |(workload, plan): (_, functions::Plan)| async move {
        let report = functions::run(ground, workload, &plan).await;
        (format!("{} {:?} {:?}", workload.name, plan.caller, plan.crashes), report)
    };
    let reports: Vec<(String, Report)> =
        stream::iter(plans).map(run).buffer_unordered(AT_ONCE).collect().await;
    judge(&reports, MOST_HELD_EMULATED)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_point_of_a_turn_loses_nothing_and_repeats_nothing() {
    let kills = Box::pin(kill_reef_at_every_point()).await;
    assert!(kills >= 300, "{kills} kills");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_of_a_function_at_any_point_of_a_turn_loses_nothing_and_repeats_nothing() {
    let kills = Box::pin(kill_functions_at_every_point()).await;
    assert!(kills >= 300, "{kills} kills");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_is_cut_short_leaves_a_turn_that_goes_on() {
    let mut plans = Vec::new();
    for caller in [Caller::AsksAgain, Caller::Leaves] {
        let ends =
            [(End::Killed, 1), (End::Killed, 2), (End::Killed, 3), (End::Hurried, 1), (End::Hurried, 2)];
        let ends = ends.into_iter().chain([(End::OutOfTime, 1), (End::OutOfTime, 2), (End::Finished, 1)]);
        plans.extend(ends.map(|(end, times)| (end, caller, times)));
    }
    let run = |(number, (end, caller, times)): (usize, (End, Caller, usize))| async move {
        let report = drain::run(REEF_CRASH, number, end, caller, times).await;
        (format!("{end:?} {caller:?} {times}"), report)
    };
    let reports: Vec<(String, Report)> =
        stream::iter(plans.into_iter().enumerate()).map(run).buffer_unordered(AT_ONCE).collect().await;
    let mut failed = Vec::new();
    for (name, report) in &reports {
        let mut problems = report.problems.clone();
        if report.held > MOST_HELD {
            problems.push(format!("held: for {:?}", report.held));
        }
        if !problems.is_empty() || report.parked {
            failed.push(format!("{name}\n  {}", problems.join("\n  ")));
        }
    }
    let kills: usize = reports.iter().map(|(_, report)| report.deaths.len()).sum();
    let longest = reports.iter().map(|(_, report)| report.held).max().unwrap_or_default();
    println!(
        "{} drains, {kills} kills, {} failed, held for at most {longest:?}",
        reports.len(),
        failed.len()
    );
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_loses_nothing_and_repeats_nothing() {
    let storm = Box::pin(storm::run(REEF)).await;
    println!("{} turns, {} kills, {} parked", storm.turns, storm.kills, storm.parked);
    assert!(storm.problems.is_empty(), "{}", storm.problems.join("\n"));
    assert!(storm.kills >= 10, "{} kills", storm.kills);
}
