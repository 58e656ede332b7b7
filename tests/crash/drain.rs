//! A process that is told to stop while a turn is at work, and does not come to its end.

use crate::promises::{Caller, Report};
use crate::scenario::Scenario;
use crate::workload::{Ask, Workload};
use harness::client::Client;
use harness::process::{Process, Signal, Site};
use harness::vendor::{Gate, Step, Stream, Vendor};
use serde_json::json;
use tokio::time::Instant;

/// How a drain ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By a kill.
    Killed,
    /// By a second signal.
    Hurried,
    /// By the settings' `drainSeconds`.
    OutOfTime,
    /// Because the turn has ended.
    Finished,
}

/// Ends `times` processes in turn this way, each with the turn at work, then starts one that stays.
pub(crate) async fn run(program: &str, number: usize, end: End, caller: Caller, times: usize) -> Report {
    let vendor = Vendor::start().await;
    let workload = Workload::new("drain", Ask::chat("MARK"));
    let drain = if end == End::OutOfTime { 0.2 } else { 60.0 };
    let mut settings = workload.settings_on(&vendor);
    settings["gateway"] = json!({"drainSeconds": drain});
    let site = Site::new(program, &settings);
    let token = site.token("chat,sessions").await;
    let scenario = Scenario::new(&workload, site, &token, number, caller);
    let mut stopped_at = Instant::now();
    for start in 0..times {
        let gate = Gate::new();
        vendor.answer(Stream::text("so far ").then(Step::Hold(gate.clone())).then_text("so good"));
        let process = scenario.serve(None);
        let client = Client::new(&process.url().await.expect("a server"), &token);
        let asks = start == 0 || caller == Caller::AsksAgain;
        let asking = async { if asks { scenario.ask(&client).await.ok() } else { None } };
        let (answer, ()) = futures::join!(asking, stop(&process, &gate, end));
        if end == End::Finished {
            let reply = answer.expect("an answer while the process drains");
            assert_eq!(reply.json()["choices"][0]["message"]["content"], "so far so good");
        }
        stopped_at = Instant::now();
        // The vendor's side of a call that nobody reads any more.
        gate.open();
    }
    let mut report = scenario.finish(stopped_at).await;
    if end == End::Killed {
        report.deaths.extend(std::iter::repeat_n("drain".to_owned(), times));
    }
    report
}

async fn stop(process: &Process, gate: &Gate, end: End) {
    gate.reached().await;
    process.signal(Signal::TERM);
    process.line(|line| line.contains("stopping: no new work")).await.expect("the beginning of the drain");
    match end {
        End::Killed => process.signal(Signal::KILL),
        End::Hurried => process.signal(Signal::TERM),
        End::OutOfTime => {}
        End::Finished => gate.open(),
    }
    let status = process.exit().await;
    let clean = matches!(end, End::OutOfTime | End::Finished);
    assert_eq!(status.success(), clean, "{end:?}: {status}: {}", process.output());
}
