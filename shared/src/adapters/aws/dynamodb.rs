//! Every storage port on DynamoDB, written over [`Table`].
//!
//! An operation reads (consistently, by key), decides, and writes in one conditional write or transaction; if somebody
//! else was faster it reads again. Which items there are stands in [`schema`].

mod answers;
mod attrs;
mod audit;
mod clear;
mod dynamo_table;
mod heads;
mod homes;
mod index;
mod jobs;
mod keys;
mod late;
mod limits;
mod pasts;
mod repair;
pub mod schema;
mod sessions;
mod steps;
pub mod table;
mod texts;
mod tokens;
mod turns;
mod walk;

pub use dynamo_table::{DynamoTable, Units};
pub use homes::DynamoRegions;

use crate::error::StoreError;
use crate::unreadable::Sightings;
use std::sync::Arc;
use table::{Table, Write, WriteError};

/// How often an operation on one session, job or key tries to be the fastest.
const TRIES: usize = 50;

/// All storage ports over two tables. Clones share them.
#[derive(Clone)]
pub struct DynamoStores {
    core: Arc<dyn Table>,
    local: Arc<dyn Table>,
    here: Here,
    sightings: Sightings,
}

/// Which region's stores these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// Its name: the home of the sessions that are made here.
    pub region: String,
    /// Its number among all regions, from 0 to 15, for good: the region's epochs leave this remainder by 16, so that no
    /// two regions ever give the same one. 0 where there is only one region.
    pub ordinal: u64,
    /// The regions in the order in which they were added, this one among them, `closed` in the place of each that was
    /// closed. What it wrote stays.
    pub places: Vec<String>,
}

impl Here {
    /// Whether there are, or were, other regions, which may make a session of the same name before they hear of each
    /// other's.
    fn is_one_of_several(&self) -> bool {
        self.places.len() > 1
    }
}

impl DynamoStores {
    /// Stores over `core`, which may be replicated to other regions, and `local`, which is not.
    pub fn new(core: Arc<dyn Table>, local: Arc<dyn Table>, here: Here) -> Self {
        Self { core, local, here, sightings: Sightings::default() }
    }

    /// The items that could not be read.
    pub fn sightings(&self) -> &Sightings {
        &self.sightings
    }

    /// What was read; `None`, and told of, if it cannot be: it is one of many, and hides none of them.
    fn or_seen<V>(
        &self,
        table: &'static str,
        id: impl FnOnce() -> String,
        read: Result<V, StoreError>,
    ) -> Result<Option<V>, StoreError> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::Broken(source) | StoreError::Unreadable { source, .. }) => {
                self.sightings.see(table, id(), &source.to_string());
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// Writes to `core`: `false` if a condition did not hold or somebody else was at it, so that all must be read and
    /// decided again.
    async fn wrote(&self, writes: Vec<Write>) -> Result<bool, StoreError> {
        wrote(self.core.as_ref(), writes).await
    }

    /// As [`DynamoStores::wrote`], but `false` only if somebody else was faster. See [`Table::write_once`].
    async fn wrote_once(&self, writes: Vec<Write>) -> Result<bool, StoreError> {
        answered(self.core.write_once(writes).await)
    }
}

/// As [`DynamoStores::wrote`].
async fn wrote(table: &dyn Table, writes: Vec<Write>) -> Result<bool, StoreError> {
    answered(table.write(writes).await)
}

fn answered(written: Result<(), WriteError>) -> Result<bool, StoreError> {
    match written {
        Ok(()) => Ok(true),
        Err(WriteError::Refused(_) | WriteError::Contended) => Ok(false),
        Err(WriteError::Store(error)) => Err(error),
    }
}

/// Others were faster every time.
fn contended() -> StoreError {
    StoreError::Unavailable("others write to the same item all the time".into())
}
