//! One table as the stores see it: items, conditions, and writes that all happen or none.
//!
//! Everything that the stores decide is written over [`Table`], so that it runs the same on DynamoDB and on the simulated
//! tables of several regions that the tests replicate late and out of order.

use crate::error::StoreError;
use async_trait::async_trait;
use std::collections::BTreeMap;

/// Name of the partition key attribute.
pub const PARTITION: &str = "pk";
/// Name of the sort key attribute.
pub const SORT: &str = "sk";

/// A value. Whatever is never compared by the table is JSON in a text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attr {
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
}

/// An item without its key, by attribute name.
pub type Attrs = BTreeMap<String, Attr>;

/// Names one item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Items of one partition are read together, in the order of their sort keys.
    pub partition: String,
    /// Unique within the partition.
    pub sort: String,
}

/// An item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub key: Key,
    /// What it holds.
    pub attrs: Attrs,
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// There is no such item.
    Absent,
    /// There is one.
    Present,
    /// There is one, and this attribute has this value.
    Is(&'static str, Attr),
    /// There is no such item, or it has no such number, or this number of it is at most the first bound or above the second.
    Outside(&'static str, i64, i64),
    /// There is no such item, or there is one that has this number, which is at most so much.
    AbsentOrAtMost(&'static str, i64),
    /// There is one, and this number of it is above the first bound and at most the second.
    Within(&'static str, i64, i64),
}

/// One write of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Replaces the whole item.
    Put(Item, Condition),
    /// Removes the item.
    Delete(Key, Condition),
    /// Adds to a number of an item that is there, and sets other attributes, without reading first. The condition is one
    /// that does not hold if there is no such item.
    Add {
        /// The item.
        key: Key,
        /// The number's attribute.
        name: &'static str,
        /// What is added.
        by: i64,
        /// What is set beside.
        set: Attrs,
        /// What must hold.
        condition: Condition,
    },
}

/// Why nothing was written.
#[derive(Debug)]
pub enum WriteError {
    /// A condition does not hold: that of the write at this position (the first, if several).
    Refused(usize),
    /// Another transaction touched the same items at the same time: read again, decide again.
    Contended,
    /// The table failed.
    Store(StoreError),
}

/// A second order of the same items: only items that carry its two attributes are in it. Reads of it lag behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Index {
    /// Its name in the table's definition.
    pub name: &'static str,
    /// The attribute that is its partition key; a text.
    pub partition: &'static str,
    /// The attribute that is its sort key; a text.
    pub sort: &'static str,
}

/// Which items of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Of an index, or of the table itself.
    pub index: Option<Index>,
    /// The partition key.
    pub partition: String,
    /// Sort keys from here on, inclusive.
    pub from: String,
    /// Sort keys up to here, inclusive; none fits if this is below `from`.
    pub to: String,
    /// Greatest sort key first.
    pub newest_first: bool,
    /// At most so many; fewer come only if there are no more.
    pub limit: usize,
}

/// A table of one region. Reads by key and queries without an index see every write that returned before in this region;
/// conditions, too, look at this region only.
#[async_trait]
pub trait Table: Send + Sync {
    /// The item with this key.
    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError>;

    /// Items in the order of their sort keys. Of an index: whole items, too, possibly as they were a moment ago.
    async fn query(&self, query: &Query) -> Result<Vec<Item>, StoreError>;

    /// Writes all or, if one condition does not hold, nothing; durable on return. At most 100 writes, each of another
    /// item. After [`StoreError::Unavailable`] it may have happened or not.
    ///
    /// A single write may be refused although it happened: whoever carries the request repeats it if its answer is lost,
    /// and then finds its own write. That is harmless where a refusal makes the caller read and decide again.
    async fn write(&self, writes: Vec<Write>) -> Result<(), WriteError>;

    /// As [`Table::write`], but refused only if somebody else was faster, also for a single write, which costs twice as
    /// much so: for callers to whom a refusal is an answer.
    async fn write_once(&self, writes: Vec<Write>) -> Result<(), WriteError>;
}
