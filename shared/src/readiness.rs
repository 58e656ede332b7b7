//! Whether work may come: what stands against it, and the [`Readiness`] port.

use async_trait::async_trait;
use std::fmt::Debug;

/// Something that stands against taking work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unready {
    /// In one word, for who watches, e.g. `disk`.
    pub reason: &'static str,
    /// What it is and what to do, for the log.
    pub cause: String,
}

/// What a process needs beside a store that answers.
#[async_trait]
pub trait Readiness: Debug + Send + Sync {
    /// What stands against taking work now; empty if nothing does. May be asked as often as anybody likes.
    async fn unready(&self) -> Vec<Unready>;
}
