//! Crash points: the ports wrapped so that the process kills itself (SIGKILL) at a labelled point of a turn.
//!
//! The binaries `reef-crash`, `gateway-crash`, `agent-invoke-crash` and `queue-worker-crash` are the product with these around
//! its ports, and nothing else. Two environment variables steer them: `REEF_CRASH_AT=POINT[:N]` names the point and its N-th passing (1 if not given) at which the process dies;
//! `REEF_CRASH_LOG=FILE` has every passing written down, a line each, the fatal one with a `!` before it. Without them
//! nothing happens. The wrappers sit where a real crash does its harm: on both sides of each durable step and of each
//! effect.

use async_trait::async_trait;
use futures::StreamExt;
use shared::agent::{AgentInvoker, RunRequest, TurnEvent, TurnStream};
use shared::answer::{Answer, AnswerKey, AnswerStore, Claim};
use shared::app::Stores;
use shared::clock::Timestamp;
use shared::cloud::{Outside, Turns};
use shared::error::{Error, StoreError};
use shared::id::{JobId, SessionKey, TenantId, TurnId};
use shared::job::{Apart, Backlog, Delivery, Job, JobFilter, JobQueue, NewJob, Outcome, Receipt};
use shared::message::Message;
use shared::model::{ModelError, ModelEvent, ModelProvider, ModelRequest, ModelStream};
use shared::session::{
    Begun, Lease, NewTurn, Session, SessionChange, SessionStore, Step, Turn, TurnOutcome, Window,
};
use shared::tool::{Tool, ToolContext, ToolError, ToolOutput, ToolSpec};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Every point, in about the order in which a job's turn with tools passes them.
pub const POINTS: [&str; 27] = [
    "claim.before",
    "claim.after",
    "enqueue.before",
    "enqueue.after",
    "answer.before",
    "answer.after",
    "hop.before",
    "hop.first-event",
    "hop.mid-stream",
    "hop.after-end",
    "receive.after",
    "begin.before",
    "begin.after",
    "model.before-call",
    "model.first-event",
    "model.mid-stream",
    "model.after-stop",
    "append.before",
    "append.after",
    "tool.before-effect",
    "tool.after-effect",
    "renew.before",
    "renew.after",
    "commit.before",
    "commit.after",
    "settle.before",
    "settle.after",
];

/// Where this process is to die, and what it tells of its way there.
#[derive(Debug)]
pub struct CrashPoints {
    point: Option<String>,
    passings_left: AtomicU64,
    log: Option<File>,
}

impl CrashPoints {
    /// `at` is `POINT` or `POINT:N`, or `None` for nowhere; passings are written to `log`.
    ///
    /// # Errors
    /// There is no such point, or the log cannot be opened.
    pub fn new(at: Option<&str>, log: Option<&Path>) -> Result<Arc<Self>, String> {
        let open = |path: &Path| OpenOptions::new().create(true).append(true).open(path);
        let log = log.map(open).transpose().map_err(|error| format!("the log of passings: {error}"))?;
        let Some(at) = at else {
            return Ok(Arc::new(Self { point: None, passings_left: AtomicU64::new(0), log }));
        };
        let (point, passing) = at.split_once(':').unwrap_or((at, "1"));
        if !POINTS.contains(&point) {
            return Err(format!("no crash point `{point}`; there are {}", POINTS.join(", ")));
        }
        let passing = passing.parse().map_err(|_| format!("`{passing}` is not a number of passings"))?;
        Ok(Arc::new(Self { point: Some(point.to_owned()), passings_left: AtomicU64::new(passing), log }))
    }

    /// As the environment says.
    #[expect(clippy::panic, reason = "a test that names a point that does not exist must fail")]
    pub fn from_environment() -> Arc<Self> {
        let at = std::env::var("REEF_CRASH_AT").ok();
        let log = std::env::var_os("REEF_CRASH_LOG").map(PathBuf::from);
        Self::new(at.as_deref(), log.as_deref()).unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// Dies here if this is the point and the passing.
    pub fn pass(&self, point: &'static str) {
        let fatal =
            self.point.as_deref() == Some(point) && self.passings_left.fetch_sub(1, Ordering::SeqCst) == 1;
        if let Some(mut log) = self.log.as_ref() {
            // One write per line: lines of several threads do not mix.
            let line = format!("{}{point}\n", if fatal { "!" } else { "" });
            log.write_all(line.as_bytes()).expect("the log of passings");
        }
        if fatal {
            // The signal cannot be caught and does not return.
            let killed =
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            panic!("a process that was killed goes on: {killed:?}");
        }
    }

    /// The stores with their points.
    pub fn stores(self: &Arc<Self>, stores: Stores) -> Stores {
        Stores {
            sessions: Arc::new(Crashing { inner: stores.sessions, points: Arc::clone(self) }),
            jobs: Arc::new(Crashing { inner: stores.jobs, points: Arc::clone(self) }),
            answers: Arc::new(Crashing { inner: stores.answers, points: Arc::clone(self) }),
            ..stores
        }
    }

    /// The model providers with their points.
    pub fn models(
        self: &Arc<Self>,
        models: BTreeMap<String, Arc<dyn ModelProvider>>,
    ) -> BTreeMap<String, Arc<dyn ModelProvider>> {
        let wrap = |inner| Arc::new(Crashing { inner, points: Arc::clone(self) }) as Arc<dyn ModelProvider>;
        models.into_iter().map(|(id, model)| (id, wrap(model))).collect()
    }

    /// The tools with their points.
    pub fn tools(
        self: &Arc<Self>,
        tools: BTreeMap<String, Arc<dyn Tool>>,
    ) -> BTreeMap<String, Arc<dyn Tool>> {
        let wrap = |inner| Arc::new(Crashing { inner, points: Arc::clone(self) }) as Arc<dyn Tool>;
        tools.into_iter().map(|(name, tool)| (name, wrap(tool))).collect()
    }
}

/// Puts the points that the environment names around what a function meets.
pub fn around_function(outside: Outside) -> Outside {
    let points = CrashPoints::from_environment();
    let turns = match outside.turns {
        Turns::Elsewhere(inner) => {
            Turns::Elsewhere(Arc::new(Crashing { inner, points: Arc::clone(&points) }))
        }
        Turns::Here(models) => Turns::Here(points.models(models)),
    };
    Outside { stores: points.stores(outside.stores), tools: points.tools(outside.tools), turns }
}

struct Crashing<P: ?Sized> {
    points: Arc<CrashPoints>,
    inner: Arc<P>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SessionStore for Crashing<dyn SessionStore> {
    async fn load(&self, tenant: &TenantId, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        self.inner.load(tenant, key).await
    }

    async fn transcript(
        &self,
        tenant: &TenantId,
        key: &SessionKey,
        window: Window,
    ) -> Result<Vec<Message>, StoreError> {
        self.inner.transcript(tenant, key, window).await
    }

    async fn turn(&self, tenant: &TenantId, id: &TurnId) -> Result<Option<Turn>, StoreError> {
        self.inner.turn(tenant, id).await
    }

    async fn begin(&self, turn: &NewTurn, now: Timestamp, until: Timestamp) -> Result<Begun, StoreError> {
        self.points.pass("begin.before");
        let begun = self.inner.begin(turn, now, until).await;
        self.points.pass("begin.after");
        begun
    }

    async fn append(
        &self,
        lease: &Lease,
        step: &Step,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Lease, StoreError> {
        let (before, after) = if step.messages.is_empty() {
            ("renew.before", "renew.after")
        } else {
            ("append.before", "append.after")
        };
        self.points.pass(before);
        let appended = self.inner.append(lease, step, now, until).await;
        self.points.pass(after);
        appended
    }

    async fn commit(
        &self,
        lease: &Lease,
        last: &Step,
        outcome: &TurnOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.points.pass("commit.before");
        let committed = self.inner.commit(lease, last, outcome, now).await;
        self.points.pass("commit.after");
        committed
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl JobQueue for Crashing<dyn JobQueue> {
    async fn enqueue(&self, job: &NewJob, delay: Duration, now: Timestamp) -> Result<bool, StoreError> {
        self.points.pass("enqueue.before");
        let enqueued = self.inner.enqueue(job, delay, now).await;
        self.points.pass("enqueue.after");
        enqueued
    }

    async fn receive(
        &self,
        max: usize,
        now: Timestamp,
        until: Timestamp,
        apart: &Apart,
    ) -> Result<Vec<Delivery>, StoreError> {
        let received = self.inner.receive(max, now, until, apart).await;
        if received.as_ref().is_ok_and(|received| !received.is_empty()) {
            self.points.pass("receive.after");
        }
        received
    }

    async fn extend(&self, receipt: &Receipt, now: Timestamp, until: Timestamp) -> Result<(), StoreError> {
        self.inner.extend(receipt, now, until).await
    }

    async fn backlog(&self, now: Timestamp) -> Result<Option<Backlog>, StoreError> {
        self.inner.backlog(now).await
    }

    async fn settle(&self, receipt: &Receipt, outcome: &Outcome, now: Timestamp) -> Result<(), StoreError> {
        self.points.pass("settle.before");
        let settled = self.inner.settle(receipt, outcome, now).await;
        self.points.pass("settle.after");
        settled
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &JobFilter,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        self.inner.list(tenant, filter, now).await
    }

    async fn redrive(&self, tenant: &TenantId, id: &JobId, now: Timestamp) -> Result<(), StoreError> {
        self.inner.redrive(tenant, id, now).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl AnswerStore for Crashing<dyn AnswerStore> {
    async fn claim(&self, key: &AnswerKey, now: Timestamp, until: Timestamp) -> Result<Claim, StoreError> {
        self.points.pass("claim.before");
        let claimed = self.inner.claim(key, now, until).await;
        self.points.pass("claim.after");
        claimed
    }

    async fn store(&self, key: &AnswerKey, answer: &Answer, now: Timestamp) -> Result<(), StoreError> {
        self.points.pass("answer.before");
        let stored = self.inner.store(key, answer, now).await;
        self.points.pass("answer.after");
        stored
    }

    async fn release(&self, key: &AnswerKey) -> Result<(), StoreError> {
        self.inner.release(key).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl AgentInvoker for Crashing<dyn AgentInvoker> {
    async fn invoke(&self, request: RunRequest) -> Result<TurnStream, Error> {
        self.points.pass("hop.before");
        let events = self.inner.invoke(request).await?;
        let points = Arc::clone(&self.points);
        let watched = events.enumerate().map(move |(at, event)| {
            match (at, &event) {
                (_, Ok(TurnEvent::Ended { .. })) => points.pass("hop.after-end"),
                (0, _) => points.pass("hop.first-event"),
                _ => points.pass("hop.mid-stream"),
            }
            event
        });
        Ok(watched.boxed())
    }

    async fn resume(&self, tenant: &TenantId, turn: &TurnId) -> Result<TurnOutcome, Error> {
        self.inner.resume(tenant, turn).await
    }

    async fn change(&self, change: &SessionChange) -> Result<Option<Session>, Error> {
        self.inner.change(change).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ModelProvider for Crashing<dyn ModelProvider> {
    async fn stream(&self, request: &ModelRequest) -> Result<ModelStream, ModelError> {
        self.points.pass("model.before-call");
        let events = self.inner.stream(request).await?;
        let points = Arc::clone(&self.points);
        let watched = events.enumerate().map(move |(at, event)| {
            match (at, &event) {
                (_, Ok(ModelEvent::Stop(_))) => points.pass("model.after-stop"),
                (0, _) => points.pass("model.first-event"),
                _ => points.pass("model.mid-stream"),
            }
            event
        });
        Ok(watched.boxed())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Tool for Crashing<dyn Tool> {
    fn spec(&self) -> &ToolSpec {
        self.inner.spec()
    }

    async fn call(
        &self,
        context: &ToolContext,
        arguments: &serde_json::Value,
    ) -> Result<ToolOutput, ToolError> {
        self.points.pass("tool.before-effect");
        let called = self.inner.call(context, arguments).await;
        self.points.pass("tool.after-effect");
        called
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_point_is_refused_with_the_known_ones() {
        let refused = CrashPoints::new(Some("commit"), None).unwrap_err();
        assert!(refused.starts_with("no crash point `commit`; there are claim.before, "), "{refused}");
        assert_eq!(
            CrashPoints::new(Some("renew.after:x"), None).unwrap_err(),
            "`x` is not a number of passings"
        );
    }
}
