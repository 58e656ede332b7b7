//! The function `gateway`.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    gateway::serve(std::convert::identity).await
}
