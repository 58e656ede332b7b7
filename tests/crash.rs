//! What a kill -9 must not do: the real binary on a real disk dies at every labelled point of a turn, is started again
//! and asked again with the same idempotency key – or is left alone.
//!
//! Afterwards: no accepted turn is lost; the same key has one answer; the model is shown nothing twice; an idempotent
//! effect is there once, and a `once` tool ran at most once – if that is not known, its turn is parked and listed; no
//! session is held for longer than its lease and five seconds; the audit trail's chains hold.

#![expect(clippy::print_stdout, reason = "the summary is for people")]

#[path = "crash/drain.rs"]
mod drain;
#[path = "crash/scenario.rs"]
mod scenario;
#[path = "crash/storm.rs"]
mod storm;
#[path = "crash/workload.rs"]
mod workload;

use drain::End;
use futures::StreamExt;
use futures::stream;
use harness::dynamo::{Dynamo, Tables};
use harness::vendor::{Options, Vendor};
use scenario::{Caller, Plan, Report};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use workload::{LEASE_SECONDS, Prepared, Workload};

const REEF: &str = env!("CARGO_BIN_EXE_reef-under-test");
const REEF_CRASH: &str = env!("CARGO_BIN_EXE_reef-crash");

/// Scenarios at once: their processes mostly wait for leases.
const AT_ONCE: usize = 16;

/// How long a session may be held after a kill.
const MOST_HELD: Duration = Duration::from_secs(LEASE_SECONDS + 5);

/// The same on DynamoDB. Emulated it shares the processors with all of the test's processes: this says that no session is
/// stuck, not how soon it goes on.
const MOST_HELD_EMULATED: Duration = Duration::from_secs(LEASE_SECONDS + 29);

/// Every place of the workload, each time with a client that asks again and with one that leaves.
fn single(prepared: &Prepared) -> Vec<(Vec<String>, Caller)> {
    let places = prepared.places().into_iter();
    places
        .flat_map(|place| [Caller::AsksAgain, Caller::Leaves].map(|caller| (vec![place.clone()], caller)))
        .collect()
}

/// Two or three kills in a row: the process dies again while it makes good the death before. Which places meet is
/// decided by steps through the list that have no common divisor with most lengths, so that all kinds of pairs come.
fn nested(prepared: &Prepared) -> Vec<(Vec<String>, Caller)> {
    let places = prepared.places();
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

async fn run(planned: (&Prepared, Plan)) -> (&Prepared, Plan, Report) {
    let (prepared, plan) = planned;
    let report = scenario::run(prepared, &plan).await;
    (prepared, plan, report)
}

/// Runs every scenario, on SQLite or on this server; how many processes were killed.
async fn kill_at_every_point(server: Option<&Arc<Dynamo>>) -> usize {
    let vendor = Vendor::with(Options { pause: Duration::from_millis(100), ..Options::default() }).await;
    let prepared: Vec<Prepared> = stream::iter(Workload::all())
        .map(|workload| async {
            let tables = match server {
                Some(server) => Some(Tables::new(server).await),
                None => None,
            };
            workload.prepare(REEF_CRASH, &vendor, tables).await
        })
        .buffered(4)
        .collect()
        .await;
    let mut plans = Vec::new();
    for prepared in &prepared {
        for (crashes, caller) in single(prepared).into_iter().chain(nested(prepared)) {
            plans.push((prepared, Plan { number: plans.len(), crashes, caller }));
        }
    }
    let (at_once, most_held) =
        if server.is_some() { (AT_ONCE / 2, MOST_HELD_EMULATED) } else { (AT_ONCE, MOST_HELD) };
    if server.is_some() {
        // Half of them, each place with one of its two callers: the emulator is slower than a disk.
        let half = |(_, plan): &(&Prepared, Plan)| (plan.number + plan.number / 2).is_multiple_of(2);
        plans.retain(half);
    }
    let reports: Vec<(&Prepared, Plan, Report)> =
        stream::iter(plans).map(run).buffer_unordered(at_once).collect().await;

    let mut kills: BTreeMap<&str, usize> = BTreeMap::new();
    let mut failed = Vec::new();
    for (prepared, plan, report) in &reports {
        for point in &report.deaths {
            *kills.entry(point).or_default() += 1;
        }
        let mut problems = report.problems.clone();
        if report.held > most_held {
            problems.push(format!("held: for {:?}", report.held));
        }
        if !problems.is_empty() {
            failed.push(format!(
                "{} {:?} {:?}\n  {}",
                prepared.workload.name,
                plan.caller,
                plan.crashes,
                problems.join("\n  ")
            ));
        }
    }
    let parked = reports.iter().filter(|(_, _, report)| report.parked).count();
    let longest = reports.iter().map(|(_, _, report)| report.held).max().unwrap_or_default();
    let total: usize = kills.values().sum();
    println!(
        "{} scenarios, {total} kills, {} failed, {parked} parked, held for at most {longest:?}; kills: {kills:?}",
        reports.len(),
        failed.len()
    );
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
    total
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_point_of_a_turn_loses_nothing_and_repeats_nothing() {
    let kills = Box::pin(kill_at_every_point(None)).await;
    assert!(kills >= 300, "{kills} kills");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_point_of_a_turn_on_dynamodb_loses_nothing_and_repeats_nothing() {
    let server = Dynamo::shared();
    let kills = Box::pin(kill_at_every_point(Some(&server))).await;
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
