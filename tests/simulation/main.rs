//! `cargo run -p tests --bin simulate -- --seed S --histories N`: more histories of three regions than the tests play.

use clap::Parser;
use harness::simulation::{Stage, try_seed};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Plays random histories of three regions until one breaks a promise.
#[derive(Debug, Parser)]
struct Args {
    /// The first history's seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many, each with the next seed.
    #[arg(long, default_value_t = 1_000)]
    histories: u64,
    /// Go on after a failure.
    #[arg(long)]
    all: bool,
}

#[expect(clippy::print_stdout, reason = "a command for people")]
fn main() -> ExitCode {
    let args = Args::parse();
    let (next, failed) = (AtomicU64::new(args.seed), AtomicBool::new(false));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let stage = Arc::new(Stage::default());
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    let stop = failed.load(Ordering::SeqCst) && !args.all;
                    if seed >= args.seed.saturating_add(args.histories) || stop {
                        break;
                    }
                    if let Err(failure) = try_seed(&stage, seed) {
                        failed.store(true, Ordering::SeqCst);
                        println!("{failure}");
                    }
                }
            });
        }
    });
    if failed.into_inner() {
        return ExitCode::FAILURE;
    }
    println!("{} histories from seed {}: nothing broken", args.histories, args.seed);
    ExitCode::SUCCESS
}
