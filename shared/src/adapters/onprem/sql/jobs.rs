//! The job queue in SQL.

use super::{
    Locking, Row, SqlError, Tx, args, around_damage, cause, locking, or_unreadable, read_each, read_first,
    to_json,
};
use crate::bounds::{BACKLOG_COUNTED, CLOCK_SLACK, LANES_LOOKED_AT};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{AgentId, JobId, PrincipalId, SessionKey, TenantId};
use crate::job::{
    Apart, Backlog, Delivery, Job, JobFilter, JobState, NewJob, Outcome, Receipt, Work, done_kept_until,
};
use std::time::Duration;

const DUE: Locking = locking!(
    skip_locked
    "SELECT tenant, id, token, work, state, attempts, created_at, visible_at, reason FROM jobs
     WHERE state = 'pending' AND visible_at <= $1
     ORDER BY visible_at, created_at, tenant, id LIMIT $2"
);

/// As [`DUE`], from the other end.
const DUE_LAST: Locking = locking!(
    skip_locked
    "SELECT tenant, id, token, work, state, attempts, created_at, visible_at, reason FROM jobs
     WHERE state = 'pending' AND visible_at <= $1
     ORDER BY visible_at DESC, created_at DESC, tenant DESC, id DESC LIMIT $2"
);

/// One job that is to be delivered, if nobody else was faster.
const ONE: Locking = locking!(
    skip_locked
    "SELECT tenant, id, token, work, state, attempts, created_at, visible_at, reason FROM jobs
     WHERE tenant = $1 AND id = $2 AND state = 'pending'"
);

/// The longest due jobs of one lane.
const DUE_IN_LANE: &str = "SELECT tenant, id, visible_at, created_at FROM jobs
     WHERE state = 'pending' AND lane = $1 AND visible_at <= $2
     ORDER BY visible_at, created_at, tenant, id LIMIT $3";

/// Jobs that were hidden by a clock that was ahead.
///
/// `visible_at + 0` keeps the planner from walking all that is hidden: there is hardly ever a row with such a `set_at`.
const HIDDEN_AHEAD: &str = "SELECT tenant, id, visible_at, created_at, lane FROM jobs
     WHERE state = 'pending' AND set_at > $1 AND visible_at + 0 > $2
     ORDER BY visible_at + 0, created_at, tenant, id LIMIT $3";

/// Due rows without a readable name that a delivery steps over at most: more than a damaged page holds.
const NAMELESS_STEPPED_OVER: usize = 1_000;

/// The same in one lane.
const NAMELESS_IN_LANE: usize = 32;

/// What a job is called in a note about its row: its table, and by how many of the first columns.
const NAMED: (&str, usize) = ("jobs", 2);

const fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Pending => "pending",
        JobState::Done => "done",
        JobState::Dead => "dead",
    }
}

/// What stands behind a job's name, from the columns that every query for jobs names in this order.
pub(super) fn read(row: &mut Row, tenant: &TenantId, id: &JobId) -> Result<Job, SqlError> {
    let work = row.json()?;
    let state = match row.text()?.as_str() {
        "pending" => JobState::Pending,
        "done" => JobState::Done,
        "dead" => JobState::Dead,
        _ => return Err(SqlError::broken("its state is none of pending, done and dead")),
    };
    Ok(Job {
        job: NewJob { id: id.clone(), tenant: tenant.clone(), work },
        state,
        attempts: row.count()?,
        created_at: row.time()?,
        visible_at: row.time()?,
        reason: row.opt_text()?,
        unreadable: None,
    })
}

/// As [`read`], for a row that was asked for by its state, if it was: one that cannot be read has its name at least.
fn read_or_name<T: Tx>(
    tx: &mut T,
    row: &mut Row,
    (tenant, id): (TenantId, JobId),
    state: Option<JobState>,
) -> Job {
    match read(row, &tenant, &id) {
        Ok(job) => job,
        Err(error) => {
            let why = cause(error);
            tx.saw("jobs", id.to_string(), &why);
            // Whoever gets it delivered ends it so.
            Job::unreadable(tenant, id, state.unwrap_or(JobState::Dead), why)
        }
    }
}

/// Done jobs that one new job clears away at most: more than are added, so that none piles up, and few enough that nobody
/// notices.
const CLEARED_AT_ONCE: usize = 8;

/// A [`NewJob`] ready to be written.
pub(in crate::adapters::onprem) struct EncodedJob {
    pub(in crate::adapters::onprem) tenant: TenantId,
    pub(in crate::adapters::onprem) id: JobId,
    /// On which session it works.
    pub(in crate::adapters::onprem) session: SessionKey,
    pub(in crate::adapters::onprem) work: String,
    /// For whom it works and who asked, as JSON.
    pub(in crate::adapters::onprem) lane: String,
}

impl EncodedJob {
    pub(in crate::adapters::onprem) fn new(job: &NewJob) -> Result<Self, StoreError> {
        let (work, lane) = (to_json(&job.work)?, to_json(&job.whose())?);
        Ok(Self {
            tenant: job.tenant.clone(),
            id: job.id.clone(),
            session: job.work.session().clone(),
            work,
            lane,
        })
    }
}

/// [`crate::job::JobQueue::enqueue`].
pub(in crate::adapters::onprem) async fn enqueue<T: Tx>(
    tx: &mut T,
    EncodedJob { tenant, id, session, work, lane }: &EncodedJob,
    delay: Duration,
    now: Timestamp,
) -> Result<bool, SqlError> {
    let inserted = tx
        .execute(
            "INSERT INTO jobs (tenant, id, session_key, work, lane, state, attempts, token, created_at, set_at, visible_at)
             VALUES ($1, $2, $3, $4, $5, 'pending', 0, 0, $6, $6, $7)
             ON CONFLICT (tenant, id) DO UPDATE SET session_key = excluded.session_key, work = excluded.work,
                 lane = excluded.lane, state = 'pending', attempts = 0, token = 0, created_at = excluded.created_at,
                 set_at = excluded.set_at, visible_at = excluded.visible_at, reason = NULL, expires_at = NULL,
                 delivered = 0
             WHERE jobs.expires_at <= $6",
            args![tenant, id, session, work, lane, now, now + delay],
        )
        .await?;
    tx.execute(
        "DELETE FROM jobs WHERE (tenant, id) IN (
             SELECT tenant, id FROM jobs WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2)",
        args![now, CLEARED_AT_ONCE],
    )
    .await?;
    Ok(inserted > 0)
}

/// Whether [`receive`] would find anything: a read, so that an idle worker's polling costs no write transaction.
pub(in crate::adapters::onprem) async fn any_due<T: Tx>(
    tx: &mut T,
    now: Timestamp,
    apart: &Apart,
) -> Result<bool, SqlError> {
    if !apart.is_empty() {
        return Ok(!found_apart(tx, 1, now, apart).await?.is_empty());
    }
    let due = "SELECT 1 FROM jobs WHERE state = 'pending' AND visible_at <= $1 LIMIT 1";
    Ok(!tx.query(due, args![now]).await?.is_empty() || !hidden_ahead(tx, 1, now, apart).await?.is_empty())
}

/// Where a job stands in the queue.
type Place = (Timestamp, Timestamp, TenantId, JobId);

fn read_place(row: &mut Row) -> Result<Place, SqlError> {
    let (tenant, id) = (row.id()?, row.id()?);
    Ok((row.time()?, row.time()?, tenant, id))
}

/// Whether the jobs of a lane are left aside. One that says nothing belongs to nobody.
fn is_apart(lane: &str, apart: &Apart) -> bool {
    let whose = serde_json::from_str::<(AgentId, PrincipalId)>(lane);
    whose.is_ok_and(|(agent, principal)| apart.has((&agent, &principal)))
}

/// The jobs that [`receive`] delivers while some are left aside: those at the head of each lane, so that a lane costs the same
/// however much waits in it.
async fn found_apart<T: Tx>(
    tx: &mut T,
    max: usize,
    now: Timestamp,
    apart: &Apart,
) -> Result<Vec<Place>, SqlError> {
    let mut found = Vec::new();
    // What belongs to nobody stands in the lane without a name.
    let mut lane = Some(String::new());
    for _ in 0..LANES_LOOKED_AT {
        let Some(this) = lane else { break };
        if !is_apart(&this, apart) {
            let due = tx.query(DUE_IN_LANE, args![&this, now, max + NAMELESS_IN_LANE]).await?;
            found.append(&mut read_each(tx, NAMED, due, read_place));
        }
        let next = "SELECT lane FROM jobs WHERE state = 'pending' AND lane > $1 ORDER BY lane LIMIT 1";
        lane = read_first(tx.query(next, args![&this]).await?, Row::text)?;
    }
    found.sort();
    found.truncate(max);
    if found.len() < max {
        found.append(&mut hidden_ahead(tx, max - found.len(), now, apart).await?);
    }
    Ok(found)
}

/// Jobs that count as due because the clock was ahead when they were hidden.
async fn hidden_ahead<T: Tx>(
    tx: &mut T,
    max: usize,
    now: Timestamp,
    apart: &Apart,
) -> Result<Vec<Place>, SqlError> {
    let look_at = if apart.is_empty() { max } else { LANES_LOOKED_AT };
    let rows = tx.query(HIDDEN_AHEAD, args![now + CLOCK_SLACK, now, look_at]).await?;
    let mut found = read_each(tx, NAMED, rows, |row| Ok((read_place(row)?, row.text()?)));
    found.retain(|(_, lane)| !is_apart(lane, apart));
    found.truncate(max);
    Ok(found.into_iter().map(|(place, _)| place).collect())
}

/// The longest due jobs whose names can be read. Those without one are told of and stepped over: they can be ended by nobody,
/// and must hide nobody's.
async fn due_by_name<T: Tx>(tx: &mut T, max: usize, now: Timestamp) -> Result<Vec<Row>, SqlError> {
    let mut looks = max;
    loop {
        let rows = around_damage(tx, NAMED.0, DUE.of::<T>(), DUE_LAST.of::<T>(), args![now, looks]).await?;
        let found = rows.len();
        let (mut named, nameless): (Vec<Row>, Vec<Row>) =
            rows.into_iter().partition(|row| row.is_named(NAMED.1));
        for row in &nameless {
            tx.saw(NAMED.0, row.name(NAMED.1), "its name is no text");
        }
        named.truncate(max);
        if named.len() == max || found < looks || looks > NAMELESS_STEPPED_OVER {
            return Ok(named);
        }
        looks = looks.saturating_mul(2);
    }
}

/// [`crate::job::JobQueue::receive`].
pub(in crate::adapters::onprem) async fn receive<T: Tx>(
    tx: &mut T,
    max: usize,
    now: Timestamp,
    until: Timestamp,
    apart: &Apart,
) -> Result<Vec<Delivery>, SqlError> {
    let mut due = Vec::new();
    let others = if apart.is_empty() {
        due = due_by_name(tx, max, now).await?;
        let missing = max.saturating_sub(due.len());
        if missing == 0 { Vec::new() } else { hidden_ahead(tx, missing, now, apart).await? }
    } else {
        found_apart(tx, max, now, apart).await?
    };
    for (_, _, tenant, id) in &others {
        due.append(&mut tx.query(ONE.of::<T>(), args![tenant, id]).await?);
    }
    let mut deliveries = Vec::with_capacity(due.len());
    for mut row in due.into_iter().take(max) {
        let name = row.name(2);
        let (tenant, id) = match (row.id(), row.id()) {
            (Ok(tenant), Ok(id)) => (tenant, id),
            _ => {
                tx.saw("jobs", name, "its name is no text");
                continue;
            }
        };
        // A token that cannot be read counts as none, as it does where SQL adds to it.
        let token = row.count::<u64>();
        let mut job = read_or_name(tx, &mut row, (tenant, id), Some(JobState::Pending));
        job.attempts += 1;
        job.visible_at = until;
        let token = token.unwrap_or(0) + 1;
        let receipt = Receipt { tenant: job.job.tenant.clone(), job: job.job.id.clone(), token };
        let deliver = match job.unreadable {
            None => {
                "UPDATE jobs SET token = $1, attempts = attempts + 1, set_at = $2, visible_at = $3, delivered = 1
                 WHERE tenant = $4 AND id = $5"
            }
            // Its end is to be written by the receipt, whatever stood there.
            Some(_) => {
                "UPDATE jobs SET token = $1, attempts = 1, set_at = $2, visible_at = $3, delivered = 1
                 WHERE tenant = $4 AND id = $5"
            }
        };
        tx.execute(deliver, args![receipt.token, now, until, &receipt.tenant, &receipt.job]).await?;
        deliveries.push(Delivery { job, receipt });
    }
    Ok(deliveries)
}

/// How many rows there are, counted up to [`BACKLOG_COUNTED`]: `beyond` asks whether there is one more.
async fn counted<T: Tx>(
    tx: &mut T,
    (beyond, count): (&'static str, &'static str),
    by: Timestamp,
) -> Result<u64, SqlError> {
    if !tx.query(beyond, args![by, BACKLOG_COUNTED]).await?.is_empty() {
        return Ok(BACKLOG_COUNTED as u64);
    }
    Ok(read_first(tx.query(count, args![by]).await?, Row::count)?.unwrap_or_default())
}

/// [`crate::job::JobQueue::backlog`].
pub(in crate::adapters::onprem) async fn backlog<T: Tx>(
    tx: &mut T,
    now: Timestamp,
) -> Result<Backlog, SqlError> {
    let due = (
        "SELECT 1 FROM jobs WHERE state = 'pending' AND visible_at <= $1 ORDER BY visible_at LIMIT 1 OFFSET $2",
        "SELECT COUNT(*) FROM jobs WHERE state = 'pending' AND visible_at <= $1",
    );
    let hidden = (
        "SELECT 1 FROM jobs WHERE state = 'pending' AND visible_at > $1 ORDER BY visible_at LIMIT 1 OFFSET $2",
        "SELECT COUNT(*) FROM jobs WHERE state = 'pending' AND visible_at > $1",
    );
    let dead = (
        "SELECT 1 FROM jobs WHERE state = 'dead' AND set_at <= $1 LIMIT 1 OFFSET $2",
        "SELECT COUNT(*) FROM jobs WHERE state = 'dead' AND set_at <= $1",
    );
    let oldest = "SELECT visible_at FROM jobs WHERE state = 'pending' AND visible_at <= $1
         ORDER BY visible_at LIMIT 1";
    Ok(Backlog {
        due: counted(tx, due, now).await?,
        hidden: counted(tx, hidden, now).await?,
        // All of them, by whatever clock they died.
        dead: counted(tx, dead, Timestamp::from_millis(i64::MAX)).await?,
        oldest_due: read_first(tx.query(oldest, args![now]).await?, Row::time)?,
    })
}

/// One row changed, or the receipt was no longer good.
const fn fenced(changed: u64) -> Result<(), SqlError> {
    if changed == 0 { Err(SqlError::Refused(StoreError::Fenced)) } else { Ok(()) }
}

/// [`crate::job::JobQueue::extend`].
pub(in crate::adapters::onprem) async fn extend<T: Tx>(
    tx: &mut T,
    receipt: &Receipt,
    now: Timestamp,
    until: Timestamp,
) -> Result<(), SqlError> {
    let extended = tx
        .execute(
            "UPDATE jobs SET set_at = $1, visible_at = $2
         WHERE tenant = $3 AND id = $4 AND token = $5 AND state = 'pending'",
            args![now, until, &receipt.tenant, &receipt.job, receipt.token],
        )
        .await?;
    fenced(extended)
}

/// What is kept of the work once it is done; `None` if it cannot be read, and stays as it is.
async fn rest_of<T: Tx>(tx: &mut T, receipt: &Receipt) -> Result<Option<String>, SqlError> {
    let find = "SELECT work FROM jobs WHERE tenant = $1 AND id = $2";
    let work = read_first(tx.query(find, args![&receipt.tenant, &receipt.job]).await?, Row::text)?;
    let Some(mut work) = work.and_then(|text| serde_json::from_str::<Work>(&text).ok()) else {
        return Ok(None);
    };
    work.forget_what_was_said();
    to_json(&work).map(Some).map_err(SqlError::Refused)
}

/// Deletes the jobs of a session, whatever their state.
pub(super) async fn delete_of_session<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    session: &SessionKey,
) -> Result<(), SqlError> {
    // `tenant || ''` keeps the planner from walking all jobs of the tenant instead of those of the session.
    let delete = "DELETE FROM jobs WHERE session_key = $1 AND tenant || '' = $2";
    tx.execute(delete, args![session, tenant]).await?;
    Ok(())
}

/// Whether one of the session's jobs is at work, or was when its worker died.
pub(super) async fn any_at_work<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    session: &SessionKey,
) -> Result<bool, SqlError> {
    let find = "SELECT 1 FROM jobs
         WHERE session_key = $1 AND tenant || '' = $2 AND state = 'pending' AND delivered = 1 LIMIT 1";
    Ok(!tx.query(find, args![session, tenant]).await?.is_empty())
}

/// [`crate::job::JobQueue::settle`].
pub(in crate::adapters::onprem) async fn settle<T: Tx>(
    tx: &mut T,
    receipt: &Receipt,
    outcome: &Outcome,
    now: Timestamp,
) -> Result<(), SqlError> {
    let (state, visible_at, reason) = match outcome {
        Outcome::Done => (JobState::Done, None, None),
        Outcome::Retry { after, reason, .. } => (JobState::Pending, Some(now + *after), Some(reason)),
        Outcome::Dead { reason } => (JobState::Dead, None, Some(reason)),
    };
    let expires_at = matches!(outcome, Outcome::Done).then(|| done_kept_until(now));
    // A job that was delivered has at least one.
    let given_back = u64::from(matches!(outcome, Outcome::Retry { counts: false, .. }));
    let rest = match outcome {
        Outcome::Done => rest_of(tx, receipt).await?,
        Outcome::Retry { .. } | Outcome::Dead { .. } => None,
    };
    // The token grows here, too: a receipt is good for one settlement.
    let settled = tx
        .execute(
            "UPDATE jobs SET state = $1, visible_at = COALESCE($2, visible_at), set_at = $3, reason = $4,
                 token = token + 1, attempts = attempts - $5, expires_at = $6, work = COALESCE($7, work),
                 delivered = 0
             WHERE tenant = $8 AND id = $9 AND token = $10 AND state = 'pending'",
            args![
                state_name(state),
                visible_at,
                now,
                reason,
                given_back,
                expires_at,
                rest.as_ref(),
                &receipt.tenant,
                &receipt.job,
                receipt.token
            ],
        )
        .await?;
    fenced(settled)
}

/// [`crate::job::JobQueue::list`]: one job by the primary key, all by the index on time.
pub(in crate::adapters::onprem) async fn list<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    filter: &JobFilter,
    now: Timestamp,
) -> Result<Vec<Job>, SqlError> {
    let state = filter.state.map(state_name);
    let rows = match &filter.id {
        Some(id) => {
            let one = "SELECT tenant, id, work, state, attempts, created_at, visible_at, reason FROM jobs
                 WHERE tenant = $1 AND id = $2 AND (CAST($3 AS TEXT) IS NULL OR state = $3)
                     AND (expires_at IS NULL OR expires_at > $4) LIMIT $5";
            tx.query(one, args![tenant, id, state, now, filter.limit]).await?
        }
        None => {
            let newest = "SELECT tenant, id, work, state, attempts, created_at, visible_at, reason FROM jobs
                 WHERE tenant = $1 AND (CAST($2 AS TEXT) IS NULL OR state = $2)
                     AND (expires_at IS NULL OR expires_at > $3)
                 ORDER BY created_at DESC, id DESC LIMIT $4";
            let oldest = "SELECT tenant, id, work, state, attempts, created_at, visible_at, reason FROM jobs
                 WHERE tenant = $1 AND (CAST($2 AS TEXT) IS NULL OR state = $2)
                     AND (expires_at IS NULL OR expires_at > $3)
                 ORDER BY created_at, id LIMIT $4";
            around_damage(tx, "jobs", newest, oldest, args![tenant, state, now, filter.limit]).await?
        }
    };
    let mut jobs = Vec::with_capacity(rows.len());
    for mut row in rows.into_iter().take(filter.limit) {
        let name = row.name(2);
        match (row.id(), row.id()) {
            (Ok(tenant), Ok(id)) => jobs.push(read_or_name(tx, &mut row, (tenant, id), filter.state)),
            _ => tx.saw("jobs", name, "its name is no text"),
        }
    }
    Ok(jobs)
}

/// [`crate::job::JobQueue::redrive`].
pub(in crate::adapters::onprem) async fn redrive<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    id: &JobId,
    now: Timestamp,
) -> Result<(), SqlError> {
    let dead = "SELECT work, state, attempts, created_at, visible_at, reason FROM jobs
         WHERE tenant = $1 AND id = $2 AND state = 'dead'";
    let dead = read_first(tx.query(dead, args![tenant, id]).await?, |row| read(row, tenant, id));
    or_unreadable(tx, "jobs", || id.to_string(), "the job", dead)?;
    let redriven = tx
        .execute(
            "UPDATE jobs SET state = 'pending', attempts = 0, set_at = $1, visible_at = $1
         WHERE tenant = $2 AND id = $3 AND state = 'dead'",
            args![now, tenant, id],
        )
        .await?;
    match redriven {
        0 => Err(SqlError::Refused(StoreError::NotFound)),
        _ => Ok(()),
    }
}
