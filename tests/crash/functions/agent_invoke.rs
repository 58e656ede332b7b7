//! The binary `agent-invoke-crash`: the function `agent-invoke` with crash points around its ports.

use harness::crash_points::around_function;
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    agent_invoke::serve(around_function).await
}
