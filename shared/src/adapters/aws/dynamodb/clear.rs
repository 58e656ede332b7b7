//! What a deletion leaves to be cleared: steps without their messages stay for the audit trail, everything else goes.

use super::attrs::{Draft, from_json, to_json};
use super::heads::View;
use super::pasts;
use super::steps::{Steps, StoredStep};
use super::table::{Attr, Condition, Item, Key, Write};
use super::{DynamoStores, TRIES, contended, keys};
use crate::error::StoreError;
use crate::id::{JobId, SessionId, TenantId};
use crate::session::TurnOutcome;

/// Writes of the transaction besides those for transcripts that were put away.
const OTHERS: usize = 40;

impl DynamoStores {
    /// The transaction that makes a session unfindable, and its note of what is to be cleared.
    pub(super) async fn forget(&self, view: &View) -> Result<(Item, Vec<Write>), StoreError> {
        let pasts = pasts::names(self.core.as_ref(), &view.tenant, &view.key).await?;
        let mut ids = vec![view.head.id.to_string()];
        ids.extend(pasts.iter().map(|(id, _)| id.to_string()));
        ids.dedup();
        let jobs = self.jobs_to_go(&view.tenant, &view.key).await?;
        let clearing = Draft::new(view.key_of(keys::CLEARING))
            .text("transcripts", to_json(&ids)?)
            .text("jobs", to_json(&jobs)?)
            .item();
        let mut writes = vec![
            Write::Delete(view.key_of(keys::META), Condition::Present),
            Write::Put(clearing.clone(), Condition::Absent),
        ];
        // The newest are last. Nobody asks for the others once there is a newer one.
        let (older, newest) = view.epochs.split_at(view.epochs.len().saturating_sub(OTHERS - 2));
        for epoch in older {
            self.delete_item(&view.key_of(keys::head(*epoch))).await?;
        }
        for epoch in newest {
            let is_present = *epoch == view.head.epoch;
            let condition = if is_present { view.head.unchanged() } else { Condition::Always };
            writes.push(Write::Delete(view.key_of(keys::head(*epoch)), condition));
        }
        let past = |(id, epoch): &(SessionId, u64)| {
            Write::Delete(view.key_of(keys::past(id, *epoch)), Condition::Always)
        };
        writes.extend(pasts.iter().take(100 - OTHERS).map(past));
        Ok((clearing, writes))
    }

    /// Clears what a deletion noted. Again if it was cut short: each step finds what is left.
    pub(super) async fn clear(&self, clearing: &Item) -> Result<(), StoreError> {
        let ids: Vec<String> = from_json(clearing.text("transcripts")?)?;
        let partition = &clearing.key.partition;
        let (tenant, session) = keys::session_of(partition)
            .ok_or_else(|| super::attrs::broken("a note of a deletion in an odd partition"))?;
        // Named one by one: by now there may be others, of a session that was made anew.
        let jobs: Vec<JobId> = clearing.opt_text("jobs")?.map_or_else(|| Ok(Vec::new()), from_json)?;
        for job in &jobs {
            self.delete_job(&tenant, &session, job).await?;
        }
        for id in &ids {
            let steps = keys::steps(&SessionId::new(id.as_str()));
            let to = keys::behind(&steps);
            let mut steps = Steps::oldest_first(self.core.as_ref(), partition.clone(), steps, to);
            while let Some(step) = steps.next().await? {
                self.clear_step(&tenant, &step).await?;
            }
        }
        for (id, epoch) in pasts::names(self.core.as_ref(), &tenant, &session).await? {
            if ids.iter().any(|noted| *noted == *id.as_str()) {
                self.delete_item(&keys::of_session(&tenant, &session, keys::past(&id, epoch))).await?;
            }
        }
        self.delete_item(&clearing.key).await
    }

    async fn clear_step(&self, tenant: &TenantId, step: &StoredStep) -> Result<(), StoreError> {
        if step.lost.is_some() {
            // It may be where its turn begins. Its key is forgotten in time.
            let same = Condition::Is("id", Attr::Text(step.id.to_string()));
            self.wrote(vec![Write::Delete(keys::turn(tenant, &step.turn, step.at.epoch), same)]).await?;
        }
        if let Some(facts) = &step.body.facts {
            if let Some(idempotency) = &facts.idempotency {
                let key = keys::idempotency(tenant, &facts.principal, &idempotency.key);
                let same = Condition::Is("turn", Attr::Text(step.turn.to_string()));
                self.wrote(vec![Write::Delete(key, same)]).await?;
            }
            let same = Condition::Is("id", Attr::Text(step.id.to_string()));
            self.wrote(vec![Write::Delete(keys::turn(tenant, &step.turn, step.at.epoch), same)]).await?;
        }
        if matches!(step.body.outcome, Some(TurnOutcome::Parked(_))) {
            let parked = keys::parked(tenant, step.time, &step.turn);
            self.delete_item(&parked).await?;
        }
        for _ in 0..TRIES {
            let first = match self.core.get(&step.key).await? {
                None => return Ok(()),
                Some(mut item) => match item.attrs.get("a").cloned() {
                    Some(rows) => {
                        item.attrs.remove("b");
                        item.attrs.remove("more");
                        Write::Put(item, Condition::Is("a", rows))
                    }
                    None => Write::Delete(step.key.clone(), Condition::Always),
                },
            };
            // All of a step goes at once: a first item whose others are gone could not be read any more.
            let others = step.more.iter().map(|key| Write::Delete(key.clone(), Condition::Always));
            if self.wrote(others.chain([first]).collect()).await? {
                return Ok(());
            }
        }
        Err(contended())
    }

    async fn delete_item(&self, key: &Key) -> Result<(), StoreError> {
        self.wrote(vec![Write::Delete(key.clone(), Condition::Always)]).await?;
        Ok(())
    }
}
