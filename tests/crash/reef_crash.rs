//! The binary `reef-crash`: `reef` with crash points around its ports.

use harness::crash_points::CrashPoints;
use onprem::site::Outside;
use std::process::ExitCode;

fn main() -> ExitCode {
    onprem::main(with_crash_points)
}

fn with_crash_points(outside: Outside) -> Outside {
    let points = CrashPoints::from_environment();
    Outside {
        stores: points.stores(outside.stores),
        models: points.models(outside.models),
        tools: points.tools(outside.tools),
    }
}
