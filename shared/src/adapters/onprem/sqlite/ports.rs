//! The storage ports on SQLite: each call is encoded here, and run by the shared operations.

use super::{Sqlite, now};
use crate::adapters::onprem::sql::sessions::{EncodedOutcome, EncodedStep, EncodedTurn};
use crate::adapters::onprem::sql::{answers, audit, index, jobs, limits, sessions, to_json, tokens};
use crate::answer::{Answer, AnswerKey, AnswerStore, Claim};
use crate::audit::{AuditFilter, AuditLog, AuditRow, AuditVerdict, ChainCheck};
use crate::clock::Timestamp;
use crate::error::{Error, StoreError};
use crate::id::{AgentId, JobId, PrincipalId, SessionId, SessionKey, TenantId, TurnId};
use crate::job::{Apart, Backlog, Delivery, Job, JobFilter, JobQueue, NewJob, Outcome, Receipt};
use crate::limit::{Decision, Limit, RateLimiter};
use crate::message::Message;
use crate::principal::{Token, TokenStore};
use crate::readiness::{Readiness, Unready};
use crate::session::{
    Becomes, Begun, Interrupted, Lease, NewTurn, Session, SessionFilter, SessionIndex, SessionStore, Step,
    Turn, TurnOutcome, Window,
};
use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longest transcript window that is read on the calling thread: about a quarter of a millisecond. A prompt's window
/// is shorter.
const SHORT_WINDOW: usize = 256;

/// Calls of the limiter between two sweeps: as many rows of idle subjects may pile up.
const SWEEP_EVERY: u64 = 4096;

#[async_trait]
impl SessionStore for Sqlite {
    async fn load(&self, tenant: &TenantId, key: &SessionKey) -> Result<Option<Session>, StoreError> {
        self.read(|tx| now(sessions::load(tx, tenant, key)))
    }

    async fn transcript(
        &self,
        tenant: &TenantId,
        key: &SessionKey,
        window: Window,
    ) -> Result<Vec<Message>, StoreError> {
        if window.newest <= SHORT_WINDOW {
            return self.read(|tx| now(sessions::transcript(tx, tenant, key, window)));
        }
        let (tenant, key) = (tenant.clone(), key.clone());
        self.read_aside(move |tx| now(sessions::transcript(tx, &tenant, &key, window))).await
    }

    async fn turn(&self, tenant: &TenantId, id: &TurnId) -> Result<Option<Turn>, StoreError> {
        self.read(|tx| now(sessions::turn(tx, tenant, id)))
    }

    async fn begin(&self, turn: &NewTurn, at: Timestamp, until: Timestamp) -> Result<Begun, StoreError> {
        let new = EncodedTurn::new(turn)?;
        self.write(move |tx| now(sessions::begin(tx, &new, at, until))).await
    }

    async fn append(
        &self,
        lease: &Lease,
        step: &Step,
        at: Timestamp,
        until: Timestamp,
    ) -> Result<Lease, StoreError> {
        let (lease, step) = (lease.clone(), EncodedStep::new(step)?);
        self.write(move |tx| now(sessions::append(tx, &lease, &step, at, until))).await
    }

    async fn commit(
        &self,
        lease: &Lease,
        last: &Step,
        outcome: &TurnOutcome,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let (lease, last, outcome) = (lease.clone(), EncodedStep::new(last)?, EncodedOutcome::new(outcome)?);
        self.write(move |tx| now(sessions::commit(tx, &lease, &last, &outcome, at))).await
    }
}

#[async_trait]
impl SessionIndex for Sqlite {
    async fn list(&self, tenant: &TenantId, filter: &SessionFilter) -> Result<Vec<Session>, StoreError> {
        let (tenant, filter) = (tenant.clone(), filter.clone());
        self.read_aside(move |tx| now(index::list(tx, &tenant, &filter))).await
    }

    async fn interrupted(
        &self,
        at: Timestamp,
        lease: Duration,
        limit: usize,
    ) -> Result<Vec<Interrupted>, StoreError> {
        self.read(|tx| now(index::interrupted(tx, at, lease, limit)))
    }

    async fn parked(&self, tenant: &TenantId, limit: usize) -> Result<Vec<Turn>, StoreError> {
        let tenant = tenant.clone();
        self.read_aside(move |tx| now(index::parked(tx, &tenant, limit))).await
    }

    async fn reset(
        &self,
        tenant: &TenantId,
        key: &SessionKey,
        from: &SessionId,
        id: &SessionId,
        at: Timestamp,
    ) -> Result<Session, StoreError> {
        let (tenant, key, from, id) = (tenant.clone(), key.clone(), from.clone(), id.clone());
        self.write(move |tx| now(index::reset(tx, &tenant, &key, &from, &id, at))).await
    }

    async fn repair(
        &self,
        tenant: &TenantId,
        key: &SessionKey,
        agents: Option<&[AgentId]>,
        to: &Becomes,
        at: Timestamp,
    ) -> Result<Option<Session>, StoreError> {
        let (tenant, key, to) = (tenant.clone(), key.clone(), to.clone());
        let agents = agents.map(<[AgentId]>::to_vec);
        self.write(move |tx| now(index::repair(tx, &tenant, &key, agents.as_deref(), &to, at))).await
    }

    async fn delete(&self, tenant: &TenantId, key: &SessionKey, from: &SessionId) -> Result<(), StoreError> {
        let (tenant, key, from) = (tenant.clone(), key.clone(), from.clone());
        self.write(move |tx| now(index::delete(tx, &tenant, &key, &from))).await?;
        self.parts.writer.deleted();
        Ok(())
    }
}

#[async_trait]
impl JobQueue for Sqlite {
    async fn enqueue(&self, job: &NewJob, delay: Duration, at: Timestamp) -> Result<bool, StoreError> {
        let job = jobs::EncodedJob::new(job)?;
        self.write(move |tx| now(jobs::enqueue(tx, &job, delay, at))).await
    }

    async fn receive(
        &self,
        max: usize,
        at: Timestamp,
        until: Timestamp,
        apart: &Apart,
    ) -> Result<Vec<Delivery>, StoreError> {
        if !self.read(|tx| now(jobs::any_due(tx, at, apart)))? {
            return Ok(Vec::new());
        }
        let apart = apart.clone();
        self.write(move |tx| now(jobs::receive(tx, max, at, until, &apart))).await
    }

    async fn extend(&self, receipt: &Receipt, at: Timestamp, until: Timestamp) -> Result<(), StoreError> {
        let receipt = receipt.clone();
        self.write(move |tx| now(jobs::extend(tx, &receipt, at, until))).await
    }

    async fn backlog(&self, at: Timestamp) -> Result<Option<Backlog>, StoreError> {
        self.read_aside(move |tx| now(jobs::backlog(tx, at))).await.map(Some)
    }

    async fn settle(&self, receipt: &Receipt, outcome: &Outcome, at: Timestamp) -> Result<(), StoreError> {
        let (receipt, outcome) = (receipt.clone(), outcome.clone());
        self.write(move |tx| now(jobs::settle(tx, &receipt, &outcome, at))).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &JobFilter,
        at: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        let (tenant, filter) = (tenant.clone(), filter.clone());
        self.read_aside(move |tx| now(jobs::list(tx, &tenant, &filter, at))).await
    }

    async fn redrive(&self, tenant: &TenantId, id: &JobId, at: Timestamp) -> Result<(), StoreError> {
        let (tenant, id) = (tenant.clone(), id.clone());
        self.write(move |tx| now(jobs::redrive(tx, &tenant, &id, at))).await
    }
}

#[async_trait]
impl RateLimiter for Sqlite {
    async fn take(&self, subject: &str, limit: Limit, at: Timestamp) -> Result<Decision, StoreError> {
        let subject = subject.to_owned();
        let sweep = self.parts.takes.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1;
        let take = self.parts.limits.run(move |tx| {
            if sweep {
                now(limits::forget_idle(tx, at))?;
            }
            now(limits::take(tx, &subject, limit, at))
        });
        take.await
    }
}

#[async_trait]
impl TokenStore for Sqlite {
    async fn insert(&self, token: &Token) -> Result<(), StoreError> {
        let token = token.clone();
        self.write(move |tx| now(tokens::insert(tx, &token))).await
    }

    async fn insert_first(&self, token: &Token) -> Result<bool, StoreError> {
        let token = token.clone();
        self.write(move |tx| now(tokens::insert_first(tx, &token))).await
    }

    async fn find(&self, id: &PrincipalId) -> Result<Option<Token>, StoreError> {
        self.read(|tx| now(tokens::find(tx, id)))
    }

    async fn list(&self, tenant: &TenantId) -> Result<Vec<Token>, StoreError> {
        let tenant = tenant.clone();
        self.read_aside(move |tx| now(tokens::list(tx, &tenant))).await
    }

    async fn revoke(&self, tenant: &TenantId, id: &PrincipalId, at: Timestamp) -> Result<(), StoreError> {
        let (tenant, id) = (tenant.clone(), id.clone());
        self.write(move |tx| now(tokens::revoke(tx, &tenant, &id, at))).await
    }
}

#[async_trait]
impl AnswerStore for Sqlite {
    async fn claim(&self, key: &AnswerKey, at: Timestamp, until: Timestamp) -> Result<Claim, StoreError> {
        let key = key.clone();
        self.write(move |tx| now(answers::claim(tx, &key, at, until))).await
    }

    async fn store(&self, key: &AnswerKey, answer: &Answer, at: Timestamp) -> Result<(), StoreError> {
        let (key, answer) = (key.clone(), to_json(answer)?);
        self.write(move |tx| now(answers::store(tx, &key, &answer, at))).await
    }

    async fn release(&self, key: &AnswerKey) -> Result<(), StoreError> {
        let key = key.clone();
        self.write(move |tx| now(answers::release(tx, &key))).await
    }
}

#[async_trait]
impl AuditLog for Sqlite {
    async fn list(&self, tenant: &TenantId, filter: &AuditFilter) -> Result<Vec<AuditRow>, StoreError> {
        let (tenant, filter) = (tenant.clone(), filter.clone());
        self.read_aside(move |tx| now(audit::list(tx, &tenant, &filter))).await
    }

    async fn count(&self, tenant: &TenantId, filter: &AuditFilter) -> Result<u64, StoreError> {
        let (tenant, filter) = (tenant.clone(), filter.clone());
        self.read_aside(move |tx| now(audit::count(tx, &tenant, &filter))).await
    }

    async fn verify(&self, tenant: &TenantId) -> Result<AuditVerdict, StoreError> {
        let tenant = tenant.clone();
        let verify = self.read_aside(move |tx| {
            let mut check = ChainCheck::default();
            let mut cursor = Some(audit::Cursor::default());
            while let Some(after) = cursor {
                cursor = now(audit::verify_some(tx, &tenant, &after, &mut check))?;
            }
            Ok(check.finish())
        });
        verify.await
    }

    async fn prune(&self, tenant: &TenantId, before: Timestamp) -> Result<u64, StoreError> {
        let mut pruned = 0;
        loop {
            let tenant = tenant.clone();
            let some = self.write(move |tx| now(audit::prune_some(tx, &tenant, before))).await?;
            pruned += some;
            if some < audit::PRUNE_ROWS {
                return Ok(pruned);
            }
        }
    }
}

#[async_trait]
impl Readiness for Sqlite {
    async fn unready(&self) -> Vec<Unready> {
        let (place, probe) = (Arc::clone(&self.parts.place), Arc::clone(&self.parts.probe));
        if !place.is_there() {
            let cause = "the data folder was removed or replaced under this process: put it back, or restart";
            return vec![Unready { reason: "folder", cause: cause.to_owned() }];
        }
        // A disk that hangs must not hold a thread of the runtime.
        let failure = match self.aside(move || probe.failure()).await {
            Ok(failure) => failure,
            Err(error) => Some(Error::from(error).cause()),
        };
        let unready = |error| Unready {
            reason: "disk",
            cause: format!("the data folder cannot be written to: {error}"),
        };
        failure.map(unready).into_iter().collect()
    }
}
