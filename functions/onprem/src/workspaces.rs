//! Agents that do not know what they are: a misspelt `workspace.root` is an agent without instructions, which starts and
//! answers as if nothing were wrong.

use shared::agent::Agent;
use shared::agent::workspace::{REQUIRED, found};
use shared::config::Config;
use std::path::Path;

/// What the operator should know of the agents' workspaces: one sentence for each agent without instructions. `settings` is
/// the file that names them. Asked before the folders are made.
pub(crate) fn warnings(config: &Config, settings: &Path) -> Vec<String> {
    let begin = settings.parent().unwrap_or(Path::new("/"));
    config.agents.iter().filter_map(|agent| warning(agent, begin)).collect()
}

/// What is wrong with one agent's workspace. Relative folders begin at `begin`.
pub(crate) fn warning(agent: &Agent, begin: &Path) -> Option<String> {
    let folder = &agent.workspace;
    let mut text = lacking(agent, folder)?;
    if !folder.exists() {
        text.push_str(", a folder that does not exist and is made empty at the start");
    }
    if folder.starts_with(begin) && found(folder).is_empty() {
        text.push_str(&format!(
            "; a relative workspace.root begins at the folder of the settings, {}",
            begin.display()
        ));
    }
    Some(text)
}

/// What the agent's instructions lack, if this folder is where they are.
pub(crate) fn lacking(agent: &Agent, folder: &Path) -> Option<String> {
    let there = found(folder);
    let (id, shown) = (&agent.id, folder.display());
    if there.contains(&REQUIRED) {
        None
    } else if there.is_empty() {
        Some(format!("agent {id} has no instructions: there is no {REQUIRED} in {shown}"))
    } else {
        Some(format!("agent {id}: there is no {REQUIRED} in {shown}, only {}", there.join(" and ")))
    }
}
