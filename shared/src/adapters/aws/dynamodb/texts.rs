//! Texts that may be too large for the item that they belong to. A short one stands in the item itself; a long one in
//! further items beside it, written once, in the transaction that first names them: whatever changes the item later
//! leaves them alone.

use super::attrs::Draft;
use super::keys;
use super::schema::EXPIRES;
use super::steps::pieces;
use super::table::{Attr, Condition, Item, Key, Query, Table, Write};
use crate::bounds::STEP_BYTES;
use crate::clock::Timestamp;
use crate::error::StoreError;

/// What an item holds itself. Each KB of it is paid for with every change of the item.
const BYTES_INSIDE: usize = 4 * 1024;

/// A text, as its item knows it.
#[derive(Debug, Clone)]
pub(super) enum Text {
    /// It stands in the item.
    Inside(String),
    /// It stands in so many items beside.
    Beside {
        /// The region that wrote it. Two regions may write items of one name at the same time, and their pieces must not
        /// get mixed.
        by: String,
        pieces: u64,
    },
}

/// Where a piece of a text stands that belongs to the item with this key.
fn beside(key: &Key, by: &str, piece: u64) -> Key {
    Key { partition: key.partition.clone(), sort: format!("B#{}#{piece:03}", keys::escape(by)) }
}

impl Text {
    /// A new text of the item with this key, and what is to be written along with the item. What stands beside is
    /// forgotten with the item, so it has to be told until when that is kept, if it ends.
    pub(super) fn new(
        text: String,
        key: &Key,
        by: &str,
        kept_until: Option<Timestamp>,
    ) -> Result<(Self, Vec<Write>), StoreError> {
        if text.len() <= BYTES_INSIDE {
            return Ok((Self::Inside(text), Vec::new()));
        }
        if text.len() > STEP_BYTES {
            return Err(StoreError::TooLarge { bytes: text.len(), most: STEP_BYTES });
        }
        let pieces = (0_u64..).zip(pieces(&text));
        let writes: Vec<Write> = pieces
            .map(|(number, piece)| Draft::new(beside(key, by, number)).text("b", piece).expires(kept_until))
            .map(|draft| Write::Put(draft.item(), Condition::Always))
            .collect();
        Ok((Self::Beside { by: by.to_owned(), pieces: writes.len() as u64 }, writes))
    }

    /// The text that an item holds under this name, if it has one.
    pub(super) fn read(item: &Item, name: &str) -> Result<Option<Self>, StoreError> {
        Ok(match item.opt_text("by")? {
            Some(by) => Some(Self::Beside { by: by.to_owned(), pieces: item.count("pieces")? }),
            None => item.opt_text(name)?.map(|text| Self::Inside(text.to_owned())),
        })
    }

    /// Adds it to its item, under this name.
    pub(super) fn put(&self, draft: Draft, name: &str) -> Draft {
        match self {
            Self::Inside(text) => draft.text(name, text),
            Self::Beside { by, pieces } => draft.text("by", by).count("pieces", *pieces),
        }
    }

    /// What is to be written along with the item from when on it is kept until then, and no longer. It costs as much as
    /// writing the text anew, once; to keep it for ever costs more.
    pub(super) async fn kept_until(
        &self,
        core: &dyn Table,
        key: &Key,
        until: Timestamp,
    ) -> Result<Vec<Write>, StoreError> {
        let mut pieces = self.pieces(core, key).await?;
        for piece in &mut pieces {
            piece.attrs.insert(EXPIRES.to_owned(), Attr::Number(until.as_seconds()));
        }
        Ok(pieces.into_iter().map(|piece| Write::Put(piece, Condition::Always)).collect())
    }

    /// What is to be written along with the item when it holds this text no longer.
    pub(super) fn gone(&self, key: &Key) -> Vec<Write> {
        let Self::Beside { by, pieces } = self else { return Vec::new() };
        (0..*pieces).map(|piece| Write::Delete(beside(key, by, piece), Condition::Always)).collect()
    }

    /// What stands beside, as far as it has arrived.
    async fn pieces(&self, core: &dyn Table, key: &Key) -> Result<Vec<Item>, StoreError> {
        let Self::Beside { by, pieces } = self else { return Ok(Vec::new()) };
        let query = Query {
            index: None,
            partition: key.partition.clone(),
            from: beside(key, by, 0).sort,
            to: beside(key, by, pieces.saturating_sub(1)).sort,
            newest_first: false,
            limit: usize::try_from(*pieces).unwrap_or(usize::MAX),
        };
        core.query(&query).await
    }

    /// All of it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] while only part of it has arrived from the region that wrote it.
    pub(super) async fn whole(&self, core: &dyn Table, key: &Key) -> Result<String, StoreError> {
        let missing = || StoreError::Unavailable(format!("part of {} has not arrived", key.partition).into());
        self.arrived(core, key).await?.ok_or_else(missing)
    }

    /// All of it; `None` while only part of it has arrived from the region that wrote it, which may never change.
    pub(super) async fn arrived(&self, core: &dyn Table, key: &Key) -> Result<Option<String>, StoreError> {
        let pieces = match self {
            Self::Inside(text) => return Ok(Some(text.clone())),
            Self::Beside { pieces, .. } => *pieces,
        };
        let found = self.pieces(core, key).await?;
        if (found.len() as u64) < pieces {
            return Ok(None);
        }
        let mut text = String::new();
        for piece in &found {
            text.push_str(piece.text("b")?);
        }
        Ok(Some(text))
    }
}
