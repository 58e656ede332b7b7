//! Turns as they are found again: a pointer to where the turn begins, and the steps from there to its end.

use super::attrs::{Draft, broken, unreadable};
use super::heads::{self, Segment, View};
use super::keys::{self, StepAt};
use super::steps::{Facts, Steps, StoredStep};
use super::table::{Attr, Condition, Item, Query, Table, Write};
use super::{answers, pasts};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{PrincipalId, SessionId, SessionKey, TenantId, TurnId};
use crate::message::Message;
use crate::session::{Failure, Idempotency, Turn, TurnOutcome};
use std::collections::BTreeMap;

/// Where a turn begins. Written when the turn starts, and again when it runs again; one per epoch.
#[derive(Debug, Clone)]
pub(super) struct Pointer {
    pub(super) session: SessionKey,
    pub(super) id: SessionId,
    pub(super) at: StepAt,
    /// The turn that is visible in its stead: both were accepted under one idempotency key, by two regions.
    pub(super) same_as: Option<TurnId>,
}

/// A turn, and what its callers do not see.
#[derive(Debug)]
pub(super) struct TurnRecord {
    pub(super) turn: Turn,
    /// What it was first accepted under.
    pub(super) idempotency: Option<Idempotency>,
    /// What it recorded after its input.
    pub(super) steps: Vec<Message>,
    /// Its session, read before the turn was.
    pub(super) view: View,
    /// Part of it cannot be read.
    pub(super) is_damaged: bool,
}

impl Pointer {
    pub(super) fn item(&self, tenant: &TenantId, turn: &TurnId) -> Item {
        Draft::new(keys::turn(tenant, turn, self.at.epoch))
            .text("session", self.session.as_str())
            .text("id", self.id.as_str())
            .count("first", self.at.first)
            .count("n", self.at.n)
            .opt_text("same_as", self.same_as.as_ref().map(TurnId::as_str))
            .item()
    }

    fn read(item: &Item) -> Result<Self, StoreError> {
        let epoch = item.key.sort.parse().map_err(broken)?;
        Ok(Self {
            session: SessionKey::new(item.text("session")?),
            id: SessionId::new(item.text("id")?),
            at: StepAt { epoch, first: item.count("first")?, n: item.count("n")? },
            same_as: item.opt_text("same_as")?.map(TurnId::new),
        })
    }
}

/// The items by which a turn is found that begins with this step, if they are missing: its pointer and its idempotency
/// record.
pub(super) fn found_by(view: &View, first: &StoredStep, facts: &Facts, now: Timestamp) -> Vec<Write> {
    let (session, id) = (view.key.clone(), first.id.clone());
    let pointer = Pointer { session, id, at: first.at, same_as: None };
    let pointer = Write::Put(pointer.item(&view.tenant, &first.turn), Condition::Absent);
    [Some(pointer), answers::missing(&view.tenant, first, facts, now)].into_iter().flatten().collect()
}

/// What must hold for the pointer of this epoch to be as it was read.
pub(super) fn unchanged(pointers: &[Pointer], epoch: u64) -> Condition {
    match pointers.iter().find(|pointer| pointer.at.epoch == epoch) {
        Some(pointer) => Condition::Is("id", Attr::Text(pointer.id.to_string())),
        None => Condition::Absent,
    }
}

/// The turn's pointers, one for each epoch under which it began.
pub(super) async fn pointers(
    core: &dyn Table,
    tenant: &TenantId,
    turn: &TurnId,
) -> Result<Vec<Pointer>, StoreError> {
    let query = Query {
        index: None,
        partition: keys::turn_partition(tenant, turn),
        from: "0".to_owned(),
        to: ":".to_owned(),
        newest_first: false,
        limit: 100,
    };
    let read: Result<Vec<Pointer>, StoreError> =
        core.query(&query).await?.iter().map(Pointer::read).collect();
    read.map_err(unreadable("this turn"))
}

/// Whether the turn's first step stands where the pointer leads. The pointer is written before it, and may be all there is.
pub(super) async fn has_begun(
    core: &dyn Table,
    tenant: &TenantId,
    turn: &TurnId,
    pointer: &Pointer,
) -> Result<bool, StoreError> {
    let first = keys::step(&pointer.id, pointer.at, 0);
    let Some(step) = core.get(&keys::of_session(tenant, &pointer.session, first)).await? else {
        return Ok(false);
    };
    // Another turn may have been faster and stand in its place.
    Ok(step.text("turn")? == turn.as_str())
}

/// The pointers that may lead to what is visible, with the parts of their transcripts; the latest first, for the turn may
/// have run again.
async fn visible<'p>(
    core: &dyn Table,
    view: &View,
    pointers: &'p [Pointer],
) -> Result<Vec<(&'p Pointer, Vec<Segment>)>, StoreError> {
    let mut found: Vec<((usize, u64), &Pointer, Vec<Segment>)> = Vec::new();
    for pointer in pointers.iter().filter(|pointer| pointer.session == view.key) {
        let segments = if view.head.id == pointer.id {
            view.head.segments()
        } else {
            match pasts::find(core, view, &pointer.id).await? {
                Some(past) => past.segments(),
                None => continue,
            }
        };
        let place = segments.iter().position(|segment| {
            let Segment { epoch, through, n, .. } = *segment;
            // A turn without input stands behind the last position.
            epoch == pointer.at.epoch && pointer.at.n <= n && pointer.at.first <= through.saturating_add(1)
        });
        let Some(place) = place else { continue };
        found.push(((place, pointer.at.n), pointer, segments));
    }
    found.sort_by(|(one, ..), (other, ..)| other.cmp(one));
    Ok(found.into_iter().map(|(_, pointer, segments)| (pointer, segments)).collect())
}

/// The turn that its pointers lead to, or `None` if its session was deleted, or nothing of it is visible (yet).
pub(super) async fn record(
    core: &dyn Table,
    tenant: &TenantId,
    turn: &TurnId,
    pointers: &[Pointer],
) -> Result<Option<TurnRecord>, StoreError> {
    let Some(newest) = pointers.last() else { return Ok(None) };
    let Some(view) = heads::find(core, tenant, &newest.session).await?.view else { return Ok(None) };
    for (pointer, segments) in visible(core, &view, pointers).await? {
        if let Some(other) = &pointer.same_as {
            // What is visible is not superseded, so this leads no further; other epochs may say the opposite.
            let mut pointers = self::pointers(core, tenant, other).await?;
            pointers.retain(|pointer| pointer.same_as.is_none());
            let found = Box::pin(record(core, tenant, other, &pointers)).await?;
            return Ok(found.map(|mut found| {
                found.turn.id = turn.clone();
                found
            }));
        }
        let steps = steps_of(core, &view, turn, pointer, &segments).await?;
        // Otherwise it was written for a turn that was not accepted in the end.
        if steps.first().is_some_and(|first| first.body.facts.is_some() || first.lost.is_some()) {
            return told(turn, tenant, pointer, steps, view).map(Some);
        }
    }
    Ok(None)
}

/// The turn whose steps these are.
fn told(
    turn: &TurnId,
    tenant: &TenantId,
    pointer: &Pointer,
    steps: Vec<StoredStep>,
    view: View,
) -> Result<TurnRecord, StoreError> {
    let nowhere = || broken("a turn's pointer leads to no turn");
    let mut steps = steps.into_iter();
    let mut first = steps.next().ok_or_else(nowhere)?;
    let mut is_damaged = first.lost.is_some();
    let facts = match first.body.facts.take() {
        Some(facts) => facts,
        None => Facts::unknown(&view),
    };
    let (mut ended_at, mut outcome, mut messages) = (None, None, Vec::new());
    for mut step in steps {
        is_damaged |= step.lost.is_some();
        messages.extend(step.messages());
        if let Some(found) = step.body.outcome.take() {
            (ended_at, outcome) = (Some(step.time), Some(found));
        }
    }
    let is_held = view.head.held.as_ref().is_some_and(|held| held.turn == *turn);
    if is_damaged && outcome.is_none() && !is_held {
        // Its end is among what cannot be read.
        outcome = Some(TurnOutcome::Failed(Failure::unreadable()));
    }
    let turn = Turn {
        id: turn.clone(),
        tenant: tenant.clone(),
        session: pointer.session.clone(),
        session_id: pointer.id.clone(),
        agent: facts.agent,
        principal: facts.principal,
        user: facts.user,
        channel: facts.channel,
        options: facts.options,
        accepted_at: first.time,
        ended_at,
        outcome,
    };
    Ok(TurnRecord { turn, idempotency: facts.idempotency, steps: messages, view, is_damaged })
}

/// What is known of a turn that holds this session and cannot be read.
pub(super) fn lost(view: &View, turn: &TurnId, accepted_at: Timestamp) -> Turn {
    let facts = Facts::unknown(view);
    Turn {
        id: turn.clone(),
        tenant: view.tenant.clone(),
        session: view.key.clone(),
        session_id: view.head.id.clone(),
        agent: facts.agent,
        principal: facts.principal,
        user: facts.user,
        channel: facts.channel,
        options: facts.options,
        accepted_at,
        ended_at: None,
        outcome: None,
    }
}

/// The turn's steps, from its input to its end or to the newest.
pub(super) async fn steps_of(
    core: &dyn Table,
    view: &View,
    turn: &TurnId,
    pointer: &Pointer,
    segments: &[Segment],
) -> Result<Vec<StoredStep>, StoreError> {
    let partition = keys::session_partition(&view.tenant, &view.key);
    let mut found = Vec::new();
    for segment in segments.iter().skip_while(|segment| segment.epoch != pointer.at.epoch) {
        let from = if segment.epoch == pointer.at.epoch {
            keys::step(&pointer.id, pointer.at, 0)
        } else {
            keys::steps_from(&pointer.id, segment.epoch, segment.after.saturating_add(1))
        };
        // A step without messages stands at the position behind the last one.
        let to = keys::steps_through(&pointer.id, segment.epoch, segment.through.saturating_add(1));
        let mut steps = Steps::oldest_first(core, partition.clone(), from, to);
        while let Some(step) = steps.next().await? {
            if step.turn == *turn && step.at.n <= segment.n {
                let is_end = step.body.outcome.is_some();
                found.push(step);
                if is_end {
                    return Ok(found);
                }
            }
        }
    }
    Ok(found)
}

/// What is visible of a session's turns.
#[derive(Default)]
pub(super) struct Accepted {
    /// Turns of its transcripts.
    pub(super) turns: Vec<TurnId>,
    /// Which of them were accepted under a principal's key, and when; in the order of the transcripts.
    keys: BTreeMap<(PrincipalId, String), Vec<(Timestamp, TurnId)>>,
}

impl Accepted {
    /// The turn that a request at this time under this key meant, too: one of them came while the key's record of the
    /// other still counted. Otherwise the key had become free between them.
    pub(super) fn under(&self, principal: &PrincipalId, key: &str, at: Timestamp) -> Option<&TurnId> {
        let turns = self.keys.get(&(principal.clone(), key.to_owned()))?;
        let is_same = |(accepted, _): &&(Timestamp, TurnId)| {
            Idempotency::kept_until(at.min(*accepted)) > at.max(*accepted)
        };
        turns.iter().rev().find(is_same).map(|(_, turn)| turn)
    }
}

/// The turns of the present transcript and of those that were put away; reads all of them.
pub(super) async fn accepted(core: &dyn Table, view: &View) -> Result<Accepted, StoreError> {
    let mut accepted = Accepted::default();
    let partition = keys::session_partition(&view.tenant, &view.key);
    let pasts = pasts::all(core, &view.tenant, &view.key).await?;
    let mut parts: Vec<(&SessionId, Segment)> = Vec::new();
    for past in view.put_away(&pasts) {
        parts.extend(past.segments().into_iter().map(|segment| (&past.id, segment)));
    }
    parts.extend(view.head.segments().into_iter().map(|segment| (&view.head.id, segment)));
    for (id, segment) in parts {
        let from = keys::steps_from(id, segment.epoch, segment.after.saturating_add(1));
        let to = keys::steps_through(id, segment.epoch, segment.through.saturating_add(1));
        let mut steps = Steps::oldest_first(core, partition.clone(), from, to);
        while let Some(step) = steps.next().await? {
            let Some(facts) = step.body.facts.filter(|_| step.at.n <= segment.n) else { continue };
            if let Some(idempotency) = facts.idempotency {
                let turns = accepted.keys.entry((facts.principal, idempotency.key)).or_default();
                turns.push((step.time, step.turn.clone()));
            }
            accepted.turns.push(step.turn);
        }
    }
    Ok(accepted)
}

/// As [`record`], with the pointers.
pub(super) async fn find(
    core: &dyn Table,
    tenant: &TenantId,
    turn: &TurnId,
) -> Result<Option<Turn>, StoreError> {
    let pointers = pointers(core, tenant, turn).await?;
    Ok(record(core, tenant, turn, &pointers).await?.map(|record| record.turn))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_means_the_same_turn_only_while_one_record_would_have_counted_for_both() {
        let alice = PrincipalId::new("alice");
        let at = Timestamp::from_millis;
        let kept = |millis: i64| Idempotency::kept_until(at(millis)).as_millis();
        let [young, old] = [kept(1_000) + 500, 1_000].map(at);
        let turns = vec![(old, TurnId::new("old")), (young, TurnId::new("young"))];
        let keys = BTreeMap::from([((alice.clone(), "k".to_owned()), turns)]);
        let accepted = Accepted { turns: Vec::new(), keys };
        let under = |key: &str, millis: i64| accepted.under(&alice, key, at(millis)).map(TurnId::as_str);
        assert_eq!(under("k", 500), Some("old"), "the later one of two");
        assert_eq!(under("k", kept(1_000) - 1), Some("young"), "the newest that fits");
        assert_eq!(under("k", kept(young.as_millis()) - 1), Some("young"));
        assert_eq!(under("k", kept(young.as_millis())), None, "the key was free again");
        assert_eq!(under("other", 1_000), None);
        assert_eq!(accepted.under(&PrincipalId::new("bob"), "k", at(1_000)), None);
    }
}
