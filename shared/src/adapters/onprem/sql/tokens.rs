//! Tokens in SQL.

use super::{Row, SqlError, Tx, args, or_unreadable, read_each, read_first, to_json};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{PrincipalId, TenantId};
use crate::principal::Token;

pub(super) fn read(row: &mut Row) -> Result<Token, SqlError> {
    Ok(Token {
        id: row.id()?,
        tenant: row.id()?,
        name: row.text()?,
        secret_sha256: row.text()?,
        scopes: row.json()?,
        agents: row.opt_json()?,
        cidrs: row.opt_json()?,
        limit: row.opt_json()?,
        created_at: row.time()?,
        expires_at: row.opt_time()?,
        revoked_at: row.opt_time()?,
    })
}

/// [`crate::principal::TokenStore::insert`].
pub(in crate::adapters::onprem) async fn insert<T: Tx>(tx: &mut T, token: &Token) -> Result<(), SqlError> {
    if find(tx, &token.id).await?.is_some() {
        return Err(SqlError::Refused(StoreError::Broken("this token id is taken".into())));
    }
    let scopes = to_json(&token.scopes).map_err(SqlError::Refused)?;
    let agents = token.agents.as_ref().map(to_json).transpose().map_err(SqlError::Refused)?;
    let cidrs = token.cidrs.as_ref().map(to_json).transpose().map_err(SqlError::Refused)?;
    let limit = token.limit.as_ref().map(to_json).transpose().map_err(SqlError::Refused)?;
    tx.execute(
        "INSERT INTO tokens (id, tenant, name, secret_sha256, scopes, agents, cidrs, rate_limit, created_at,
             expires_at, revoked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        args![
            &token.id,
            &token.tenant,
            &token.name,
            &token.secret_sha256,
            &scopes,
            agents.as_ref(),
            cidrs.as_ref(),
            limit.as_ref(),
            token.created_at,
            token.expires_at,
            token.revoked_at,
        ],
    )
    .await?;
    Ok(())
}

/// [`crate::principal::TokenStore::insert_first`]: nobody else writes between the look and the token.
pub(in crate::adapters::onprem) async fn insert_first<T: Tx>(
    tx: &mut T,
    token: &Token,
) -> Result<bool, SqlError> {
    let any = "SELECT 1 FROM tokens WHERE tenant = $1 LIMIT 1";
    if !tx.query(any, args![&token.tenant]).await?.is_empty() {
        return Ok(false);
    }
    insert(tx, token).await?;
    Ok(true)
}

/// [`crate::principal::TokenStore::find`].
pub(in crate::adapters::onprem) async fn find<T: Tx>(
    tx: &mut T,
    id: &PrincipalId,
) -> Result<Option<Token>, SqlError> {
    let rows = tx.query(
        "SELECT id, tenant, name, secret_sha256, scopes, agents, cidrs, rate_limit, created_at, expires_at, revoked_at
         FROM tokens WHERE id = $1",
        args![id],
    ).await?;
    or_unreadable(tx, "tokens", || id.to_string(), "the token", read_first(rows, read))
}

/// [`crate::principal::TokenStore::list`].
pub(in crate::adapters::onprem) async fn list<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
) -> Result<Vec<Token>, SqlError> {
    let rows = tx.query(
        "SELECT id, tenant, name, secret_sha256, scopes, agents, cidrs, rate_limit, created_at, expires_at, revoked_at
         FROM tokens WHERE tenant = $1 ORDER BY created_at, id",
        args![tenant],
    ).await?;
    Ok(read_each(tx, ("tokens", 1), rows, read))
}

/// [`crate::principal::TokenStore::revoke`].
pub(in crate::adapters::onprem) async fn revoke<T: Tx>(
    tx: &mut T,
    tenant: &TenantId,
    id: &PrincipalId,
    now: Timestamp,
) -> Result<(), SqlError> {
    let revoke = "UPDATE tokens SET revoked_at = COALESCE(revoked_at, $1) WHERE tenant = $2 AND id = $3";
    match tx.execute(revoke, args![now, tenant, id]).await? {
        0 => Err(SqlError::Refused(StoreError::NotFound)),
        _ => Ok(()),
    }
}
