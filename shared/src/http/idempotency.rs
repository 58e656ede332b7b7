//! `Idempotency-Key`: the same key with the same request gets the same answer, also after a crash.
//!
//! A turn carries its [`Idempotency`] into its own acceptance. Every other POST goes through [`once`].

use super::Gateway;
use super::auth::Caller;
use super::error::ApiError;
use crate::answer::{Answer, AnswerKey, Claim};
use crate::audit::{chain_hash, hex};
use crate::bounds::IDEMPOTENCY_KEY_BYTES;
use crate::error::{Error, ErrorKind, StoreError};
use crate::session::Idempotency;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// The request's header.
pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The answer's header: this answer was given before.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Headers that change what a request means.
const MEANINGFUL: [&str; 5] = [
    "x-openclaw-agent-id",
    "x-openclaw-agent",
    "x-openclaw-session-key",
    "x-openclaw-model",
    "x-openclaw-message-channel",
];

/// The client's key, if it sent one, with what it asks for.
///
/// # Errors
/// 400: not 1 to 255 visible ASCII characters, or sent twice.
pub(super) fn of(route: &str, headers: &HeaderMap, body: &[u8]) -> Result<Option<Idempotency>, ApiError> {
    let mut keys = headers.get_all(KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    if keys.next().is_some() {
        return Err(ApiError::invalid_at("Idempotency-Key", "`Idempotency-Key` must be sent once"));
    }
    let key = check(&String::from_utf8_lossy(key.as_bytes()), "Idempotency-Key")?;
    Ok(Some(Idempotency { key, fingerprint: fingerprint(route, headers, body) }))
}

/// As [`of`], for surfaces whose body may hold the key, too.
///
/// # Errors
/// 400: as [`of`], or the two differ.
pub(super) fn of_body(
    route: &str,
    headers: &HeaderMap,
    in_body: Option<&str>,
    body: &[u8],
) -> Result<Option<Idempotency>, ApiError> {
    let in_header = of(route, headers, body)?;
    let Some(key) = in_body else { return Ok(in_header) };
    let key = check(key, "idempotencyKey")?;
    match in_header {
        Some(other) if other.key != key => {
            let message = "`idempotencyKey` and the header `Idempotency-Key` differ";
            Err(ApiError::invalid_at("idempotencyKey", message))
        }
        Some(same) => Ok(Some(same)),
        None => Ok(Some(Idempotency { key, fingerprint: fingerprint(route, headers, body) })),
    }
}

/// An identifier in the form of a ULID that the same request under the same key of the same caller always gives: what is
/// made under it is made once, even if a crash comes between making it and answering, or the answer is forgotten. Another
/// request under a key that is free again gives another one, so that it is not taken for what was made before.
pub(super) fn id_of(caller: &Caller, route: &str, idempotency: &Idempotency) -> String {
    let Idempotency { key, fingerprint } = idempotency;
    let digest = chain_hash(&[caller.tenant.as_str(), caller.id.as_str(), route, key, fingerprint]);
    let number = digest.get(..32).and_then(|half| u128::from_str_radix(half, 16).ok());
    ulid::Ulid::from(number.unwrap_or_default()).to_string()
}

/// A key that is well formed.
///
/// # Errors
/// 400, naming `param`.
pub(super) fn check(key: &str, param: &str) -> Result<String, ApiError> {
    if (1..=IDEMPOTENCY_KEY_BYTES).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(key.to_owned())
    } else {
        let message = format!("`{param}` must be 1 to 255 visible ASCII characters");
        Err(ApiError::invalid_at(param, message))
    }
}

/// SHA-256 in hex over the route, the headers that change the meaning, and the body's bytes; each part behind its
/// length, so that no two requests give the same bytes.
pub(super) fn fingerprint(route: &str, headers: &HeaderMap, body: &[u8]) -> String {
    let mut hasher = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_be_bytes());
        hasher.update(bytes);
    };
    part(route.as_bytes());
    for name in MEANINGFUL {
        for value in headers.get_all(name) {
            part(name.as_bytes());
            part(value.as_bytes());
        }
    }
    part(body);
    hex(&hasher.finalize())
}

/// What the same request is answered when its first try was begun and never answered.
pub(super) enum CutShort {
    /// It is done again: under [`id_of`] the key that is the same.
    Again,
    /// This, for good: a second try might do it twice.
    Parked(ApiError),
}

/// Does `work` once per key and keeps its answer. Without a key it is just done.
///
/// The key is claimed for `hold`, which `work` should not outlast. A failure that can pass gives the claim back; any
/// other failure is an answer like others. If the process dies or the caller leaves meanwhile, the key is busy until
/// the claim runs out, and then answered as `cut_short` says.
///
/// # Errors
/// 409 while the same key is at work, 422 when it was used for something else, and those of `work`.
pub(super) async fn once(
    gateway: &Gateway,
    caller: &Caller,
    idempotency: Option<Idempotency>,
    hold: Duration,
    cut_short: CutShort,
    work: impl Future<Output = Result<Answer, ApiError>>,
) -> Result<Response, ApiError> {
    let Some(idempotency) = idempotency else { return Ok(to_response(work.await?)) };
    let (answers, clock) = (&gateway.app.stores.answers, &gateway.app.clock);
    let key = AnswerKey { tenant: caller.tenant.clone(), principal: caller.id.clone(), idempotency };
    let now = clock.now();
    match answers.claim(&key, now, now + hold).await? {
        Claim::Claimed => {}
        Claim::Abandoned => {
            if let CutShort::Parked(error) = cut_short {
                answers.store(&key, &error.to_answer(), now).await?;
                return Err(error);
            }
        }
        Claim::Answered(answer) => {
            let mut response = to_response(answer);
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            return Ok(response);
        }
        Claim::Unreadable => return Err(unreadable()),
        Claim::Busy { until } => return Err(busy(until.since(now))),
        Claim::Mismatch => return Err(mismatch()),
    }
    let answer = match work.await {
        Ok(answer) => answer,
        Err(error) if error.status().is_server_error() || error.kind().is_retryable() => {
            answers.release(&key).await?;
            return Err(error);
        }
        Err(error) => {
            error.log();
            error.to_answer()
        }
    };
    if let Err(error) = answers.store(&key, &answer, clock.now()).await {
        let is_too_large = matches!(error, StoreError::TooLarge { .. } | StoreError::TooDeep { .. });
        let error = ApiError::from(error);
        if is_too_large {
            // What was done is done: the key says so for good instead of doing it again when its claim has run out.
            answers.store(&key, &error.to_answer(), clock.now()).await?;
        }
        return Err(error);
    }
    Ok(to_response(answer))
}

/// [`once`] for work that does the same under [`id_of`] the key, however often: its key is claimed as long as a turn's
/// lease, after which another process takes over what a dead one had begun.
///
/// # Errors
/// Those of [`once`].
pub(super) async fn redo(
    gateway: &Gateway,
    caller: &Caller,
    idempotency: Option<Idempotency>,
    work: impl Future<Output = Result<Answer, ApiError>>,
) -> Result<Response, ApiError> {
    once(gateway, caller, idempotency, gateway.app.config.turns.lease, CutShort::Again, work).await
}

fn busy(wait: Duration) -> ApiError {
    let message = "a request with this idempotency key is still at work";
    // The claim's end is the worst case; most work is done within seconds.
    Error::new(ErrorKind::Conflict, message).after(wait.min(Duration::from_secs(5))).into()
}

/// Whatever was done under the key is done; to say so again for good is better than to do it twice.
fn unreadable() -> ApiError {
    ApiError::not_found(
        "this idempotency key was answered before, but the answer cannot be read any more; to ask again, use a new key",
    )
}

fn mismatch() -> ApiError {
    ApiError::new(ErrorKind::Mismatch, "this idempotency key was used for another request")
}

/// The answer on its way out.
fn to_response(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, answer.body).into_response();
    if let Ok(value) = HeaderValue::from_str(&answer.content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_requests_apart_by_route_headers_and_body() {
        let none = HeaderMap::new();
        let mut agent = HeaderMap::new();
        agent.insert("x-openclaw-agent-id", HeaderValue::from_static("a"));
        let mut session = HeaderMap::new();
        session.insert("x-openclaw-session-key", HeaderValue::from_static("a"));
        let mut irrelevant = HeaderMap::new();
        irrelevant.insert("user-agent", HeaderValue::from_static("a"));
        let all = [
            fingerprint("/a", &none, b"b"),
            fingerprint("/ab", &none, b""),
            fingerprint("/a", &none, b"c"),
            fingerprint("/a", &agent, b"b"),
            fingerprint("/a", &session, b"b"),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(fingerprint("/a", &irrelevant, b"b"), all[0]);
    }
}
