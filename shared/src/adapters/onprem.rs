//! Adapters for a company's own servers.

mod sql;
mod sqlite;

pub use sqlite::{Checked, OpenError, Sqlite};
