//! [`AnswerStore`] in memory, and the idempotency records that it shares with turns.

use super::Memory;
use crate::answer::{Answer, AnswerKey, AnswerStore, Claim};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{PrincipalId, TenantId, TurnId};
use async_trait::async_trait;

/// One idempotency key within tenant and principal.
#[derive(Debug)]
pub(super) struct KeyRecord {
    pub(super) fingerprint: String,
    pub(super) used_by: UsedBy,
}

/// What a key was used for. One kind never answers the other.
#[derive(Debug)]
pub(super) enum UsedBy {
    Turn(TurnId),
    Request { until: Timestamp, answer: Option<Answer> },
}

fn map_key(key: &AnswerKey) -> (TenantId, PrincipalId, String) {
    (key.tenant.clone(), key.principal.clone(), key.idempotency.key.clone())
}

#[async_trait]
impl AnswerStore for Memory {
    async fn claim(&self, key: &AnswerKey, now: Timestamp, until: Timestamp) -> Result<Claim, StoreError> {
        let mut state = self.state();
        let Some(record) = state.keys.get_mut(&map_key(key)) else {
            let used_by = UsedBy::Request { until, answer: None };
            let fingerprint = key.idempotency.fingerprint.clone();
            state.keys.insert(map_key(key), KeyRecord { fingerprint, used_by });
            return Ok(Claim::Claimed);
        };
        if record.fingerprint != key.idempotency.fingerprint {
            return Ok(Claim::Mismatch);
        }
        Ok(match &mut record.used_by {
            UsedBy::Turn(_) => Claim::Mismatch,
            UsedBy::Request { answer: Some(answer), .. } => Claim::Answered(answer.clone()),
            UsedBy::Request { until: held, .. } if *held > now => Claim::Busy { until: *held },
            UsedBy::Request { until: held, .. } => {
                *held = until;
                Claim::Abandoned
            }
        })
    }

    async fn store(&self, key: &AnswerKey, answer: &Answer, _now: Timestamp) -> Result<(), StoreError> {
        let mut state = self.state();
        let record = state.keys.get_mut(&map_key(key)).ok_or(StoreError::NotFound)?;
        match &mut record.used_by {
            UsedBy::Request { answer: stored, .. } if record.fingerprint == key.idempotency.fingerprint => {
                // Whoever answered first is who the client may have heard.
                stored.get_or_insert_with(|| answer.clone());
                Ok(())
            }
            _ => Err(StoreError::NotFound),
        }
    }

    async fn release(&self, key: &AnswerKey) -> Result<(), StoreError> {
        let mut state = self.state();
        let map_key = map_key(key);
        let unanswered = state.keys.get(&map_key).is_some_and(|record| {
            record.fingerprint == key.idempotency.fingerprint
                && matches!(record.used_by, UsedBy::Request { answer: None, .. })
        });
        if unanswered {
            state.keys.remove(&map_key);
        }
        Ok(())
    }
}
