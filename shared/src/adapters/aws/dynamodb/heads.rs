//! A session's head: one item that says where the session is at home, and one per epoch with everything that moves.
//!
//! Only the home region of an epoch writes its head and its steps. A table that is replicated by "the last writer wins"
//! therefore never has to choose between two writers of one item, but for a change of home itself.

use super::attrs::{Draft, broken, to_json, unreadable};
use super::keys;
use super::schema::{DUE, LISTED, USER};
use super::table::{Attr, Condition, Item, Key, Query, Table};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{AgentId, SessionId, SessionKey, TenantId, TurnId};
use crate::session::{Holder, Lease, NewTurn, Session};
use serde::{Deserialize, Serialize};

/// Sessions are listed by the minute of their last change, so that a busy one moves in the index once a minute.
const MINUTE: i64 = 60_000;

/// What a session is. Written when it is made and when it changes its home.
#[derive(Debug, Clone)]
pub(super) struct Meta {
    /// The name of the one region that writes the session.
    pub(super) home: String,
    /// The present epoch.
    pub(super) epoch: u64,
    pub(super) agent: AgentId,
    pub(super) user: Option<String>,
    pub(super) channel: String,
    pub(super) created_at: Timestamp,
    /// When the home took the session over; none if it was made there.
    pub(super) since: Option<Timestamp>,
}

/// What moves.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) epoch: u64,
    /// The present transcript.
    pub(super) id: SessionId,
    /// Grows with each lease.
    pub(super) fence: u64,
    /// Grows with each write of the head, within the session's life.
    pub(super) n: u64,
    pub(super) seq: u64,
    pub(super) summarised_through: u64,
    pub(super) updated_at: Timestamp,
    /// The newest hash of the transcript's audit chain; empty before the first row.
    pub(super) chain: String,
    pub(super) held: Option<Held>,
    /// Which part of each earlier epoch belongs to the transcript.
    pub(super) lineage: Vec<Ancestor>,
}

/// Who holds the session.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) turn: TurnId,
    pub(super) until: Timestamp,
    /// When the turn was accepted.
    pub(super) accepted_at: Timestamp,
    /// How often it was resumed since its newest message.
    pub(super) tries: u32,
}

/// An earlier epoch's part of a transcript, as far as the region that took over knew it: what its old home wrote later
/// is not in the transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ancestor {
    #[serde(rename = "e")]
    pub(super) epoch: u64,
    /// Its last position.
    #[serde(rename = "s")]
    pub(super) seq: u64,
    /// Its last write of the head.
    #[serde(rename = "n")]
    pub(super) n: u64,
}

/// What belongs to a transcript of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) epoch: u64,
    /// Only behind this position.
    pub(super) after: u64,
    /// Up to this position.
    pub(super) through: u64,
    /// Up to this write of the head.
    pub(super) n: u64,
}

/// A session as it was read.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) tenant: TenantId,
    pub(super) key: SessionKey,
    pub(super) meta: Meta,
    /// The present epoch's, or the newest that has arrived here.
    pub(super) head: Head,
    /// Every epoch of which there is a head.
    pub(super) epochs: Vec<u64>,
}

/// What there is of a session key.
pub(super) struct Found {
    pub(super) view: Option<View>,
    /// The session's own item. It may arrive before any head.
    pub(super) meta: Option<Meta>,
    /// Every epoch of which there is a head.
    pub(super) epochs: Vec<u64>,
    /// A deleted session is still to be cleared.
    pub(super) clearing: Option<Item>,
}

/// What a session's head is for a caller.
const SESSION: &str = "this session (it can be reset or deleted)";

/// Reads a session, consistently within the region.
pub(super) async fn find(core: &dyn Table, tenant: &TenantId, key: &SessionKey) -> Result<Found, StoreError> {
    let query = Query {
        index: None,
        partition: keys::session_partition(tenant, key),
        from: keys::META.to_owned(),
        to: keys::behind(keys::HEADS),
        newest_first: false,
        limit: 1000,
    };
    let (mut meta, mut clearing, mut heads) = (None, None, Vec::new());
    for item in core.query(&query).await? {
        match item.key.sort.as_str() {
            keys::META => meta = Some(Meta::read(&item).map_err(unreadable(SESSION))?),
            keys::CLEARING => clearing = Some(item),
            _ => heads.push(Head::read(&item).map_err(unreadable(SESSION))?),
        }
    }
    let epochs: Vec<u64> = heads.iter().map(|head| head.epoch).collect();
    let view = meta.as_ref().and_then(|meta| {
        let head = heads.into_iter().rev().find(|head| head.epoch <= meta.epoch)?;
        let (tenant, key) = (tenant.clone(), key.clone());
        Some(View { tenant, key, meta: meta.clone(), head, epochs: epochs.clone() })
    });
    Ok(Found { view, meta, epochs, clearing })
}

impl Meta {
    pub(super) fn read(item: &Item) -> Result<Self, StoreError> {
        Ok(Self {
            home: item.text("home")?.to_owned(),
            epoch: item.count("epoch")?,
            agent: AgentId::new(item.text("agent")?),
            user: item.opt_text("user")?.map(str::to_owned),
            channel: item.text("channel")?.to_owned(),
            created_at: item.time("created")?,
            since: item.opt_time("since")?,
        })
    }
}

impl Head {
    pub(super) fn read(item: &Item) -> Result<Self, StoreError> {
        let epoch = item.key.sort.strip_prefix(keys::HEADS).and_then(|epoch| epoch.parse().ok());
        let (n, id) = item.text("v")?.split_once('#').ok_or_else(|| broken("a head without a version"))?;
        let held = match item.opt_text("turn")? {
            Some(turn) => Some(Held {
                turn: TurnId::new(turn),
                until: item.time("until")?,
                accepted_at: item.time("accepted")?,
                tries: item.opt_int("tries")?.unwrap_or_default().try_into().map_err(broken)?,
            }),
            None => None,
        };
        Ok(Self {
            epoch: epoch.ok_or_else(|| broken("a head without an epoch"))?,
            id: SessionId::new(id),
            fence: item.count("fence")?,
            n: n.parse().map_err(broken)?,
            seq: item.count("seq")?,
            summarised_through: item.count("summarised")?,
            updated_at: item.time("updated")?,
            chain: item.text("chain")?.to_owned(),
            held,
            lineage: item.opt_json("lineage")?.unwrap_or_default(),
        })
    }

    /// Differs between any two states of the head, also of two sessions with the same key.
    fn version(&self) -> String {
        format!("{}#{}", self.n, self.id)
    }

    /// What must hold for the head to be as it was read.
    pub(super) fn unchanged(&self) -> Condition {
        Condition::Is("v", Attr::Text(self.version()))
    }

    /// The transcript's parts, oldest first.
    pub(super) fn segments(&self) -> Vec<Segment> {
        segments(&self.lineage, self.epoch)
    }
}

/// The parts of a transcript, oldest first: those of earlier epochs, and that of `epoch`, which has no end.
pub(super) fn segments(lineage: &[Ancestor], epoch: u64) -> Vec<Segment> {
    let mut after = 0;
    let ends = lineage.iter().copied().chain([Ancestor { epoch, seq: u64::MAX, n: u64::MAX }]);
    ends.map(|Ancestor { epoch, seq, n }| {
        let segment = Segment { epoch, after, through: seq, n };
        after = seq;
        segment
    })
    .collect()
}

/// Where sessions of an agent are listed.
pub(super) fn listed_of(tenant: &TenantId, agent: &AgentId) -> String {
    format!("SA#{}#{}", keys::escape(tenant.as_str()), keys::escape(agent.as_str()))
}

/// Where sessions of an end user are listed.
pub(super) fn listed_of_user(tenant: &TenantId, user: &str) -> String {
    format!("SU#{}#{}", keys::escape(tenant.as_str()), keys::escape(user))
}

/// Where sessions at work are.
pub(super) fn held_in(shard: u64) -> String {
    format!("HELD#{shard}")
}

/// How a session's minute begins the sort keys of its listings.
pub(super) fn minute(time: Timestamp) -> String {
    let millis = time.as_millis();
    keys::in_order(Timestamp::from_millis(millis.saturating_sub(millis.rem_euclid(MINUTE))))
}

impl View {
    /// A session about to be made in this region.
    pub(super) fn new(new: &NewTurn, home: &str, epoch: u64, now: Timestamp) -> Self {
        let meta = Meta {
            home: home.to_owned(),
            epoch,
            agent: new.agent.clone(),
            user: new.user.clone(),
            channel: new.channel.clone(),
            created_at: now,
            since: None,
        };
        Self::empty(new.tenant.clone(), new.session.clone(), meta, new.new_session_id.clone(), now)
    }

    /// A session without a message.
    pub(super) fn empty(
        tenant: TenantId,
        key: SessionKey,
        meta: Meta,
        id: SessionId,
        now: Timestamp,
    ) -> Self {
        let head = Head {
            epoch: meta.epoch,
            id,
            fence: 0,
            n: 0,
            seq: 0,
            summarised_through: 0,
            updated_at: now,
            chain: String::new(),
            held: None,
            lineage: Vec::new(),
        };
        Self { tenant, key, meta, head, epochs: Vec::new() }
    }

    /// As callers see it.
    pub(super) fn session(&self) -> Session {
        let Self { tenant, key, meta, head, .. } = self;
        Session {
            tenant: tenant.clone(),
            key: key.clone(),
            id: head.id.clone(),
            agent: meta.agent.clone(),
            user: meta.user.clone(),
            channel: meta.channel.clone(),
            created_at: meta.created_at,
            updated_at: head.updated_at,
            epoch: head.epoch,
            seq: head.seq,
            summarised_through: head.summarised_through,
            holder: head.held.as_ref().map(|held| Holder { turn: held.turn.clone(), until: held.until }),
        }
    }

    /// The lease of a turn that holds it.
    pub(super) fn lease(&self, turn: &TurnId, until: Timestamp) -> Lease {
        Lease {
            tenant: self.tenant.clone(),
            session: self.key.clone(),
            session_id: self.head.id.clone(),
            turn: turn.clone(),
            fence: self.head.fence,
            until,
            epoch: self.head.epoch,
            seq: self.head.seq,
            summarised_through: self.head.summarised_through,
        }
    }

    /// Whether this turn is at work on it, or was interrupted.
    pub(super) fn is_held_by(&self, turn: &TurnId) -> bool {
        self.head.held.as_ref().is_some_and(|held| held.turn == *turn)
    }

    /// Whether the lease is still the newest one.
    pub(super) fn is_leased(&self, lease: &Lease) -> bool {
        let Self { meta, head, .. } = self;
        meta.epoch == lease.epoch
            && head.epoch == lease.epoch
            && head.fence == lease.fence
            && head.id == lease.session_id
            && head.held.as_ref().is_some_and(|held| held.turn == lease.turn)
    }

    /// The key of an item of this session.
    pub(super) fn key_of(&self, sort: impl Into<String>) -> Key {
        keys::of_session(&self.tenant, &self.key, sort)
    }

    /// The session's own item.
    pub(super) fn meta_item(&self) -> Item {
        let draft = Draft::new(self.key_of(keys::META));
        let draft = match self.meta.since {
            Some(since) => draft.time("since", since),
            None => draft,
        };
        draft
            .text("home", &self.meta.home)
            .count("epoch", self.meta.epoch)
            .text("agent", self.meta.agent.as_str())
            .opt_text("user", self.meta.user.as_deref())
            .text("channel", &self.meta.channel)
            .time("created", self.meta.created_at)
            .item()
    }

    /// The head's item.
    pub(super) fn head_item(&self) -> Result<Item, StoreError> {
        let Self { tenant, key, meta, head, .. } = self;
        let place = format!("{}#{}#{}", minute(head.updated_at), keys::escape(key.as_str()), head.epoch);
        let mut draft = Draft::new(self.key_of(keys::head(head.epoch)))
            .text("v", head.version())
            .count("fence", head.fence)
            .count("seq", head.seq)
            .count("summarised", head.summarised_through)
            .time("updated", head.updated_at)
            .text("chain", &head.chain)
            .text(LISTED.partition, listed_of(tenant, &meta.agent))
            .text(LISTED.sort, &place);
        if let Some(user) = &meta.user {
            draft = draft.text(USER.partition, listed_of_user(tenant, user)).text(USER.sort, &place);
        }
        if !head.lineage.is_empty() {
            draft = draft.text("lineage", to_json(&head.lineage)?);
        }
        if let Some(held) = &head.held {
            let (tenant, turn) = (keys::escape(tenant.as_str()), keys::escape(held.turn.as_str()));
            draft = draft
                .text("turn", held.turn.as_str())
                .time("until", held.until)
                .time("accepted", held.accepted_at)
                .opt_count("tries", (held.tries > 0).then_some(held.tries))
                .text(DUE.partition, held_in(keys::shard(key.as_str())))
                .text(DUE.sort, format!("{}#{tenant}#{turn}", keys::in_order(held.accepted_at)));
        }
        Ok(draft.item())
    }
}
