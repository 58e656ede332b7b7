//! Files and connections: how a data directory is made, and how its databases are opened.

use super::tx::SqliteTx;
use super::{OpenError, migrate, unavailable};
use crate::adapters::onprem::sql::schema::{Migrated, Migration};
use crate::bounds::LOCK_WAIT;
use crate::error::{Source, StoreError};
use crate::unreadable::Sightings;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::fs::{DirBuilder, OpenOptions};
use std::path::Path;
use std::time::{Duration, Instant};

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// Until the disk has it.
    Full,
    /// For nothing: after a power failure the file may be gone.
    Off,
}

/// Between two looks at a lock. Another process holds it for about a millisecond at a time and leaves short gaps, so a
/// waiter must look often: SQLite's own handler waits up to 100 ms and starves.
const LOCK_POLL: Duration = Duration::from_micros(250);
/// More statements than all operations have.
const STATEMENTS: usize = 96;

/// Makes the directory, readable for its owner alone, if it is not there.
pub(super) fn make_directory(path: &Path) -> Result<(), OpenError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|source| OpenError::Create { path: path.to_owned(), source })
}

/// Makes the file, readable for its owner alone, if it is not there: SQLite gives its log and index the same mode.
fn make_file(path: &Path) -> Result<(), OpenError> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|source| OpenError::Create { path: path.to_owned(), source })?;
    Ok(())
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // NO_MUTEX: a connection is owned by one thread at a time.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    wait_for_locks(&mut connection)?;
    Ok(connection)
}

/// One connection's wait for somebody else's lock. Time counts, not looks: on a busy machine a look takes many times as
/// long as it should.
#[derive(Debug, Default)]
struct LockWait {
    since: Option<Instant>,
}

impl LockWait {
    /// What SQLite asks before each further look, with how often it has looked.
    fn look_again(&mut self, looks: i32) -> bool {
        std::thread::sleep(LOCK_POLL);
        self.goes_on(looks, Instant::now())
    }

    /// Whether to look again.
    fn goes_on(&mut self, looks: i32, now: Instant) -> bool {
        let since = *self.since.insert(self.since.filter(|_| looks > 0).unwrap_or(now));
        now.saturating_duration_since(since) < LOCK_WAIT
    }
}

fn wait_for_locks(connection: &mut Connection) -> rusqlite::Result<()> {
    let mut wait = LockWait::default();
    connection.busy_handler(Some(move |looks| wait.look_again(looks)))
}

/// Runs `work` without waiting for anybody's lock: what is in use is left for another time.
pub(super) fn without_waiting<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    connection.busy_handler::<fn(i32) -> bool>(None)?;
    let done = work(connection);
    wait_for_locks(connection)?;
    done
}

/// Opens a connection that reads a database which is there already.
pub(super) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path)?;
    connection
        .execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -2048; PRAGMA temp_store = MEMORY;")?;
    Ok(connection)
}

/// Opens the database that a lane writes, makes it if it is not there, and brings its schema up to date.
pub(super) fn open_writer(
    path: &Path,
    durability: Durability,
    migrations: &[Migration],
) -> Result<Connection, OpenError> {
    make_file(path)?;
    let database = |source: Source| OpenError::Database { path: path.to_owned(), source };
    let mut connection = connect(path).map_err(|error| database(error.into()))?;
    settings(&connection, durability).map_err(|error| database(error.into()))?;
    // Two processes may start at once: whoever gets the lock migrates, the other finds it done.
    connection.execute_batch("BEGIN IMMEDIATE").map_err(|error| database(error.into()))?;
    let migrated = migrate(&mut SqliteTx::new(&mut connection, &Sightings::default()), migrations);
    let migrated = migrated.map_err(|error| database(StoreError::from(error).into()))?;
    connection.execute_batch("COMMIT").map_err(|error| database(error.into()))?;
    match migrated {
        Migrated::UpToDate => Ok(connection),
        Migrated::TooNew { found, known } => Err(OpenError::TooNew { path: path.to_owned(), found, known }),
    }
}

/// Opens the database of rate limits. It is written without waiting for the disk, so a power failure may spoil it; then
/// it is made anew, and every client has its burst again.
pub(super) fn open_limits(path: &Path, migrations: &[Migration]) -> Result<Connection, OpenError> {
    match open_writer(path, Durability::Off, migrations) {
        Err(OpenError::Database { source, .. }) if is_spoilt(source.as_ref()) => {
            for end in ["", "-wal", "-shm"] {
                let mut file = path.as_os_str().to_owned();
                file.push(end);
                // Not there is as good as removed; anything else shows when the database is opened.
                let _ = std::fs::remove_file(file);
            }
            open_writer(path, Durability::Off, migrations)
        }
        opened => opened,
    }
}

/// Whether SQLite says that the file is no database, or a damaged one.
fn is_spoilt(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<rusqlite::Error>() {
            let code = error.sqlite_error_code();
            return matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase));
        }
        cause = error.source();
    }
    false
}

fn settings(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    // Before the file has a first page, or it counts for nothing: a file of an earlier release stays as it is until
    // somebody runs SQLite's VACUUM on it. What is deleted is overwritten, not only forgotten.
    connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL; PRAGMA secure_delete = ON;")?;
    // Turning a new file's log on needs the file for oneself, and SQLite does not ask the busy handler for that.
    let (mut wait, mut looks) = (LockWait::default(), 0);
    loop {
        match connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())) {
            Err(error) if unavailable(&error) && wait.look_again(looks) => looks = looks.saturating_add(1),
            done => break done?,
        }
    }
    connection.execute_batch(match durability {
        Durability::Full => "PRAGMA synchronous = FULL;",
        Durability::Off => "PRAGMA synchronous = OFF;",
    })?;
    connection.execute_batch(
        "PRAGMA cache_size = -4096; PRAGMA temp_store = MEMORY; PRAGMA journal_size_limit = 67108864;",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_for_a_lock_ends_by_time_however_many_looks_it_took() {
        let (start, mut wait) = (Instant::now(), LockWait::default());
        assert!(wait.goes_on(0, start));
        let almost = start + LOCK_WAIT.saturating_sub(Duration::from_millis(1));
        assert!(wait.goes_on(1_000_000, almost), "looks do not count");
        assert!(!wait.goes_on(2, start + LOCK_WAIT), "time counts");
        assert!(wait.goes_on(0, start + LOCK_WAIT * 2), "the next lock is waited for anew");
    }
}
