//! Connections that read. Each read sees the newest commit, and never waits for the writer (WAL).

use super::tx::SqliteTx;
use super::{failed, files};
use crate::adapters::onprem::sql::SqlError;
use crate::error::StoreError;
use crate::unreadable::Sightings;
use rusqlite::Connection;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Connections that are kept when idle. Reads run on the threads of the runtime, so there are seldom more at once than
/// the machine has cores; further ones are opened as needed and closed after use.
const KEPT: usize = 4;

/// A stack of connections: the one used last is used first, its cache is warm.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    sightings: Sightings,
}

impl Readers {
    pub(super) fn new(path: PathBuf, sightings: Sightings) -> Self {
        Self { path, idle: Mutex::new(Vec::with_capacity(KEPT)), sightings }
    }

    /// Runs a read on this thread.
    pub(super) fn read<A>(
        &self,
        read: impl FnOnce(&mut SqliteTx<'_>) -> Result<A, SqlError>,
    ) -> Result<A, StoreError> {
        let idle = self.idle().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => files::open_reader(&self.path).map_err(failed)?,
        };
        let found = read(&mut SqliteTx::new(&mut connection, &self.sightings));
        // After a failure the connection may be what is broken.
        if !matches!(found, Err(SqlError::Failed(_))) {
            let mut idle = self.idle();
            if idle.len() < KEPT {
                idle.push(connection);
            }
        }
        Ok(found?)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
