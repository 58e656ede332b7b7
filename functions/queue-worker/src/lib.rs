//! The function `queue-worker`: runs the jobs that the queue's messages point to, and, on a schedule, finishes what was
//! interrupted.

use lambda_runtime::{LambdaEvent, service_fn};
use serde_json::Value;
use shared::clock::Timestamp;
use shared::cloud::{self, Role, Wrap, batch};
use std::process::ExitCode;

/// Answers events until the platform ends the process, or cannot be reached. `wrap` may put something around what it meets
/// outside the process: the identity for the product, fault points for the crash suite.
pub async fn serve(wrap: Wrap) -> ExitCode {
    let Some(cloud) = cloud::start(Role::Worker, &|name| std::env::var(name).ok(), wrap).await else {
        return ExitCode::FAILURE;
    };
    let cloud = &cloud;
    let answer = service_fn(|event: LambdaEvent<Value>| async move {
        cloud.until(Timestamp::from_millis(i64::try_from(event.context.deadline).unwrap_or(i64::MAX)));
        batch::run(cloud, event.payload).await.map_err(lambda_runtime::Error::from)
    });
    cloud::ended(lambda_runtime::run(answer).await)
}
