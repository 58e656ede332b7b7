//! The audit trail: what was done, by whom, when. Rows are written by the session store, inside the transaction of
//! what they record; here is the row and the read side.

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{AgentId, PrincipalId, SessionId, SessionKey, TenantId, TurnId};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A row about to be written. The store adds where it belongs and the chain's hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewAudit {
    /// A ULID, unique.
    pub id: String,
    /// When it happened.
    pub at: Timestamp,
    /// Who caused it.
    pub principal: PrincipalId,
    /// What happened, dotted: `turn.accepted`, `turn.committed`, `model.fallback`, `tool.parked` …
    pub action: String,
    /// Facts of the action; never message texts, never secrets.
    pub detail: Value,
}

/// A row as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditRow {
    /// What was given.
    #[serde(flatten)]
    pub entry: NewAudit,
    /// Whose data.
    pub tenant: TenantId,
    /// In which session (its stable name).
    pub session: SessionKey,
    /// In which transcript: rows of one transcript form a chain.
    pub session_id: SessionId,
    /// Which agent.
    pub agent: AgentId,
    /// In which turn.
    pub turn: TurnId,
    /// [`chain_hash`] of the row before it in the chain; empty for the first.
    pub previous: String,
    /// [`chain_hash`] of this row.
    pub hash: String,
}

impl AuditRow {
    /// The hash that the row should have.
    pub fn expected_hash(&self) -> String {
        let parts = [
            self.previous.as_str(),
            self.tenant.as_str(),
            self.session.as_str(),
            self.session_id.as_str(),
            self.agent.as_str(),
            self.turn.as_str(),
            &self.entry.id,
            &self.entry.at.to_string(),
            self.entry.principal.as_str(),
            &self.entry.action,
            &self.entry.detail.to_string(),
        ];
        chain_hash(&parts)
    }
}

/// SHA-256 in hex over the parts, each behind its length (8 bytes, big-endian), so that no two lists of parts give
/// the same bytes.
pub fn chain_hash(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hex(&hasher.finalize())
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

/// Which rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only this session.
    pub session: Option<SessionKey>,
    /// Only from this time on.
    pub since: Option<Timestamp>,
    /// Only before this time.
    pub until: Option<Timestamp>,
    /// Only of this agent.
    pub agent: Option<AgentId>,
    /// Only what this principal caused.
    pub principal: Option<PrincipalId>,
    /// Only this action, e.g. `turn.committed`.
    pub action: Option<String>,
    /// At most so many, newest first.
    pub limit: usize,
}

impl AuditFilter {
    /// Whether it is one of those that are asked for.
    pub fn fits(&self, row: &AuditRow) -> bool {
        self.session.as_ref().is_none_or(|session| row.session == *session)
            && self.since.is_none_or(|since| row.entry.at >= since)
            && self.until.is_none_or(|until| row.entry.at < until)
            && self.agent.as_ref().is_none_or(|agent| row.agent == *agent)
            && self.principal.as_ref().is_none_or(|principal| row.entry.principal == *principal)
            && self.action.as_ref().is_none_or(|action| row.entry.action == *action)
    }
}

/// What [`AuditLog::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditVerdict {
    /// Rows looked at.
    pub rows: u64,
    /// Ids of rows whose hash does not fit their content, whose predecessor is missing or changed, or that cannot be read.
    pub broken: Vec<String>,
}

/// Checks a tenant's rows one by one, for [`AuditLog::verify`]: fed chain by chain, each in the order of writing.
#[derive(Debug, Default)]
pub struct ChainCheck {
    rows: u64,
    broken: Vec<String>,
    /// Chain and recomputed hash of the row before.
    last: Option<(SessionKey, SessionId, String)>,
}

impl ChainCheck {
    /// Looks at the next row.
    pub fn feed(&mut self, row: &AuditRow) {
        let expected = row.expected_hash();
        let linked = match &self.last {
            Some((session, id, hash)) if *session == row.session && *id == row.session_id => {
                row.previous == *hash
            }
            // The first row that is left of its chain: what it points to may have been pruned.
            _ => true,
        };
        if !linked || row.hash != expected {
            self.broken.push(row.entry.id.clone());
        }
        self.rows += 1;
        self.last = Some((row.session.clone(), row.session_id.clone(), expected));
    }

    /// The next row cannot be read: it was changed, and what follows it in its chain cannot be linked to it.
    pub fn feed_unreadable(&mut self, name: String) {
        self.broken.push(name);
        self.rows += 1;
        self.last = None;
    }

    /// What was found.
    pub fn finish(self) -> AuditVerdict {
        AuditVerdict { rows: self.rows, broken: self.broken }
    }
}

/// Reads the audit trail.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Rows that fit, newest first: by time, of the same time by session and transcript, then as they were written, all of
    /// it backwards.
    async fn list(&self, tenant: &TenantId, filter: &AuditFilter) -> Result<Vec<AuditRow>, StoreError>;

    /// How many rows fit. Counts no further than `filter.limit`, so that it costs no more than that in a large trail.
    async fn count(&self, tenant: &TenantId, filter: &AuditFilter) -> Result<u64, StoreError>;

    /// Recomputes every hash and every link. The first remaining row of a chain may point to a pruned one.
    async fn verify(&self, tenant: &TenantId) -> Result<AuditVerdict, StoreError>;

    /// Forgets rows from before `before`; returns how many.
    async fn prune(&self, tenant: &TenantId, before: Timestamp) -> Result<u64, StoreError>;
}
