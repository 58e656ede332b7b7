//! The binary `gateway-crash`: the function `gateway` with crash points around its ports.

use harness::crash_points::around_function;
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    gateway::serve(around_function).await
}
