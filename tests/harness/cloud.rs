//! The product on AWS, emulated: its three functions on the [`Platform`], their stores behind them, an API gateway in front.

use crate::dynamo::{Dynamo, create, region, regions_over};
use crate::files::Bucket;
use crate::lambda::front::Front;
use crate::lambda::source::{Poller, Source};
use crate::lambda::{Function, Platform, in_region};
use crate::sqs::Sqs;
use crate::stores::stores_of;
use serde_json::Value;
use shared::adapters::aws::dynamodb::schema::{CORE_INDEXES, LOCAL_INDEXES};
use shared::adapters::aws::dynamodb::{DynamoRegions, DynamoStores, DynamoTable};
use shared::adapters::aws::sqs::SqsJobQueue;
use shared::app::Stores;
use shared::clock::{Clock, SystemClock};
use shared::id::{AgentId, RandomIds, TenantId};
use shared::limit::Limit;
use shared::principal::{NewToken, Scope};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// The region in which the emulated platform says that it is.
pub const REGION: &str = "eu-central-1";

/// Where the functions' metrics are kept.
const NAMESPACE: &str = "Reef/test";

/// The functions' names, as the stack names them.
pub const GATEWAY: &str = "gateway";
/// Runs turns.
pub const AGENT_INVOKE: &str = "agent-invoke";
/// Runs jobs.
pub const QUEUE_WORKER: &str = "queue-worker";

/// The functions' binaries. Cargo tells where they are to integration tests only.
#[derive(Debug, Clone, Copy)]
pub struct Programs {
    /// `gateway`.
    pub gateway: &'static str,
    /// `agent-invoke`.
    pub agent_invoke: &'static str,
    /// `queue-worker`.
    pub queue_worker: &'static str,
}

/// What deployments share: the platform, DynamoDB, and a server of queues and buckets.
#[derive(Clone)]
pub struct Account {
    platform: Arc<Platform>,
    dynamo: Arc<Dynamo>,
    sqs: Arc<Sqs>,
}

impl Account {
    /// A new one, without deployments.
    pub async fn open() -> Self {
        let platform = Arc::new(Platform::start().await);
        Self { platform, dynamo: Dynamo::shared(), sqs: Arc::new(Sqs::start()) }
    }

    /// Deploys the functions with these settings (`openclaw.json`) in each of these regions. They share the table `core`, as
    /// if it replicated at once; the first region has the queue. Each region has a bucket. All names end with `suffix`.
    pub async fn deploy(
        &self,
        programs: Programs,
        settings: &Value,
        regions: &[&str],
        suffix: &str,
    ) -> Deployment {
        let Self { platform, dynamo, sqs } = self.clone();
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("openclaw.json");
        std::fs::write(&file, settings.to_string()).expect("a settings file");
        let core = format!("core{suffix}");
        let local_of = |region: &str| format!("local-{region}{suffix}");
        let bucket_of = |region: &str| format!("files-{region}{suffix}");
        let client = dynamo.client();
        create(&client, &core, &CORE_INDEXES).await;
        let mut buckets = Vec::new();
        for region in regions {
            buckets.push(Bucket::make(sqs.endpoint(), &bucket_of(region)).await);
            create(&client, &local_of(region), &LOCAL_INDEXES).await;
        }
        let queue_url = sqs.queue().await;
        let table = |name: &str| Arc::new(DynamoTable::new(client.clone(), name));
        let rows = DynamoStores::new(table(&core), table(&local_of(regions[0])), region(0, regions));
        let jobs =
            SqsJobQueue::new(rows.clone(), sqs.client().config().clone(), queue_url.as_str(), Duration::ZERO);
        let stores = Stores { jobs: Arc::new(jobs), ..stores_of(&Arc::new(rows.clone())) };
        let function = |program: &str, region: &str| {
            Function::new(program)
                .env("AWS_REGION", region)
                .env("REEF_CONFIG", file.to_str().expect("a path in UTF-8"))
                .env("REEF_CORE_TABLE", &core)
                .env("REEF_LOCAL_TABLE", &local_of(region))
                .env("REEF_QUEUE_URL", &queue_url)
                .env("REEF_FILES_BUCKET", &bucket_of(region))
                .env("REEF_AGENT_FUNCTION", &format!("{AGENT_INVOKE}{suffix}:live"))
                .env("REEF_REGIONS", &regions.join(","))
                .env("REEF_METRICS_NAMESPACE", NAMESPACE)
                .env("AWS_ENDPOINT_URL_DYNAMODB", dynamo.endpoint())
                .env("AWS_ENDPOINT_URL_LAMBDA", platform.url())
                .env("AWS_ENDPOINT_URL_S3", sqs.endpoint())
                .env("AWS_ENDPOINT_URL_SQS", sqs.endpoint())
                .env("AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH", "true")
        };
        let mut functions = Vec::new();
        for region in regions {
            for (name, program) in [
                (GATEWAY, programs.gateway),
                (AGENT_INVOKE, programs.agent_invoke),
                (QUEUE_WORKER, programs.queue_worker),
            ] {
                let name = format!("{name}{suffix}");
                let name = if *region == regions[0] { name } else { in_region(&name, region) };
                functions.push((name, function(program, region)));
            }
        }
        for (name, function) in &functions {
            platform.deploy(name, function.clone());
        }
        let front = Front::start(&platform, &format!("{GATEWAY}{suffix}")).await;
        let regions = regions_over(rows);
        let bucket = buckets.swap_remove(0);
        let poller = Poller::new(&platform, &format!("{QUEUE_WORKER}{suffix}"), sqs.client(), &queue_url);
        Deployment {
            platform,
            front,
            stores,
            regions,
            bucket,
            poller,
            functions,
            _dynamo: dynamo,
            _sqs: sqs,
            layer: folder,
        }
    }
}

/// A deployed installation; gone when dropped.
pub struct Deployment {
    /// Where the functions run.
    pub platform: Arc<Platform>,
    /// The API gateway.
    pub front: Front,
    /// The stores of the functions, for a test that looks behind the surface.
    pub stores: Stores,
    /// What the first region knows of all of them.
    pub regions: DynamoRegions,
    /// What agents wrote in the first region.
    pub bucket: Bucket,
    /// Brings the queue's messages to the worker, once each time it is asked to.
    pub poller: Poller,
    functions: Vec<(String, Function)>,
    _dynamo: Arc<Dynamo>,
    _sqs: Arc<Sqs>,
    layer: TempDir,
}

impl Drop for Deployment {
    fn drop(&mut self) {
        self.functions.iter().for_each(|(name, _)| self.platform.remove(name));
    }
}

impl Deployment {
    /// Deploys the functions with these settings (`openclaw.json`).
    pub async fn start(programs: Programs, settings: &Value) -> Self {
        Self::start_in(programs, settings, &[REGION]).await
    }

    /// Deploys the functions in each of these regions, in an account of their own.
    pub async fn start_in(programs: Programs, settings: &Value, regions: &[&str]) -> Self {
        Account::open().await.deploy(programs, settings, regions, "").await
    }

    /// What the functions find at `/opt`: the settings, and agents' folders beside them.
    pub fn layer(&self) -> &Path {
        self.layer.path()
    }

    /// Lets the queue bring its messages to the worker, in so many batches at once.
    pub fn bring_messages(&self, batches: usize) -> Source {
        Source::start(&self.poller, batches)
    }

    /// Deploys one of the functions again, changed.
    pub fn change(&self, name: &str, change: impl FnOnce(Function) -> Function) {
        let function = self.functions.iter().find(|(known, _)| known == name).expect("one of the functions");
        self.platform.deploy(name, change(function.1.clone()));
    }

    /// A new token with these scopes.
    pub async fn token(&self, scopes: &[Scope], limit: Limit) -> String {
        let new = NewToken {
            name: "test".to_owned(),
            scopes: scopes.to_vec(),
            agents: None::<Vec<AgentId>>,
            cidrs: None,
            limit: Some(limit),
            expires_at: None,
        };
        let (token, text) = new.mint(TenantId::single(), &RandomIds, SystemClock.now());
        self.stores.tokens.insert(&token).await.expect("a stored token");
        text.expose().to_owned()
    }

    /// A token for everything, without a limit that matters.
    pub async fn admin(&self) -> String {
        self.token(&[Scope::Admin], Limit { per_second: 100_000.0, burst: 100_000 }).await
    }

    /// The values of one metric that a function has reported, as AWS would read them from its log. Ends its instances.
    pub async fn metric(&self, function: &str, name: &str) -> Vec<f64> {
        let lines = self.platform.last_words(function).await;
        let documents = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let reported = documents.filter(|document| {
            let told = &document["_aws"]["CloudWatchMetrics"][0];
            told["Namespace"] == NAMESPACE && told["Metrics"][0]["Name"] == name
        });
        reported.map(|document| document[name].as_f64().expect("a number")).collect()
    }

    /// What the functions have said that is out of the ordinary.
    pub fn unusual(&self) -> String {
        let names = self.functions.iter().map(|(name, _)| name);
        let lines = names
            .flat_map(|name| self.platform.logs(name).into_iter().map(move |line| format!("{name}: {line}")));
        lines.filter(|line| !line.contains(r#""level":"info""#)).collect::<Vec<_>>().join("\n")
    }
}
