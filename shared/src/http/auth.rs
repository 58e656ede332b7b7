//! Who calls: from a request's credential to a [`Caller`], within its rate limit.

use super::Gateway;
use super::error::ApiError;
use super::lockout::{Door, Lockout};
use super::peer::Peer;
use super::trace::Who;
use crate::bounds::TOKENS_REMEMBERED;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, StoreError};
use crate::id::PrincipalId;
use crate::limit::Decision;
use crate::principal::{Principal, Scope, Token, split_token};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use lru::LruCache;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// For how long: a revocation takes effect at the latest after this time.
const KEPT_FOR: Duration = Duration::from_secs(1);

/// An authenticated caller that is within its rate limit.
#[derive(Debug, Clone)]
pub(super) struct Caller(Arc<Principal>);

impl Deref for Caller {
    type Target = Principal;
    fn deref(&self) -> &Principal {
        &self.0
    }
}

impl Caller {
    /// Goes on only if the caller may do what `scope` stands for.
    ///
    /// # Errors
    /// 403, naming the scope.
    pub(super) fn needs(&self, scope: Scope) -> Result<(), ApiError> {
        if self.may(scope) { Ok(()) } else { Err(ApiError::missing_scope(scope)) }
    }
}

impl FromRequestParts<Arc<Gateway>> for Caller {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, gateway: &Arc<Gateway>) -> Result<Self, ApiError> {
        admit(gateway, parts, Door::Api).await
    }
}

/// The caller of a hook: may bring its token in OpenClaw's own header, too.
#[derive(Debug, Clone)]
pub(super) struct HookCaller(pub(super) Caller);

impl FromRequestParts<Arc<Gateway>> for HookCaller {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, gateway: &Arc<Gateway>) -> Result<Self, ApiError> {
        let in_query =
            |query: &str| query.split('&').any(|pair| pair == "token" || pair.starts_with("token="));
        if parts.uri.query().is_some_and(in_query) {
            let message = "A token must not stand in the address, where logs keep it. Send it as a header.";
            return Err(ApiError::invalid_at("token", message).ok_false());
        }
        admit(gateway, parts, Door::Hooks).await.map(Self)
    }
}

/// Authenticates, and takes one request from the caller's rate limit.
async fn admit(gateway: &Gateway, parts: &Parts, door: Door) -> Result<Caller, ApiError> {
    let caller = authenticate(gateway, parts, door).await?;
    let app = &gateway.app;
    let limit = caller.limit.unwrap_or(app.config.gateway.limit);
    let subject = format!("{}/{}", caller.tenant, caller.id);
    match app.stores.limits.take(&subject, limit, app.clock.now()).await {
        Ok(Decision::Allowed) => Ok(caller),
        Ok(Decision::Denied { retry_after }) => {
            let message = "Too many requests. Try again after the time in `Retry-After`.";
            Err(ApiError::new(ErrorKind::RateLimited, message).after(retry_after))
        }
        // A limiter that is away must not stop everybody; the store that holds the work says so itself.
        Err(error) => {
            let cause = Error::from(error).cause();
            tracing::warn!(target: "error", { cause }, "the rate limiter did not answer; the request goes on");
            Ok(caller)
        }
    }
}

/// Finds out who calls, without counting the request.
pub(super) async fn authenticate(gateway: &Gateway, parts: &Parts, door: Door) -> Result<Caller, ApiError> {
    let now = gateway.app.clock.now();
    let peer = Peer::of(parts, &gateway.app.config.gateway)?;
    let lockout = &gateway.credentials.lockout;
    if let Some(wait) = peer.ip.and_then(|ip| lockout.remaining(door, ip, now)) {
        let message = "Too many failed authentication attempts. Please try again later.";
        return Err(ApiError::new(ErrorKind::RateLimited, message).with_type("rate_limited").after(wait));
    }
    let credential = match credential(&parts.headers, door) {
        Ok(credential) => credential,
        Err(missing) => {
            if missing == Missing::Bearer {
                Refused { reason: "not_bearer", token: None }.log(peer.ip);
            }
            return Err(ApiError::unauthorized_for(missing.told()));
        }
    };
    if !peer.private {
        let message = "A token must not travel over plain HTTP. Use HTTPS; if TLS ends at a proxy in front of the \
                       gateway, put the proxy's address into `gateway.trustedProxies` and let it send \
                       `X-Forwarded-For` and `X-Forwarded-Proto: https`.";
        return Err(ApiError::new(ErrorKind::Forbidden, message).with_code("tls_required"));
    }
    let token = match gateway.credentials.check(gateway, credential, now).await? {
        Ok(token) => token,
        Err(refused) => {
            if let Some(ip) = peer.ip {
                lockout.failed(door, ip, now);
            }
            refused.log(peer.ip);
            return Err(match refused.reason {
                MALFORMED => ApiError::unauthorized_for(FOREIGN),
                // Which of the others it is would tell somebody who guesses.
                _ => ApiError::unauthorized(),
            });
        }
    };
    if let Some(cidrs) = &token.cidrs
        && !peer.ip.is_some_and(|ip| cidrs.iter().any(|net| net.contains(&ip)))
    {
        return Err(ApiError::new(ErrorKind::Forbidden, "this token may not be used from this address"));
    }
    if let Some(Who(who)) = parts.extensions.get::<Who>() {
        let _ = who.set(token.id.clone());
    }
    Ok(Caller(Arc::new(Principal::from(&*token))))
}

/// The credential that the caller brought, as far as it can be one.
fn credential(headers: &HeaderMap, door: Door) -> Result<&str, Missing> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let bearer = || {
        let (scheme, token) = text(header::AUTHORIZATION.as_str())?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    };
    let hook = || (door == Door::Hooks).then(|| text("x-openclaw-token")).flatten();
    let found = bearer().or_else(|| text("x-api-key")).or_else(hook).filter(|token| !token.is_empty());
    let is_other = || headers.get(header::AUTHORIZATION).is_some_and(|value| !value.is_empty());
    found.ok_or_else(|| if is_other() { Missing::Bearer } else { Missing::Header })
}

/// What of a credential is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// All of it.
    Header,
    /// There is an `Authorization`, but of another kind.
    Bearer,
}

impl Missing {
    /// What the caller is told.
    const fn told(self) -> &'static str {
        match self {
            Self::Header => "no token was sent; send it as `Authorization: Bearer reef_<id>_<secret>`",
            Self::Bearer => "`Authorization` must be the word `Bearer`, a space, and the token",
        }
    }
}

/// What a caller is told whose credential cannot be one of ours.
const FOREIGN: &str = "what was sent is no token of this gateway; they look like `reef_<id>_<secret>`, and `reef token create` makes one";

/// Why a credential was refused that has not the form of a token.
const MALFORMED: &str = "malformed";

/// Letters of a token's id; what is longer may be a secret that stands in the wrong place.
const ID_LETTERS: usize = 26;

/// Why a credential was refused; for the log alone.
#[derive(Debug)]
struct Refused {
    reason: &'static str,
    /// The id that it names, if it names one.
    token: Option<PrincipalId>,
}

impl Refused {
    fn log(&self, peer: Option<IpAddr>) {
        let peer = peer.map(|ip| ip.to_string());
        let token = self.token.as_ref().map(PrincipalId::as_str).filter(|id| id.len() <= ID_LETTERS);
        tracing::warn!(target: "operation", { peer, reason = self.reason, token }, "a wrong credential");
    }
}

/// What this gateway remembers of credentials.
#[derive(Debug)]
pub(super) struct Credentials {
    tokens: Mutex<LruCache<PrincipalId, (Timestamp, Arc<Token>)>>,
    lockout: Lockout,
}

impl Credentials {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self { tokens: Mutex::new(LruCache::new(TOKENS_REMEMBERED)), lockout: Lockout::new() }
    }

    /// The live token that the text is, or why it is none.
    async fn check(
        &self,
        gateway: &Gateway,
        text: &str,
        now: Timestamp,
    ) -> Result<Result<Arc<Token>, Refused>, ApiError> {
        let Some((id, secret)) = split_token(text) else {
            return Ok(Err(Refused { reason: MALFORMED, token: None }));
        };
        let found = self.find(gateway, id.clone(), now).await?;
        let refused = |reason| Err(Refused { reason, token: Some(id) });
        // The secret first: who does not have it learns nothing of the rest, by the time it takes either.
        Ok(match found {
            None => refused("unknown"),
            Some(token) if !token.has_secret(secret) => refused("wrong_secret"),
            Some(token) if token.is_live(now) => Ok(token),
            Some(token) if token.revoked_at.is_some() => refused("revoked"),
            Some(_) => refused("expired"),
        })
    }

    async fn find(
        &self,
        gateway: &Gateway,
        id: PrincipalId,
        now: Timestamp,
    ) -> Result<Option<Arc<Token>>, StoreError> {
        if let Some(token) = self.kept(&id, now) {
            return Ok(Some(token));
        }
        let found = match gateway.app.stores.tokens.find(&id).await {
            // Whose it is cannot be told, so it is nobody's.
            Err(StoreError::Unreadable { .. }) => None,
            found => found?.map(Arc::new),
        };
        if let Some(token) = &found {
            let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.put(id, (now, token.clone()));
        }
        Ok(found)
    }

    fn kept(&self, id: &PrincipalId, now: Timestamp) -> Option<Arc<Token>> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let (read_at, token) = tokens.get(id)?;
        (*read_at <= now && now.since(*read_at) < KEPT_FOR).then(|| token.clone())
    }
}
