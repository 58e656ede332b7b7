//! What the SQL adapters share: every statement and the logic of every operation, written once over a small [`Tx`].
//!
//! An adapter for a database brings a [`Tx`] (run one statement), transactions around the operations, and nothing
//! else. Its promises: an operation runs within one transaction that no other write can come between, and a
//! [`SqlError::Failed`] undoes it. In return an operation decides first and writes then: what it refuses
//! ([`SqlError::Refused`]) has written nothing, so that several operations may share one transaction.
//!
//! Statements use portable SQL, with parameters `$1`, `$2` … in the order of their first appearance.

pub(super) mod answers;
pub(super) mod audit;
pub(super) mod index;
pub(super) mod jobs;
pub(super) mod limits;
pub(super) mod schema;
pub(super) mod sessions;
pub(super) mod tokens;

use crate::clock::Timestamp;
use crate::error::{Source, StoreError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::future::Future;

/// One transaction of a database.
pub(super) trait Tx: Send {
    /// Whether rows must be locked when they are read, because other transactions write at the same time.
    const ROW_LOCKS: bool;

    /// Runs a statement; returns how many rows it changed.
    fn execute(
        &mut self,
        sql: &'static str,
        args: &[Arg<'_>],
    ) -> impl Future<Output = Result<u64, SqlError>> + Send;

    /// Runs a query.
    fn query(
        &mut self,
        sql: &'static str,
        args: &[Arg<'_>],
    ) -> impl Future<Output = Result<Vec<Row>, SqlError>> + Send;

    /// Runs several statements without parameters: a migration.
    fn batch(&mut self, sql: &str) -> impl Future<Output = Result<(), SqlError>> + Send;
}

/// Why an operation has no result.
#[derive(Debug)]
pub(super) enum SqlError {
    /// The operation decided so before it wrote anything.
    Refused(StoreError),
    /// The database failed, or holds something unreadable: the transaction must be undone.
    Failed(StoreError),
}

impl SqlError {
    /// Something in the database does not make sense.
    pub(super) fn broken(cause: impl Into<Source>) -> Self {
        Self::Failed(StoreError::Broken(cause.into()))
    }
}

impl From<SqlError> for StoreError {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::Refused(error) | SqlError::Failed(error) => error,
        }
    }
}

/// A query whose rows the same transaction is about to change.
#[derive(Clone, Copy)]
pub(super) struct Locking {
    pub(super) plain: &'static str,
    pub(super) locked: &'static str,
}

impl Locking {
    /// The text for this database.
    pub(super) const fn of<T: Tx>(self) -> &'static str {
        if T::ROW_LOCKS { self.locked } else { self.plain }
    }
}

/// A query that locks its rows where the database needs it; `skip_locked` leaves out rows that others have locked.
macro_rules! locking {
    ($sql:literal) => {
        $crate::adapters::onprem::sql::Locking { plain: $sql, locked: concat!($sql, " FOR UPDATE") }
    };
    (skip_locked $sql:literal) => {
        $crate::adapters::onprem::sql::Locking {
            plain: $sql,
            locked: concat!($sql, " FOR UPDATE SKIP LOCKED"),
        }
    };
}
pub(super) use locking;

/// A statement's argument.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arg<'a> {
    Null,
    Int(i64),
    Text(&'a str),
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Arg<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Arg<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u64> for Arg<'_> {
    /// Counters never come near the limit; a caller's number beyond it means "without an end", which this keeps.
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Arg<'_> {
    fn from(number: usize) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<Timestamp> for Arg<'_> {
    fn from(time: Timestamp) -> Self {
        Self::Int(time.as_millis())
    }
}

impl<'a, A: Into<Arg<'a>>> From<Option<A>> for Arg<'a> {
    fn from(value: Option<A>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

macro_rules! identifier_args {
    ($($name:ident),*) => { $(
        impl<'a> From<&'a crate::id::$name> for Arg<'a> {
            fn from(id: &'a crate::id::$name) -> Self {
                Self::Text(id.as_str())
            }
        }
    )* };
}
identifier_args!(TenantId, AgentId, SessionKey, SessionId, TurnId, JobId, PrincipalId);

/// The arguments of a statement.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { &[$($crate::adapters::onprem::sql::Arg::from($arg)),*] };
}
pub(super) use args;

/// One field of a row.
#[derive(Debug)]
pub(super) enum Field {
    Null,
    Int(i64),
    Text(String),
}

/// A row, read field by field in the order of the query's columns.
#[derive(Debug)]
pub(super) struct Row(std::vec::IntoIter<Field>);

impl Row {
    pub(super) fn new(fields: Vec<Field>) -> Self {
        Self(fields.into_iter())
    }

    pub(super) fn opt_text(&mut self) -> Result<Option<String>, SqlError> {
        match self.0.next() {
            Some(Field::Text(text)) => Ok(Some(text)),
            Some(Field::Null) => Ok(None),
            other => Err(SqlError::broken(format!("expected a text, found {other:?}"))),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, SqlError> {
        self.opt_text()?.ok_or_else(|| SqlError::broken("expected a text, found NULL"))
    }

    /// An identifier.
    pub(super) fn id<I: From<String>>(&mut self) -> Result<I, SqlError> {
        Ok(I::from(self.text()?))
    }

    pub(super) fn opt_int(&mut self) -> Result<Option<i64>, SqlError> {
        match self.0.next() {
            Some(Field::Int(number)) => Ok(Some(number)),
            Some(Field::Null) => Ok(None),
            other => Err(SqlError::broken(format!("expected a number, found {other:?}"))),
        }
    }

    pub(super) fn int(&mut self) -> Result<i64, SqlError> {
        self.opt_int()?.ok_or_else(|| SqlError::broken("expected a number, found NULL"))
    }

    /// A counter or position.
    pub(super) fn count<N: TryFrom<i64>>(&mut self) -> Result<N, SqlError> {
        let number = self.int()?;
        N::try_from(number).map_err(|_| SqlError::broken(format!("a count of {number}")))
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, SqlError> {
        self.int().map(Timestamp::from_millis)
    }

    pub(super) fn opt_time(&mut self) -> Result<Option<Timestamp>, SqlError> {
        Ok(self.opt_int()?.map(Timestamp::from_millis))
    }

    pub(super) fn opt_json<V: DeserializeOwned>(&mut self) -> Result<Option<V>, SqlError> {
        self.opt_text()?.map(|text| serde_json::from_str(&text).map_err(SqlError::broken)).transpose()
    }

    pub(super) fn json<V: DeserializeOwned>(&mut self) -> Result<V, SqlError> {
        serde_json::from_str(&self.text()?).map_err(SqlError::broken)
    }
}

/// A value as stored JSON.
pub(super) fn to_json<V: Serialize>(value: &V) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Broken(error.into()))
}

/// Reads each row with `read`.
pub(super) fn read_all<V>(
    rows: Vec<Row>,
    read: impl Fn(&mut Row) -> Result<V, SqlError>,
) -> Result<Vec<V>, SqlError> {
    rows.into_iter().map(|mut row| read(&mut row)).collect()
}

/// Reads the first row, if there is one.
pub(super) fn read_first<V>(
    rows: Vec<Row>,
    read: impl FnOnce(&mut Row) -> Result<V, SqlError>,
) -> Result<Option<V>, SqlError> {
    rows.into_iter().next().map(|mut row| read(&mut row)).transpose()
}
