//! Every storage port in memory: the reference semantics that the durable adapters are compared with.
//!
//! One state behind one lock, so that each operation is atomic by construction. Nothing survives the process.

mod answers;
mod audit;
mod jobs;
mod limits;
mod sessions;
mod tokens;

use crate::audit::AuditRow;
use crate::bounds::STORED_LEVELS;
use crate::error::StoreError;
use crate::id::{PrincipalId, SessionId, SessionKey, TenantId, TurnId};
use crate::message::Message;
use crate::nesting::too_deep;
use crate::principal::Token;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All storage ports over one state in memory. Clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
}

/// What is kept. Ordered maps where a listing's order must not depend on chance.
#[derive(Debug, Default)]
struct State {
    sessions: BTreeMap<(TenantId, SessionKey), sessions::Head>,
    transcripts: HashMap<(TenantId, SessionId), Vec<Message>>,
    turns: BTreeMap<(TenantId, TurnId), sessions::TurnRecord>,
    keys: answers::Keys,
    /// In the order of writing, so rows of one chain stand in the chain's order.
    audit: Vec<AuditRow>,
    jobs: jobs::Jobs,
    tokens: BTreeMap<PrincipalId, Token>,
    limits: limits::Subjects,
}

/// As the other stores, refuses what they could not read back.
fn storable<V: Serialize>(value: &V) -> Result<(), StoreError> {
    let text = serde_json::to_vec(value).map_err(|error| StoreError::Broken(error.into()))?;
    match too_deep(&text, STORED_LEVELS) {
        Some(_) => Err(StoreError::TooDeep { most: STORED_LEVELS }),
        None => Ok(()),
    }
}

impl Memory {
    /// Empty stores.
    pub fn new() -> Self {
        Self::default()
    }

    /// The state. A panic elsewhere while the lock was held is no reason to refuse: no operation leaves the state
    /// half-changed before its last fallible step.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
