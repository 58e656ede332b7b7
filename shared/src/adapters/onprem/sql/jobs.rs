//! The job queue in SQL.

use super::{Locking, Row, SqlError, Tx, args, locking, read_all, read_first, to_json};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{JobId, SessionKey, TenantId};
use crate::job::{Delivery, Job, JobFilter, JobState, NewJob, Outcome, Receipt, Work, done_kept_until};
use std::time::Duration;

const DUE: Locking = locking!(
    skip_locked
    "SELECT token, tenant, id, work, state, attempts, created_at, visible_at, reason FROM jobs
     WHERE state = 'pending' AND visible_at <= $1
     ORDER BY visible_at, created_at, tenant, id LIMIT $2"
);

const fn state_name(state: JobState) -> &'static str {
    match state {
        JobState::Pending => "pending",
        JobState::Done => "done",
        JobState::Dead => "dead",
    }
}

fn read(row: &mut Row) -> Result<Job, SqlError> {
    let (tenant, id, work) = (row.id()?, row.id()?, row.json()?);
    let state = match row.text()?.as_str() {
        "pending" => JobState::Pending,
        "done" => JobState::Done,
        "dead" => JobState::Dead,
        other => return Err(SqlError::broken(format!("a job in state `{other}`"))),
    };
    Ok(Job {
        job: NewJob { id, tenant, work },
        state,
        attempts: row.count()?,
        created_at: row.time()?,
        visible_at: row.time()?,
        reason: row.opt_text()?,
    })
}

/// Done jobs that one new job clears away at most: more than are added, so that none piles up, and few enough that nobody
/// notices.
const CLEARED_AT_ONCE: usize = 8;

/// [`crate::job::JobQueue::enqueue`], with the session that it works for, and the work as JSON.
pub(in crate::adapters::onprem) async fn enqueue<T: Tx>(
    tx: &mut T,
    (tenant, id): (&TenantId, &JobId),
    (session, work): (&SessionKey, &str),
    delay: Duration,
    now: Timestamp,
) -> Result<bool, SqlError> {
    let inserted = tx
        .execute(
            "INSERT INTO jobs (tenant, id, work, session_key, state, attempts, token, created_at, visible_at)
             VALUES ($1, $2, $3, $4, 'pending', 0, 0, $5, $6)
             ON CONFLICT (tenant, id) DO UPDATE SET work = excluded.work, session_key = excluded.session_key,
                 state = 'pending', attempts = 0, token = 0, created_at = excluded.created_at,
                 visible_at = excluded.visible_at, reason = NULL, expires_at = NULL, delivered = 0
             WHERE jobs.expires_at <= $7",
            args![tenant, id, work, session, now, now + delay, now],
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
) -> Result<bool, SqlError> {
    let due = "SELECT 1 FROM jobs WHERE state = 'pending' AND visible_at <= $1 LIMIT 1";
    Ok(!tx.query(due, args![now]).await?.is_empty())
}

/// [`crate::job::JobQueue::receive`].
pub(in crate::adapters::onprem) async fn receive<T: Tx>(
    tx: &mut T,
    max: usize,
    now: Timestamp,
    until: Timestamp,
) -> Result<Vec<Delivery>, SqlError> {
    let due = read_all(tx.query(DUE.of::<T>(), args![now, max]).await?, |row| {
        Ok((row.count::<u64>()?, read(row)?))
    })?;
    let mut deliveries = Vec::with_capacity(due.len());
    for (token, mut job) in due {
        job.attempts += 1;
        job.visible_at = until;
        let receipt = Receipt { tenant: job.job.tenant.clone(), job: job.job.id.clone(), token: token + 1 };
        tx.execute(
            "UPDATE jobs SET token = $1, attempts = attempts + 1, visible_at = $2, delivered = 1
             WHERE tenant = $3 AND id = $4",
            args![receipt.token, until, &receipt.tenant, &receipt.job],
        )
        .await?;
        deliveries.push(Delivery { job, receipt });
    }
    Ok(deliveries)
}

/// One row changed, or the receipt was no longer good.
const fn fenced(changed: u64) -> Result<(), SqlError> {
    if changed == 0 { Err(SqlError::Refused(StoreError::Fenced)) } else { Ok(()) }
}

/// [`crate::job::JobQueue::extend`].
pub(in crate::adapters::onprem) async fn extend<T: Tx>(
    tx: &mut T,
    receipt: &Receipt,
    until: Timestamp,
) -> Result<(), SqlError> {
    let extended = tx.execute(
        "UPDATE jobs SET visible_at = $1 WHERE tenant = $2 AND id = $3 AND token = $4 AND state = 'pending'",
        args![until, &receipt.tenant, &receipt.job, receipt.token],
    ).await?;
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
    let settled = tx.execute(
        "UPDATE jobs SET state = $1, visible_at = COALESCE($2, visible_at), reason = $3, token = token + 1,
             attempts = attempts - $4, expires_at = $5, work = COALESCE($6, work), delivered = 0
         WHERE tenant = $7 AND id = $8 AND token = $9 AND state = 'pending'",
        args![
            state_name(state),
            visible_at,
            reason,
            given_back,
            expires_at,
            rest.as_ref(),
            &receipt.tenant,
            &receipt.job,
            receipt.token
        ],
    ).await?;
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
            let all = "SELECT tenant, id, work, state, attempts, created_at, visible_at, reason FROM jobs
                 WHERE tenant = $1 AND (CAST($2 AS TEXT) IS NULL OR state = $2)
                     AND (expires_at IS NULL OR expires_at > $3)
                 ORDER BY created_at DESC, id DESC LIMIT $4";
            tx.query(all, args![tenant, state, now, filter.limit]).await?
        }
    };
    read_all(rows, read)
}

/// [`crate::job::JobQueue::redrive`].
pub(in crate::adapters::onprem) async fn redrive<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    id: &JobId,
    now: Timestamp,
) -> Result<(), SqlError> {
    let redriven = tx
        .execute(
            "UPDATE jobs SET state = 'pending', attempts = 0, visible_at = $1
         WHERE tenant = $2 AND id = $3 AND state = 'dead'",
            args![now, tenant, id],
        )
        .await?;
    match redriven {
        0 => Err(SqlError::Refused(StoreError::NotFound)),
        _ => Ok(()),
    }
}
