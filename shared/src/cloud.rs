//! What the three functions are wired from: [`start`] makes an [`App`] from the environment, once, before the first event
//! comes; [`batch`] answers the events of the queue and of the schedule.
//!
//! A function is asked one thing at a time, is put to sleep behind each answer, and may be killed at any moment. So nothing
//! is left to run behind an answer ([`Cloud::work`] is waited for), and what cannot end in time stops with its steps recorded
//! ([`Cloud::until`]).

pub mod batch;
pub mod emf;
pub mod operator;

use crate::adapters::aws::dynamodb::{DynamoRegions, DynamoStores, DynamoTable, Here};
use crate::adapters::aws::lambda::LambdaInvoker;
use crate::adapters::aws::on_use::OnUse;
use crate::adapters::aws::s3::S3Files;
use crate::adapters::aws::sqs::SqsJobQueue;
use crate::adapters::aws::start::function_config;
use crate::adapters::folder::FolderFiles;
use crate::adapters::models::{self, Providers};
use crate::agent::AgentInvoker;
use crate::agent::home::{HomeInvoker, HomeParts, HomeReceiver};
use crate::agent::runner::{Deadline, Runner, RunnerParts};
use crate::app::{App, Lifecycle, RowWatch, Stores};
use crate::budget::Budget;
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::config::{CloudConfig, Config, Env, Problems};
use crate::files::Files;
use crate::id::{IdSource, RandomIds, RegionId, TenantId};
use crate::logs::{JsonLines, LocalZone, report_panics};
use crate::metrics::{Metrics, Sink};
use crate::region::Regions;
use crate::tool::Tool;
use crate::tools;
use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use emf::EmfSink;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What is left of an invocation when turns stop: time to say so, and to be heard.
const CLOSING: Duration = Duration::from_secs(5);

/// A call of a table or a queue that takes so long has lost its connection, as one does while its function is asleep. Both
/// answer within some ten milliseconds.
const ATTEMPT: Duration = Duration::from_secs(5);

/// A job whose message has not come for so long after it was due has lost it.
const GRACE: Duration = Duration::from_secs(60);

/// Silence of a function that runs turns, before it says that it is alive.
pub const HEARTBEAT: Duration = Duration::from_secs(10);

/// Which function it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes requests; turns run in the agents' function.
    Gateway,
    /// Runs turns.
    Agents,
    /// Runs jobs, their turns included.
    Worker,
}

/// What a function meets outside its process.
pub struct Outside {
    /// Where data is kept.
    pub stores: Stores,
    /// The built-in tools by name.
    pub tools: BTreeMap<String, Arc<dyn Tool>>,
    /// Where turns run.
    pub turns: Turns,
}

/// Where turns run.
pub enum Turns {
    /// In another function.
    Elsewhere(Arc<dyn AgentInvoker>),
    /// Here, with these model vendors by id.
    Here(Providers),
}

/// Puts something around it: nothing in the product, fault points in the crash suite.
pub type Wrap = fn(Outside) -> Outside;

/// A wired function.
pub struct Cloud {
    /// All that a request or an event can meet.
    pub app: App,
    /// Everything at work; empty when an answer ends.
    pub work: TaskTracker,
    /// The queue, for the pointers that events bring.
    pub queue: Arc<SqsJobQueue>,
    deadline: Deadline,
}

impl Cloud {
    /// Lets turns run until shortly before `deadline`, the end of the present invocation.
    pub fn until(&self, deadline: Timestamp) {
        let left = deadline.since(self.app.clock.now() + CLOSING);
        self.deadline.set(Instant::now() + left);
    }

    /// Waits until nothing is at work.
    pub async fn idle(&self) {
        self.work.close();
        self.work.wait().await;
    }
}

/// Starts logging, reads the settings and wires the function. `None` if that is impossible; why is in the log then, all of
/// it, and the process has nothing to do but to end.
pub async fn start(role: Role, env: Env<'_>, wrap: Wrap) -> Option<Cloud> {
    let mut problems = Problems::default();
    let lines = start_logs(env, &mut problems);
    let (cloud, config) = read(role, env, &mut problems);
    if let Some(config) = &config {
        lines.set_zone(LocalZone::named(&config.time_zone));
    }
    let wired = match (cloud, config) {
        (Some(cloud), Some(config)) if problems.is_empty() => {
            let wired = match function_config(&cloud.region, cloud.host_roots).await {
                Ok(aws) => wire(role, &cloud, config, &aws, wrap),
                Err(problem) => Err(problem),
            };
            wired.map_err(|problem| problems.add("", problem)).ok()
        }
        _ => None,
    };
    for problem in problems.all() {
        tracing::error!(target: "error", { setting = problem.path, cause = problem.message }, "the function cannot start: a setting is wrong");
    }
    wired
}

/// What a function's process ends with when the platform lets it go.
pub fn ended(result: Result<(), Box<dyn std::error::Error + Send + Sync>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(target: "error", { cause = error.to_string() }, "the platform cannot be reached");
            ExitCode::FAILURE
        }
    }
}

/// One JSON object a line on standard output, where the platform takes it up. `REEF_LOG` says what, e.g. `info,access=off`.
fn start_logs(env: Env<'_>, problems: &mut Problems) -> JsonLines {
    let wanted = env("REEF_LOG").filter(|text| !text.trim().is_empty());
    let filter = wanted.as_deref().unwrap_or("info").parse::<Targets>().unwrap_or_else(|error| {
        problems.add("REEF_LOG", format!("{error}; write e.g. info, debug or info,access=off"));
        Targets::new().with_default(tracing::Level::INFO)
    });
    let json = JsonLines::default();
    let lines = tracing_subscriber::fmt::layer().event_format(json.clone()).fmt_fields(JsonFields::new());
    // A second start in one process keeps the first one's logs.
    let _ = tracing_subscriber::registry().with(filter).with(lines.with_writer(std::io::stdout)).try_init();
    report_panics();
    json
}

/// The environment and the settings file; what is wrong with either is added to the problems.
fn read(role: Role, env: Env<'_>, problems: &mut Problems) -> (Option<CloudConfig>, Option<Config>) {
    let mut told = |found: Problems| {
        for problem in found.all() {
            problems.add(problem.path.clone(), problem.message.clone());
        }
    };
    let cloud = CloudConfig::read(env).map_err(&mut told).ok();
    let Some(cloud) = cloud else { return (None, None) };
    let config = match std::fs::read_to_string(&cloud.settings) {
        Ok(text) => {
            let base = cloud.settings.parent().unwrap_or(Path::new("/"));
            // The gateway asks no model: it needs no vendor's key, and is given none.
            let read = match role {
                Role::Gateway if !cloud.demo => Config::inspect(&text, base, env),
                _ => Config::load(&text, base, env, cloud.demo),
            };
            let mut config = read.map_err(told).ok();
            if let (Role::Gateway, Some(config)) = (role, &mut config) {
                // Nobody reaches the function but through AWS's API gateway, which speaks TLS only.
                config.gateway.tls_in_front = true;
            }
            config
        }
        Err(error) => {
            let file = cloud.settings.display();
            problems.add(
                "REEF_CONFIG",
                format!("{file} cannot be read: {error}; put the settings into the layer"),
            );
            None
        }
    };
    (Some(cloud), config)
}

/// Puts the parts together. Opens no connection: the first event does.
fn wire(
    role: Role,
    cloud: &CloudConfig,
    config: Config,
    aws: &SdkConfig,
    wrap: Wrap,
) -> Result<Cloud, String> {
    for warning in &config.warnings {
        tracing::warn!(target: "operation", "{warning}");
    }
    let (stores, queue, rows) = stores(cloud, aws);
    let turns = match role {
        Role::Gateway => {
            Turns::Elsewhere(Arc::new(LambdaInvoker::new(aws, &cloud.region, &cloud.agent_function)))
        }
        Role::Agents | Role::Worker => {
            Turns::Here(models::build(&config.providers).map_err(|error| error.to_string())?)
        }
    };
    let Outside { stores, tools, turns } =
        wrap(Outside { stores, tools: tools::builtin(&files(cloud, aws)), turns });
    let (config, tools) = (Arc::new(config), Arc::new(tools));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids: Arc<dyn IdSource> = Arc::new(RandomIds);
    let sink = cloud
        .metrics_namespace
        .as_deref()
        .map(|namespace| Arc::new(EmfSink::new(namespace, Arc::clone(&clock))) as Arc<dyn Sink>);
    let metrics = Arc::new(Metrics::told(sink));
    rows.sightings().watched_by(Arc::new(RowWatch(Arc::clone(&metrics))));
    let work = TaskTracker::new();
    let deadline = Deadline::default();
    // The platform hands over one request at a time, of at most 6 MB.
    let budget = config
        .gateway
        .memory_budget
        .map_or_else(Budget::unlimited, |bytes| Budget::of(usize::try_from(bytes).unwrap_or(usize::MAX)));
    let agents: Arc<dyn AgentInvoker> = match turns {
        Turns::Elsewhere(agents) => agents,
        Turns::Here(models) => {
            let parts = RunnerParts {
                config: Arc::clone(&config),
                sessions: Arc::clone(&stores.sessions),
                models,
                tools: Arc::clone(&tools),
                clock: Arc::clone(&clock),
                ids: Arc::clone(&ids),
                metrics: Arc::clone(&metrics),
                budget: budget.clone(),
                turns: work.clone(),
            };
            Arc::new(Runner::with_deadline(parts, deadline.clone()))
        }
    };
    let regions: Option<Arc<dyn Regions>> = cloud.is_one_of_several().then(|| {
        Arc::new(DynamoRegions::new(rows, Arc::clone(&ids), config.turns.lease)) as Arc<dyn Regions>
    });
    let agents = match &regions {
        Some(regions) => {
            let invoker = |region: &str| {
                let invoker = LambdaInvoker::new(aws, region, &cloud.agent_function);
                (RegionId::new(region), Arc::new(invoker) as Arc<dyn AgentInvoker>)
            };
            let parts = HomeParts {
                here: RegionId::new(cloud.region.as_str()),
                regions: Arc::clone(regions),
                sessions: Arc::clone(&stores.sessions),
                local: agents,
                elsewhere: cloud.regions().filter(|region| *region != cloud.region).map(invoker).collect(),
                clock: Arc::clone(&clock),
                lease: config.turns.lease,
            };
            match role {
                Role::Agents => Arc::new(HomeReceiver::new(parts)) as Arc<dyn AgentInvoker>,
                Role::Gateway | Role::Worker => Arc::new(HomeInvoker::new(parts)),
            }
        }
        None => agents,
    };
    let lifecycle = Arc::new(Lifecycle::started(clock.now()));
    let tenant = TenantId::single();
    let app = App { config, stores, agents, regions, tools, clock, ids, tenant, metrics, budget, lifecycle };
    Ok(Cloud { app, work, queue, deadline })
}

/// The files of agents: what they write in the region's bucket, over the layer.
fn files(cloud: &CloudConfig, aws: &SdkConfig) -> Arc<dyn Files> {
    let config = aws_sdk_s3::config::Builder::from(aws).force_path_style(cloud.s3_endpoint.is_some()).build();
    Arc::new(S3Files::new(config, &cloud.files_bucket, Arc::new(FolderFiles)))
}

/// Every storage port, and the queue among them.
fn stores(cloud: &CloudConfig, aws: &SdkConfig) -> (Stores, Arc<SqsJobQueue>, DynamoStores) {
    let times = aws.timeout_config().map_or_else(TimeoutConfig::builder, TimeoutConfig::to_builder);
    let aws = &aws.to_builder().timeout_config(times.operation_attempt_timeout(ATTEMPT).build()).build();
    let client = OnUse::new(aws_sdk_dynamodb::Config::new(aws), aws_sdk_dynamodb::Client::from_conf);
    let table = |name: &str| Arc::new(DynamoTable::new(client.clone(), name));
    let here = Here { region: cloud.region.clone(), ordinal: cloud.ordinal, places: cloud.places.clone() };
    let rows = DynamoStores::new(table(&cloud.core_table), table(&cloud.local_table), here);
    let queue =
        Arc::new(SqsJobQueue::new(rows.clone(), aws_sdk_sqs::Config::new(aws), &cloud.queue_url, GRACE));
    let (all, rows) = (rows.clone(), Arc::new(rows));
    let stores = Stores {
        sessions: Arc::clone(&rows) as _,
        index: Arc::clone(&rows) as _,
        jobs: Arc::clone(&queue) as _,
        limits: Arc::clone(&rows) as _,
        tokens: Arc::clone(&rows) as _,
        answers: Arc::clone(&rows) as _,
        audit: rows,
    };
    (stores, queue, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_region_that_is_left_alone_takes_over_from_those_that_were_closed() {
        for (regions, expected) in [("eu-central-1", false), ("eu-central-1,closed", true)] {
            let env = |name: &str| {
                let value = match name {
                    "AWS_REGION" => "eu-central-1",
                    "REEF_REGIONS" => regions,
                    "REEF_QUEUE_URL" => "http://127.0.0.1:1/queue",
                    "REEF_CONFIG" => concat!(env!("CARGO_MANIFEST_DIR"), "/../infra/agents/openclaw.json"),
                    "REEF_CORE_TABLE" | "REEF_LOCAL_TABLE" | "REEF_FILES_BUCKET" | "REEF_AGENT_FUNCTION" => {
                        "a-name"
                    }
                    _ => return None,
                };
                Some(value.to_owned())
            };
            let cloud = start(Role::Gateway, &env, std::convert::identity).await.unwrap();
            assert_eq!(cloud.app.regions.is_some(), expected, "{regions}");
        }
    }
}
