//! A data directory as a whole: whether its pages are sound, and whether each row can be read.

use super::Sqlite;
use super::tx::SqliteTx;
use crate::adapters::onprem::sql::check::{ALL, Rows, WITHOUT_TURN};
use crate::adapters::onprem::sql::{Row, SqlError, cause};
use crate::bounds::UNREADABLE_TOLD;
use crate::error::StoreError;
use crate::unreadable::Unreadable;

/// What [`Sqlite::check`] found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Rows that were looked at.
    pub rows: u64,
    /// What SQLite says of damaged pages and indexes, with the tables that they belong to.
    pub pages: Vec<String>,
    /// Rows that cannot be read, as far as they are told of.
    pub unreadable: Vec<Unreadable>,
    /// How many there are beyond those.
    pub further: u64,
}

impl Checked {
    /// Whether nothing is wrong.
    pub const fn is_sound(&self) -> bool {
        self.pages.is_empty() && self.unreadable.is_empty() && self.further == 0
    }

    fn found(&mut self, table: &'static str, id: String, why: &str) {
        if self.unreadable.len() < UNREADABLE_TOLD {
            let why = why.chars().take(200).collect();
            self.unreadable.push(Unreadable { table, id, why });
        } else {
            self.further += 1;
        }
    }
}

impl Sqlite {
    /// Looks at every page and reads every row, one at a time, beside whatever else is at work.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the database cannot be opened right now.
    pub async fn check(&self) -> Result<Checked, StoreError> {
        self.read_aside(|tx| {
            let mut checked = Checked { pages: pages(tx)?, ..Checked::default() };
            for table in &ALL {
                read_all_of(tx, table, &mut checked);
            }
            let told = tx.each_row(WITHOUT_TURN, &[], |row| {
                checked.found("sessions", row.name(2), "it names a turn as at work that is not there");
            });
            if let Err(error) = told {
                checked.found("sessions", "a damaged page".to_owned(), &cause(error));
            }
            Ok(checked)
        })
        .await
    }
}

/// Reads a table up to a damaged page, if there is one, and then from its end back to it.
fn read_all_of(tx: &SqliteTx<'_>, rows: &Rows, checked: &mut Checked) {
    let Rows { table, up, down, named_by, read } = rows;
    let mut last = None;
    let look = |row: &mut Row, checked: &mut Checked, last: &mut Option<String>| {
        checked.rows += 1;
        let name = row.name(*named_by);
        if let Err(error) = read(row) {
            checked.found(table, name.clone(), &cause(error));
        }
        *last = Some(name);
    };
    let Err(error) = tx.each_row(up, &[], |mut row| look(&mut row, checked, &mut last)) else { return };
    let mut first = None;
    // From the end it fails at the same place, or at the next one.
    let _ = tx.each_row(down, &[], |mut row| look(&mut row, checked, &mut first));
    let place = match (last, first) {
        (Some(last), Some(first)) => format!("all between {last} and {first}"),
        (Some(last), None) => format!("all behind {last}"),
        (None, Some(first)) => format!("all before {first}"),
        (None, None) => "all".to_owned(),
    };
    checked.found(table, place, &cause(error));
}

/// What SQLite's own check says; empty if it is content.
fn pages(tx: &SqliteTx<'_>) -> Result<Vec<String>, SqlError> {
    let mut roots = Vec::new();
    tx.each_row("SELECT rootpage, tbl_name FROM sqlite_schema WHERE rootpage > 0", &[], |mut row| {
        if let (Ok(root), Ok(table)) = (row.int(), row.text()) {
            roots.push((format!("Tree {root} "), table));
        }
    })?;
    let mut lines = Vec::new();
    let told = tx.each_row("PRAGMA integrity_check", &[], |mut row| {
        if let Ok(text) = row.text() {
            lines.extend(text.lines().map(str::to_owned));
        }
    });
    if let Err(error) = told {
        lines.push(cause(error));
    }
    lines.retain(|line| line != "ok" && !line.starts_with("***"));
    for line in &mut lines {
        if let Some((_, table)) = roots.iter().find(|(root, _)| line.starts_with(root.as_str())) {
            *line = format!("{table}: {line}");
        }
    }
    Ok(lines)
}
