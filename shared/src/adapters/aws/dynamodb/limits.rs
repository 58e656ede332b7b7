//! [`RateLimiter`] on DynamoDB, in the region's own table.

use super::attrs::Draft;
use super::schema::EXPIRES;
use super::table::{Attr, Condition, Write};
use super::{DynamoStores, TRIES, contended, keys, wrote};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::limit::{Decision, Limit, RateLimiter, gcra};
use async_trait::async_trait;

/// The subject's theoretical arrival time, in microseconds since the Unix epoch.
const ARRIVAL: &str = "arrival";

#[async_trait]
impl RateLimiter for DynamoStores {
    /// One read and one conditional write; whoever loses a race reads again.
    async fn take(&self, subject: &str, limit: Limit, now: Timestamp) -> Result<Decision, StoreError> {
        let key = keys::subject(subject);
        for _ in 0..TRIES {
            let stored = match self.local.get(&key).await? {
                Some(item) => Some(item.int(ARRIVAL)?),
                None => None,
            };
            let (decision, arrival) = gcra(stored, limit, now);
            let (Decision::Allowed, Some(arrival)) = (decision, arrival) else { return Ok(decision) };
            let condition = match stored {
                Some(stored) => Condition::Is(ARRIVAL, Attr::Number(stored)),
                None => Condition::Absent,
            };
            // From its arrival on a subject is idle with or without its item.
            let item = Draft::new(key.clone()).int(ARRIVAL, arrival).int(EXPIRES, arrival / 1_000_000 + 1);
            if wrote(self.local.as_ref(), vec![Write::Put(item.item(), condition)]).await? {
                return Ok(decision);
            }
        }
        Err(contended())
    }
}
