//! The audit trail in SQL, and the one way in which rows are written.

use super::{Arg, Row, SqlError, Tx, args, cause, read_each};
use crate::audit::{AuditFilter, AuditRow, ChainCheck, NewAudit};
use crate::clock::Timestamp;
use crate::id::{AgentId, SessionId, SessionKey, TenantId, TurnId};
use serde_json::Value;

/// Where rows belong.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) tenant: &'a TenantId,
    pub(super) session: &'a SessionKey,
    pub(super) session_id: &'a SessionId,
    pub(super) agent: &'a AgentId,
    pub(super) turn: &'a TurnId,
}

/// The end of a transcript's chain: kept in the session's head, so that a row is written without a look-up.
#[derive(Debug, Default)]
pub(super) struct ChainEnd {
    pub(super) hash: String,
    pub(super) n: u64,
}

/// Writes rows at the chain's end, and moves the end.
pub(super) async fn write<T: Tx>(
    tx: &mut T,
    place: Place<'_>,
    end: &mut ChainEnd,
    entries: &[NewAudit],
) -> Result<(), SqlError> {
    for entry in entries {
        let mut row = AuditRow {
            entry: entry.clone(),
            tenant: place.tenant.clone(),
            session: place.session.clone(),
            session_id: place.session_id.clone(),
            agent: place.agent.clone(),
            turn: place.turn.clone(),
            previous: std::mem::take(&mut end.hash),
            hash: String::new(),
        };
        row.hash = row.expected_hash();
        end.n += 1;
        tx.execute(
            "INSERT INTO audit (tenant, session_key, session_id, n, id, at, agent_id, turn_id, principal, action,
                 detail, previous, hash)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
            args![
                &row.tenant,
                &row.session,
                &row.session_id,
                end.n,
                &row.entry.id,
                row.entry.at,
                &row.agent,
                &row.turn,
                &row.entry.principal,
                &row.entry.action,
                &row.entry.detail.to_string(),
                &row.previous,
                &row.hash,
            ],
        )
        .await?;
        end.hash = row.hash;
    }
    Ok(())
}

fn read(row: &mut Row) -> Result<AuditRow, SqlError> {
    let (tenant, session, session_id) = (row.id()?, row.id()?, row.id()?);
    let (id, at, agent, turn) = (row.text()?, row.time()?, row.id()?, row.id()?);
    let (principal, action, detail) = (row.id()?, row.text()?, row.text()?);
    // Whoever tampers may leave something that is no JSON. That must not hide the other rows; its hash will not fit.
    let detail =
        serde_json::from_str(&detail).unwrap_or_else(|_| Value::String(format!("unreadable: {detail}")));
    let entry = NewAudit { id, at, principal, action, detail };
    Ok(AuditRow { entry, tenant, session, session_id, agent, turn, previous: row.text()?, hash: row.text()? })
}

/// A filter as the arguments of a statement.
fn arguments<'f>(tenant: &'f TenantId, filter: &'f AuditFilter) -> Vec<Arg<'f>> {
    let since = filter.since.map_or(i64::MIN, Timestamp::as_millis);
    // Exclusive; a row at the very end of time is never written.
    let until = filter.until.map_or(i64::MAX, Timestamp::as_millis);
    let own =
        args![tenant, since, until, filter.agent.as_ref(), filter.principal.as_ref(), filter.action.as_ref()];
    let of_session = filter.session.as_ref().map(Arg::from);
    own.iter().copied().chain(of_session).chain([Arg::from(filter.limit)]).collect()
}

/// The rows that fit a filter, without and with a session: of all by the index on time, of one session by the primary key.
/// There is no index on agents, principals and actions: it would cost a write in each turn, and people ask rarely.
macro_rules! fitting {
    (all $columns:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM audit
             WHERE tenant = $1 AND at >= $2 AND at < $3 AND agent_id = COALESCE($4, agent_id)
                 AND principal = COALESCE($5, principal) AND action = COALESCE($6, action)
             ORDER BY at DESC, session_key DESC, session_id DESC, n DESC LIMIT $7"
        )
    };
    (of_session $columns:literal) => {
        // `at + 0` keeps the planner from walking everybody's rows of that time instead of this session's.
        concat!(
            "SELECT ",
            $columns,
            " FROM audit
             WHERE tenant = $1 AND at + 0 >= $2 AND at + 0 < $3 AND agent_id = COALESCE($4, agent_id)
                 AND principal = COALESCE($5, principal) AND action = COALESCE($6, action) AND session_key = $7
             ORDER BY at DESC, session_id DESC, n DESC LIMIT $8"
        )
    };
}

/// What stands behind a row's place, for a check: here a detail that is no JSON counts as unreadable.
pub(super) fn read_strictly(row: &mut Row) -> Result<(), SqlError> {
    row.text()?;
    row.time()?;
    for _ in 0..4 {
        row.text()?;
    }
    row.json::<Value>()?;
    row.text()?;
    row.text().map(drop)
}

/// [`crate::audit::AuditLog::list`].
pub(in crate::adapters::onprem) async fn list<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    filter: &AuditFilter,
) -> Result<Vec<AuditRow>, SqlError> {
    let fitting = if filter.session.is_some() {
        fitting!(of_session "tenant, session_key, session_id, id, at, agent_id, turn_id, principal, action, detail, previous, hash")
    } else {
        fitting!(all "tenant, session_key, session_id, id, at, agent_id, turn_id, principal, action, detail, previous, hash")
    };
    let rows = tx.query(fitting, &arguments(tenant, filter)).await?;
    Ok(read_each(tx, ("audit", 4), rows, read))
}

/// [`crate::audit::AuditLog::count`].
pub(in crate::adapters::onprem) async fn count<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    filter: &AuditFilter,
) -> Result<u64, SqlError> {
    let fitting = if filter.session.is_some() { fitting!(of_session "n") } else { fitting!(all "n") };
    Ok(tx.query(fitting, &arguments(tenant, filter)).await?.len() as u64)
}

/// Where a walk over all chains of a tenant stands: behind this row.
#[derive(Debug, Clone, Default)]
pub(in crate::adapters::onprem) struct Cursor {
    session: String,
    session_id: String,
    n: u64,
}

/// Feeds the next rows, chain by chain, to `check`; `None` at the end. [`crate::audit::AuditLog::verify`] in pieces,
/// so that its memory is bounded.
pub(in crate::adapters::onprem) async fn verify_some<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    after: &Cursor,
    check: &mut ChainCheck,
) -> Result<Option<Cursor>, SqlError> {
    const ROWS: usize = 1000;
    let next = "SELECT session_key, session_id, n, tenant, session_key, session_id, id, at, agent_id, turn_id, principal,
             action, detail, previous, hash
         FROM audit WHERE tenant = $1 AND (session_key, session_id, n) > ($2, $3, $4)
         ORDER BY session_key, session_id, n LIMIT $5";
    let args = args![tenant, &after.session, &after.session_id, after.n, ROWS];
    let rows = tx.query(next, args).await?;
    let full = rows.len() == ROWS;
    let mut last = None;
    for mut row in rows {
        let name = row.name(3);
        let (session, session_id, n) = (row.text(), row.text(), row.count::<u64>());
        match read(&mut row) {
            Ok(row) => check.feed(&row),
            Err(error) => {
                tx.saw("audit", name.clone(), &cause(error));
                check.feed_unreadable(name);
            }
        }
        // The walk goes on behind the last row whose place is known. What sorts behind every number and text has none, and
        // stands at the end of all.
        if let (Ok(session), Ok(session_id), Ok(n)) = (session, session_id, n) {
            last = Some(Cursor { session, session_id, n });
        }
    }
    Ok(last.filter(|_| full))
}

/// Rows that [`prune_some`] takes at most: short enough that turns do not notice.
pub(in crate::adapters::onprem) const PRUNE_ROWS: u64 = 1000;

/// Forgets up to [`PRUNE_ROWS`] rows from before `before`; returns how many.
pub(in crate::adapters::onprem) async fn prune_some<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    before: Timestamp,
) -> Result<u64, SqlError> {
    tx.execute(
        "DELETE FROM audit WHERE (tenant, session_key, session_id, n) IN (
             SELECT tenant, session_key, session_id, n FROM audit WHERE tenant = $1 AND at < $2
             ORDER BY at LIMIT $3)",
        args![tenant, before, PRUNE_ROWS],
    )
    .await
}
