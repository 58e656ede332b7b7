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
pub(super) mod check;
mod damage;
pub(super) mod index;
pub(super) mod jobs;
pub(super) mod limits;
pub(super) mod schema;
pub(super) mod sessions;
pub(super) mod tokens;

use crate::bounds::STORED_LEVELS;
use crate::clock::Timestamp;
use crate::error::{Source, StoreError};
use crate::nesting::too_deep;
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

    /// As [`Tx::query`], but keeps what was found before the database failed: what lies on a damaged page, and behind it,
    /// hides nothing that lies before it.
    fn query_until(
        &mut self,
        sql: &'static str,
        args: &[Arg<'_>],
    ) -> impl Future<Output = (Vec<Row>, Option<SqlError>)> + Send;

    /// Tells of a row that cannot be read.
    fn saw(&mut self, table: &'static str, id: String, why: &str);

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
    /// What no column of ours may hold, and which it is: bytes, a fraction, a text that is no UTF-8.
    Odd(&'static str),
}

impl Field {
    /// What it is, without what it says: that is somebody's.
    const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Int(_) => "a number",
            Self::Text(_) => "a text",
            Self::Odd(what) => what,
        }
    }
}

/// A row, read field by field in the order of the query's columns.
#[derive(Debug)]
pub(super) struct Row(std::vec::IntoIter<Field>);

impl Row {
    pub(super) fn new(fields: Vec<Field>) -> Self {
        Self(fields.into_iter())
    }

    /// Whether the next fields are texts: of a row's key, that it can be named in a statement.
    pub(super) fn is_named(&self, fields: usize) -> bool {
        self.0.as_slice().iter().take(fields).all(|field| matches!(field, Field::Text(_)))
    }

    /// The next fields as a name for people, for a row that may turn out to be unreadable.
    pub(super) fn name(&self, fields: usize) -> String {
        let mut name = String::new();
        for field in self.0.as_slice().iter().take(fields) {
            if !name.is_empty() {
                name.push_str(" / ");
            }
            match field {
                Field::Text(text) => name.extend(text.chars().take(LONGEST_NAME)),
                Field::Int(number) => name.push_str(&number.to_string()),
                Field::Null | Field::Odd(_) => name.push_str(field.kind()),
            }
        }
        name
    }

    pub(super) fn opt_text(&mut self) -> Result<Option<String>, SqlError> {
        match self.0.next() {
            Some(Field::Text(text)) => Ok(Some(text)),
            Some(Field::Null) => Ok(None),
            other => Err(odd("a text", other.as_ref())),
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
            other => Err(odd("a number", other.as_ref())),
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

fn odd(expected: &str, found: Option<&Field>) -> SqlError {
    SqlError::broken(format!("expected {expected}, found {}", found.map_or("no column", Field::kind)))
}

/// Characters of each part of a row's name that are told.
const LONGEST_NAME: usize = 100;

/// A value as stored JSON, which can be read back.
pub(super) fn to_json<V: Serialize>(value: &V) -> Result<String, StoreError> {
    let text = serde_json::to_string(value).map_err(|error| StoreError::Broken(error.into()))?;
    match too_deep(text.as_bytes(), STORED_LEVELS) {
        Some(_) => Err(StoreError::TooDeep { most: STORED_LEVELS }),
        None => Ok(text),
    }
}

/// Reads each row with `read`, of rows that belong together: if one of them cannot be read, the whole cannot.
pub(super) fn read_all<V>(
    rows: Vec<Row>,
    read: impl Fn(&mut Row) -> Result<V, SqlError>,
) -> Result<Vec<V>, SqlError> {
    rows.into_iter().map(|mut row| read(&mut row)).collect()
}

/// Reads each row with `read`, of rows that are independent of each other: one that cannot be read is left out and told of,
/// by the name that its first `named_by` fields are.
pub(super) fn read_each<T: Tx, V>(
    tx: &mut T,
    (table, named_by): (&'static str, usize),
    rows: Vec<Row>,
    read: impl Fn(&mut Row) -> Result<V, SqlError>,
) -> Vec<V> {
    let mut found = Vec::with_capacity(rows.len());
    for mut row in rows {
        let name = row.name(named_by);
        match read(&mut row) {
            Ok(value) => found.push(value),
            Err(error) => tx.saw(table, name, &cause(error)),
        }
    }
    found
}

/// Rows in the order of `up`. If the database cannot give all of them, those up to the damage, and then those of `down`,
/// the same in the opposite order, up to the damage: the rows around a damaged page are as good as without it.
pub(super) async fn around_damage<T: Tx>(
    tx: &mut T,
    table: &'static str,
    up: &'static str,
    down: &'static str,
    args: &[Arg<'_>],
) -> Result<Vec<Row>, SqlError> {
    let (mut rows, failed) = tx.query_until(up, args).await;
    match failed {
        None => Ok(rows),
        Some(SqlError::Failed(StoreError::Broken(source))) => {
            tx.saw(table, "a damaged page".to_owned(), &source.to_string());
            rows.append(&mut tx.query_until(down, args).await.0);
            Ok(rows)
        }
        Some(other) => Err(other),
    }
}

/// Why something cannot be read, in one line.
pub(super) fn cause(error: SqlError) -> String {
    match StoreError::from(error) {
        StoreError::Broken(source) | StoreError::Unreadable { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

/// What was read, or a refusal: whoever asks for the one row that cannot be read harms nobody else.
pub(super) fn or_unreadable<T: Tx, V>(
    tx: &mut T,
    table: &'static str,
    id: impl FnOnce() -> String,
    what: &'static str,
    read: Result<V, SqlError>,
) -> Result<V, SqlError> {
    match read {
        Err(SqlError::Failed(StoreError::Broken(source))) => {
            tx.saw(table, id(), &source.to_string());
            Err(SqlError::Refused(StoreError::Unreadable { what, source }))
        }
        read => read,
    }
}

/// Reads the first row, if there is one.
pub(super) fn read_first<V>(
    rows: Vec<Row>,
    read: impl FnOnce(&mut Row) -> Result<V, SqlError>,
) -> Result<Option<V>, SqlError> {
    rows.into_iter().next().map(|mut row| read(&mut row)).transpose()
}
