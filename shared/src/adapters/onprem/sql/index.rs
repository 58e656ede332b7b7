//! Sessions as a whole in SQL: [`crate::session::SessionIndex`].

use super::sessions::{read_holder, read_session, read_turn};
use super::{Row, SqlError, Tx, args, jobs, locking, read_all, read_first};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{SessionId, SessionKey, TenantId, TurnId};
use crate::session::{Interrupted, Session, SessionFilter, Turn};

/// [`crate::session::SessionIndex::list`]: by the index on users or that on time, or, for named agents, one walk of the
/// index on users or on agents each, merged.
pub(in crate::adapters::onprem) async fn list<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    filter: &SessionFilter,
) -> Result<Vec<Session>, SqlError> {
    let limit = filter.limit;
    let before = filter.updated_before.map_or(i64::MAX, Timestamp::as_millis);
    let Some(agents) = &filter.agents else {
        let rows = match &filter.user {
            None => {
                let by_time =
                    "SELECT tenant, session_key, id, agent_id, user_id, channel, created_at, updated_at,
                     epoch, seq, summarised_through, turn_id, lease_until
                 FROM sessions WHERE tenant = $1 AND updated_at < $2
                 ORDER BY updated_at DESC, session_key LIMIT $3";
                tx.query(by_time, args![tenant, before, limit]).await?
            }
            Some(user) => {
                let by_user =
                    "SELECT tenant, session_key, id, agent_id, user_id, channel, created_at, updated_at,
                     epoch, seq, summarised_through, turn_id, lease_until
                 FROM sessions WHERE tenant = $1 AND user_id = $2 AND updated_at < $3
                 ORDER BY updated_at DESC, session_key LIMIT $4";
                tx.query(by_user, args![tenant, user, before, limit]).await?
            }
        };
        return read_all(rows, read_session);
    };
    let mut sessions = Vec::new();
    for agent in agents {
        let rows = match &filter.user {
            None => {
                let by_agent =
                    "SELECT tenant, session_key, id, agent_id, user_id, channel, created_at, updated_at,
                     epoch, seq, summarised_through, turn_id, lease_until
                 FROM sessions WHERE tenant = $1 AND agent_id = $2 AND updated_at < $3
                 ORDER BY updated_at DESC, session_key LIMIT $4";
                tx.query(by_agent, args![tenant, agent, before, limit]).await?
            }
            Some(user) => {
                // `agent_id || ''` keeps the planner from walking all of the agent's sessions instead of the user's.
                let by_user =
                    "SELECT tenant, session_key, id, agent_id, user_id, channel, created_at, updated_at,
                     epoch, seq, summarised_through, turn_id, lease_until
                 FROM sessions WHERE tenant = $1 AND user_id = $2 AND agent_id || '' = $3 AND updated_at < $4
                 ORDER BY updated_at DESC, session_key LIMIT $5";
                tx.query(by_user, args![tenant, user, agent, before, limit]).await?
            }
        };
        sessions.append(&mut read_all(rows, read_session)?);
    }
    sessions.sort_by(|a, b| b.updated_at.cmp(&a.updated_at).then_with(|| a.key.cmp(&b.key)));
    // The same agent named twice.
    sessions.dedup_by(|a, b| a.key == b.key);
    sessions.truncate(limit);
    Ok(sessions)
}

/// [`crate::session::SessionIndex::interrupted`].
pub(in crate::adapters::onprem) async fn interrupted<T: Tx>(
    tx: &mut T,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<Interrupted>, SqlError> {
    let rows = tx.query(
        "SELECT t.id, t.tenant, t.session_key, t.session_id, t.agent_id, t.principal, t.user_id, t.channel, t.options,
             t.accepted_at, t.ended_at, t.outcome, s.tries
         FROM sessions s JOIN turns t ON t.tenant = s.tenant AND t.id = s.turn_id
         WHERE s.turn_id IS NOT NULL AND s.lease_until <= $1
         ORDER BY s.tries >= $2, t.accepted_at, t.tenant, t.id LIMIT $3",
        args![now, u64::from(Interrupted::SUSPECT_FROM), limit],
    ).await?;
    read_all(rows, |row| Ok(Interrupted { turn: read_turn(row)?, tries: row.count()? }))
}

/// [`crate::session::SessionIndex::parked`].
pub(in crate::adapters::onprem) async fn parked<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    limit: usize,
) -> Result<Vec<Turn>, SqlError> {
    let rows = tx.query(
        "SELECT id, tenant, session_key, session_id, agent_id, principal, user_id, channel, options, accepted_at,
             ended_at, outcome
         FROM turns WHERE tenant = $1 AND status = 'parked' ORDER BY ended_at DESC, id DESC LIMIT $2",
        args![tenant, limit],
    ).await?;
    read_all(rows, read_turn)
}

/// Refuses a session whose present transcript is another one, or on which something is at work or interrupted.
async fn idle<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    key: &SessionKey,
    from: &SessionId,
) -> Result<(), SqlError> {
    let find =
        locking!("SELECT id, turn_id, lease_until FROM sessions WHERE tenant = $1 AND session_key = $2");
    let rows = tx.query(find.of::<T>(), args![tenant, key]).await?;
    let found = read_first(rows, |row| Ok((row.id::<SessionId>()?, read_holder(row)?)))?;
    match found.filter(|(id, _)| id == from) {
        None => Err(SqlError::Refused(StoreError::NotFound)),
        Some((_, Some(_))) => Err(SqlError::Refused(StoreError::Fenced)),
        Some((_, None)) => Ok(()),
    }
}

/// [`crate::session::SessionIndex::reset`].
pub(in crate::adapters::onprem) async fn reset<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    key: &SessionKey,
    from: &SessionId,
    id: &SessionId,
    now: Timestamp,
) -> Result<Session, SqlError> {
    if let Some(session) = super::sessions::load(tx, tenant, key).await? {
        let past = "SELECT session_id FROM past_transcripts
         WHERE tenant = $1 AND session_key = $2 AND session_id = $3";
        if session.id == *id || !tx.query(past, args![tenant, key, id]).await?.is_empty() {
            return Ok(session);
        }
    }
    idle(tx, tenant, key, from).await?;
    tx.execute(
        "INSERT INTO past_transcripts (tenant, session_key, session_id) VALUES ($1, $2, $3)",
        args![tenant, key, from],
    )
    .await?;
    tx.execute(
        "UPDATE sessions SET id = $1, seq = 0, summarised_through = 0, audit_hash = '', audit_n = 0, updated_at = $2
         WHERE tenant = $3 AND session_key = $4",
        args![id, now, tenant, key],
    )
    .await?;
    present(tx, tenant, key).await
}

/// A session that is there.
async fn present<T: Tx>(tx: &mut T, tenant: &TenantId, key: &SessionKey) -> Result<Session, SqlError> {
    let head = super::sessions::load(tx, tenant, key).await?;
    head.ok_or_else(|| SqlError::broken("a session that was just reset is not there"))
}

/// [`crate::session::SessionIndex::delete`].
pub(in crate::adapters::onprem) async fn delete<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    key: &SessionKey,
    from: &SessionId,
) -> Result<(), SqlError> {
    idle(tx, tenant, key, from).await?;
    if jobs::any_at_work(tx, tenant, key).await? {
        // Its turn has not begun, or has just ended: it would make the session anew.
        return Err(SqlError::Refused(StoreError::Fenced));
    }
    jobs::delete_of_session(tx, tenant, key).await?;
    let past = "SELECT session_id FROM past_transcripts WHERE tenant = $1 AND session_key = $2";
    let mut transcripts = read_all(tx.query(past, args![tenant, key]).await?, Row::id::<SessionId>)?;
    transcripts.push(from.clone());
    for id in &transcripts {
        tx.execute("DELETE FROM messages WHERE tenant = $1 AND session_id = $2", args![tenant, id]).await?;
    }
    // `tenant || ''` keeps the planner from walking all turns of the tenant instead of those of the session.
    let keys = "SELECT principal, idempotency_key, id FROM turns
         WHERE session_key = $1 AND tenant || '' = $2 AND idempotency_key IS NOT NULL";
    let keys = read_all(tx.query(keys, args![key, tenant]).await?, |row| {
        Ok((row.text()?, row.text()?, row.id::<TurnId>()?))
    })?;
    for (principal, idempotency_key, turn) in &keys {
        // A key that was free again may name a turn of another session by now.
        let forget = "DELETE FROM idempotency
             WHERE tenant = $1 AND principal = $2 AND idempotency_key = $3 AND turn_id = $4";
        tx.execute(forget, args![tenant, principal, idempotency_key, turn]).await?;
    }
    tx.execute("DELETE FROM turns WHERE session_key = $1 AND tenant || '' = $2", args![key, tenant]).await?;
    for sql in [
        "DELETE FROM past_transcripts WHERE tenant = $1 AND session_key = $2",
        "DELETE FROM sessions WHERE tenant = $1 AND session_key = $2",
    ] {
        tx.execute(sql, args![tenant, key]).await?;
    }
    Ok(())
}
