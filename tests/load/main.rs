//! What a turn costs: `cargo run --release -p tests --bin load`.
//!
//! Four processes on loopback, so that CPU time and memory have an owner: a mock model, the floor, `reef serve`, and
//! this one, which sends the load. Everything is bounded in count; the whole run takes about a minute after the build.
//!
//! - [`model`]: the mock model, speaking both vendors' protocols.
//! - [`floor`]: the least that a durable turn can cost – pass the request on, append its bytes durably, answer.
//! - [`process`]: starting the others, and what the kernel says of them.
//! - [`client`]: requests over connections that are kept.
//! - [`scenarios`]: what is measured. - [`compare`]: the same load on two builds, `--against BINARY`. - [`report`]: the table.
//!
//! On a machine with few cores the mock and this process take their share of every second: throughput is compared
//! with the floor of the same run, and CPU time is that of the measured process alone.

mod client;
mod compare;
mod floor;
mod model;
mod process;
mod report;
mod scenarios;

use clap::{Args, Parser, Subcommand};
use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Any failure of the measurement: it ends the run, with its reason.
type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Measures what a turn costs, against a floor in the same run.
#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    options: Options,
}

/// How to measure.
#[derive(Args)]
struct Options {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// A few turns of everything: whether it works, not how fast it is.
    #[arg(long)]
    smoke: bool,
    /// Only this question.
    #[arg(long)]
    only: Option<scenarios::Question>,
    /// The `reef` to measure; without it, it is built first, in the profile of this program.
    #[arg(long)]
    reef: Option<PathBuf>,
    /// An earlier `reef`: instead of everything else, the same load on both in turn, and what has changed.
    #[arg(long, value_name = "BINARY", conflicts_with = "only")]
    against: Option<PathBuf>,
    /// Where temporary data goes: a disk, not memory, or a durable write costs nothing. Default: beside this program.
    #[arg(long)]
    data: Option<PathBuf>,
}

/// The other processes; this program starts itself as these.
#[derive(Subcommand)]
enum Part {
    /// The mock model.
    #[command(hide = true)]
    Model {
        /// Before each delta, in milliseconds.
        #[arg(long)]
        pause: u64,
        /// What it says.
        #[arg(long)]
        text: String,
    },
    /// The floor.
    #[command(hide = true)]
    Floor {
        /// Where the mock model listens.
        #[arg(long)]
        model: SocketAddr,
        /// Its database.
        #[arg(long)]
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let line = Line::parse();
    let ended = match line.part {
        Some(Part::Model { pause, text }) => model::run(pause, text),
        Some(Part::Floor { model, file }) => floor::run(model, &file),
        None => measure(&line.options),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<()> {
    let reef = match &options.reef {
        Some(path) => path.clone(),
        None => process::build()?,
    };
    let beside = std::env::current_exe()?.with_file_name("");
    let data =
        tempfile::Builder::new().prefix("load-").tempdir_in(options.data.as_ref().unwrap_or(&beside))?;
    let counts = if options.smoke { scenarios::Counts::smoke() } else { scenarios::Counts::full() };
    // One thread: the load takes as little as it can from the cores that everybody here shares.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = match &options.against {
        Some(before) => runtime.block_on(compare::run(&reef, before, data.path(), &counts))?,
        None => runtime.block_on(scenarios::run(&reef, data.path(), &counts, options.only))?,
    };
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{}", report.json())?;
    } else {
        write!(out, "{}", report.table())?;
    }
    Ok(())
}
