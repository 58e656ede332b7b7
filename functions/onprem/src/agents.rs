//! `reef agents list`.

use crate::fault::Fault;
use crate::host::HostArgs;
use crate::output::{self, OutputArgs};
use clap::Subcommand;
use serde_json::{Value, json};
use shared::agent::Agent;

/// `reef agents …`
#[derive(Debug, Subcommand)]
pub(crate) enum AgentsCommand {
    /// List the agents of the settings; the first one answers requests that name none
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub(crate) fn run(command: &AgentsCommand, host: &HostArgs) -> Result<(), Fault> {
    let AgentsCommand::List { output } = command;
    let config = host.agents()?;
    if output.json {
        output::json(&config.agents.iter().map(shown).collect())?;
        return Ok(());
    }
    let rows = config.agents.iter().map(|agent| {
        let models = std::iter::once(&agent.model).chain(&agent.fallbacks).map(ToString::to_string);
        let models = models.collect::<Vec<_>>().join(", then ");
        let workspace = agent.workspace.display().to_string();
        [
            agent.id.to_string(),
            agent.name.clone(),
            models,
            agent.tools.join(" "),
            agent.time_zone.clone(),
            workspace,
        ]
    });
    let header = ["ID", "NAME", "MODEL", "TOOLS", "TIME ZONE", "WORKSPACE"];
    output::table(header, rows.collect(), "no agents")?;
    Ok(())
}

fn shown(agent: &Agent) -> Value {
    json!({
        "id": agent.id,
        "name": agent.name,
        "description": agent.description,
        "model": agent.model,
        "fallbacks": agent.fallbacks,
        "tools": agent.tools,
        "time_zone": agent.time_zone,
        "workspace": agent.workspace,
    })
}
