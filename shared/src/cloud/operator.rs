//! What an operator's commands work on: the stores of an environment in one region, by the names that the stacks give them.

use super::stores;
use crate::adapters::aws::dynamodb::{DynamoRegions, DynamoStores};
use crate::app::Stores;
use crate::config::CloudConfig;
use crate::id::RandomIds;
use crate::region::Regions;
use aws_config::BehaviorVersion;
use aws_sdk_sqs::error::DisplayErrorContext;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A turn's lease where the settings are not known. Nothing that an operator does with regions depends on it.
const LEASE: Duration = Duration::from_secs(90);

/// Every storage port of the environment, in the region and with the credentials that the AWS tools would use.
///
/// For commands that look, and that write tokens and jobs. Not for turns: which place the region has among all regions,
/// on which a session's home depends, is known to the functions only.
///
/// # Errors
/// There is no region, or the environment's queue is not found there: what to do, for a person.
pub async fn connect(environment: &str) -> Result<Stores, String> {
    Ok(open(environment).await?.0)
}

/// The environment's regions, as that region sees them which the AWS tools would use.
///
/// # Errors
/// As [`connect`].
pub async fn regions(environment: &str) -> Result<Arc<dyn Regions>, String> {
    let rows = open(environment).await?.1;
    Ok(Arc::new(DynamoRegions::new(rows, Arc::new(RandomIds), LEASE)))
}

async fn open(environment: &str) -> Result<(Stores, DynamoStores), String> {
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
        // The commands touch no files of agents.
        files_bucket: String::new(),
        s3_endpoint: None,
        host_roots: true,
        queue_url: found.queue_url.unwrap_or_default(),
        agent_function: format!("reef-{environment}-agent-invoke:live"),
        places: vec![region.clone()],
        ordinal: 0,
        region,
        metrics_namespace: None,
        settings: PathBuf::new(),
        demo: false,
    };
    let (stores, _, rows) = stores(&config, &aws);
    Ok((stores, rows))
}
