//! Settings: what the agents are, which models they ask, and how the gateway serves them (`openclaw.json`).
//!
//! Here are the settings as the rest of the product sees them, with every default. Behind them: the file's shape
//! (`file`), the schema made from that shape (`schema`), the check against it (`check`), and the reading (`load`, `agents`,
//! `providers`).

mod agents;
mod bounds;
mod check;
mod cloud;
mod file;
mod load;
mod openclaw;
mod problems;
mod providers;
mod schema;
mod show;
mod source;
mod units;

pub use cloud::{CLOSED, CloudConfig, VARIABLES as CLOUD_VARIABLES};
pub use problems::{Problem, Problems};
pub use schema::json_schema;

use crate::agent::Agent;
use crate::bounds::{BODY_BYTES, BYTES_PER_REQUEST, CONNECTIONS, CONNECTIONS_PER_ADDRESS, WRITE_TIMEOUT};
use crate::id::AgentId;
use crate::limit::Limit;
use crate::secret::Secret;
use ipnet::IpNet;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Everything a process needs to know, checked and complete.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The gateway's settings.
    pub gateway: GatewayConfig,
    /// Agents in the order of the file; ids are unique. Never empty.
    pub agents: Vec<Agent>,
    /// Which of `agents` answers when a request names none: the one with `default: true`, else the first of the file.
    pub default_agent: usize,
    /// Model vendors by id.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// Turns.
    pub turns: TurnConfig,
    /// `/hooks/*`.
    pub hooks: HooksConfig,
    /// IANA name of the zone in which people are shown times, beside UTC. Agents may have their own.
    pub time_zone: String,
    /// Things to tell the operator at start: keys that are read over, the demo model, …
    pub warnings: Vec<String>,
}

/// Where environment variables come from: an argument, so that a test decides what is set.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Config {
    /// Reads a configuration file's text (JSON5). Relative paths in it begin at `base_dir`. `demo` puts every agent on
    /// the demo model, whatever the file says of models; nothing else ever does.
    ///
    /// # Errors
    /// Everything that is wrong with the file, each with its path.
    pub fn load(text: &str, base_dir: &Path, env: Env<'_>, demo: bool) -> Result<Self, Problems> {
        let models = if demo { load::Models::Demo } else { load::Models::AsWritten { keys: true } };
        load::load(text, base_dir, env, models)
    }

    /// Like [`Config::load`], for looking at the settings only: vendors' keys may be missing where this runs.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn inspect(text: &str, base_dir: &Path, env: Env<'_>) -> Result<Self, Problems> {
        load::load(text, base_dir, env, load::Models::AsWritten { keys: false })
    }

    /// The settings as a file in our own form would say them: complete, and with `[redacted]` for every secret.
    pub fn show(&self) -> Value {
        show::show(self)
    }

    /// The agent with this id.
    pub fn agent(&self, id: &AgentId) -> Option<&Agent> {
        self.agents.iter().find(|agent| agent.id == *id)
    }

    /// The agent that answers when a request names none.
    pub fn default_agent(&self) -> &Agent {
        // Checked where a Config is made: `agents` is never empty, and the index is one of it.
        &self.agents[self.default_agent]
    }
}

/// The cluster guide's value: two years.
const GUIDE_HSTS: &str = "max-age=63072000";

/// When `Strict-Transport-Security` is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hsts {
    /// If TLS ends in front of us, in a trusted proxy.
    WithTls,
    /// Not at all.
    Never,
    /// With this value, whoever asks.
    Always(String),
}

/// The gateway's settings.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayConfig {
    /// Where to listen, from `bind` and `port`; the command line may say otherwise.
    pub listen: std::net::SocketAddr,
    /// Limit per principal.
    pub limit: Limit,
    /// Bytes that a principal may bring for each request of its rate.
    pub bytes_per_request: u32,
    /// Most bytes of a request body.
    pub max_body_bytes: usize,
    /// Most connections, fewer if file descriptors do not go round.
    pub max_connections: usize,
    /// Most connections of one address; this host and trusted proxies are not counted.
    pub max_connections_per_address: usize,
    /// How long a peer may take nothing of its answer.
    pub write_timeout: Duration,
    /// Most bytes of memory that bodies, turns and listeners may take together; `None`: a part of what the process may
    /// use.
    pub memory_budget: Option<u64>,
    /// Peers whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Trusted proxies speak TLS, also if they do not say so: `X-Forwarded-Proto` may be absent.
    pub tls_in_front: bool,
    /// When `Strict-Transport-Security` is sent.
    pub hsts: Hsts,
    /// Silence on a stream before a heartbeat comment.
    pub heartbeat: Duration,
    /// How long a stopping process waits for its turns; those unfinished then go on at the next start.
    pub drain: Duration,
}

impl GatewayConfig {
    /// `Strict-Transport-Security`, if it is sent.
    pub fn strict_transport_security(&self) -> Option<&str> {
        match &self.hsts {
            // Browsers ignore it where they were not asked by TLS.
            Hsts::WithTls => (self.tls_in_front || !self.trusted_proxies.is_empty()).then_some(GUIDE_HSTS),
            Hsts::Never => None,
            Hsts::Always(value) => Some(value),
        }
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 18_789)),
            limit: Limit::default(),
            bytes_per_request: BYTES_PER_REQUEST,
            max_body_bytes: BODY_BYTES,
            max_connections: CONNECTIONS,
            max_connections_per_address: CONNECTIONS_PER_ADDRESS,
            write_timeout: WRITE_TIMEOUT,
            memory_budget: None,
            trusted_proxies: Vec::new(),
            tls_in_front: false,
            hsts: Hsts::WithTls,
            heartbeat: Duration::from_secs(10),
            drain: Duration::from_secs(30),
        }
    }
}

/// How turns are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnConfig {
    /// How long a turn's lease runs without a step or a renewal.
    pub lease: Duration,
    /// Requests that may wait for one busy session; the next is refused.
    pub max_waiting: usize,
    /// How long a request waits for a busy session before it is refused.
    pub max_wait: Duration,
    /// Most messages of the transcript in a prompt; beyond, a compaction summarises.
    pub window_messages: usize,
    /// Newest messages that a compaction leaves as they are.
    pub keep_messages: usize,
    /// Jobs that one process runs at once.
    pub worker_concurrency: usize,
    /// Deliveries after which a failing job is dead.
    pub job_max_attempts: u32,
}

impl Default for TurnConfig {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(90),
            max_waiting: 32,
            max_wait: Duration::from_secs(120),
            window_messages: 100,
            keep_messages: 20,
            worker_concurrency: 8,
            job_max_attempts: 5,
        }
    }
}

/// A model vendor.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderConfig {
    /// Which wire protocol it speaks.
    pub api: ProviderApi,
    /// Where, without a trailing slash, e.g. `https://api.anthropic.com`.
    pub base_url: String,
    /// Its key; a local model may have none.
    pub api_key: Option<Secret>,
    /// Further headers of each call.
    pub headers: BTreeMap<String, Secret>,
    /// Longest time to a connection.
    pub connect_timeout: Duration,
    /// Longest silence while an answer is awaited or streamed.
    pub read_timeout: Duration,
    /// Tries per call before the first token, the first included.
    pub max_attempts: u32,
    /// What is known of its models, by vendor's name.
    pub models: BTreeMap<String, ModelInfo>,
}

/// A wire protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderApi {
    /// Anthropic Messages.
    AnthropicMessages,
    /// OpenAI chat completions, also Ollama's, vLLM's and LM Studio's.
    OpenAiCompletions,
    /// The demo model inside this process: no network, echoes. Only by its own name or `--demo`.
    Demo,
}

/// What is known of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelInfo {
    /// Most tokens of prompt and reply together.
    pub context_window: u32,
    /// Most tokens of a reply, asked for when the client names none.
    pub max_tokens: u32,
}

impl Default for ModelInfo {
    fn default() -> Self {
        Self { context_window: 200_000, max_tokens: 8_192 }
    }
}

/// `/hooks/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HooksConfig {
    /// Whether a caller may name the session.
    pub allow_request_session_key: bool,
    /// If so, only with one of these beginnings; empty for any.
    pub allowed_session_key_prefixes: Vec<String>,
    /// The agents that hooks may start; `None` for all.
    pub allowed_agents: Option<Vec<AgentId>>,
}

impl Default for HooksConfig {
    fn default() -> Self {
        Self {
            allow_request_session_key: true,
            allowed_session_key_prefixes: Vec::new(),
            allowed_agents: None,
        }
    }
}
