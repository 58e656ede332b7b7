//! [`AuditLog`] in memory, and the one way in which rows are written.

use super::{Memory, State};
use crate::audit::{AuditFilter, AuditLog, AuditRow, AuditVerdict, ChainCheck, NewAudit};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{AgentId, SessionId, SessionKey, TenantId, TurnId};
use async_trait::async_trait;

/// Where rows belong.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) tenant: &'a TenantId,
    pub(super) session: &'a SessionKey,
    pub(super) session_id: &'a SessionId,
    pub(super) agent: &'a AgentId,
    pub(super) turn: &'a TurnId,
}

/// Writes rows behind the chain whose newest hash is `last`, and returns the newest hash then.
pub(super) fn write(state: &mut State, place: Place<'_>, mut last: String, entries: &[NewAudit]) -> String {
    for entry in entries {
        let mut row = AuditRow {
            entry: entry.clone(),
            tenant: place.tenant.clone(),
            session: place.session.clone(),
            session_id: place.session_id.clone(),
            agent: place.agent.clone(),
            turn: place.turn.clone(),
            previous: last,
            hash: String::new(),
        };
        row.hash = row.expected_hash();
        last = row.hash.clone();
        state.audit.push(row);
    }
    last
}

/// By session and transcript; the rows of a transcript stay in the order of writing.
fn chain_of(row: &AuditRow) -> (&SessionKey, &SessionId) {
    (&row.session, &row.session_id)
}

#[async_trait]
impl AuditLog for Memory {
    async fn list(&self, tenant: &TenantId, filter: &AuditFilter) -> Result<Vec<AuditRow>, StoreError> {
        let state = self.state();
        let fits = |row: &&AuditRow| row.tenant == *tenant && filter.fits(row);
        let mut rows: Vec<&AuditRow> = state.audit.iter().filter(fits).collect();
        rows.sort_by(|a, b| (a.entry.at, chain_of(a)).cmp(&(b.entry.at, chain_of(b))));
        Ok(rows.into_iter().rev().take(filter.limit).cloned().collect())
    }

    async fn count(&self, tenant: &TenantId, filter: &AuditFilter) -> Result<u64, StoreError> {
        let state = self.state();
        let fit = state.audit.iter().filter(|row| row.tenant == *tenant && filter.fits(row));
        Ok(fit.take(filter.limit).count() as u64)
    }

    async fn verify(&self, tenant: &TenantId) -> Result<AuditVerdict, StoreError> {
        let state = self.state();
        let mut rows: Vec<&AuditRow> = state.audit.iter().filter(|row| row.tenant == *tenant).collect();
        rows.sort_by(|a, b| chain_of(a).cmp(&chain_of(b)));
        let mut check = ChainCheck::default();
        for row in rows {
            check.feed(row);
        }
        Ok(check.finish())
    }

    async fn prune(&self, tenant: &TenantId, before: Timestamp) -> Result<u64, StoreError> {
        let mut state = self.state();
        let kept = state.audit.len();
        state.audit.retain(|row| row.tenant != *tenant || row.entry.at >= before);
        Ok((kept - state.audit.len()) as u64)
    }
}
