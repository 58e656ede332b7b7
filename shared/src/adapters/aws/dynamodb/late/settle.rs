//! One late turn, brought to one visible outcome.

use crate::adapters::aws::dynamodb::answers;
use crate::adapters::aws::dynamodb::attrs::to_json;
use crate::adapters::aws::dynamodb::heads::{Head, Held, View};
use crate::adapters::aws::dynamodb::homes::DynamoRegions;
use crate::adapters::aws::dynamodb::steps::{Body, Facts, NewStep, StoredStep};
use crate::adapters::aws::dynamodb::table::{Condition, Write};
use crate::adapters::aws::dynamodb::turns::{self, Accepted, Pointer};
use crate::audit::NewAudit;
use crate::bounds::STEP_BYTES;
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{PrincipalId, TurnId};
use crate::region::Verdict;
use crate::session::Idempotency;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// Most steps that one transaction copies: they, and what the larger ones go on in, are items of it.
const MOST_STEPS: usize = 40;

/// Late steps of one turn, as they follow each other.
pub(super) struct Group {
    pub(super) turn: TurnId,
    pub(super) steps: Vec<StoredStep>,
}

/// What is to be done about a late turn.
pub(super) enum Ruling {
    /// Nothing yet: something is on its way, or the session is at work.
    Wait,
    /// Copy these steps. The turn is on the present transcript already if its first step is not among them.
    Bring(Vec<StoredStep>),
    /// Leave it: the turn is visible, perhaps in a transcript that was put away, or, under the same key of the same principal, this one.
    Supersede(Option<(TurnId, PrincipalId, String)>),
}

impl DynamoRegions {
    /// Settles a late turn of this epoch as was ruled; `None` if it is too early, or somebody else was faster.
    pub(super) async fn settle(
        &self,
        view: &View,
        turn: &TurnId,
        ruling: Ruling,
        epoch: u64,
        now: Timestamp,
    ) -> Result<Option<(Verdict, View)>, StoreError> {
        match ruling {
            Ruling::Wait => Ok(None),
            Ruling::Bring(steps) => self.bring(view, turn, steps, epoch, now).await,
            Ruling::Supersede(by) => self.supersede(view, turn, by, epoch, now).await,
        }
    }

    /// What is to be done about a late turn that stands under the old `head`.
    pub(super) async fn ruling(
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
        let ran_out = |held: &Held| held.turn == turn && !held.until.runs_at(now, self.lease);
        let is_over = head.n >= newest && head.held.as_ref().is_some_and(ran_out);
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
        if !batch.is_empty() && (batch.len() == MOST_STEPS || bytes + size > STEP_BYTES) {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        bytes += size;
        batch.push((step.time, step.body));
    }
    batches.push(batch);
    Ok(batches)
}
