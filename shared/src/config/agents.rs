//! The agents of a file, in all its dialects, as [`Agent`]s.

use super::check::closest;
use super::file::{self, Model, Tools, Workspace};
use super::load::{Reader, seconds};
use super::{providers, units};
use crate::agent::{Agent, Resources, TurnLimits};
use crate::id::AgentId;
use crate::model::ModelRef;
use crate::tools;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// An agent of the file, and where it stands.
pub(super) struct Entry {
    path: String,
    id: Option<String>,
    agent: file::Agent,
}

impl Reader<'_> {
    /// The agents of all three dialects, in the order of the file.
    pub(super) fn entries(
        &mut self,
        agents: Option<file::Agents>,
        entry_order: &[String],
    ) -> (Vec<Entry>, file::AgentDefaults) {
        let list = |prefix: &str, list: Vec<file::Agent>| -> Vec<Entry> {
            let entries = list.into_iter().enumerate();
            let entry = |(index, agent): (usize, file::Agent)| Entry {
                path: format!("{prefix}[{index}]"),
                id: agent.id.clone(),
                agent,
            };
            entries.map(entry).collect()
        };
        let (entries, defaults) = match agents {
            None => (Vec::new(), file::AgentDefaults::default()),
            Some(file::Agents::List(agents)) => (list("agents", agents), file::AgentDefaults::default()),
            Some(file::Agents::Table(mut table)) => {
                let mut entries = Vec::new();
                for id in entry_order {
                    let Some(agent) = table.entries.remove(id) else { continue };
                    let path = format!("agents.entries.{id}");
                    if agent.id.as_ref().is_some_and(|own| own != id) {
                        self.problems.add(
                            format!("{path}.id"),
                            format!("must be left out, or be {id:?} like its key"),
                        );
                    }
                    entries.push(Entry { path, id: Some(id.clone()), agent });
                }
                entries.extend(list("agents.list", table.list));
                (entries, table.defaults)
            }
        };
        if entries.is_empty() {
            let example = "{id: \"assistant\", model: \"ollama/llama3.2\"}";
            self.problems.add("agents", format!("at least one agent is needed, e.g. agents: [{example}]"));
        }
        (entries, defaults)
    }

    pub(super) fn agents(
        &mut self,
        entries: Vec<Entry>,
        defaults: &file::AgentDefaults,
        tools: Option<&Tools>,
        time_zone: &str,
        known_providers: &BTreeSet<String>,
    ) -> (Vec<Agent>, usize) {
        let default_entry = self.default_entry(&entries);
        let at = "agents.defaults";
        let own_zone = self.time_zone(&format!("{at}.timeZone"), defaults.time_zone.clone());
        let openclaw_zone = self.time_zone(&format!("{at}.userTimezone"), defaults.user_timezone.clone());
        let default = Defaults {
            model: defaults
                .model
                .as_ref()
                .and_then(|model| self.model(&format!("{at}.model"), model, known_providers)),
            has_model: defaults.model.is_some(),
            workspace: defaults
                .workspace
                .as_ref()
                .and_then(|folder| self.folder(&format!("{at}.workspace"), folder)),
            tools: match (&defaults.tools, tools) {
                (Some(tools), _) => self.tools(&format!("{at}.tools"), tools),
                (None, Some(tools)) => self.tools("tools", tools),
                (None, None) => all_tools(),
            },
            time_zone: own_zone.or(openclaw_zone).unwrap_or_else(|| time_zone.to_owned()),
            limits: limits(TurnLimits::default(), defaults.timeout_seconds, defaults.limits),
            resources: self.resources(&format!("{at}.resources"), &defaults.resources, Resources::default()),
        };
        let mut seen = BTreeMap::new();
        let mut agents = Vec::new();
        let mut default_agent = 0;
        for (index, entry) in entries.into_iter().enumerate() {
            let Entry { path, id, agent } = entry;
            let id = self.agent_id(&path, id, &mut seen);
            let is_default = index == default_entry;
            if is_default {
                default_agent = agents.len();
            }
            agents.extend(self.agent(&path, id, is_default, agent, &default, known_providers));
        }
        (agents, default_agent)
    }

    /// Which entry answers requests that name no agent: the one that says so, else the first.
    fn default_entry(&mut self, entries: &[Entry]) -> usize {
        let mut named = None;
        for (index, entry) in
            entries.iter().enumerate().filter(|(_, entry)| entry.agent.default == Some(true))
        {
            match named {
                None => named = Some(index),
                Some(first) => {
                    let first: &Entry = &entries[first];
                    let message = format!(
                        "is true for {}, too; requests that name no agent can go to one only: leave one `true`",
                        first.path
                    );
                    self.problems.add(format!("{}.default", entry.path), message);
                }
            }
        }
        named.unwrap_or(0)
    }

    fn agent_id(
        &mut self,
        path: &str,
        id: Option<String>,
        seen: &mut BTreeMap<String, String>,
    ) -> Option<AgentId> {
        // The key of `agents.entries` is the id itself.
        let at = if path.starts_with("agents.entries.") { path.to_owned() } else { format!("{path}.id") };
        let Some(id) = id else {
            self.problems.add(at, "is missing");
            return None;
        };
        if !is_agent_id(&id) {
            let rule = "1 to 64 of a-z, 0-9, `_` and `-`, the first a letter or digit";
            self.problems.add(at, format!("{id:?} is not an agent's id: {rule}"));
            return None;
        }
        if let Some(first) = seen.get(&id) {
            self.problems.add(at, format!("{id:?} is already the id of {first}"));
            return None;
        }
        seen.insert(id.clone(), path.to_owned());
        Some(AgentId::new(id))
    }

    fn agent(
        &mut self,
        path: &str,
        id: Option<AgentId>,
        is_default: bool,
        agent: file::Agent,
        default: &Defaults,
        known_providers: &BTreeSet<String>,
    ) -> Option<Agent> {
        let chain = match &agent.model {
            Some(model) => self.model(&format!("{path}.model"), model, known_providers),
            None if default.has_model || self.is_demo() => default.model.clone(),
            None => {
                let all = if path.starts_with("agents[") { "" } else { ", or agents.defaults.model for all" };
                let example = "\"ollama/llama3.2\"";
                self.problems.add(
                    format!("{path}.model"),
                    format!("is missing; write provider/model, e.g. {example}{all}"),
                );
                None
            }
        };
        let chain = if self.is_demo() {
            Some((ModelRef { provider: providers::DEMO.to_owned(), model: "echo".to_owned() }, Vec::new()))
        } else {
            chain
        };
        let tools = match &agent.tools {
            Some(tools) => self.tools(&format!("{path}.tools"), tools),
            None => default.tools.clone(),
        };
        let time_zone = self.time_zone(&format!("{path}.timeZone"), agent.time_zone);
        let resources = self.resources(&format!("{path}.resources"), &agent.resources, default.resources);
        let folder = agent.workspace.as_ref().map(|folder| self.folder(&format!("{path}.workspace"), folder));
        let id = id?;
        let workspace = match (folder, &default.workspace) {
            (Some(folder), _) => folder?,
            (None, Some(folder)) if is_default => folder.clone(),
            (None, Some(folder)) => {
                let mut name = folder.clone().into_os_string();
                name.push(format!("-{id}"));
                PathBuf::from(name)
            }
            (None, None) => self.base_dir.join("workspaces").join(id.as_str()),
        };
        let (model, fallbacks) = chain?;
        Some(Agent {
            name: agent.name.unwrap_or_else(|| id.to_string()),
            id,
            description: agent.description,
            model,
            fallbacks,
            workspace,
            tools,
            time_zone: time_zone.unwrap_or_else(|| default.time_zone.clone()),
            limits: limits(default.limits, agent.timeout_seconds, agent.limits),
            resources,
        })
    }

    /// The model and its fall-backs. Notes which providers are used.
    fn model(
        &mut self,
        path: &str,
        model: &Model,
        known_providers: &BTreeSet<String>,
    ) -> Option<(ModelRef, Vec<ModelRef>)> {
        match model {
            Model::One(name) => Some((self.model_ref(path, name, known_providers)?, Vec::new())),
            Model::Chain(chain) => {
                let mut fallbacks = Vec::new();
                for (index, name) in chain.fallbacks.iter().enumerate() {
                    fallbacks.extend(self.model_ref(
                        &format!("{path}.fallbacks[{index}]"),
                        name,
                        known_providers,
                    ));
                }
                let at = format!("{path}.primary");
                match &chain.primary {
                    Some(name) => Some((self.model_ref(&at, name, known_providers)?, fallbacks)),
                    None => {
                        self.problems.add(at, "is missing");
                        None
                    }
                }
            }
        }
    }

    fn model_ref(&mut self, path: &str, name: &str, known_providers: &BTreeSet<String>) -> Option<ModelRef> {
        let Ok(model) = name.parse::<ModelRef>() else {
            self.problems
                .add(path, format!("{name:?} is not of the form provider/model, e.g. \"ollama/llama3.2\""));
            return None;
        };
        if self.is_demo() {
            return Some(model);
        }
        let provider = &model.provider;
        if !known_providers.contains(provider) {
            let known: Vec<&str> = known_providers.iter().map(String::as_str).collect();
            let known = known.join(", ");
            self.problems.add(
                path,
                format!(
                    "unknown provider {provider:?}; known are {known}; add models.providers.{provider} or correct the \
                     name"
                ),
            );
            return None;
        }
        if RETIRED.contains(&name) {
            let warning = format!(
                "{path}: the vendor has retired {name}; if it answers that it has no such model, name a current one"
            );
            self.warnings.push(warning);
        }
        self.used.entry(provider.clone()).or_insert_with(|| path.to_owned());
        Some(model)
    }

    fn folder(&mut self, path: &str, folder: &Workspace) -> Option<PathBuf> {
        let (at, text) = match folder {
            Workspace::Path(text) => (path.to_owned(), Some(text)),
            Workspace::Table(table) => (format!("{path}.root"), table.root.as_ref()),
        };
        let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
            self.problems.add(at, "is missing; write a folder, e.g. \"./agents/assistant\"");
            return None;
        };
        let folder = match text.strip_prefix("~/") {
            None => self.base_dir.join(text),
            Some(rest) => match self.variable("HOME") {
                Some(home) => PathBuf::from(home).join(rest),
                None => {
                    self.problems.add(at, "begins with ~, but the environment variable HOME is not set");
                    return None;
                }
            },
        };
        // Without the dots of `./agents/x`.
        Some(folder.components().collect())
    }

    fn tools(&mut self, path: &str, tools: &Tools) -> Vec<String> {
        let (allow, allow_at, deny) = match tools {
            Tools::List(names) => (Some(names), path.to_owned(), &[][..]),
            Tools::Table(table) => (table.allow.as_ref(), format!("{path}.allow"), table.deny.as_slice()),
        };
        let mut allowed = BTreeSet::new();
        match allow {
            None => allowed.extend(all_tools()),
            Some(names) => {
                for (index, name) in names.iter().enumerate() {
                    if tools::NAMES.contains(&name.as_str()) {
                        allowed.insert(name.clone());
                    } else if name == "*" {
                        allowed.extend(all_tools());
                    } else {
                        self.problems.add(format!("{allow_at}[{index}]"), unknown_tool(name));
                    }
                }
            }
        }
        for (index, name) in deny.iter().enumerate() {
            if name == "*" {
                allowed.clear();
            } else if !allowed.remove(name) && !tools::NAMES.contains(&name.as_str()) {
                // Nothing is let in by a name that does not exist; but a typo would leave a tool allowed.
                self.warnings.push(format!("{path}.deny[{index}]: {}", unknown_tool(name)));
            }
        }
        allowed.into_iter().collect()
    }

    fn resources(&mut self, path: &str, file: &file::Resources, default: Resources) -> Resources {
        let memory = file.memory.as_ref().map(units::memory).transpose();
        let cpu = file.cpu.as_ref().map(units::cores).transpose();
        let memory = memory.unwrap_or_else(|message| {
            self.problems.add(format!("{path}.memory"), message);
            None
        });
        let cpu = cpu.unwrap_or_else(|message| {
            self.problems.add(format!("{path}.cpu"), message);
            None
        });
        Resources { memory: memory.or(default.memory), cpu: cpu.or(default.cpu) }
    }
}

/// What agents take that say nothing else.
struct Defaults {
    model: Option<(ModelRef, Vec<ModelRef>)>,
    has_model: bool,
    workspace: Option<PathBuf>,
    tools: Vec<String>,
    time_zone: String,
    limits: TurnLimits,
    resources: Resources,
}

/// Models that guides still name although the vendor no longer serves them. Source: Anthropic's list of model
/// deprecations; the last three from its SDK for Python, `anthropic` 2.14.0 on PyPI (`deprecated_models.py`, read on
/// 2026-11-29), which has `claude-sonnet-4-5` end on 2026-11-30.
const RETIRED: [&str; 10] = [
    "anthropic/claude-3-opus-20240229",
    "anthropic/claude-3-5-sonnet-20240620",
    "anthropic/claude-3-5-sonnet-20241022",
    "anthropic/claude-3-5-haiku-20241022",
    "anthropic/claude-3-7-sonnet-20250219",
    "anthropic/claude-sonnet-4-20250514",
    "anthropic/claude-opus-4-20250514",
    "anthropic/claude-mythos-preview",
    "anthropic/claude-sonnet-4-5",
    "anthropic/claude-sonnet-4-5-20250929",
];

fn all_tools() -> Vec<String> {
    tools::NAMES.map(str::to_owned).to_vec()
}

fn unknown_tool(name: &str) -> String {
    let known = tools::NAMES.join(", ");
    let hint = closest(name, tools::NAMES.into_iter());
    let hint = hint.map(|known| format!("; did you mean `{known}`?")).unwrap_or_default();
    format!("unknown tool {name:?}; known are {known}{hint}")
}

/// Whether a text is an agent's id: `[a-z0-9][a-z0-9_-]{0,63}`.
fn is_agent_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut bytes = text.bytes();
    text.len() <= 64
        && bytes.next().is_some_and(plain)
        && bytes.all(|byte| plain(byte) || byte == b'_' || byte == b'-')
}

/// `limits.seconds` wins over `timeoutSeconds`: it is ours, and closer.
fn limits(default: TurnLimits, timeout_seconds: Option<f64>, file: file::Limits) -> TurnLimits {
    TurnLimits {
        steps: file.steps.unwrap_or(default.steps),
        wall: seconds(file.seconds.or(timeout_seconds), default.wall),
        tokens: file.tokens.unwrap_or(default.tokens),
    }
}
