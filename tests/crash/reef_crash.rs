//! The binary `reef-crash`: `reef` with crash points around its ports.

use harness::crash_points::CrashPoints;
use harness::dynamo::{TABLES_VARIABLE, stores_named};
use onprem::site::Outside;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    onprem::main(with_crash_points)
}

#[expect(clippy::panic, reason = "a test that names a point that does not exist must fail")]
fn with_crash_points(outside: Outside) -> Outside {
    let at = std::env::var("REEF_CRASH_AT").ok();
    let log = std::env::var_os("REEF_CRASH_LOG").map(PathBuf::from);
    let points =
        CrashPoints::new(at.as_deref(), log.as_deref()).unwrap_or_else(|problem| panic!("{problem}"));
    // The product keeps its data on disk; this suite has it keep them on DynamoDB (emulated), too.
    let stores = match std::env::var(TABLES_VARIABLE) {
        Ok(tables) => stores_named(&tables),
        Err(_) => outside.stores,
    };
    Outside {
        stores: points.stores(stores),
        models: points.models(outside.models),
        tools: points.tools(outside.tools),
    }
}
