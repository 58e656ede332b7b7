//! SQS, emulated: the server `ministack`, at an address of its own.
//!
//! `tests/run tools` puts it into `.venv-emulators`.

use crate::dynamo::{Dynamo, free_port, here};
use crate::stores::{Backend, stores_of};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use shared::adapters::aws::dynamodb::DynamoStores;
use shared::adapters::aws::sqs::SqsJobQueue;
use shared::app::Stores;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A server at work; killed with its last user.
#[derive(Debug)]
pub struct Sqs {
    endpoint: String,
    child: Child,
    queues: AtomicU64,
    _folder: tempfile::TempDir,
}

impl Drop for Sqs {
    fn drop(&mut self) {
        // It may have ended already; nothing that it holds is to be kept.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sqs {
    /// A new server, on a port that was free a moment ago; if somebody else took it meanwhile, on another one.
    pub fn start() -> Self {
        (0..10).find_map(|_| Self::start_on(free_port())).expect("a server on a free port")
    }

    fn start_on(port: u16) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
        let folder = tempfile::tempdir().expect("a folder");
        let endpoint = format!("http://127.0.0.1:{port}");
        let mut child = Command::new(root.join(".venv-emulators/bin/ministack"))
            .current_dir(folder.path())
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", port.to_string())
            // What it starts itself is not to ask the real one.
            .env("AWS_ENDPOINT_URL", &endpoint)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program `ministack`: install it with `tests/run tools`");
        let mut lines = BufReader::new(child.stderr.take().expect("its output")).lines();
        let is_up = lines.by_ref().map_while(Result::ok).any(|line| line.contains("Running on http"));
        // Whoever writes to a full pipe waits for ever.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let server = Self { endpoint, child, queues: AtomicU64::new(0), _folder: folder };
        is_up.then_some(server)
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
            .endpoint_url(&self.endpoint)
            .build();
        Client::from_conf(config)
    }

    /// A new, empty queue: its address.
    pub async fn queue(&self) -> String {
        let name = format!("jobs-{}", self.queues.fetch_add(1, Ordering::Relaxed));
        let created = self.client().create_queue().queue_name(name).send().await.expect("a new queue");
        created.queue_url.expect("its address")
    }
}

/// Empty stores of DynamoDB (emulated) with the job queue on SQS (emulated). Jobs are found without their messages as
/// soon as they are due: times in these tests are not those of the emulator's clock.
pub async fn sqs() -> Backend {
    let (dynamo, server) = (Dynamo::shared(), Sqs::start());
    let (core, local) = dynamo.tables().await;
    let rows = DynamoStores::new(Arc::new(core), Arc::new(local), here());
    let jobs = SqsJobQueue::new(
        rows.clone(),
        server.client().config().clone(),
        server.queue().await,
        Duration::ZERO,
    );
    let stores = Stores { jobs: Arc::new(jobs), ..stores_of(&Arc::new(rows)) };
    Backend { stores, _kept: Some(Box::new((dynamo, server))) }
}
