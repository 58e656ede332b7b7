//! [`App`]: every part that a request can meet, in one struct.

use crate::agent::AgentInvoker;
use crate::answer::AnswerStore;
use crate::audit::AuditLog;
use crate::budget::Budget;
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::error::{Error, ErrorKind, StoreError};
use crate::id::{IdSource, SessionKey, TenantId};
use crate::job::JobQueue;
use crate::limit::RateLimiter;
use crate::metrics::Metrics;
use crate::principal::TokenStore;
use crate::readiness::{Readiness, Unready};
use crate::region::Regions;
use crate::session::{Becomes, Session, SessionChange, SessionIndex, SessionStore};
use crate::tool::Tool;
use crate::unreadable::{Unreadable, Watcher};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// A store that takes longer is not there.
const PATIENCE: Duration = Duration::from_secs(2);

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

/// Tells of rows that cannot be read: a line of the log for each, and a count.
pub struct RowWatch(pub Arc<Metrics>);

impl Watcher for RowWatch {
    fn saw(&self, row: &Unreadable, is_told: bool) {
        self.0.unreadable_row(row.table);
        if is_told {
            let Unreadable { table, id, why } = row;
            tracing::error!(target: "error", { table, id, cause = why }, "a row cannot be read; see `reef data check`");
        }
    }
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
    /// The regions of an installation that has several.
    pub regions: Option<Arc<dyn Regions>>,
    /// The built-in tools by name.
    pub tools: Arc<BTreeMap<String, Arc<dyn Tool>>>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where identifiers come from.
    pub ids: Arc<dyn IdSource>,
    /// Whose installation this is, until tokens say otherwise.
    pub tenant: TenantId,
    /// Counts and times.
    pub metrics: Arc<Metrics>,
    /// How much memory work may take.
    pub budget: Budget,
    /// Whether the process still takes new work.
    pub lifecycle: Arc<Lifecycle>,
}

impl App {
    /// Whether the store answers, and in time.
    pub async fn store_answers(&self) -> bool {
        // Any key will do.
        let key = SessionKey::new("readiness");
        match timeout(PATIENCE, self.stores.sessions.load(&self.tenant, &key)).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                let cause = Error::from(error).cause();
                tracing::error!(target: "error", { cause }, "the store does not answer");
                false
            }
            Err(_) => false,
        }
    }

    /// Resets or deletes a session, in the region that is its home. Returns it as it is now; a deleted one, as it was.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Conflict`] while a turn holds the session or was interrupted on it, or if
    /// its transcript is a newer one than the caller knows; those of the store, and of the way to the home.
    pub async fn change(&self, change: &SessionChange) -> Result<Session, Error> {
        // With one region the agents' process need not be asked: the home is here.
        if self.regions.is_some()
            && let Some(session) = self.agents.change(change).await?
        {
            return Ok(session);
        }
        self.change_here(change).await
    }

    /// As [`App::change`], for a session that is at home here.
    ///
    /// # Errors
    /// As there; [`ErrorKind::Unavailable`] if its home is another region.
    async fn change_here(&self, change: &SessionChange) -> Result<Session, Error> {
        let SessionChange { tenant, session, from, to } = change;
        let missing = || Error::not_found("there is no such session");
        let conflict = |message| Error::new(ErrorKind::Conflict, message).after(Duration::from_secs(1));
        let changed = || conflict("the session was reset or made anew meanwhile; try again");
        // Done before, and nobody heard that it was.
        let is_done = |found: &Session| matches!(to, Becomes::Empty(id) if *id == found.id);
        let found = self.stores.sessions.load(tenant, session).await?.ok_or_else(missing)?;
        if is_done(&found) {
            return Ok(found);
        }
        if found.id != *from {
            return Err(changed());
        }
        let index = &self.stores.index;
        let done = match to {
            Becomes::Empty(id) => index.reset(tenant, session, from, id, self.clock.now()).await,
            Becomes::Nothing => index.delete(tenant, session, from).await.map(|()| found),
        };
        match done {
            Ok(session) => Ok(session),
            Err(StoreError::Fenced) => {
                Err(conflict("a turn is at work on the session; try again when it has ended"))
            }
            // Somebody was faster.
            Err(StoreError::NotFound) => {
                let found = self.stores.sessions.load(tenant, session).await?.ok_or_else(missing)?;
                if is_done(&found) { Ok(found) } else { Err(changed()) }
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Whether this region is in service; `true` where there is only one, and if that cannot be found out.
    pub async fn is_in_service(&self) -> bool {
        let Some(regions) = &self.regions else { return true };
        let states = timeout(PATIENCE, regions.states(self.clock.now())).await;
        let states = states.ok().and_then(Result::ok).unwrap_or_default();
        !states.iter().any(|state| state.is_here && !state.in_service)
    }
}

/// From start to drain. A draining process ends what it has accepted and refuses new turns.
#[derive(Debug)]
pub struct Lifecycle {
    started_at: Timestamp,
    draining: AtomicBool,
    needs: Option<Arc<dyn Readiness>>,
}

impl Lifecycle {
    /// A process that started at `now` and takes work.
    pub const fn started(now: Timestamp) -> Self {
        Self { started_at: now, draining: AtomicBool::new(false), needs: None }
    }

    /// The same, that takes no traffic while `needs` has something against it.
    #[must_use]
    pub fn needing(self, needs: Arc<dyn Readiness>) -> Self {
        Self { needs: Some(needs), ..self }
    }

    /// What stands against taking traffic, beside draining. Each is logged with its cause.
    pub async fn unready(&self) -> Vec<&'static str> {
        let Some(needs) = &self.needs else { return Vec::new() };
        let unready = timeout(PATIENCE, needs.unready()).await.unwrap_or_else(|_| {
            let cause = "the disk does not answer in time".to_owned();
            vec![Unready { reason: "disk", cause }]
        });
        for Unready { reason, cause } in &unready {
            tracing::error!(target: "error", { reason, cause }, "not ready");
        }
        unready.into_iter().map(|unready| unready.reason).collect()
    }

    /// When the process started.
    pub const fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// Refuses new turns from now on, for good.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether new turns are refused.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}
