//! Late writes: what an old home wrote without knowing that the session had moved.
//!
//! They stand under the old epoch's keys, beyond what the lineage of the present head names, or, of a transcript that was
//! put away, the lineage that was put away with it. Each late turn is brought to one visible outcome: it is copied behind
//! the present transcript, or, if it is visible already, left where it is. What an old home wrote is never changed. A reset
//! by a home that had lost the session is undone: its turns were accepted, and are late like any others.
//!
//! That is the present home's work. If it is gone, an old home that has something late takes the session over: the home may
//! have been lost for good before it knew of that.

mod settle;

use super::attrs::{Draft, to_json};
use super::heads::{self, Head, View};
use super::homes::{self, DynamoRegions};
use super::pasts::{self, Old, Past};
use super::steps::Steps;
use super::table::{Attr, Condition, Item, Key, Write};
use super::turns;
use super::walk::Walk;
use super::{keys, wrote};
use crate::clock::Timestamp;
use crate::error::{Error, StoreError};
use crate::region::{Reconciled, RegionState, Regions};
use futures::{StreamExt, stream};
use settle::{Group, Ruling};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a session is looked after once it moved here and all regions see each other.
const WATCH: Duration = Duration::from_secs(15 * 60);

/// Sessions that are looked after at the same time.
const AT_ONCE: usize = 10;

/// Sessions that one look visits for each turn that it may settle. Almost all are new ones without a late turn; the next
/// look goes on behind them.
const LOOKS_PER_TURN: usize = 32;

/// Where the list of sessions begins.
const FIRST: &str = "S#";

/// What a look knows of the regions.
struct Sight<'s> {
    states: &'s [RegionState],
    /// Since when all of them have been in sight.
    since: Timestamp,
    now: Timestamp,
}

impl DynamoRegions {
    /// See [`crate::region::Regions::reconcile`].
    pub(super) async fn reconcile_watched(
        &self,
        states: &[RegionState],
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Reconciled>, StoreError> {
        let sight = Sight { states, since: self.all_in_sight_since().await?, now };
        let list = homes::watched_by(&self.stores.here.region);
        let begin = self.look_begins().await?;
        let mut next = Some(begin.clone());
        let mut walk = Walk::new(self.stores.core.as_ref(), list, begin.clone(), keys::behind("S#"), AT_ONCE);
        let mut all = Vec::new();
        let mut looks = limit.saturating_mul(LOOKS_PER_TURN);
        while all.len() < limit && looks > 0 {
            let mut some = Vec::new();
            while some.len() < AT_ONCE.min(looks)
                && let Some(entry) = walk.next().await?
            {
                some.push(entry);
            }
            next = some.last().map(|last| last.key.sort.clone());
            if next.is_none() {
                break;
            }
            looks -= some.len();
            let looked_after = stream::iter(some).map(|entry| self.looked_after(entry, &sight));
            let found: Vec<Vec<Reconciled>> = looked_after.buffered(AT_ONCE).collect().await;
            all.extend(found.into_iter().flatten());
        }
        let next = next.unwrap_or_else(|| FIRST.to_owned());
        if next != begin {
            let item = Draft::new(look()).text("next", next).item();
            wrote(self.stores.local.as_ref(), vec![Write::Put(item, Condition::Always)]).await?;
        }
        Ok(all)
    }

    /// Where the last look stopped.
    async fn look_begins(&self) -> Result<String, StoreError> {
        let item = self.stores.local.get(&look()).await?;
        let next = item.as_ref().map(|item| item.text("next")).transpose()?;
        Ok(next.unwrap_or(FIRST).to_owned())
    }

    /// What was settled of one session. What fails there is no reason to leave the others as they are; it is tried again
    /// at the next look.
    async fn looked_after(&self, entry: Item, sight: &Sight<'_>) -> Vec<Reconciled> {
        let mut settled = Vec::new();
        if let Err(error) = self.look_after(&entry, sight, &mut settled).await {
            let session = entry.key.sort;
            tracing::error!(target: "error", { session, cause = Error::from(error).cause() }, "late turns of a session cannot be reconciled");
        }
        settled
    }

    /// One session of the watch list.
    async fn look_after(
        &self,
        entry: &Item,
        sight: &Sight<'_>,
        all: &mut Vec<Reconciled>,
    ) -> Result<(), StoreError> {
        let now = sight.now;
        let Some((tenant, session)) = keys::session_of(&entry.key.sort) else { return Ok(()) };
        let since = entry.time("since")?;
        let as_read = || Condition::Is("since", Attr::Number(since.as_millis()));
        let forget = || vec![Write::Delete(entry.key.clone(), as_read())];
        let core = self.stores.core.as_ref();
        let mut done: BTreeMap<String, u64> = entry.opt_json("done")?.unwrap_or_default();
        let found = heads::find(core, &tenant, &session).await?;
        let Some(view) = homes::seen(found, &tenant, &session, now) else {
            // Deleted.
            self.stores.wrote(forget()).await?;
            return Ok(());
        };
        let home = homes::home_of(&view.meta);
        if view.meta.home != self.stores.here.region {
            // Its new home looks after it, as long as it is there.
            if self.is_left_behind(view, &done, sight).await? {
                let taken = self.take_over(&tenant, &session, &home, now).await?;
                tracing::warn!(target: "operation", { session.key = %session, from = %home.region, home = %taken.region, epoch = taken.epoch }, "session taken over");
                let entry = core.get(&entry.key).await?;
                if let Some(entry) = entry.filter(|_| taken.region.as_str() == self.stores.here.region) {
                    return Box::pin(self.look_after(&entry, sight, all)).await;
                }
            } else if home.since.unwrap_or(since).max(sight.since) + WATCH < now {
                self.stores.wrote(forget()).await?;
            }
            return Ok(());
        }
        let known = done.clone();
        // No other home has written to it yet.
        let old =
            if view.epochs == [view.head.epoch] { Old::default() } else { pasts::old(core, &view).await? };
        let settled = self.settle_all(view, &old, &mut done, now, all).await;
        if done != known {
            let entry = Draft::new(entry.key.clone()).time("since", since).text("done", to_json(&done)?);
            self.stores.wrote(vec![Write::Put(entry.item(), as_read())]).await?;
        } else if settled.as_ref().is_ok_and(|is_all| *is_all) && since.max(sight.since) + WATCH < now {
            // Nothing of their homes is under way any more, so that nothing newer can be overwritten.
            for item in old.due {
                let as_read = Condition::Is("v", Attr::Text(item.text("v")?.to_owned()));
                self.stores.wrote(vec![Write::Put(item, as_read)]).await?;
            }
            self.stores.wrote(forget()).await?;
        }
        settled.map(|_| ())
    }

    /// Whether the session's home is gone, and a late turn stands here that nobody would settle: perhaps it is known to
    /// no other region that is left, and nobody asks for the session again.
    async fn is_left_behind(
        &self,
        mut view: View,
        done: &BTreeMap<String, u64>,
        sight: &Sight<'_>,
    ) -> Result<bool, StoreError> {
        let home = view.meta.home.as_str();
        let is_gone =
            |state: &RegionState| state.region.as_str() == home && state.is_gone(sight.now, self.lease);
        let is_out_of_service = |state: &RegionState| state.is_here && !state.in_service;
        let may_be_taken = sight.states.iter().any(is_gone) && !sight.states.iter().any(is_out_of_service);
        if !may_be_taken || view.epochs == [view.head.epoch] {
            return Ok(false);
        }
        // What the home had at work ends with it. Of that turn nothing may have arrived, so that no sweep finds it.
        view.head.held = view.head.held.filter(|held| held.until.runs_at(sight.now, self.lease));
        let core = self.stores.core.as_ref();
        let old = pasts::old(core, &view).await?;
        let mut visible = None;
        for head in &old.heads {
            let seen = done.get(&place(head)).copied().unwrap_or_default();
            for group in self.late_steps(&view, &old.pasts, head, seen).await?.0 {
                if visible.is_none() {
                    visible = Some(turns::accepted(core, &view).await?);
                }
                let (turn, visible) = (group.turn.clone(), visible.get_or_insert_default());
                let is_left = match self.ruling(&view, &old.heads, head, visible, group, sight.now).await? {
                    Ruling::Bring(_) => true,
                    // Unless the home has said by which one before it was gone.
                    Ruling::Supersede(Some(_)) => turns::find(core, &view.tenant, &turn).await?.is_none(),
                    Ruling::Supersede(None) | Ruling::Wait => false,
                };
                if is_left {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Settles what can be settled of a session, noting in `done` up to where; whether that is all.
    async fn settle_all(
        &self,
        mut view: View,
        old: &Old,
        done: &mut BTreeMap<String, u64>,
        now: Timestamp,
        all: &mut Vec<Reconciled>,
    ) -> Result<bool, StoreError> {
        let (tenant, session) = (view.tenant.clone(), view.key.clone());
        let mut is_all = true;
        let mut visible = None;
        for head in &old.heads {
            let place = place(head);
            let seen = done.get(&place).copied().unwrap_or_default();
            let (groups, is_whole) = self.late_steps(&view, &old.pasts, head, seen).await?;
            is_all &= is_whole;
            for group in groups {
                if visible.is_none() {
                    visible = Some(turns::accepted(self.stores.core.as_ref(), &view).await?);
                }
                let accepted = visible.get_or_insert_default();
                let last = group.steps.last().map_or(seen, |step| step.at.n);
                let turn = group.turn.clone();
                let ruling = self.ruling(&view, &old.heads, head, accepted, group, now).await?;
                let Some((verdict, changed)) = self.settle(&view, &turn, ruling, head.epoch, now).await?
                else {
                    is_all = false;
                    break;
                };
                view = changed;
                visible = None;
                done.insert(place.clone(), last);
                all.push(Reconciled { tenant: tenant.clone(), session: session.clone(), turn, verdict });
            }
        }
        Ok(is_all)
    }

    /// What stands under an old epoch beyond what is visible of its transcript and was not settled before, turn by turn,
    /// as far as it has arrived without a gap; and whether that is all.
    async fn late_steps(
        &self,
        view: &View,
        pasts: &[Past],
        head: &Head,
        seen: u64,
    ) -> Result<(Vec<Group>, bool), StoreError> {
        let mut lineage = None;
        if view.head.id == head.id {
            lineage = Some(&view.head.lineage);
        } else if let Some(past) = view.put_away(pasts).into_iter().find(|past| past.id == head.id) {
            // All of it is visible as its home put it away.
            if past.epoch == head.epoch {
                return Ok((Vec::new(), true));
            }
            lineage = Some(&past.lineage);
        }
        let ancestor = lineage.into_iter().flatten().find(|ancestor| ancestor.epoch == head.epoch);
        let (mut last, known) = match ancestor {
            Some(ancestor) => (ancestor.seq, ancestor.n),
            None => (head.lineage.last().map_or(0, |ancestor| ancestor.seq), 0),
        };
        let partition = keys::session_partition(&view.tenant, &view.key);
        let from = keys::steps_from(&head.id, head.epoch, last.saturating_add(1));
        let to = keys::steps_through(&head.id, head.epoch, u64::MAX);
        let mut steps = Steps::oldest_first(self.stores.core.as_ref(), partition, from, to);
        let mut groups: Vec<Group> = Vec::new();
        let mut newest = known;
        while let Some(step) = steps.next().await? {
            if step.at.n <= known {
                continue;
            }
            let before = groups.last().and_then(|group| group.steps.last().map(|last| (&group.turn, last)));
            // Steps without messages have no place of their own, but a turn begins only when the one before has ended.
            let is_cut_off = before.is_some_and(|(turn, last)| {
                *turn != step.turn && !last.is_neutral() && last.body.outcome.is_none()
            });
            if step.at.first != last + 1 || (is_cut_off && !step.is_neutral()) {
                return Ok((groups, false));
            }
            last = step.last();
            newest = step.at.n;
            if step.at.n <= seen || step.is_neutral() {
                continue;
            }
            match groups.last_mut() {
                Some(group)
                    if group.turn == step.turn
                        && group.steps.last().is_some_and(|last| last.body.outcome.is_none()) =>
                {
                    group.steps.push(step);
                }
                _ => groups.push(Group { turn: step.turn.clone(), steps: vec![step] }),
            }
        }
        // The head was written with the newest step, or after it.
        Ok((groups, head.n >= newest && head.seq <= last))
    }
}

/// Under which name it is noted up to where an old transcript is settled.
fn place(head: &Head) -> String {
    format!("{}#{}", head.epoch, head.id)
}

/// Where it is noted, in this region only, where the next look begins.
fn look() -> Key {
    Key { partition: "LOOK".to_owned(), sort: "-".to_owned() }
}
