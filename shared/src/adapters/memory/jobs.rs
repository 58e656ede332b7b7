//! [`JobQueue`] in memory.

use super::{Memory, State, storable};
use crate::bounds::BACKLOG_COUNTED;
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{JobId, SessionKey, TenantId};
use crate::job::done_kept_until;
use crate::job::{Apart, Backlog, Delivery, Job, JobFilter, JobQueue, JobState, NewJob, Outcome, Receipt};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::time::Duration;

/// Below so many jobs no sweep is worth its walk.
const SWEEP_FROM: usize = 1024;

/// A job with the token of its newest delivery. The token never goes back, and grows at each settlement, too: what
/// was handed out before is then worth nothing.
#[derive(Debug)]
pub(super) struct JobRecord {
    job: Job,
    token: u64,
    /// When it was said until when the job is hidden.
    set_at: Timestamp,
    /// From a delivery to its settlement.
    delivered: bool,
    /// Of a job that is done.
    kept_until: Option<Timestamp>,
}

impl JobRecord {
    fn is_kept(&self, now: Timestamp) -> bool {
        self.kept_until.is_none_or(|until| until > now)
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let is_pending = self.job.state == JobState::Pending;
        is_pending && (self.job.visible_at <= now || self.set_at.is_to_come(now))
    }
}

/// All jobs.
#[derive(Debug)]
pub(super) struct Jobs {
    records: BTreeMap<(TenantId, JobId), JobRecord>,
    /// The next sweep comes when there are so many: twice what the last one left.
    sweep_at: usize,
}

impl Default for Jobs {
    fn default() -> Self {
        Self { records: BTreeMap::new(), sweep_at: SWEEP_FROM }
    }
}

impl Jobs {
    /// Whether one of the session's jobs is at work, or was when its worker died.
    pub(super) fn any_at_work(&self, tenant: &TenantId, session: &SessionKey) -> bool {
        let mut records = self.records.iter();
        records.any(|((of, _), record)| {
            of == tenant
                && record.delivered
                && record.job.state == JobState::Pending
                && record.job.job.work.session() == session
        })
    }

    /// Deletes the jobs of a session, whatever their state.
    pub(super) fn delete_of_session(&mut self, tenant: &TenantId, session: &SessionKey) {
        self.records.retain(|(of, _), record| of != tenant || record.job.job.work.session() != session);
    }
}

/// The job that a receipt still is good for.
fn delivered<'a>(state: &'a mut State, receipt: &Receipt) -> Result<&'a mut JobRecord, StoreError> {
    let key = (receipt.tenant.clone(), receipt.job.clone());
    match state.jobs.records.get_mut(&key) {
        Some(record) if record.token == receipt.token && record.job.state == JobState::Pending => Ok(record),
        _ => Err(StoreError::Fenced),
    }
}

#[async_trait]
impl JobQueue for Memory {
    async fn enqueue(&self, job: &NewJob, delay: Duration, now: Timestamp) -> Result<bool, StoreError> {
        storable(&job.work)?;
        let mut state = self.state();
        let Jobs { records, sweep_at } = &mut state.jobs;
        let key = (job.tenant.clone(), job.id.clone());
        if records.get(&key).is_some_and(|record| record.is_kept(now)) {
            return Ok(false);
        }
        if records.len() >= *sweep_at {
            records.retain(|_, record| record.is_kept(now));
            *sweep_at = (records.len() * 2).max(SWEEP_FROM);
        }
        let job = Job {
            job: job.clone(),
            state: JobState::Pending,
            attempts: 0,
            created_at: now,
            visible_at: now + delay,
            reason: None,
            unreadable: None,
        };
        records.insert(key, JobRecord { job, token: 0, set_at: now, delivered: false, kept_until: None });
        Ok(true)
    }

    async fn receive(
        &self,
        max: usize,
        now: Timestamp,
        until: Timestamp,
        apart: &Apart,
    ) -> Result<Vec<Delivery>, StoreError> {
        let mut state = self.state();
        let mut due: Vec<&mut JobRecord> = state
            .jobs
            .records
            .values_mut()
            .filter(|record| record.is_due(now) && !apart.has(record.job.job.whose()))
            .collect();
        // Ties go by tenant and id, the map's order, which a stable sort keeps.
        due.sort_by_key(|record| (record.job.visible_at, record.job.created_at));
        let take = |record: &mut JobRecord| {
            record.token += 1;
            record.delivered = true;
            record.job.attempts += 1;
            record.job.visible_at = until;
            record.set_at = now;
            let receipt = Receipt {
                tenant: record.job.job.tenant.clone(),
                job: record.job.job.id.clone(),
                token: record.token,
            };
            Delivery { job: record.job.clone(), receipt }
        };
        Ok(due.into_iter().take(max).map(take).collect())
    }

    async fn extend(&self, receipt: &Receipt, now: Timestamp, until: Timestamp) -> Result<(), StoreError> {
        let mut state = self.state();
        let record = delivered(&mut state, receipt)?;
        record.job.visible_at = until;
        record.set_at = now;
        Ok(())
    }

    async fn backlog(&self, now: Timestamp) -> Result<Option<Backlog>, StoreError> {
        let state = self.state();
        let mut backlog = Backlog::default();
        for record in state.jobs.records.values() {
            match record.job.state {
                JobState::Pending if record.job.visible_at <= now => {
                    backlog.due += 1;
                    let oldest = backlog.oldest_due.unwrap_or(record.job.visible_at);
                    backlog.oldest_due = Some(oldest.min(record.job.visible_at));
                }
                JobState::Pending => backlog.hidden += 1,
                JobState::Dead => backlog.dead += 1,
                JobState::Done => {}
            }
        }
        for count in [&mut backlog.due, &mut backlog.hidden, &mut backlog.dead] {
            *count = (*count).min(BACKLOG_COUNTED as u64);
        }
        Ok(Some(backlog))
    }

    async fn settle(&self, receipt: &Receipt, outcome: &Outcome, now: Timestamp) -> Result<(), StoreError> {
        let mut state = self.state();
        let record = delivered(&mut state, receipt)?;
        record.token += 1;
        record.set_at = now;
        record.delivered = false;
        let job = &mut record.job;
        match outcome {
            Outcome::Done => {
                job.state = JobState::Done;
                job.reason = None;
                job.job.work.forget_what_was_said();
                record.kept_until = Some(done_kept_until(now));
            }
            Outcome::Retry { after, counts, reason } => {
                job.attempts = job.attempts.saturating_sub(u32::from(!counts));
                job.visible_at = now + *after;
                job.reason = Some(reason.clone());
            }
            Outcome::Dead { reason } => {
                job.state = JobState::Dead;
                job.reason = Some(reason.clone());
            }
        }
        Ok(())
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &JobFilter,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        let state = self.state();
        let kept = state.jobs.records.values().filter(|record| record.is_kept(now));
        let fits = |job: &&Job| {
            job.job.tenant == *tenant
                && filter.id.as_ref().is_none_or(|id| job.job.id == *id)
                && filter.state.is_none_or(|state| job.state == state)
        };
        let mut jobs: Vec<Job> = kept.map(|record| &record.job).filter(fits).cloned().collect();
        jobs.sort_by(|a, b| (b.created_at, &b.job.id).cmp(&(a.created_at, &a.job.id)));
        jobs.truncate(filter.limit);
        Ok(jobs)
    }

    async fn redrive(&self, tenant: &TenantId, id: &JobId, now: Timestamp) -> Result<(), StoreError> {
        let mut state = self.state();
        match state.jobs.records.get_mut(&(tenant.clone(), id.clone())) {
            Some(record) if record.job.state == JobState::Dead => {
                record.job.state = JobState::Pending;
                record.job.attempts = 0;
                record.job.visible_at = now;
                record.set_at = now;
                Ok(())
            }
            _ => Err(StoreError::NotFound),
        }
    }
}
