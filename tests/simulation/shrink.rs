//! From a seed to a history, and from a failing history to a short one.

use super::dice::Dice;
use super::history::{Report, run};
use super::op::{self, Op};
use super::regions::Stage;
use std::fmt;
use std::sync::Arc;

/// A history that broke a promise.
#[derive(Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// The shortest list found that still fails.
    pub ops: Vec<Op>,
    /// What it broke.
    pub report: Report,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}:", self.seed)?;
        for op in &self.ops {
            writeln!(f, "    Op::{op:?},")?;
        }
        for line in &self.report {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

/// Plays the history of a seed, and shortens it if it fails.
///
/// # Errors
/// It failed.
pub fn try_seed(stage: &Arc<Stage>, seed: u64) -> Result<(), Box<Failure>> {
    let ops = op::history(&Dice::new(seed));
    let report = run(stage, seed, &ops);
    if report.is_empty() { Ok(()) } else { Err(Box::new(shrunk(stage, seed, ops, report))) }
}

/// Leaves out what is not needed to fail: larger parts first, then single operations, until none can be spared.
pub fn shrunk(stage: &Arc<Stage>, seed: u64, mut ops: Vec<Op>, mut report: Report) -> Failure {
    let mut part = ops.len() / 2;
    while part > 0 {
        let (mut from, mut spared) = (0, false);
        while from < ops.len() {
            let mut fewer = ops.clone();
            fewer.drain(from..(from + part).min(ops.len()));
            let said = run(stage, seed, &fewer);
            if said.is_empty() {
                from += part;
            } else {
                (ops, report, spared) = (fewer, said, true);
            }
        }
        if !spared || part > 1 {
            part /= 2;
        }
    }
    Failure { seed, ops, report }
}
