//! The whole product in this process, without a socket: the real router, Runner and tools over stores in memory and
//! the demo model, with a clock that stands still and names that count up.

use crate::files::tools_on_folders;
use crate::stores::{stores_of, token};
use crate::time::{ManualClock, SequentialIds};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;
use shared::adapters::memory::Memory;
use shared::adapters::models;
use shared::adapters::prometheus::Prometheus;
use shared::agent::AgentInvoker;
use shared::agent::runner::{Runner, RunnerParts};
use shared::app::{App, Lifecycle, Stores};
use shared::budget::Budget;
use shared::clock::Clock;
use shared::config::Config;
use shared::id::TenantId;
use shared::job::Apart;
use shared::metrics::Metrics;
use shared::principal::{Scope, Token, secret_sha256};
use shared::tool::Tool;
use shared::worker;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

/// Two agents on the demo model; `main` is the default.
const CONFIG: &str = r#"{
    agents: [
        { id: "main", name: "Main", model: "demo/echo", workspace: { root: "./main" } },
        { id: "email-manager", name: "Mail", model: "demo/echo", workspace: { root: "./mail" } },
    ],
}"#;

/// Where the proxy is that some of them stand behind.
const PROXY: &str = "10.0.0.1";

/// The secret of every token that a test makes.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The product, ready to be asked.
pub struct TestApp {
    /// Its parts, for a test that looks behind the surface.
    pub app: App,
    /// Its clock.
    pub clock: Arc<ManualClock>,
    /// Where its turns run.
    pub turns: TaskTracker,
    router: Router,
    /// The agents' workspaces.
    pub files: TempDir,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("an answer in UTF-8")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The status and the error body's `code`; a body that is no JSON stands for its own code.
    pub fn code(&self) -> (u16, String) {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or(Value::Null);
        let code = body["error"]["code"].as_str().unwrap_or_else(|| self.text());
        (self.status.as_u16(), code.to_owned())
    }

    /// A header's text; empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a header in ASCII"))
    }

    /// The `data:` lines of an event stream, each as JSON; `[DONE]` as that text.
    pub fn events(&self) -> Vec<Value> {
        let lines = self.text().lines().filter_map(|line| line.strip_prefix("data: "));
        lines.map(|data| serde_json::from_str(data).unwrap_or_else(|_| data.into())).collect()
    }
}

fn in_memory() -> Stores {
    stores_of(&Arc::new(Memory::new()))
}

impl Default for TestApp {
    fn default() -> Self {
        Self::new()
    }
}

impl TestApp {
    /// With the settings that a site starts with.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// With other settings.
    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::build(change, tools_on_folders(), in_memory(), |runner| Arc::new(runner))
    }

    /// Behind a trusted proxy that ends TLS.
    pub fn behind_a_proxy() -> Self {
        Self::with(|config| {
            config.gateway.trusted_proxies =
                vec![PROXY.parse::<std::net::IpAddr>().expect("an address").into()];
        })
    }

    /// Over other stores than memory.
    pub fn with_stores(stores: Stores) -> Self {
        Self::build(|_| {}, tools_on_folders(), stores, |runner| Arc::new(runner))
    }

    /// With a further tool that every agent may call.
    pub fn with_tool(tool: Arc<dyn Tool>) -> Self {
        let name = tool.spec().name.clone();
        let mut tools = tools_on_folders();
        tools.insert(name.clone(), tool);
        let allow =
            |config: &mut Config| config.agents.iter_mut().for_each(|agent| agent.tools.push(name.clone()));
        Self::build(allow, tools, in_memory(), |runner| Arc::new(runner))
    }

    /// With somebody else than the [`Runner`] to run turns: for answers that a demo model does not give.
    pub fn with_agents(agents: Arc<dyn AgentInvoker>) -> Self {
        Self::build(|_| {}, tools_on_folders(), in_memory(), |_| agents)
    }

    fn build(
        change: impl FnOnce(&mut Config),
        tools: BTreeMap<String, Arc<dyn Tool>>,
        stores: Stores,
        agents: impl FnOnce(Runner) -> Arc<dyn AgentInvoker>,
    ) -> Self {
        let files = tempfile::tempdir().expect("a folder for workspaces");
        let mut config = Config::load(CONFIG, files.path(), &|_| None, false).expect("the harness' settings");
        change(&mut config);
        for agent in &config.agents {
            std::fs::create_dir_all(&agent.workspace).expect("a workspace");
        }
        let config = Arc::new(config);
        let clock = Arc::new(ManualClock::default());
        let ids = Arc::new(SequentialIds::default());
        let metrics = Arc::new(Metrics::kept(Prometheus::default()));
        let budget = config.gateway.memory_budget.map_or_else(Budget::unlimited, |bytes| {
            Budget::of(usize::try_from(bytes).expect("a budget that a process can have"))
        });
        let turns = TaskTracker::new();
        let tools = Arc::new(tools);
        let runner = Runner::new(RunnerParts {
            config: config.clone(),
            sessions: stores.sessions.clone(),
            models: models::build(&config.providers).expect("the demo model"),
            tools: tools.clone(),
            clock: clock.clone(),
            ids: ids.clone(),
            metrics: metrics.clone(),
            budget: budget.clone(),
            turns: turns.clone(),
        });
        let app = App {
            config,
            stores,
            agents: agents(runner),
            regions: None,
            tools,
            clock: clock.clone(),
            ids,
            tenant: TenantId::single(),
            metrics,
            budget,
            lifecycle: Arc::new(Lifecycle::started(clock.now())),
        };
        let router = shared::http::router(app.clone());
        Self { app, clock, turns, router, files }
    }

    /// A new token with these scopes.
    pub async fn token(&self, id: &str, scopes: &[Scope]) -> String {
        self.token_with(id, scopes, |_| {}).await
    }

    /// A new token with these scopes, changed before it is stored.
    pub async fn token_with(&self, id: &str, scopes: &[Scope], change: impl FnOnce(&mut Token)) -> String {
        let mut token = Token {
            tenant: self.app.tenant.clone(),
            secret_sha256: secret_sha256(SECRET),
            scopes: scopes.to_vec(),
            created_at: self.clock.now(),
            ..token(id, 0)
        };
        change(&mut token);
        self.app.stores.tokens.insert(&token).await.expect("a new token");
        format!("reef_{id}_{SECRET}")
    }

    /// Starts a request from this very host, with the token.
    pub fn ask(&self, method: Method, path: &str, token: &str) -> Ask<'_> {
        let request = Request::builder().method(method).uri(path);
        let ask = Ask { app: self, request, peer: SocketAddr::from(([127, 0, 0, 1], 40_000)) };
        if token.is_empty() {
            ask
        } else {
            ask.header(header::AUTHORIZATION.as_str(), &format!("Bearer {token}"))
        }
    }

    /// Starts a GET.
    pub fn get(&self, path: &str, token: &str) -> Ask<'_> {
        self.ask(Method::GET, path, token)
    }

    /// Starts a POST.
    pub fn post(&self, path: &str, token: &str) -> Ask<'_> {
        self.ask(Method::POST, path, token)
    }

    /// Does what waits in the queue, once, as the worker role does it. Returns how many jobs there were.
    pub async fn work(&self) -> usize {
        let now = self.clock.now();
        let due = self
            .app
            .stores
            .jobs
            .receive(100, now, now + Duration::from_secs(60), &Apart::default())
            .await
            .expect("the queue");
        for delivery in &due {
            let outcome = worker::process(&self.app, delivery).await;
            let settled = self.app.stores.jobs.settle(&delivery.receipt, &outcome, self.clock.now()).await;
            settled.expect("a settled job");
        }
        due.len()
    }
}

/// A request being made.
pub struct Ask<'a> {
    app: &'a TestApp,
    request: http::request::Builder,
    peer: SocketAddr,
}

impl Ask<'_> {
    /// Adds a header.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.header_bytes(name, value.as_bytes())
    }

    /// Adds a header whose value need not be text.
    #[must_use]
    pub fn header_bytes(mut self, name: &str, value: &[u8]) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    /// Asks from this address.
    #[must_use]
    pub fn from(mut self, peer: &str) -> Self {
        self.peer = SocketAddr::new(peer.parse().expect("an address"), 40_000);
        self
    }

    /// Asks from this address, through the proxy of [`TestApp::behind_a_proxy`].
    #[must_use]
    pub fn through_the_proxy(self, caller: &str) -> Self {
        self.from(PROXY).header("x-forwarded-for", caller).header("x-forwarded-proto", "https")
    }

    /// Sends it without a body.
    pub async fn send(self) -> Answer {
        self.body(Body::empty()).await
    }

    /// Sends it with a JSON body.
    pub async fn json(self, body: &Value) -> Answer {
        self.header(header::CONTENT_TYPE.as_str(), "application/json").body(body.to_string()).await
    }

    /// Sends it with any body.
    pub async fn body(self, body: impl Into<Body>) -> Answer {
        let (status, headers, body) = self.open(body).await;
        let body = body.collect().await.expect("an answer to its end").to_bytes();
        Answer { status, headers, body }
    }

    /// Sends it and returns before the answer's body is read.
    pub async fn open(self, body: impl Into<Body>) -> (StatusCode, HeaderMap, Body) {
        let request = self.request.extension(ConnectInfo(self.peer)).body(body.into()).expect("a request");
        let response = self.app.router.clone().oneshot(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        (head.status, head.headers, body)
    }
}
