//! Who calls: tokens, scopes, and the [`TokenStore`] port.

use crate::audit::hex;
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{AgentId, IdSource, PrincipalId, TenantId};
use crate::limit::Limit;
use crate::quote::quoted;
use crate::secret::Secret;
use async_trait::async_trait;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use subtle::ConstantTimeEq;

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Turns: chat completions, responses, models, and the turns it started itself.
    Chat,
    /// Read, reset and delete sessions.
    Sessions,
    /// Call tools directly.
    Tools,
    /// Hand in work by hooks.
    Hooks,
    /// Read metrics and details of readiness.
    Metrics,
    /// Everything.
    Admin,
}

impl Scope {
    /// Every scope, in the order of the documentation.
    pub const ALL: [Self; 6] =
        [Self::Chat, Self::Sessions, Self::Tools, Self::Hooks, Self::Metrics, Self::Admin];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Sessions => "sessions",
            Self::Tools => "tools",
            Self::Hooks => "hooks",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            format!("unknown scope `{}`; known are {known}", quoted(text))
        })
    }
}

/// A token as stored: everything but its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// Its id, the middle part of `reef_<id>_<secret>`; also the principal's id.
    pub id: PrincipalId,
    /// Whose data it opens.
    pub tenant: TenantId,
    /// A person's name for it.
    pub name: String,
    /// SHA-256 of the secret, in hex.
    pub secret_sha256: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// With which agents; `None` for all.
    pub agents: Option<Vec<AgentId>>,
    /// From where; `None` for anywhere.
    pub cidrs: Option<Vec<IpNet>>,
    /// Its own rate limit; `None` for the installation's.
    pub limit: Option<Limit>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Not valid from then on.
    pub expires_at: Option<Timestamp>,
    /// Revoked then.
    pub revoked_at: Option<Timestamp>,
}

/// What a new token is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct NewToken {
    /// A person's name for it.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// With which agents; `None` for all.
    pub agents: Option<Vec<AgentId>>,
    /// From where; `None` for anywhere.
    pub cidrs: Option<Vec<IpNet>>,
    /// Its own rate limit; `None` for the installation's.
    pub limit: Option<Limit>,
    /// Not valid from then on.
    pub expires_at: Option<Timestamp>,
}

impl NewToken {
    /// A token that may do everything.
    pub fn admin(name: impl Into<String>) -> Self {
        let (agents, cidrs, limit, expires_at) = (None, None, None, None);
        Self { name: name.into(), scopes: vec![Scope::Admin], agents, cidrs, limit, expires_at }
    }

    /// Makes it, with a new id and secret: what to store, and `reef_<id>_<secret>`, which nobody can see again.
    pub fn mint(self, tenant: TenantId, ids: &dyn IdSource, now: Timestamp) -> (Token, Secret) {
        let id = ids.ulid(now);
        let secret = ids.secret();
        let text = Secret::new(format!("reef_{id}_{secret}"));
        let token = Token {
            id: PrincipalId::new(id),
            tenant,
            name: self.name,
            secret_sha256: secret_sha256(&secret),
            scopes: self.scopes,
            agents: self.agents,
            cidrs: self.cidrs,
            limit: self.limit,
            created_at: now,
            expires_at: self.expires_at,
            revoked_at: None,
        };
        (token, text)
    }
}

impl Token {
    /// Whether `secret` is this token's, compared in constant time.
    pub fn has_secret(&self, secret: &str) -> bool {
        bool::from(secret_sha256(secret).as_bytes().ct_eq(self.secret_sha256.as_bytes()))
    }

    /// Whether it is neither expired nor revoked at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expiry| now < expiry)
    }
}

/// SHA-256 of a token's secret, in hex. A secret has 256 random bits, so no salt and no slow hash is needed.
pub fn secret_sha256(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

/// Splits `reef_<id>_<secret>`; `None` if it is not of that form.
pub fn split_token(text: &str) -> Option<(PrincipalId, &str)> {
    let (id, secret) = text.strip_prefix("reef_")?.split_once('_')?;
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (plain(id) && plain(secret)).then(|| (PrincipalId::new(id), secret))
}

/// Who calls, after the credential was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Principal {
    /// The token's id.
    pub id: PrincipalId,
    /// Whose data.
    pub tenant: TenantId,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// With which agents; `None` for all.
    pub agents: Option<Vec<AgentId>>,
    /// Its own rate limit.
    pub limit: Option<Limit>,
}

impl Principal {
    /// Whether it may do what `scope` stands for.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|held| *held == scope || *held == Scope::Admin)
    }

    /// Whether it may use this agent.
    pub fn may_use(&self, agent: &AgentId) -> bool {
        self.agents.as_ref().is_none_or(|agents| agents.contains(agent))
    }
}

impl From<&Token> for Principal {
    fn from(token: &Token) -> Self {
        Self {
            id: token.id.clone(),
            tenant: token.tenant.clone(),
            scopes: token.scopes.clone(),
            agents: token.agents.clone(),
            limit: token.limit,
        }
    }
}

/// Keeps tokens.
#[async_trait]
pub trait TokenStore: Send + Sync {
    /// Stores a new token.
    ///
    /// # Errors
    /// [`StoreError::Broken`] if the id is taken.
    async fn insert(&self, token: &Token) -> Result<(), StoreError>;

    /// Stores a tenant's first token, unless it has one, expired and revoked ones included. Of two processes that do this at
    /// the same time one succeeds. `false` if nothing was stored.
    ///
    /// # Errors
    /// As [`TokenStore::insert`].
    async fn insert_first(&self, token: &Token) -> Result<bool, StoreError>;

    /// The token with this id, expired and revoked ones included.
    async fn find(&self, id: &PrincipalId) -> Result<Option<Token>, StoreError>;

    /// All tokens of a tenant, oldest first, expired and revoked ones included.
    async fn list(&self, tenant: &TenantId) -> Result<Vec<Token>, StoreError>;

    /// Revokes from `now` on; revoking again keeps the first time.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    async fn revoke(&self, tenant: &TenantId, id: &PrincipalId, now: Timestamp) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RandomIds;

    #[test]
    fn a_new_tokens_text_leads_back_to_it_and_proves_it() {
        let now = Timestamp::from_millis(1_000);
        let (token, text) = NewToken::admin("first").mint(TenantId::single(), &RandomIds, now);
        let (id, secret) = split_token(text.expose()).unwrap();
        assert_eq!(id, token.id);
        assert!(token.has_secret(secret));
        assert!(!token.has_secret("0"));
        assert!(!token.secret_sha256.contains(secret));
        let (_, other) = NewToken::admin("second").mint(TenantId::single(), &RandomIds, now);
        assert_ne!(text, other);
    }
}
