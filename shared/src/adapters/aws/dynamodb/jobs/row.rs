//! A job's row.

use crate::adapters::aws::dynamodb::attrs::{Draft, broken, number};
use crate::adapters::aws::dynamodb::keys;
use crate::adapters::aws::dynamodb::schema::{DUE, EXPIRES, LISTED};
use crate::adapters::aws::dynamodb::table::{Attr, Condition, Item, Key};
use crate::adapters::aws::dynamodb::texts::Text;
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{JobId, TenantId};
use crate::job::{Job, JobState, NewJob, Work};

/// What moves of a job, with the token of its newest delivery. The token never goes back, and grows at each settlement
/// and redrive, too. What the job is to do is written once.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) tenant: TenantId,
    pub(super) id: JobId,
    /// The [`NewJob`] as JSON.
    pub(super) work: Text,
    /// Another region may have run the turn.
    pub(super) may_have_run: bool,
    pub(super) state: JobState,
    pub(super) attempts: u32,
    pub(super) created_at: Timestamp,
    pub(super) visible_at: Timestamp,
    /// When it was said until when it is hidden. Rows from before this was kept count as set at the beginning of time.
    pub(super) set_at: Timestamp,
    pub(super) reason: Option<String>,
    pub(super) token: u64,
    /// From a delivery to its settlement.
    pub(super) delivered: bool,
    /// Whose queue has it.
    pub(super) region: String,
    /// Of a job that is done.
    pub(super) kept_until: Option<Timestamp>,
    /// What is wrong with it, if not all of it could be read, and the token as it stands there.
    pub(super) damage: Option<(String, Option<Attr>)>,
}

/// Where jobs of a tenant are listed by their state.
pub(super) fn listed_of(tenant: &TenantId, state: JobState) -> String {
    let state = match state {
        JobState::Pending => "pending",
        JobState::Done => "done",
        JobState::Dead => "dead",
    };
    format!("JS#{}#{state}", keys::escape(tenant.as_str()))
}

/// Where pending jobs of a region wait.
pub(super) fn due_in(region: &str, shard: u64) -> String {
    format!("DUE#{}#{shard}", keys::escape(region))
}

impl Row {
    /// The row, or, if not all of it can be read, what can be; fails only if not even its name can be.
    pub(super) fn of(item: &Item) -> Result<Self, StoreError> {
        let error = match Self::read(item) {
            Ok(row) => return Ok(row),
            Err(error) => error,
        };
        let Some((tenant, id)) = keys::job_of(&item.key.partition) else { return Err(error) };
        let why = match error {
            StoreError::Broken(source) => source.to_string(),
            other => other.to_string(),
        };
        let state = if item.attrs.contains_key(DUE.partition) { JobState::Pending } else { JobState::Dead };
        Ok(Self {
            tenant,
            id,
            work: Text::read(item, "job").ok().flatten().unwrap_or_else(|| Text::Inside(String::new())),
            may_have_run: true,
            state,
            attempts: 0,
            created_at: item.time("created").unwrap_or_default(),
            visible_at: item.time("visible").unwrap_or_default(),
            set_at: item.opt_time("set").ok().flatten().unwrap_or_default(),
            delivered: item.attrs.contains_key("delivered"),
            reason: None,
            token: item.count("token").unwrap_or_default(),
            region: item.text("region").unwrap_or_default().to_owned(),
            kept_until: None,
            damage: Some((why, item.attrs.get("token").cloned())),
        })
    }

    fn read(item: &Item) -> Result<Self, StoreError> {
        let state = match item.text("state")? {
            "pending" => JobState::Pending,
            "done" => JobState::Done,
            "dead" => JobState::Dead,
            other => return Err(broken(format!("a job in state `{other}`"))),
        };
        let odd = || broken("a job in an odd partition or without work");
        let (tenant, id) = keys::job_of(&item.key.partition).ok_or_else(odd)?;
        Ok(Self {
            tenant,
            id,
            work: Text::read(item, "job")?.ok_or_else(odd)?,
            may_have_run: item.opt_int("may_have_run")?.is_some(),
            state,
            attempts: u32::try_from(item.count("attempts")?).map_err(broken)?,
            created_at: item.time("created")?,
            visible_at: item.time("visible")?,
            set_at: item.opt_time("set")?.unwrap_or_default(),
            reason: item.opt_text("reason")?.map(str::to_owned),
            token: item.count("token")?,
            delivered: item.opt_int("delivered")?.is_some(),
            region: item.text("region")?.to_owned(),
            kept_until: item
                .opt_int(EXPIRES)?
                .map(|seconds| Timestamp::from_millis(seconds.saturating_mul(1_000))),
            damage: None,
        })
    }

    pub(super) fn key(&self) -> Key {
        keys::job(&self.tenant, &self.id)
    }

    pub(super) fn item(&self) -> Item {
        let state = match self.state {
            JobState::Pending => "pending",
            JobState::Done => "done",
            JobState::Dead => "dead",
        };
        let created = keys::in_order(self.created_at);
        let name = format!("{}#{}", keys::escape(self.tenant.as_str()), keys::escape(self.id.as_str()));
        let mut draft = self
            .work
            .put(Draft::new(self.key()), "job")
            .text("state", state)
            .count("attempts", self.attempts.into())
            .count("token", self.token)
            .text("region", &self.region)
            .time("created", self.created_at)
            .time("visible", self.visible_at)
            .time("set", self.set_at)
            .opt_text("reason", self.reason.as_deref())
            .expires(self.kept_until)
            .text(LISTED.partition, listed_of(&self.tenant, self.state))
            .text(LISTED.sort, format!("{created}#{name}"));
        if self.may_have_run {
            draft = draft.count("may_have_run", 1);
        }
        if self.delivered {
            draft = draft.count("delivered", 1);
        }
        if self.state == JobState::Pending {
            let visible = keys::in_order(self.visible_at);
            draft = draft
                .text(DUE.partition, due_in(&self.region, keys::shard(self.id.as_str())))
                .text(DUE.sort, format!("{visible}#{created}#{name}"));
        }
        draft.item()
    }

    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        let is_pending = self.state == JobState::Pending;
        is_pending && (self.visible_at <= now || self.set_at.is_to_come(now))
    }

    pub(super) fn is_kept(&self, now: Timestamp) -> bool {
        self.kept_until.is_none_or(|until| until > now)
    }

    /// What must hold for no delivery, settlement or redrive to have come between.
    pub(super) fn unchanged(&self) -> Condition {
        match &self.damage {
            None => Condition::Is("token", number(self.token)),
            Some((_, Some(as_it_stands))) => Condition::Is("token", as_it_stands.clone()),
            Some((_, None)) => Condition::Present,
        }
    }

    /// The same job, given up because its work has not arrived. It is left to the region that wrote it: there it is whole.
    pub(super) fn given_up(&self) -> Self {
        let region = match &self.work {
            Text::Inside(_) => self.region.clone(),
            Text::Beside { by, .. } => by.clone(),
        };
        let reason = format!(
            "part of it has not arrived from the region {region} within a day: when that region is back, redrive it there"
        );
        Self { state: JobState::Dead, reason: Some(reason), token: self.token + 1, region, ..self.clone() }
    }

    /// As callers see it.
    pub(super) fn job(&self, mut job: NewJob) -> Job {
        let Work::Turn(request) = &mut job.work;
        request.options.may_have_run |= self.may_have_run;
        Job {
            job,
            state: self.state,
            attempts: self.attempts,
            created_at: self.created_at,
            visible_at: self.visible_at,
            reason: self.reason.clone(),
            unreadable: None,
        }
    }

    /// As callers see it if its work cannot be read.
    pub(super) fn unreadable(&self, why: String) -> Job {
        let job = Job::unreadable(self.tenant.clone(), self.id.clone(), self.state, why);
        let (attempts, created_at, visible_at) = (self.attempts, self.created_at, self.visible_at);
        Job { attempts, created_at, visible_at, ..job }
    }
}
