//! Upkeep of the main database, in the writer's spare moments: gives free pages back to the disk, in small steps, and
//! empties the write-ahead log after something was deleted, so that it holds the deleted bytes no longer.

use super::files::without_waiting;
use crate::bounds::{FREE_PAGES_KEPT, FREE_PAGES_PER_STEP};
use rusqlite::Connection;
use std::time::{Duration, Instant};

/// How long nothing is written before somebody looks what there is to do.
const IDLE: Duration = Duration::from_secs(1);
/// Between two steps while there is more to do.
const NEXT_STEP: Duration = Duration::from_millis(50);
/// A writer that is never idle looks after so long: often enough to give back 1 MB a second.
const AT_LATEST: Duration = Duration::from_secs(1);

/// What there may be to do.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// When something was written that nobody has looked behind yet.
    since: Option<Instant>,
    /// There is more to do than one step.
    more: bool,
    /// The log holds what was deleted.
    log: bool,
}

impl Upkeep {
    /// Something was committed.
    pub(super) fn written(&mut self) {
        self.since.get_or_insert_with(Instant::now);
    }

    /// Something was deleted whose bytes must not stay.
    pub(super) fn deleted(&mut self) {
        self.log = true;
        self.written();
    }

    /// How long to wait for further work before [`Upkeep::step`]; `None` if there is nothing to do.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.since.map(|_| if self.more { NEXT_STEP } else { IDLE })
    }

    /// Whether a step is due although there is other work.
    pub(super) fn is_overdue(&self) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= AT_LATEST)
    }

    /// One step, of some milliseconds. What fails is tried again after the next write: nothing is lost by it.
    pub(super) fn step(&mut self, connection: &mut Connection) {
        self.more = false;
        match give_back(connection) {
            Ok(true) => {
                self.more = true;
                self.log = true;
            }
            Ok(false) if self.log => {
                // Whoever reads or writes in another process at this moment is left alone.
                self.log = !matches!(without_waiting(connection, empty_log), Ok(true));
            }
            Ok(false) | Err(_) => {}
        }
        self.since = (self.more || self.log).then(Instant::now);
    }
}

/// Gives some free pages back, if there are more than are kept for what comes next. `false` if not.
fn give_back(connection: &Connection) -> rusqlite::Result<bool> {
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, u32>(0));
    if number("PRAGMA freelist_count")? <= FREE_PAGES_KEPT {
        return Ok(false);
    }
    // 2: only such a file can be made shorter in steps. An older one keeps its free pages for what comes next.
    if number("PRAGMA auto_vacuum")? != 2 {
        return Ok(false);
    }
    // SQLite gives back a page for each row that it is asked for.
    let mut vacuum = connection.prepare(&format!("PRAGMA incremental_vacuum({FREE_PAGES_PER_STEP})"))?;
    let mut pages = vacuum.raw_query();
    while pages.next()?.is_some() {}
    Ok(true)
}

/// Puts the log into the database and makes it empty. `false` if somebody else is using it.
fn empty_log(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| Ok(row.get::<_, i64>(0)? == 0))
}

#[cfg(test)]
mod tests {
    use super::super::files::{Durability, open_writer};
    use super::*;
    use crate::adapters::onprem::sql::schema;

    #[test]
    fn room_that_was_made_is_given_back_in_steps_and_the_log_is_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reef.sqlite");
        let mut connection = open_writer(&path, Durability::Full, schema::MAIN).unwrap();
        connection
            .execute_batch("CREATE TABLE texts (text BLOB); INSERT INTO texts VALUES (zeroblob(20000000))")
            .unwrap();
        let size = || {
            std::fs::metadata(&path).unwrap().len()
                + std::fs::metadata(folder.path().join("reef.sqlite-wal")).unwrap().len()
        };
        let before = size();
        assert!(before > 20_000_000, "{before}");
        let mut upkeep = Upkeep::default();
        assert_eq!(upkeep.wait(), None, "nothing was written");
        connection.execute_batch("DELETE FROM texts").unwrap();
        upkeep.deleted();
        let mut steps = 0;
        while upkeep.wait().is_some() {
            upkeep.step(&mut connection);
            steps += 1;
            assert!(steps < 100, "it comes to no end");
        }
        assert!(steps > 10, "{steps} steps: a step is short");
        let kept = u64::from(FREE_PAGES_KEPT) * 4096;
        assert!(size() < kept + 1_000_000, "{} bytes are left", size());
    }
}
