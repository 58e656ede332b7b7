//! Where this process runs: the options that every command has, each also an environment variable.

use crate::examples;
use crate::fault::Fault;
use crate::folder;
use crate::note::Note;
use clap::Args;
use clap::builder::FalseyValueParser;
use jiff::tz::TimeZone;
use shared::config::{Config, Problems};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// Folder where everything is kept
    #[arg(long, global = true, env = "REEF_DATA", value_name = "DIR", default_value = "data")]
    pub(crate) data: PathBuf,
    /// Work on this environment on AWS, e.g. dev, instead of a folder (token, agents, sessions, jobs, audit, region); region
    /// and credentials are those of the AWS tools, agents those of the settings that --config names
    #[cfg_attr(not(feature = "aws"), arg(hide = true))]
    #[arg(long, global = true, env = "REEF_AWS", value_name = "ENVIRONMENT")]
    pub(crate) aws: Option<String>,
    /// Settings (JSON5); without them those that the server on the data has noted, on new data four example agents on
    /// the demo model
    #[arg(long, global = true, env = "REEF_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Put every agent on the demo model, which only echoes
    #[arg(long, global = true, env = "REEF_DEMO", value_parser = FalseyValueParser::new())]
    pub(crate) demo: bool,
}

/// An environment variable of this process. Where `TZ` is not set, the host's own zone stands for it.
pub(crate) fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    if name == "TZ" && value.as_ref().is_none_or(String::is_empty) { host_zone() } else { value }
}

/// The name behind `/etc/localtime`: a link into the zones' folder on most systems.
fn host_zone() -> Option<String> {
    let target = std::fs::read_link("/etc/localtime").ok()?;
    Some(target.to_str()?.split_once("zoneinfo/")?.1.to_owned())
}

/// What settings are read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To run turns: everything must be there.
    Run,
    /// To look at them: the vendors' keys may be known to the server only.
    Look,
}

/// Which settings are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settings {
    /// Those of a file that the command line or the environment names.
    Named { file: PathBuf, demo: bool },
    /// None are named: those with which the data is served.
    Noted { file: PathBuf, demo: bool },
    /// The built-in example agents.
    Examples,
}

impl Settings {
    /// Reads and checks them.
    pub(crate) fn load(&self, data: &Path, purpose: Purpose) -> Result<Config, Fault> {
        match self {
            Self::Named { file, demo } | Self::Noted { file, demo } => load(file, *demo, purpose)?
                .map_err(|problems| Fault::new(told(&file.display().to_string(), &problems))),
            Self::Examples => examples::config(data),
        }
    }

    /// As the data folder notes them.
    pub(crate) fn note(&self) -> Note {
        match self {
            Self::Named { file, demo } | Self::Noted { file, demo } => {
                Note { settings: Some(folder::absolute(file)), demo: *demo }
            }
            Self::Examples => Note { settings: None, demo: false },
        }
    }
}

/// Refuses `--aws` and what is only for AWS: this program was built without it.
#[cfg(not(feature = "aws"))]
pub(crate) fn without_aws(what: &str) -> Fault {
    Fault::new(format!(
        "{what}: this program was built without AWS; build it with `cargo build --release -p reef --features aws`"
    ))
}

impl HostArgs {
    /// Refuses `--aws` for a command that runs turns in this process.
    pub(crate) fn needs_a_site(&self, command: &str) -> Result<(), Fault> {
        if self.aws.is_some() {
            return Err(Fault::new(format!(
                "`reef {command}` runs agents on this machine; --aws and REEF_AWS are for token, agents, sessions, \
                 jobs, audit and region"
            )));
        }
        Ok(())
    }

    /// Which settings are meant: those that are named, else those that the server on the data has noted.
    pub(crate) fn settings(&self) -> Result<Settings, Fault> {
        if let Some(file) = &self.config {
            return Ok(Settings::Named { file: file.clone(), demo: self.demo });
        }
        if self.aws.is_some() {
            return Ok(Settings::Examples);
        }
        let Some(Note { settings: Some(file), demo }) = Note::read(&self.data)? else {
            return Ok(Settings::Examples);
        };
        if !file.exists() {
            return Err(Fault::new(format!(
                "the data in {} is served with the settings {}, which are not there any more; name the present ones with \
                 --config or REEF_CONFIG",
                folder::absolute(&self.data).display(),
                file.display()
            )));
        }
        Ok(Settings::Noted { file, demo: demo || self.demo })
    }

    /// As [`HostArgs::settings`], for a command whose answer depends on which agents there are: it says so on standard
    /// error if they are not those that the caller named, or are not known to be the right ones.
    pub(crate) fn told_settings(&self) -> Result<Settings, Fault> {
        let settings = self.settings()?;
        let data = folder::absolute(&self.data);
        let note = match &settings {
            Settings::Noted { file, .. } => Some(format!(
                "no settings are named: taking those of the server on this data, {}",
                file.display()
            )),
            Settings::Named { .. } => {
                let known = Note::read(&self.data).ok().flatten().filter(|note| *note != settings.note());
                known.map(|note| {
                    format!("the data in {} is served with other settings: {}", data.display(), note.shown())
                })
            }
            Settings::Examples => {
                let is_strange = self.aws.is_none()
                    && Note::read(&self.data)?.is_none()
                    && folder::holds_data(&self.data)?;
                is_strange.then(|| {
                    format!(
                        "no settings are named, and those of the server on {} are not known: taking the four example \
                         agents; name a file with --config or REEF_CONFIG",
                        data.display()
                    )
                })
            }
        };
        if let Some(note) = note {
            // If nobody can hear it, the command still does what it was asked.
            let _ = writeln!(io::stderr().lock(), "reef: {note}");
        }
        Ok(settings)
    }

    /// The settings, checked.
    pub(crate) fn config(&self, purpose: Purpose) -> Result<Config, Fault> {
        self.settings()?.load(&self.data, purpose)
    }

    /// As [`HostArgs::config`], and says which ones they are where that is not plain: see [`HostArgs::told_settings`].
    pub(crate) fn told_config(&self, purpose: Purpose) -> Result<Config, Fault> {
        self.told_settings()?.load(&self.data, purpose)
    }

    /// The settings whose agents are meant. What was deployed to AWS cannot be asked there: whoever deployed has the file.
    pub(crate) fn agents(&self) -> Result<Config, Fault> {
        if self.aws.is_some() {
            let Some(file) = &self.config else {
                return Err(Fault::new(
                    "--aws: which agents there are is read from the settings that were deployed; name the file with --config \
                     or REEF_CONFIG, e.g. --config infra/agents/openclaw.json",
                ));
            };
            // Where the functions find them, and the agents' folders beside them.
            return load_at(file, Path::new("/opt"), self.demo, Purpose::Look)?
                .map_err(|problems| Fault::new(told(&file.display().to_string(), &problems)));
        }
        self.told_config(Purpose::Look)
    }

    /// The time zone to show times in. Commands that need nothing else of the settings must work even while those are
    /// wrong.
    pub(crate) fn time_zone(&self) -> TimeZone {
        let Ok(config) = self.config(Purpose::Look) else {
            let note =
                "reef: the settings cannot be read, so times are shown in UTC; see `reef config check`";
            let _ = writeln!(io::stderr().lock(), "{note}");
            return TimeZone::UTC;
        };
        // The check of the settings knows the same names.
        TimeZone::get(&config.time_zone).unwrap_or(TimeZone::UTC)
    }
}

/// Reads and checks a file. Relative paths in it begin at its folder.
pub(crate) fn load(file: &Path, demo: bool, purpose: Purpose) -> Result<Result<Config, Problems>, Fault> {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    load_at(file, absolute.parent().unwrap_or(Path::new("/")), demo, purpose)
}

/// As [`load`], with another folder for relative paths.
fn load_at(
    file: &Path,
    base_dir: &Path,
    demo: bool,
    purpose: Purpose,
) -> Result<Result<Config, Problems>, Fault> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let what = format!("the settings {} cannot be read", file.display());
        let Fault::Told(message) = Fault::because(&what, &error) else { return Fault::from(error) };
        Fault::new(format!("{message}; name the file with --config or REEF_CONFIG"))
    })?;
    Ok(match purpose {
        Purpose::Look if !demo => Config::inspect(&text, base_dir, &variable),
        Purpose::Look | Purpose::Run => Config::load(&text, base_dir, &variable, demo),
    })
}

/// All problems of a file, as one text.
pub(crate) fn told(file: &str, problems: &Problems) -> String {
    let count = problems.all().len() + problems.further();
    let word = if count == 1 { "problem" } else { "problems" };
    let mut text = format!("{file}: {count} {word}");
    for problem in problems.all() {
        text.push_str("\n  ");
        text.push_str(&problem.to_string());
    }
    if problems.further() > 0 {
        text.push_str(&format!("\n  and {} more", problems.further()));
    }
    text
}
