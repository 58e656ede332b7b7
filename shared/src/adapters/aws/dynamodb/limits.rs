//! [`RateLimiter`] on DynamoDB, in the region's own table.

use super::attrs::Draft;
use super::schema::EXPIRES;
use super::table::{Attr, Attrs, Condition, Write};
use super::{DynamoStores, TRIES, contended, keys, wrote};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::limit::{Decision, Limit, RateLimiter, Schedule, gcra};
use async_trait::async_trait;

/// The subject's theoretical arrival time, in microseconds since the Unix epoch.
const ARRIVAL: &str = "arrival";

#[async_trait]
impl RateLimiter for DynamoStores {
    /// One conditional write for a subject that is idle, a second one for one that is not; a denial reads, too. Two such
    /// writes never undo each other, so nobody has to be the fastest.
    async fn take(&self, subject: &str, limit: Limit, now: Timestamp) -> Result<Decision, StoreError> {
        let key = keys::subject(subject);
        let local = self.local.as_ref();
        let Schedule { now: now_micros, interval, latest, farthest } = Schedule::new(limit, now);
        // From its arrival on a subject is idle with or without its item.
        let expires = |arrival: i64| arrival / 1_000_000 + 1;
        for _ in 0..TRIES {
            let arrival = now_micros.saturating_add(interval);
            let item = Draft::new(key.clone()).int(ARRIVAL, arrival).int(EXPIRES, expires(arrival)).item();
            let is_idle = Condition::Outside(ARRIVAL, now_micros, farthest);
            if wrote(local, vec![Write::Put(item, is_idle)]).await? {
                return Ok(Decision::Allowed);
            }
            let later = Write::Add {
                key: key.clone(),
                name: ARRIVAL,
                by: interval,
                set: Attrs::from([(
                    EXPIRES.to_owned(),
                    Attr::Number(expires(latest.saturating_add(interval))),
                )]),
                condition: Condition::Within(ARRIVAL, now_micros, latest),
            };
            if wrote(local, vec![later]).await? {
                return Ok(Decision::Allowed);
            }
            let stored = local.get(&key).await?.map(|item| item.int(ARRIVAL)).transpose()?;
            if let (denied @ Decision::Denied { .. }, _) = gcra(stored, limit, now) {
                return Ok(denied);
            }
            // Between the two writes it stopped, or began, to be idle.
        }
        Err(contended())
    }
}
