//! The function `gateway`: every HTTP surface behind an API gateway, answers streamed. Turns run in `agent-invoke`.

use shared::cloud::{self, Role, Wrap};
use shared::http;
use std::process::ExitCode;

/// Answers requests until the platform ends the process, or cannot be reached. `wrap` may put something around what it meets
/// outside the process: the identity for the product, fault points for the crash suite.
pub async fn serve(wrap: Wrap) -> ExitCode {
    let Some(cloud) = cloud::start(Role::Gateway, &|name| std::env::var(name).ok(), wrap).await else {
        return ExitCode::FAILURE;
    };
    cloud::ended(lambda_http::run_with_streaming_response(http::router(cloud.app)).await)
}
