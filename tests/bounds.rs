//! Every bound, one by one: at it all is well, one beyond it is answered as its row says, and the process stays within
//! the memory that the case states.
//!
//! The rows are `Config::bounds`, the cases `bounds/cases.rs`. A new row needs a case there, and its Japanese words in
//! `bounds/pages.rs`. The pages `docs/limits.md` and `docs/ja/limits.md` are written anew by
//! `REEF_WRITE_DOCS=1 cargo nextest run -p tests --test bounds pages`.

#![expect(clippy::print_stdout, reason = "how each row is shown to be true is for people")]

#[path = "bounds/cases.rs"]
mod cases;
#[path = "bounds/flows.rs"]
mod flows;
#[path = "bounds/ground.rs"]
mod ground;
#[path = "bounds/pages.rs"]
mod pages;
#[path = "bounds/quoted.rs"]
mod quoted;

use cases::{Case, case};
use ground::{Answer, Ground, stated};
use serde_json::Value;
use std::path::Path;
use tokio::io::AsyncReadExt;
use tokio::time::{Duration, Instant, timeout};

/// What a row's case may add to the memory of an idle server, unless it says more: twice what a request may bring at
/// most, read and parsed.
const PEAK: u64 = 300 * 1024 * 1024;

/// What is wrong with the row, if anything is.
async fn problem(ground: &Ground, row: &Value) -> Option<String> {
    let name = row["name"].as_str().unwrap_or_default();
    let value = usize::try_from(row["value"].as_u64().unwrap_or_default()).expect("a size");
    let beyond = row["beyond"].as_str().unwrap_or_default();
    let Some(case) = case(name, value) else {
        return Some(format!("{name}: add a case to tests/bounds/cases.rs"));
    };
    println!("{name}: {}", case.how());
    ground.server.forget_peak();
    let wrong = match case {
        Case::Asks(at, past) => {
            let (at, past) = (ground.ask(at).await, ground.ask(past).await);
            answers_wrong(&at, &past, beyond)
        }
        Case::Raw(at, past) => {
            let (at, past) = (ground.raw(&at).await, ground.raw(&past).await);
            answers_wrong(&at, &past, beyond)
        }
        Case::Flow(flow) => flow(ground, value).await.err(),
        Case::Elsewhere(file, test, _) => elsewhere(file, test),
        Case::Library(_) => None,
    };
    let peak = ground.server.peak_memory();
    println!("  at most {} MiB", peak >> 20);
    let wrong = wrong.or_else(|| (peak > PEAK).then(|| format!("its peak were {} MiB", peak >> 20)));
    wrong.map(|wrong| format!("{name} ({value}): {wrong}"))
}

/// At the bound the answer is good, one beyond it is what the row says.
fn answers_wrong(at: &Answer, past: &Answer, beyond: &str) -> Option<String> {
    let (status, code) = stated(beyond)?;
    if at.status >= 300 {
        return Some(format!("at the bound: {} {}", at.status, at.text));
    }
    (past.status != status || past.code() != code)
        .then(|| format!("beyond it: {} {}, stated is {beyond}", past.status, past.text))
}

/// The test must be there: a row does not lean on one that was renamed.
fn elsewhere(file: &str, test: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    (!text.contains(&format!("fn {test}("))).then(|| format!("{file} has no test {test}"))
}

#[tokio::test]
async fn at_each_bound_all_is_well_and_beyond_it_comes_what_its_row_says() {
    let ground = Ground::new().await;
    let rows = ground.rows().await;
    assert!(rows.len() > 70, "{} rows", rows.len());
    let mut problems = Vec::new();
    for row in &rows {
        problems.extend(problem(&ground, row).await);
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_closes_the_connection() {
    let ground = Ground::new().await;
    let mut socket = ground.connect().await;
    tokio::io::AsyncWriteExt::write_all(&mut socket, b"GET /healthz HTTP/1.1\r\nHost").await.expect("sent");
    let begun = Instant::now();
    let mut rest = Vec::new();
    let closed = timeout(shared::bounds::HEAD_TIMEOUT * 2, socket.read_to_end(&mut rest)).await;
    assert!(closed.is_ok(), "the connection is still open");
    assert!(
        begun.elapsed() >= shared::bounds::HEAD_TIMEOUT - Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}
