//! Text to [`Config`]: reads the file in one pass and tells everything that is wrong with it at once.

use super::check::{check, closest};
use super::file::{self, Bind, Model, TextOrSwitch, Tls, Tools, Workspace};
use super::problems::Problems;
use super::{Config, Env, GatewayConfig, HooksConfig, TurnConfig, providers, source, units};
use crate::agent::{Agent, Resources, TurnLimits};
use crate::id::AgentId;
use crate::limit::Limit;
use crate::model::ModelRef;
use crate::tools;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which models agents ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Models {
    /// Those of the file.
    AsWritten {
        /// Whether the keys of their vendors must be there.
        keys: bool,
    },
    /// The demo model, whatever the file says.
    Demo,
}

/// See [`Config::load`].
pub(super) fn load(text: &str, base_dir: &Path, env: Env<'_>, models: Models) -> Result<Config, Problems> {
    let mut problems = Problems::default();
    let source = source::parse(text, &mut problems);
    if source.value.is_null() && !problems.is_empty() {
        return Err(problems);
    }
    let checked = check(&super::schema(), source.value, env);
    for problem in checked.problems.all() {
        problems.add(problem.path.clone(), problem.message.clone());
    }
    let file = match serde_path_to_error::deserialize::<_, file::File>(checked.value) {
        Ok(file) => file,
        Err(error) => {
            let path = error.path().to_string();
            problems.add(path, format!("cannot be read: {}", error.into_inner()));
            return Err(problems);
        }
    };
    let mut reader = Reader {
        base_dir,
        env,
        models,
        problems,
        warnings: Vec::new(),
        unset: checked.unset,
        used: BTreeMap::new(),
    };
    if !checked.read_over.is_empty() {
        let keys = checked.read_over.join(", ");
        reader.warnings.push(format!("OpenClaw settings that Reef does not implement are read over: {keys}"));
    }
    reader.config(file, &source.entry_order)
}

/// What reading needs at hand.
pub(super) struct Reader<'a> {
    base_dir: &'a Path,
    env: Env<'a>,
    models: Models,
    pub(super) problems: Problems,
    pub(super) warnings: Vec<String>,
    /// Texts that name an unset variable: path and name.
    pub(super) unset: Vec<(String, String)>,
    /// Providers that agents use, and the path of the first use.
    used: BTreeMap<String, String>,
}

/// An agent of the file, and where it stands.
struct Entry {
    path: String,
    id: Option<String>,
    agent: file::Agent,
}

impl Reader<'_> {
    fn config(mut self, file: file::File, entry_order: &[String]) -> Result<Config, Problems> {
        let time_zone = self.default_time_zone(file.time_zone);
        let known_providers = providers::known(&file.models);
        let (entries, defaults) = self.entries(file.agents, entry_order);
        let agents = self.agents(entries, &defaults, file.tools.as_ref(), &time_zone, &known_providers);
        let providers = if self.is_demo() {
            BTreeMap::from([(providers::DEMO.to_owned(), providers::demo())])
        } else {
            let used = std::mem::take(&mut self.used);
            self.providers(file.models, &used)
        };
        let gateway = self.gateway(file.gateway);
        let turns = self.turns(&file.turns);
        let hooks = self.hooks(file.hooks, &agents);
        for (path, name) in std::mem::take(&mut self.unset) {
            let provider = path.strip_prefix("models.providers.").and_then(|rest| rest.split('.').next());
            let is_used = provider.is_none_or(|id| agents.iter().any(|agent| uses(agent, id)));
            if is_used && (self.needs_keys() || !path.ends_with(".apiKey")) {
                self.problems.add(
                    path,
                    format!("the environment variable {name} is not set; set it where Reef starts"),
                );
            }
        }
        if self.problems.is_empty() {
            Ok(Config { gateway, agents, providers, turns, hooks, time_zone, warnings: self.warnings })
        } else {
            Err(self.problems)
        }
    }

    fn is_demo(&self) -> bool {
        self.models == Models::Demo
    }

    /// Whether the keys of the vendors that agents use must be there.
    pub(super) fn needs_keys(&self) -> bool {
        self.models == Models::AsWritten { keys: true }
    }

    /// A variable's value; an empty one counts as not set.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.trim().is_empty())
    }

    /// Whether the text at `path` was set aside because it names a variable that is not set.
    pub(super) fn is_unset(&self, path: &str) -> bool {
        self.unset.iter().any(|(unset, _)| unset == path)
    }

    fn default_time_zone(&mut self, from_file: Option<String>) -> String {
        if let Some(zone) = self.time_zone("timeZone", from_file) {
            return zone;
        }
        // `TZ` may hold forms other than names; those say nothing to us.
        let from_env = self.variable("TZ").filter(|name| is_time_zone(name));
        from_env.unwrap_or_else(|| "UTC".to_owned())
    }

    fn time_zone(&mut self, path: &str, name: Option<String>) -> Option<String> {
        let name = name?;
        if is_time_zone(&name) {
            return Some(name);
        }
        self.problems
            .add(path, format!("unknown time zone {name:?}; write an IANA name, e.g. \"Asia/Tokyo\""));
        None
    }

    /// The agents of all three dialects, in the order of the file.
    fn entries(
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

    fn agents(
        &mut self,
        entries: Vec<Entry>,
        defaults: &file::AgentDefaults,
        tools: Option<&Tools>,
        time_zone: &str,
        known_providers: &BTreeSet<String>,
    ) -> Vec<Agent> {
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
        for (index, entry) in entries.into_iter().enumerate() {
            let Entry { path, id, agent } = entry;
            let id = self.agent_id(&path, id, &mut seen);
            agents.extend(self.agent(&path, id, index == 0, agent, &default, known_providers));
        }
        agents
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
        is_first: bool,
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
            (None, Some(folder)) if is_first => folder.clone(),
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

    fn gateway(&mut self, file: file::Gateway) -> GatewayConfig {
        let default = GatewayConfig::default();
        let address = match file.bind {
            None | Some(Bind::Loopback | Bind::Auto) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Some(Bind::All | Bind::Lan) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Some(Bind::Custom) => self.custom_address(file.custom_bind_host.as_deref()),
        };
        let tls_in_front = file.tls == Some(Tls::InFront);
        let hsts = match file.http.security_headers.strict_transport_security {
            None | Some(TextOrSwitch::Switch(true)) => tls_in_front.then(|| GUIDE_HSTS.to_owned()),
            Some(TextOrSwitch::Switch(false)) => None,
            Some(TextOrSwitch::Text(value)) => {
                if !value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
                    || value.trim().is_empty()
                {
                    let at = "gateway.http.securityHeaders.strictTransportSecurity";
                    self.problems
                        .add(at, format!("is not a header's value; write e.g. {GUIDE_HSTS:?} or false"));
                }
                Some(value)
            }
        };
        if let Some(cluster) = file.cluster.filter(|cluster| cluster.enabled) {
            let mode = cluster.mode.map_or("none", file::ClusterMode::as_str);
            let primary = cluster.primary.as_deref().unwrap_or("none");
            self.warnings.push(format!(
                "gateway.cluster: accepted, not used yet: this one process is gateway and agents itself, whatever its \
                 mode ({mode}) and primary ({primary}) say"
            ));
        }
        for (name, endpoint) in &file.http.endpoints {
            if endpoint.enabled == Some(false) {
                self.warnings.push(format!(
                    "gateway.http.endpoints.{name}.enabled: false is not obeyed; a token's scopes say what it may use"
                ));
            }
        }
        let mut trusted_proxies = Vec::new();
        for (index, text) in file.trusted_proxies.iter().enumerate() {
            let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            match network {
                Ok(network) => trusted_proxies.push(network),
                Err(_) => self.problems.add(
                    format!("gateway.trustedProxies[{index}]"),
                    format!("{text:?} is neither an address nor a network; write e.g. \"10.0.0.5\" or \"10.0.0.0/8\""),
                ),
            }
        }
        GatewayConfig {
            listen: SocketAddr::new(address, file.port.unwrap_or_else(|| default.listen.port())),
            limit: file
                .rate_limit
                .map_or(default.limit, |limit| Limit { per_second: limit.per_second, burst: limit.burst }),
            max_body_bytes: file
                .max_body_bytes
                .map_or(default.max_body_bytes, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            trusted_proxies,
            tls_in_front,
            hsts,
            heartbeat: seconds(file.heartbeat_seconds, default.heartbeat),
            drain: seconds(file.drain_seconds, default.drain),
        }
    }

    fn custom_address(&mut self, host: Option<&str>) -> IpAddr {
        match host.map(|host| (host, host.parse())) {
            Some((_, Ok(address))) => return address,
            Some((host, Err(_))) => {
                self.problems.add("gateway.customBindHost", format!("{host:?} is not an IP address"));
            }
            None => self
                .problems
                .add("gateway.customBindHost", "is missing; `bind: \"custom\"` needs an IP address"),
        }
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }

    fn turns(&mut self, file: &file::Turns) -> TurnConfig {
        let default = TurnConfig::default();
        let count = |given: Option<u32>, default: usize| {
            given.map_or(default, |count| usize::try_from(count).unwrap_or(usize::MAX))
        };
        let turns = TurnConfig {
            lease: seconds(file.lease_seconds, default.lease),
            max_waiting: count(file.max_waiting, default.max_waiting),
            max_wait: seconds(file.wait_seconds, default.max_wait),
            window_messages: count(file.window_messages, default.window_messages),
            keep_messages: count(file.keep_messages, default.keep_messages),
            worker_concurrency: count(file.worker_concurrency, default.worker_concurrency),
            job_max_attempts: file.job_max_attempts.unwrap_or(default.job_max_attempts),
        };
        if turns.keep_messages >= turns.window_messages {
            let (keep, window) = (turns.keep_messages, turns.window_messages);
            self.problems
                .add("turns.keepMessages", format!("must be less than windowMessages: {keep} of {window}"));
        }
        turns
    }

    fn hooks(&mut self, file: file::Hooks, agents: &[Agent]) -> HooksConfig {
        let allowed_agents = file.allowed_agent_ids.filter(|ids| !ids.iter().any(|id| id == "*"));
        for (index, id) in allowed_agents.iter().flatten().enumerate() {
            // While agents are wrong themselves, which ids exist is not known.
            if self.problems.is_empty() && !agents.iter().any(|agent| agent.id.as_str() == id) {
                let hint = closest(id, agents.iter().map(|agent| agent.id.as_str()));
                let hint = hint.map(|known| format!("; did you mean {known:?}?")).unwrap_or_default();
                self.problems.add(
                    format!("hooks.allowedAgentIds[{index}]"),
                    format!("there is no agent {id:?}{hint}"),
                );
            }
        }
        HooksConfig {
            allow_request_session_key: file
                .allow_request_session_key
                .unwrap_or(HooksConfig::default().allow_request_session_key),
            allowed_session_key_prefixes: file.allowed_session_key_prefixes,
            allowed_agents: allowed_agents.map(|ids| ids.into_iter().map(AgentId::new).collect()),
        }
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

/// The cluster guide's value: two years.
const GUIDE_HSTS: &str = "max-age=63072000";

/// Models that guides still name although the vendor no longer serves them. Source: Anthropic's list of model
/// deprecations.
const RETIRED: [&str; 7] = [
    "anthropic/claude-3-opus-20240229",
    "anthropic/claude-3-5-sonnet-20240620",
    "anthropic/claude-3-5-sonnet-20241022",
    "anthropic/claude-3-5-haiku-20241022",
    "anthropic/claude-3-7-sonnet-20250219",
    "anthropic/claude-sonnet-4-20250514",
    "anthropic/claude-opus-4-20250514",
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

fn uses(agent: &Agent, provider: &str) -> bool {
    std::iter::once(&agent.model).chain(&agent.fallbacks).any(|model| model.provider == provider)
}

fn is_time_zone(name: &str) -> bool {
    jiff::tz::TimeZone::get(name).is_ok()
}

/// Whether a text is an agent's id: `[a-z0-9][a-z0-9_-]{0,63}`.
fn is_agent_id(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut bytes = text.bytes();
    text.len() <= 64
        && bytes.next().is_some_and(plain)
        && bytes.all(|byte| plain(byte) || byte == b'_' || byte == b'-')
}

/// Seconds as a duration. The file's check has kept them in a range that always fits.
pub(super) fn seconds(given: Option<f64>, default: Duration) -> Duration {
    given.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(default)
}

/// `limits.seconds` wins over `timeoutSeconds`: it is ours, and closer.
fn limits(default: TurnLimits, timeout_seconds: Option<f64>, file: file::Limits) -> TurnLimits {
    TurnLimits {
        steps: file.steps.unwrap_or(default.steps),
        wall: seconds(file.seconds.or(timeout_seconds), default.wall),
        tokens: file.tokens.unwrap_or(default.tokens),
    }
}
