//! A runner on memory stores and a fake vendor: everything between a request and its reply, in this process.

use crate::files::tools_on_folders;
use crate::time::{ManualClock, SequentialIds};
use crate::vendor::Vendor;
use futures::StreamExt;
use shared::adapters::memory::Memory;
use shared::adapters::models;
use shared::adapters::prometheus::Prometheus;
use shared::agent::runner::{Runner, RunnerParts};
use shared::agent::{Agent, AgentInvoker, Resources, RunOptions, RunRequest, TurnEvent, TurnLimits};
use shared::budget::Budget;
use shared::clock::Clock;
use shared::config::{
    Config, GatewayConfig, HooksConfig, ModelInfo, ProviderApi, ProviderConfig, TurnConfig,
};
use shared::error::Error;
use shared::id::{AgentId, IdSource, PrincipalId, SessionKey, TenantId, TurnId};
use shared::message::MessageBody;
use shared::metrics::Metrics;
use shared::secret::Secret;
use shared::session::{Idempotency, Reply, SessionStore, TurnOutcome, Window};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// The stage of a runner's test.
pub struct Lab {
    /// The stores.
    pub memory: Memory,
    /// What time it is.
    pub clock: Arc<ManualClock>,
    /// The models' vendor.
    pub vendor: Vendor,
    /// What runs the turns.
    pub runner: Runner,
    /// Where they run.
    pub turns: TaskTracker,
    /// The agents' workspace.
    pub workspace: tempfile::TempDir,
    config: Config,
    ids: Arc<SequentialIds>,
}

impl Lab {
    /// One agent, `a`, with every built-in tool, on the model `vendor/small`.
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With a changed configuration.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let vendor = Vendor::start().await;
        let workspace = tempfile::tempdir().expect("a folder");
        std::fs::write(workspace.path().join("AGENTS.md"), "Be brief.").expect("a file");
        let mut config = config(&vendor.url(), workspace.path());
        change(&mut config);
        let (memory, turns) = (Memory::new(), TaskTracker::new());
        let (clock, ids) = (Arc::new(ManualClock::default()), Arc::new(SequentialIds::default()));
        let runner = Runner::new(parts(&config, &memory, &clock, &ids, &turns));
        Self { memory, clock, vendor, runner, turns, workspace, config, ids }
    }

    /// Another process on the same stores.
    pub fn another_runner(&self) -> Runner {
        Runner::new(self.parts())
    }

    /// What a runner of another process works with.
    pub fn parts(&self) -> RunnerParts {
        parts(&self.config, &self.memory, &self.clock, &self.ids, &self.turns)
    }

    /// A request of one text on the session `agent:a:main`.
    pub fn request(&self, text: &str) -> RunRequest {
        RunRequest {
            turn: TurnId::new(self.ids.ulid(self.clock.now())),
            tenant: TenantId::single(),
            principal: PrincipalId::new("p"),
            agent: AgentId::new("a"),
            session: SessionKey::new("agent:a:main"),
            sticky: true,
            idempotency: None,
            input: vec![MessageBody::user_text(text)],
            options: RunOptions { trigger: "chat".into(), ..RunOptions::default() },
        }
    }

    /// With an idempotency key whose fingerprint is the text.
    pub fn keyed(&self, key: &str, text: &str) -> RunRequest {
        let idempotency = Some(Idempotency { key: key.into(), fingerprint: text.into() });
        RunRequest { idempotency, ..self.request(text) }
    }

    /// Runs a turn to its outcome.
    ///
    /// # Errors
    /// As [`AgentInvoker::invoke`].
    pub async fn outcome(&self, request: RunRequest) -> Result<TurnOutcome, Error> {
        ended(&self.runner, request).await
    }

    /// Runs a turn that gets a reply.
    pub async fn reply(&self, request: RunRequest) -> Reply {
        match self.outcome(request).await.expect("an accepted turn") {
            TurnOutcome::Done(reply) => reply,
            other => panic!("no reply: {other:?}"),
        }
    }

    /// The transcript of `agent:a:main`.
    pub async fn transcript(&self) -> Vec<MessageBody> {
        let key = SessionKey::new("agent:a:main");
        let messages =
            self.memory.transcript(&TenantId::single(), &key, Window::newest(1_000)).await.expect("memory");
        messages.into_iter().map(|message| message.body).collect()
    }

    /// The messages of the vendor's `nth` request, as it got them.
    pub fn prompt(&self, nth: usize) -> Vec<serde_json::Value> {
        self.vendor.requests()[nth].body["messages"].as_array().expect("messages").clone()
    }
}

/// Runs a turn to its outcome.
///
/// # Errors
/// As [`AgentInvoker::invoke`], and if the turn was lost on the way.
pub async fn ended(runner: &Runner, request: RunRequest) -> Result<TurnOutcome, Error> {
    let mut events = runner.invoke(request).await?;
    while let Some(event) = events.next().await {
        if let TurnEvent::Ended { outcome } = event? {
            return Ok(outcome);
        }
    }
    panic!("the events stopped without an end");
}

fn parts(
    config: &Config,
    memory: &Memory,
    clock: &Arc<ManualClock>,
    ids: &Arc<SequentialIds>,
    turns: &TaskTracker,
) -> RunnerParts {
    RunnerParts {
        config: Arc::new(config.clone()),
        sessions: Arc::new(memory.clone()),
        models: models::build(&config.providers).expect("a vendor"),
        tools: Arc::new(tools_on_folders()),
        clock: clock.clone(),
        ids: ids.clone(),
        metrics: Arc::new(Metrics::kept(Prometheus::default())),
        budget: Budget::unlimited(),
        turns: turns.clone(),
    }
}

fn config(vendor: &str, workspace: &std::path::Path) -> Config {
    let agent = Agent {
        id: AgentId::new("a"),
        name: "A".into(),
        description: None,
        model: "vendor/small".parse().expect("a model"),
        fallbacks: Vec::new(),
        workspace: workspace.to_owned(),
        tools: tools_on_folders().into_keys().collect(),
        time_zone: "Asia/Tokyo".into(),
        limits: TurnLimits::default(),
        resources: Resources::default(),
    };
    let provider = ProviderConfig {
        api: ProviderApi::OpenAiCompletions,
        base_url: format!("{vendor}/v1"),
        api_key: Some(Secret::new("key-of-the-test")),
        headers: BTreeMap::new(),
        connect_timeout: Duration::from_secs(10),
        read_timeout: Duration::from_secs(3_600),
        max_attempts: 1,
        models: BTreeMap::from([("small".into(), ModelInfo { context_window: 4_000, max_tokens: 500 })]),
    };
    Config {
        gateway: GatewayConfig::default(),
        agents: vec![agent],
        default_agent: 0,
        providers: BTreeMap::from([("vendor".into(), provider)]),
        turns: TurnConfig::default(),
        hooks: HooksConfig::default(),
        time_zone: "Asia/Tokyo".into(),
        warnings: Vec::new(),
    }
}
