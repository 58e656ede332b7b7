//! The function `queue-worker`.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    queue_worker::serve(std::convert::identity).await
}
