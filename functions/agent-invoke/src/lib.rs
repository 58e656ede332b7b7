//! The function `agent-invoke`: runs the turns that the gateway asks for, and streams their events.

use futures::StreamExt;
use lambda_runtime::{LambdaEvent, StreamResponse, service_fn};
use shared::agent::hop::Ask;
use shared::agent::relay::relay;
use shared::clock::Timestamp;
use shared::cloud::{self, HEARTBEAT, Role, Wrap};
use std::convert::Infallible;
use std::process::ExitCode;

/// Answers the gateway until the platform ends the process, or cannot be reached. `wrap` may put something around what it
/// meets outside the process: the identity for the product, fault points for the crash suite.
pub async fn serve(wrap: Wrap) -> ExitCode {
    let Some(cloud) = cloud::start(Role::Agents, &|name| std::env::var(name).ok(), wrap).await else {
        return ExitCode::FAILURE;
    };
    let cloud = &cloud;
    let answer = service_fn(|event: LambdaEvent<Ask>| async move {
        cloud.until(Timestamp::from_millis(i64::try_from(event.context.deadline).unwrap_or(i64::MAX)));
        let lines = relay(cloud.app.clone(), event.payload, cloud.work.clone(), HEARTBEAT);
        Ok::<_, Infallible>(StreamResponse::from(lines.map(Ok::<_, Infallible>)))
    });
    cloud::ended(lambda_runtime::run(answer).await)
}
