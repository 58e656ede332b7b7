//! Turns in SQL: [`crate::session::SessionStore`].
//!
//! What a transaction writes is encoded before it begins, on the caller's side: the writer's time belongs to
//! everybody.

use super::answers;
use super::audit::{self, ChainEnd, Place};
use super::damage::{Damage, read_message, read_or_note, read_turn};
use super::{Locking, Row, SqlError, Tx, args, cause, locking, or_unreadable, read_all, read_first, to_json};
use crate::audit::NewAudit;
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{AgentId, PrincipalId, SessionId, SessionKey, TenantId, TurnId};
use crate::message::{Message, MessageBody};
use crate::session::{
    Begun, Failure, Holder, Idempotency, Lease, NewTurn, Session, Step, Turn, TurnOutcome, Window,
};
use serde_json::Value;

/// A message ready to be written.
struct EncodedMessage {
    role: &'static str,
    content: String,
    /// Of a compaction summary: what it covers.
    summary_through: Option<u64>,
}

fn encode_messages(bodies: &[MessageBody]) -> Result<Vec<EncodedMessage>, StoreError> {
    let encode = |body: &MessageBody| {
        let summary_through = match body {
            MessageBody::Summary { through, .. } => Some(*through),
            _ => None,
        };
        Ok(EncodedMessage { role: body.role(), content: to_json(body)?, summary_through })
    };
    bodies.iter().map(encode).collect()
}

/// A [`Step`] ready to be written.
pub(in crate::adapters::onprem) struct EncodedStep {
    messages: Vec<EncodedMessage>,
    audit: Vec<NewAudit>,
}

impl EncodedStep {
    pub(in crate::adapters::onprem) fn new(step: &Step) -> Result<Self, StoreError> {
        Ok(Self { messages: encode_messages(&step.messages)?, audit: step.audit.clone() })
    }
}

/// A [`NewTurn`] ready to be written.
pub(in crate::adapters::onprem) struct EncodedTurn {
    turn: TurnId,
    tenant: TenantId,
    session: SessionKey,
    new_session_id: SessionId,
    agent: AgentId,
    principal: PrincipalId,
    user: Option<String>,
    channel: String,
    idempotency: Option<Idempotency>,
    step: EncodedStep,
    options: String,
}

impl EncodedTurn {
    pub(in crate::adapters::onprem) fn new(new: &NewTurn) -> Result<Self, StoreError> {
        Ok(Self {
            turn: new.turn.clone(),
            tenant: new.tenant.clone(),
            session: new.session.clone(),
            new_session_id: new.new_session_id.clone(),
            agent: new.agent.clone(),
            principal: new.principal.clone(),
            user: new.user.clone(),
            channel: new.channel.clone(),
            idempotency: new.idempotency.clone(),
            step: EncodedStep { messages: encode_messages(&new.input)?, audit: vec![new.audit.clone()] },
            options: to_json(&new.options)?,
        })
    }
}

/// A [`TurnOutcome`] ready to be written.
pub(in crate::adapters::onprem) struct EncodedOutcome {
    status: &'static str,
    outcome: String,
}

impl EncodedOutcome {
    pub(in crate::adapters::onprem) fn new(outcome: &TurnOutcome) -> Result<Self, StoreError> {
        let status = match outcome {
            TurnOutcome::Done(_) => "done",
            TurnOutcome::Failed(_) => "failed",
            TurnOutcome::Parked(_) => "parked",
        };
        Ok(Self { status, outcome: to_json(outcome)? })
    }
}

/// What an operation must know of a session before it writes to it.
struct Head {
    id: SessionId,
    agent: AgentId,
    epoch: u64,
    seq: u64,
    summarised_through: u64,
    fence: u64,
    holder: Option<Holder>,
    /// How often the holder was resumed since its newest message.
    tries: u32,
    updated_at: Timestamp,
    chain: ChainEnd,
}

const HEAD: Locking = locking!(
    "SELECT id, agent_id, epoch, seq, summarised_through, fence, turn_id, lease_until, tries, updated_at,
         audit_hash, audit_n
     FROM sessions WHERE tenant = $1 AND session_key = $2"
);

pub(super) fn read_holder(row: &mut Row) -> Result<Option<Holder>, SqlError> {
    match (row.opt_text()?, row.opt_time()?) {
        (Some(turn), Some(until)) => Ok(Some(Holder { turn: turn.into(), until })),
        (None, None) => Ok(None),
        _ => Err(SqlError::broken("a session is held without a turn or without an end")),
    }
}

fn read_head(row: &mut Row) -> Result<Head, SqlError> {
    Ok(Head {
        id: row.id()?,
        agent: row.id()?,
        epoch: row.count()?,
        seq: row.count()?,
        summarised_through: row.count()?,
        fence: row.count()?,
        holder: read_holder(row)?,
        tries: row.count()?,
        updated_at: row.time()?,
        chain: ChainEnd { hash: row.text()?, n: row.count()? },
    })
}

async fn find_head<T: Tx>(tx: &mut T, tenant: &TenantId, key: &SessionKey) -> Result<Option<Head>, SqlError> {
    let head = read_first(tx.query(HEAD.of::<T>(), args![tenant, key]).await?, read_head);
    or_unreadable(tx, "sessions", || key.to_string(), SESSION, head)
}

/// What a session's head is for a caller.
pub(super) const SESSION: &str = "this session (it can be reset or deleted)";

/// The head that a lease still is good for.
async fn leased<T: Tx>(tx: &mut T, lease: &Lease) -> Result<Head, SqlError> {
    let head = find_head(tx, &lease.tenant, &lease.session).await?;
    head.filter(|head| {
        head.fence == lease.fence
            && head.id == lease.session_id
            && head.holder.as_ref().is_some_and(|holder| holder.turn == lease.turn)
    })
    .ok_or(SqlError::Refused(StoreError::Fenced))
}

/// Whether the step stands behind a lease's position already; nothing else may.
async fn is_recorded<T: Tx>(
    tx: &mut T,
    head: &Head,
    lease: &Lease,
    step: &EncodedStep,
) -> Result<bool, SqlError> {
    if step.messages.is_empty() || head.seq == lease.seq {
        return Ok(false);
    }
    let rows = tx
        .query(
            "SELECT content FROM messages
         WHERE tenant = $1 AND session_id = $2 AND epoch = $3 AND seq > $4 ORDER BY seq LIMIT $5",
            args![&lease.tenant, &head.id, head.epoch, lease.seq, step.messages.len() + 1],
        )
        .await?;
    let behind = read_all(rows, Row::text)?;
    if behind.iter().eq(step.messages.iter().map(|message| &message.content)) {
        return Ok(true);
    }
    Err(SqlError::Refused(StoreError::Fenced))
}

impl Head {
    fn lease(&self, tenant: &TenantId, session: &SessionKey, turn: &TurnId, until: Timestamp) -> Lease {
        Lease {
            tenant: tenant.clone(),
            session: session.clone(),
            session_id: self.id.clone(),
            turn: turn.clone(),
            fence: self.fence,
            until,
            epoch: self.epoch,
            seq: self.seq,
            summarised_through: self.summarised_through,
        }
    }

    /// Writes a step's rows and moves the head, which the caller saves.
    async fn record<T: Tx>(
        &mut self,
        tx: &mut T,
        tenant: &TenantId,
        session: &SessionKey,
        turn: &TurnId,
        step: &EncodedStep,
        now: Timestamp,
    ) -> Result<(), SqlError> {
        for message in &step.messages {
            self.tries = 0;
            self.seq += 1;
            self.updated_at = now;
            self.summarised_through = message.summary_through.unwrap_or(self.summarised_through);
            tx.execute(
                "INSERT INTO messages (tenant, session_id, epoch, seq, turn_id, role, content, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                args![tenant, &self.id, self.epoch, self.seq, turn, message.role, &message.content, now],
            )
            .await?;
        }
        let place = Place { tenant, session, session_id: &self.id, agent: &self.agent, turn };
        audit::write(tx, place, &mut self.chain, &step.audit).await
    }

    async fn save<T: Tx>(&self, tx: &mut T, tenant: &TenantId, session: &SessionKey) -> Result<(), SqlError> {
        tx.execute(
            "UPDATE sessions SET seq = $1, summarised_through = $2, fence = $3, turn_id = $4, lease_until = $5,
                 tries = $6, updated_at = $7, audit_hash = $8, audit_n = $9
             WHERE tenant = $10 AND session_key = $11",
            args![
                self.seq,
                self.summarised_through,
                self.fence,
                self.holder.as_ref().map(|holder| &holder.turn),
                self.holder.as_ref().map(|holder| holder.until),
                u64::from(self.tries),
                self.updated_at,
                &self.chain.hash,
                self.chain.n,
                tenant,
                session,
            ],
        )
        .await?;
        Ok(())
    }

    async fn insert<T: Tx>(&self, tx: &mut T, new: &EncodedTurn) -> Result<(), SqlError> {
        tx.execute(
            "INSERT INTO sessions (tenant, session_key, id, agent_id, user_id, channel, created_at, updated_at, epoch,
                 seq, summarised_through, fence, turn_id, lease_until, audit_hash, audit_n)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
            args![
                &new.tenant,
                &new.session,
                &self.id,
                &self.agent,
                new.user.as_ref(),
                &new.channel,
                self.updated_at,
                self.epoch,
                self.seq,
                self.summarised_through,
                self.fence,
                self.holder.as_ref().map(|holder| &holder.turn),
                self.holder.as_ref().map(|holder| holder.until),
                &self.chain.hash,
                self.chain.n,
            ],
        )
        .await?;
        Ok(())
    }
}

/// A turn, and what its callers do not see.
struct TurnRecord {
    turn: Turn,
    input_through: u64,
    fingerprint: Option<String>,
    /// Part of it cannot be read.
    is_damaged: bool,
}

/// What stands for a turn that is named and not there.
fn lost_turn(tenant: &TenantId, session: &SessionKey, head: &Head, id: &TurnId) -> Turn {
    Turn {
        id: id.clone(),
        tenant: tenant.clone(),
        session: session.clone(),
        session_id: head.id.clone(),
        agent: head.agent.clone(),
        principal: PrincipalId::new(""),
        user: None,
        channel: String::new(),
        options: Value::Null,
        accepted_at: head.updated_at,
        ended_at: None,
        outcome: None,
    }
}

async fn find_turn<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    id: &TurnId,
) -> Result<Option<TurnRecord>, SqlError> {
    let rows = tx.query(
        "SELECT id, tenant, session_key, session_id, agent_id, principal, user_id, channel, options, accepted_at,
             ended_at, outcome, input_through, fingerprint
         FROM turns WHERE tenant = $1 AND id = $2",
        args![tenant, id],
    ).await?;
    let Some(mut row) = rows.into_iter().next() else { return Ok(None) };
    let turn = read_turn(tx, &mut row);
    let (turn, is_damaged) = or_unreadable(tx, "turns", || id.to_string(), "this turn", turn)?;
    let mut damage = Damage::default();
    let (input_through, fingerprint) = (damage.or(row.count(), 0), damage.or(row.opt_text(), None));
    let is_damaged = damage.tell(tx, "turns", || id.to_string()) || is_damaged;
    Ok(Some(TurnRecord { turn, input_through, fingerprint, is_damaged }))
}

/// What [`begin`] knows of the turn before it looks at the session.
enum Known {
    /// Nothing: it is new, with the caller's id.
    New,
    /// It failed in a way that may pass, and runs again on its session.
    Again(Box<TurnRecord>),
    /// It has not ended.
    AtWork(Box<TurnRecord>),
    /// It has ended, and not all of it can be read.
    Damaged(Box<TurnRecord>),
    /// Nothing more is to be done.
    Answer(Begun),
}

async fn known<T: Tx>(tx: &mut T, new: &EncodedTurn, now: Timestamp) -> Result<Known, SqlError> {
    let record = match &new.idempotency {
        Some(Idempotency { key, .. }) => answers::of_turn(tx, &new.tenant, &new.principal, key, now).await?,
        None => None,
    };
    let (fingerprint, id) = match record {
        Some((fingerprint, Some(id))) => (Some(fingerprint), id),
        Some((_, None)) => return Ok(Known::Answer(Begun::Mismatch)),
        None => (None, new.turn.clone()),
    };
    let Some(found) = find_turn(tx, &new.tenant, &id).await? else {
        return match fingerprint {
            Some(_) => {
                tx.saw("turns", id.to_string(), "an idempotency record names it, and it is not there");
                let cause = "an idempotency record names a turn that is not there";
                let what = "the turn under this idempotency key";
                Err(SqlError::Refused(StoreError::Unreadable { what, source: cause.into() }))
            }
            None => Ok(Known::New),
        };
    };
    let stored = fingerprint.as_ref().or(found.fingerprint.as_ref());
    if let (Some(stored), Some(asked)) = (stored, &new.idempotency)
        && *stored != asked.fingerprint
    {
        return Ok(Known::Answer(Begun::Mismatch));
    }
    Ok(match &found.turn.outcome {
        None => Known::AtWork(Box::new(found)),
        // What it would be run with is not known.
        Some(_) if found.is_damaged => Known::Damaged(Box::new(found)),
        Some(outcome) if outcome.may_run_again() => Known::Again(Box::new(found)),
        Some(_) => Known::Answer(Begun::Replayed(Box::new(found.turn))),
    })
}

/// Goes on with a turn that has not ended, if its lease has run out.
async fn take_over<T: Tx>(
    tx: &mut T,
    found: TurnRecord,
    now: Timestamp,
    until: Timestamp,
) -> Result<Begun, SqlError> {
    let Turn { id, tenant, session, .. } = &found.turn;
    let (id, tenant, session) = (id.clone(), tenant.clone(), session.clone());
    let Some(mut head) = find_head(tx, &tenant, &session).await? else {
        return Ok(lost(tx, found.turn, "its session is not there"));
    };
    match &head.holder {
        Some(holder) if holder.turn == id && holder.until.runs_at(now, until.since(now)) => {
            return Ok(Begun::Busy { until: holder.until, turn: id });
        }
        Some(holder) if holder.turn == id => {}
        _ => return Ok(lost(tx, found.turn, "it has no end, and does not hold its session")),
    }
    if found.is_damaged {
        return end_it(tx, head, (&tenant, &session), id, until).await;
    }
    let steps = tx
        .query(
            "SELECT epoch, seq, turn_id, created_at, content FROM messages
         WHERE tenant = $1 AND session_id = $2 AND epoch = $3 AND seq > $4 ORDER BY seq",
            args![&tenant, &head.id, head.epoch, found.input_through],
        )
        .await?;
    let steps = match read_all(steps, read_message) {
        Ok(steps) => steps,
        // How far it went is not known.
        Err(error) => {
            tx.saw("messages", format!("{session} / {id}"), &cause(error));
            return end_it(tx, head, (&tenant, &session), id, until).await;
        }
    };
    head.fence += 1;
    head.holder = Some(Holder { turn: id.clone(), until });
    head.tries += 1;
    head.save(tx, &tenant, &session).await?;
    Ok(Begun::Resumed { lease: head.lease(&tenant, &session, &id, until), steps, tries: head.tries })
}

/// A turn that nobody can go on with: it has failed, whatever its row says.
fn lost<T: Tx>(tx: &mut T, mut turn: Turn, why: &str) -> Begun {
    tx.saw("turns", turn.id.to_string(), why);
    turn.outcome = Some(TurnOutcome::Failed(Failure::unreadable()));
    Begun::Replayed(Box::new(turn))
}

/// Gives an interrupted turn's session to whoever is to end it.
async fn end_it<T: Tx>(
    tx: &mut T,
    mut head: Head,
    (tenant, session): (&TenantId, &SessionKey),
    turn: TurnId,
    until: Timestamp,
) -> Result<Begun, SqlError> {
    head.fence += 1;
    head.holder = Some(Holder { turn: turn.clone(), until });
    head.tries = head.tries.saturating_add(1);
    head.save(tx, tenant, session).await?;
    Ok(Begun::Unreadable(head.lease(tenant, session, &turn, until)))
}

/// What is to be done about a turn that has ended, of which not all can be read. If it holds its session nevertheless, it is
/// ended once more, so that the session is free.
async fn settle_damaged<T: Tx>(
    tx: &mut T,
    found: TurnRecord,
    now: Timestamp,
    until: Timestamp,
) -> Result<Begun, SqlError> {
    let Turn { id, tenant, session, .. } = &found.turn;
    match find_head(tx, tenant, session).await? {
        Some(head)
            if head.holder.as_ref().is_some_and(|holder| holder.turn == *id && holder.until <= now) =>
        {
            end_it(tx, head, (tenant, session), id.clone(), until).await
        }
        _ => Ok(Begun::Replayed(Box::new(found.turn))),
    }
}

/// [`crate::session::SessionStore::begin`].
pub(in crate::adapters::onprem) async fn begin<T: Tx>(
    tx: &mut T,
    new: &EncodedTurn,
    now: Timestamp,
    until: Timestamp,
) -> Result<Begun, SqlError> {
    let earlier = match known(tx, new, now).await? {
        Known::New => None,
        Known::Again(found) => Some(found),
        Known::AtWork(found) => return take_over(tx, *found, now, until).await,
        Known::Damaged(found) => return settle_damaged(tx, *found, now, until).await,
        Known::Answer(begun) => return Ok(begun),
    };
    let (turn, session) = match &earlier {
        Some(found) => (&found.turn.id, &found.turn.session),
        None => (&new.turn, &new.session),
    };
    let found = find_head(tx, &new.tenant, session).await?;
    let is_new = found.is_none();
    let mut head = match found {
        Some(head) => {
            if head.agent != new.agent {
                let cause = "the session belongs to another agent";
                return Err(SqlError::Refused(StoreError::Broken(cause.into())));
            }
            if let Some(holder) = head.holder.clone() {
                if holder.until.runs_at(now, until.since(now)) {
                    return Ok(Begun::Busy { until: holder.until, turn: holder.turn });
                }
                if let Some(orphan) = find_turn(tx, &new.tenant, &holder.turn).await? {
                    return Ok(Begun::Orphaned(Box::new(orphan.turn)));
                }
                tx.saw(
                    "turns",
                    holder.turn.to_string(),
                    "a session names it as at work, and it is not there",
                );
                let lost = lost_turn(&new.tenant, session, &head, &holder.turn);
                if holder.turn != new.turn {
                    return Ok(Begun::Orphaned(Box::new(lost)));
                }
                insert_lost(tx, &lost, &head).await?;
                return end_it(tx, head, (&new.tenant, session), holder.turn, until).await;
            }
            head
        }
        None => Head {
            id: new.new_session_id.clone(),
            agent: new.agent.clone(),
            epoch: 0,
            seq: 0,
            summarised_through: 0,
            fence: 0,
            holder: None,
            tries: 0,
            updated_at: now,
            chain: ChainEnd::default(),
        },
    };

    head.record(tx, &new.tenant, session, turn, &new.step, now).await?;
    head.fence += 1;
    head.holder = Some(Holder { turn: turn.clone(), until });
    head.tries = 0;
    if is_new {
        head.insert(tx, new).await?;
    } else {
        head.save(tx, &new.tenant, session).await?;
    }
    match &earlier {
        Some(_) => begin_turn_again(tx, new, turn, &head, now).await?,
        None => insert_turn(tx, new, &head, now).await?,
    }
    Ok(Begun::Started(head.lease(&new.tenant, session, turn, until)))
}

/// Writes what is left to be known of a turn that is not there, so that its end has a place.
async fn insert_lost<T: Tx>(tx: &mut T, turn: &Turn, head: &Head) -> Result<(), SqlError> {
    tx.execute(
        "INSERT INTO turns (tenant, id, session_key, session_id, agent_id, principal, channel, options, accepted_at,
             input_through)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        args![
            &turn.tenant,
            &turn.id,
            &turn.session,
            &turn.session_id,
            &turn.agent,
            &turn.principal,
            &turn.channel,
            "null",
            turn.accepted_at,
            head.seq,
        ],
    )
    .await?;
    Ok(())
}

async fn insert_turn<T: Tx>(
    tx: &mut T,
    new: &EncodedTurn,
    head: &Head,
    now: Timestamp,
) -> Result<(), SqlError> {
    tx.execute(
        "INSERT INTO turns (tenant, id, session_key, session_id, agent_id, principal, user_id, channel, options,
             accepted_at, input_through, idempotency_key, fingerprint)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        args![
            &new.tenant,
            &new.turn,
            &new.session,
            &head.id,
            &new.agent,
            &new.principal,
            new.user.as_ref(),
            &new.channel,
            &new.options,
            now,
            head.seq,
            new.idempotency.as_ref().map(|idempotency| &idempotency.key),
            new.idempotency.as_ref().map(|idempotency| &idempotency.fingerprint),
        ],
    )
    .await?;
    match &new.idempotency {
        Some(key) => answers::insert_of_turn(tx, &new.tenant, &new.principal, key, &new.turn, now).await,
        None => Ok(()),
    }
}

/// The turn keeps who asked first, and the key it was first accepted under, if any.
async fn begin_turn_again<T: Tx>(
    tx: &mut T,
    new: &EncodedTurn,
    turn: &TurnId,
    head: &Head,
    now: Timestamp,
) -> Result<(), SqlError> {
    tx.execute(
        "UPDATE turns SET session_id = $1, user_id = $2, channel = $3, options = $4, accepted_at = $5,
             input_through = $6, ended_at = NULL, status = NULL, outcome = NULL
         WHERE tenant = $7 AND id = $8",
        args![&head.id, new.user.as_ref(), &new.channel, &new.options, now, head.seq, &new.tenant, turn,],
    )
    .await?;
    match &new.idempotency {
        Some(Idempotency { key, .. }) => answers::renew(tx, &new.tenant, &new.principal, key, now).await,
        None => Ok(()),
    }
}

/// [`crate::session::SessionStore::append`].
pub(in crate::adapters::onprem) async fn append<T: Tx>(
    tx: &mut T,
    lease: &Lease,
    step: &EncodedStep,
    now: Timestamp,
    until: Timestamp,
) -> Result<Lease, SqlError> {
    let mut head = leased(tx, lease).await?;
    let is_empty = step.messages.is_empty() && step.audit.is_empty();
    if is_empty || is_recorded(tx, &head, lease, step).await? {
        // The most frequent case by far while a model is slow, and it touches no index but one.
        let extend = "UPDATE sessions SET lease_until = $1 WHERE tenant = $2 AND session_key = $3";
        tx.execute(extend, args![until, &lease.tenant, &lease.session]).await?;
    } else {
        head.holder = Some(Holder { turn: lease.turn.clone(), until });
        head.record(tx, &lease.tenant, &lease.session, &lease.turn, step, now).await?;
        head.save(tx, &lease.tenant, &lease.session).await?;
    }
    Ok(head.lease(&lease.tenant, &lease.session, &lease.turn, until))
}

/// Whether the lease's turn has ended so.
async fn has_ended<T: Tx>(tx: &mut T, lease: &Lease, outcome: &EncodedOutcome) -> Result<bool, SqlError> {
    let rows = tx
        .query(
            "SELECT 1 FROM turns WHERE tenant = $1 AND id = $2 AND outcome = $3",
            args![&lease.tenant, &lease.turn, &outcome.outcome],
        )
        .await?;
    Ok(!rows.is_empty())
}

/// [`crate::session::SessionStore::commit`].
pub(in crate::adapters::onprem) async fn commit<T: Tx>(
    tx: &mut T,
    lease: &Lease,
    last: &EncodedStep,
    outcome: &EncodedOutcome,
    now: Timestamp,
) -> Result<(), SqlError> {
    let mut head = match leased(tx, lease).await {
        Err(SqlError::Refused(StoreError::Fenced)) if has_ended(tx, lease, outcome).await? => return Ok(()),
        leased => leased?,
    };
    head.record(tx, &lease.tenant, &lease.session, &lease.turn, last, now).await?;
    head.holder = None;
    head.save(tx, &lease.tenant, &lease.session).await?;
    let ended = tx
        .execute(
            "UPDATE turns SET ended_at = $1, status = $2, outcome = $3 WHERE tenant = $4 AND id = $5",
            args![now, outcome.status, &outcome.outcome, &lease.tenant, &lease.turn],
        )
        .await?;
    match ended {
        0 => Err(SqlError::broken("a session's turn is not there")),
        _ => Ok(()),
    }
}

pub(super) fn read_session(row: &mut Row) -> Result<Session, SqlError> {
    Ok(Session {
        tenant: row.id()?,
        key: row.id()?,
        id: row.id()?,
        agent: row.id()?,
        user: row.opt_text()?,
        channel: row.text()?,
        created_at: row.time()?,
        updated_at: row.time()?,
        epoch: row.count()?,
        seq: row.count()?,
        summarised_through: row.count()?,
        holder: read_holder(row)?,
    })
}

/// [`crate::session::SessionStore::load`].
pub(in crate::adapters::onprem) async fn load<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    key: &SessionKey,
) -> Result<Option<Session>, SqlError> {
    let rows = tx
        .query(
            "SELECT tenant, session_key, id, agent_id, user_id, channel, created_at, updated_at, epoch, seq,
             summarised_through, turn_id, lease_until
         FROM sessions WHERE tenant = $1 AND session_key = $2",
            args![tenant, key],
        )
        .await?;
    or_unreadable(tx, "sessions", || key.to_string(), SESSION, read_first(rows, read_session))
}

/// [`crate::session::SessionStore::transcript`]. On a site the epoch never changes, so that of the head is the
/// transcript's only one, and the window is one walk down the primary key.
pub(in crate::adapters::onprem) async fn transcript<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    key: &SessionKey,
    window: Window,
) -> Result<Vec<Message>, SqlError> {
    let before = window.before.unwrap_or(u64::MAX);
    let rows = tx
        .query(
            "SELECT m.epoch, m.seq, m.turn_id, m.created_at, m.content
         FROM sessions s JOIN messages m ON m.tenant = s.tenant AND m.session_id = s.id AND m.epoch = s.epoch
         WHERE s.tenant = $1 AND s.session_key = $2 AND m.seq > $3 AND m.seq < $4
         ORDER BY m.seq DESC LIMIT $5",
            args![tenant, key, window.after, before, window.newest],
        )
        .await?;
    let mut messages = Vec::with_capacity(rows.len());
    for mut row in rows {
        messages.push(read_or_note(tx, key, &mut row)?);
    }
    messages.reverse();
    Ok(messages)
}

/// [`crate::session::SessionStore::turn`].
pub(in crate::adapters::onprem) async fn turn<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    id: &TurnId,
) -> Result<Option<Turn>, SqlError> {
    Ok(find_turn(tx, tenant, id).await?.map(|found| found.turn))
}
