//! [`AuditLog`] on DynamoDB: the rows stand in the steps that they record.

use super::attrs::{from_json, to_json};
use super::keys::{self, SHARDS, StepAt};
use super::schema::LISTED;
use super::steps::{Rows, audit_in, audit_rows};
use super::table::{Attr, Condition, Item, Key, Write};
use super::walk::Walk;
use super::{DynamoStores, TRIES, contended};
use crate::audit::{AuditFilter, AuditLog, AuditRow, AuditVerdict, ChainCheck};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{SessionId, SessionKey, TenantId};
use async_trait::async_trait;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

/// Steps that are read at once.
const PAGE: usize = 100;

/// Rows of one step lie no further apart than this: the index knows only the earliest.
const WIDEST_STEP: Duration = Duration::from_secs(24 * 60 * 60);

/// Behind every sort key of the index.
const END: &str = "g";

/// A row, and where it was written.
struct Placed {
    row: AuditRow,
    step: StepAt,
    /// Among its step's rows.
    nth: usize,
}

impl Placed {
    /// The order of a listing; rows of one time and transcript stay as they were written.
    fn order(&self) -> (Timestamp, SessionKey, SessionId, StepAt, usize) {
        let Self { row, step, nth } = self;
        (row.entry.at, row.session.clone(), row.session_id.clone(), *step, *nth)
    }
}

impl DynamoStores {
    /// Steps with rows, by the time of their earliest row.
    fn rows_of(&self, tenant: &TenantId, shard: u64, from: String, to: String) -> Walk<'_> {
        Walk::new(self.core.as_ref(), audit_in(tenant, shard), from, to, PAGE).of(LISTED)
    }

    /// Steps of one session, as they were written.
    fn steps_of_session(&self, tenant: &TenantId, session: &SessionKey) -> Walk<'_> {
        let partition = keys::session_partition(tenant, session);
        let (from, to) = (keys::STEPS.to_owned(), keys::behind(keys::STEPS));
        Walk::new(self.core.as_ref(), partition, from, to, PAGE)
    }

    /// The audit rows of a step; `None` if they cannot be read.
    fn rows_in(&self, item: &Item) -> Result<Option<Vec<AuditRow>>, StoreError> {
        self.or_seen("audit", || name_of(&item.key), audit_rows(item))
    }

    /// Forgets the rows of a step from before `before`; returns how many.
    async fn prune_step(&self, key: &Key, before: Timestamp) -> Result<u64, StoreError> {
        for _ in 0..TRIES {
            let Some(mut item) = self.core.get(key).await? else { return Ok(0) };
            let Some(text) = item.opt_text("a")?.map(str::to_owned) else { return Ok(0) };
            let read = self.or_seen("audit", || name_of(key), from_json::<Rows>(&text))?;
            let Some(mut rows) = read else { return Ok(0) };
            let had = rows.rows.len();
            rows.retain(|row| row.at >= before);
            let pruned = (had - rows.rows.len()) as u64;
            if pruned == 0 {
                return Ok(0);
            }
            let as_read = Condition::Is("a", Attr::Text(text));
            let (tenant, session) = keys::session_of(&key.partition)
                .ok_or_else(|| super::attrs::broken("a step in an odd partition"))?;
            let (id, at, _) =
                keys::step_of(&key.sort).ok_or_else(|| super::attrs::broken("a step with an odd key"))?;
            let write = match rows.place(&session, &tenant, &id, at) {
                Some((partition, sort)) => {
                    item.attrs.insert("a".to_owned(), Attr::Text(to_json(&rows)?));
                    item.attrs.insert(LISTED.partition.to_owned(), Attr::Text(partition));
                    item.attrs.insert(LISTED.sort.to_owned(), Attr::Text(sort));
                    Write::Put(item, as_read)
                }
                // All that was left of a deleted session's step.
                None if !item.attrs.contains_key("b") => Write::Delete(key.clone(), as_read),
                None => {
                    for name in ["a", LISTED.partition, LISTED.sort] {
                        item.attrs.remove(name);
                    }
                    Write::Put(item, as_read)
                }
            };
            if self.wrote(vec![write]).await? {
                return Ok(pruned);
            }
        }
        Err(contended())
    }
}

/// A step's name for people.
fn name_of(key: &Key) -> String {
    format!("{} {}", key.partition, key.sort)
}

/// Adds those of an item's rows that fit.
fn add(rows: &mut Vec<Placed>, found: Vec<AuditRow>, item: &Item, filter: &AuditFilter) {
    let Some((_, step, _)) = keys::step_of(&item.key.sort) else { return };
    let placed = found.into_iter().enumerate().map(|(nth, row)| Placed { row, step, nth });
    rows.extend(placed.filter(|placed| filter.fits(&placed.row)));
}

/// Keeps the newest rows, as many as are asked for.
fn keep_newest(rows: &mut Vec<Placed>, limit: usize) {
    rows.sort_by_cached_key(|placed| Reverse(placed.order()));
    rows.truncate(limit);
}

impl DynamoStores {
    /// Walks over the steps that may hold rows that fit, newest first: those of the filter's session, or of every shard.
    fn fitting(&self, tenant: &TenantId, filter: &AuditFilter) -> Vec<Walk<'_>> {
        if let Some(session) = &filter.session {
            return vec![self.steps_of_session(tenant, session)];
        }
        let from = filter.since.map_or("0".to_owned(), |since| keys::in_order(since - WIDEST_STEP));
        let to = filter.until.map_or(END.to_owned(), keys::in_order);
        let shards = 0..SHARDS;
        shards.map(|shard| self.rows_of(tenant, shard, from.clone(), to.clone()).newest_first()).collect()
    }
}

#[async_trait]
impl AuditLog for DynamoStores {
    /// Without a session all steps of one further day are read, too: a step's rows may lie a day behind the earliest of
    /// them, by which it is listed.
    async fn list(&self, tenant: &TenantId, filter: &AuditFilter) -> Result<Vec<AuditRow>, StoreError> {
        if filter.limit == 0 {
            return Ok(Vec::new());
        }
        let is_by_time = filter.session.is_none();
        let mut rows = Vec::new();
        for mut walk in self.fitting(tenant, filter) {
            let mut found: Vec<Placed> = Vec::new();
            while let Some(item) = walk.next().await? {
                if is_by_time && found.len() >= filter.limit {
                    keep_newest(&mut found, filter.limit);
                    let oldest = found.last().map(|placed| placed.row.entry.at);
                    // Nothing that is still to come is newer than what is there already.
                    let behind = oldest.map(|oldest| keys::in_order(oldest - WIDEST_STEP));
                    let place = walk.place(&item)?;
                    if behind.is_some_and(|behind| !place.starts_with(&behind) && *place < *behind) {
                        break;
                    }
                }
                let of_step = self.rows_in(&item)?.unwrap_or_default();
                add(&mut found, of_step, &item, filter);
            }
            rows.append(&mut found);
        }
        keep_newest(&mut rows, filter.limit);
        Ok(rows.into_iter().map(|placed| placed.row).collect())
    }

    async fn count(&self, tenant: &TenantId, filter: &AuditFilter) -> Result<u64, StoreError> {
        let mut found = 0;
        for mut walk in self.fitting(tenant, filter) {
            while found < filter.limit
                && let Some(item) = walk.next().await?
            {
                let mut rows = Vec::new();
                let of_step = self.rows_in(&item)?.unwrap_or_default();
                add(&mut rows, of_step, &item, filter);
                found += rows.len();
            }
        }
        Ok(found.min(filter.limit) as u64)
    }

    /// Chain by chain, one after the other. What an old home wrote late forks its chain: each epoch is checked by itself.
    async fn verify(&self, tenant: &TenantId) -> Result<AuditVerdict, StoreError> {
        let mut sessions = BTreeSet::new();
        for shard in 0..SHARDS {
            let mut walk = self.rows_of(tenant, shard, "0".to_owned(), END.to_owned());
            while let Some(item) = walk.next().await? {
                sessions.extend(keys::session_of(&item.key.partition).map(|(_, session)| session));
            }
        }
        let mut verdict = AuditVerdict { rows: 0, broken: Vec::new() };
        for session in sessions {
            let mut check = ChainCheck::default();
            let mut chain = None;
            let mut walk = self.steps_of_session(tenant, &session);
            while let Some(item) = walk.next().await? {
                let of = keys::step_of(&item.key.sort).map(|(id, at, _)| (id, at.epoch));
                if chain != of {
                    add_up(&mut verdict, std::mem::take(&mut check).finish());
                    chain = of;
                }
                match self.rows_in(&item)? {
                    Some(rows) => rows.iter().for_each(|row| check.feed(row)),
                    None => check.feed_unreadable(name_of(&item.key)),
                }
            }
            add_up(&mut verdict, check.finish());
        }
        Ok(verdict)
    }

    async fn prune(&self, tenant: &TenantId, before: Timestamp) -> Result<u64, StoreError> {
        let mut pruned = 0;
        for shard in 0..SHARDS {
            let mut walk = self.rows_of(tenant, shard, "0".to_owned(), keys::in_order(before));
            while let Some(item) = walk.next().await? {
                pruned += self.prune_step(&item.key, before).await?;
            }
        }
        Ok(pruned)
    }
}

fn add_up(verdict: &mut AuditVerdict, of_chain: AuditVerdict) {
    verdict.rows += of_chain.rows;
    verdict.broken.extend(of_chain.broken);
}
