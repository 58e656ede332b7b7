//! Rate limits in SQL.

use super::{SqlError, Tx, args, locking, read_first};
use crate::clock::Timestamp;
use crate::limit::{Decision, Limit, gcra};

/// [`crate::limit::RateLimiter::take`].
pub(in crate::adapters::onprem) async fn take<T: Tx>(
    tx: &mut T,
    subject: &str,
    limit: Limit,
    now: Timestamp,
) -> Result<Decision, SqlError> {
    let find = locking!("SELECT arrival FROM limits WHERE subject = $1").of::<T>();
    // A row that cannot be read counts as none, and is written anew.
    let arrival = read_first(tx.query(find, args![subject]).await?, |row| Ok(row.int().ok()))?.flatten();
    let (decision, next) = gcra(arrival, limit, now);
    if let (Decision::Allowed, Some(next)) = (decision, next) {
        let upsert = "INSERT INTO limits (subject, arrival) VALUES ($1, $2)
             ON CONFLICT (subject) DO UPDATE SET arrival = excluded.arrival";
        tx.execute(upsert, args![subject, next]).await?;
    }
    Ok(decision)
}

/// Forgets subjects whose theoretical arrival time lies in the past: they count as idle with or without their row.
pub(in crate::adapters::onprem) async fn forget_idle<T: Tx>(
    tx: &mut T,
    now: Timestamp,
) -> Result<(), SqlError> {
    let now = now.as_millis().saturating_mul(1000);
    tx.execute("DELETE FROM limits WHERE arrival <= $1", args![now]).await?;
    Ok(())
}
