//! `reef region status|evacuate|restore`: an environment's regions, from wherever AWS can be reached.

use crate::fault::Fault;
use crate::host::HostArgs;
use crate::output::{self, Output, OutputArgs, rfc3339};
use crate::site;
use clap::Subcommand;
use serde_json::{Value, json};
use shared::clock::{Clock, SystemClock};
use shared::cloud::operator;
use shared::error::StoreError;
use shared::id::RegionId;
use shared::quote::quoted;
use shared::region::{RegionState, Regions};

/// `reef region …`
#[derive(Debug, Subcommand)]
pub(crate) enum RegionCommand {
    /// List the regions: whether they are in service, and their last sign of life
    Status {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Take a region out of service: no new requests, and its sessions go elsewhere when they are next asked for
    Evacuate {
        /// Which, e.g. eu-central-1
        region: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Put a region back into service
    Restore {
        /// Which, e.g. eu-central-1
        region: String,
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub(crate) fn run(command: RegionCommand, host: &HostArgs) -> Result<(), Fault> {
    let Some(environment) = &host.aws else {
        return Err(Fault::new("regions are AWS's: name the environment with --aws or REEF_AWS, e.g. dev"));
    };
    site::block_on(async {
        let regions = operator::regions(environment).await.map_err(|problem| {
            Fault::new(format!("the environment {environment} on AWS cannot be used: {problem}"))
        })?;
        match command {
            RegionCommand::Status { output } => status(regions.as_ref(), &Output::new(output, host)).await,
            RegionCommand::Evacuate { region, output } => {
                set(regions.as_ref(), &region, false, &Output::new(output, host)).await
            }
            RegionCommand::Restore { region, output } => {
                set(regions.as_ref(), &region, true, &Output::new(output, host)).await
            }
        }
    })?
}

async fn status(regions: &dyn Regions, output: &Output) -> Result<(), Fault> {
    let states = regions.states(SystemClock.now()).await?;
    if output.json {
        output::json(&states.iter().map(shown).collect())?;
        return Ok(());
    }
    let rows = states.iter().map(|state| {
        [
            state.region.to_string(),
            if state.in_service { "in service" } else { "out of service" }.to_owned(),
            output.maybe_time(state.beat_at),
        ]
    });
    output::table(
        ["REGION", "STATE", "LAST SIGN OF LIFE"],
        rows.collect(),
        "no region has given a sign of life yet",
    )?;
    Ok(())
}

async fn set(regions: &dyn Regions, name: &str, in_service: bool, output: &Output) -> Result<(), Fault> {
    let region = RegionId::new(name);
    match regions.set_in_service(&region, in_service, SystemClock.now()).await {
        Ok(()) => {}
        Err(StoreError::NotFound) => {
            return Err(Fault::new(format!("there is no region {}; see `reef region status`", quoted(name))));
        }
        Err(error) => return Err(error.into()),
    }
    if output.json {
        let states = regions.states(SystemClock.now()).await?;
        let state = states.iter().find(|state| state.region == region);
        output::json(&state.map_or(Value::Null, shown))?;
    } else {
        let word = if in_service { "in" } else { "out of" };
        output::line(&format!("{region} is {word} service; the other regions know it within seconds"))?;
    }
    Ok(())
}

fn shown(state: &RegionState) -> Value {
    json!({
        "region": state.region,
        "in_service": state.in_service,
        "beat_at": state.beat_at.and_then(rfc3339),
    })
}
