//! Walks over items of a partition or an index, a page at a time.

use super::table::{Index, Item, Key, Query, Table};
use crate::error::StoreError;
use std::collections::VecDeque;

/// Items one after the other. Their sort keys must differ, those of an index, too.
pub(super) struct Walk<'a> {
    table: &'a dyn Table,
    /// The next page.
    query: Query,
    page: VecDeque<Item>,
    /// The last item of the page before, which the next page begins with again.
    last: Option<Key>,
    is_at_end: bool,
}

impl<'a> Walk<'a> {
    /// Over sort keys from `from` to `to`, inclusive, reading `page` items at a time.
    pub(super) fn new(
        table: &'a dyn Table,
        partition: String,
        from: String,
        to: String,
        page: usize,
    ) -> Self {
        // One item of each page but the first is known.
        let limit = page.clamp(1, 500) + 1;
        let query = Query { index: None, partition, from, to, newest_first: false, limit };
        Self { table, query, page: VecDeque::new(), last: None, is_at_end: false }
    }

    /// Over an index.
    pub(super) fn of(mut self, index: Index) -> Self {
        self.query.index = Some(index);
        self
    }

    /// Greatest sort key first.
    pub(super) fn newest_first(mut self) -> Self {
        self.query.newest_first = true;
        self
    }

    /// The sort key by which the walk goes.
    pub(super) fn place<'i>(&self, item: &'i Item) -> Result<&'i str, StoreError> {
        match self.query.index {
            Some(index) => item.text(index.sort),
            None => Ok(&item.key.sort),
        }
    }

    /// The next item.
    pub(super) async fn next(&mut self) -> Result<Option<Item>, StoreError> {
        if self.page.is_empty() && !self.is_at_end {
            self.page = self.table.query(&self.query).await?.into();
            self.is_at_end = self.page.len() < self.query.limit;
            if self.last.is_some() && self.page.front().map(|item| &item.key) == self.last.as_ref() {
                self.page.pop_front();
            }
            if let Some(last) = self.page.back() {
                let place = self.place(last)?.to_owned();
                if self.query.newest_first {
                    self.query.to = place;
                } else {
                    self.query.from = place;
                }
                self.last = Some(last.key.clone());
            }
        }
        Ok(self.page.pop_front())
    }
}
