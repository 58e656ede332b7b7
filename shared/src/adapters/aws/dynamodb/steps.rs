//! Steps: the items that a transcript is made of. A step's messages and audit rows, and the beginning or the end of a
//! turn, stand in one item; what is too large for one goes on in further items of the same transaction.

use super::attrs::{Draft, broken, from_json, to_json};
use super::heads::{Segment, View};
use super::keys::{self, StepAt};
use super::schema::LISTED;
use super::table::{Item, Key, Table};
use super::walk::Walk;
use crate::audit::{AuditRow, NewAudit};
use crate::bounds::{ITEM_BYTES, STEP_BYTES};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{AgentId, PrincipalId, SessionId, SessionKey, TenantId, TurnId};
use crate::message::{Message, MessageBody};
use crate::session::{Idempotency, TurnOutcome, Window};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Steps that are read at once.
const PAGE: usize = 50;

/// What a step says.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Body {
    #[serde(rename = "m", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) messages: Vec<MessageBody>,
    /// A turn begins here.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub(super) facts: Option<Facts>,
    /// A turn ends here.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<TurnOutcome>,
}

/// A turn as it was accepted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Facts {
    #[serde(rename = "a")]
    pub(super) agent: AgentId,
    #[serde(rename = "p")]
    pub(super) principal: PrincipalId,
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    pub(super) user: Option<String>,
    #[serde(rename = "c")]
    pub(super) channel: String,
    #[serde(rename = "o")]
    pub(super) options: Value,
    /// What it was first accepted under.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub(super) idempotency: Option<Idempotency>,
}

impl Facts {
    /// What stands for the facts of a turn that cannot be read.
    pub(super) fn unknown(view: &View) -> Self {
        Self {
            agent: view.meta.agent.clone(),
            principal: PrincipalId::new(""),
            user: None,
            channel: String::new(),
            options: Value::Null,
            idempotency: None,
        }
    }
}

/// The audit rows of a step, less what its item says anyway.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Rows {
    #[serde(rename = "a")]
    pub(super) agent: AgentId,
    #[serde(rename = "r")]
    pub(super) rows: Vec<Row>,
}

/// One audit row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Row {
    #[serde(rename = "i")]
    id: String,
    #[serde(rename = "t")]
    pub(super) at: Timestamp,
    #[serde(rename = "w")]
    principal: PrincipalId,
    #[serde(rename = "a")]
    action: String,
    #[serde(rename = "d")]
    detail: Value,
    /// The hash before it, unless that is the hash of the row before it in the item.
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
    #[serde(rename = "h")]
    hash: String,
}

impl Rows {
    /// Rows behind the chain's end, which moves.
    fn chained(entries: &[NewAudit], view: &View, turn: &TurnId, chain: &mut String) -> Self {
        let mut rows: Vec<Row> = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut row = AuditRow {
                entry: entry.clone(),
                tenant: view.tenant.clone(),
                session: view.key.clone(),
                session_id: view.head.id.clone(),
                agent: view.meta.agent.clone(),
                turn: turn.clone(),
                previous: std::mem::take(chain),
                hash: String::new(),
            };
            row.hash = row.expected_hash();
            chain.clone_from(&row.hash);
            let NewAudit { id, at, principal, action, detail } = row.entry;
            let previous = rows.is_empty().then_some(row.previous);
            rows.push(Row { id, at, principal, action, detail, previous, hash: row.hash });
        }
        Self { agent: view.meta.agent.clone(), rows }
    }

    /// The rows that `keep`, still linked as they were.
    pub(super) fn retain(&mut self, keep: impl Fn(&Row) -> bool) {
        let mut before: Option<String> = None;
        for row in &mut self.rows {
            let hash = row.hash.clone();
            if row.previous.is_none() {
                row.previous = before;
            }
            before = Some(hash);
        }
        self.rows.retain(keep);
        let mut before: Option<&str> = None;
        for row in &mut self.rows {
            if before.is_some() && row.previous.as_deref() == before {
                row.previous = None;
            }
            before = Some(&row.hash);
        }
    }

    /// Where the rows of a step are listed, by the time of the earliest.
    pub(super) fn place(
        &self,
        session: &SessionKey,
        tenant: &TenantId,
        id: &SessionId,
        at: StepAt,
    ) -> Option<(String, String)> {
        let earliest = self.rows.iter().map(|row| row.at).min()?;
        let partition = audit_in(tenant, keys::shard(session.as_str()));
        let sort =
            format!("{}#{}#{}#{}", keys::in_order(earliest), at.epoch, at.n, keys::escape(id.as_str()));
        Some((partition, sort))
    }
}

/// Where a tenant's audit rows are listed.
pub(super) fn audit_in(tenant: &TenantId, shard: u64) -> String {
    format!("A#{}#{shard}", keys::escape(tenant.as_str()))
}

/// What is to be recorded.
pub(super) struct NewStep<'a> {
    pub(super) turn: &'a TurnId,
    pub(super) body: Body,
    pub(super) audit: &'a [NewAudit],
    pub(super) now: Timestamp,
}

impl View {
    /// The items of a step, none if nothing is recorded; moves the head, which is to be written along with them. Where
    /// the step stands.
    pub(super) fn record(&mut self, step: NewStep<'_>) -> Result<(StepAt, Vec<Item>), StoreError> {
        let NewStep { turn, body, audit, now } = step;
        self.head.n += 1;
        let at = StepAt { epoch: self.head.epoch, first: self.head.seq + 1, n: self.head.n };
        for message in &body.messages {
            self.head.seq += 1;
            self.head.updated_at = now;
            if let MessageBody::Summary { through, .. } = message {
                self.head.summarised_through = *through;
            }
        }
        let is_empty = body.messages.is_empty() && body.facts.is_none() && body.outcome.is_none();
        if is_empty && audit.is_empty() {
            return Ok((at, Vec::new()));
        }
        let mut chain = std::mem::take(&mut self.head.chain);
        let rows = Rows::chained(audit, self, turn, &mut chain);
        self.head.chain = chain;
        let text = to_json(&body)?;
        if text.len() > STEP_BYTES {
            return Err(StoreError::TooLarge { bytes: text.len(), most: STEP_BYTES });
        }
        let pieces = pieces(&text);
        let mut items = Vec::with_capacity(pieces.len());
        for (part, piece) in pieces.iter().enumerate() {
            let mut draft = Draft::new(self.key_of(keys::step(&self.head.id, at, part))).text("b", *piece);
            if part == 0 {
                draft = draft.text("turn", turn.as_str()).time("at", now);
                if pieces.len() > 1 {
                    draft = draft.count("more", (pieces.len() - 1) as u64);
                }
                if let Some((partition, sort)) = rows.place(&self.key, &self.tenant, &self.head.id, at) {
                    draft = draft
                        .text("a", to_json(&rows)?)
                        .text(LISTED.partition, partition)
                        .text(LISTED.sort, sort);
                }
            }
            items.push(draft.item());
        }
        Ok((at, items))
    }
}

/// A text in pieces that fit into items.
pub(super) fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while rest.len() > ITEM_BYTES {
        let mut end = ITEM_BYTES;
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (piece, others) = rest.split_at(end);
        pieces.push(piece);
        rest = others;
    }
    pieces.push(rest);
    pieces
}

/// A step as it was read.
#[derive(Debug)]
pub(super) struct StoredStep {
    pub(super) key: Key,
    pub(super) id: SessionId,
    pub(super) at: StepAt,
    pub(super) turn: TurnId,
    pub(super) time: Timestamp,
    pub(super) body: Body,
    /// Keys of the items in which it goes on.
    pub(super) more: Vec<Key>,
    /// It holds audit rows.
    pub(super) has_rows: bool,
    /// Why what it says cannot be read. A note stands for its messages then.
    pub(super) lost: Option<String>,
}

impl StoredStep {
    /// It holds audit rows alone, which may be about any turn.
    pub(super) fn is_neutral(&self) -> bool {
        self.body.messages.is_empty() && self.body.facts.is_none() && self.body.outcome.is_none()
    }

    /// The step; a note in its place if what it says cannot be read. It has as many messages as nobody knows.
    fn of(item: &Item, more: &[Item]) -> Result<Self, StoreError> {
        let error = match Self::read(item, more) {
            Ok(step) => return Ok(step),
            Err(error) => error,
        };
        let Some((id, at, _)) = keys::step_of(&item.key.sort) else { return Err(error) };
        let why = match error {
            StoreError::Broken(source) => source.to_string(),
            other => other.to_string(),
        };
        Ok(Self {
            key: item.key.clone(),
            id,
            at,
            turn: TurnId::new(item.text("turn").unwrap_or_default()),
            time: item.time("at").unwrap_or_default(),
            body: Body { messages: vec![MessageBody::unreadable()], ..Body::default() },
            more: more.iter().map(|item| item.key.clone()).collect(),
            has_rows: item.attrs.contains_key("a"),
            lost: Some(why),
        })
    }

    fn read(item: &Item, more: &[Item]) -> Result<Self, StoreError> {
        let (id, at, _) = keys::step_of(&item.key.sort).ok_or_else(|| broken("a step with an odd key"))?;
        let mut text = item.opt_text("b")?.unwrap_or("{}").to_owned();
        for piece in more {
            text.push_str(piece.text("b")?);
        }
        Ok(Self {
            key: item.key.clone(),
            id,
            at,
            turn: TurnId::new(item.text("turn")?),
            time: item.time("at")?,
            body: from_json(&text)?,
            more: more.iter().map(|item| item.key.clone()).collect(),
            has_rows: item.opt_text("a")?.is_some(),
            lost: None,
        })
    }

    /// Its messages, oldest first.
    pub(super) fn messages(&self) -> impl DoubleEndedIterator<Item = Message> {
        let bodies = self.body.messages.iter().enumerate();
        bodies.map(|(place, body)| Message {
            seq: self.at.first + place as u64,
            epoch: self.at.epoch,
            turn: self.turn.clone(),
            at: self.time,
            body: body.clone(),
        })
    }

    /// Position of its last message, or of the last one before it.
    pub(super) fn last(&self) -> u64 {
        (self.at.first + self.body.messages.len() as u64).saturating_sub(1)
    }
}

/// The audit rows of a step's item, whole.
pub(super) fn audit_rows(item: &Item) -> Result<Vec<AuditRow>, StoreError> {
    let Some(text) = item.opt_text("a")? else { return Ok(Vec::new()) };
    let rows: Rows = from_json(text)?;
    let (tenant, session) =
        keys::session_of(&item.key.partition).ok_or_else(|| broken("a step in an odd partition"))?;
    let (id, _, _) = keys::step_of(&item.key.sort).ok_or_else(|| broken("a step with an odd key"))?;
    let turn = TurnId::new(item.text("turn")?);
    let mut last = String::new();
    let mut whole = Vec::with_capacity(rows.rows.len());
    for row in rows.rows {
        let Row { id: row_id, at, principal, action, detail, previous, hash } = row;
        let previous = previous.unwrap_or_else(|| std::mem::take(&mut last));
        last.clone_from(&hash);
        whole.push(AuditRow {
            entry: NewAudit { id: row_id, at, principal, action, detail },
            tenant: tenant.clone(),
            session: session.clone(),
            session_id: id.clone(),
            agent: rows.agent.clone(),
            turn: turn.clone(),
            previous,
            hash,
        });
    }
    Ok(whole)
}

/// A walk over steps.
pub(super) struct Steps<'a> {
    walk: Walk<'a>,
    is_newest_first: bool,
    /// The beginning of the next one, which was read to see where the one before ends.
    ahead: Option<Item>,
}

impl<'a> Steps<'a> {
    /// Oldest first.
    pub(super) fn oldest_first(core: &'a dyn Table, partition: String, from: String, to: String) -> Self {
        Self { walk: Walk::new(core, partition, from, to, PAGE), is_newest_first: false, ahead: None }
    }

    /// Newest first, about so many.
    fn newest_first(core: &'a dyn Table, partition: String, from: String, to: String, about: usize) -> Self {
        let walk = Walk::new(core, partition, from, to, about.min(PAGE)).newest_first();
        Self { walk, is_newest_first: true, ahead: None }
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Result<Option<StoredStep>, StoreError> {
        let mut more = Vec::new();
        let next = match self.ahead.take() {
            Some(item) => Some(item),
            None => self.walk.next().await?,
        };
        let Some(mut item) = next else { return Ok(None) };
        let part_of = |item: &Item| keys::step_of(&item.key.sort).is_some_and(|(_, _, part)| part > 0);
        // Pieces stand beside their step, whatever it says how many there are.
        if self.is_newest_first {
            while part_of(&item) {
                let Some(before) = self.walk.next().await? else { break };
                more.push(std::mem::replace(&mut item, before));
            }
            more.reverse();
        } else {
            while let Some(next) = self.walk.next().await? {
                if !part_of(&next) {
                    self.ahead = Some(next);
                    break;
                }
                more.push(next);
            }
        }
        StoredStep::of(&item, &more).map(Some)
    }
}

/// The newest messages of a transcript that fit, oldest first.
pub(super) async fn newest(
    core: &dyn Table,
    partition: &str,
    id: &SessionId,
    segments: &[Segment],
    window: Window,
) -> Result<Vec<Message>, StoreError> {
    let last = window.before.unwrap_or(u64::MAX).saturating_sub(1);
    let mut messages = Vec::new();
    for segment in segments.iter().rev() {
        let (after, through) = (segment.after.max(window.after), segment.through.min(last));
        if messages.len() >= window.newest || through <= after {
            continue;
        }
        let missing = window.newest - messages.len();
        let from = keys::steps_from(id, segment.epoch, segment.after.saturating_add(1));
        let to = keys::steps_through(id, segment.epoch, through);
        let mut steps = Steps::newest_first(core, partition.to_owned(), from, to, missing);
        'segment: while let Some(step) = steps.next().await? {
            if step.at.n > segment.n {
                continue;
            }
            for message in step.messages().rev().filter(|message| message.seq <= through) {
                if message.seq <= after {
                    break 'segment;
                }
                messages.push(message);
                if messages.len() >= window.newest {
                    break 'segment;
                }
            }
            if step.at.first <= after.saturating_add(1) {
                break;
            }
        }
    }
    messages.reverse();
    Ok(messages)
}
