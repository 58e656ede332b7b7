//! [`SessionStore`] and [`SessionIndex`] in memory.

use super::answers::{KeyRecord, UsedBy};
use super::audit::{self, Place};
use super::{Memory, State, storable};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{SessionId, SessionKey, TenantId, TurnId};
use crate::message::{Message, MessageBody};
use crate::session::{
    Begun, Holder, Idempotency, Interrupted, Lease, NewTurn, Session, SessionFilter, SessionIndex,
    SessionStore, Step, Turn, TurnOutcome, Window,
};
use async_trait::async_trait;
use std::time::Duration;

/// A session, and what its callers do not see.
#[derive(Debug)]
pub(super) struct Head {
    session: Session,
    /// Grows with each lease.
    fence: u64,
    /// How often the holder was resumed since its newest message.
    tries: u32,
    /// The newest hash of the present transcript's audit chain; empty before the first row.
    audit_hash: String,
    /// Transcripts before the last reset; they go when the session is deleted.
    past: Vec<SessionId>,
}

/// A turn, and what its callers do not see.
#[derive(Debug)]
pub(super) struct TurnRecord {
    turn: Turn,
    /// What it was first accepted under.
    idempotency: Option<Idempotency>,
    /// Position of its last input message: what stands behind it are its steps.
    input_through: u64,
}

/// What [`SessionStore::begin`] knows of the turn before it looks at the session.
enum Known {
    /// Nothing: it is new, with the caller's id.
    New,
    /// It failed in a way that may pass, and runs again on its session.
    Again { id: TurnId, session: SessionKey },
    /// It has not ended.
    AtWork(TurnId),
    /// Nothing more is to be done.
    Answer(Begun),
}

impl State {
    fn known(&self, new: &NewTurn, now: Timestamp) -> Result<Known, StoreError> {
        let record = new.idempotency.as_ref().and_then(|idempotency| {
            let key = (new.tenant.clone(), new.principal.clone(), idempotency.key.clone());
            self.keys.get(&key, now)
        });
        let id = match record {
            Some(KeyRecord { used_by: UsedBy::Turn(id), .. }) => id.clone(),
            Some(KeyRecord { used_by: UsedBy::Request { .. }, .. }) => {
                return Ok(Known::Answer(Begun::Mismatch));
            }
            None => new.turn.clone(),
        };
        let Some(known) = self.turns.get(&(new.tenant.clone(), id)) else {
            return match record {
                Some(_) => {
                    Err(StoreError::Broken("an idempotency record names a turn that is not there".into()))
                }
                None => Ok(Known::New),
            };
        };
        let own = known.idempotency.as_ref().map(|idempotency| &idempotency.fingerprint);
        let stored = record.map(|record| &record.fingerprint).or(own);
        if let (Some(stored), Some(asked)) = (stored, &new.idempotency)
            && *stored != asked.fingerprint
        {
            return Ok(Known::Answer(Begun::Mismatch));
        }
        let turn = &known.turn;
        Ok(match &turn.outcome {
            None => Known::AtWork(turn.id.clone()),
            Some(outcome) if outcome.may_run_again() => {
                Known::Again { id: turn.id.clone(), session: turn.session.clone() }
            }
            Some(_) => Known::Answer(Begun::Replayed(Box::new(turn.clone()))),
        })
    }

    /// Goes on with a turn that has not ended, if its lease has run out.
    fn take_over(
        &mut self,
        tenant: &TenantId,
        id: &TurnId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Begun, StoreError> {
        let record = self.turn_record(tenant, id)?;
        let (key, input_through) = (record.turn.session.clone(), record.input_through);
        let head = self.head_mut(tenant, &key)?;
        let Some(holder) = head.session.holder.as_mut().filter(|holder| holder.turn == *id) else {
            return Err(StoreError::Broken("a turn at work does not hold its session".into()));
        };
        if holder.until.runs_at(now, until.since(now)) {
            return Ok(Begun::Busy { until: holder.until, turn: id.clone() });
        }
        holder.until = until;
        head.fence += 1;
        head.tries += 1;
        let (lease, tries) = (head.lease(id, until), head.tries);
        let steps = self
            .transcripts
            .get(&(tenant.clone(), lease.session_id.clone()))
            .into_iter()
            .flatten()
            .filter(|message| message.seq > input_through)
            .cloned()
            .collect();
        Ok(Begun::Resumed { lease, steps, tries })
    }

    fn turn_record(&self, tenant: &TenantId, id: &TurnId) -> Result<&TurnRecord, StoreError> {
        self.turns
            .get(&(tenant.clone(), id.clone()))
            .ok_or_else(|| StoreError::Broken("a session's turn is not there".into()))
    }

    fn head_mut(&mut self, tenant: &TenantId, key: &SessionKey) -> Result<&mut Head, StoreError> {
        self.sessions
            .get_mut(&(tenant.clone(), key.clone()))
            .ok_or_else(|| StoreError::Broken("a turn's session is not there".into()))
    }

    /// The head that a lease still is good for.
    fn leased_mut(&mut self, lease: &Lease) -> Result<&mut Head, StoreError> {
        let head = self.sessions.get_mut(&(lease.tenant.clone(), lease.session.clone()));
        head.filter(|head| {
            head.fence == lease.fence
                && head.session.id == lease.session_id
                && head.session.holder.as_ref().is_some_and(|holder| holder.turn == lease.turn)
        })
        .ok_or(StoreError::Fenced)
    }

    /// Whether the step stands behind a lease's position already; nothing else may.
    fn is_recorded(&mut self, lease: &Lease, step: &Step) -> Result<bool, StoreError> {
        let head = self.leased_mut(lease)?;
        if step.messages.is_empty() || head.session.seq == lease.seq {
            return Ok(false);
        }
        let transcript = self.transcripts.get(&(lease.tenant.clone(), lease.session_id.clone()));
        let behind = transcript.into_iter().flatten().filter(|message| message.seq > lease.seq);
        let is_same = behind.map(|message| &message.body).eq(&step.messages);
        if is_same { Ok(true) } else { Err(StoreError::Fenced) }
    }

    /// Whether the turn has ended so.
    fn has_ended(&self, lease: &Lease, outcome: &TurnOutcome) -> bool {
        let record = self.turns.get(&(lease.tenant.clone(), lease.turn.clone()));
        record.is_some_and(|record| record.turn.outcome.as_ref() == Some(outcome))
    }

    /// Appends messages and audit rows of a turn to its session.
    fn record(&mut self, tenant: &TenantId, key: &SessionKey, turn: &TurnId, step: &Step, now: Timestamp) {
        let Some(mut head) = self.sessions.remove(&(tenant.clone(), key.clone())) else { return };
        if !step.messages.is_empty() {
            head.tries = 0;
        }
        let session = &mut head.session;
        let transcript = self.transcripts.entry((tenant.clone(), session.id.clone())).or_default();
        for body in &step.messages {
            session.seq += 1;
            session.updated_at = now;
            if let MessageBody::Summary { through, .. } = body {
                session.summarised_through = *through;
            }
            transcript.push(Message {
                seq: session.seq,
                epoch: session.epoch,
                turn: turn.clone(),
                at: now,
                body: body.clone(),
            });
        }
        let place = Place { tenant, session: key, session_id: &session.id, agent: &session.agent, turn };
        head.audit_hash = audit::write(self, place, head.audit_hash, &step.audit);
        self.sessions.insert((tenant.clone(), key.clone()), head);
    }

    /// The head, if nothing is at work or interrupted on the session.
    fn idle_mut(
        &mut self,
        tenant: &TenantId,
        key: &SessionKey,
        from: &SessionId,
    ) -> Result<&mut Head, StoreError> {
        let head = self.sessions.get_mut(&(tenant.clone(), key.clone())).ok_or(StoreError::NotFound)?;
        if head.session.id != *from {
            return Err(StoreError::NotFound);
        }
        if head.session.holder.is_some() { Err(StoreError::Fenced) } else { Ok(head) }
    }
}

impl Head {
    fn new(new: &NewTurn, now: Timestamp) -> Self {
        let session = Session {
            tenant: new.tenant.clone(),
            key: new.session.clone(),
            id: new.new_session_id.clone(),
            agent: new.agent.clone(),
            user: new.user.clone(),
            channel: new.channel.clone(),
            created_at: now,
            updated_at: now,
            epoch: 0,
            seq: 0,
            summarised_through: 0,
            holder: None,
        };
        Self { session, fence: 0, tries: 0, audit_hash: String::new(), past: Vec::new() }
    }

    fn lease(&self, turn: &TurnId, until: Timestamp) -> Lease {
        Lease {
            tenant: self.session.tenant.clone(),
            session: self.session.key.clone(),
            session_id: self.session.id.clone(),
            turn: turn.clone(),
            fence: self.fence,
            until,
            epoch: self.session.epoch,
            seq: self.session.seq,
            summarised_through: self.session.summarised_through,
        }
    }
}

#[async_trait]
impl SessionStore for Memory {
    async fn load(&self, tenant: &TenantId, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        let state = self.state();
        Ok(state.sessions.get(&(tenant.clone(), key.clone())).map(|head| head.session.clone()))
    }

    async fn transcript(
        &self,
        tenant: &TenantId,
        key: &SessionKey,
        window: Window,
    ) -> Result<Vec<Message>, StoreError> {
        let state = self.state();
        let Some(head) = state.sessions.get(&(tenant.clone(), key.clone())) else { return Ok(Vec::new()) };
        let transcript = state.transcripts.get(&(tenant.clone(), head.session.id.clone()));
        let fits = |message: &&Message| {
            message.seq > window.after && window.before.is_none_or(|before| message.seq < before)
        };
        let mut newest: Vec<Message> =
            transcript.into_iter().flatten().rev().filter(fits).take(window.newest).cloned().collect();
        newest.reverse();
        Ok(newest)
    }

    async fn turn(&self, tenant: &TenantId, id: &TurnId) -> Result<Option<Turn>, StoreError> {
        Ok(self.state().turns.get(&(tenant.clone(), id.clone())).map(|record| record.turn.clone()))
    }

    async fn begin(&self, new: &NewTurn, now: Timestamp, until: Timestamp) -> Result<Begun, StoreError> {
        storable(&new.options)?;
        let mut state = self.state();
        let tenant = &new.tenant;
        let (id, key) = match state.known(new, now)? {
            Known::New => (new.turn.clone(), new.session.clone()),
            Known::Again { id, session } => (id, session),
            Known::AtWork(id) => return state.take_over(tenant, &id, now, until),
            Known::Answer(begun) => return Ok(begun),
        };
        if let Some(head) = state.sessions.get(&(tenant.clone(), key.clone())) {
            if head.session.agent != new.agent {
                return Err(StoreError::Broken("the session belongs to another agent".into()));
            }
            if let Some(holder) = &head.session.holder {
                if holder.until.runs_at(now, until.since(now)) {
                    return Ok(Begun::Busy { until: holder.until, turn: holder.turn.clone() });
                }
                return Ok(Begun::Orphaned(Box::new(state.turn_record(tenant, &holder.turn)?.turn.clone())));
            }
        } else if state.transcripts.contains_key(&(tenant.clone(), new.new_session_id.clone())) {
            return Err(StoreError::Broken("this transcript id is taken".into()));
        } else {
            state.sessions.insert((tenant.clone(), key.clone()), Head::new(new, now));
        }

        let step = Step { messages: new.input.clone(), audit: vec![new.audit.clone()] };
        state.record(tenant, &key, &id, &step, now);
        let head = state.head_mut(tenant, &key)?;
        head.fence += 1;
        head.tries = 0;
        head.session.holder = Some(Holder { turn: id.clone(), until });
        let lease = head.lease(&id, until);
        // A turn that runs again keeps who asked first, and the key it was first accepted under, if any.
        let earlier = state.turns.remove(&(tenant.clone(), id.clone()));
        let (principal, idempotency) = match earlier {
            Some(record) => {
                if let Some(Idempotency { key, .. }) = &new.idempotency {
                    let key = (tenant.clone(), new.principal.clone(), key.clone());
                    // It is known by its own id if there is no record; then none is made.
                    if let Some(record) = state.keys.get_mut(&key, now) {
                        record.kept_until = Idempotency::kept_until(now);
                    }
                }
                (record.turn.principal, record.idempotency)
            }
            None => {
                if let Some(Idempotency { key, fingerprint }) = &new.idempotency {
                    let key = (tenant.clone(), new.principal.clone(), key.clone());
                    state.keys.insert(key, fingerprint.clone(), UsedBy::Turn(id.clone()), now);
                }
                (new.principal.clone(), new.idempotency.clone())
            }
        };
        let turn = Turn {
            id: id.clone(),
            tenant: tenant.clone(),
            session: key,
            session_id: lease.session_id.clone(),
            agent: new.agent.clone(),
            principal,
            user: new.user.clone(),
            channel: new.channel.clone(),
            options: new.options.clone(),
            accepted_at: now,
            ended_at: None,
            outcome: None,
        };
        let record = TurnRecord { turn, idempotency, input_through: lease.seq };
        state.turns.insert((tenant.clone(), id), record);
        Ok(Begun::Started(lease))
    }

    async fn append(
        &self,
        lease: &Lease,
        step: &Step,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Lease, StoreError> {
        let mut state = self.state();
        if !state.is_recorded(lease, step)? {
            state.record(&lease.tenant, &lease.session, &lease.turn, step, now);
        }
        state.leased_mut(lease)?.session.holder = Some(Holder { turn: lease.turn.clone(), until });
        Ok(state.leased_mut(lease)?.lease(&lease.turn, until))
    }

    async fn commit(
        &self,
        lease: &Lease,
        last: &Step,
        outcome: &TurnOutcome,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut state = self.state();
        if let Err(fenced) = state.leased_mut(lease) {
            return if state.has_ended(lease, outcome) { Ok(()) } else { Err(fenced) };
        }
        state.record(&lease.tenant, &lease.session, &lease.turn, last, now);
        state.leased_mut(lease)?.session.holder = None;
        let record = state.turns.get_mut(&(lease.tenant.clone(), lease.turn.clone()));
        let record = record.ok_or_else(|| StoreError::Broken("a session's turn is not there".into()))?;
        record.turn.ended_at = Some(now);
        record.turn.outcome = Some(outcome.clone());
        Ok(())
    }
}

#[async_trait]
impl SessionIndex for Memory {
    async fn list(&self, tenant: &TenantId, filter: &SessionFilter) -> Result<Vec<Session>, StoreError> {
        let state = self.state();
        let fits = |session: &&Session| {
            session.tenant == *tenant
                && filter.agents.as_ref().is_none_or(|agents| agents.contains(&session.agent))
                && filter.user.as_ref().is_none_or(|user| session.user.as_ref() == Some(user))
                && filter.updated_before.is_none_or(|before| session.updated_at < before)
        };
        let mut sessions: Vec<Session> =
            state.sessions.values().map(|head| &head.session).filter(fits).cloned().collect();
        sessions.sort_by(|a, b| b.updated_at.cmp(&a.updated_at).then_with(|| a.key.cmp(&b.key)));
        sessions.truncate(filter.limit);
        Ok(sessions)
    }

    async fn interrupted(
        &self,
        now: Timestamp,
        lease: Duration,
        limit: usize,
    ) -> Result<Vec<Interrupted>, StoreError> {
        let state = self.state();
        let held = state.sessions.values().filter_map(|head| Some((head, head.session.holder.as_ref()?)));
        let mut found = held
            .filter(|(_, holder)| !holder.until.runs_at(now, lease))
            .map(|(head, holder)| {
                let turn = state.turn_record(&head.session.tenant, &holder.turn)?.turn.clone();
                Ok(Interrupted { turn, tries: head.tries })
            })
            .collect::<Result<Vec<Interrupted>, StoreError>>()?;
        found.sort_by(Interrupted::in_order);
        found.truncate(limit);
        Ok(found)
    }

    async fn parked(&self, tenant: &TenantId, limit: usize) -> Result<Vec<Turn>, StoreError> {
        let state = self.state();
        let parked =
            |turn: &&Turn| turn.tenant == *tenant && matches!(turn.outcome, Some(TurnOutcome::Parked(_)));
        let mut turns: Vec<Turn> =
            state.turns.values().map(|record| &record.turn).filter(parked).cloned().collect();
        turns.sort_by(|a, b| (b.ended_at, &b.id).cmp(&(a.ended_at, &a.id)));
        turns.truncate(limit);
        Ok(turns)
    }

    async fn reset(
        &self,
        tenant: &TenantId,
        key: &SessionKey,
        from: &SessionId,
        id: &SessionId,
        now: Timestamp,
    ) -> Result<Session, StoreError> {
        let mut state = self.state();
        let taken = state.transcripts.contains_key(&(tenant.clone(), id.clone()));
        let known = state.sessions.get(&(tenant.clone(), key.clone()));
        if let Some(head) = known.filter(|head| head.session.id == *id || head.past.contains(id)) {
            return Ok(head.session.clone());
        }
        let head = state.idle_mut(tenant, key, from)?;
        if taken {
            return Err(StoreError::Broken("this transcript id is taken".into()));
        }
        let old = std::mem::replace(&mut head.session.id, id.clone());
        head.past.push(old);
        head.audit_hash.clear();
        head.session.seq = 0;
        head.session.summarised_through = 0;
        head.session.updated_at = now;
        let session = head.session.clone();
        state.transcripts.insert((tenant.clone(), id.clone()), Vec::new());
        Ok(session)
    }

    async fn delete(&self, tenant: &TenantId, key: &SessionKey, from: &SessionId) -> Result<(), StoreError> {
        let mut state = self.state();
        state.idle_mut(tenant, key, from)?;
        if state.jobs.any_at_work(tenant, key) {
            // Its turn has not begun, or has just ended: it would make the session anew.
            return Err(StoreError::Fenced);
        }
        state.jobs.delete_of_session(tenant, key);
        if let Some(head) = state.sessions.remove(&(tenant.clone(), key.clone())) {
            for id in head.past.into_iter().chain([head.session.id]) {
                state.transcripts.remove(&(tenant.clone(), id));
            }
        }
        state.turns.retain(|_, record| record.turn.tenant != *tenant || record.turn.session != *key);
        let State { turns, keys, .. } = &mut *state;
        keys.retain_turns(|of, turn| of != tenant || turns.contains_key(&(of.clone(), turn.clone())));
        Ok(())
    }
}
