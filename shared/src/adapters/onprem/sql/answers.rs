//! Idempotency records in SQL: one table for turns and for other requests.

use super::{Row, SqlError, Tx, args, locking, read_first};
use crate::answer::{Answer, AnswerKey, Claim};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::TurnId;

/// What a key was used for.
struct Record {
    fingerprint: String,
    turn: Option<TurnId>,
    claimed_until: Option<Timestamp>,
    answer: Option<Answer>,
}

fn read(row: &mut Row) -> Result<Record, SqlError> {
    Ok(Record {
        fingerprint: row.text()?,
        turn: row.opt_text()?.map(TurnId::from),
        claimed_until: row.opt_time()?,
        answer: row.opt_json()?,
    })
}

async fn find<T: Tx>(tx: &mut T, key: &AnswerKey) -> Result<Option<Record>, SqlError> {
    let find = locking!(
        "SELECT fingerprint, turn_id, claimed_until, answer FROM idempotency
         WHERE tenant = $1 AND principal = $2 AND idempotency_key = $3"
    );
    let rows = tx.query(find.of::<T>(), args![&key.tenant, &key.principal, &key.idempotency.key]).await?;
    read_first(rows, read)
}

/// [`crate::answer::AnswerStore::claim`].
pub(in crate::adapters::onprem) async fn claim<T: Tx>(
    tx: &mut T,
    key: &AnswerKey,
    now: Timestamp,
    until: Timestamp,
) -> Result<Claim, SqlError> {
    let Some(record) = find(tx, key).await? else {
        tx.execute(
            "INSERT INTO idempotency (tenant, principal, idempotency_key, fingerprint, claimed_until)
             VALUES ($1, $2, $3, $4, $5)",
            args![&key.tenant, &key.principal, &key.idempotency.key, &key.idempotency.fingerprint, until],
        )
        .await?;
        return Ok(Claim::Claimed);
    };
    if record.turn.is_some() || record.fingerprint != key.idempotency.fingerprint {
        return Ok(Claim::Mismatch);
    }
    if let Some(answer) = record.answer {
        return Ok(Claim::Answered(answer));
    }
    if let Some(until) = record.claimed_until.filter(|until| *until > now) {
        return Ok(Claim::Busy { until });
    }
    tx.execute(
        "UPDATE idempotency SET claimed_until = $1 WHERE tenant = $2 AND principal = $3 AND idempotency_key = $4",
        args![until, &key.tenant, &key.principal, &key.idempotency.key],
    )
    .await?;
    Ok(Claim::Abandoned)
}

/// [`crate::answer::AnswerStore::store`], with the answer as JSON. The first answer stays.
pub(in crate::adapters::onprem) async fn store<T: Tx>(
    tx: &mut T,
    key: &AnswerKey,
    answer: &str,
) -> Result<(), SqlError> {
    let stored = tx.execute(
        "UPDATE idempotency SET answer = COALESCE(answer, $1)
         WHERE tenant = $2 AND principal = $3 AND idempotency_key = $4 AND fingerprint = $5 AND turn_id IS NULL",
        args![answer, &key.tenant, &key.principal, &key.idempotency.key, &key.idempotency.fingerprint],
    ).await?;
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
