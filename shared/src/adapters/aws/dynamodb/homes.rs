//! Homes of sessions, and regions' signs of life: [`Regions`] on DynamoDB.
//!
//! An operator's flag and a region's beat are two items: each has one kind of writer, so that replication never lets one
//! undo the other.

use super::attrs::Draft;
use super::heads::{Ancestor, Found, Head, Held, Meta, Segment, View};
use super::steps::{Steps, audit_rows};
use super::table::{Attr, Condition, Item, Key, Query, Write};
use super::{DynamoStores, heads, keys, turns};
use crate::audit::chain_hash;
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{IdSource, RegionId, SessionId, SessionKey, TenantId, TurnId};
use crate::message::MessageBody;
use crate::region::{BEAT_EVERY, Home, Reconciled, RegionState, Regions, next_epoch};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Where regions stand.
const REGIONS: &str = "REGION";

/// Where it is noted, in this region only, when one of the others was last out of sight.
const SIGHT: &str = "SIGHT";

/// For how long after its acceptance a turn that is taken over must be found by its key: who asks again does so sooner.
const ASKED_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// A region whose beat is older than this is out of sight.
const OUT_OF_SIGHT: Duration = Duration::from_secs(2 * BEAT_EVERY.as_secs());

/// Homes over the stores of this region.
#[derive(Clone)]
pub struct DynamoRegions {
    pub(super) stores: DynamoStores,
    pub(super) ids: Arc<dyn IdSource>,
    /// How long a turn's lease runs.
    pub(super) lease: Duration,
}

impl DynamoRegions {
    /// Over these stores; `ids` names audit rows, and a turn's lease runs for `lease`.
    pub fn new(stores: DynamoStores, ids: Arc<dyn IdSource>, lease: Duration) -> Self {
        Self { stores, ids, lease }
    }

    /// Since when every other region has been in sight, as far as is known; the beginning of time if they always were.
    pub(super) async fn all_in_sight_since(&self) -> Result<Timestamp, StoreError> {
        let item = self.stores.local.get(&sight()).await?;
        Ok(item.map(|item| item.time("since")).transpose()?.unwrap_or_default())
    }
}

fn of_region(region: &str, what: &str) -> Key {
    Key { partition: REGIONS.to_owned(), sort: format!("{}#{what}", keys::escape(region)) }
}

fn sight() -> Key {
    Key { partition: SIGHT.to_owned(), sort: "-".to_owned() }
}

/// Where it is noted, in this region only, since when a region's sign of life that is to come has been known.
fn sight_of(region: &RegionId) -> Key {
    Key { partition: SIGHT.to_owned(), sort: format!("beat#{}", keys::escape(region.as_str())) }
}

/// The home that a session's item names.
pub(super) fn home_of(meta: &Meta) -> Home {
    Home { region: RegionId::new(meta.home.as_str()), epoch: meta.epoch, since: meta.since }
}

/// A session as a take-over finds it. If nothing of its transcript has arrived, it goes on under a name that every region
/// would give.
pub(super) fn seen(found: Found, tenant: &TenantId, session: &SessionKey, now: Timestamp) -> Option<View> {
    let Found { view, meta, epochs, .. } = found;
    let meta = meta?;
    Some(view.unwrap_or_else(|| {
        let name = chain_hash(&[tenant.as_str(), session.as_str(), &meta.epoch.to_string()]);
        let id = SessionId::new(name.get(..26).unwrap_or(&name).to_uppercase());
        // There may be heads of later epochs, of homes that lost the session: no epoch is given twice.
        View { epochs, ..View::empty(tenant.clone(), session.clone(), meta, id, now) }
    }))
}

/// A session in the list of those that a region looks after because another one may have written to them, too.
pub(super) fn watched(region: &str, tenant: &TenantId, session: &SessionKey) -> Key {
    Key { partition: watched_by(region), sort: keys::session_partition(tenant, session) }
}

/// That list.
pub(super) fn watched_by(region: &str) -> String {
    format!("W#{}", keys::escape(region))
}

/// A new entry of that list.
pub(super) fn watch(region: &str, tenant: &TenantId, session: &SessionKey, now: Timestamp) -> Item {
    Draft::new(watched(region, tenant, session)).time("since", now).item()
}

impl DynamoStores {
    /// See [`Regions::states`].
    pub(super) async fn region_states(&self, now: Timestamp) -> Result<Vec<RegionState>, StoreError> {
        let mut states = self.told_states().await?;
        for state in &mut states {
            let Some(beat) = state.beat_at.filter(|beat| beat.is_to_come(now)) else { continue };
            let first_seen = self.first_seen(&state.region, beat, now).await?;
            state.beat_at = Some(first_seen.unwrap_or(now));
        }
        Ok(states)
    }

    /// Since when a sign of life that is to come has been known here, if that is noted.
    async fn first_seen(
        &self,
        region: &RegionId,
        beat: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let Some(note) = self.local.get(&sight_of(region)).await? else { return Ok(None) };
        let (noted, since) = (note.time("beat")?, note.time("since")?);
        // Another sign has come since, or the clock was ahead when this one was noted.
        Ok((noted == beat && !since.is_to_come(now)).then_some(since))
    }

    /// Notes signs of life that are to come, each when it is first seen.
    async fn note_ahead(&self, states: &[RegionState], now: Timestamp) -> Result<(), StoreError> {
        for state in states {
            let Some(beat) = state.beat_at.filter(|beat| beat.is_to_come(now)) else { continue };
            if self.first_seen(&state.region, beat, now).await?.is_none() {
                let note = Draft::new(sight_of(&state.region)).time("beat", beat).time("since", now).item();
                super::wrote(self.local.as_ref(), vec![Write::Put(note, Condition::Always)]).await?;
            }
        }
        Ok(())
    }

    /// Every region, with its latest sign of life as it was given.
    async fn told_states(&self) -> Result<Vec<RegionState>, StoreError> {
        let query = Query {
            index: None,
            partition: REGIONS.to_owned(),
            // DynamoDB refuses an empty key; no region's name begins below this.
            from: " ".to_owned(),
            to: "~".to_owned(),
            newest_first: false,
            limit: 100,
        };
        let mut states: BTreeMap<String, RegionState> = BTreeMap::new();
        for item in self.core.query(&query).await? {
            let name = item.text("region").map(str::to_owned);
            let Some(name) = self.or_seen("regions", || item.key.sort.clone(), name)? else { continue };
            let region = RegionId::new(name.as_str());
            let is_here = name == self.here.region;
            let state = states.entry(name).or_insert(RegionState {
                region,
                is_here,
                in_service: true,
                beat_at: None,
            });
            // A beat that cannot be read is none.
            if let Some(beat_at) = item.opt_time("beat").unwrap_or_default() {
                state.beat_at = Some(beat_at);
            }
            if let Some(flag) = item.opt_int("in_service").unwrap_or_default() {
                state.in_service = flag != 0;
            }
        }
        Ok(states.into_values().collect())
    }

    /// Whether nobody has taken a region out of service, as far as is known here.
    pub(super) async fn is_in_service(&self, region: &str) -> Result<bool, StoreError> {
        let flag = self.core.get(&of_region(region, "flag")).await?;
        Ok(flag.map(|flag| flag.opt_int("in_service")).transpose()?.flatten() != Some(0))
    }
}

/// What has arrived of a transcript, without a gap.
#[derive(Default)]
struct Arrived {
    lineage: Vec<Ancestor>,
    seq: u64,
    summarised_through: u64,
    /// The key of the newest step with audit rows.
    rows: Option<Key>,
    /// The last turn, if it has no end.
    open: Option<(TurnId, Timestamp)>,
    /// Writes of the items by which its turns are found.
    found_by: Vec<Write>,
}

impl DynamoRegions {
    /// Follows a transcript from its beginning to the first thing that is missing.
    async fn arrived(&self, view: &View, now: Timestamp) -> Result<Arrived, StoreError> {
        let partition = keys::session_partition(&view.tenant, &view.key);
        let mut found = Arrived::default();
        for Segment { epoch, after, through, n } in view.head.segments() {
            let id = &view.head.id;
            let from = keys::steps_from(id, epoch, after.saturating_add(1));
            // A step without messages stands at the position behind the last one.
            let to = keys::steps_through(id, epoch, through.saturating_add(1));
            let core = self.stores.core.as_ref();
            let mut steps = Steps::oldest_first(core, partition.clone(), from, to);
            let mut last = Ancestor { epoch, seq: found.seq, n: 0 };
            let mut is_whole = true;
            while let Some(step) = steps.next().await? {
                if step.at.n > n {
                    continue;
                }
                // Is it the next step of the turn under way, or, if there is none, the first one of a turn?
                let follows = step.is_neutral()
                    || found.open.as_ref().map_or(step.body.facts.is_some(), |(turn, _)| *turn == step.turn);
                if step.at.first != found.seq + 1 || !follows {
                    is_whole = false;
                    break;
                }
                if let Some(facts) = &step.body.facts {
                    found.open = Some((step.turn.clone(), step.time));
                    if step.time + ASKED_AGAIN > now {
                        found.found_by.extend(turns::found_by(view, &step, facts, now));
                    }
                }
                if step.body.outcome.is_some() {
                    found.open = None;
                }
                for body in &step.body.messages {
                    if let MessageBody::Summary { through, .. } = body {
                        found.summarised_through = *through;
                    }
                }
                found.seq = step.last();
                last = Ancestor { epoch, seq: found.seq, n: step.at.n };
                if step.has_rows {
                    found.rows = Some(step.key);
                }
            }
            let is_present = epoch == view.head.epoch;
            if is_whole && !is_present && found.seq == through {
                // Nothing missing: what bounded it, bounds it.
                last.n = n;
            } else {
                is_whole = false;
            }
            if last.n > 0 {
                found.lineage.push(last);
            }
            if !is_whole {
                break;
            }
        }
        Ok(found)
    }

    /// The session as this region takes it over.
    async fn taken(&self, view: &View, now: Timestamp) -> Result<View, StoreError> {
        let arrived = self.arrived(view, now).await?;
        // A turn whose steps have arrived is known, even if what names it is still on its way.
        for write in arrived.found_by {
            self.stores.wrote(vec![write]).await?;
        }
        let chain = match &arrived.rows {
            None => String::new(),
            Some(key) => {
                let rows = self.stores.core.get(key).await?.as_ref().map(audit_rows).transpose()?;
                rows.and_then(|mut rows| rows.pop()).map(|row| row.hash).unwrap_or_default()
            }
        };
        let newest = view.epochs.iter().copied().max().unwrap_or_default().max(view.meta.epoch);
        let epoch = next_epoch(newest, self.stores.here.ordinal);
        // While its lease runs the old home may still end the turn.
        let held = arrived.open.map(|(turn, accepted_at)| {
            let known = view.head.held.as_ref().filter(|held| held.turn == turn);
            let (until, tries) = known.map_or((now, 0), |held| (held.until, held.tries));
            Held { until, turn, accepted_at, tries }
        });
        let mut meta = view.meta.clone();
        meta.home.clone_from(&self.stores.here.region);
        (meta.epoch, meta.since) = (epoch, Some(now));
        let head = Head {
            epoch,
            id: view.head.id.clone(),
            fence: view.head.fence + 1,
            n: arrived.lineage.iter().map(|ancestor| ancestor.n).fold(view.head.n, u64::max) + 1,
            seq: arrived.seq,
            summarised_through: arrived.summarised_through,
            updated_at: now,
            chain,
            held,
            lineage: arrived.lineage,
        };
        let (tenant, key) = (view.tenant.clone(), view.key.clone());
        Ok(View { tenant, key, meta, head, epochs: view.epochs.clone() })
    }

    /// One try to take a session over; `None` if somebody else was faster.
    async fn try_take_over(
        &self,
        tenant: &TenantId,
        session: &SessionKey,
        from: &Home,
        now: Timestamp,
    ) -> Result<Option<Home>, StoreError> {
        let found = heads::find(self.stores.core.as_ref(), tenant, session).await?;
        let view = seen(found, tenant, session, now).ok_or(StoreError::NotFound)?;
        let home = home_of(&view.meta);
        if home.region != from.region || home.epoch != from.epoch {
            return Ok(Some(home));
        }
        let taken = self.taken(&view, now).await?;
        let epoch = Attr::Number(i64::try_from(view.meta.epoch).unwrap_or(i64::MAX));
        let writes = vec![
            Write::Put(taken.meta_item(), Condition::Is("epoch", epoch)),
            Write::Put(taken.head_item()?, Condition::Absent),
            Write::Put(watch(&self.stores.here.region, tenant, session, now), Condition::Always),
        ];
        Ok(self.stores.wrote(writes).await?.then(|| home_of(&taken.meta)))
    }
}

#[async_trait]
impl Regions for DynamoRegions {
    async fn home(&self, tenant: &TenantId, session: &SessionKey) -> Result<Option<Home>, StoreError> {
        let meta = self.stores.core.get(&keys::of_session(tenant, session, keys::META)).await?;
        Ok(meta.as_ref().map(Meta::read).transpose()?.map(|meta| home_of(&meta)))
    }

    async fn take_over(
        &self,
        tenant: &TenantId,
        session: &SessionKey,
        from: &Home,
        now: Timestamp,
    ) -> Result<Home, StoreError> {
        for _ in 0..super::TRIES {
            if let Some(home) = self.try_take_over(tenant, session, from, now).await? {
                return Ok(home);
            }
        }
        Err(super::contended())
    }

    async fn states(&self, now: Timestamp) -> Result<Vec<RegionState>, StoreError> {
        self.stores.region_states(now).await
    }

    async fn set_in_service(
        &self,
        region: &RegionId,
        in_service: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if !self.states(now).await?.iter().any(|state| state.region == *region) {
            return Err(StoreError::NotFound);
        }
        let item = Draft::new(of_region(region.as_str(), "flag"))
            .text("region", region.as_str())
            .int("in_service", i64::from(in_service))
            .time("at", now)
            .item();
        self.stores.wrote(vec![Write::Put(item, Condition::Always)]).await?;
        Ok(())
    }

    async fn beat(&self, now: Timestamp) -> Result<(), StoreError> {
        let here = &self.stores.here.region;
        let beat = Draft::new(of_region(here, "beat")).text("region", here).time("beat", now).item();
        self.stores.wrote(vec![Write::Put(beat, Condition::Always)]).await?;
        // One that was closed stays out of sight; nothing of it is under way.
        let is_closed =
            |state: &RegionState| !self.stores.here.places.iter().any(|name| name == state.region.as_str());
        let is_out_of_sight = |state: &RegionState| {
            !state.is_here && !is_closed(state) && state.beat_at.is_some_and(|beat| beat + OUT_OF_SIGHT < now)
        };
        self.stores.note_ahead(&self.stores.told_states().await?, now).await?;
        if self.states(now).await?.iter().any(is_out_of_sight) {
            let seen = Draft::new(sight()).time("since", now).item();
            super::wrote(self.stores.local.as_ref(), vec![Write::Put(seen, Condition::Always)]).await?;
        }
        Ok(())
    }

    async fn reconcile(&self, now: Timestamp, limit: usize) -> Result<Vec<Reconciled>, StoreError> {
        let states = self.states(now).await?;
        for state in &states {
            if !state.is_here && state.is_gone(now, self.lease) {
                self.stores.adopt_jobs(state.region.as_str(), now, limit).await?;
            }
        }
        self.reconcile_watched(&states, now, limit).await
    }
}
