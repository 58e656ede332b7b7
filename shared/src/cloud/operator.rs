//! What an operator's commands work on: the stores of an environment in one region, by the names that the stacks give them.

use super::stores;
use crate::app::Stores;
use crate::config::CloudConfig;
use aws_config::BehaviorVersion;
use aws_sdk_sqs::error::DisplayErrorContext;
use std::path::PathBuf;

/// Every storage port of the environment, in the region and with the credentials that the AWS tools would use.
///
/// For commands that look, and that write tokens and jobs. Not for turns: which place the region has among all regions,
/// on which a session's home depends, is known to the functions only.
///
/// # Errors
/// There is no region, or the environment's queue is not found there: what to do, for a person.
pub async fn connect(environment: &str) -> Result<Stores, String> {
    let aws = aws_config::defaults(BehaviorVersion::latest()).load().await;
    let region = aws.region().ok_or("no region is set; set AWS_REGION, e.g. to us-east-1")?.to_string();
    let queue = format!("reef-{environment}-jobs");
    let found = aws_sdk_sqs::Client::new(&aws).get_queue_url().queue_name(&queue).send().await;
    let found = found.map_err(|error| {
        let cause = DisplayErrorContext(&error);
        format!("its queue {queue} is not found in {region}; is it deployed there? ({cause})")
    })?;
    let config = CloudConfig {
        core_table: format!("reef-{environment}-core"),
        local_table: format!("reef-{environment}-local"),
        queue_url: found.queue_url.unwrap_or_default(),
        agent_function: format!("reef-{environment}-agent-invoke:live"),
        regions: vec![region.clone()],
        region,
        settings: PathBuf::new(),
        demo: false,
    };
    Ok(stores(&config, &aws).0)
}
