//! Wires a site: settings, the store on disk, model vendors and tools become one [`App`] that runs turns.

use crate::fault::Fault;
use crate::folder;
use crate::memory;
use crate::private;
use shared::adapters::folder::FolderFiles;
use shared::adapters::models::{self, Providers};
use shared::adapters::onprem::Sqlite;
use shared::adapters::prometheus::Prometheus;
use shared::agent::runner::{Runner, RunnerParts};
use shared::app::{App, Lifecycle, RowWatch, Stores};
use shared::clock::{Clock, SystemClock};
use shared::config::Config;
use shared::files::Files;
use shared::id::{IdSource, RandomIds, TenantId};
use shared::metrics::Metrics;
use shared::tool::Tool;
use shared::tools;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio_util::task::TaskTracker;

/// What turns meet outside this process.
pub struct Outside {
    /// Where data is kept.
    pub stores: Stores,
    /// Model vendors by id.
    pub models: Providers,
    /// The built-in tools by name.
    pub tools: BTreeMap<String, Arc<dyn Tool>>,
}

/// Puts something around it: nothing in the product, fault points in the crash suite.
pub type Wrap = fn(Outside) -> Outside;

/// A wired site.
pub(crate) struct Site {
    pub(crate) app: App,
    /// Everything at work; waited for before the store is closed.
    pub(crate) tasks: TaskTracker,
    pub(crate) store: Sqlite,
}

/// The store of a data directory, made if it is not there.
pub(crate) fn store(data: &Path) -> Result<Sqlite, Fault> {
    Sqlite::open(data).map_err(|error| folder::unusable(data, &error))
}

/// The store of a data directory that must be there: a command that only looks makes nothing. `instead` is what else can
/// be done if it is not.
pub(crate) fn existing_store(data: &Path, instead: &str) -> Result<Sqlite, Fault> {
    folder::needs_data(data, instead)?;
    store(data)
}

/// Runs a command that waits for the store, on this thread.
pub(crate) fn block_on<T>(command: impl Future<Output = T>) -> Result<T, Fault> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Fault::because("the command cannot be started", &error))?;
    Ok(runtime.block_on(command))
}

/// Every storage port of a store.
pub(crate) fn stores(store: &Sqlite) -> Stores {
    Stores {
        sessions: Arc::new(store.clone()),
        index: Arc::new(store.clone()),
        jobs: Arc::new(store.clone()),
        limits: Arc::new(store.clone()),
        tokens: Arc::new(store.clone()),
        answers: Arc::new(store.clone()),
        audit: Arc::new(store.clone()),
    }
}

/// Opens the store and wires everything; runs nothing yet.
pub(crate) fn open(data: &Path, config: Config, wrap: Wrap) -> Result<Site, Fault> {
    let models = models::build(&config.providers)
        .map_err(|error| Fault::because("a model provider cannot be used", &error))?;
    for agent in &config.agents {
        private::make_folder(&agent.workspace).map_err(|error| {
            let folder = agent.workspace.display();
            Fault::because(&format!("the workspace {folder} of agent {} cannot be made", agent.id), &error)
        })?;
    }
    let store = store(data)?;
    let files: Arc<dyn Files> = Arc::new(FolderFiles);
    let outside = wrap(Outside { stores: stores(&store), models, tools: tools::builtin(&files) });
    let config = Arc::new(config);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids: Arc<dyn IdSource> = Arc::new(RandomIds);
    let metrics = Arc::new(Metrics::kept(Prometheus::default()));
    store.sightings().watched_by(Arc::new(RowWatch(Arc::clone(&metrics))));
    let tools = Arc::new(outside.tools);
    let budget = memory::budget(&config.gateway);
    let tasks = TaskTracker::new();
    let runner = Runner::new(RunnerParts {
        config: Arc::clone(&config),
        sessions: Arc::clone(&outside.stores.sessions),
        models: outside.models,
        tools: Arc::clone(&tools),
        clock: Arc::clone(&clock),
        ids: Arc::clone(&ids),
        metrics: Arc::clone(&metrics),
        budget: budget.clone(),
        turns: tasks.clone(),
    });
    let lifecycle = Arc::new(Lifecycle::started(clock.now()).needing(Arc::new(store.clone())));
    let app = App {
        config,
        stores: outside.stores,
        agents: Arc::new(runner),
        regions: None,
        tools,
        clock,
        ids,
        tenant: TenantId::single(),
        metrics,
        budget,
        lifecycle,
    };
    Ok(Site { app, tasks, store })
}
