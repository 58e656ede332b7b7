//! Jobs: accepted work that runs later, and the [`JobQueue`] port.

use crate::agent::{RunOptions, RunRequest};
use crate::bounds::DONE_JOBS_KEPT;
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{AgentId, JobId, PrincipalId, SessionKey, TenantId, TurnId};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// Accepted work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewJob {
    /// Unique; enqueueing the same id again changes nothing.
    pub id: JobId,
    /// Whose data.
    pub tenant: TenantId,
    /// What to do.
    pub work: Work,
}

/// What a job does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    /// Runs a turn.
    Turn(Box<RunRequest>),
}

impl Work {
    /// On which session it works.
    pub fn session(&self) -> &SessionKey {
        let Self::Turn(request) = self;
        &request.session
    }

    /// Once it is done, only who asked whom, on which session, is kept of it. What was said stands in the session, once,
    /// and goes with it.
    pub fn forget_what_was_said(&mut self) {
        let Self::Turn(request) = self;
        request.input = Vec::new();
        let options = std::mem::take(&mut request.options);
        request.options = RunOptions {
            model: options.model,
            user: options.user,
            channel: options.channel,
            trigger: options.trigger,
            requested_model: options.requested_model,
            enqueued_at: options.enqueued_at,
            may_have_run: options.may_have_run,
            ..RunOptions::default()
        };
    }

    /// What stands for work that cannot be read: a turn of nobody, without input, which nobody accepts.
    pub fn unknown(tenant: &TenantId, id: &JobId) -> Self {
        Self::Turn(Box::new(RunRequest {
            turn: TurnId::new(id.as_str()),
            tenant: tenant.clone(),
            principal: PrincipalId::new(""),
            agent: AgentId::new(""),
            session: SessionKey::new(""),
            sticky: false,
            idempotency: None,
            input: Vec::new(),
            options: RunOptions::default(),
        }))
    }
}

impl NewJob {
    /// For whom it works, and who asked.
    pub fn whose(&self) -> (&AgentId, &PrincipalId) {
        let Work::Turn(request) = &self.work;
        (&request.agent, &request.principal)
    }
}

/// Whose jobs are left where they are for now: whoever has its share of the places already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Apart {
    /// Jobs for these agents.
    pub agents: BTreeSet<AgentId>,
    /// Jobs of these callers.
    pub principals: BTreeSet<PrincipalId>,
}

impl Apart {
    /// Whether nobody's are.
    pub fn is_empty(&self) -> bool {
        self.agents.is_empty() && self.principals.is_empty()
    }

    /// Whether those for this agent of this caller are.
    pub fn has(&self, (agent, principal): (&AgentId, &PrincipalId)) -> bool {
        self.agents.contains(agent) || self.principals.contains(principal)
    }
}

/// How much waits in a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Pending jobs that are due; each of these three is counted up to [`crate::bounds::BACKLOG_COUNTED`].
    pub due: u64,
    /// Pending jobs that are at work, or wait for their time.
    pub hidden: u64,
    /// Dead jobs.
    pub dead: u64,
    /// Since when the longest due one has been due.
    pub oldest_due: Option<Timestamp>,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Waiting, delayed, or being worked on.
    Pending,
    /// Finished.
    Done,
    /// Given up, with a reason; waits for a person.
    Dead,
}

/// A job as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The work; of a job that is done, without what was said.
    #[serde(flatten)]
    pub job: NewJob,
    /// Where it stands.
    pub state: JobState,
    /// Deliveries so far since it was enqueued or redriven.
    pub attempts: u32,
    /// When it was enqueued.
    pub created_at: Timestamp,
    /// Not delivered before.
    pub visible_at: Timestamp,
    /// Why the last attempt failed, or the job is dead.
    pub reason: Option<String>,
    /// What is wrong with its row, if that cannot be read. Of the job only its name is known then: its work is
    /// [`Work::unknown`], and whoever gets it delivered ends it as dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

impl Job {
    /// A job whose row cannot be read.
    pub fn unreadable(tenant: TenantId, id: JobId, state: JobState, why: String) -> Self {
        let work = Work::unknown(&tenant, &id);
        Self {
            job: NewJob { id, tenant, work },
            state,
            attempts: 0,
            created_at: Timestamp::EPOCH,
            visible_at: Timestamp::EPOCH,
            reason: Some(unreadable_reason(&why)),
            unreadable: Some(why),
        }
    }
}

/// Why a job is dead whose row cannot be read.
pub fn unreadable_reason(why: &str) -> String {
    format!("unreadable: what the job was to do cannot be read any more ({why})")
}

/// How long a job is kept that is done: 14 days, as long as a message about it may lie in SQS, dead letters included, so
/// that whoever looks at one finds its job. Nothing rests on it: what was done stands in the turn, and a job that is
/// handed in again later meets that turn.
///
/// Dead jobs are kept until a person acts; pending ones until they end; none of them longer than its session.
pub const DONE_KEPT: Duration = DONE_JOBS_KEPT;

/// Until when a job is kept that was done at this time: at that moment it is as if it had never been.
pub fn done_kept_until(done: Timestamp) -> Timestamp {
    (done + DONE_KEPT).up_to_second()
}

/// A job handed to a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// The job; `attempts` counts this delivery.
    pub job: Job,
    /// Names this delivery: a later delivery of the same job makes it invalid.
    pub receipt: Receipt,
}

/// Names one delivery of one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Whose data.
    pub tenant: TenantId,
    /// Which job.
    pub job: JobId,
    /// Which delivery of it.
    pub token: u64,
}

/// How a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The work is done.
    Done,
    /// Deliver again after a while.
    Retry {
        /// From now.
        after: Duration,
        /// Whether this delivery was an attempt. If it never came to one, it is not counted.
        counts: bool,
        /// Why, for the operator.
        reason: String,
    },
    /// Give up.
    Dead {
        /// Why, for the operator.
        reason: String,
    },
}

/// Which jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only this one.
    pub id: Option<JobId>,
    /// Only in this state.
    pub state: Option<JobState>,
    /// At most so many.
    pub limit: usize,
}

/// Keeps accepted work until it is done. A job is delivered at least once; a delivery not settled before its
/// visibility ends is delivered again.
#[async_trait]
pub trait JobQueue: Send + Sync {
    /// Stores a job, durably, to be delivered `delay` from `now`. `false` if the id is known (nothing changed): that of a
    /// job that is done for [`DONE_KEPT`], any other one for good.
    async fn enqueue(&self, job: &NewJob, delay: Duration, now: Timestamp) -> Result<bool, StoreError>;

    /// Takes up to `max` due jobs, longest due first, and hides each until `until`. Empty if none is due; does not wait. One
    /// whose row cannot be read is delivered as [`Job::unreadable`]: it hides no other.
    /// Takes up to `max` due jobs but those of whom is `apart`, longest due first, and hides each until `until`. Empty if
    /// there is none; does not wait.
    ///
    /// A job is due when its time has come, and also when that time was set at one that [is to come](Timestamp::is_to_come):
    /// by a clock that was ahead. However many jobs are left aside, they hide no others. A queue that brings its jobs by messages
    /// finds the former by their messages only, and looks for others than those left aside among the longest due.
    async fn receive(
        &self,
        max: usize,
        now: Timestamp,
        until: Timestamp,
        apart: &Apart,
    ) -> Result<Vec<Delivery>, StoreError>;

    /// Hides a delivery from `now` on for longer, while its work goes on.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the job was delivered again, or settled.
    async fn extend(&self, receipt: &Receipt, now: Timestamp, until: Timestamp) -> Result<(), StoreError>;

    /// Ends a delivery. [`Outcome::Retry`] that does not count takes the delivery back from the job's attempts.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] as with [`JobQueue::extend`].
    async fn settle(&self, receipt: &Receipt, outcome: &Outcome, now: Timestamp) -> Result<(), StoreError>;

    /// Jobs that fit and are kept at `now`, newest first; also those that cannot be read.
    /// How much waits at `now`, of every tenant; `None` where the platform itself counts that. A look costs the same however
    /// much there is.
    async fn backlog(&self, now: Timestamp) -> Result<Option<Backlog>, StoreError>;

    /// Jobs that fit and are kept at `now`, newest first.
    async fn list(
        &self,
        tenant: &TenantId,
        filter: &JobFilter,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError>;

    /// Delivers a dead job again, at once, with its attempts back to 0.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such dead job; [`StoreError::Unreadable`] if it cannot be read;
    /// [`StoreError::Elsewhere`] if it is in the queue of another
    /// region, which alone knows what ran there. From one that was taken out of service it is taken over: what may not run
    /// twice is not run then.
    async fn redrive(&self, tenant: &TenantId, id: &JobId, now: Timestamp) -> Result<(), StoreError>;
}
