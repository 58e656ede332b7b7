//! `reef config check|show|schema`.

use crate::examples;
use crate::fault::Fault;
use crate::folder;
use crate::host::{self, HostArgs, Purpose, Settings};
use crate::output::{self, OutputArgs};
use crate::workspaces;
use clap::Subcommand;
use serde_json::json;
use std::path::{Path, PathBuf};

/// `reef config …`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check settings and tell every problem with its path
    Check {
        /// The file; default: the one that --config or REEF_CONFIG names, else the one that the data is served with
        file: Option<PathBuf>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print the settings as they are understood: complete, secrets redacted
    Show,
    /// Print the JSON Schema of the settings, for editors
    Schema,
}

pub(crate) fn run(command: ConfigCommand, host: &HostArgs) -> Result<(), Fault> {
    match command {
        ConfigCommand::Check { file, output } => check(file.as_deref(), output, host),
        ConfigCommand::Show => Ok(output::json(&host.told_config(Purpose::Look)?.show())?),
        ConfigCommand::Schema => Ok(output::json(&shared::config::json_schema())?),
    }
}

fn check(file: Option<&Path>, output: OutputArgs, host: &HostArgs) -> Result<(), Fault> {
    let settings = match file {
        Some(file) => Settings::Named { file: file.to_path_buf(), demo: host.demo },
        None => host.told_settings()?,
    };
    let (name, mut loaded) = match &settings {
        Settings::Named { file, demo } | Settings::Noted { file, demo } => {
            (file.display().to_string(), host::load(file, *demo, Purpose::Run)?)
        }
        Settings::Examples => ("the built-in example agents".to_owned(), Ok(examples::config(&host.data)?)),
    };
    if let (Ok(config), Settings::Named { file, .. } | Settings::Noted { file, .. }) =
        (&mut loaded, &settings)
    {
        let of_workspaces = workspaces::warnings(config, &folder::absolute(file));
        config.warnings.extend(of_workspaces);
    }
    if output.json {
        let (warnings, problems) = match &loaded {
            Ok(config) => (config.warnings.as_slice(), &[][..]),
            Err(problems) => (&[][..], problems.all()),
        };
        let problems: Vec<_> = problems
            .iter()
            .map(|problem| json!({"path": problem.path, "message": problem.message}))
            .collect();
        output::json(
            &json!({"file": name, "ok": loaded.is_ok(), "problems": problems, "warnings": warnings}),
        )?;
        return if loaded.is_ok() { Ok(()) } else { Err(Fault::Shown) };
    }
    let config = loaded.map_err(|problems| Fault::new(host::told(&name, &problems)))?;
    for warning in &config.warnings {
        output::line(&format!("warning: {warning}"))?;
    }
    let agents: Vec<&str> = config.agents.iter().map(|agent| agent.id.as_str()).collect();
    output::line(&format!("{name}: no problems; agents: {}", agents.join(", ")))?;
    Ok(())
}
