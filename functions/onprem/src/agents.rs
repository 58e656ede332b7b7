//! `reef agents list`.

use crate::fault::Fault;
use crate::host::HostArgs;
use crate::output::{self, OutputArgs};
use clap::Subcommand;
use serde_json::{Value, json};
use shared::agent::Agent;
use shared::agent::workspace::found;

/// `reef agents …`
#[derive(Debug, Subcommand)]
pub(crate) enum AgentsCommand {
    /// List the agents of the settings, with the instructions that are in their workspaces
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub(crate) fn run(command: &AgentsCommand, host: &HostArgs) -> Result<(), Fault> {
    let AgentsCommand::List { output } = command;
    let config = host.agents()?;
    // What lies in the layer on AWS cannot be seen from here.
    let instructions = |agent: &Agent| host.aws.is_none().then(|| found(&agent.workspace));
    let is_default = |agent: &Agent| agent.id == config.default_agent().id;
    if output.json {
        let shown = |agent: &Agent| shown(agent, is_default(agent), instructions(agent).as_deref());
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
            if is_default(agent) { "yes" } else { "" }.to_owned(),
            match instructions(agent) {
                None => "-".to_owned(),
                Some(files) if files.is_empty() => "none".to_owned(),
                Some(files) => files.join(" "),
            },
            workspace,
        ]
    });
    let header = ["ID", "NAME", "MODEL", "TOOLS", "TIME ZONE", "DEFAULT", "INSTRUCTIONS", "WORKSPACE"];
    output::table(header, rows.collect(), "no agents")?;
    Ok(())
}

fn shown(agent: &Agent, is_default: bool, instructions: Option<&[&str]>) -> Value {
    json!({
        "id": agent.id,
        "default": is_default,
        "name": agent.name,
        "description": agent.description,
        "model": agent.model,
        "fallbacks": agent.fallbacks,
        "tools": agent.tools,
        "time_zone": agent.time_zone,
        "workspace": agent.workspace,
        "instructions": instructions,
    })
}
