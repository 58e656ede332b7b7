//! The schema's numbered migrations, and how a database gets them.

use super::{Row, SqlError, Tx, args, read_first};

/// One step of a schema: its number, and its SQL.
pub(in crate::adapters::onprem) struct Migration {
    pub(in crate::adapters::onprem) number: u32,
    pub(in crate::adapters::onprem) sql: &'static str,
}

/// The main database, oldest first, numbered from 1 without holes. A migration that was released never changes.
pub(in crate::adapters::onprem) const MAIN: &[Migration] = &[
    Migration { number: 1, sql: include_str!("../../../../migrations/0001_sessions_jobs_tokens.sql") },
    Migration { number: 2, sql: include_str!("../../../../migrations/0002_tries.sql") },
    Migration { number: 3, sql: include_str!("../../../../migrations/0003_expiry.sql") },
    Migration { number: 4, sql: include_str!("../../../../migrations/0004_places.sql") },
    Migration { number: 5, sql: include_str!("../../../../migrations/0005_by_user_and_session.sql") },
];

/// The database of rate limits.
pub(in crate::adapters::onprem) const LIMITS: &[Migration] =
    &[Migration { number: 1, sql: include_str!("../../../../migrations/limits/0001_limits.sql") }];

/// What [`migrate`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::adapters::onprem) enum Migrated {
    /// The schema is this program's now.
    UpToDate,
    /// A newer program's; nothing was changed.
    TooNew {
        /// The database's.
        found: u32,
        /// The newest that this program knows.
        known: u32,
    },
}

/// Brings a database up to the newest of `migrations`. The caller holds the lock under which nobody else migrates,
/// from before this begins until it is committed.
pub(in crate::adapters::onprem) async fn migrate<T: Tx>(
    tx: &mut T,
    migrations: &[Migration],
) -> Result<Migrated, SqlError> {
    tx.batch("CREATE TABLE IF NOT EXISTS schema_versions (number BIGINT NOT NULL PRIMARY KEY)").await?;
    let rows = tx.query("SELECT COALESCE(MAX(number), 0) FROM schema_versions", args![]).await?;
    let found: u32 = read_first(rows, Row::count)?.unwrap_or(0);
    let known = migrations.last().map_or(0, |migration| migration.number);
    if found > known {
        return Ok(Migrated::TooNew { found, known });
    }
    for migration in migrations.iter().filter(|migration| migration.number > found) {
        tx.batch(migration.sql).await?;
        let number = u64::from(migration.number);
        tx.execute("INSERT INTO schema_versions (number) VALUES ($1)", args![number]).await?;
    }
    Ok(Migrated::UpToDate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_from_one_without_holes() {
        for migrations in [MAIN, LIMITS] {
            let numbers: Vec<u32> = migrations.iter().map(|migration| migration.number).collect();
            let expected: Vec<u32> = (1..).take(migrations.len()).collect();
            assert_eq!(numbers, expected);
        }
    }
}
