//! What is measured, one function per question.

use crate::client::{Connection, Load, Round, Sessions, Target, median, quantile, send};
use crate::process::{Process, Reef, to_f64};
use crate::report::{Goal, Report};
use crate::{Result, client};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// What the mock model says: a short answer, a word per delta.
pub(crate) const REPLY: &str =
    "The budget is still open; the treasurer should prepare it, and half an hour will do.";

/// How often everything is done.
pub(crate) struct Counts {
    /// Starts on each kind of data directory.
    starts: usize,
    /// Rounds of load, floor and product in turn.
    rounds: usize,
    /// Turns of a round at 32 at once.
    turns: usize,
    /// Turns of a round one after the other.
    alone: usize,
    /// Turns that wait at the same time.
    waiting: usize,
    /// How long the slow model takes, in milliseconds.
    slow: u64,
    /// Messages in an old session.
    old: usize,
    /// Sessions of 10 messages per round.
    young_sessions: usize,
    /// Turns on each of them.
    young_turns: usize,
    /// Rounds in which two builds are compared.
    pub(crate) compared_rounds: usize,
    /// Turns of each build in such a round.
    pub(crate) compared_turns: usize,
}

impl Counts {
    /// For figures.
    pub(crate) const fn full() -> Self {
        Self {
            starts: 20,
            rounds: 5,
            turns: 3_000,
            alone: 300,
            waiting: 1_000,
            slow: 12_000,
            old: 10_000,
            young_sessions: 50,
            young_turns: 4,
            compared_rounds: 21,
            compared_turns: 2_000,
        }
    }

    /// To see that everything works.
    pub(crate) const fn smoke() -> Self {
        Self {
            starts: 1,
            rounds: 1,
            turns: 50,
            alone: 5,
            waiting: 10,
            slow: 300,
            old: 40,
            young_sessions: 2,
            young_turns: 2,
            compared_rounds: 2,
            compared_turns: 50,
        }
    }
}

/// What can be asked by itself.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Question {
    /// How long does a start take?
    Starts,
    /// How many turns a second, at what cost?
    Throughput,
    /// How long does a turn take?
    Latency,
    /// What does a turn cost in a session of 10,000 messages?
    OldSessions,
    /// How much memory do 1,000 turns take that wait?
    Waiting,
}

/// Measures everything, or answers only one question.
pub(crate) async fn run(
    reef: &Path,
    folder: &Path,
    counts: &Counts,
    only: Option<Question>,
) -> Result<Report> {
    let mut report = Report::default();
    let asked = |question| only.is_none_or(|only| only == question);
    let model = Process::part(&["model", "--pause", "0", "--text", REPLY]).await?;
    let product = Reef::new(reef, &folder.join("reef"), model.address)?;
    if asked(Question::Starts) {
        starts(&mut report, &product, counts).await?;
    }

    let (process, _) = product.serve("data").await?;
    let token = product.token("data").await?;
    let file = folder.join("floor.sqlite");
    let address = model.address.to_string();
    let floor = Process::part(&["floor", "--model", &address, "--file", &file.to_string_lossy()]).await?;
    report.add("idle memory after the start", process.rss()?, "MiB", Goal::AtMost(30.0));

    let measured = Measured {
        floor: Target::plain(floor.address),
        model: Target::plain(model.address),
        reef: Target::reef(process.address, token),
        floor_process: floor,
        reef_process: process,
    };
    if asked(Question::Throughput) {
        measured.throughput(&mut report, counts).await?;
    }
    if asked(Question::Latency) {
        measured.latency(&mut report, counts).await?;
    }
    report.add("idle memory after this load", measured.reef_process.rss()?, "MiB", Goal::None);
    report.add("idle memory of the floor after it", measured.floor_process.rss()?, "MiB", Goal::None);
    if asked(Question::OldSessions) {
        measured.old_sessions(&mut report, counts).await?;
    }
    measured.reef_process.stop().await?;

    if asked(Question::Waiting) {
        waiting(&mut report, reef, &folder.join("waiting"), counts).await?;
    }
    Ok(report)
}

/// From the start of the process to its first healthy answer.
async fn starts(report: &mut Report, reef: &Reef, counts: &Counts) -> Result<()> {
    let mut fresh = Vec::new();
    let mut existing = Vec::new();
    for number in 0..counts.starts {
        let data = format!("start-{number}");
        for times in [&mut fresh, &mut existing] {
            let (process, took) = reef.serve(&data).await?;
            times.push(took.as_secs_f64() * 1000.0);
            process.stop().await?;
        }
    }
    report.add("start to /healthz, new data directory", median(fresh), "ms", Goal::AtMost(50.0));
    report.add("start to /healthz, existing data directory", median(existing), "ms", Goal::AtMost(50.0));
    Ok(())
}

/// The processes of a run and the ways to them.
struct Measured {
    model: Target,
    floor: Target,
    floor_process: Process,
    reef: Target,
    reef_process: Process,
}

/// The figures of one kind of load, a figure per round.
#[derive(Default)]
struct Figures {
    per_second: Vec<f64>,
    cpu_ms: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Figures {
    async fn round(&mut self, process: &Process, target: &Target, load: Load) -> Result<()> {
        let before = process.cpu()?;
        let Round { elapsed, took } = send(target, load).await?;
        let cpu = process.cpu()?.saturating_sub(before);
        let turns = to_f64(load.turns as u64);
        self.per_second.push(turns / elapsed.as_secs_f64());
        self.cpu_ms.push(cpu.as_secs_f64() * 1000.0 / turns);
        self.p50.push(quantile(took.iter().map(|took| took.whole), 0.5));
        self.p99.push(quantile(took.iter().map(|took| took.whole), 0.99));
        Ok(())
    }

    /// Adds the medians. Returns turns per second.
    fn report(self, report: &mut Report, name: &str, cpu: Goal) -> f64 {
        let per_second = median(self.per_second);
        report.add(format!("{name}: turns per second"), per_second, "/s", Goal::None);
        report.add(format!("{name}: CPU per turn"), median(self.cpu_ms), "ms", cpu);
        report.add(format!("{name}: p50"), median(self.p50), "ms", Goal::None);
        report.add(format!("{name}: p99"), median(self.p99), "ms", Goal::None);
        per_second
    }
}

impl Measured {
    /// 32 turns at a time, floor and product in turn: the machine is not equally fast in every second.
    async fn throughput(&self, report: &mut Report, counts: &Counts) -> Result<()> {
        let load = |sessions| Load { turns: counts.turns, at_once: 32, stream: false, sessions };
        let streamed = Load { stream: true, ..load(Sessions::New) };
        let (mut floor, mut new, mut kept) = (Figures::default(), Figures::default(), Figures::default());
        let warm = |load: Load| Load { turns: counts.turns / 10 + 1, ..load };
        send(&self.floor, warm(streamed)).await?;
        send(&self.reef, warm(load(Sessions::New))).await?;
        for _ in 0..counts.rounds {
            floor.round(&self.floor_process, &self.floor, streamed).await?;
            new.round(&self.reef_process, &self.reef, load(Sessions::New)).await?;
            kept.round(&self.reef_process, &self.reef, load(Sessions::Kept)).await?;
        }
        let least = floor.report(report, "floor, 32 at once", Goal::None);
        let new = new.report(report, "new sessions, 32 at once", Goal::AtMost(0.5));
        let kept = kept.report(report, "32 kept sessions, 32 at once", Goal::None);
        report.add("new sessions against the floor", new / least * 100.0, "%", Goal::AtLeast(60.0));
        report.add("kept sessions against the floor", kept / least * 100.0, "%", Goal::None);
        Ok(())
    }

    /// One turn after the other: the model asked directly, through the floor, through the product.
    async fn latency(&self, report: &mut Report, counts: &Counts) -> Result<()> {
        let plain = Load { turns: counts.alone, at_once: 1, stream: false, sessions: Sessions::New };
        let streamed = Load { stream: true, ..plain };
        let (mut direct, mut floor, mut reef, mut first) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let middle = |round: &Round| quantile(round.took.iter().map(|took| took.whole), 0.5);
        for _ in 0..counts.rounds {
            direct.push(middle(&send(&self.model, streamed).await?));
            floor.push(middle(&send(&self.floor, streamed).await?));
            reef.push(middle(&send(&self.reef, plain).await?));
            let round = send(&self.reef, streamed).await?;
            first.push(quantile(round.took.iter().map(|took| took.first_byte), 0.5));
        }
        let (direct, floor, reef) = (median(direct), median(floor), median(reef));
        report.add("p50 of the model asked directly", direct, "ms", Goal::None);
        report.add("p50 of the floor, one at a time", floor, "ms", Goal::None);
        report.add("p50 of a turn, one at a time", reef, "ms", Goal::None);
        report.add("latency that a turn adds", reef - direct, "ms", Goal::AtMost(3.0));
        report.add("p50 to the first streamed byte", median(first), "ms", Goal::None);
        Ok(())
    }

    /// Turns in sessions of 10 messages and in one of 10,000, block by block.
    async fn old_sessions(&self, report: &mut Report, counts: &Counts) -> Result<()> {
        let mut connection = self.reef.connect().await?;
        let turns = counts.young_sessions * counts.young_turns;
        let (mut young, mut old) = (Block::default(), Block::default());
        for round in 0..counts.rounds {
            let sessions: Vec<_> =
                (0..counts.young_sessions).map(|at| format!("young-{round}-{at}")).collect();
            for session in &sessions {
                // With its answer, the session has 10 messages then.
                connection.ask(self.reef.question(8, false), Some(session)).await?;
            }
            young.measure(self, &mut connection, sessions.iter().cycle().take(turns)).await?;
            let session = format!("old-{round}");
            connection.ask(self.reef.question(counts.old - 2, false), Some(&session)).await?;
            old.measure(self, &mut connection, std::iter::repeat_n(&session, turns)).await?;
        }
        let count = to_f64((counts.rounds * turns) as u64);
        let cpu = |block: &Block| block.cpu.as_secs_f64() * 1000.0 / count;
        let middle = |block: &Block| quantile(block.took.iter().copied(), 0.5);
        let name = counts.old;
        report.add("CPU of a turn in a session of 10 messages", cpu(&young), "ms", Goal::None);
        report.add(format!("CPU of a turn in a session of {name}"), cpu(&old), "ms", Goal::None);
        report.add("… against the former", cpu(&old) / cpu(&young), "×", Goal::AtMost(1.2));
        report.add("p50 in a session of 10 messages", middle(&young), "ms", Goal::None);
        report.add(format!("p50 in a session of {name}"), middle(&old), "ms", Goal::None);
        report.add("… against the former", middle(&old) / middle(&young), "×", Goal::AtMost(1.2));
        Ok(())
    }
}

/// Turns one after the other on named sessions.
#[derive(Default)]
struct Block {
    cpu: Duration,
    took: Vec<Duration>,
}

impl Block {
    async fn measure(
        &mut self,
        measured: &Measured,
        connection: &mut Connection,
        sessions: impl Iterator<Item = &String>,
    ) -> Result<()> {
        let body = measured.reef.question(0, false);
        let before = measured.reef_process.cpu()?;
        for session in sessions {
            self.took.push(connection.ask(body.clone(), Some(session)).await?.whole);
        }
        self.cpu += measured.reef_process.cpu()?.saturating_sub(before);
        Ok(())
    }
}

/// Many turns that all wait for a slow model.
async fn waiting(report: &mut Report, reef: &Path, folder: &Path, counts: &Counts) -> Result<()> {
    let slow = Process::part(&["model", "--pause", &counts.slow.to_string(), "--text", "Done."]).await?;
    let product = Reef::new(reef, folder, slow.address)?;
    let (process, _) = product.serve("data").await?;
    let token = product.token("data").await?;
    let target = Target::reef(process.address, token);
    let load = Load { turns: counts.waiting, at_once: counts.waiting, stream: true, sessions: Sessions::New };
    let all_wait = async {
        let began = Instant::now();
        while seen(slow.address).await? < counts.waiting {
            if began.elapsed() > Duration::from_millis(counts.slow) {
                return Err("the turns did not all wait at the same time".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let peak = process.rss()?;
        Result::Ok(peak)
    };
    let (sent, memory) = futures::join!(client::send(&target, load), all_wait);
    sent?;
    let name = counts.waiting;
    report.add(format!("memory while {name} turns wait"), memory?, "MiB", Goal::AtMost(120.0));
    report.add("memory when they have ended", process.rss()?, "MiB", Goal::None);
    process.stop().await
}

/// How many requests a mock model has got.
async fn seen(address: SocketAddr) -> Result<usize> {
    let answer = reqwest::get(format!("http://{address}/seen")).await?.text().await?;
    Ok(answer.parse()?)
}
