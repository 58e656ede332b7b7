//! The function `gateway`: every HTTP surface behind an API gateway, answers streamed. Turns run in `agent-invoke`.

use shared::cloud::{self, Role};
use shared::http;
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some(cloud) = cloud::start(Role::Gateway, &|name| std::env::var(name).ok()).await else {
        return ExitCode::FAILURE;
    };
    // Ends only when the platform ends the process, or cannot be reached.
    let ended = lambda_http::run_with_streaming_response(http::router(cloud.app)).await;
    cloud::ended(ended)
}
