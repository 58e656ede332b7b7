//! SQLite: the embedded store of a single site. Every storage port on one data directory.
//!
//! Writes go to one writer per process ([`lane`]), which commits many operations at once; `synchronous=FULL` in WAL
//! mode makes an answered write durable. Several processes may open the same directory.
//!
//! Reads that are bounded by an index and a small limit run at once, on the calling thread: they take some ten
//! microseconds, less than handing them to another thread and back would. Reads whose length a caller or the age of
//! the data decides (listings, long transcripts, the audit trail) run on a thread of their own, so that no thread of
//! the asynchronous runtime waits for them: a few at once, the others wait in order and for a bounded time.

mod check;
mod files;
mod lane;
mod place;
#[cfg(test)]
mod plans;
mod ports;
mod probe;
mod readers;
mod tx;
mod upkeep;

pub use check::Checked;

use super::sql::{SqlError, Tx, schema};
use crate::bounds::{READ_ASIDE_WAIT, READS_ASIDE};
use crate::error::{Source, StoreError};
use crate::unreadable::Sightings;
use futures::channel::oneshot;
use lane::Lane;
use place::Place;
use probe::Probe;
use readers::Readers;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tx::SqliteTx;

/// The file of sessions, jobs and tokens.
const MAIN_FILE: &str = "reef.sqlite";
/// The file of rate limits: not synchronised, so that counting costs no disk write that anybody waits for.
const LIMITS_FILE: &str = "limits.sqlite";

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or a file in it cannot be made.
    #[error("cannot make {path}: {source}")]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A newer release has written the database.
    #[error(
        "{path} has schema version {found}, but this program knows only up to {known}: \
         start the release that wrote it, or a newer one"
    )]
    TooNew {
        /// Which database.
        path: PathBuf,
        /// Its schema's version.
        found: u32,
        /// This program's.
        known: u32,
    },
    /// It is no database, or cannot be read, locked or written.
    #[error("cannot open the database {path}: {source}")]
    Database {
        /// Which database.
        path: PathBuf,
        /// Why.
        source: Source,
    },
}

/// Every storage port on one data directory. Clones share the connections; when the last one is dropped, writes that
/// were handed in are finished and the files are closed.
#[derive(Debug, Clone)]
pub struct Sqlite {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    writer: Lane,
    limits: Lane,
    readers: Arc<Readers>,
    sightings: Sightings,
    /// Places for reads on a thread of their own.
    aside: Arc<Semaphore>,
    place: Arc<Place>,
    probe: Arc<Probe>,
    /// Calls of the rate limiter, to know when to sweep.
    takes: AtomicU64,
}

impl Sqlite {
    /// Opens a data directory, makes what is not there yet – directory with mode 0700, files 0600 – and brings the
    /// schema up to date. Several processes may do this at the same time.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        files::make_directory(directory)?;
        let main = directory.join(MAIN_FILE);
        let writer = files::open_writer(&main, files::Durability::Full, schema::MAIN)?;
        let limits = files::open_limits(&directory.join(LIMITS_FILE), schema::LIMITS)?;
        let failed =
            |source: std::io::Error| OpenError::Database { path: main.clone(), source: source.into() };
        let place = Arc::new(Place::of(&main).map_err(failed)?);
        let sightings = Sightings::default();
        let writer = Lane::start("reef-writer", writer, sightings.clone(), Some(Arc::clone(&place)));
        let limits = Lane::start("reef-limits", limits, sightings.clone(), None);
        Ok(Self {
            parts: Arc::new(Parts {
                writer: writer.map_err(failed)?,
                limits: limits.map_err(failed)?,
                aside: Arc::new(Semaphore::new(READS_ASIDE)),
                place,
                probe: Arc::new(Probe::of(directory)),
                readers: Arc::new(Readers::new(main, sightings.clone())),
                sightings,
                takes: AtomicU64::new(0),
            }),
        })
    }

    /// Whether a data directory holds data. Makes and opens nothing.
    ///
    /// # Errors
    /// The directory may not be looked into.
    pub fn is_in(directory: &Path) -> std::io::Result<bool> {
        directory.join(MAIN_FILE).try_exists()
    }

    /// The rows that could not be read since it was opened.
    pub fn sightings(&self) -> &Sightings {
        &self.parts.sightings
    }

    /// Finishes the writes that were handed in, puts the write-ahead log into the database and ends the writer.
    /// Afterwards every write answers [`StoreError::Unavailable`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it was closed before.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.parts.writer.close().await?;
        self.parts.limits.close().await
    }

    /// Hands an operation to the writer; durable when it answers.
    async fn write<A, O>(&self, operation: O) -> Result<A, StoreError>
    where
        A: Send + 'static,
        O: FnMut(&mut SqliteTx<'_>) -> Result<A, SqlError> + Send + 'static,
    {
        self.parts.writer.run(operation).await
    }

    /// Reads at once, on this thread.
    fn read<A>(&self, read: impl FnOnce(&mut SqliteTx<'_>) -> Result<A, SqlError>) -> Result<A, StoreError> {
        self.parts.place.known_to_be_there()?;
        self.parts.readers.read(read)
    }

    /// Reads on a thread of its own.
    async fn read_aside<A, R>(&self, read: R) -> Result<A, StoreError>
    where
        A: Send + 'static,
        R: FnOnce(&mut SqliteTx<'_>) -> Result<A, SqlError> + Send + 'static,
    {
        self.parts.place.known_to_be_there()?;
        let readers = Arc::clone(&self.parts.readers);
        self.aside(move || readers.read(read)).await?
    }

    /// Runs what may take long on a thread of its own, once there is a place for it.
    async fn aside<A: Send + 'static>(
        &self,
        work: impl FnOnce() -> A + Send + 'static,
    ) -> Result<A, StoreError> {
        let busy = || StoreError::Unavailable("too many long reads are at work".into());
        let places = Arc::clone(&self.parts.aside);
        // The places are given in the order of asking.
        let place = timeout(READ_ASIDE_WAIT, places.acquire_owned()).await;
        let place = place.map_err(|_| busy())?.map_err(|closed| StoreError::Unavailable(closed.into()))?;
        let (reply, answer) = oneshot::channel();
        let work = move || {
            // Nobody listens any more if the caller has gone: then the answer is for nobody.
            let _ = reply.send(work());
            // Held until here: what nobody waits for takes its place all the same.
            drop(place);
        };
        let thread = std::thread::Builder::new().name("reef-reader".to_owned());
        thread.spawn(work).map_err(|error| StoreError::Unavailable(error.into()))?;
        answer.await.map_err(|gone| StoreError::Unavailable(gone.into()))
    }
}

/// The result of a shared operation: on SQLite its future never waits.
fn now<A>(operation: impl Future<Output = Result<A, SqlError>>) -> Result<A, SqlError> {
    futures::FutureExt::now_or_never(operation)
        .unwrap_or_else(|| Err(SqlError::broken("an operation on SQLite waited")))
}

/// Whether the error says "not now" rather than "never".
fn unavailable(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{
        CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, FileLockingProtocolFailed, OperationInterrupted,
        OutOfMemory, ReadOnly, SystemIoFailure,
    };
    matches!(
        error.sqlite_error_code(),
        Some(
            CannotOpen
                | DatabaseBusy
                | DatabaseLocked
                | DiskFull
                | FileLockingProtocolFailed
                | OperationInterrupted
                | OutOfMemory
                | ReadOnly
                | SystemIoFailure
        )
    )
}

/// A failure of SQLite in the words of the ports.
fn failed(error: rusqlite::Error) -> SqlError {
    let broken = !unavailable(&error);
    let source = Source::from(error);
    SqlError::Failed(if broken { StoreError::Broken(source) } else { StoreError::Unavailable(source) })
}

/// Migrations run through the same statements as everything else.
fn migrate(tx: &mut impl Tx, migrations: &[schema::Migration]) -> Result<schema::Migrated, SqlError> {
    now(schema::migrate(tx, migrations))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_long_read_waits_for_its_place_and_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(folder.path()).unwrap();
        let places = u32::try_from(READS_ASIDE).unwrap();
        let taken = Arc::clone(&store.parts.aside).acquire_many_owned(places).await.unwrap();
        let asked = tokio::time::Instant::now();
        let refused = store.read_aside(|_| Ok(())).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert!(asked.elapsed() >= READ_ASIDE_WAIT);
        drop(taken);
        store.read_aside(|_| Ok(())).await.unwrap();
    }
}
