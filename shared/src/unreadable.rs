//! What a store holds and cannot read: each such row is told of once, and never hides the others.
//!
//! Disks fail, and a release may write what the next one cannot read. Whoever reads many rows reads them one by one, leaves
//! out what cannot be read, and says so here.

use crate::bounds::UNREADABLE_TOLD;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Most characters of a reason: what a parser says may quote the row.
const WHY: usize = 200;

/// A row that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unreadable {
    /// Of what it is one: `sessions`, `messages`, `turns`, `jobs`, `idempotency`, `audit`, `tokens`.
    pub table: &'static str,
    /// Its name in the store, as far as that can be read.
    pub id: String,
    /// What is wrong with it.
    pub why: String,
}

/// Who is told.
pub trait Watcher: Send + Sync {
    /// This row cannot be read. `is_told` unless so many were told of that this one is to be counted only.
    fn saw(&self, row: &Unreadable, is_told: bool);
}

/// The unreadable rows that this process came upon. Clones share them.
#[derive(Clone, Default)]
pub struct Sightings(Arc<Shared>);

#[derive(Default)]
struct Shared {
    rows: Mutex<BTreeSet<Unreadable>>,
    watcher: OnceLock<Arc<dyn Watcher>>,
}

impl std::fmt::Debug for Sightings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sightings").finish_non_exhaustive()
    }
}

impl Sightings {
    /// From now on the watcher is told, first of what was seen before. The first one stays.
    pub fn watched_by(&self, watcher: Arc<dyn Watcher>) {
        if self.0.watcher.set(watcher).is_ok()
            && let Some(watcher) = self.0.watcher.get()
        {
            for row in self.rows() {
                watcher.saw(&row, true);
            }
        }
    }

    /// This row cannot be read. A row that was seen before is not told of again.
    pub fn see(&self, table: &'static str, id: impl Into<String>, why: &str) {
        let row = Unreadable { table, id: id.into(), why: why.chars().take(WHY).collect() };
        let is_told = {
            let mut rows = self.0.rows.lock().unwrap_or_else(PoisonError::into_inner);
            if rows.contains(&row) {
                return;
            }
            let has_room = rows.len() < UNREADABLE_TOLD;
            if has_room {
                rows.insert(row.clone());
            }
            has_room
        };
        if let Some(watcher) = self.0.watcher.get() {
            watcher.saw(&row, is_told);
        }
    }

    /// What was seen, as far as it is told of.
    pub fn rows(&self) -> Vec<Unreadable> {
        self.0.rows.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<(String, bool)>>);

    impl Watcher for Heard {
        fn saw(&self, row: &Unreadable, is_told: bool) {
            self.0.lock().unwrap().push((row.id.clone(), is_told));
        }
    }

    #[test]
    fn a_row_is_told_of_once_also_if_it_was_seen_before_anybody_listened() {
        let (sightings, heard) = (Sightings::default(), Arc::new(Heard::default()));
        sightings.see("jobs", "early", "odd");
        sightings.watched_by(heard.clone());
        for _ in 0..3 {
            sightings.see("jobs", "late", "odd");
            sightings.see("jobs", "early", "odd");
        }
        let expected = [("early".to_owned(), true), ("late".to_owned(), true)];
        assert_eq!(*heard.0.lock().unwrap(), expected);
    }

    #[test]
    fn beyond_the_bound_rows_are_counted_and_not_kept() {
        let (sightings, heard) = (Sightings::default(), Arc::new(Heard::default()));
        sightings.watched_by(heard.clone());
        for number in 0..UNREADABLE_TOLD + 2 {
            sightings.see("audit", number.to_string(), "odd");
        }
        assert_eq!(sightings.rows().len(), UNREADABLE_TOLD);
        assert_eq!(heard.0.lock().unwrap().iter().filter(|(_, is_told)| !is_told).count(), 2);
    }

    #[test]
    fn a_reason_is_cut() {
        let sightings = Sightings::default();
        sightings.see("messages", "m", &"x".repeat(1_000_000));
        assert_eq!(sightings.rows()[0].why.len(), WHY);
    }
}
