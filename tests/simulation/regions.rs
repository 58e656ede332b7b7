//! The three regions: tables that stay, and a process in each that may die and start again.

use super::dice::Dice;
use super::life::Life;
use super::model::{Effects, SimulatedModel, tools};
use super::tables::{LONGEST_LAG, REGIONS, RegionTable, Tables, Which};
use crate::stores::{stores_of, token};
use crate::time::SequentialIds;
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use shared::adapters::aws::dynamodb::table::Table;
use shared::adapters::aws::dynamodb::{DynamoRegions, DynamoStores};
use shared::agent::home::{HomeInvoker, HomeParts, HomeReceiver};
use shared::agent::runner::{Runner, RunnerParts};
use shared::agent::{AgentInvoker, RunRequest, TurnStream};
use shared::app::{App, Lifecycle, Stores};
use shared::budget::Budget;
use shared::clock::{Clock, Timestamp};
use shared::config::Config;
use shared::error::{Error, ErrorKind};
use shared::id::{IdSource, RegionId, TenantId, TurnId};
use shared::job::Apart;
use shared::limit::Limit;
use shared::metrics::Metrics;
use shared::model::ModelProvider;
use shared::principal::{Scope, Token, secret_sha256};
use shared::region::Regions;
use shared::session::{Session, SessionChange, TurnOutcome};
use shared::worker;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

const CONFIG: &str = r#"{
    agents: [{ id: "main", name: "Main", model: "demo/echo", workspace: { root: "./main" } }],
    hooks: { allowRequestSessionKey: true },
}"#;

/// The names of the regions; an index into it is a region's ordinal.
pub(super) const NAMES: [&str; REGIONS] = ["us-east-1", "eu-central-1", "ap-northeast-1"];

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What every history on a thread shares.
pub struct Stage {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    _files: TempDir,
}

impl Default for Stage {
    fn default() -> Self {
        let files = tempfile::tempdir().expect("a folder");
        let mut config = Config::load(CONFIG, files.path(), &|_| None, false).expect("settings");
        config.agents[0].tools = vec!["look".to_owned(), "pay".to_owned()];
        std::fs::create_dir_all(&config.agents[0].workspace).expect("a workspace");
        Self { config: Arc::new(config), metrics: Arc::new(Metrics::told(None)), _files: files }
    }
}

/// The runtime's own time, as a wall clock.
struct RuntimeClock(Instant);

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_795_132_800_000) + self.0.elapsed()
    }
}

/// A process of a region.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) life: Arc<Life>,
    pub(super) app: App,
    router: Router,
    /// What its own agent-invoke function is wired from: it answers the gateways of all regions.
    received: App,
}

/// Three regions.
pub(super) struct World {
    pub(super) tables: Arc<Tables>,
    pub(super) effects: Arc<Effects>,
    /// Everything that runs; it is dropped with the runtime.
    pub(super) work: TaskTracker,
    dice: Arc<Dice>,
    clock: Arc<RuntimeClock>,
    ids: Arc<SequentialIds>,
    stage: Arc<Stage>,
    processes: Mutex<Vec<Process>>,
    frozen: Mutex<Vec<Arc<Life>>>,
}

/// An answer, read to its end.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

pub(super) fn name(region: usize) -> RegionId {
    RegionId::new(NAMES[region])
}

impl World {
    /// Starts all regions.
    pub(super) async fn start(stage: &Arc<Stage>, dice: &Arc<Dice>) -> Arc<Self> {
        let world = Arc::new_cyclic(|me: &Weak<Self>| {
            let world = Self {
                tables: Tables::new(dice.clone()),
                effects: Arc::default(),
                work: TaskTracker::new(),
                dice: dice.clone(),
                clock: Arc::new(RuntimeClock(Instant::now())),
                ids: Arc::default(),
                stage: stage.clone(),
                processes: Mutex::default(),
                frozen: Mutex::default(),
            };
            let started = (0..REGIONS).map(|region| world.process(region, me)).collect();
            world.processes.lock().expect("no panic").clone_from(&started);
            world
        });
        let token = Token {
            tenant: TenantId::single(),
            secret_sha256: secret_sha256(SECRET),
            scopes: vec![Scope::Admin],
            limit: Some(Limit { per_second: 10_000.0, burst: 10_000 }),
            created_at: world.clock.now(),
            ..token("t", 0)
        };
        world.at(0).app.stores.tokens.insert(&token).await.expect("a token");
        for region in 0..REGIONS {
            world.beat(region).await;
        }
        // Every region knows of the others: one that was never heard of is not gone.
        tokio::time::sleep(LONGEST_LAG).await;
        while !world.tables.is_quiet() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        world
    }

    fn process(&self, region: usize, me: &Weak<Self>) -> Process {
        let life = Arc::new(Life::default());
        let (stores, regions) = stores(&self.tables, region, &life, self.ids.clone());
        let tools = Arc::new(tools(&life, &self.dice, &self.effects));
        let model = SimulatedModel { life: life.clone(), dice: self.dice.clone() };
        let config = self.stage.config.clone();
        let runner: Arc<dyn AgentInvoker> = Arc::new(Runner::new(RunnerParts {
            config: config.clone(),
            sessions: stores.sessions.clone(),
            models: BTreeMap::from([("demo".to_owned(), Arc::new(model) as Arc<dyn ModelProvider>)]),
            tools: tools.clone(),
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            metrics: self.stage.metrics.clone(),
            budget: Budget::unlimited(),
            turns: self.work.clone(),
        }));
        let peer = |to: usize| {
            let peer = Peer { world: me.clone(), from: region, to, life: life.clone() };
            (name(to), Arc::new(peer) as Arc<dyn AgentInvoker>)
        };
        let lease = config.turns.lease;
        let parts = |local| HomeParts {
            here: name(region),
            regions: regions.clone(),
            sessions: stores.sessions.clone(),
            local,
            elsewhere: (0..REGIONS).filter(|to| *to != region).map(peer).collect(),
            clock: self.clock.clone(),
            lease,
        };
        let receiver: Arc<dyn AgentInvoker> = Arc::new(HomeReceiver::new(parts(runner)));
        let agents = HomeInvoker::new(parts(receiver.clone()));
        let app = App {
            config,
            stores,
            agents: Arc::new(agents),
            regions: Some(regions.clone()),
            tools,
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            tenant: TenantId::single(),
            metrics: self.stage.metrics.clone(),
            budget: Budget::unlimited(),
            lifecycle: Arc::new(Lifecycle::started(self.clock.now())),
        };
        let received = App { agents: receiver, ..app.clone() };
        Process { life, router: shared::http::router(app.clone()), app, received }
    }

    /// The process of a region.
    pub(super) fn at(&self, region: usize) -> Process {
        self.processes.lock().expect("no panic")[region].clone()
    }

    /// Starts the process of a region anew if it died and the region is there.
    pub(super) fn restart(self: &Arc<Self>, region: usize) {
        if self.at(region).life.is_over() && !self.tables.is_lost(region) {
            self.replace(region);
        }
    }

    fn replace(self: &Arc<Self>, region: usize) {
        let process = self.process(region, &Arc::downgrade(self));
        self.processes.lock().expect("no panic")[region] = process;
    }

    /// Stops a region's process where it is, and starts another one.
    pub(super) fn freeze(self: &Arc<Self>, region: usize) {
        let life = self.at(region).life;
        life.set_frozen(true);
        self.frozen.lock().expect("no panic").push(life);
        if !self.tables.is_lost(region) {
            self.replace(region);
        }
    }

    /// Whether a process is stopped.
    pub(super) fn has_frozen(&self) -> bool {
        !self.frozen.lock().expect("no panic").is_empty()
    }

    /// Lets stopped processes go on.
    pub(super) fn thaw(&self) {
        for life in self.frozen.lock().expect("no panic").drain(..) {
            life.set_frozen(false);
        }
    }

    /// Ends every process of a region.
    pub(super) fn kill(&self, region: usize) {
        self.at(region).life.end();
    }

    /// Asks a region's gateway; `None` if its process dies, or the client gives up.
    pub(super) async fn ask(
        &self,
        region: usize,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Option<Answer> {
        let process = self.at(region);
        let peer = SocketAddr::from(([127, 0, 0, 1], 40_000));
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer reef_t_{SECRET}"))
            .header("content-type", "application/json")
            .extension(ConnectInfo(peer));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).expect("a request");
        let answered = async {
            let response = process.router.clone().oneshot(request).await.expect("an answer");
            let (head, body) = response.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            Answer { status: head.status, headers: head.headers, body }
        };
        let patient = tokio::time::timeout(Duration::from_secs(900), answered);
        process.life.during(patient).await.and_then(Result::ok)
    }

    /// A region's sign of life.
    pub(super) async fn beat(&self, region: usize) {
        let process = self.at(region);
        let regions = process.app.regions.clone().expect("several regions");
        let now = process.app.clock.now();
        // A store that fails is looked at again at the next beat.
        let _ = process.life.during(regions.beat(now)).await;
    }

    /// One look of a region's sweep. Returns how many turns it touched.
    pub(super) async fn sweep(&self, region: usize) -> usize {
        let process = self.at(region);
        process.life.during(worker::sweep::once(&process.app, &self.work)).await.unwrap_or(0)
    }

    /// Does what is due in a region's queue, once. Returns how many jobs there were.
    pub(super) async fn run_worker(&self, region: usize) -> usize {
        let process = self.at(region);
        let app = &process.app;
        let work = async {
            let now = app.clock.now();
            let Ok(due) =
                app.stores.jobs.receive(8, now, now + app.config.turns.lease, &Apart::default()).await
            else {
                return 0;
            };
            for delivery in &due {
                // Not settled: it is delivered again.
                let _ = worker::handle(app, delivery).await;
            }
            due.len()
        };
        process.life.during(work).await.unwrap_or(0)
    }
}

/// The way from one region to another one's agent-invoke function.
struct Peer {
    world: Weak<World>,
    from: usize,
    to: usize,
    life: Arc<Life>,
}

impl Peer {
    fn reached(&self) -> Result<(Arc<World>, Process), Error> {
        let failed = || {
            Error::new(ErrorKind::Unavailable, "the region cannot be reached").after(Duration::from_secs(5))
        };
        let world = self.world.upgrade().ok_or_else(failed)?;
        let process = world.at(self.to);
        let linked = world.tables.is_linked(self.from, self.to) && !process.life.is_over();
        if linked { Ok((world, process)) } else { Err(failed()) }
    }
}

fn broken_off() -> Error {
    Error::new(ErrorKind::Unavailable, "the region was lost meanwhile").after(Duration::from_secs(5))
}

#[async_trait]
impl AgentInvoker for Peer {
    async fn invoke(&self, request: RunRequest) -> Result<TurnStream, Error> {
        self.life.goes_on().await;
        let (world, process) = self.reached()?;
        let events = process.life.during(process.received.agents.invoke(request)).await;
        let events = events.ok_or_else(broken_off)??;
        let (tables, from, to) = (world.tables.clone(), self.from, self.to);
        let life = process.life.clone();
        let watched = futures::stream::unfold(Some(events), move |events| {
            let (tables, life) = (tables.clone(), life.clone());
            async move {
                let mut events = events?;
                let event = life.during(events.next()).await;
                if !tables.is_linked(from, to) {
                    return Some((Err(broken_off()), None));
                }
                match event {
                    None => Some((Err(broken_off()), None)),
                    Some(event) => event.map(|event| (event, Some(events))),
                }
            }
        });
        Ok(watched.boxed())
    }

    async fn resume(&self, _: &TenantId, _: &TurnId) -> Result<TurnOutcome, Error> {
        Err(Error::not_found("a region resumes its own turns only"))
    }

    async fn change(&self, change: &SessionChange) -> Result<Option<Session>, Error> {
        self.life.goes_on().await;
        let (world, process) = self.reached()?;
        let done = process.life.during(process.received.change(change)).await.ok_or_else(broken_off)?;
        if world.tables.is_linked(self.from, self.to) { done.map(Some) } else { Err(broken_off()) }
    }
}

/// The ports of a region over its tables.
pub(super) fn stores(
    tables: &Arc<Tables>,
    region: usize,
    life: &Arc<Life>,
    ids: Arc<dyn IdSource>,
) -> (Stores, Arc<dyn Regions>) {
    let core: Arc<dyn Table> = RegionTable::new(tables, region, Which::Core, life);
    let local: Arc<dyn Table> = RegionTable::new(tables, region, Which::Local, life);
    let stores = DynamoStores::new(core, local, crate::dynamo::region(region, &NAMES));
    let regions = DynamoRegions::new(stores.clone(), ids, Duration::from_secs(90));
    (stores_of(&Arc::new(stores)), Arc::new(regions))
}
