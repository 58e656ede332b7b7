//! Reading and writing items' attributes.

use super::schema::EXPIRES;
use super::table::{Attr, Attrs, Condition, Item, Key};
use crate::bounds::STORED_LEVELS;
use crate::clock::Timestamp;
use crate::error::{Source, StoreError};
use crate::nesting::too_deep;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Something in the table does not make sense.
pub(super) fn broken(cause: impl Into<Source>) -> StoreError {
    StoreError::Broken(cause.into())
}

/// A value as stored JSON, which can be read back.
pub(super) fn to_json<V: Serialize>(value: &V) -> Result<String, StoreError> {
    let text = serde_json::to_string(value).map_err(broken)?;
    match too_deep(text.as_bytes(), STORED_LEVELS) {
        Some(_) => Err(StoreError::TooDeep { most: STORED_LEVELS }),
        None => Ok(text),
    }
}

/// A failure to read one thing, as a refusal: whoever asks for it harms nobody else.
pub(super) fn unreadable(what: &'static str) -> impl Fn(StoreError) -> StoreError {
    move |error| match error {
        StoreError::Broken(source) => StoreError::Unreadable { what, source },
        other => other,
    }
}

/// A value from stored JSON.
pub(super) fn from_json<V: DeserializeOwned>(text: &str) -> Result<V, StoreError> {
    serde_json::from_str(text).map_err(broken)
}

/// A counter or position; numbers beyond the table's mean "without an end", which this keeps.
pub(super) fn number(count: u64) -> Attr {
    Attr::Number(i64::try_from(count).unwrap_or(i64::MAX))
}

/// An item about to be written.
pub(super) struct Draft(Item);

impl Draft {
    pub(super) fn new(key: Key) -> Self {
        Self(Item { key, attrs: Attrs::new() })
    }

    pub(super) fn text(mut self, name: &str, text: impl Into<String>) -> Self {
        self.0.attrs.insert(name.to_owned(), Attr::Text(text.into()));
        self
    }

    pub(super) fn opt_text(self, name: &str, text: Option<impl Into<String>>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }

    pub(super) fn count(mut self, name: &str, count: u64) -> Self {
        self.0.attrs.insert(name.to_owned(), number(count));
        self
    }

    pub(super) fn opt_count(self, name: &str, count: Option<u32>) -> Self {
        match count {
            Some(count) => self.count(name, count.into()),
            None => self,
        }
    }

    pub(super) fn int(mut self, name: &str, value: i64) -> Self {
        self.0.attrs.insert(name.to_owned(), Attr::Number(value));
        self
    }

    /// The item is forgotten then, if that is said: a whole second.
    pub(super) fn expires(self, at: Option<Timestamp>) -> Self {
        match at {
            Some(at) => self.int(EXPIRES, at.as_seconds()),
            None => self,
        }
    }

    pub(super) fn time(self, name: &str, time: Timestamp) -> Self {
        self.int(name, time.as_millis())
    }

    pub(super) fn item(self) -> Item {
        self.0
    }
}

/// What must hold for an item to be absent, or as good as that: DynamoDB removes what has expired only some time later.
pub(super) fn is_forgotten(now: Timestamp) -> Condition {
    Condition::AbsentOrAtMost(EXPIRES, now.as_seconds())
}

impl Item {
    /// Whether it counts: it has no end, or has not come to it.
    pub(super) fn is_kept(&self, now: Timestamp) -> Result<bool, StoreError> {
        Ok(self.opt_int(EXPIRES)?.is_none_or(|end| end > now.as_seconds()))
    }

    pub(super) fn opt_text(&self, name: &str) -> Result<Option<&str>, StoreError> {
        match self.attrs.get(name) {
            Some(Attr::Text(text)) => Ok(Some(text)),
            None => Ok(None),
            Some(Attr::Number(_)) => Err(self.odd(name)),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<&str, StoreError> {
        self.opt_text(name)?.ok_or_else(|| self.odd(name))
    }

    pub(super) fn opt_int(&self, name: &str) -> Result<Option<i64>, StoreError> {
        match self.attrs.get(name) {
            Some(Attr::Number(number)) => Ok(Some(*number)),
            None => Ok(None),
            Some(Attr::Text(_)) => Err(self.odd(name)),
        }
    }

    pub(super) fn int(&self, name: &str) -> Result<i64, StoreError> {
        self.opt_int(name)?.ok_or_else(|| self.odd(name))
    }

    pub(super) fn count(&self, name: &str) -> Result<u64, StoreError> {
        u64::try_from(self.int(name)?).map_err(|_| self.odd(name))
    }

    pub(super) fn time(&self, name: &str) -> Result<Timestamp, StoreError> {
        self.int(name).map(Timestamp::from_millis)
    }

    pub(super) fn opt_time(&self, name: &str) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.opt_int(name)?.map(Timestamp::from_millis))
    }

    pub(super) fn opt_json<V: DeserializeOwned>(&self, name: &str) -> Result<Option<V>, StoreError> {
        self.opt_text(name)?.map(from_json).transpose()
    }

    fn odd(&self, name: &str) -> StoreError {
        broken(format!("the item {} {} has no such `{name}`", self.key.partition, self.key.sort))
    }
}
