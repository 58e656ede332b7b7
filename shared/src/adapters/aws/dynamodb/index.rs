//! [`SessionIndex`] on DynamoDB.

use super::heads::{self, View, held_in, listed_of, listed_of_user, minute};
use super::keys::{self, SHARDS};
use super::schema::{DUE, LISTED, USER};
use super::table::{Condition, Index, Item, Write};
use super::walk::Walk;
use super::{DynamoStores, TRIES, contended, pasts, turns};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{AgentId, SessionId, SessionKey, TenantId, TurnId};
use crate::session::{Becomes, Interrupted, Session, SessionFilter, SessionIndex, Turn};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

/// Sessions that are read at once for a listing.
const PAGE: usize = 50;

/// Reads that are under way at the same time.
const AT_ONCE: usize = 10;

/// Behind every sort key of an index: they begin with a time in hexadecimal digits.
const END: &str = "g";

/// The last change's order: newest first, ties by key.
fn newest_first(session: &Session) -> (Reverse<Timestamp>, SessionKey) {
    (Reverse(session.updated_at), session.key.clone())
}

impl DynamoStores {
    /// The session that a head of the index belongs to, if it is the head of its present epoch.
    async fn listed(&self, item: Item) -> Result<Option<View>, StoreError> {
        let Some((tenant, key)) = keys::session_of(&item.key.partition) else {
            self.sightings.see("sessions", item.key.partition, "a head in an odd partition");
            return Ok(None);
        };
        let found = heads::find(self.core.as_ref(), &tenant, &key).await;
        let found = self.or_seen("sessions", || key.to_string(), found)?;
        Ok(found.and_then(|found| found.view).filter(|view| keys::head(view.head.epoch) == item.key.sort))
    }

    /// The first `limit` sessions of one partition of an index, and perhaps more.
    async fn listed_in(
        &self,
        index: Index,
        partition: String,
        filter: &SessionFilter,
    ) -> Result<Vec<Session>, StoreError> {
        // Behind the minute of the last moment that fits.
        let to = filter.updated_before.map_or(END.to_owned(), |before| format!("{}$", minute(before)));
        let page = filter.limit.min(PAGE);
        let walk = Walk::new(self.core.as_ref(), partition, String::from("0"), to, page);
        let mut walk = walk.of(index).newest_first();
        let mut sessions: Vec<Session> = Vec::new();
        let mut last_minute = String::new();
        loop {
            let mut some = Vec::new();
            while some.len() < page.max(1) {
                let Some(item) = walk.next().await? else { break };
                some.push(item);
            }
            let is_last = some.len() < page.max(1);
            // Within a minute the index does not know the order: all of the minute are looked at.
            let mut is_enough = false;
            for item in &some {
                let minute = walk.place(item)?.split('#').next().unwrap_or_default();
                if minute != last_minute {
                    is_enough |= sessions.len() >= filter.limit;
                    minute.clone_into(&mut last_minute);
                }
            }
            let views: Vec<Option<View>> =
                stream::iter(some).map(|item| self.listed(item)).buffered(AT_ONCE).try_collect().await?;
            sessions.extend(views.into_iter().flatten().map(|view| view.session()).filter(|session| {
                filter.agents.as_ref().is_none_or(|agents| agents.contains(&session.agent))
                    && filter.user.as_ref().is_none_or(|user| session.user.as_ref() == Some(user))
                    && filter.updated_before.is_none_or(|before| session.updated_at < before)
            }));
            if is_last || is_enough {
                return Ok(sessions);
            }
        }
    }

    /// The agents that have, or had, sessions.
    async fn agents(&self, tenant: &TenantId) -> Result<Vec<AgentId>, StoreError> {
        let (from, to) = ("G#".to_owned(), keys::behind("G#"));
        let mut walk = Walk::new(self.core.as_ref(), keys::agents_of(tenant), from, to, 100);
        let mut agents = Vec::new();
        while let Some(item) = walk.next().await? {
            agents.extend(keys::agent_of(&item.key.sort));
        }
        Ok(agents)
    }

    /// The session, if it is at home here.
    async fn at_home(&self, tenant: &TenantId, key: &SessionKey) -> Result<View, StoreError> {
        let found = heads::find(self.core.as_ref(), tenant, key).await?;
        if let (None, Some(clearing)) = (&found.view, &found.clearing) {
            self.clear(clearing).await?;
        }
        let view = found.view.ok_or(StoreError::NotFound)?;
        if let Some(home) = self.elsewhere(&view.meta) {
            let cause = format!("the session is at home in {}", home.region);
            return Err(StoreError::Unavailable(cause.into()));
        }
        Ok(view)
    }
}

/// Refuses a session whose present transcript is another one, or on which something is at work or interrupted.
fn idle(view: &View, from: &SessionId) -> Result<(), StoreError> {
    if view.head.id != *from {
        return Err(StoreError::NotFound);
    }
    if view.head.held.is_some() { Err(StoreError::Fenced) } else { Ok(()) }
}

#[async_trait]
impl SessionIndex for DynamoStores {
    async fn list(&self, tenant: &TenantId, filter: &SessionFilter) -> Result<Vec<Session>, StoreError> {
        if filter.limit == 0 {
            return Ok(Vec::new());
        }
        let partitions: Vec<(Index, String)> = match (&filter.user, &filter.agents) {
            (Some(user), _) => vec![(USER, listed_of_user(tenant, user))],
            (None, Some(agents)) => {
                let agents: BTreeSet<&AgentId> = agents.iter().collect();
                agents.into_iter().map(|agent| (LISTED, listed_of(tenant, agent))).collect()
            }
            (None, None) => {
                let agents = self.agents(tenant).await?;
                agents.iter().map(|agent| (LISTED, listed_of(tenant, agent))).collect()
            }
        };
        let mut sessions = Vec::new();
        for (index, partition) in partitions {
            sessions.append(&mut self.listed_in(index, partition, filter).await?);
        }
        sessions.sort_by_cached_key(newest_first);
        // An index that lags behind may name a session twice.
        sessions.dedup_by(|a, b| a.key == b.key);
        sessions.truncate(filter.limit);
        Ok(sessions)
    }

    async fn interrupted(
        &self,
        now: Timestamp,
        lease: Duration,
        limit: usize,
    ) -> Result<Vec<Interrupted>, StoreError> {
        let core = self.core.as_ref();
        let mut found: Vec<Interrupted> = Vec::new();
        let mut states = None;
        for shard in 0..SHARDS {
            let walk = Walk::new(core, held_in(shard), String::from("0"), END.to_owned(), 100);
            let mut walk = walk.of(DUE);
            let mut sound_of_shard = 0;
            let mut suspects_of_shard = 0;
            // They come in the order of acceptance, so the first of each shard are enough: as long as none of them is a
            // suspect, behind which a sound one may stand.
            while sound_of_shard < limit
                && let Some(item) = walk.next().await?
            {
                // What cannot be read is told of when its session is read.
                if item.opt_time("until").unwrap_or_default().is_none_or(|until| until.runs_at(now, lease)) {
                    continue;
                }
                let Some(view) = self.listed(item).await? else { continue };
                let held = view.head.held.clone().filter(|held| !held.until.runs_at(now, lease));
                let Some(held) = held else { continue };
                if view.meta.home != self.here.region {
                    if states.is_none() {
                        states = Some(self.region_states(now).await?);
                    }
                    // Whose home may be gone is a candidate; whether it is, is asked when the turn is resumed.
                    let home = states.iter().flatten().find(|state| *state.region.as_str() == view.meta.home);
                    if home.is_some_and(|home| !home.is_gone(now, Duration::ZERO)) {
                        continue;
                    }
                }
                let turn = turns::find(core, &view.tenant, &held.turn).await;
                let turn = match self.or_seen("turns", || held.turn.to_string(), turn)? {
                    Some(turn) => turn,
                    None => Some(turns::lost(&view, &held.turn, held.accepted_at)),
                };
                if let Some(turn) = turn.filter(|turn| turn.outcome.is_none()) {
                    let interrupted = Interrupted { turn, tries: held.tries };
                    let of_kind =
                        if interrupted.is_suspect() { &mut suspects_of_shard } else { &mut sound_of_shard };
                    *of_kind += 1;
                    if *of_kind <= limit {
                        found.push(interrupted);
                    }
                }
            }
        }
        found.sort_by(Interrupted::in_order);
        found.truncate(limit);
        Ok(found)
    }

    async fn parked(&self, tenant: &TenantId, limit: usize) -> Result<Vec<Turn>, StoreError> {
        let core = self.core.as_ref();
        let (from, to) = (String::from("0"), END.to_owned());
        let walk = Walk::new(core, keys::parked_of(tenant), from, to, limit.min(100));
        let mut walk = walk.newest_first();
        let mut found: Vec<Turn> = Vec::new();
        let mut last = None;
        // All of the last one's time are looked at: their order among each other is that of their plain ids.
        while let Some(item) = walk.next().await? {
            let time = item.key.sort.split('#').next().map(str::to_owned);
            if found.len() >= limit && time != last {
                break;
            }
            last = time;
            let name = || item.key.sort.clone();
            let Some(turn) = self.or_seen("turns", name, item.text("turn"))? else { continue };
            let turn = turns::find(core, tenant, &TurnId::new(turn)).await;
            found.extend(self.or_seen("turns", name, turn)?.flatten());
        }
        found.sort_by(|a, b| (b.ended_at, &b.id).cmp(&(a.ended_at, &a.id)));
        found.truncate(limit);
        Ok(found)
    }

    async fn reset(
        &self,
        tenant: &TenantId,
        key: &SessionKey,
        from: &SessionId,
        id: &SessionId,
        now: Timestamp,
    ) -> Result<Session, StoreError> {
        for _ in 0..TRIES {
            let mut view = self.at_home(tenant, key).await?;
            if view.head.id == *id || pasts::find(self.core.as_ref(), &view, id).await?.is_some() {
                return Ok(view.session());
            }
            idle(&view, from)?;
            let unchanged = view.head.unchanged();
            let put_away = view.past_item()?;
            view.head.id = id.clone();
            view.head.n += 1;
            view.head.seq = 0;
            view.head.summarised_through = 0;
            view.head.chain.clear();
            view.head.lineage.clear();
            view.head.updated_at = now;
            let writes =
                vec![Write::Put(view.head_item()?, unchanged), Write::Put(put_away, Condition::Absent)];
            if self.wrote(writes).await? {
                return Ok(view.session());
            }
        }
        Err(contended())
    }

    async fn repair(
        &self,
        tenant: &TenantId,
        key: &SessionKey,
        agents: Option<&[AgentId]>,
        to: &Becomes,
        now: Timestamp,
    ) -> Result<Option<Session>, StoreError> {
        self.repair_session(tenant, key, agents, to, now).await
    }

    /// One transaction makes the session and its turns unfindable; their items then go one by one. What a crash leaves
    /// of them is cleared when the key is next used, or deleted again.
    async fn delete(&self, tenant: &TenantId, key: &SessionKey, from: &SessionId) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let view = self.at_home(tenant, key).await?;
            idle(&view, from)?;
            let (clearing, writes) = self.forget(&view).await?;
            if self.wrote(writes).await? {
                return self.clear(&clearing).await;
            }
        }
        Err(contended())
    }
}
