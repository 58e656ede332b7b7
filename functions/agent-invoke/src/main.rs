//! The function `agent-invoke`.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    agent_invoke::serve(std::convert::identity).await
}
