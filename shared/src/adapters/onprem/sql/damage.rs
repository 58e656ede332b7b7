//! Rows of which part cannot be read: what is left of a turn and of a message.

use super::{Row, SqlError, Tx, cause};
use crate::clock::Timestamp;
use crate::id::{AgentId, PrincipalId, SessionId, SessionKey, TurnId};
use crate::message::{Message, MessageBody};
use crate::session::{Failure, Turn, TurnOutcome};
use serde_json::Value;

/// What is wrong with a row of which the rest is good.
#[derive(Default)]
pub(super) struct Damage(Option<String>);

impl Damage {
    /// What was read, or what stands for it.
    pub(super) fn or<V>(&mut self, read: Result<V, SqlError>, instead: V) -> V {
        read.unwrap_or_else(|error| {
            self.0.get_or_insert_with(|| cause(error));
            instead
        })
    }

    /// Tells of it, if there is any; whether there is.
    pub(super) fn tell<T: Tx>(self, tx: &mut T, table: &'static str, id: impl FnOnce() -> String) -> bool {
        match self.0 {
            Some(why) => {
                tx.saw(table, id(), &why);
                true
            }
            None => false,
        }
    }
}

/// A turn, from the columns that every query for turns names in this order. Of a damaged row, what can be read; it fails only
/// if not even the turn's name can be.
pub(super) fn read_turn<T: Tx>(tx: &mut T, row: &mut Row) -> Result<(Turn, bool), SqlError> {
    let (id, tenant, session) = (row.id()?, row.id()?, row.id()?);
    let mut damage = Damage::default();
    let mut turn = Turn {
        id,
        tenant,
        session,
        session_id: damage.or(row.id(), SessionId::new("")),
        agent: damage.or(row.id(), AgentId::new("")),
        principal: damage.or(row.id(), PrincipalId::new("")),
        user: damage.or(row.opt_text(), None),
        channel: damage.or(row.text(), String::new()),
        options: damage.or(row.json(), Value::Null),
        accepted_at: damage.or(row.time(), Timestamp::EPOCH),
        ended_at: damage.or(row.opt_time(), None),
        outcome: None,
    };
    let lost = || Some(TurnOutcome::Failed(Failure::unreadable()));
    turn.outcome = damage.or(row.opt_json(), lost());
    let is_damaged = damage.tell(tx, "turns", || turn.id.to_string());
    if is_damaged && turn.ended_at.is_some() {
        turn.outcome = turn.outcome.or_else(lost);
    }
    Ok((turn, is_damaged))
}

pub(super) fn read_message(row: &mut Row) -> Result<Message, SqlError> {
    Ok(Message {
        epoch: row.count()?,
        seq: row.count()?,
        turn: row.id()?,
        at: row.time()?,
        body: row.json()?,
    })
}

/// A message of a transcript. In place of one that cannot be read stands a note, so that the session goes on.
pub(super) fn read_or_note<T: Tx>(tx: &mut T, key: &SessionKey, row: &mut Row) -> Result<Message, SqlError> {
    let (epoch, seq) = (row.count()?, row.count()?);
    let (turn, at, body) = (row.id(), row.time(), row.json());
    let mut damage = Damage::default();
    let message = Message {
        epoch,
        seq,
        turn: damage.or(turn, TurnId::new("")),
        at: damage.or(at, Timestamp::EPOCH),
        body: damage.or(body, MessageBody::unreadable()),
    };
    damage.tell(tx, "messages", || format!("{key} / {seq}"));
    Ok(message)
}
