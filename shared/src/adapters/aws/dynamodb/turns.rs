//! Turns as they are found again: a pointer to where the turn begins, and the steps from there to its end.

use super::attrs::{Draft, broken};
use super::heads::{self, Segment, View};
use super::keys::{self, StepAt};
use super::steps::{Steps, StoredStep};
use super::table::{Attr, Condition, Item, Table};
use crate::error::StoreError;
use crate::id::{SessionId, SessionKey, TenantId, TurnId};
use crate::message::Message;
use crate::session::{Idempotency, Turn};

/// Where a turn begins. Written when the turn starts, and again when it runs again.
#[derive(Debug, Clone)]
pub(super) struct Pointer {
    pub(super) session: SessionKey,
    pub(super) id: SessionId,
    pub(super) at: StepAt,
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
}

impl Pointer {
    pub(super) fn item(&self, tenant: &TenantId, turn: &TurnId) -> Item {
        Draft::new(keys::turn(tenant, turn))
            .text("session", self.session.as_str())
            .text("id", self.id.as_str())
            .count("epoch", self.at.epoch)
            .count("first", self.at.first)
            .count("n", self.at.n)
            .item()
    }

    fn read(item: &Item) -> Result<Self, StoreError> {
        Ok(Self {
            session: SessionKey::new(item.text("session")?),
            id: SessionId::new(item.text("id")?),
            at: StepAt { epoch: item.count("epoch")?, first: item.count("first")?, n: item.count("n")? },
        })
    }

    /// What must hold for the pointer still to lead to the same transcript.
    pub(super) fn unchanged(&self) -> Condition {
        Condition::Is("id", Attr::Text(self.id.to_string()))
    }
}

/// The turn's pointer.
pub(super) async fn pointer(
    core: &dyn Table,
    tenant: &TenantId,
    turn: &TurnId,
) -> Result<Option<Pointer>, StoreError> {
    core.get(&keys::turn(tenant, turn)).await?.as_ref().map(Pointer::read).transpose()
}

/// The turn that a pointer leads to, or `None` if its session was deleted.
pub(super) async fn record(
    core: &dyn Table,
    tenant: &TenantId,
    turn: &TurnId,
    pointer: &Pointer,
) -> Result<Option<TurnRecord>, StoreError> {
    let Some(view) = heads::find(core, tenant, &pointer.session).await?.view else { return Ok(None) };
    let segments = if view.head.id == pointer.id {
        view.head.segments()
    } else {
        match core.get(&view.key_of(keys::past(&pointer.id))).await? {
            Some(past) => heads::past_segments(&past)?,
            None => return Ok(None),
        }
    };
    let steps = steps_of(core, &view, turn, pointer, &segments).await?;
    let mut steps = steps.into_iter();
    let Some(mut first) = steps.next() else { return Ok(None) };
    let facts = first.body.facts.take().ok_or_else(|| broken("a turn's pointer leads to no turn"))?;
    let (mut ended_at, mut outcome, mut messages) = (None, None, Vec::new());
    for mut step in steps {
        messages.extend(step.messages());
        if let Some(found) = step.body.outcome.take() {
            (ended_at, outcome) = (Some(step.time), Some(found));
        }
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
    Ok(Some(TurnRecord { turn, idempotency: facts.idempotency, steps: messages, view }))
}

/// The turn's steps, from its input to its end or to the newest.
async fn steps_of(
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

/// As [`record`], with the pointer.
pub(super) async fn find(
    core: &dyn Table,
    tenant: &TenantId,
    turn: &TurnId,
) -> Result<Option<Turn>, StoreError> {
    let Some(pointer) = pointer(core, tenant, turn).await? else { return Ok(None) };
    Ok(record(core, tenant, turn, &pointer).await?.map(|record| record.turn))
}
