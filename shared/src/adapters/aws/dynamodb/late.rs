//! Late writes: what an old home wrote without knowing that the session had moved.
//!
//! They stand under the old epoch's keys, beyond what the lineage of the present head names. Each late turn is brought to
//! one visible outcome: it is copied behind the present transcript, or, if that has the turn already, left where it is.
//! Old items are never changed.

use super::attrs::{Draft, to_json};
use super::heads::{self, Head, Held, View};
use super::homes::{self, DynamoRegions};
use super::steps::{Body, Facts, NewStep, Steps, StoredStep};
use super::table::{Condition, Item, Query, Write};
use super::turns::{self, Accepted, Pointer};
use super::walk::Walk;
use super::{answers, keys};
use crate::audit::NewAudit;
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{PrincipalId, TurnId};
use crate::region::{Reconciled, Verdict};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a session is looked after once it moved here and all regions see each other.
const WATCH: Duration = Duration::from_secs(15 * 60);

/// Most steps that are copied one by one; the middle of a longer turn becomes one step, so that a transaction holds it.
const MOST_STEPS: usize = 40;

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
    /// Leave it: the turn is visible, or, under the same key of the same principal, this one.
    Supersede(Option<(TurnId, PrincipalId, String)>),
}

impl DynamoRegions {
    /// See [`crate::region::Regions::reconcile`].
    pub(super) async fn reconcile_watched(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Reconciled>, StoreError> {
        let in_sight_since = self.all_in_sight_since().await?;
        let list = homes::watched_by(&self.stores.here.region);
        let (from, to) = ("S#".to_owned(), keys::behind("S#"));
        let mut walk = Walk::new(self.stores.core.as_ref(), list, from, to, 100);
        let mut all = Vec::new();
        while all.len() < limit
            && let Some(entry) = walk.next().await?
        {
            self.look_after(&entry, in_sight_since, now, &mut all).await?;
        }
        Ok(all)
    }

    /// One session of the watch list.
    async fn look_after(
        &self,
        entry: &Item,
        in_sight_since: Timestamp,
        now: Timestamp,
        all: &mut Vec<Reconciled>,
    ) -> Result<(), StoreError> {
        let Some((tenant, session)) = keys::session_of(&entry.key.sort) else { return Ok(()) };
        let since = entry.time("since")?;
        let as_read = || Condition::Is("since", super::table::Attr::Number(since.as_millis()));
        let forget = || vec![Write::Delete(entry.key.clone(), as_read())];
        let view = heads::find(self.stores.core.as_ref(), &tenant, &session).await?.view;
        let Some(mut view) = view.filter(|view| view.meta.home == self.stores.here.region) else {
            // Deleted, or its new home looks after it.
            self.stores.wrote(forget()).await?;
            return Ok(());
        };
        let mut done: BTreeMap<u64, u64> = entry.opt_json("done")?.unwrap_or_default();
        let known = done.clone();
        let mut is_open = false;
        let heads = self.heads(&view).await?;
        let mut visible = None;
        let present = view.head.epoch;
        for head in heads.iter().filter(|head| head.epoch != present) {
            let seen = done.get(&head.epoch).copied().unwrap_or_default();
            let (groups, is_whole) = self.late_steps(&view, head, seen).await?;
            is_open |= !is_whole;
            for group in groups {
                if visible.is_none() {
                    visible = Some(turns::accepted(self.stores.core.as_ref(), &view).await?);
                }
                let sight = visible.get_or_insert_default();
                let last = group.steps.last().map_or(seen, |step| step.at.n);
                let turn = group.turn.clone();
                let Some((verdict, changed)) = self.settle(&view, &heads, head, sight, group, now).await?
                else {
                    is_open = true;
                    break;
                };
                view = changed;
                visible = None;
                done.insert(head.epoch, last);
                all.push(Reconciled { tenant: tenant.clone(), session: session.clone(), turn, verdict });
            }
        }
        if done != known {
            let entry = Draft::new(entry.key.clone()).time("since", since).text("done", to_json(&done)?);
            self.stores.wrote(vec![Write::Put(entry.item(), as_read())]).await?;
        } else if !is_open && since.max(in_sight_since) + WATCH < now {
            self.stores.wrote(forget()).await?;
        }
        Ok(())
    }

    /// All heads of a session that have arrived here.
    async fn heads(&self, view: &View) -> Result<Vec<Head>, StoreError> {
        let query = Query {
            index: None,
            partition: keys::session_partition(&view.tenant, &view.key),
            from: keys::HEADS.to_owned(),
            to: keys::behind(keys::HEADS),
            newest_first: false,
            limit: 1000,
        };
        self.stores.core.query(&query).await?.iter().map(Head::read).collect()
    }

    /// What stands under an old epoch beyond the present lineage and was not settled before, turn by turn, as far as it
    /// has arrived without a gap; and whether that is all.
    async fn late_steps(
        &self,
        view: &View,
        head: &Head,
        seen: u64,
    ) -> Result<(Vec<Group>, bool), StoreError> {
        let ancestor = view.head.lineage.iter().find(|ancestor| ancestor.epoch == head.epoch);
        let ancestor = ancestor.filter(|_| view.head.id == head.id);
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
        let facts = whole.first().and_then(|first| first.body.facts.as_ref());
        let key =
            facts.and_then(|facts| Some((facts.principal.clone(), facts.idempotency.as_ref()?.key.clone())));
        if let Some(key) = key
            && let Some(other) = visible.keys.get(&key)
        {
            return Ok(Ruling::Supersede(Some((other.clone(), key.0, key.1))));
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
        for head in heads.iter().filter(|head| head.epoch != view.head.epoch) {
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
        let unchanged = view.head.unchanged();
        let mut view = view.clone();
        let ended = steps.last().is_some_and(|step| step.body.outcome.is_some());
        let accepted_at = view.head.held.as_ref().map(|held| held.accepted_at);
        let accepted_at = accepted_at.or_else(|| steps.first().map(|first| first.time)).unwrap_or(now);
        let audit = [self.audit("turn.reconciled", json!({"from_epoch": epoch, "ended": ended}), now)];
        let mut rows = audit.as_slice();
        let mut writes = Vec::new();
        // Its key may still be on its way; once it is here it may name another late turn, which this one will supersede.
        if let Some(Facts { principal, idempotency: Some(key), .. }) =
            steps.first().and_then(|first| first.body.facts.as_ref())
        {
            let record = answers::record_of(&view.tenant, principal, key, turn);
            self.stores.wrote(vec![Write::Put(record, Condition::Absent)]).await?;
        }
        for (time, mut body) in shortened(steps) {
            if let Some(facts) = body.facts.as_mut().filter(|_| !ended)
                && let Value::Object(options) = &mut facts.options
            {
                // Its old home may have gone further than it told.
                options.insert("may_have_run".to_owned(), Value::Bool(true));
            }
            let begins = body.facts.is_some();
            let step = NewStep { turn, body, audit: rows, now: time };
            let (at, items) = view.record(step)?;
            rows = &[];
            writes.extend(items.into_iter().map(|item| Write::Put(item, Condition::Absent)));
            if begins {
                let (session, id) = (view.key.clone(), view.head.id.clone());
                let pointer = Pointer { session, id, at, same_as: None };
                writes.push(Write::Put(pointer.item(&view.tenant, turn), Condition::Always));
            }
        }
        view.head.updated_at = now;
        view.head.fence += 1;
        view.head.held = (!ended).then(|| Held { turn: turn.clone(), until: now, accepted_at, tries: 0 });
        writes.push(Write::Put(view.head_item()?, unchanged));
        let verdict = if ended { Verdict::Ended } else { Verdict::Interrupted };
        Ok(self.stores.wrote(writes).await?.then_some((verdict, view)))
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
            writes.extend(answers::named_again(core, &view.tenant, turn, &by, &principal, &key).await?);
        }
        Ok(self.stores.wrote(writes).await?.then_some((Verdict::Superseded, view)))
    }
}

/// The steps' bodies with their times; of a long turn, what is between its beginning and its end in one.
fn shortened(steps: Vec<StoredStep>) -> Vec<(Timestamp, Body)> {
    let mut bodies: Vec<(Timestamp, Body)> = steps.into_iter().map(|step| (step.time, step.body)).collect();
    if bodies.len() > MOST_STEPS {
        let last = bodies.len() - 1;
        let middle: Vec<_> = bodies.drain(1..last).collect();
        let time = middle.first().map_or(bodies[0].0, |(time, _)| *time);
        let messages = middle.into_iter().flat_map(|(_, body)| body.messages).collect();
        bodies.insert(1, (time, Body { messages, ..Body::default() }));
    }
    bodies
}
