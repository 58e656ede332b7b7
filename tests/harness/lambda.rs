//! AWS Lambda, emulated: functions are the real binaries, talking to the real Runtime API protocol.
//!
//! [`Platform`] keeps functions and their instances as Lambda does: an instance handles one event at a time, is frozen
//! behind each answer (`SIGSTOP`: whatever a function leaves running stands still) and thawed for the next; more events at
//! once mean more instances, up to a limit; a time-out kills the instance. A function of another
//! region is one of another name ([`in_region`]); a call is for the region that its signature names. What AWS does and this
//! does not: rights, versions and aliases (an alias is accepted and ignored), retries of asynchronous calls, limits of size.
//!
//! [`front`] is an API gateway before one of the functions, [`source`] brings it the messages of a queue. AWS's own emulator
//! loses streamed answers, and others hold them back until they are complete: hence this one.

pub mod front;
mod invoke;
mod prompt;
mod runtime;
pub mod source;

use crate::process::Signal;
use bytes::Bytes;
use prompt::Prompt;
use runtime::{Instance, Work};
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// A function as it is deployed.
#[derive(Debug, Clone)]
pub struct Function {
    /// Its binary.
    pub program: PathBuf,
    /// Its environment, besides what the platform sets.
    pub environment: Vec<(String, String)>,
    /// A variable that differs: each new instance takes the next value, until there are none left.
    pub in_turn: Option<(String, Arc<Mutex<VecDeque<String>>>)>,
    /// Longest time for one event.
    pub timeout: Duration,
    /// Most instances; the next event is refused.
    pub concurrency: usize,
}

impl Function {
    /// A function of this binary, with 30 s for an event and up to 100 instances.
    pub fn new(program: &str) -> Self {
        let (timeout, concurrency) = (Duration::from_secs(30), 100);
        Self { program: program.into(), environment: Vec::new(), in_turn: None, timeout, concurrency }
    }

    /// With one more environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With an environment variable that has the first of these values for the first instance, and so on; for later ones
    /// it is not set.
    #[must_use]
    pub fn env_in_turn(mut self, name: &str, values: impl IntoIterator<Item = String>) -> Self {
        self.in_turn = Some((name.to_owned(), Arc::new(Mutex::new(values.into_iter().collect()))));
        self
    }

    /// The environment of a new instance.
    fn next_environment(&self) -> Vec<(String, String)> {
        let next = self.in_turn.iter().filter_map(|(name, values)| Some((name, lock(values).pop_front()?)));
        let next = next.map(|(name, value)| (name.clone(), value));
        self.environment.iter().cloned().chain(next).collect()
    }
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// More bytes.
    Data(Bytes),
    /// It is complete.
    End,
    /// It broke off.
    Error {
        /// Lambda's name for it, e.g. `Sandbox.Timedout`.
        code: String,
        /// What the function said.
        details: String,
    },
}

/// An answer as it comes.
pub type Parts = mpsc::UnboundedReceiver<Part>;

/// Why an event was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// Every instance is at work, and there may be no more.
    Throttled,
    /// There is no such function.
    Unknown,
}

/// A function's name in another region than the first.
pub fn in_region(name: &str, region: &str) -> String {
    format!("{name}@{region}")
}

/// The platform. Everything of it ends when it is dropped.
pub struct Platform {
    shared: Arc<Shared>,
    url: String,
    server: JoinHandle<()>,
}

/// What all functions share.
struct Shared {
    pools: Mutex<HashMap<String, Pool>>,
    next_id: AtomicU64,
    tasks: TaskTracker,
    /// Events whose answer has ended.
    answered: watch::Sender<u64>,
}

/// A function and its instances.
struct Pool {
    function: Function,
    idle: Vec<Arc<Instance>>,
    all: Vec<Arc<Instance>>,
    record: Record,
}

/// What is known of a function's instances, those that are gone included.
#[derive(Clone, Default)]
struct Record {
    logs: Arc<Mutex<Vec<String>>>,
    inits: Arc<Mutex<Vec<Duration>>>,
    deaths: Arc<Mutex<Vec<Instant>>>,
    /// Whoever reads what an instance says, until it has nothing more to say.
    readers: TaskTracker,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Platform {
    /// Starts one without functions.
    pub async fn start() -> Self {
        let shared = Arc::new(Shared {
            pools: Mutex::new(HashMap::new()),
            next_id: AtomicU64::new(1),
            tasks: TaskTracker::new(),
            answered: watch::Sender::new(0),
        });
        let (url, server) = serve(&shared.tasks, invoke::router(Arc::clone(&shared))).await;
        Self { shared, url, server }
    }

    /// Where functions are called: Lambda's own API, for `AWS_ENDPOINT_URL_LAMBDA`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Adds a function, or replaces it; its instances end.
    pub fn deploy(&self, name: &str, function: Function) {
        let pool = Pool { function, idle: Vec::new(), all: Vec::new(), record: Record::default() };
        let before = lock(&self.shared.pools).insert(name.to_owned(), pool);
        before.into_iter().flat_map(|pool| pool.all).for_each(|instance| instance.end());
    }

    /// Takes a function away; its instances end.
    pub fn remove(&self, name: &str) {
        let before = lock(&self.shared.pools).remove(name);
        before.into_iter().flat_map(|pool| pool.all).for_each(|instance| instance.end());
    }

    /// Brings an event to a function.
    ///
    /// # Errors
    /// No instance took it.
    pub async fn invoke(&self, name: &str, event: impl Into<Bytes>) -> Result<Parts, NotTaken> {
        self.shared.invoke(name, event.into()).await
    }

    /// Brings an event to a function and waits for the whole answer.
    ///
    /// # Errors
    /// Lambda's name for what happened, and what the function said.
    pub async fn answer(&self, name: &str, event: impl Into<Bytes>) -> Result<Vec<u8>, (String, String)> {
        let mut parts = self.invoke(name, event).await.expect("an instance for the event");
        let mut answer = Vec::new();
        while let Some(part) = parts.recv().await {
            match part {
                Part::Data(data) => answer.extend_from_slice(&data),
                Part::End => return Ok(answer),
                Part::Error { code, details } => return Err((code, details)),
            }
        }
        panic!("an answer without an end")
    }

    /// Counts the events whose answer has ended, of all functions.
    pub fn answered(&self) -> watch::Receiver<u64> {
        self.shared.answered.subscribe()
    }

    /// Kills every instance of a function, as if their hosts were gone. Returns how many there were.
    pub fn kill(&self, name: &str) -> usize {
        let pools = lock(&self.shared.pools);
        let instances = &pools[name].all;
        instances.iter().for_each(|instance| instance.signal(Signal::KILL));
        instances.len()
    }

    /// How many instances a function has.
    pub fn instances(&self, name: &str) -> usize {
        lock(&self.shared.pools)[name].all.len()
    }

    /// What the instances of a function have said, line by line.
    pub fn logs(&self, name: &str) -> Vec<String> {
        let logs = Arc::clone(&lock(&self.shared.pools)[name].record.logs);
        lock(&logs).clone()
    }

    /// All that the instances of a function have said, to the last line: they are killed.
    pub async fn last_words(&self, name: &str) -> Vec<String> {
        self.kill(name);
        let readers = lock(&self.shared.pools)[name].record.readers.clone();
        readers.close();
        readers.wait().await;
        self.logs(name)
    }

    /// From each instance's start to its asking for the first event.
    pub fn inits(&self, name: &str) -> Vec<Duration> {
        let inits = Arc::clone(&lock(&self.shared.pools)[name].record.inits);
        lock(&inits).clone()
    }

    /// When instances died that nobody had ended by deploying.
    pub fn deaths(&self, name: &str) -> Vec<Instant> {
        let deaths = Arc::clone(&lock(&self.shared.pools)[name].record.deaths);
        lock(&deaths).clone()
    }

    /// Process ids of a function's instances.
    pub fn processes(&self, name: &str) -> Vec<u32> {
        lock(&self.shared.pools)[name].all.iter().map(|instance| instance.process()).collect()
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.server.abort();
        // Their keepers hold the processes, which end with them.
        for pool in lock(&self.shared.pools).values_mut() {
            pool.all.drain(..).chain(pool.idle.drain(..)).for_each(|instance| instance.end());
        }
    }
}

impl Shared {
    async fn invoke(self: &Arc<Self>, name: &str, event: Bytes) -> Result<Parts, NotTaken> {
        let id = format!("00000000-0000-0000-0000-{:012}", self.next_id.fetch_add(1, Ordering::Relaxed));
        let (taken, timeout) = {
            let mut pools = lock(&self.pools);
            let pool = pools.get_mut(name).ok_or(NotTaken::Unknown)?;
            // The one that was at work last, as Lambda prefers.
            let idle = std::iter::from_fn(|| pool.idle.pop()).find(|instance| !instance.has_ended());
            if idle.is_none() && pool.all.len() >= pool.function.concurrency {
                return Err(NotTaken::Throttled);
            }
            (idle.ok_or_else(|| (pool.function.clone(), pool.record.clone())), pool.function.timeout)
        };
        let instance = match taken {
            Ok(instance) => instance,
            Err((function, record)) => {
                let instance = Instance::start(Arc::clone(self), name, &function, record).await;
                if let Some(pool) = lock(&self.pools).get_mut(name) {
                    pool.all.push(Arc::clone(&instance));
                }
                instance
            }
        };
        let (sender, parts) = mpsc::unbounded_channel();
        let work = Work { id, event, timeout, parts: sender };
        instance.give(work);
        Ok(parts)
    }

    fn has(&self, name: &str) -> bool {
        lock(&self.pools).contains_key(name)
    }

    /// An instance asks for the next event.
    fn is_idle(&self, name: &str, instance: &Arc<Instance>) {
        if let Some(pool) = lock(&self.pools).get_mut(name) {
            pool.idle.push(Arc::clone(instance));
        }
    }

    /// An instance is no more.
    fn has_ended(&self, name: &str, instance: &Arc<Instance>) {
        if let Some(pool) = lock(&self.pools).get_mut(name) {
            pool.idle.retain(|one| !Arc::ptr_eq(one, instance));
            pool.all.retain(|one| !Arc::ptr_eq(one, instance));
        }
    }
}

/// Serves on a loopback port of the system's choice; says where.
pub async fn serve(tasks: &TaskTracker, router: axum::Router) -> (String, JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
    let address = listener.local_addr().expect("a bound address");
    let server = tasks.spawn(async move {
        axum::serve(Prompt(listener), router).await.expect("the listener works");
    });
    (format!("http://{address}"), server)
}
