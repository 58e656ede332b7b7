//! Transcripts that resets put away. Each home notes its own: two that did not know of each other may both have put away
//! one transcript, of which they knew different parts.

use super::attrs::{Draft, broken, to_json};
use super::heads::{Ancestor, Head, Segment, View, segments};
use super::keys;
use super::schema::DUE;
use super::table::{Item, Query, Table};
use super::walk::Walk;
use crate::error::StoreError;
use crate::id::{SessionId, SessionKey, TenantId};

/// A transcript that was put away.
#[derive(Debug, Clone)]
pub(super) struct Past {
    pub(super) id: SessionId,
    /// The epoch under which it was put away.
    pub(super) epoch: u64,
    /// Its last position.
    seq: u64,
    /// The write of the head before it was put away.
    n: u64,
    /// Which part of each earlier epoch belongs to it.
    pub(super) lineage: Vec<Ancestor>,
}

impl Past {
    fn read(item: &Item) -> Result<Self, StoreError> {
        let (id, epoch) =
            keys::past_of(&item.key.sort).ok_or_else(|| broken("a past transcript with an odd key"))?;
        let (seq, n) = (item.count("seq")?, item.count("n")?);
        Ok(Self { id, epoch, seq, n, lineage: item.opt_json("lineage")?.unwrap_or_default() })
    }

    /// Its parts, oldest first.
    pub(super) fn segments(&self) -> Vec<Segment> {
        segments(&self.lineage, self.epoch)
    }

    /// The head of its epoch as it was when this transcript was the present one, idle.
    pub(super) fn head(&self, of_its_epoch: &Head) -> Head {
        let Self { id, seq, n, lineage, .. } = self.clone();
        Head { id, seq, n, lineage, held: None, ..of_its_epoch.clone() }
    }
}

impl View {
    /// What is kept of the present transcript when a reset puts it away.
    pub(super) fn past_item(&self) -> Result<Item, StoreError> {
        Ok(Draft::new(self.key_of(keys::past(&self.head.id, self.head.epoch)))
            .count("seq", self.head.seq)
            .count("n", self.head.n)
            .text("lineage", to_json(&self.head.lineage)?)
            .item())
    }

    /// Of these, one for each transcript that is not the present one: as the latest home put it away that the session
    /// knows of. What others put away under the same name came too late.
    pub(super) fn put_away<'p>(&self, pasts: &'p [Past]) -> Vec<&'p Past> {
        let mut found: Vec<&Past> = Vec::new();
        for past in pasts.iter().filter(|past| past.id != self.head.id && past.epoch <= self.meta.epoch) {
            // They come in the order of their ids and epochs.
            match found.last_mut() {
                Some(last) if last.id == past.id => *last = past,
                _ => found.push(past),
            }
        }
        found
    }
}

/// All that was put away of a session, by id and epoch.
pub(super) async fn all(
    core: &dyn Table,
    tenant: &TenantId,
    session: &SessionKey,
) -> Result<Vec<Past>, StoreError> {
    let (from, to) = (keys::PAST.to_owned(), keys::behind(keys::PAST));
    let mut walk = Walk::new(core, keys::session_partition(tenant, session), from, to, 100);
    let mut pasts = Vec::new();
    while let Some(item) = walk.next().await? {
        pasts.push(Past::read(&item)?);
    }
    Ok(pasts)
}

/// The names of all that was put away of a session, whatever is kept of it.
pub(super) async fn names(
    core: &dyn Table,
    tenant: &TenantId,
    session: &SessionKey,
) -> Result<Vec<(SessionId, u64)>, StoreError> {
    let (from, to) = (keys::PAST.to_owned(), keys::behind(keys::PAST));
    let mut walk = Walk::new(core, keys::session_partition(tenant, session), from, to, 100);
    let mut names = Vec::new();
    while let Some(item) = walk.next().await? {
        names.extend(keys::past_of(&item.key.sort));
    }
    Ok(names)
}

/// Transcripts of other epochs than the present one.
#[derive(Default)]
pub(super) struct Old {
    /// Each with its epoch's head, as it was with this transcript; in the order in which they were written.
    pub(super) heads: Vec<Head>,
    /// All that was put away, under the present epoch, too.
    pub(super) pasts: Vec<Past>,
    /// The heads that the index of sessions at work still names, as they are without.
    pub(super) due: Vec<Item>,
}

/// What has arrived of them.
pub(super) async fn old(core: &dyn Table, view: &View) -> Result<Old, StoreError> {
    let query = Query {
        index: None,
        partition: keys::session_partition(&view.tenant, &view.key),
        from: keys::HEADS.to_owned(),
        to: keys::behind(keys::HEADS),
        newest_first: false,
        limit: 1000,
    };
    let (mut heads, mut due) = (Vec::new(), Vec::new());
    for mut item in core.query(&query).await? {
        let head = Head::read(&item)?;
        if head.epoch == view.head.epoch {
            continue;
        }
        heads.push(head);
        if item.attrs.remove(DUE.partition).is_some() && item.attrs.remove(DUE.sort).is_some() {
            due.push(item);
        }
    }
    let pasts = all(core, &view.tenant, &view.key).await?;
    let mut put_away = Vec::new();
    for past in &pasts {
        put_away.extend(heads.iter().find(|head| head.epoch == past.epoch).map(|head| past.head(head)));
    }
    heads.extend(put_away);
    heads.sort_by_key(|head| (head.epoch, head.n));
    Ok(Old { heads, pasts, due })
}

/// A transcript that is not the present one, if it was put away; see [`View::put_away`].
pub(super) async fn find(core: &dyn Table, view: &View, id: &SessionId) -> Result<Option<Past>, StoreError> {
    let query = Query {
        index: None,
        partition: keys::session_partition(&view.tenant, &view.key),
        from: keys::past(id, 0),
        to: keys::past(id, view.meta.epoch),
        newest_first: true,
        limit: 1,
    };
    core.query(&query).await?.first().map(Past::read).transpose()
}
