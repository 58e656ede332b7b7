//! Sessions as a whole in SQL: [`crate::session::SessionIndex`].

use super::damage::read_turn;
use super::sessions::{SESSION, read_holder, read_session};
use super::{
    Arg, Row, SqlError, Tx, args, around_damage, cause, jobs, locking, or_unreadable, read_each, read_first,
};
use crate::bounds::CLOCK_SLACK;
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{AgentId, SessionId, SessionKey, TenantId, TurnId};
use crate::session::{Becomes, Interrupted, Session, SessionFilter, Turn};
use std::time::Duration;

/// [`crate::session::SessionIndex::list`]: by the index on users or that on time, or, for named agents, one walk of the
/// index on users or on agents each, merged.
pub(in crate::adapters::onprem) async fn list<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    filter: &SessionFilter,
) -> Result<Vec<Session>, SqlError> {
    let mut looks = filter.limit;
    loop {
        let (sessions, found) = list_some(tx, tenant, filter, looks).await?;
        // What cannot be read is left out, and takes nobody's place: a page that is not full is the last one.
        if sessions.len() >= filter.limit || found < looks {
            let mut sessions = sessions;
            sessions.truncate(filter.limit);
            return Ok(sessions);
        }
        looks = looks.saturating_mul(2);
    }
}

/// A listing's statements: newest first, and the same rows from the other end, if a damaged page lies among them.
macro_rules! listing {
    ($where:literal, $limit:literal) => {
        (
            listing!($where, "ORDER BY updated_at DESC, session_key", $limit),
            listing!($where, "ORDER BY updated_at, session_key DESC", $limit),
        )
    };
    ($where:literal, $order:literal, $limit:literal) => {
        concat!(
            "SELECT tenant, session_key, id, agent_id, user_id, channel, created_at, updated_at, epoch, seq,
                 summarised_through, turn_id, lease_until
             FROM sessions WHERE tenant = $1 AND ",
            $where,
            " ",
            $order,
            $limit
        )
    };
}

/// The first sessions that fit, and how many rows were looked at to find them: at least `looks`, unless there are no more.
async fn list_some<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    filter: &SessionFilter,
    looks: usize,
) -> Result<(Vec<Session>, usize), SqlError> {
    let before = filter.updated_before.map_or(i64::MAX, Timestamp::as_millis);
    let Some(agents) = &filter.agents else {
        let (sessions, found) = match &filter.user {
            None => {
                let by_time = listing!("updated_at < $2", " LIMIT $3");
                listed(tx, by_time, args![tenant, before, looks]).await?
            }
            Some(user) => {
                let by_user = listing!("user_id = $2 AND updated_at < $3", " LIMIT $4");
                listed(tx, by_user, args![tenant, user, before, looks]).await?
            }
        };
        return Ok((in_order(sessions), found));
    };
    let (mut sessions, mut found) = (Vec::new(), 0);
    for agent in agents {
        let (mut of_agent, looked_at) = match &filter.user {
            None => {
                let by_agent = listing!("agent_id = $2 AND updated_at < $3", " LIMIT $4");
                listed(tx, by_agent, args![tenant, agent, before, looks]).await?
            }
            Some(user) => {
                // `agent_id || ''` keeps the planner from walking all of the agent's sessions instead of the user's.
                let by_user =
                    listing!("user_id = $2 AND agent_id || '' = $3 AND updated_at < $4", " LIMIT $5");
                listed(tx, by_user, args![tenant, user, agent, before, looks]).await?
            }
        };
        // One agent may still have more when another one has no more.
        found = found.max(looked_at);
        sessions.append(&mut of_agent);
    }
    Ok((in_order(sessions), found))
}

/// The readable rows of a listing, and how many there were.
async fn listed<T: Tx>(
    tx: &mut T,
    (newest, oldest): (&'static str, &'static str),
    args: &[Arg<'_>],
) -> Result<(Vec<Session>, usize), SqlError> {
    const TABLE: (&str, usize) = ("sessions", 2);
    let rows = around_damage(tx, TABLE.0, newest, oldest, args).await?;
    let found = rows.len();
    Ok((read_each(tx, TABLE, rows, read_session), found))
}

fn in_order(mut sessions: Vec<Session>) -> Vec<Session> {
    sessions.sort_by(|a, b| b.updated_at.cmp(&a.updated_at).then_with(|| a.key.cmp(&b.key)));
    // The same agent named twice.
    sessions.dedup_by(|a, b| a.key == b.key);
    sessions
}

/// Interrupted turns, one way or the other, with the same columns.
macro_rules! held {
    ($where:literal) => {
        concat!(
            "SELECT t.id, t.tenant, t.session_key, t.session_id, t.agent_id, t.principal, t.user_id, t.channel,
                 t.options, t.accepted_at, t.ended_at, t.outcome, s.tries
             FROM sessions s JOIN turns t ON t.tenant = s.tenant AND t.id = s.turn_id
             WHERE s.turn_id IS NOT NULL AND ",
            $where
        )
    };
}

/// How held sessions are found by the end of their lease: best first, and, if a damaged page lies among them – to put them
/// in order all of them are read, so it would hide them all –, in the index's own order up to the damage, from either end.
struct Held {
    first: &'static str,
    up: &'static str,
    down: &'static str,
}

/// Held sessions whose lease has run out.
const RUN_OUT: Held = Held {
    first: held!("s.lease_until <= $1 ORDER BY s.tries >= $2, t.accepted_at, t.tenant, t.id LIMIT $3"),
    up: held!("s.lease_until <= $1 ORDER BY s.lease_until LIMIT $2"),
    down: held!("s.lease_until <= $1 ORDER BY s.lease_until DESC LIMIT $2"),
};

/// Held sessions whose lease ends later than it can. In a statement of its own: with both bounds in one, the planner walks
/// all that are at work.
const BEYOND: Held = Held {
    first: held!("s.lease_until > $1 ORDER BY s.tries >= $2, t.accepted_at, t.tenant, t.id LIMIT $3"),
    up: held!("s.lease_until > $1 ORDER BY s.lease_until LIMIT $2"),
    down: held!("s.lease_until > $1 ORDER BY s.lease_until DESC LIMIT $2"),
};

/// [`crate::session::SessionIndex::interrupted`].
pub(in crate::adapters::onprem) async fn interrupted<T: Tx>(
    tx: &mut T,
    now: Timestamp,
    lease: Duration,
    limit: usize,
) -> Result<Vec<Interrupted>, SqlError> {
    let suspect = u64::from(Interrupted::SUSPECT_FROM);
    let mut found = Vec::new();
    for (held, bound) in [(RUN_OUT, now), (BEYOND, now + lease + CLOCK_SLACK)] {
        let rows = match tx.query_until(held.first, args![bound, suspect, limit]).await {
            (rows, None) => rows,
            (_, Some(SqlError::Failed(StoreError::Broken(_)))) => {
                around_damage(tx, "sessions", held.up, held.down, args![bound, limit]).await?
            }
            (_, Some(other)) => return Err(other),
        };
        for mut row in rows.into_iter().take(limit) {
            let name = row.name(1);
            match read_turn(tx, &mut row) {
                // Tries that cannot be read make a suspect: others come first.
                Ok((turn, _)) => {
                    found.push(Interrupted { turn, tries: row.count().unwrap_or(Interrupted::SUSPECT_FROM) });
                }
                Err(error) => tx.saw("turns", name, &cause(error)),
            }
        }
    }
    found.sort_by(Interrupted::in_order);
    found.truncate(limit);
    Ok(found)
}

/// [`crate::session::SessionIndex::parked`].
pub(in crate::adapters::onprem) async fn parked<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    limit: usize,
) -> Result<Vec<Turn>, SqlError> {
    let newest = "SELECT id, tenant, session_key, session_id, agent_id, principal, user_id, channel, options, accepted_at,
             ended_at, outcome
         FROM turns WHERE tenant = $1 AND status = 'parked' ORDER BY ended_at DESC, id DESC LIMIT $2";
    let oldest = "SELECT id, tenant, session_key, session_id, agent_id, principal, user_id, channel, options, accepted_at,
             ended_at, outcome
         FROM turns WHERE tenant = $1 AND status = 'parked' ORDER BY ended_at, id LIMIT $2";
    let rows = around_damage(tx, "turns", newest, oldest, args![tenant, limit]).await?;
    let mut found = Vec::with_capacity(rows.len());
    for mut row in rows.into_iter().take(limit) {
        let name = row.name(1);
        match read_turn(tx, &mut row) {
            Ok((turn, _)) => found.push(turn),
            Err(error) => tx.saw("turns", name, &cause(error)),
        }
    }
    Ok(found)
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
    let found = read_first(rows, |row| Ok((row.id::<SessionId>()?, read_holder(row)?)));
    let found = or_unreadable(tx, "sessions", || key.to_string(), SESSION, found)?;
    match found.filter(|(id, _)| id == from) {
        None => Err(SqlError::Refused(StoreError::NotFound)),
        Some((_, Some(holder))) => {
            // A turn that is not there ends nowhere.
            let turn = "SELECT 1 FROM turns WHERE tenant = $1 AND id = $2";
            match tx.query(turn, args![tenant, &holder.turn]).await?.is_empty() {
                true => Ok(()),
                false => Err(SqlError::Refused(StoreError::Fenced)),
            }
        }
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
        "UPDATE sessions SET id = $1, seq = 0, summarised_through = 0, audit_hash = '', audit_n = 0, updated_at = $2,
             turn_id = NULL, lease_until = NULL
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
    delete_all(tx, tenant, key, Some(from)).await
}

/// Deletes whatever of a session can be found.
async fn delete_all<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    key: &SessionKey,
    present: Option<&SessionId>,
) -> Result<(), SqlError> {
    jobs::delete_of_session(tx, tenant, key).await?;
    let past = "SELECT session_id FROM past_transcripts WHERE tenant = $1 AND session_key = $2";
    let rows = tx.query(past, args![tenant, key]).await?;
    let mut transcripts = read_each(tx, ("past_transcripts", 1), rows, Row::id::<SessionId>);
    transcripts.extend(present.cloned());
    for id in &transcripts {
        tx.execute("DELETE FROM messages WHERE tenant = $1 AND session_id = $2", args![tenant, id]).await?;
    }
    // `tenant || ''` keeps the planner from walking all turns of the tenant instead of those of the session.
    let keys = "SELECT principal, idempotency_key, id FROM turns
         WHERE session_key = $1 AND tenant || '' = $2 AND idempotency_key IS NOT NULL";
    let rows = tx.query(keys, args![key, tenant]).await?;
    let keys = read_each(tx, ("turns", 3), rows, |row| Ok((row.text()?, row.text()?, row.id::<TurnId>()?)));
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

/// [`crate::session::SessionIndex::repair`].
pub(in crate::adapters::onprem) async fn repair<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    key: &SessionKey,
    agents: Option<&[AgentId]>,
    to: &Becomes,
    now: Timestamp,
) -> Result<Option<Session>, SqlError> {
    const MISSING: SqlError = SqlError::Refused(StoreError::NotFound);
    let find = locking!(
        "SELECT tenant, session_key, id, agent_id, user_id, channel, created_at, updated_at, epoch, seq,
             summarised_through, turn_id, lease_until, fence, tries, audit_hash, audit_n
         FROM sessions WHERE tenant = $1 AND session_key = $2"
    );
    let Some(row) = tx.query(find.of::<T>(), args![tenant, key]).await?.into_iter().next() else {
        return Err(MISSING);
    };
    let head = LastWords::read(row);
    if head.is_sound {
        return Err(MISSING);
    }
    let is_allowed = |agents: &[AgentId]| head.agent.as_ref().is_some_and(|agent| agents.contains(agent));
    if !agents.is_none_or(is_allowed) {
        return Err(MISSING);
    }
    let id = match to {
        Becomes::Nothing => {
            delete_all(tx, tenant, key, head.id.as_ref()).await?;
            return Ok(None);
        }
        Becomes::Empty(id) => id,
    };
    let Some(agent) = &head.agent else {
        let source = "its agent cannot be read".into();
        let what = "this session's agent (the session can be deleted)";
        return Err(SqlError::Refused(StoreError::Unreadable { what, source }));
    };
    if let Some(old) = &head.id {
        let put_away = "INSERT INTO past_transcripts (tenant, session_key, session_id) VALUES ($1, $2, $3)
             ON CONFLICT (tenant, session_key, session_id) DO NOTHING";
        tx.execute(put_away, args![tenant, key, old]).await?;
    }
    tx.execute(
        "UPDATE sessions SET id = $1, agent_id = $2, user_id = $3, channel = $4, created_at = $5, updated_at = $6,
             epoch = 0, seq = 0, summarised_through = 0, fence = $7, turn_id = NULL, lease_until = NULL, tries = 0,
             audit_hash = '', audit_n = 0
         WHERE tenant = $8 AND session_key = $9",
        args![
            id,
            agent,
            head.user.as_ref(),
            &head.channel,
            head.created_at.unwrap_or(now),
            now,
            head.fence,
            tenant,
            key
        ],
    )
    .await?;
    present(tx, tenant, key).await.map(Some)
}

/// What can be read of a session's row.
struct LastWords {
    id: Option<SessionId>,
    agent: Option<AgentId>,
    user: Option<String>,
    channel: String,
    created_at: Option<Timestamp>,
    fence: u64,
    /// All of it.
    is_sound: bool,
}

impl LastWords {
    fn read(mut row: Row) -> Self {
        let mut is_sound = row.text().is_ok() & row.text().is_ok();
        let mut note = |is_read: bool| is_sound &= is_read;
        let (id, agent) = (row.id::<SessionId>(), row.id::<AgentId>());
        let (user, channel, created_at) = (row.opt_text(), row.text(), row.time());
        note(id.is_ok() && agent.is_ok() && user.is_ok() && channel.is_ok() && created_at.is_ok());
        note(row.time().is_ok());
        let (epoch, seq, through) = (row.count::<u64>(), row.count::<u64>(), row.count::<u64>());
        note(epoch.is_ok() && seq.is_ok() && through.is_ok());
        // Read by hand, so that the columns behind it stay in their places.
        let (turn, until) = (row.opt_text(), row.opt_time());
        note(matches!((&turn, &until), (Ok(Some(_)), Ok(Some(_))) | (Ok(None), Ok(None))));
        let (fence, tries) = (row.count::<u64>(), row.count::<u32>());
        note(fence.is_ok() && tries.is_ok());
        note(row.text().is_ok());
        note(row.count::<u64>().is_ok());
        Self {
            id: id.ok(),
            agent: agent.ok(),
            user: user.unwrap_or(None),
            channel: channel.unwrap_or_default(),
            created_at: created_at.ok(),
            fence: fence.unwrap_or(0),
            is_sound,
        }
    }
}
