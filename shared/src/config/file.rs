//! The shape of `openclaw.json`: the guide's dialect, OpenClaw's two, and our own keys beside theirs.
//!
//! The JSON Schema that editors use is made from these types, and a file is checked against the same schema before it
//! is read into them ([`super::check`]): what an editor accepts and what `reef` accepts cannot drift apart.

use super::openclaw;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What the agents are, which models they ask, and how the gateway serves them. JSON5; `${NAME}` in a text stands for
/// the environment variable.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(title = "openclaw.json", transform = openclaw::top)]
pub(super) struct File {
    /// Where the schema is, for editors.
    #[serde(rename = "$schema")]
    pub schema: Option<String>,
    /// How clients reach the agents.
    pub gateway: Gateway,
    /// The agents: a list (the guide's form), or OpenClaw's object with `entries` or `list`.
    pub agents: Option<Agents>,
    /// Model vendors beyond, or other than, the built-in ones.
    pub models: Models,
    /// Which built-in tools every agent may call, unless it says otherwise itself.
    pub tools: Option<Tools>,
    /// How turns are run.
    pub turns: Turns,
    /// What `/hooks/*` may do.
    pub hooks: Hooks,
    /// IANA name of the time zone shown beside UTC and told to agents, e.g. `Asia/Tokyo`. Default: `TZ` of the
    /// environment, else UTC.
    pub time_zone: Option<String>,
}

/// How clients reach the agents.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(transform = openclaw::gateway)]
pub(super) struct Gateway {
    /// Default 18789; 0 lets the system choose.
    pub port: Option<u16>,
    /// On which addresses to listen. Default `loopback`.
    pub bind: Option<Bind>,
    /// The address for `bind: "custom"`.
    pub custom_bind_host: Option<String>,
    /// The guide's cluster settings: accepted.
    pub cluster: Option<Cluster>,
    /// Addresses or networks (CIDR) of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed. Where TLS ends
    /// in such a proxy, nothing else has to be said.
    pub trusted_proxies: Vec<String>,
    /// HTTP details.
    pub http: GatewayHttp,
    /// How much one token may ask. Default: 10 a second, burst 20.
    pub rate_limit: Option<RateLimit>,
    /// `inFront`: TLS ends in the proxies of `trustedProxies`, also if they send no `X-Forwarded-Proto`. Of nobody else is
    /// it believed. Default `none`.
    pub tls: Option<Tls>,
    /// Most connections; fewer if the process' file descriptors do not go round, two for each. Beyond: 503. Default 8000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<u32>,
    /// Most connections of one address. This host and trusted proxies are not counted. Beyond: 503. Default 128.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections_per_address: Option<u32>,
    /// Seconds in which a peer takes nothing of its answer before its connection is closed. Default 30.
    #[schemars(range(min = 0.05, max = 3600))]
    pub write_timeout_seconds: Option<f64>,
    /// Most bytes of a request's body. Default 20971520 (20 MiB).
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    pub max_body_bytes: Option<u32>,
    /// Memory for bodies, turns and listeners together, in bytes or as a text like `300MB` (at least 8 MB); beyond it new
    /// work is answered 503. Default: two fifths of what the process may use (its cgroup's limit, or the machine's memory).
    pub memory_budget: Option<Quantity>,
    /// Seconds of silence on a stream before a heartbeat. Default 10.
    #[schemars(range(min = 0.01, max = 3600))]
    pub heartbeat_seconds: Option<f64>,
    /// Seconds that a stopping process waits for its turns; unfinished ones go on at the next start. Default 30.
    #[schemars(range(min = 0, max = 86_400))]
    pub drain_seconds: Option<f64>,
}

/// On which addresses to listen.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Bind {
    All,
    Lan,
    Loopback,
    Auto,
    Custom,
}

/// Where TLS ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Tls {
    None,
    InFront,
}

/// The guide's cluster settings.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Cluster {
    /// Whether this process is one of several.
    pub enabled: bool,
    /// What this process is.
    pub mode: Option<ClusterMode>,
    /// `HOST:PORT` of the primary.
    pub primary: Option<String>,
}

/// What a process of a cluster is.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum ClusterMode {
    Gateway,
    Agent,
}

impl ClusterMode {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Agent => "agent",
        }
    }
}

/// HTTP details.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct GatewayHttp {
    /// OpenClaw's switches of endpoints. Reef serves all; what a caller may use is a matter of its token's scopes.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// Headers of every answer.
    pub security_headers: SecurityHeaders,
}

/// One endpoint's switch.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(transform = openclaw::endpoint)]
pub(super) struct Endpoint {
    /// OpenClaw's switch.
    pub enabled: Option<bool>,
}

/// Headers of every answer.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct SecurityHeaders {
    /// The header's value, or `false` for none. Default: `max-age=63072000` when TLS ends in front, else none.
    pub strict_transport_security: Option<TextOrSwitch>,
}

/// A text, or `false`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum TextOrSwitch {
    Text(String),
    Switch(bool),
}

/// How much one token may ask.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RateLimit {
    /// Requests per second in the long run.
    #[schemars(range(min = 0.001, max = 1_000_000))]
    pub per_second: f64,
    /// How many may come at once beyond that.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub burst: u32,
    /// Bytes that its bodies may have on the average: so many for each request of the rate. Default: 102400.
    #[schemars(range(min = 1))]
    pub bytes_per_request: Option<u32>,
}

/// The agents.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Agents {
    /// The guide's form.
    List(Vec<Agent>),
    /// OpenClaw's form.
    Table(Box<AgentTable>),
}

/// OpenClaw's form: agents by id, or the older list; and what holds for all.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct AgentTable {
    /// What holds for every agent that says nothing else.
    pub defaults: AgentDefaults,
    /// Agents by id. The first one answers requests that name none, unless one has `default: true`.
    pub entries: BTreeMap<String, Agent>,
    /// OpenClaw's older form.
    pub list: Vec<Agent>,
}

/// What holds for every agent that says nothing else.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(transform = openclaw::agent_defaults)]
pub(super) struct AgentDefaults {
    /// `provider/model`, or with fall-backs.
    pub model: Option<Model>,
    /// Folder of the agent that answers requests that name none; every further one gets this name with `-<id>` behind it.
    pub workspace: Option<Workspace>,
    /// IANA name of the time zone.
    pub user_timezone: Option<String>,
    /// IANA name of the time zone.
    pub time_zone: Option<String>,
    /// Most seconds of a turn. Default 600.
    #[schemars(range(min = 0.05, max = 86_400))]
    pub timeout_seconds: Option<f64>,
    /// Which built-in tools agents may call.
    pub tools: Option<Tools>,
    /// How far one turn may go.
    pub limits: Limits,
    /// What is reserved for each agent.
    pub resources: Resources,
}

/// An agent.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(transform = openclaw::agent)]
pub(super) struct Agent {
    /// `[a-z0-9][a-z0-9_-]{0,63}`, unique.
    pub id: Option<String>,
    /// Whether it answers requests that name no agent. At most one; without one the first does.
    pub default: Option<bool>,
    /// For people. Default: the id.
    pub name: Option<String>,
    /// What it is for, for people.
    pub description: Option<String>,
    /// `provider/model`, or with fall-backs.
    pub model: Option<Model>,
    /// Folder of its instructions (`AGENTS.md`, …) and files, relative to this file. Default: `workspaces/<id>`.
    pub workspace: Option<Workspace>,
    /// Which built-in tools it may call. Default: all.
    pub tools: Option<Tools>,
    /// IANA name of its time zone.
    pub time_zone: Option<String>,
    /// Most seconds of a turn; the same as `limits.seconds`.
    #[schemars(range(min = 0.05, max = 86_400))]
    pub timeout_seconds: Option<f64>,
    /// How far one turn may go.
    pub limits: Limits,
    /// What is reserved for it.
    pub resources: Resources,
}

/// A model, and what to ask when it does not answer.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Model {
    /// `provider/model`.
    One(String),
    /// With fall-backs.
    Chain(ModelChain),
}

/// A model with fall-backs.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct ModelChain {
    /// `provider/model`.
    pub primary: Option<String>,
    /// Asked in this order.
    pub fallbacks: Vec<String>,
}

/// A folder.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Workspace {
    /// Its path.
    Path(String),
    /// The guide's form.
    Table(WorkspaceTable),
}

/// The guide's form of a folder.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct WorkspaceTable {
    /// Its path.
    pub root: Option<String>,
}

/// Which built-in tools.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Tools {
    /// Exactly these.
    List(Vec<String>),
    /// These without those.
    Table(ToolTable),
}

/// Which built-in tools: these without those.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(transform = openclaw::tools)]
pub(super) struct ToolTable {
    /// Default: all.
    pub allow: Option<Vec<String>>,
    /// Wins over `allow`.
    pub deny: Vec<String>,
}

/// How far one turn may go.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Limits {
    /// Most model calls. Default 24.
    #[schemars(range(min = 1, max = 10_000))]
    pub steps: Option<u32>,
    /// Most seconds. Default 600.
    #[schemars(range(min = 0.05, max = 86_400))]
    pub seconds: Option<f64>,
    /// Most tokens of all model calls together. Default 2000000.
    #[schemars(range(min = 1))]
    pub tokens: Option<u64>,
}

/// What is reserved for an agent.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Resources {
    /// Bytes, or a text like `1.5GB` (a GB is 1024 MB).
    pub memory: Option<Quantity>,
    /// Cores, as a number or a text like `1.5`.
    pub cpu: Option<Quantity>,
}

/// A number, or a text of one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Quantity {
    Number(f64),
    Text(String),
}

/// Model vendors.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(transform = openclaw::models)]
pub(super) struct Models {
    /// By id: the part of a model's name before the slash. `anthropic`, `openai`, `ollama`, `vllm`, `lmstudio` and `demo`
    /// are built in; naming one here changes it.
    pub providers: BTreeMap<String, Provider>,
}

/// A model vendor.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(transform = openclaw::provider)]
pub(super) struct Provider {
    /// E.g. `https://api.openai.com/v1`.
    pub base_url: Option<String>,
    /// The key: best as `${NAME}` of an environment variable.
    pub api_key: Option<ApiKey>,
    /// The wire protocol. Default: that of the built-in provider, else `openai-completions`.
    pub api: Option<Api>,
    /// Further headers of each call.
    pub headers: BTreeMap<String, String>,
    /// Longest silence, in seconds, while an answer is awaited or streamed. Default 300.
    #[schemars(range(min = 0.05, max = 86_400))]
    pub timeout_seconds: Option<f64>,
    /// Most seconds until a connection stands. Default 10.
    #[schemars(range(min = 0.05, max = 3600))]
    pub connect_timeout_seconds: Option<f64>,
    /// Tries per call before its first token. Default 3.
    #[schemars(range(min = 1, max = 20))]
    pub max_attempts: Option<u32>,
    /// What is known of its models.
    pub models: Vec<ProviderModel>,
}

/// A key, or where it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum ApiKey {
    /// The key itself, or `${NAME}`.
    Text(String),
    /// OpenClaw's reference to a secret.
    Reference(SecretReference),
}

/// OpenClaw's reference to a secret.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SecretReference {
    /// Only `env` is known.
    #[expect(dead_code, reason = "checked by its type")]
    source: SecretSource,
    /// OpenClaw's name of the source.
    #[serde(default)]
    #[expect(dead_code, reason = "accepted: there is one environment")]
    provider: Option<String>,
    /// The environment variable.
    pub id: String,
}

/// Where secrets are.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum SecretSource {
    Env,
}

/// A wire protocol.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Api {
    AnthropicMessages,
    OpenaiCompletions,
    Ollama,
    OpenaiResponses,
    GoogleGenerativeAi,
    BedrockConverseStream,
    AzureOpenaiResponses,
}

/// What is known of a model.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(transform = openclaw::provider_model)]
pub(super) struct ProviderModel {
    /// The vendor's name of it.
    pub id: Option<String>,
    /// Most tokens of prompt and reply together. Default 200000.
    #[schemars(range(min = 256, max = 1_000_000_000))]
    pub context_window: Option<u32>,
    /// Most tokens of a reply, asked for when the client names none. Default 8192.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub max_tokens: Option<u32>,
}

/// How turns are run.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Turns {
    /// Seconds that a process may be silent before another one takes its turn over. Default 90.
    #[schemars(range(min = 0.05, max = 86_400))]
    pub lease_seconds: Option<f64>,
    /// Requests that may wait for one busy session. Default 32.
    #[schemars(range(min = 0, max = 100_000))]
    pub max_waiting: Option<u32>,
    /// Seconds that a request waits for a busy session. Default 120.
    #[schemars(range(min = 0, max = 86_400))]
    pub wait_seconds: Option<f64>,
    /// Most messages of a session in a prompt; beyond, a summary stands for the older ones. Default 100.
    #[schemars(range(min = 4, max = 100_000))]
    pub window_messages: Option<u32>,
    /// Newest messages that a summary leaves as they are. Default 20.
    #[schemars(range(min = 1, max = 100_000))]
    pub keep_messages: Option<u32>,
    /// Jobs that one process runs at once. Default 8.
    #[schemars(range(min = 1, max = 1000))]
    pub worker_concurrency: Option<u32>,
    /// Deliveries after which a failing job is given up. Default 5.
    #[schemars(range(min = 1, max = 1000))]
    pub job_max_attempts: Option<u32>,
}

/// What `/hooks/*` may do.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(transform = openclaw::hooks)]
pub(super) struct Hooks {
    /// Whether a caller may name the session. Default true.
    pub allow_request_session_key: Option<bool>,
    /// If so, only with one of these beginnings.
    pub allowed_session_key_prefixes: Vec<String>,
    /// The agents that hooks may start; `*` for all. Default: all.
    pub allowed_agent_ids: Option<Vec<String>>,
}
