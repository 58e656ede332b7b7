//! The binary `queue-worker-crash`: the function `queue-worker` with crash points around its ports.

use harness::crash_points::around_function;
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    queue_worker::serve(around_function).await
}
