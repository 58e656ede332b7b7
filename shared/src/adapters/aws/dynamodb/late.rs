//! Late writes: what an old home wrote without knowing that the session had moved.
//!
//! They stand under the old epoch's keys, beyond what the lineage of the present head names, or, of a transcript that was
//! put away, the lineage that was put away with it. Each late turn is brought to one visible outcome: it is copied behind
//! the present transcript, or, if it is visible already, left where it is. What an old home wrote is never changed. A reset
//! by a home that had lost the session is undone: its turns were accepted, and are late like any others.
//!
//! That is the present home's work. If it is gone, an old home that has something late takes the session over: the home may
//! have been lost for good before it knew of that.

use super::attrs::{Draft, to_json};
use super::heads::{self, Head, Held, View};
use super::homes::{self, DynamoRegions};
use super::pasts::{self, Old, Past};
use super::steps::{BYTES_PER_STEP, Body, Facts, NewStep, Steps, StoredStep};
use super::table::{Attr, Condition, Item, Key, Write};
use super::turns::{self, Accepted, Pointer};
use super::walk::Walk;
use super::{answers, keys, wrote};
use crate::audit::NewAudit;
use crate::clock::Timestamp;
use crate::error::{Error, StoreError};
use crate::id::{PrincipalId, TurnId};
use crate::region::{Reconciled, RegionState, Regions, Verdict};
use crate::session::Idempotency;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
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

/// Most steps that one transaction copies: they, and what the larger ones go on in, are items of it.
const MOST_STEPS: usize = 40;

/// What a look knows of the regions.
struct Sight<'s> {
    states: &'s [RegionState],
    /// Since when all of them have been in sight.
    since: Timestamp,
    now: Timestamp,
}

/// Late steps of one turn, as they follow each other.
struct Group {
    turn: TurnId,
    steps: Vec<StoredStep>,
}

/// What is to be done about a late turn.
enum Ruling {
    /// Nothing yet: something is on its way, or the session is at work.
    Wait,
    /// Copy these steps. The turn is on the present transcript already if its first step is not among them.
    Bring(Vec<StoredStep>),
    /// Leave it: the turn is visible, perhaps in a transcript that was put away, or, under the same key of the same principal, this one.
    Supersede(Option<(TurnId, PrincipalId, String)>),
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
        view.head.held = view.head.held.filter(|held| held.until > sight.now);
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
                let Some((verdict, changed)) =
                    self.settle(&view, &old.heads, head, accepted, group, now).await?
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

    /// Settles one late turn; `None` if it is too early, or somebody else was faster.
    async fn settle(
        &self,
        view: &View,
        heads: &[Head],
        head: &Head,
        visible: &Accepted,
        group: Group,
        now: Timestamp,
    ) -> Result<Option<(Verdict, View)>, StoreError> {
        let turn = group.turn.clone();
        match self.ruling(view, heads, head, visible, group, now).await? {
            Ruling::Wait => Ok(None),
            Ruling::Bring(steps) => self.bring(view, &turn, steps, head.epoch, now).await,
            Ruling::Supersede(by) => self.supersede(view, &turn, by, head.epoch, now).await,
        }
    }

    async fn ruling(
        &self,
        view: &View,
        heads: &[Head],
        head: &Head,
        visible: &Accepted,
        group: Group,
        now: Timestamp,
    ) -> Result<Ruling, StoreError> {
        let Group { turn, steps } = group;
        let ends = |steps: &[StoredStep]| steps.last().is_some_and(|step| step.body.outcome.is_some());
        // Written with the head: while that has not arrived, more may come. While the lease runs, more may be written.
        let newest = steps.last().map_or(0, |step| step.at.n);
        let is_over =
            head.n >= newest && head.held.as_ref().is_some_and(|held| held.turn == turn && held.until <= now);
        if visible.turns.contains(&turn) {
            let held = view.head.held.as_ref().is_some_and(|held| held.turn == turn);
            let cut =
                view.head.lineage.last().filter(|cut| cut.epoch == head.epoch && cut.seq == view.head.seq);
            let goes_on = steps.first().is_some_and(|first| {
                first.body.facts.is_none() && cut.is_some_and(|cut| first.at.first == cut.seq + 1)
            });
            // Nothing was done for the turn here: what its old home did is how it went on.
            if !(held && goes_on) {
                return Ok(Ruling::Supersede(None));
            }
            return Ok(if ends(&steps) || is_over { Ruling::Bring(steps) } else { Ruling::Wait });
        }
        let Some(whole) = self.most_complete(view, heads, &turn, steps).await? else {
            return Ok(Ruling::Wait);
        };
        if let Some(first) = whole.first()
            && let Some(Facts { principal, idempotency: Some(Idempotency { key, .. }), .. }) =
                &first.body.facts
            && let Some(other) = visible.under(principal, key, first.time)
        {
            return Ok(Ruling::Supersede(Some((other.clone(), principal.clone(), key.clone()))));
        }
        if view.head.held.is_some() || !(ends(&whole) || is_over) {
            return Ok(Ruling::Wait);
        }
        Ok(Ruling::Bring(whole))
    }

    /// All that is known of a late turn, from its beginning: under the epoch that brought it furthest.
    async fn most_complete(
        &self,
        view: &View,
        heads: &[Head],
        turn: &TurnId,
        steps: Vec<StoredStep>,
    ) -> Result<Option<Vec<StoredStep>>, StoreError> {
        let core = self.stores.core.as_ref();
        let pointers = turns::pointers(core, &view.tenant, turn).await?;
        let mut best: Option<Vec<StoredStep>> =
            Some(steps).filter(|steps| steps.first().is_some_and(|first| first.body.facts.is_some()));
        let rank = |steps: &[StoredStep]| {
            (steps.last().is_some_and(|last| last.body.outcome.is_some()), steps.len())
        };
        for head in heads {
            for pointer in pointers.iter().filter(|pointer| pointer.id == head.id) {
                let steps = turns::steps_of(core, view, turn, pointer, &head.segments()).await?;
                let mut steps: Vec<_> = steps.into_iter().filter(|step| !step.is_neutral()).collect();
                let begins = steps.first().is_some_and(|first| first.body.facts.is_some());
                if begins && best.as_ref().is_none_or(|best| rank(best) < rank(&steps)) {
                    best = Some(std::mem::take(&mut steps));
                }
            }
        }
        Ok(best)
    }

    fn audit(&self, action: &str, detail: Value, now: Timestamp) -> NewAudit {
        let principal = PrincipalId::new("reef");
        NewAudit { id: self.ids.ulid(now), at: now, principal, action: action.to_owned(), detail }
    }

    /// Copies a turn's steps behind the present transcript.
    async fn bring(
        &self,
        view: &View,
        turn: &TurnId,
        steps: Vec<StoredStep>,
        epoch: u64,
        now: Timestamp,
    ) -> Result<Option<(Verdict, View)>, StoreError> {
        let mut unchanged = view.head.unchanged();
        let mut view = view.clone();
        let ended = steps.last().is_some_and(|step| step.body.outcome.is_some());
        let accepted_at = view.head.held.as_ref().map(|held| held.accepted_at);
        let accepted_at = accepted_at.or_else(|| steps.first().map(|first| first.time)).unwrap_or(now);
        let audit = [self.audit("turn.reconciled", json!({"from_epoch": epoch, "ended": ended}), now)];
        let mut rows = audit.as_slice();
        // Its key may still be on its way; once it is here it may name another late turn, which this one will supersede.
        let first = steps.first().and_then(|first| Some((first, first.body.facts.as_ref()?)));
        if let Some(record) =
            first.and_then(|(first, facts)| answers::missing(&view.tenant, first, facts, now))
        {
            self.stores.wrote(vec![record]).await?;
        }
        view.head.fence += 1;
        let mut batches = VecDeque::from(batches(steps)?);
        let is_whole = ended && batches.len() == 1;
        while let Some(batch) = batches.pop_front() {
            let mut writes = Vec::new();
            for (time, mut body) in batch {
                if let Some(facts) = body.facts.as_mut().filter(|_| !is_whole)
                    && let Value::Object(options) = &mut facts.options
                {
                    // Its old home may have gone further than it told, or than is copied here before this process dies.
                    options.insert("may_have_run".to_owned(), Value::Bool(true));
                }
                let begins = body.facts.is_some();
                let (at, items) = view.record(NewStep { turn, body, audit: rows, now: time })?;
                rows = &[];
                writes.extend(items.into_iter().map(|item| Write::Put(item, Condition::Absent)));
                if begins {
                    let (session, id) = (view.key.clone(), view.head.id.clone());
                    let pointer = Pointer { session, id, at, same_as: None };
                    writes.push(Write::Put(pointer.item(&view.tenant, turn), Condition::Always));
                }
            }
            // While there is more to copy, nobody goes on with the turn. Should this process die, its lease runs out like
            // any other.
            let is_last = batches.is_empty();
            let until = if is_last { now } else { now + self.lease };
            view.head.updated_at = now;
            view.head.held =
                (!(is_last && ended)).then(|| Held { turn: turn.clone(), until, accepted_at, tries: 0 });
            writes.push(Write::Put(view.head_item()?, unchanged));
            if !self.stores.wrote(writes).await? {
                return Ok(None);
            }
            unchanged = view.head.unchanged();
        }
        let verdict = if ended { Verdict::Ended } else { Verdict::Interrupted };
        Ok(Some((verdict, view)))
    }

    /// Notes that a late turn stays where it is; `by` is the turn that is visible in its stead, if it is another one.
    async fn supersede(
        &self,
        view: &View,
        turn: &TurnId,
        by: Option<(TurnId, PrincipalId, String)>,
        epoch: u64,
        now: Timestamp,
    ) -> Result<Option<(Verdict, View)>, StoreError> {
        let unchanged = view.head.unchanged();
        let mut view = view.clone();
        let visible = by.as_ref().map_or(turn, |(by, ..)| by);
        let detail = json!({"from_epoch": epoch, "by": visible.as_str()});
        let audit = [self.audit("turn.superseded", detail, now)];
        let step = NewStep { turn, body: Body::default(), audit: &audit, now };
        let (at, items) = view.record(step)?;
        let mut writes = vec![Write::Put(view.head_item()?, unchanged)];
        writes.extend(items.into_iter().map(|item| Write::Put(item, Condition::Absent)));
        if let Some((by, principal, key)) = by {
            let (session, id) = (view.key.clone(), view.head.id.clone());
            let pointer = Pointer { session, id, at, same_as: Some(by.clone()) };
            writes.push(Write::Put(pointer.item(&view.tenant, turn), Condition::Always));
            let core = self.stores.core.as_ref();
            let named = answers::named_again(core, &view.tenant, turn, &by, &principal, &key, now).await?;
            writes.extend(named);
        }
        Ok(self.stores.wrote(writes).await?.then_some((Verdict::Superseded, view)))
    }
}

/// The steps' bodies with their times, in parts that a transaction holds.
fn batches(steps: Vec<StoredStep>) -> Result<Vec<Vec<(Timestamp, Body)>>, StoreError> {
    let (mut batches, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    for step in steps {
        let size = to_json(&step.body)?.len();
        if !batch.is_empty() && (batch.len() == MOST_STEPS || bytes + size > BYTES_PER_STEP) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += size;
        batch.push((step.time, step.body));
    }
    batches.push(batch);
    Ok(batches)
}

/// Under which name it is noted up to where an old transcript is settled.
fn place(head: &Head) -> String {
    format!("{}#{}", head.epoch, head.id)
}

/// Where it is noted, in this region only, where the next look begins.
fn look() -> Key {
    Key { partition: "LOOK".to_owned(), sort: "-".to_owned() }
}
