//! [`JobQueue`] on DynamoDB: the jobs' rows, which are the truth of every queue on AWS.

mod row;

use super::attrs::{Draft, broken, from_json, is_forgotten, to_json};
use super::keys::{self, SHARDS};
use super::schema::{DUE, LISTED};
use super::table::{Condition, Write};
use super::texts::Text;
use super::walk::Walk;
use super::{DynamoStores, TRIES, contended, heads, turns};
use crate::bounds::JOBS_LOOKED_AT;
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{JobId, SessionKey, TenantId};
use crate::job::{
    Apart, Backlog, Delivery, Job, JobFilter, JobQueue, JobState, NewJob, Outcome, Receipt, Work,
    done_kept_until,
};
use crate::region::MOST_REGIONS;
use async_trait::async_trait;
use row::{Row, due_in, listed_of};
use std::time::Duration;

/// Behind every sort key of an index.
const END: &str = "g";

/// How late part of a job's work may arrive from the region that wrote it. Behind that the region is lost for long, and
/// a person decides.
const LATEST_ARRIVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Jobs of a region that is gone that are looked at for each one that may be taken over: some may not have arrived.
const LOOKS_PER_JOB: usize = 8;

/// Most jobs that one deletion takes along. A session has more only if it got that many within the 14 days for which done
/// ones are kept; those hold nothing of what was said, and go by themselves.
const NOTED: usize = 4_000;

impl DynamoStores {
    async fn job(&self, tenant: &TenantId, id: &JobId) -> Result<Option<Row>, StoreError> {
        self.core.get(&keys::job(tenant, id)).await?.as_ref().map(Row::of).transpose()
    }

    /// What a job is to do, or why that cannot be read; `None` while part of it has not arrived from another region.
    async fn work(&self, row: &Row) -> Result<Option<Result<NewJob, String>>, StoreError> {
        let told = |why: String| {
            self.sightings.see("jobs", row.id.to_string(), &why);
            Ok(Some(Err(why)))
        };
        if let Some((why, _)) = &row.damage {
            return told(why.clone());
        }
        let read = match row.work.arrived(self.core.as_ref(), &row.key()).await {
            Ok(None) => return Ok(None),
            Ok(Some(text)) => from_json(&text),
            Err(error) => Err(error),
        };
        match read {
            Ok(job) => Ok(Some(Ok(job))),
            Err(StoreError::Broken(source)) => told(source.to_string()),
            Err(other) => Err(other),
        }
    }

    /// Leaves a job alone whose work has not arrived, or gives it up if that is too long ago. One of this region is
    /// hidden, so that others come before it.
    async fn put_off(&self, row: &Row, now: Timestamp, until: Timestamp) -> Result<(), StoreError> {
        let next = if row.created_at + LATEST_ARRIVAL < now {
            row.given_up()
        } else if row.region == self.here.region {
            Row { visible_at: until, set_at: now, token: row.token + 1, ..row.clone() }
        } else {
            return Ok(());
        };
        let is_written = self.wrote(vec![Write::Put(next.item(), row.unchanged())]).await?;
        if is_written && next.state == JobState::Dead {
            tracing::error!(target: "error", { job.id = %row.id, outcome = "dead", reason = next.reason }, "a job is given up");
        }
        Ok(())
    }

    /// Changes a job as `change` says, which decides anew if somebody else was faster.
    async fn change_job(
        &self,
        tenant: &TenantId,
        id: &JobId,
        change: impl Fn(Option<Row>) -> Result<Row, StoreError> + Send,
    ) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let stored = self.job(tenant, id).await?;
            let unchanged = stored.as_ref().map_or(Condition::Absent, Row::unchanged);
            let token = stored.as_ref().map(|row| row.token);
            let mut next = change(stored)?;
            let ended = match next.kept_until {
                Some(until) => self.ended(&mut next, until).await?,
                None => Vec::new(),
            };
            let mut writes = vec![Write::Put(next.item(), unchanged)];
            writes.extend(ended);
            // A write that leaves the token as it is does not stand in the way of its own repetition.
            let is_written = if token == Some(next.token) {
                self.wrote(writes).await?
            } else {
                self.wrote_once(writes).await?
            };
            if is_written {
                return Ok(());
            }
        }
        Err(contended())
    }

    /// What is to be written along with a job that is done and kept until then: what was said goes at once.
    async fn ended(&self, row: &mut Row, until: Timestamp) -> Result<Vec<Write>, StoreError> {
        let key = row.key();
        let Some(Ok(mut job)) = self.work(row).await? else {
            return row.work.kept_until(self.core.as_ref(), &key, until).await;
        };
        job.work.forget_what_was_said();
        let mut writes = row.work.gone(&key);
        row.work = Text::Inside(to_json(&job)?);
        let named = Draft::new(keys::job_of_session(&job.tenant, job.work.session(), &job.id));
        writes.push(Write::Put(named.expires(Some(until)).item(), Condition::Always));
        Ok(writes)
    }

    /// The jobs of a session, oldest first, at most as many as a deletion can note.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] while one of them is at work, or was when its worker died.
    pub(super) async fn jobs_to_go(
        &self,
        tenant: &TenantId,
        session: &SessionKey,
    ) -> Result<Vec<JobId>, StoreError> {
        let (from, to) = (keys::JOBS.to_owned(), keys::behind(keys::JOBS));
        let partition = keys::session_partition(tenant, session);
        let mut walk = Walk::new(self.core.as_ref(), partition, from, to, 100);
        let mut ids = Vec::new();
        while ids.len() < NOTED
            && let Some(item) = walk.next().await?
        {
            let id = keys::named_job(&item.key.sort).ok_or_else(|| broken("an odd name of a job"))?;
            let row = self.job(tenant, &id).await?;
            if row.is_some_and(|row| row.delivered && row.state == JobState::Pending) {
                return Err(StoreError::Fenced);
            }
            ids.push(id);
        }
        Ok(ids)
    }

    /// Deletes a job of a session that is deleted, whatever its state.
    pub(super) async fn delete_job(
        &self,
        tenant: &TenantId,
        session: &SessionKey,
        id: &JobId,
    ) -> Result<(), StoreError> {
        let row = self.job(tenant, id).await?;
        let mut writes = row.map_or_else(Vec::new, |row| {
            let mut writes = row.work.gone(&row.key());
            writes.push(Write::Delete(row.key(), Condition::Always));
            writes
        });
        writes.push(Write::Delete(keys::job_of_session(tenant, session, id), Condition::Always));
        self.wrote(writes).await?;
        Ok(())
    }

    /// Pending jobs of a region that were due at `now`, longest due first, and perhaps a few more than `limit`.
    async fn due(&self, region: &str, now: Timestamp, limit: usize) -> Result<Vec<Row>, StoreError> {
        let mut due = Vec::new();
        for shard in 0..SHARDS {
            let to = keys::behind(&format!("{}#", keys::in_order(now)));
            let partition = due_in(region, shard);
            let walk = Walk::new(self.core.as_ref(), partition, "0".to_owned(), to, limit.min(100));
            let mut walk = walk.of(DUE);
            let mut of_shard = 0;
            let mut last = None;
            while let Some(item) = walk.next().await? {
                let name = || item.key.partition.clone();
                let Some(row) = self.or_seen("jobs", name, Row::of(&item))? else { continue };
                let place = (row.visible_at, row.created_at);
                // All of the last one's time are looked at: their order among each other is that of their plain names.
                if of_shard >= limit && last != Some(place) {
                    break;
                }
                if row.state == JobState::Pending && row.visible_at <= now {
                    due.push(row);
                    of_shard += 1;
                    last = Some(place);
                }
            }
        }
        due.sort_by_cached_key(place);
        Ok(due)
    }

    /// [`JobQueue::receive`] of jobs that were due at `due_by`.
    pub(in crate::adapters::aws) async fn receive_due(
        &self,
        max: usize,
        due_by: Timestamp,
        (now, until): (Timestamp, Timestamp),
        apart: &Apart,
    ) -> Result<Vec<Delivery>, StoreError> {
        let mut deliveries = Vec::new();
        while deliveries.len() < max {
            let missing = max - deliveries.len();
            // Whose a job is stands in its work.
            let look_at = if apart.is_empty() { missing } else { JOBS_LOOKED_AT.max(missing) };
            let due = self.due(&self.here.region, due_by, look_at).await?;
            let (looked_at, before) = (due.len().min(look_at), deliveries.len());
            for row in due.into_iter().take(look_at) {
                if deliveries.len() == max {
                    break;
                }
                deliveries.extend(self.deliver_row(&row, now, until, apart).await?);
            }
            // Whoever took the others may have left some; those that are left aside are found again.
            if !apart.is_empty() || looked_at == deliveries.len() - before {
                break;
            }
        }
        Ok(deliveries)
    }

    /// Whether a job is one of those that are left aside.
    pub(in crate::adapters::aws) async fn is_apart(
        &self,
        tenant: &TenantId,
        id: &JobId,
        apart: &Apart,
    ) -> Result<bool, StoreError> {
        let Some(row) = self.job(tenant, id).await? else { return Ok(false) };
        let work = self.work(&row).await?.and_then(Result::ok);
        Ok(work.is_some_and(|job| apart.has(job.whose())))
    }

    /// Delivers one pending job that is due, if nobody else was faster.
    pub(in crate::adapters::aws) async fn deliver(
        &self,
        tenant: &TenantId,
        id: &JobId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Delivery>, StoreError> {
        let row = self.job(tenant, id).await?;
        match row.filter(|row| row.is_due(now)) {
            Some(row) => self.deliver_row(&row, now, until, &Apart::default()).await,
            None => Ok(None),
        }
    }

    async fn deliver_row(
        &self,
        row: &Row,
        now: Timestamp,
        until: Timestamp,
        apart: &Apart,
    ) -> Result<Option<Delivery>, StoreError> {
        let Some(work) = self.work(row).await? else {
            self.put_off(row, now, until).await?;
            return Ok(None);
        };
        if work.as_ref().is_ok_and(|job| apart.has(job.whose())) {
            return Ok(None);
        }
        let mut next = row.clone();
        next.damage = None;
        if let Ok(job) = &work {
            next.may_have_run |= row.region != self.here.region || self.began_elsewhere(job).await?;
        }
        next.region.clone_from(&self.here.region);
        next.token += 1;
        next.attempts += 1;
        next.delivered = true;
        next.visible_at = until;
        next.set_at = now;
        let wrote = self.wrote_once(vec![Write::Put(next.item(), row.unchanged())]).await?;
        Ok(wrote.then(|| {
            let receipt = Receipt { tenant: next.tenant.clone(), job: next.id.clone(), token: next.token };
            let job = match work {
                Ok(job) => next.job(job),
                // Whoever gets it ends it as dead.
                Err(why) => next.unreadable(why),
            };
            Delivery { job, receipt }
        }))
    }

    /// Whether the job's turn was, or may have been, begun under another epoch than the session's present one, which need
    /// not know of it.
    async fn began_elsewhere(&self, job: &NewJob) -> Result<bool, StoreError> {
        if !self.here.is_one_of_several() {
            return Ok(false);
        }
        let (core, tenant) = (self.core.as_ref(), &job.tenant);
        let Work::Turn(request) = &job.work;
        let pointers = turns::pointers(core, tenant, &request.turn).await?;
        if pointers.is_empty() {
            return Ok(false);
        }
        let present = heads::find(core, tenant, &request.session).await?.meta.map(|meta| meta.epoch);
        for pointer in pointers.iter().filter(|pointer| Some(pointer.at.epoch) != present) {
            // What another region wrote may arrive without the step that it leads to. Here that step was never made.
            let is_ours = pointer.at.epoch % MOST_REGIONS == self.here.ordinal;
            if !is_ours || turns::has_begun(core, tenant, &request.turn, pointer).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes due jobs of a region that is gone into the queue of this one, as far as they have arrived. It may have begun
    /// them.
    pub(super) async fn adopt_jobs(
        &self,
        from: &str,
        now: Timestamp,
        limit: usize,
    ) -> Result<(), StoreError> {
        let mut left = limit;
        for row in self.due(from, now, limit.saturating_mul(LOOKS_PER_JOB)).await? {
            if left == 0 {
                break;
            }
            if self.work(&row).await?.is_none() {
                self.put_off(&row, now, now).await?;
                continue;
            }
            left -= 1;
            let mut next = row.clone();
            next.damage = None;
            next.may_have_run = true;
            next.region.clone_from(&self.here.region);
            // A delivery that its old region knows of is no longer good.
            next.token += 1;
            next.delivered = false;
            self.wrote(vec![Write::Put(next.item(), row.unchanged())]).await?;
        }
        Ok(())
    }

    /// Adds the newest jobs in this state that are kept at `now`, and perhaps a few more than `limit`.
    async fn list_state(
        &self,
        tenant: &TenantId,
        state: JobState,
        (limit, now): (usize, Timestamp),
        rows: &mut Vec<Row>,
    ) -> Result<(), StoreError> {
        let (from, to) = ("0".to_owned(), END.to_owned());
        let walk = Walk::new(self.core.as_ref(), listed_of(tenant, state), from, to, limit.min(100));
        let mut walk = walk.of(LISTED).newest_first();
        let (mut of_state, mut last) = (0, None);
        while let Some(item) = walk.next().await? {
            let name = || item.key.partition.clone();
            let Some(row) = self.or_seen("jobs", name, Row::of(&item))? else { continue };
            if of_state >= limit && last != Some(row.created_at) {
                break;
            }
            if !row.is_kept(now) {
                continue;
            }
            last = Some(row.created_at);
            of_state += 1;
            rows.push(row);
        }
        Ok(())
    }

    /// Pending jobs of this region that were due at `now`, longest due first.
    pub(in crate::adapters::aws) async fn due_jobs(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<(TenantId, JobId)>, StoreError> {
        let due = self.due(&self.here.region, now, limit).await?;
        Ok(due.into_iter().take(limit).map(|row| (row.tenant, row.id)).collect())
    }

    /// Until when a job is hidden, if it has not ended.
    pub(in crate::adapters::aws) async fn waits_until(
        &self,
        tenant: &TenantId,
        id: &JobId,
    ) -> Result<Option<Timestamp>, StoreError> {
        let pending = self.job(tenant, id).await?.filter(|row| row.state == JobState::Pending);
        Ok(pending.map(|row| row.visible_at))
    }
}

/// Where a job stands in the queue.
fn place(row: &Row) -> (Timestamp, Timestamp, TenantId, JobId) {
    (row.visible_at, row.created_at, row.tenant.clone(), row.id.clone())
}

/// The job that a receipt still is good for.
fn delivered(stored: Option<Row>, receipt: &Receipt) -> Result<Row, StoreError> {
    let is_good = |row: &Row| row.token == receipt.token && row.state == JobState::Pending;
    stored.filter(is_good).ok_or(StoreError::Fenced)
}

#[async_trait]
impl JobQueue for DynamoStores {
    async fn enqueue(&self, job: &NewJob, delay: Duration, now: Timestamp) -> Result<bool, StoreError> {
        let text = to_json(job)?;
        let (work, beside) = Text::new(text, &keys::job(&job.tenant, &job.id), &self.here.region, None)?;
        let row = Row {
            tenant: job.tenant.clone(),
            id: job.id.clone(),
            work,
            may_have_run: false,
            state: JobState::Pending,
            attempts: 0,
            created_at: now,
            visible_at: now + delay,
            set_at: now,
            reason: None,
            token: 0,
            delivered: false,
            region: self.here.region.clone(),
            kept_until: None,
            damage: None,
        };
        // By this its session finds it, if that is deleted. It may be there already, without its job.
        let named = Draft::new(keys::job_of_session(&job.tenant, job.work.session(), &job.id)).item();
        let mut writes =
            vec![Write::Put(row.item(), is_forgotten(now)), Write::Put(named, Condition::Always)];
        writes.extend(beside);
        self.wrote_once(writes).await
    }

    async fn receive(
        &self,
        max: usize,
        now: Timestamp,
        until: Timestamp,
        apart: &Apart,
    ) -> Result<Vec<Delivery>, StoreError> {
        self.receive_due(max, now, (now, until), apart).await
    }

    async fn backlog(&self, _: Timestamp) -> Result<Option<Backlog>, StoreError> {
        // CloudWatch has what SQS counts.
        Ok(None)
    }

    async fn extend(&self, receipt: &Receipt, now: Timestamp, until: Timestamp) -> Result<(), StoreError> {
        self.change_job(&receipt.tenant, &receipt.job, |stored| {
            let mut row = delivered(stored, receipt)?;
            row.visible_at = until;
            row.set_at = now;
            Ok(row)
        })
        .await
    }

    async fn settle(&self, receipt: &Receipt, outcome: &Outcome, now: Timestamp) -> Result<(), StoreError> {
        self.change_job(&receipt.tenant, &receipt.job, |stored| {
            let mut row = delivered(stored, receipt)?;
            row.token += 1;
            row.set_at = now;
            row.delivered = false;
            match outcome {
                Outcome::Done => {
                    row.state = JobState::Done;
                    row.reason = None;
                    row.kept_until = Some(done_kept_until(now));
                }
                Outcome::Retry { after, counts, reason } => {
                    row.attempts = row.attempts.saturating_sub(u32::from(!counts));
                    row.visible_at = now + *after;
                    row.reason = Some(reason.clone());
                }
                Outcome::Dead { reason } => {
                    row.state = JobState::Dead;
                    row.reason = Some(reason.clone());
                }
            }
            Ok(row)
        })
        .await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &JobFilter,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        if filter.limit == 0 {
            return Ok(Vec::new());
        }
        let is_wanted = |row: &Row| filter.state.is_none_or(|state| row.state == state) && row.is_kept(now);
        let mut rows: Vec<Row> = Vec::new();
        if let Some(id) = &filter.id {
            rows.extend(self.job(tenant, id).await?.filter(is_wanted));
        } else {
            let states = match filter.state {
                Some(state) => vec![state],
                None => vec![JobState::Pending, JobState::Done, JobState::Dead],
            };
            for state in states {
                self.list_state(tenant, state, (filter.limit, now), &mut rows).await?;
            }
        }
        rows.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        rows.truncate(filter.limit);
        let mut jobs = Vec::with_capacity(rows.len());
        for row in rows {
            match self.work(&row).await? {
                Some(Ok(job)) => jobs.push(row.job(job)),
                Some(Err(why)) => jobs.push(row.unreadable(why)),
                None => {
                    tracing::warn!(target: "error", { job.id = %row.id, region = row.region, reason = row.reason }, "a job is not listed: part of it has not arrived");
                }
            }
        }
        Ok(jobs)
    }

    async fn redrive(&self, tenant: &TenantId, id: &JobId, now: Timestamp) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let dead = self.job(tenant, id).await?.filter(|row| row.state == JobState::Dead);
            let mut row = dead.ok_or(StoreError::NotFound)?;
            match (self.work(&row).await?, &row.work) {
                // All of it is at hand only where it was written.
                (None, Text::Beside { by, .. }) => return Err(StoreError::Elsewhere { region: by.clone() }),
                (Some(Err(why)), _) => {
                    return Err(StoreError::Unreadable { what: "the job", source: why.into() });
                }
                _ => {}
            }
            if row.region != self.here.region {
                // From here it goes on as a turn that may have run already, and parks before a `once` tool: nothing for a
                // job whose region knows better.
                if self.is_in_service(&row.region).await? {
                    return Err(StoreError::Elsewhere { region: row.region });
                }
                row.may_have_run = true;
                row.region.clone_from(&self.here.region);
            }
            row.state = JobState::Pending;
            row.attempts = 0;
            row.visible_at = now;
            row.set_at = now;
            // It may have been redriven, and have died, since it was read.
            let unchanged = row.unchanged();
            row.token += 1;
            if self.wrote_once(vec![Write::Put(row.item(), unchanged)]).await? {
                return Ok(());
            }
        }
        Err(contended())
    }
}
