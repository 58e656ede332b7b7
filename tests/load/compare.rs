//! Two builds of the product in one run: the same load on both in turn, so that the machine's moods meet both alike.
//!
//! Each round asks one and then the other, the next round the other way round, and only figures of one round are
//! compared with each other. What counts is the middle of the rounds' ratios: a round that something else on the machine
//! disturbed is then one round. A build compared with itself says how far ratios are from 1 without a reason.

use crate::Result;
use crate::client::{Load, Sessions, Target, median, send};
use crate::process::{Process, Reef, to_f64};
use crate::report::{Goal, Report};
use crate::scenarios::{Counts, REPLY};
use std::path::Path;

/// How much more CPU time a turn may cost than before, and how many fewer turns a second there may be.
const MARGIN: f64 = 0.03;

/// A build at work.
struct Build {
    process: Process,
    target: Target,
}

impl Build {
    async fn start(program: &Path, folder: &Path, model: &Process) -> Result<Self> {
        let product = Reef::new(program, folder, model.address)?;
        let (process, _) = product.serve("data").await?;
        let token = product.token("data").await?;
        let target = Target::reef(process.address, token);
        Ok(Self { process, target })
    }

    /// Sends a round of load. Returns the CPU time of a turn in milliseconds, and turns per second.
    async fn round(&self, load: Load) -> Result<(f64, f64)> {
        let before = self.process.cpu()?;
        let round = send(&self.target, load).await?;
        let cpu = self.process.cpu()?.saturating_sub(before);
        let turns = to_f64(load.turns as u64);
        Ok((cpu.as_secs_f64() * 1000.0 / turns, turns / round.elapsed.as_secs_f64()))
    }
}

/// The figures of one kind of load, a figure per round.
#[derive(Default)]
struct Pairs {
    cpu: Vec<(f64, f64)>,
    per_second: Vec<(f64, f64)>,
}

impl Pairs {
    fn report(self, report: &mut Report, name: &str) {
        let figures = [
            ("CPU per turn", "ms", self.cpu, Goal::AtMost(1.0 + MARGIN)),
            ("turns per second", "/s", self.per_second, Goal::AtLeast(1.0 - MARGIN)),
        ];
        for (what, unit, pairs, goal) in figures {
            let before = median(pairs.iter().map(|pair| pair.0).collect());
            let now = median(pairs.iter().map(|pair| pair.1).collect());
            let ratio = median(pairs.iter().map(|pair| pair.1 / pair.0).collect());
            report.add(format!("{name}: {what}, before"), before, unit, Goal::None);
            report.add(format!("{name}: {what}, now"), now, unit, Goal::None);
            report.add(format!("{name}: {what}, ratio"), ratio, "×", goal);
        }
    }
}

/// Compares this build with an earlier one.
pub(crate) async fn run(now: &Path, before: &Path, folder: &Path, counts: &Counts) -> Result<Report> {
    let model = Process::part(&["model", "--pause", "0", "--text", REPLY]).await?;
    let before = Build::start(before, &folder.join("before"), &model).await?;
    let now = Build::start(now, &folder.join("now"), &model).await?;
    let load = |sessions| Load { turns: counts.compared_turns, at_once: 32, stream: false, sessions };
    let (mut new, mut kept) = (Pairs::default(), Pairs::default());
    for build in [&before, &now] {
        build.round(load(Sessions::New)).await?;
        build.round(load(Sessions::Kept)).await?;
    }
    for round in 0..counts.compared_rounds {
        for (pairs, sessions) in [(&mut new, Sessions::New), (&mut kept, Sessions::Kept)] {
            let load = load(sessions);
            let (former, latter) = if round % 2 == 0 {
                let former = before.round(load).await?;
                (former, now.round(load).await?)
            } else {
                let latter = now.round(load).await?;
                (before.round(load).await?, latter)
            };
            pairs.cpu.push((former.0, latter.0));
            pairs.per_second.push((former.1, latter.1));
        }
    }
    let mut report = Report::default();
    new.report(&mut report, "new sessions, 32 at once");
    kept.report(&mut report, "32 kept sessions, 32 at once");
    report.add("memory after this load, before", before.process.rss()?, "MiB", Goal::None);
    report.add("memory after this load, now", now.process.rss()?, "MiB", Goal::None);
    before.process.stop().await?;
    now.process.stop().await?;
    Ok(report)
}
