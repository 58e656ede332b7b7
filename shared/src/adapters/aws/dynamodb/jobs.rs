//! [`JobQueue`] on DynamoDB: the jobs' rows, which are the truth of every queue on AWS.

use super::attrs::{Draft, broken, from_json, to_json};
use super::keys::{self, SHARDS};
use super::schema::{DUE, LISTED};
use super::table::{Attr, Condition, Item, Write};
use super::walk::Walk;
use super::{DynamoStores, TRIES, contended, heads, turns};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{JobId, TenantId};
use crate::job::{Delivery, Job, JobFilter, JobQueue, JobState, NewJob, Outcome, Receipt, Work};
use async_trait::async_trait;
use std::time::Duration;

/// Behind every sort key of an index.
const END: &str = "g";

/// A job with the token of its newest delivery. The token never goes back, and grows at each settlement, too.
#[derive(Debug, Clone)]
struct Row {
    job: Job,
    token: u64,
    /// Whose queue has it.
    region: String,
}

/// Where jobs of a tenant are listed by their state.
fn listed_of(tenant: &TenantId, state: JobState) -> String {
    let state = match state {
        JobState::Pending => "pending",
        JobState::Done => "done",
        JobState::Dead => "dead",
    };
    format!("JS#{}#{state}", keys::escape(tenant.as_str()))
}

/// Where pending jobs of a region wait.
fn due_in(region: &str, shard: u64) -> String {
    format!("DUE#{}#{shard}", keys::escape(region))
}

impl Row {
    fn read(item: &Item) -> Result<Self, StoreError> {
        let state = match item.text("state")? {
            "pending" => JobState::Pending,
            "done" => JobState::Done,
            "dead" => JobState::Dead,
            other => return Err(broken(format!("a job in state `{other}`"))),
        };
        let job: NewJob = from_json(item.text("job")?)?;
        let attempts = u32::try_from(item.count("attempts")?).map_err(broken)?;
        Ok(Self {
            job: Job {
                job,
                state,
                attempts,
                created_at: item.time("created")?,
                visible_at: item.time("visible")?,
                reason: item.opt_text("reason")?.map(str::to_owned),
            },
            token: item.count("token")?,
            region: item.text("region")?.to_owned(),
        })
    }

    fn item(&self) -> Result<Item, StoreError> {
        let Self { job, token, region } = self;
        let NewJob { id, tenant, .. } = &job.job;
        let state = match job.state {
            JobState::Pending => "pending",
            JobState::Done => "done",
            JobState::Dead => "dead",
        };
        let created = keys::in_order(job.created_at);
        let name = format!("{}#{}", keys::escape(tenant.as_str()), keys::escape(id.as_str()));
        let mut draft = Draft::new(keys::job(tenant, id))
            .text("job", to_json(&job.job)?)
            .text("state", state)
            .count("attempts", job.attempts.into())
            .count("token", *token)
            .text("region", region)
            .time("created", job.created_at)
            .time("visible", job.visible_at)
            .opt_text("reason", job.reason.as_deref())
            .text(LISTED.partition, listed_of(tenant, job.state))
            .text(LISTED.sort, format!("{created}#{name}"));
        if job.state == JobState::Pending {
            let visible = keys::in_order(job.visible_at);
            draft = draft
                .text(DUE.partition, due_in(region, keys::shard(id.as_str())))
                .text(DUE.sort, format!("{visible}#{created}#{name}"));
        }
        Ok(draft.item())
    }

    /// What must hold for no delivery or settlement to have come between.
    fn unchanged(&self) -> Condition {
        Condition::Is("token", super::attrs::number(self.token))
    }

    /// Notes that another region may have run the turn.
    fn may_have_run(&mut self) {
        let Work::Turn(request) = &mut self.job.job.work;
        request.options.may_have_run = true;
    }

    /// The same job, delivered until `until`.
    fn delivered(&self, until: Timestamp) -> (Self, Delivery) {
        let mut next = self.clone();
        next.token += 1;
        next.job.attempts += 1;
        next.job.visible_at = until;
        let receipt =
            Receipt { tenant: next.job.job.tenant.clone(), job: next.job.job.id.clone(), token: next.token };
        let delivery = Delivery { job: next.job.clone(), receipt };
        (next, delivery)
    }
}

impl DynamoStores {
    async fn job(&self, tenant: &TenantId, id: &JobId) -> Result<Option<Row>, StoreError> {
        self.core.get(&keys::job(tenant, id)).await?.as_ref().map(Row::read).transpose()
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
            let next = change(stored)?;
            if self.wrote(vec![Write::Put(next.item()?, unchanged)]).await? {
                return Ok(());
            }
        }
        Err(contended())
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
                let row = Row::read(&item)?;
                let place = (row.job.visible_at, row.job.created_at);
                // All of the last one's time are looked at: their order among each other is that of their plain names.
                if of_shard >= limit && last != Some(place) {
                    break;
                }
                if row.job.state == JobState::Pending && row.job.visible_at <= now {
                    due.push(row);
                    of_shard += 1;
                    last = Some(place);
                }
            }
        }
        let order = |row: &Row| {
            let NewJob { id, tenant, .. } = &row.job.job;
            (row.job.visible_at, row.job.created_at, tenant.clone(), id.clone())
        };
        due.sort_by_cached_key(order);
        Ok(due)
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
        let is_due = |row: &Row| row.job.state == JobState::Pending && row.job.visible_at <= now;
        match row.filter(is_due) {
            Some(row) => self.deliver_row(&row, until).await,
            None => Ok(None),
        }
    }

    async fn deliver_row(&self, row: &Row, until: Timestamp) -> Result<Option<Delivery>, StoreError> {
        let mut row = row.clone();
        if row.region != self.here.region || self.began_elsewhere(&row).await? {
            row.may_have_run();
        }
        let unchanged = row.unchanged();
        let (mut next, delivery) = row.delivered(until);
        next.region.clone_from(&self.here.region);
        let wrote = self.wrote_once(Write::Put(next.item()?, unchanged)).await?;
        Ok(wrote.then_some(delivery))
    }

    /// Whether the job's turn was begun under another epoch than the session's present one, which need not know of it.
    async fn began_elsewhere(&self, row: &Row) -> Result<bool, StoreError> {
        if !self.here.is_one_of_several {
            return Ok(false);
        }
        let (core, tenant) = (self.core.as_ref(), &row.job.job.tenant);
        let Work::Turn(request) = &row.job.job.work;
        let pointers = turns::pointers(core, tenant, &request.turn).await?;
        if pointers.is_empty() {
            return Ok(false);
        }
        let present = heads::find(core, tenant, &request.session).await?.meta.map(|meta| meta.epoch);
        Ok(pointers.iter().any(|pointer| Some(pointer.at.epoch) != present))
    }

    /// Takes due jobs of a region that is gone into the queue of this one. It may have begun them.
    pub(super) async fn adopt_jobs(
        &self,
        from: &str,
        now: Timestamp,
        limit: usize,
    ) -> Result<(), StoreError> {
        for row in self.due(from, now, limit).await? {
            let mut next = row.clone();
            next.may_have_run();
            next.region.clone_from(&self.here.region);
            // A delivery that its old region knows of is no longer good.
            next.token += 1;
            self.wrote(vec![Write::Put(next.item()?, row.unchanged())]).await?;
        }
        Ok(())
    }

    /// Pending jobs of this region that were due at `now`, longest due first.
    pub(in crate::adapters::aws) async fn due_jobs(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Job>, StoreError> {
        let mut due: Vec<Job> =
            self.due(&self.here.region, now, limit).await?.into_iter().map(|row| row.job).collect();
        due.truncate(limit);
        Ok(due)
    }

    /// Until when a job is hidden, if it has not ended.
    pub(in crate::adapters::aws) async fn waits_until(
        &self,
        tenant: &TenantId,
        id: &JobId,
    ) -> Result<Option<Timestamp>, StoreError> {
        let pending = self.job(tenant, id).await?.filter(|row| row.job.state == JobState::Pending);
        Ok(pending.map(|row| row.job.visible_at))
    }
}

/// The job that a receipt still is good for.
fn delivered(stored: Option<Row>, receipt: &Receipt) -> Result<Row, StoreError> {
    let is_good = |row: &Row| row.token == receipt.token && row.job.state == JobState::Pending;
    stored.filter(is_good).ok_or(StoreError::Fenced)
}

#[async_trait]
impl JobQueue for DynamoStores {
    async fn enqueue(&self, job: &NewJob, delay: Duration, now: Timestamp) -> Result<bool, StoreError> {
        let job = Job {
            job: job.clone(),
            state: JobState::Pending,
            attempts: 0,
            created_at: now,
            visible_at: now + delay,
            reason: None,
        };
        let row = Row { job, token: 0, region: self.here.region.clone() };
        self.wrote_once(Write::Put(row.item()?, Condition::Absent)).await
    }

    async fn receive(
        &self,
        max: usize,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<Delivery>, StoreError> {
        let mut deliveries = Vec::new();
        while deliveries.len() < max {
            let missing = max - deliveries.len();
            let due = self.due(&self.here.region, now, missing).await?;
            if due.is_empty() {
                break;
            }
            let mut lost = 0;
            for row in due.into_iter().take(missing) {
                match self.deliver_row(&row, until).await? {
                    Some(delivery) => deliveries.push(delivery),
                    None => lost += 1,
                }
            }
            // Whoever took those may have left others.
            if lost == 0 {
                break;
            }
        }
        Ok(deliveries)
    }

    async fn extend(&self, receipt: &Receipt, until: Timestamp) -> Result<(), StoreError> {
        self.change_job(&receipt.tenant, &receipt.job, |stored| {
            let mut row = delivered(stored, receipt)?;
            row.job.visible_at = until;
            Ok(row)
        })
        .await
    }

    async fn settle(&self, receipt: &Receipt, outcome: &Outcome, now: Timestamp) -> Result<(), StoreError> {
        self.change_job(&receipt.tenant, &receipt.job, |stored| {
            let mut row = delivered(stored, receipt)?;
            row.token += 1;
            match outcome {
                Outcome::Done => {
                    row.job.state = JobState::Done;
                    row.job.reason = None;
                }
                Outcome::Retry { after, counts, reason } => {
                    row.job.attempts = row.job.attempts.saturating_sub(u32::from(!counts));
                    row.job.visible_at = now + *after;
                    row.job.reason = Some(reason.clone());
                }
                Outcome::Dead { reason } => {
                    row.job.state = JobState::Dead;
                    row.job.reason = Some(reason.clone());
                }
            }
            Ok(row)
        })
        .await
    }

    async fn list(&self, tenant: &TenantId, filter: &JobFilter) -> Result<Vec<Job>, StoreError> {
        if filter.limit == 0 {
            return Ok(Vec::new());
        }
        if let Some(id) = &filter.id {
            let job = self.job(tenant, id).await?;
            return Ok(job
                .map(|row| row.job)
                .filter(|job| filter.state.is_none_or(|state| job.state == state))
                .into_iter()
                .collect());
        }
        let states = match filter.state {
            Some(state) => vec![state],
            None => vec![JobState::Pending, JobState::Done, JobState::Dead],
        };
        let mut jobs: Vec<Job> = Vec::new();
        for state in states {
            let (from, to) = ("0".to_owned(), END.to_owned());
            let walk =
                Walk::new(self.core.as_ref(), listed_of(tenant, state), from, to, filter.limit.min(100));
            let mut walk = walk.of(LISTED).newest_first();
            let (mut of_state, mut last) = (0, None);
            while let Some(item) = walk.next().await? {
                let Row { job, .. } = Row::read(&item)?;
                if of_state >= filter.limit && last != Some(job.created_at) {
                    break;
                }
                last = Some(job.created_at);
                of_state += 1;
                jobs.push(job);
            }
        }
        jobs.sort_by(|a, b| (b.created_at, &b.job.id).cmp(&(a.created_at, &a.job.id)));
        jobs.truncate(filter.limit);
        Ok(jobs)
    }

    async fn redrive(&self, tenant: &TenantId, id: &JobId, now: Timestamp) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let dead = self.job(tenant, id).await?.filter(|row| row.job.state == JobState::Dead);
            let mut row = dead.ok_or(StoreError::NotFound)?;
            // From here it could only go on as a turn that may have run already, and would park before a `once` tool.
            if row.region != self.here.region {
                return Err(StoreError::Elsewhere { region: row.region });
            }
            row.job.state = JobState::Pending;
            row.job.attempts = 0;
            row.job.visible_at = now;
            // The token stays, so the state is what a second redrive finds changed.
            let dead = Condition::Is("state", Attr::Text("dead".to_owned()));
            if self.wrote(vec![Write::Put(row.item()?, dead)]).await? {
                return Ok(());
            }
        }
        Err(contended())
    }
}
