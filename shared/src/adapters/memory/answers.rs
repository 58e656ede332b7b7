//! [`AnswerStore`] in memory, and the idempotency records that it shares with turns.

use super::{Memory, State};
use crate::answer::{Answer, AnswerKey, AnswerStore, Claim};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{PrincipalId, TenantId, TurnId};
use crate::session::Idempotency;
use async_trait::async_trait;
use std::collections::HashMap;

/// Below so many records no sweep is worth its walk.
const SWEEP_FROM: usize = 1024;

/// Which idempotency key: within tenant and principal.
type MapKey = (TenantId, PrincipalId, String);

/// The idempotency records of turns and of other requests: one namespace.
#[derive(Debug)]
pub(super) struct Keys {
    records: HashMap<MapKey, KeyRecord>,
    /// The next sweep comes when there are so many: twice what the last one left.
    sweep_at: usize,
}

impl Default for Keys {
    fn default() -> Self {
        Self { records: HashMap::new(), sweep_at: SWEEP_FROM }
    }
}

impl Keys {
    /// The record of a key, if it counts.
    pub(super) fn get(&self, key: &MapKey, now: Timestamp) -> Option<&KeyRecord> {
        self.records.get(key).filter(|record| record.kept_until > now)
    }

    pub(super) fn get_mut(&mut self, key: &MapKey, now: Timestamp) -> Option<&mut KeyRecord> {
        self.records.get_mut(key).filter(|record| record.kept_until > now)
    }

    /// A record made now.
    pub(super) fn insert(&mut self, key: MapKey, fingerprint: String, used_by: UsedBy, now: Timestamp) {
        if self.records.len() >= self.sweep_at {
            self.records.retain(|_, record| record.kept_until > now);
            self.sweep_at = (self.records.len() * 2).max(SWEEP_FROM);
        }
        let kept_until = Idempotency::kept_until(now);
        self.records.insert(key, KeyRecord { fingerprint, used_by, kept_until });
    }

    /// Forgets records of turns that are no more.
    pub(super) fn retain_turns(&mut self, is_there: impl Fn(&TenantId, &TurnId) -> bool) {
        self.records.retain(|(tenant, _, _), record| match &record.used_by {
            UsedBy::Turn(turn) => is_there(tenant, turn),
            UsedBy::Request { .. } => true,
        });
    }
}

/// One idempotency key within tenant and principal.
#[derive(Debug)]
pub(super) struct KeyRecord {
    pub(super) fingerprint: String,
    pub(super) used_by: UsedBy,
    /// See [`Idempotency::kept_until`].
    pub(super) kept_until: Timestamp,
}

/// What a key was used for. One kind never answers the other.
#[derive(Debug)]
pub(super) enum UsedBy {
    Turn(TurnId),
    Request { until: Timestamp, answer: Option<Answer> },
}

fn map_key(key: &AnswerKey) -> MapKey {
    (key.tenant.clone(), key.principal.clone(), key.idempotency.key.clone())
}

#[async_trait]
impl AnswerStore for Memory {
    async fn claim(&self, key: &AnswerKey, now: Timestamp, until: Timestamp) -> Result<Claim, StoreError> {
        let mut state = self.state();
        let Some(record) = state.keys.get_mut(&map_key(key), now) else {
            let used_by = UsedBy::Request { until, answer: None };
            state.keys.insert(map_key(key), key.idempotency.fingerprint.clone(), used_by, now);
            return Ok(Claim::Claimed);
        };
        if record.fingerprint != key.idempotency.fingerprint {
            return Ok(Claim::Mismatch);
        }
        Ok(match &mut record.used_by {
            UsedBy::Turn(_) => Claim::Mismatch,
            UsedBy::Request { answer: Some(answer), .. } => Claim::Answered(answer.clone()),
            UsedBy::Request { until: held, .. } if held.runs_at(now, until.since(now)) => {
                Claim::Busy { until: *held }
            }
            UsedBy::Request { until: held, .. } => {
                *held = until;
                record.kept_until = Idempotency::kept_until(now);
                Claim::Abandoned
            }
        })
    }

    async fn store(&self, key: &AnswerKey, answer: &Answer, now: Timestamp) -> Result<(), StoreError> {
        let mut state = self.state();
        let record = state.keys.get_mut(&map_key(key), now).ok_or(StoreError::NotFound)?;
        match &mut record.used_by {
            UsedBy::Request { answer: stored, .. } if record.fingerprint == key.idempotency.fingerprint => {
                // Whoever answered first is who the client may have heard.
                if stored.is_none() {
                    *stored = Some(answer.clone());
                    record.kept_until = Idempotency::kept_until(now);
                }
                Ok(())
            }
            _ => Err(StoreError::NotFound),
        }
    }

    async fn release(&self, key: &AnswerKey) -> Result<(), StoreError> {
        let mut state = self.state();
        let map_key = map_key(key);
        let State { keys, .. } = &mut *state;
        let unanswered = keys.records.get(&map_key).is_some_and(|record| {
            record.fingerprint == key.idempotency.fingerprint
                && matches!(record.used_by, UsedBy::Request { answer: None, .. })
        });
        if unanswered {
            keys.records.remove(&map_key);
        }
        Ok(())
    }
}
