//! Where this process runs: the options that every command has, each also an environment variable.

use crate::examples;
use crate::fault::Fault;
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
    /// Settings (JSON5); without them four example agents on the demo model
    #[arg(long, global = true, env = "REEF_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Put every agent on the demo model, which only echoes
    #[arg(long, global = true, env = "REEF_DEMO", value_parser = FalseyValueParser::new())]
    pub(crate) demo: bool,
}

/// An environment variable of this process.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl HostArgs {
    /// The settings, checked.
    pub(crate) fn config(&self) -> Result<Config, Fault> {
        match &self.config {
            Some(file) => load(file, self.demo)?
                .map_err(|problems| Fault::new(told(&file.display().to_string(), &problems))),
            None => examples::config(&self.data),
        }
    }

    /// The time zone to show times in. Commands that need nothing else of the settings must work even while those are
    /// wrong.
    pub(crate) fn time_zone(&self) -> TimeZone {
        let name = match &self.config {
            // Missing keys of vendors are no matter here.
            Some(file) => load(file, true).ok().and_then(Result::ok).map(|config| config.time_zone),
            None => examples::config(&self.data).ok().map(|config| config.time_zone),
        };
        if name.is_none() {
            let note =
                "reef: the settings cannot be read, so times are shown in UTC; see `reef config check`";
            let _ = writeln!(io::stderr().lock(), "{note}");
        }
        time_zone(name.as_deref().unwrap_or("UTC"))
    }
}

/// The zone of a name that the settings' check has let pass.
pub(crate) fn time_zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}

/// Reads and checks a file. Relative paths in it begin at its folder.
pub(crate) fn load(file: &Path, demo: bool) -> Result<Result<Config, Problems>, Fault> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let what = format!("the settings {} cannot be read", file.display());
        let Fault::Told(message) = Fault::because(&what, &error) else { return Fault::from(error) };
        Fault::new(format!("{message}; name the file with --config or REEF_CONFIG"))
    })?;
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    let base_dir = absolute.parent().unwrap_or(Path::new("/"));
    Ok(Config::load(&text, base_dir, &variable, demo))
}

/// All problems of a file, as one text.
pub(crate) fn told(file: &str, problems: &Problems) -> String {
    let count = problems.all().len();
    let word = if count == 1 { "problem" } else { "problems" };
    let mut text = format!("{file}: {count} {word}");
    for problem in problems.all() {
        text.push_str("\n  ");
        text.push_str(&problem.to_string());
    }
    text
}
