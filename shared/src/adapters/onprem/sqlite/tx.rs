//! [`Tx`] on one connection.

use super::failed;
use crate::adapters::onprem::sql::{Arg, Field, Row, SqlError, Tx};
use crate::unreadable::Sightings;
use rusqlite::types::{Null, ValueRef};
use rusqlite::{CachedStatement, Connection};
use std::future::{Future, ready};

/// Statements on a connection, inside whatever transaction its owner has opened.
pub(super) struct SqliteTx<'c> {
    connection: &'c mut Connection,
    sightings: &'c Sightings,
}

impl<'c> SqliteTx<'c> {
    pub(super) fn new(connection: &'c mut Connection, sightings: &'c Sightings) -> Self {
        Self { connection, sightings }
    }

    fn prepare(&self, sql: &str, args: &[Arg<'_>]) -> rusqlite::Result<CachedStatement<'_>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        for (index, arg) in (1..).zip(args) {
            // SQLite numbers `$n` by first appearance; that this is n is what makes binding by number right.
            debug_assert_eq!(statement.parameter_name(index), Some(format!("${index}").as_str()), "in {sql}");
            match *arg {
                Arg::Null => statement.raw_bind_parameter(index, Null)?,
                Arg::Int(number) => statement.raw_bind_parameter(index, number)?,
                Arg::Text(text) => statement.raw_bind_parameter(index, text)?,
            }
        }
        debug_assert_eq!(statement.parameter_count(), args.len(), "in {sql}");
        Ok(statement)
    }

    fn execute_now(&self, sql: &str, args: &[Arg<'_>]) -> Result<u64, SqlError> {
        let changed =
            self.prepare(sql, args).and_then(|mut statement| statement.raw_execute()).map_err(failed)?;
        Ok(changed as u64)
    }

    fn query_now(&self, sql: &str, args: &[Arg<'_>]) -> Result<Vec<Row>, SqlError> {
        let mut found = Vec::new();
        self.query_into(sql, args, &mut found)?;
        Ok(found)
    }

    fn query_into(&self, sql: &str, args: &[Arg<'_>], found: &mut Vec<Row>) -> Result<(), SqlError> {
        self.each_row(sql, args, |row| found.push(row))
    }

    /// Hands each row over as it is found; fails where the database does.
    pub(super) fn each_row(
        &self,
        sql: &str,
        args: &[Arg<'_>],
        mut each: impl FnMut(Row),
    ) -> Result<(), SqlError> {
        let mut statement = self.prepare(sql, args).map_err(failed)?;
        let columns = statement.column_count();
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(failed)? {
            let mut fields = Vec::with_capacity(columns);
            for column in 0..columns {
                // What the column may not hold shows when it is read: the other columns, and rows, are as good as without it.
                fields.push(match row.get_ref(column).map_err(failed)? {
                    ValueRef::Null => Field::Null,
                    ValueRef::Integer(number) => Field::Int(number),
                    ValueRef::Text(text) => match std::str::from_utf8(text) {
                        Ok(text) => Field::Text(text.to_owned()),
                        Err(_) => Field::Odd("a text that is no UTF-8"),
                    },
                    ValueRef::Real(_) => Field::Odd("a fraction"),
                    ValueRef::Blob(_) => Field::Odd("bytes"),
                });
            }
            each(Row::new(fields));
        }
        Ok(())
    }
}

impl Tx for SqliteTx<'_> {
    /// One writer at a time holds the whole database.
    const ROW_LOCKS: bool = false;

    fn execute(
        &mut self,
        sql: &'static str,
        args: &[Arg<'_>],
    ) -> impl Future<Output = Result<u64, SqlError>> + Send {
        ready(self.execute_now(sql, args))
    }

    fn query(
        &mut self,
        sql: &'static str,
        args: &[Arg<'_>],
    ) -> impl Future<Output = Result<Vec<Row>, SqlError>> + Send {
        ready(self.query_now(sql, args))
    }

    fn query_until(
        &mut self,
        sql: &'static str,
        args: &[Arg<'_>],
    ) -> impl Future<Output = (Vec<Row>, Option<SqlError>)> + Send {
        let mut found = Vec::new();
        let failed = self.query_into(sql, args, &mut found).err();
        ready((found, failed))
    }

    fn saw(&mut self, table: &'static str, id: String, why: &str) {
        self.sightings.see(table, id, why);
    }

    fn batch(&mut self, sql: &str) -> impl Future<Output = Result<(), SqlError>> + Send {
        let clustered = sql.replace("/*clustered*/", "WITHOUT ROWID");
        ready(self.connection.execute_batch(&clustered).map_err(failed))
    }
}
