//! The vendors' keys: which ones the functions are given, which ones the agents need, and whether the secret holds them. A
//! key's value is looked at and never shown.

use super::command::{Command, VERSION};
use super::samconfig::Section;
use super::template::{Template, text_of};
use crate::{host, workspaces};
use serde_json::{Map, Value};
use shared::agent::Agent;
use shared::config::Config;
use std::collections::BTreeSet;
use std::path::Path;

/// What stands for a key's value where only its presence matters.
const SOME: &str = "x";

/// The secret of an environment, and what has to be in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    secret: String,
    /// Where it is written; other regions hold copies.
    home: String,
    /// All that the template hands to the functions: a deployment fails if one of these names is not there.
    names: BTreeSet<String>,
    /// Those without which the functions do not start.
    needed: BTreeSet<String>,
    settings: String,
    /// What the operator should know of the agents that these settings describe.
    pub(super) warnings: Vec<String>,
}

impl Keys {
    /// Reads which keys the template of the regions names, and which of them its agents' settings need. `None` if it names
    /// none.
    ///
    /// # Errors
    /// A file cannot be read, or the functions would not start with these settings whatever the keys are.
    pub(super) fn read(
        global: &Section,
        region: &Section,
        template: &Template,
        folder: &Path,
    ) -> Result<Option<Self>, String> {
        let names = template.keys();
        if names.is_empty() {
            return Ok(None);
        }
        // The template's layer is the folder `agents` beside its own.
        let layer = template.file.parent().and_then(Path::parent).unwrap_or(Path::new("")).join("agents");
        let place = region.parameter("SettingsPath").or(template.default("SettingsPath"));
        let place = place.unwrap_or("/opt/openclaw.json");
        let file = layer.join(place.strip_prefix("/opt/").unwrap_or(place));
        let settings = text_of(folder, &file)?;
        let works = |without: Option<&String>| {
            let env = |name: &str| {
                (names.contains(name) && without.is_none_or(|one| one != name)).then(|| SOME.to_owned())
            };
            Config::load(&settings, Path::new("/opt"), &env, false)
        };
        let config = works(None).map_err(|problems| {
            let given = list(&names);
            let file = host::told(&file.display().to_string(), &problems);
            format!(
                "{file}\n  (of the environment the functions are given {given}, see {})",
                template.file.display()
            )
        })?;
        // What is not in the layer's folder now is not in the layer either: agents cannot write it there.
        let deployed = |agent: &Agent| {
            folder.join(&layer).join(agent.workspace.strip_prefix("/opt").unwrap_or(&agent.workspace))
        };
        let warnings =
            config.agents.iter().filter_map(|agent| workspaces::lacking(agent, &deployed(agent))).collect();
        let needed = names.iter().filter(|name| works(Some(name)).is_err()).cloned().collect();
        let environment = global.parameter("Environment").unwrap_or("dev");
        Ok(Some(Self {
            secret: format!("reef-{environment}-provider-keys"),
            home: global.region.clone(),
            needed,
            settings,
            names,
            warnings,
        }))
    }

    /// Asks for the version that is valid now in a region.
    pub(super) fn version_in(&self, region: &str) -> Command {
        let arguments =
            ["secretsmanager", "get-secret-value", "--region", region, "--secret-id", &self.secret];
        Command::new("aws", &[&arguments[..], &["--query", "VersionId", "--output", "text"]].concat())
    }

    /// Asks for what that version holds.
    pub(super) fn value_in(&self, region: &str) -> Command {
        let arguments =
            ["secretsmanager", "get-secret-value", "--region", region, "--secret-id", &self.secret];
        let shown = ["--version-id", VERSION, "--query", "SecretString", "--output", "text"];
        Command::new("aws", &[&arguments[..], &shown].concat())
    }

    /// Why the functions would not start with what the secret holds in a region, and what to do.
    pub(super) fn problem_with(&self, held: &str, region: &str) -> Option<String> {
        let values: Map<String, Value> = serde_json::from_str(held).unwrap_or_default();
        let text = |name: &str| values.get(name).and_then(Value::as_str);
        let absent = self.names.iter().filter(|name| text(name).is_none());
        let empty = self.needed.iter().filter(|name| text(name).is_some_and(|key| key.trim().is_empty()));
        let lacking: BTreeSet<String> = absent.chain(empty).cloned().collect();
        let wrong = if lacking.is_empty() {
            let env = |name: &str| text(name).map(str::to_owned);
            let problems = Config::load(&self.settings, Path::new("/opt"), &env, false).err()?;
            problems.all().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        } else {
            format!("it lacks {}", list(&lacking))
        };
        let Self { secret, home, .. } = self;
        Some(format!(
            "the secret {secret} in {region} does not hold what the functions need to start: {wrong}\n\
             Put the keys in, all names at once (\"\" for a vendor that no agent asks):\n  {}",
            self.put(home)
        ))
    }

    /// What the secret must hold in a region, when another region holds something else.
    pub(super) fn lags_in(&self, region: &str) -> String {
        let Self { secret, home, .. } = self;
        format!(
            "the secret {secret} does not hold in {region} yet what it holds in the region before; \
             AWS copies it from {home} within seconds"
        )
    }

    fn put(&self, home: &str) -> String {
        let value = |name: &String| if self.needed.contains(name) { "…" } else { "" };
        let names: Map<String, Value> =
            self.names.iter().map(|name| (name.clone(), value(name).into())).collect();
        let put = ["secretsmanager", "put-secret-value", "--region", home, "--secret-id", &self.secret];
        let names = Value::Object(names).to_string();
        Command::new("aws", &[&put[..], &["--secret-string", &names]].concat()).line()
    }

    /// What a person is told who runs the commands by hand.
    pub(super) fn note(&self) -> String {
        format!(
            "must hold {} (not empty: {}); never shown, only AWS knows $VERSION",
            list(&self.names),
            list(&self.needed)
        )
    }
}

fn list(names: &BTreeSet<String>) -> String {
    if names.is_empty() { "none".to_owned() } else { names.iter().cloned().collect::<Vec<_>>().join(", ") }
}
