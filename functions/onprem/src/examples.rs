//! The guide's four agents, carried in the binary: served on the demo model when no settings are named.

use crate::fault::Fault;
use crate::{folder as data_folder, host, private};
use jiff::tz::TimeZone;
use shared::config::Config;
use std::path::{Path, PathBuf};

/// Said at every start on them.
pub(crate) const NOTE: &str = "no settings are named: serving the four example agents on the demo model demo/echo, which \
                               only echoes; name a file with --config or REEF_CONFIG";

const SETTINGS: &str = include_str!("../../../infra/agents/openclaw.json");

/// The agents' instructions, by their path in the folder of the settings.
const FILES: [(&str, &str); 8] = [
    ("email-manager/AGENTS.md", include_str!("../../../infra/agents/email-manager/AGENTS.md")),
    ("email-manager/SOUL.md", include_str!("../../../infra/agents/email-manager/SOUL.md")),
    ("calendar-manager/AGENTS.md", include_str!("../../../infra/agents/calendar-manager/AGENTS.md")),
    ("calendar-manager/SOUL.md", include_str!("../../../infra/agents/calendar-manager/SOUL.md")),
    ("doc-processor/AGENTS.md", include_str!("../../../infra/agents/doc-processor/AGENTS.md")),
    ("doc-processor/SOUL.md", include_str!("../../../infra/agents/doc-processor/SOUL.md")),
    ("data-analyst/AGENTS.md", include_str!("../../../infra/agents/data-analyst/AGENTS.md")),
    ("data-analyst/SOUL.md", include_str!("../../../infra/agents/data-analyst/SOUL.md")),
];

fn folder(data: &Path) -> PathBuf {
    std::path::absolute(data).unwrap_or_else(|_| data.to_path_buf()).join("workspaces")
}

/// Their settings, on the demo model, with their workspaces beneath the data.
pub(crate) fn config(data: &Path) -> Result<Config, Fault> {
    let mut config = Config::load(SETTINGS, &folder(data), &host::variable, true)
        .map_err(|problems| Fault::new(host::told("the built-in example agents", &problems)))?;
    // The example names a zone; the host of somebody who just tries it knows better.
    if let Some(zone) = host::variable("TZ").filter(|name| TimeZone::get(name).is_ok()) {
        config.agents.iter_mut().for_each(|agent| agent.time_zone.clone_from(&zone));
        config.time_zone = zone;
    }
    config.warnings.push(NOTE.to_owned());
    Ok(config)
}

/// Writes the instructions of agents that have no workspace yet. What is there is left as it is.
pub(crate) fn write_workspaces(data: &Path) -> Result<(), Fault> {
    let folder = folder(data);
    let absent: Vec<&str> = FILES
        .iter()
        .filter_map(|(path, _)| path.split_once('/').map(|(agent, _)| agent))
        .filter(|agent| !folder.join(agent).exists())
        .collect();
    for (path, text) in FILES {
        if path.split_once('/').is_some_and(|(agent, _)| absent.contains(&agent)) {
            let file = folder.join(path);
            let written =
                file.parent().map_or(Ok(()), private::make_folder).and_then(|()| std::fs::write(&file, text));
            written.map_err(|error| data_folder::unusable(data, &error))?;
        }
    }
    Ok(())
}
