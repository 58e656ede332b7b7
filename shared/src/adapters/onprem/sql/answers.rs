//! Idempotency records in SQL: one table for turns and for other requests.

use super::{Row, SqlError, Tx, args, cause, locking, or_unreadable, read_first};
use crate::answer::{Answer, AnswerKey, Claim};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{PrincipalId, TenantId, TurnId};
use crate::session::Idempotency;

/// What a key was used for.
struct Record {
    fingerprint: String,
    turn: Option<TurnId>,
    claimed_until: Option<Timestamp>,
    /// What was answered, or that it cannot be read.
    answer: Option<Result<Answer, String>>,
}

fn read(row: &mut Row) -> Result<Record, SqlError> {
    Ok(Record {
        fingerprint: row.text()?,
        turn: row.opt_text()?.map(TurnId::from),
        claimed_until: row.opt_time()?,
        answer: row.opt_json().map_err(cause).transpose(),
    })
}

async fn find<T: Tx>(tx: &mut T, key: &AnswerKey, now: Timestamp) -> Result<Option<Record>, SqlError> {
    let find = locking!(
        "SELECT fingerprint, turn_id, claimed_until, answer FROM idempotency
         WHERE tenant = $1 AND principal = $2 AND idempotency_key = $3 AND expires_at > $4"
    );
    let rows =
        tx.query(find.of::<T>(), args![&key.tenant, &key.principal, &key.idempotency.key, now]).await?;
    let name = || name_of(&key.principal, &key.idempotency.key);
    or_unreadable(tx, "idempotency", name, KEY, read_first(rows, read))
}

/// What a key's record is for a caller.
const KEY: &str = "this idempotency key";

fn name_of(principal: &PrincipalId, key: &str) -> String {
    format!("{principal} / {key}")
}

/// Records that one new record clears away at most: more than are added, so that none piles up, and few enough that
/// nobody notices.
const CLEARED_AT_ONCE: usize = 8;

/// Makes the record of a key that is free; it may have been used before, and be forgotten.
async fn insert<T: Tx>(
    tx: &mut T,
    (tenant, principal): (&TenantId, &PrincipalId),
    Idempotency { key, fingerprint }: &Idempotency,
    turn: Option<&TurnId>,
    claimed_until: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), SqlError> {
    tx.execute(
        "INSERT INTO idempotency
             (tenant, principal, idempotency_key, fingerprint, turn_id, claimed_until, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (tenant, principal, idempotency_key) DO UPDATE SET fingerprint = excluded.fingerprint,
             turn_id = excluded.turn_id, claimed_until = excluded.claimed_until, answer = NULL,
             expires_at = excluded.expires_at",
        args![tenant, principal, key, fingerprint, turn, claimed_until, Idempotency::kept_until(now)],
    )
    .await?;
    tx.execute(
        "DELETE FROM idempotency WHERE (tenant, principal, idempotency_key) IN (
             SELECT tenant, principal, idempotency_key FROM idempotency WHERE expires_at <= $1
             ORDER BY expires_at LIMIT $2)",
        args![now, CLEARED_AT_ONCE],
    )
    .await?;
    Ok(())
}

/// The fingerprint and the turn of a new turn's key, if it was used and is not forgotten.
pub(super) async fn of_turn<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    principal: &PrincipalId,
    key: &str,
    now: Timestamp,
) -> Result<Option<(String, Option<TurnId>)>, SqlError> {
    let find = "SELECT fingerprint, turn_id FROM idempotency
         WHERE tenant = $1 AND principal = $2 AND idempotency_key = $3 AND expires_at > $4";
    let rows = tx.query(find, args![tenant, principal, key, now]).await?;
    let found = read_first(rows, |row| Ok((row.text()?, row.opt_text()?.map(TurnId::from))));
    or_unreadable(tx, "idempotency", || name_of(principal, key), KEY, found)
}

/// Makes the record of a new turn's key.
pub(super) async fn insert_of_turn<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    principal: &PrincipalId,
    idempotency: &Idempotency,
    turn: &TurnId,
    now: Timestamp,
) -> Result<(), SqlError> {
    insert(tx, (tenant, principal), idempotency, Some(turn), None, now).await
}

/// Keeps the record of a turn that runs again for longer, if there is one.
pub(super) async fn renew<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    principal: &PrincipalId,
    key: &str,
    now: Timestamp,
) -> Result<(), SqlError> {
    tx.execute(
        "UPDATE idempotency SET expires_at = $1
         WHERE tenant = $2 AND principal = $3 AND idempotency_key = $4 AND expires_at > $5",
        args![Idempotency::kept_until(now), tenant, principal, key, now],
    )
    .await?;
    Ok(())
}

/// [`crate::answer::AnswerStore::claim`].
pub(in crate::adapters::onprem) async fn claim<T: Tx>(
    tx: &mut T,
    key: &AnswerKey,
    now: Timestamp,
    until: Timestamp,
) -> Result<Claim, SqlError> {
    let Some(record) = find(tx, key, now).await? else {
        insert(tx, (&key.tenant, &key.principal), &key.idempotency, None, Some(until), now).await?;
        return Ok(Claim::Claimed);
    };
    if record.turn.is_some() || record.fingerprint != key.idempotency.fingerprint {
        return Ok(Claim::Mismatch);
    }
    match record.answer {
        Some(Ok(answer)) => return Ok(Claim::Answered(answer)),
        Some(Err(why)) => {
            tx.saw("idempotency", name_of(&key.principal, &key.idempotency.key), &why);
            return Ok(Claim::Unreadable);
        }
        None => {}
    }
    if let Some(until) = record.claimed_until.filter(|held| held.runs_at(now, until.since(now))) {
        return Ok(Claim::Busy { until });
    }
    tx.execute(
        "UPDATE idempotency SET claimed_until = $1, expires_at = $2
         WHERE tenant = $3 AND principal = $4 AND idempotency_key = $5",
        args![until, Idempotency::kept_until(now), &key.tenant, &key.principal, &key.idempotency.key],
    )
    .await?;
    Ok(Claim::Abandoned)
}

/// [`crate::answer::AnswerStore::store`], with the answer as JSON. The first answer stays.
pub(in crate::adapters::onprem) async fn store<T: Tx>(
    tx: &mut T,
    key: &AnswerKey,
    answer: &str,
    now: Timestamp,
) -> Result<(), SqlError> {
    let Idempotency { key: idempotency_key, fingerprint } = &key.idempotency;
    let expires_at = Idempotency::kept_until(now);
    let stored = tx
        .execute(
            "UPDATE idempotency SET expires_at = CASE WHEN answer IS NULL THEN $1 ELSE expires_at END,
                 answer = COALESCE(answer, $2)
             WHERE tenant = $3 AND principal = $4 AND idempotency_key = $5 AND fingerprint = $6
                 AND turn_id IS NULL AND expires_at > $7",
            args![expires_at, answer, &key.tenant, &key.principal, idempotency_key, fingerprint, now],
        )
        .await?;
    match stored {
        0 => Err(SqlError::Refused(StoreError::NotFound)),
        _ => Ok(()),
    }
}

/// [`crate::answer::AnswerStore::release`].
pub(in crate::adapters::onprem) async fn release<T: Tx>(tx: &mut T, key: &AnswerKey) -> Result<(), SqlError> {
    tx.execute(
        "DELETE FROM idempotency
         WHERE tenant = $1 AND principal = $2 AND idempotency_key = $3 AND fingerprint = $4
             AND turn_id IS NULL AND answer IS NULL",
        args![&key.tenant, &key.principal, &key.idempotency.key, &key.idempotency.fingerprint],
    )
    .await?;
    Ok(())
}
