//! A session whose head cannot be read: reset or deleted with whatever of it can be found.

use super::attrs::{Draft, to_json};
use super::heads::{Head, Meta, View};
use super::table::{Condition, Item, Query, Write};
use super::walk::Walk;
use super::{DynamoStores, contended, keys};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{AgentId, SessionKey, TenantId};
use crate::session::{Becomes, Session};
use std::collections::BTreeSet;

/// Steps that are read at once.
const PAGE: usize = 100;

impl DynamoStores {
    /// See [`crate::session::SessionIndex::repair`]. A reset clears what the session had, too: which of its transcripts is
    /// which stood in what cannot be read.
    pub(super) async fn repair_session(
        &self,
        tenant: &TenantId,
        key: &SessionKey,
        agents: Option<&[AgentId]>,
        to: &Becomes,
        now: Timestamp,
    ) -> Result<Option<Session>, StoreError> {
        let heads = self.raw_heads(tenant, key).await?;
        let (mut meta, mut is_sound, mut epochs) = (None, true, Vec::new());
        for item in &heads {
            match item.key.sort.as_str() {
                keys::META => {
                    is_sound &= Meta::read(item).is_ok();
                    meta = Some(item);
                }
                keys::CLEARING => {}
                sort => {
                    is_sound &= Head::read(item).is_ok();
                    epochs.extend(sort.strip_prefix(keys::HEADS).and_then(|epoch| epoch.parse::<u64>().ok()));
                }
            }
        }
        let Some(meta) = meta.filter(|_| !is_sound) else { return Err(StoreError::NotFound) };
        let agent = meta.text("agent").ok().map(AgentId::new);
        if !agents.is_none_or(|agents| agent.as_ref().is_some_and(|agent| agents.contains(agent))) {
            return Err(StoreError::NotFound);
        }
        let home = meta.text("home").unwrap_or(&self.here.region).to_owned();
        if home != self.here.region {
            return Err(StoreError::Elsewhere { region: home });
        }
        let fresh = match (to, agent) {
            (Becomes::Nothing, _) => None,
            (Becomes::Empty(id), Some(agent)) => Some((id, agent)),
            (Becomes::Empty(_), None) => {
                let source = "its agent cannot be read".into();
                let what = "this session's agent (the session can be deleted)";
                return Err(StoreError::Unreadable { what, source });
            }
        };
        let ids = self.transcripts(tenant, key).await?;
        let clearing = Draft::new(keys::of_session(tenant, key, keys::CLEARING));
        let clearing = clearing.text("transcripts", to_json(&ids)?).item();
        let mut writes: Vec<Write> = heads
            .iter()
            .filter(|item| item.key.sort != keys::CLEARING)
            .map(|item| Write::Delete(item.key.clone(), Condition::Present))
            .collect();
        writes.push(Write::Put(clearing.clone(), Condition::Always));
        if !self.wrote(writes).await? {
            return Err(contended());
        }
        self.clear(&clearing).await?;
        let Some((id, agent)) = fresh else { return Ok(None) };
        let meta = Meta {
            home,
            epoch: epochs.into_iter().max().unwrap_or(self.here.ordinal),
            agent,
            user: meta.opt_text("user").ok().flatten().map(str::to_owned),
            channel: meta.text("channel").unwrap_or_default().to_owned(),
            created_at: meta.time("created").unwrap_or(now),
            since: None,
        };
        let view = View::empty(tenant.clone(), key.clone(), meta, id.clone(), now);
        let writes = vec![
            Write::Put(view.meta_item(), Condition::Absent),
            Write::Put(view.head_item()?, Condition::Absent),
        ];
        if self.wrote(writes).await? { Ok(Some(view.session())) } else { Err(contended()) }
    }

    async fn raw_heads(&self, tenant: &TenantId, key: &SessionKey) -> Result<Vec<Item>, StoreError> {
        let query = Query {
            index: None,
            partition: keys::session_partition(tenant, key),
            from: keys::META.to_owned(),
            to: keys::behind(keys::HEADS),
            newest_first: false,
            // A transaction takes a hundred writes.
            limit: 90,
        };
        self.core.query(&query).await
    }

    /// The transcripts that the session's steps belong to.
    async fn transcripts(&self, tenant: &TenantId, key: &SessionKey) -> Result<BTreeSet<String>, StoreError> {
        let partition = keys::session_partition(tenant, key);
        let (from, to) = (keys::STEPS.to_owned(), keys::behind(keys::STEPS));
        let mut walk = Walk::new(self.core.as_ref(), partition, from, to, PAGE);
        let mut ids = BTreeSet::new();
        while let Some(item) = walk.next().await? {
            ids.extend(keys::step_of(&item.key.sort).map(|(id, ..)| id.to_string()));
        }
        Ok(ids)
    }
}
