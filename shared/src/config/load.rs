//! Text to [`Config`]: reads the file in one pass and tells everything that is wrong with it at once.

use super::check::{check, closest};
use super::file::{self, Bind, TextOrSwitch, Tls};
use super::problems::Problems;
use super::schema::Schema;
use super::units::memory;
use super::{Config, Env, GUIDE_HSTS, GatewayConfig, HooksConfig, Hsts, TurnConfig, providers, source};
use crate::agent::Agent;
use crate::bounds::{ERROR_BYTES, SETTINGS_BYTES};
use crate::id::AgentId;
use crate::limit::Limit;
use crate::quote::{quoted, reason, shortened};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

/// Least memory budget: with less, no request of some size would ever find room.
const LEAST_BUDGET: u64 = 8 * 1024 * 1024;

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
    if text.len() > SETTINGS_BYTES {
        let bytes = text.len();
        problems.add("", format!("the file has {bytes} bytes; settings may have {SETTINGS_BYTES}"));
        return Err(problems);
    }
    let source = source::parse(text, &mut problems);
    if source.value.is_null() && !problems.is_empty() {
        return Err(problems);
    }
    let checked = check(Schema::of_file(), source.value, env);
    problems.append(checked.problems);
    let file = match serde_path_to_error::deserialize::<_, file::File>(checked.value) {
        Ok(file) => file,
        Err(error) => {
            let path = error.path().to_string();
            problems.add(path, format!("cannot be read: {}", reason(&error.into_inner().to_string())));
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
    pub(super) base_dir: &'a Path,
    env: Env<'a>,
    models: Models,
    pub(super) problems: Problems,
    pub(super) warnings: Vec<String>,
    /// Texts that name an unset variable: path and name.
    pub(super) unset: Vec<(String, String)>,
    /// Providers that agents use, and the path of the first use.
    pub(super) used: BTreeMap<String, String>,
}

impl Reader<'_> {
    fn config(mut self, file: file::File, entry_order: &[String]) -> Result<Config, Problems> {
        let time_zone = self.default_time_zone(file.time_zone);
        let known_providers = providers::known(&file.models);
        let (entries, defaults) = self.entries(file.agents, entry_order);
        let (agents, default_agent) =
            self.agents(entries, &defaults, file.tools.as_ref(), &time_zone, &known_providers);
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
                    format!(
                        "the environment variable {} is not set; set it where Reef starts",
                        quoted(&name)
                    ),
                );
            }
        }
        if self.problems.is_empty() {
            let warnings = self.warnings.into_iter().map(|warning| shortened(warning, ERROR_BYTES)).collect();
            Ok(Config { gateway, agents, default_agent, providers, turns, hooks, time_zone, warnings })
        } else {
            Err(self.problems)
        }
    }

    pub(super) fn is_demo(&self) -> bool {
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

    pub(super) fn time_zone(&mut self, path: &str, name: Option<String>) -> Option<String> {
        let name = name?;
        if is_time_zone(&name) {
            return Some(name);
        }
        let name = quoted(&name);
        self.problems
            .add(path, format!("unknown time zone {name:?}; write an IANA name, e.g. \"Asia/Tokyo\""));
        None
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
            None | Some(TextOrSwitch::Switch(true)) => Hsts::WithTls,
            Some(TextOrSwitch::Switch(false)) => Hsts::Never,
            Some(TextOrSwitch::Text(value)) => {
                if !value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
                    || value.trim().is_empty()
                {
                    let at = "gateway.http.securityHeaders.strictTransportSecurity";
                    self.problems
                        .add(at, format!("is not a header's value; write e.g. {GUIDE_HSTS:?} or false"));
                }
                Hsts::Always(value)
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
                    format!(
                        "{:?} is neither an address nor a network; write e.g. \"10.0.0.5\" or \"10.0.0.0/8\"",
                        quoted(text)
                    ),
                ),
            }
        }
        if tls_in_front && trusted_proxies.is_empty() {
            self.warnings.push(
                "gateway.tls: \"inFront\" is believed of the proxies in gateway.trustedProxies only, and none is named: \
                 tokens from other machines are refused; put the proxy's address there, then gateway.tls is not needed"
                    .to_owned(),
            );
        }
        let count = |given: Option<u32>, default: usize| {
            given.map_or(default, |count| usize::try_from(count).unwrap_or(usize::MAX))
        };
        GatewayConfig {
            listen: SocketAddr::new(address, file.port.unwrap_or_else(|| default.listen.port())),
            limit: file
                .rate_limit
                .map_or(default.limit, |limit| Limit { per_second: limit.per_second, burst: limit.burst }),
            bytes_per_request: file
                .rate_limit
                .and_then(|limit| limit.bytes_per_request)
                .unwrap_or(default.bytes_per_request),
            max_body_bytes: file
                .max_body_bytes
                .map_or(default.max_body_bytes, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            max_connections: count(file.max_connections, default.max_connections),
            max_connections_per_address: count(
                file.max_connections_per_address,
                default.max_connections_per_address,
            ),
            write_timeout: seconds(file.write_timeout_seconds, default.write_timeout),
            memory_budget: file.memory_budget.as_ref().and_then(|budget| self.memory_budget(budget)),
            trusted_proxies,
            tls_in_front,
            hsts,
            heartbeat: seconds(file.heartbeat_seconds, default.heartbeat),
            drain: seconds(file.drain_seconds, default.drain),
        }
    }

    fn memory_budget(&mut self, written: &file::Quantity) -> Option<u64> {
        match memory(written) {
            Ok(bytes) if bytes >= LEAST_BUDGET => return Some(bytes),
            Ok(bytes) => self.problems.add(
                "gateway.memoryBudget",
                format!("{bytes} bytes are too little to take requests; write at least \"8MB\""),
            ),
            Err(problem) => self.problems.add("gateway.memoryBudget", problem),
        }
        None
    }

    fn custom_address(&mut self, host: Option<&str>) -> IpAddr {
        match host.map(|host| (host, host.parse())) {
            Some((_, Ok(address))) => return address,
            Some((host, Err(_))) => {
                self.problems
                    .add("gateway.customBindHost", format!("{:?} is not an IP address", quoted(host)));
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
                    format!("there is no agent {:?}{hint}", quoted(id)),
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

fn uses(agent: &Agent, provider: &str) -> bool {
    std::iter::once(&agent.model).chain(&agent.fallbacks).any(|model| model.provider == provider)
}

fn is_time_zone(name: &str) -> bool {
    jiff::tz::TimeZone::get(name).is_ok()
}

/// Seconds as a duration. The file's check has kept them in a range that always fits.
pub(super) fn seconds(given: Option<f64>, default: Duration) -> Duration {
    given.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(default)
}
