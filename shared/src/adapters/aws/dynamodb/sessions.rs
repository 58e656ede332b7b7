//! [`SessionStore`] on DynamoDB.

use super::answers::{self, UsedBy};
use super::attrs::{Draft, is_forgotten};
use super::heads::{self, Held, Meta, View};
use super::homes::{self, home_of};
use super::steps::{self, Body, Facts, NewStep};
use super::table::{Attr, Condition, Item, Write};
use super::turns::{self, Pointer, TurnRecord};
use super::{DynamoStores, TRIES, contended, keys};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{SessionKey, TenantId, TurnId};
use crate::message::Message;
use crate::region::{Home, next_epoch};
use crate::session::{Begun, Lease, NewTurn, Session, SessionStore, Step, Turn, TurnOutcome, Window};
use async_trait::async_trait;

/// What [`SessionStore::begin`] knows of the turn before it looks at the session.
enum Known {
    /// Nothing visible: it is new, with the caller's id. These lead to nothing, or to what has not arrived.
    New(Vec<Pointer>),
    /// It failed in a way that may pass, and runs again on its session.
    Again(Box<TurnRecord>),
    /// It has not ended.
    AtWork(Box<TurnRecord>),
    /// Nothing more is to be done.
    Answer(Begun),
}

/// The idempotency key of a new turn, as it was found.
enum UnderKey {
    /// The turn has none.
    None,
    Free,
    /// It names a turn of a deleted session.
    LeftOver(TurnId),
    /// It names a known turn.
    Known(TurnId),
}

impl DynamoStores {
    /// What is known of the turn.
    async fn known(&self, new: &NewTurn, now: Timestamp) -> Result<(Known, UnderKey), StoreError> {
        let core = self.core.as_ref();
        let (record, own) = futures::try_join!(
            answers::of_new_turn(core, new, now),
            turns::pointers(core, &new.tenant, &new.turn)
        )?;
        let mut key = if new.idempotency.is_some() { UnderKey::Free } else { UnderKey::None };
        let mut fingerprint = None;
        let mut found = None;
        if let Some(record) = record {
            let UsedBy::Turn(id) = record.used_by else {
                return Ok((Known::Answer(Begun::Mismatch), UnderKey::None));
            };
            let pointers =
                if id == new.turn { own.clone() } else { turns::pointers(core, &new.tenant, &id).await? };
            found = turns::record(core, &new.tenant, &id, &pointers).await?;
            key = match &found {
                Some(_) => UnderKey::Known(id),
                None => UnderKey::LeftOver(id),
            };
            fingerprint = Some(record.fingerprint);
        }
        if found.is_none() {
            fingerprint = None;
            found = turns::record(core, &new.tenant, &new.turn, &own).await?;
        }
        if found.is_none() && matches!(key, UnderKey::LeftOver(_)) && self.here.is_one_of_several() {
            found = self.accepted_under(new, now).await?;
        }
        let Some(found) = found else { return Ok((Known::New(own), key)) };
        let accepted_under = found.idempotency.as_ref().map(|idempotency| &idempotency.fingerprint);
        if let (Some(stored), Some(asked)) = (fingerprint.as_ref().or(accepted_under), &new.idempotency)
            && *stored != asked.fingerprint
        {
            return Ok((Known::Answer(Begun::Mismatch), key));
        }
        let known = match &found.turn.outcome {
            None => Known::AtWork(Box::new(found)),
            // What it would be run with is not known.
            Some(_) if found.is_damaged => Known::Answer(Begun::Replayed(Box::new(found.turn))),
            Some(outcome) if outcome.may_run_again() => Known::Again(Box::new(found)),
            Some(_) => Known::Answer(Begun::Replayed(Box::new(found.turn))),
        };
        Ok((known, key))
    }

    /// The visible turn of the session that was accepted under the new one's key, although the key's record names another
    /// one: two regions accepted the key, and of the record only the later version is left. Reads whole transcripts.
    async fn accepted_under(&self, new: &NewTurn, now: Timestamp) -> Result<Option<TurnRecord>, StoreError> {
        let core = self.core.as_ref();
        let Some(idempotency) = &new.idempotency else { return Ok(None) };
        let Some(view) = heads::find(core, &new.tenant, &new.session).await?.view else { return Ok(None) };
        let accepted = turns::accepted(core, &view).await?;
        let Some(turn) = accepted.under(&new.principal, &idempotency.key, now) else { return Ok(None) };
        let pointers = turns::pointers(core, &new.tenant, turn).await?;
        turns::record(core, &new.tenant, turn, &pointers).await
    }

    /// Only its home region writes a session: the home, if it is another one.
    pub(super) fn elsewhere(&self, meta: &Meta) -> Option<Home> {
        (meta.home != self.here.region).then(|| home_of(meta))
    }

    /// Goes on with a turn that has not ended, if its lease has run out. `None` if somebody else was faster.
    async fn resume(
        &self,
        found: TurnRecord,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Begun>, StoreError> {
        let TurnRecord { turn, steps, mut view, is_damaged, .. } = found;
        if let Some(home) = self.elsewhere(&view.meta) {
            return Ok(Some(Begun::Elsewhere(home)));
        }
        let unchanged = view.head.unchanged();
        let Some(held) = view.head.held.as_mut().filter(|held| held.turn == turn.id) else {
            // It was accepted or ended between two reads.
            return Ok(None);
        };
        if held.until.runs_at(now, until.since(now)) {
            return Ok(Some(Begun::Busy { until: held.until, turn: turn.id }));
        }
        held.until = until;
        held.tries += 1;
        let tries = held.tries;
        view.head.fence += 1;
        view.head.n += 1;
        if !self.wrote_once(vec![Write::Put(view.head_item()?, unchanged)]).await? {
            return Ok(None);
        }
        let lease = view.lease(&turn.id, until);
        if is_damaged {
            self.sightings.see("turns", turn.id.to_string(), "one of its steps cannot be read");
            return Ok(Some(Begun::Unreadable(lease)));
        }
        Ok(Some(Begun::Resumed { lease, steps, tries }))
    }

    /// One try of [`SessionStore::begin`]; `None` if somebody else was faster.
    async fn try_begin(
        &self,
        new: &NewTurn,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Begun>, StoreError> {
        let core = self.core.as_ref();
        let (known, found) =
            futures::join!(self.known(new, now), heads::find(core, &new.tenant, &new.session));
        let found = found?;
        let (known, key) = match (known, &found.view) {
            (Err(StoreError::Unreadable { source, .. }), Some(view)) if view.is_held_by(&new.turn) => {
                // Not even its beginning is found.
                self.sightings.see("turns", new.turn.to_string(), &source.to_string());
                let (turn, idempotency) = (turns::lost(view, &new.turn, now), None);
                let record =
                    TurnRecord { turn, idempotency, steps: Vec::new(), view: view.clone(), is_damaged: true };
                (Known::AtWork(Box::new(record)), UnderKey::None)
            }
            (known, _) => known?,
        };
        let (earlier, pointers, view) = match known {
            Known::Answer(begun) => return Ok(Some(begun)),
            Known::AtWork(record) => return self.resume(*record, now, until).await,
            Known::Again(record) => {
                let pointers = turns::pointers(core, &new.tenant, &record.turn.id).await?;
                (Some((record.turn, record.idempotency)), pointers, Some(record.view))
            }
            Known::New(pointers) => {
                if let Some(home) = found.meta.as_ref().and_then(|meta| self.elsewhere(meta)) {
                    return Ok(Some(Begun::Elsewhere(home)));
                }
                if let Some(clearing) = found.clearing {
                    self.clear(&clearing).await?;
                    return Ok(None);
                }
                (None, pointers, found.view)
            }
        };
        let turn = earlier.as_ref().map_or(&new.turn, |(turn, _)| &turn.id).clone();
        let mut writes = Vec::new();
        let (mut view, head_condition) = match view {
            Some(view) => {
                if view.meta.agent != new.agent {
                    return Err(StoreError::Broken("the session belongs to another agent".into()));
                }
                if let Some(home) = self.elsewhere(&view.meta) {
                    return Ok(Some(Begun::Elsewhere(home)));
                }
                if let Some(held) = &view.head.held {
                    if held.until.runs_at(now, until.since(now)) {
                        return Ok(Some(Begun::Busy { until: held.until, turn: held.turn.clone() }));
                    }
                    // `None` here: it ended since, or its deletion is under way.
                    let orphan = turns::find(core, &new.tenant, &held.turn).await;
                    let orphan = match self.or_seen("turns", || held.turn.to_string(), orphan)? {
                        Some(orphan) => orphan,
                        None => Some(turns::lost(&view, &held.turn, held.accepted_at)),
                    };
                    return Ok(orphan
                        .filter(|orphan| orphan.outcome.is_none())
                        .map(|orphan| Begun::Orphaned(Box::new(orphan))));
                }
                let unchanged = view.head.unchanged();
                (view, unchanged)
            }
            None => {
                // Heads may be left of a session of this name that was deleted, or may have arrived before its home has.
                let epoch = match found.epochs.iter().max() {
                    Some(newest) => next_epoch(*newest, self.here.ordinal),
                    None => self.here.ordinal,
                };
                let view = View::new(new, &self.here.region, epoch, now);
                writes.push(Write::Put(view.meta_item(), Condition::Absent));
                if self.here.is_one_of_several() {
                    let watch = homes::watch(&self.here.region, &new.tenant, &new.session, now);
                    writes.push(Write::Put(watch, Condition::Always));
                }
                let agent = keys::agent(&new.tenant, &new.agent);
                if core.get(&agent).await?.is_none() {
                    let item = Draft::new(agent).text("agent", new.agent.as_str()).item();
                    writes.push(Write::Put(item, Condition::Always));
                }
                (view, Condition::Absent)
            }
        };

        // A turn that runs again keeps who asked first, and the key it was first accepted under, if any.
        let (principal, idempotency) = match &earlier {
            Some((turn, idempotency)) => (turn.principal.clone(), idempotency.clone()),
            None => (new.principal.clone(), new.idempotency.clone()),
        };
        let facts = Facts {
            agent: new.agent.clone(),
            principal,
            user: new.user.clone(),
            channel: new.channel.clone(),
            options: new.options.clone(),
            idempotency,
        };
        let body = Body { messages: new.input.clone(), facts: Some(facts), outcome: None };
        let audit = std::slice::from_ref(&new.audit);
        let (at, items) = view.record(NewStep { turn: &turn, body, audit, now })?;
        view.head.fence += 1;
        view.head.held = Some(Held { turn: turn.clone(), until, accepted_at: now, tries: 0 });
        writes.push(Write::Put(view.head_item()?, head_condition));
        writes.extend(appended(items));
        let pointer = Pointer { session: view.key.clone(), id: view.head.id.clone(), at, same_as: None };
        let pointer = Write::Put(pointer.item(&new.tenant, &turn), turns::unchanged(&pointers, at.epoch));
        if !pointers.is_empty() {
            writes.push(pointer);
        } else if !self.wrote(vec![pointer]).await? {
            // By itself it costs half. It stands first: a turn is never without, and what leads to no step leads nowhere.
            return Ok(None);
        }
        let names = |turn: TurnId| Condition::Is("turn", Attr::Text(turn.to_string()));
        let condition = match (key, &earlier) {
            (UnderKey::Free, None) => Some(is_forgotten(now)),
            (UnderKey::LeftOver(turn), None) => Some(names(turn)),
            // It runs again, and its key is kept as long as if it were new.
            (UnderKey::Known(turn), _) => Some(names(turn)),
            // A known turn that was found otherwise gets no record.
            (UnderKey::None, _) | (UnderKey::Free | UnderKey::LeftOver(_), Some(_)) => None,
        };
        let record = condition.and_then(|condition| Some((answers::of_turn(new, &turn, now)?, condition)));
        writes.extend(record.map(|(record, condition)| Write::Put(record, condition)));
        if !self.wrote(writes).await? {
            return Ok(None);
        }
        Ok(Some(Begun::Started(view.lease(&turn, until))))
    }

    /// The session that a lease still is good for.
    async fn leased(&self, lease: &Lease) -> Result<View, StoreError> {
        let found = heads::find(self.core.as_ref(), &lease.tenant, &lease.session).await?;
        found.view.filter(|view| view.is_leased(lease)).ok_or(StoreError::Fenced)
    }

    /// Whether the step stands behind the lease's position already; nothing else may.
    async fn is_recorded(&self, view: &View, lease: &Lease, step: &Step) -> Result<bool, StoreError> {
        if step.messages.is_empty() || view.head.seq == lease.seq {
            return Ok(false);
        }
        let (partition, head) = (keys::session_partition(&lease.tenant, &lease.session), &view.head);
        let window = Window { newest: step.messages.len() + 1, after: lease.seq, before: None };
        let core = self.core.as_ref();
        let behind = steps::newest(core, &partition, &head.id, &head.segments(), window).await?;
        let is_same = behind.iter().map(|message| &message.body).eq(&step.messages);
        if is_same { Ok(true) } else { Err(StoreError::Fenced) }
    }

    /// Whether the lease's turn has ended so.
    async fn has_ended(&self, lease: &Lease, outcome: &TurnOutcome) -> Result<bool, StoreError> {
        let turn = turns::find(self.core.as_ref(), &lease.tenant, &lease.turn).await?;
        Ok(turn.is_some_and(|turn| turn.outcome.as_ref() == Some(outcome)))
    }
}

/// Items of a step are new.
fn appended(items: Vec<Item>) -> impl Iterator<Item = Write> {
    items.into_iter().map(|item| Write::Put(item, Condition::Absent))
}

#[async_trait]
impl SessionStore for DynamoStores {
    async fn load(&self, tenant: &TenantId, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        let found = heads::find(self.core.as_ref(), tenant, key).await?;
        Ok(found.view.map(|view| view.session()))
    }

    async fn transcript(
        &self,
        tenant: &TenantId,
        key: &SessionKey,
        window: Window,
    ) -> Result<Vec<Message>, StoreError> {
        let core = self.core.as_ref();
        let Some(view) = heads::find(core, tenant, key).await?.view else { return Ok(Vec::new()) };
        let partition = keys::session_partition(tenant, key);
        steps::newest(core, &partition, &view.head.id, &view.head.segments(), window).await
    }

    async fn turn(&self, tenant: &TenantId, id: &TurnId) -> Result<Option<Turn>, StoreError> {
        turns::find(self.core.as_ref(), tenant, id).await
    }

    async fn begin(&self, turn: &NewTurn, now: Timestamp, until: Timestamp) -> Result<Begun, StoreError> {
        for _ in 0..TRIES {
            if let Some(begun) = self.try_begin(turn, now, until).await? {
                return Ok(begun);
            }
        }
        Err(contended())
    }

    async fn append(
        &self,
        lease: &Lease,
        step: &Step,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Lease, StoreError> {
        for _ in 0..TRIES {
            let mut view = self.leased(lease).await?;
            let unchanged = view.head.unchanged();
            // An earlier try may have been written although its answer was lost.
            let step = if self.is_recorded(&view, lease, step).await? { &Step::default() } else { step };
            let body = Body { messages: step.messages.clone(), ..Body::default() };
            let (_, items) = view.record(NewStep { turn: &lease.turn, body, audit: &step.audit, now })?;
            if let Some(held) = &mut view.head.held {
                held.until = until;
                if !step.messages.is_empty() {
                    held.tries = 0;
                }
            }
            let mut writes = vec![Write::Put(view.head_item()?, unchanged)];
            writes.extend(appended(items));
            if self.wrote(writes).await? {
                return Ok(view.lease(&lease.turn, until));
            }
        }
        Err(contended())
    }

    async fn commit(
        &self,
        lease: &Lease,
        last: &Step,
        outcome: &TurnOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for _ in 0..TRIES {
            let mut view = match self.leased(lease).await {
                Err(StoreError::Fenced) if self.has_ended(lease, outcome).await? => return Ok(()),
                leased => leased?,
            };
            let unchanged = view.head.unchanged();
            let body = Body { messages: last.messages.clone(), facts: None, outcome: Some(outcome.clone()) };
            let (_, items) = view.record(NewStep { turn: &lease.turn, body, audit: &last.audit, now })?;
            view.head.held = None;
            let mut writes = vec![Write::Put(view.head_item()?, unchanged)];
            writes.extend(appended(items));
            if matches!(outcome, TurnOutcome::Parked(_)) {
                let parked = keys::parked(&lease.tenant, now, &lease.turn);
                let item = Draft::new(parked).text("turn", lease.turn.as_str()).item();
                writes.push(Write::Put(item, Condition::Always));
            }
            if self.wrote(writes).await? {
                return Ok(());
            }
        }
        Err(contended())
    }
}
