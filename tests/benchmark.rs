//! The benchmark, in small: that it works and measures everything, not what it measures.

use serde_json::Value;
use std::process::Command;

#[test]
fn the_benchmark_answers_each_of_its_questions() {
    let ended = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["--smoke", "--json", "--reef", env!("CARGO_BIN_EXE_reef-under-test")])
        .output()
        .expect("the benchmark starts");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let rows: Vec<Value> = serde_json::from_slice(&ended.stdout).expect("a list of figures");
    let figure = |what: &str| {
        let row = rows.iter().find(|row| row["what"].as_str().is_some_and(|named| named.starts_with(what)));
        row.and_then(|row| row["figure"].as_f64()).unwrap_or_else(|| panic!("no figure for {what}: {rows:?}"))
    };
    for what in [
        "start to /healthz, new data directory",
        "start to /healthz, existing data directory",
        "idle memory after the start",
        "new sessions against the floor",
        "latency that a turn adds",
        "… against the former",
        "memory while 10 turns wait",
    ] {
        let figure = figure(what);
        assert!(figure.is_finite() && figure > 0.0, "{what}: {figure}");
    }
}
