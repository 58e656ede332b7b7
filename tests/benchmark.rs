//! The benchmark, in small: that it works and measures everything, not what it measures.

use serde_json::Value;
use std::process::Command;

const REEF: &str = env!("CARGO_BIN_EXE_reef-under-test");

/// Runs it in small; each of these figures must be there.
fn measures(arguments: &[&str], figures: &[&str]) {
    let ended = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["--smoke", "--json", "--reef", REEF])
        .args(arguments)
        .output()
        .expect("the benchmark starts");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let rows: Vec<Value> = serde_json::from_slice(&ended.stdout).expect("a list of figures");
    for what in figures {
        let row = rows.iter().find(|row| row["what"].as_str().is_some_and(|named| named.starts_with(what)));
        let figure = row.and_then(|row| row["figure"].as_f64());
        let figure = figure.unwrap_or_else(|| panic!("no figure for {what}: {rows:?}"));
        assert!(figure.is_finite() && figure > 0.0, "{what}: {figure}");
    }
}

#[test]
fn the_benchmark_answers_each_of_its_questions() {
    let figures = [
        "start to /healthz, new data directory",
        "start to /healthz, existing data directory",
        "idle memory after the start",
        "new sessions against the floor",
        "latency that a turn adds",
        "… against the former",
        "memory while 10 turns wait",
    ];
    measures(&[], &figures);
}

#[test]
fn the_benchmark_compares_two_builds() {
    let figures = [
        "new sessions, 32 at once: CPU per turn, ratio",
        "new sessions, 32 at once: turns per second, ratio",
        "32 kept sessions, 32 at once: CPU per turn, ratio",
        "32 kept sessions, 32 at once: turns per second, ratio",
    ];
    measures(&["--against", REEF], &figures);
}
