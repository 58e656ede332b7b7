//! Every table read row by row, as every operation together reads it: what of it cannot be read.

use super::damage::read_message;
use super::sessions::read_session;
use super::{Row, SqlError, audit, jobs, tokens};
use crate::answer::Answer;
use crate::id::{JobId, TenantId};
use crate::session::TurnOutcome;
use serde_json::Value;

/// A table, and how its rows are read.
pub(in crate::adapters::onprem) struct Rows {
    pub(in crate::adapters::onprem) table: &'static str,
    /// Its rows in the order of its primary key.
    pub(in crate::adapters::onprem) up: &'static str,
    /// The same in the opposite order, for what lies behind a damaged page.
    pub(in crate::adapters::onprem) down: &'static str,
    /// So many of the first columns are a row's name.
    pub(in crate::adapters::onprem) named_by: usize,
    pub(in crate::adapters::onprem) read: fn(&mut Row) -> Result<(), SqlError>,
}

macro_rules! rows {
    ($table:literal, $columns:literal, [$($key:literal),*], $read:expr) => {
        Rows {
            table: $table,
            up: concat!("SELECT ", $columns, " FROM ", $table, " ORDER BY 1" $(, ", ", $key)*),
            down: concat!("SELECT ", $columns, " FROM ", $table, " ORDER BY 1 DESC" $(, ", ", $key, " DESC")*),
            named_by: 1 $(+ { let _ = $key; 1 })*,
            read: $read,
        }
    };
}

/// Every table of the main database.
pub(in crate::adapters::onprem) const ALL: [Rows; 8] = [
    rows!(
        "sessions",
        "tenant, session_key, id, agent_id, user_id, channel, created_at, updated_at, epoch, seq, summarised_through,
             turn_id, lease_until, fence, tries, audit_hash, audit_n",
        ["2"],
        |row| {
            read_session(row)?;
            row.count::<u64>()?;
            row.count::<u32>()?;
            row.text()?;
            row.count::<u64>().map(drop)
        }
    ),
    rows!("past_transcripts", "tenant, session_key, session_id", ["2", "3"], |row| {
        row.text()?;
        row.text()?;
        row.text().map(drop)
    }),
    rows!(
        "messages",
        "tenant, session_id, epoch, seq, turn_id, created_at, content",
        ["2", "3", "4"],
        |row| {
            row.text()?;
            row.text()?;
            read_message(row).map(drop)
        }
    ),
    rows!(
        "turns",
        "tenant, id, session_key, session_id, agent_id, principal, channel, user_id, idempotency_key, fingerprint,
             options, accepted_at, ended_at, outcome, input_through",
        ["2"],
        |row| {
            for _ in 0..7 {
                row.text()?;
            }
            for _ in 0..3 {
                row.opt_text()?;
            }
            row.json::<Value>()?;
            row.time()?;
            row.opt_time()?;
            row.opt_json::<TurnOutcome>()?;
            row.count::<u64>().map(drop)
        }
    ),
    rows!(
        "idempotency",
        "tenant, principal, idempotency_key, fingerprint, turn_id, claimed_until, answer, expires_at",
        ["2", "3"],
        |row| {
            for _ in 0..4 {
                row.text()?;
            }
            row.opt_text()?;
            row.opt_time()?;
            row.opt_json::<Answer>()?;
            row.time().map(drop)
        }
    ),
    rows!(
        "audit",
        "tenant, session_key, session_id, n, id, at, agent_id, turn_id, principal, action, detail, previous, hash",
        ["2", "3", "4"],
        |row| {
            for _ in 0..3 {
                row.text()?;
            }
            row.count::<u64>()?;
            audit::read_strictly(row)
        }
    ),
    rows!(
        "jobs",
        "tenant, id, work, state, attempts, created_at, visible_at, reason, token, expires_at",
        ["2"],
        |row| {
            let (tenant, id) = (row.id::<TenantId>()?, row.id::<JobId>()?);
            jobs::read(row, &tenant, &id)?;
            row.count::<u64>()?;
            row.opt_time().map(drop)
        }
    ),
    rows!(
        "tokens",
        "id, tenant, name, secret_sha256, scopes, agents, cidrs, rate_limit, created_at, expires_at, revoked_at",
        [],
        |row| tokens::read(row).map(drop)
    ),
];

/// Sessions that name a turn as at work that is not there.
pub(in crate::adapters::onprem) const WITHOUT_TURN: &str = "SELECT s.tenant, s.session_key, s.turn_id
     FROM sessions s LEFT JOIN turns t ON t.tenant = s.tenant AND t.id = s.turn_id
     WHERE s.turn_id IS NOT NULL AND t.id IS NULL";
