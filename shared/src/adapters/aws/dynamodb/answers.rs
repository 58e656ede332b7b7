//! [`AnswerStore`] on DynamoDB, and the idempotency records that it shares with turns.

use super::attrs::{Draft, from_json, is_forgotten, to_json, unreadable};
use super::schema::EXPIRES;
use super::steps::{Facts, StoredStep};
use super::table::{Attr, Condition, Item, Key, Table, Write};
use super::texts::Text;
use super::{DynamoStores, TRIES, contended, keys};
use crate::answer::{Answer, AnswerKey, AnswerStore, Claim};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{PrincipalId, TenantId, TurnId};
use crate::session::{Idempotency, NewTurn};
use async_trait::async_trait;

/// What a key's record is for a caller.
const KEY: &str = "this idempotency key";

/// What a key was used for.
#[derive(Debug)]
pub(super) struct KeyRecord {
    pub(super) fingerprint: String,
    pub(super) used_by: UsedBy,
}

/// One kind never answers the other.
#[derive(Debug)]
pub(super) enum UsedBy {
    Turn(TurnId),
    Answered(Text),
    Claimed(Timestamp),
}

impl KeyRecord {
    fn read(item: &Item) -> Result<Self, StoreError> {
        let used_by = if let Some(turn) = item.opt_text("turn")? {
            UsedBy::Turn(TurnId::new(turn))
        } else if let Some(answer) = Text::read(item, "answer")? {
            UsedBy::Answered(answer)
        } else {
            UsedBy::Claimed(item.time("until")?)
        };
        Ok(Self { fingerprint: item.text("fingerprint")?.to_owned(), used_by })
    }

    /// What counts of an item, which may be there although it is forgotten.
    fn of(item: Option<Item>, now: Timestamp) -> Result<Option<Self>, StoreError> {
        match item {
            Some(item) => {
                let kept = item.is_kept(now).and_then(|is_kept| match is_kept {
                    true => Self::read(&item).map(Some),
                    false => Ok(None),
                });
                kept.map_err(unreadable(KEY))
            }
            None => Ok(None),
        }
    }
}

/// A record of a new turn, or of one that runs again.
pub(super) fn of_turn(new: &NewTurn, turn: &TurnId, now: Timestamp) -> Option<Item> {
    let idempotency = new.idempotency.as_ref()?;
    Some(record_of(&new.tenant, &new.principal, idempotency, turn, now))
}

/// A record of a turn that was accepted under this key at this time.
pub(super) fn record_of(
    tenant: &TenantId,
    principal: &PrincipalId,
    idempotency: &Idempotency,
    turn: &TurnId,
    accepted: Timestamp,
) -> Item {
    Draft::new(keys::idempotency(tenant, principal, &idempotency.key))
        .text("fingerprint", &idempotency.fingerprint)
        .text("turn", turn.as_str())
        .expires(Some(Idempotency::kept_until(accepted)))
        .item()
}

/// The record of a turn that was accepted with these facts, to be written if there is none that counts; nothing if its own
/// would not.
pub(super) fn missing(tenant: &TenantId, first: &StoredStep, facts: &Facts, now: Timestamp) -> Option<Write> {
    let idempotency = facts.idempotency.as_ref()?;
    let item = record_of(tenant, &facts.principal, idempotency, &first.turn, first.time);
    (Idempotency::kept_until(first.time) > now).then(|| Write::Put(item, is_forgotten(now)))
}

/// The record of a new turn's key.
pub(super) async fn of_new_turn(
    core: &dyn Table,
    new: &NewTurn,
    now: Timestamp,
) -> Result<Option<KeyRecord>, StoreError> {
    let Some(idempotency) = &new.idempotency else { return Ok(None) };
    KeyRecord::of(core.get(&keys::idempotency(&new.tenant, &new.principal, &idempotency.key)).await?, now)
}

/// The idempotency record under which `turn` was accepted, naming `by` from now on; `None` if it does already. `by` may be
/// the younger one, so the record is kept as if it were new.
pub(super) async fn named_again(
    core: &dyn Table,
    tenant: &TenantId,
    turn: &TurnId,
    by: &TurnId,
    principal: &PrincipalId,
    key: &str,
    now: Timestamp,
) -> Result<Option<Write>, StoreError> {
    let Some(mut item) = core.get(&keys::idempotency(tenant, principal, key)).await? else { return Ok(None) };
    if item.opt_text("turn")? != Some(turn.as_str()) {
        return Ok(None);
    }
    let as_read = Condition::Is("turn", Attr::Text(turn.to_string()));
    item.attrs.insert("turn".to_owned(), Attr::Text(by.to_string()));
    item.attrs.insert(EXPIRES.to_owned(), Attr::Number(Idempotency::kept_until(now).as_seconds()));
    Ok(Some(Write::Put(item, as_read)))
}

/// What must hold for a claim to be as it was read.
fn still_claimed(until: Timestamp) -> Condition {
    Condition::Is("until", Attr::Number(until.as_millis()))
}

fn key_of(key: &AnswerKey) -> Key {
    keys::idempotency(&key.tenant, &key.principal, &key.idempotency.key)
}

fn draft(key: &AnswerKey, now: Timestamp) -> Draft {
    let kept_until = Idempotency::kept_until(now);
    Draft::new(key_of(key)).text("fingerprint", &key.idempotency.fingerprint).expires(Some(kept_until))
}

impl DynamoStores {
    async fn record(&self, key: &AnswerKey, now: Timestamp) -> Result<Option<KeyRecord>, StoreError> {
        KeyRecord::of(self.core.get(&key_of(key)).await?, now)
    }
}

#[async_trait]
impl AnswerStore for DynamoStores {
    async fn claim(&self, key: &AnswerKey, now: Timestamp, until: Timestamp) -> Result<Claim, StoreError> {
        for _ in 0..TRIES {
            let (condition, claim) = match self.record(key, now).await? {
                None => (is_forgotten(now), Claim::Claimed),
                Some(record) if record.fingerprint != key.idempotency.fingerprint => {
                    return Ok(Claim::Mismatch);
                }
                Some(KeyRecord { used_by: UsedBy::Turn(_), .. }) => return Ok(Claim::Mismatch),
                Some(KeyRecord { used_by: UsedBy::Answered(answer), .. }) => {
                    let answer =
                        answer.whole(self.core.as_ref(), &key_of(key)).await.map_err(unreadable(KEY))?;
                    let name = || key_of(key).partition;
                    let answer = self.or_seen("idempotency", name, from_json(&answer))?;
                    return Ok(answer.map_or(Claim::Unreadable, Claim::Answered));
                }
                Some(KeyRecord { used_by: UsedBy::Claimed(held), .. })
                    if held.runs_at(now, until.since(now)) =>
                {
                    return Ok(Claim::Busy { until: held });
                }
                Some(KeyRecord { used_by: UsedBy::Claimed(held), .. }) => {
                    (still_claimed(held), Claim::Abandoned)
                }
            };
            let claimed = draft(key, now).time("until", until).item();
            if self.wrote_once(vec![Write::Put(claimed, condition)]).await? {
                return Ok(claim);
            }
        }
        Err(contended())
    }

    async fn store(&self, key: &AnswerKey, answer: &Answer, now: Timestamp) -> Result<(), StoreError> {
        let kept_until = Some(Idempotency::kept_until(now));
        let (answer, beside) = Text::new(to_json(answer)?, &key_of(key), &self.here.region, kept_until)?;
        for _ in 0..TRIES {
            let Some(record) = self.record(key, now).await? else { return Err(StoreError::NotFound) };
            if record.fingerprint != key.idempotency.fingerprint {
                return Err(StoreError::NotFound);
            }
            let until = match record.used_by {
                UsedBy::Turn(_) => return Err(StoreError::NotFound),
                // Whoever answered first is who the client may have heard.
                UsedBy::Answered(_) => return Ok(()),
                UsedBy::Claimed(until) => until,
            };
            let answered = answer.put(draft(key, now), "answer").item();
            let mut writes = vec![Write::Put(answered, still_claimed(until))];
            writes.extend(beside.iter().cloned());
            if self.wrote(writes).await? {
                return Ok(());
            }
        }
        Err(contended())
    }

    async fn release(&self, key: &AnswerKey) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            // What is forgotten may go as well.
            let record = self.core.get(&key_of(key)).await?.as_ref().map(KeyRecord::read).transpose()?;
            let until = match record {
                Some(KeyRecord { used_by: UsedBy::Claimed(until), fingerprint })
                    if fingerprint == key.idempotency.fingerprint =>
                {
                    until
                }
                _ => return Ok(()),
            };
            if self.wrote(vec![Write::Delete(key_of(key), still_claimed(until))]).await? {
                return Ok(());
            }
        }
        Err(contended())
    }
}
