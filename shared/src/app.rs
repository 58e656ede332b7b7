//! [`App`]: every part that a request can meet, in one struct.

use crate::agent::AgentInvoker;
use crate::answer::AnswerStore;
use crate::audit::AuditLog;
use crate::clock::Clock;
use crate::config::Config;
use crate::id::{IdSource, TenantId};
use crate::job::JobQueue;
use crate::limit::RateLimiter;
use crate::principal::TokenStore;
use crate::session::{SessionIndex, SessionStore};
use crate::tool::Tool;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where data is kept: one adapter per storage port, usually all of one technology.
#[derive(Clone)]
pub struct Stores {
    /// Sessions and turns.
    pub sessions: Arc<dyn SessionStore>,
    /// Sessions as a whole.
    pub index: Arc<dyn SessionIndex>,
    /// Jobs.
    pub jobs: Arc<dyn JobQueue>,
    /// Rate limits.
    pub limits: Arc<dyn RateLimiter>,
    /// Tokens.
    pub tokens: Arc<dyn TokenStore>,
    /// Answers of requests that are no turns.
    pub answers: Arc<dyn AnswerStore>,
    /// The audit trail.
    pub audit: Arc<dyn AuditLog>,
}

/// Everything a request can meet. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// The settings.
    pub config: Arc<Config>,
    /// Where data is kept.
    pub stores: Stores,
    /// Who runs turns.
    pub agents: Arc<dyn AgentInvoker>,
    /// The built-in tools by name.
    pub tools: Arc<BTreeMap<String, Arc<dyn Tool>>>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where identifiers come from.
    pub ids: Arc<dyn IdSource>,
    /// Whose installation this is, until tokens say otherwise.
    pub tenant: TenantId,
}
