//! What a failed call means: from status, the vendor's error body and `Retry-After` to a [`ModelError`].
//!
//! One table for both protocols: their error names do not collide, and servers that speak OpenAI's protocol borrow
//! from either. A caller hears a sentence of ours; the vendor's own words are passed on only where the caller can
//! act on them (a refused request), with every secret of the provider blotted out.

use crate::bounds::VENDOR_WORDS_CHARS;
use crate::error::Source;
use crate::model::{ModelError, ModelFailure, ModelRef};
use crate::quote::quoted;
use crate::secret::Secret;
use http::HeaderMap;
use serde_json::Value;
use std::time::Duration;

/// A failure before it is told for a certain model and provider.
#[derive(Debug)]
pub struct Fault {
    /// Why.
    pub failure: ModelFailure,
    /// For the caller, behind the standing sentence of the failure; may quote the vendor. Often empty.
    pub detail: String,
    /// For the log; may quote the vendor.
    pub log: String,
    /// The vendor's wish.
    pub retry_after: Option<Duration>,
    /// The cause, if it is an error of a library. Must not print addresses or keys.
    pub source: Option<Source>,
}

impl Fault {
    /// The answer breaks the protocol.
    pub fn protocol(log: impl Into<String>) -> Self {
        Self::new(ModelFailure::Protocol, log)
    }

    /// The answer ended before its end.
    pub fn broken_off() -> Self {
        Self::new(ModelFailure::Network, "the stream ended before the answer did")
    }

    fn new(failure: ModelFailure, log: impl Into<String>) -> Self {
        Self { failure, detail: String::new(), log: log.into(), retry_after: None, source: None }
    }

    /// An error that the vendor sent: as the body of a refusal with its `status` and `headers`, or as an event
    /// within a stream, without both.
    pub fn of_vendor(status: Option<u16>, headers: Option<&HeaderMap>, error: &VendorError) -> Self {
        let failure = error.failure(status);
        let mut fault = Self::new(failure, String::new());
        if failure == ModelFailure::Refused {
            fault.detail.clone_from(&error.message);
        }
        let status = status.map(|status| format!("status {status}, ")).unwrap_or_default();
        let request = headers
            .and_then(|headers| headers.get("request-id").or_else(|| headers.get("x-request-id")))
            .and_then(|id| id.to_str().ok())
            .map(|id| format!(", request {id}"))
            .unwrap_or_default();
        // A vendor may quote a part of a refused key.
        let message = if failure == ModelFailure::Credential { "" } else { error.message.as_str() };
        fault.log = format!("{status}{}: {message}{request}", error.name());
        fault.retry_after = headers.and_then(retry_after);
        fault
    }

    /// A call that the HTTP client gave up.
    pub fn of_client(error: reqwest::Error) -> Self {
        let failure = if error.is_timeout() { ModelFailure::Timeout } else { ModelFailure::Network };
        let log = if error.is_connect() { "while connecting" } else { "while the answer was awaited" };
        // The address may carry a password.
        Self { source: Some(Box::new(error.without_url())), ..Self::new(failure, log) }
    }

    /// This host cannot make calls at all: it has no certificate authorities.
    pub fn of_host(error: reqwest::Error) -> Self {
        let log = "no TLS on this host; are its CA certificates installed?";
        Self { source: Some(Box::new(error.without_url())), ..Self::new(ModelFailure::Network, log) }
    }

    /// The error for a caller of this model, all secrets blotted out.
    pub fn told(self, model: &ModelRef, secrets: &[Secret]) -> ModelError {
        let sentence = match self.failure {
            ModelFailure::Credential => "the vendor refused the provider's key; its operator must check it",
            ModelFailure::Billing => "the vendor's account is out of credit or quota; its operator must act",
            ModelFailure::UnknownModel => "the vendor has no such model, or the provider's base URL is wrong",
            ModelFailure::Refused => "the vendor refused the request",
            ModelFailure::ContextOverflow => "the prompt is longer than the model's context",
            ModelFailure::RateLimited => "the vendor asks for fewer requests; try again later",
            ModelFailure::Overloaded => "the vendor is overloaded or failing; try again later",
            ModelFailure::Timeout => "the vendor did not answer in time",
            ModelFailure::Network => "the vendor cannot be reached, or the connection broke off",
            ModelFailure::Protocol => "the vendor's answer is not in its own protocol",
        };
        let mut message = format!("{}: {sentence}", quoted(&model.to_string()));
        if !self.detail.is_empty() {
            message.push_str(": ");
            message.push_str(&blotted(&self.detail, secrets));
        }
        let mut error = ModelError::new(self.failure, message);
        error.retry_after = self.retry_after;
        error.source = Some(Box::new(Cause { log: blotted(&self.log, secrets), source: self.source }));
        error
    }
}

/// What only the log sees.
#[derive(Debug, thiserror::Error)]
#[error("{log}")]
struct Cause {
    log: String,
    #[source]
    source: Option<Source>,
}

/// The text without secrets, and not too long.
fn blotted(text: &str, secrets: &[Secret]) -> String {
    let mut text = Secret::blot(secrets, text);
    if let Some((end, _)) = text.char_indices().nth(VENDOR_WORDS_CHARS) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// An error as a vendor words it. The shapes seen: `{"error":{"type","code","message"}}` (both vendors; `code` may be
/// a number), `{"error":"…"}` (Ollama), `{"object":"error","type","code","message"}` (vLLM), `{"detail":…}`
/// (FastAPI in front of something).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VendorError {
    kind: String,
    code: String,
    message: String,
}

impl VendorError {
    /// From a body that may be anything.
    pub fn from_body(body: &[u8]) -> Self {
        serde_json::from_slice(body).map(|value| Self::from_value(&value)).unwrap_or_default()
    }

    /// From the JSON of a body or an event.
    pub fn from_value(value: &Value) -> Self {
        let error = value.get("error").filter(|error| !error.is_null()).unwrap_or(value);
        let text = |key: &str| match &error[key] {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => String::new(),
        };
        let message = match error {
            Value::String(text) => text.clone(),
            _ if error["message"].is_string() => text("message"),
            _ => text("detail"),
        };
        Self { kind: text("type"), code: text("code"), message }
    }

    /// What the vendor calls it, for the log.
    fn name(&self) -> String {
        match (self.code.as_str(), self.kind.as_str()) {
            ("", "") => "no error named".to_owned(),
            ("", kind) => kind.to_owned(),
            (code, kind) if kind == code || kind.is_empty() => code.to_owned(),
            (code, kind) => format!("{kind}/{code}"),
        }
    }

    fn failure(&self, status: Option<u16>) -> ModelFailure {
        for name in [self.code.as_str(), self.kind.as_str()] {
            let known = match name {
                "authentication_error" | "permission_error" | "invalid_api_key" => ModelFailure::Credential,
                "billing_error" | "insufficient_quota" | "billing_hard_limit_reached" => {
                    ModelFailure::Billing
                }
                "model_not_found" => ModelFailure::UnknownModel,
                "context_length_exceeded" | "exceed_context_size_error" | "request_too_large" => {
                    ModelFailure::ContextOverflow
                }
                "rate_limit_error" | "rate_limit_exceeded" => ModelFailure::RateLimited,
                "overloaded_error" => ModelFailure::Overloaded,
                "timeout_error" => ModelFailure::Timeout,
                _ => continue,
            };
            return known;
        }
        // Within a stream there is no status; some servers put it into `code`.
        let status = status.or_else(|| self.code.parse().ok());
        match status {
            Some(400 | 422) => self.refusal(),
            Some(401 | 403) => ModelFailure::Credential,
            Some(402) => ModelFailure::Billing,
            Some(404) => ModelFailure::UnknownModel,
            Some(408 | 504) => ModelFailure::Timeout,
            Some(413) => ModelFailure::ContextOverflow,
            Some(429) => ModelFailure::RateLimited,
            Some(500..) => ModelFailure::Overloaded,
            Some(405..500) => ModelFailure::Refused,
            // A redirect is never followed: it would carry the key to somewhere else.
            Some(_) => ModelFailure::Protocol,
            None if self.kind == "invalid_request_error" => self.refusal(),
            None if self.kind == "not_found_error" => ModelFailure::UnknownModel,
            None => ModelFailure::Overloaded,
        }
    }

    /// Two failures hide behind a plain refusal and are told apart by their words only.
    fn refusal(&self) -> ModelFailure {
        let words = self.message.to_lowercase();
        let says = |phrases: &[&str]| phrases.iter().any(|phrase| words.contains(phrase));
        if says(&["credit balance", "insufficient balance"]) {
            ModelFailure::Billing
        } else if says(&[
            "prompt is too long",
            "context limit",
            "context length",
            "context window",
            "context size",
            "maximum model length",
        ]) {
            ModelFailure::ContextOverflow
        } else {
            ModelFailure::Refused
        }
    }
}

/// The wait that a vendor asks for: `retry-after-ms`, or `Retry-After` as seconds or as a date. A date counts from the
/// answer's own `Date`, so that it needs no clock of ours and no agreement of clocks.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(millis) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(millis / 1000.0).ok();
    }
    let after = text("retry-after")?;
    if let Ok(seconds) = after.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = |text: &str| jiff::fmt::rfc2822::parse(text).ok().map(|date| date.timestamp());
    let (after, now) = (date(after)?, date(text("date")?)?);
    Some(Duration::try_from(after.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ModelFailure::{
        Billing, ContextOverflow, Credential, Overloaded, Protocol, RateLimited, Refused, Timeout,
        UnknownModel,
    };
    use serde_json::json;

    #[test]
    fn every_error_of_a_vendor_has_its_meaning() {
        let anthropic =
            |kind: &str, message: &str| json!({"type": "error", "error": {"type": kind, "message": message}});
        let openai = |kind: &str, code: Value, message: &str| json!({"error": {"type": kind, "code": code, "message": message, "param": null}});
        let invalid = "invalid_request_error";
        let cases = [
            (400, anthropic(invalid, "max_tokens: must be greater than 0"), Refused),
            (400, anthropic(invalid, "prompt is too long: 215000 tokens > 200000 maximum"), ContextOverflow),
            (
                400,
                anthropic(invalid, "input length and `max_tokens` exceed context limit: 1 + 2 > 2"),
                ContextOverflow,
            ),
            (400, anthropic(invalid, "Your credit balance is too low to access the API."), Billing),
            (401, anthropic("authentication_error", "invalid x-api-key"), Credential),
            (402, anthropic("billing_error", "pay"), Billing),
            (403, anthropic("permission_error", "no"), Credential),
            (404, anthropic("not_found_error", "model: claude-none"), UnknownModel),
            (413, anthropic("request_too_large", "Request exceeds the maximum size"), ContextOverflow),
            (429, anthropic("rate_limit_error", "slow"), RateLimited),
            (500, anthropic("api_error", "Internal server error"), Overloaded),
            (504, anthropic("timeout_error", "late"), Timeout),
            (529, anthropic("overloaded_error", "Overloaded"), Overloaded),
            (400, openai(invalid, json!("context_length_exceeded"), "too long"), ContextOverflow),
            (400, openai(invalid, json!("invalid_value"), "bad temperature"), Refused),
            (401, openai(invalid, json!("invalid_api_key"), "Incorrect API key provided"), Credential),
            (403, openai("unsupported_country", Value::Null, "not there"), Credential),
            (404, openai(invalid, json!("model_not_found"), "no model"), UnknownModel),
            (429, openai("insufficient_quota", json!("insufficient_quota"), "pay"), Billing),
            (429, openai("requests", json!("rate_limit_exceeded"), "slow"), RateLimited),
            (503, openai("server_error", Value::Null, "down"), Overloaded),
            (404, json!({"error": {"message": "model 'x' not found", "type": "api_error"}}), UnknownModel),
            (404, json!({"error": "model 'x' not found, try pulling it first"}), UnknownModel),
            (
                400,
                json!({"object": "error", "type": "BadRequestError", "code": 400,
                    "message": "This model's maximum context length is 4096 tokens."}),
                ContextOverflow,
            ),
            (422, json!({"detail": "messages: field required"}), Refused),
            (302, json!(null), Protocol),
            (402, json!("no object"), Billing),
            (418, json!({}), Refused),
            (502, json!([1]), Overloaded),
        ];
        for (status, body, expected) in cases {
            let error = VendorError::from_body(body.to_string().as_bytes());
            assert_eq!(error.failure(Some(status)), expected, "{status} {body}");
        }
        assert_eq!(VendorError::from_body(b"<html>Bad gateway</html>").failure(Some(502)), Overloaded);
    }

    #[test]
    fn an_error_within_a_stream_has_its_meaning_without_a_status() {
        let cases = [
            (
                json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
                Overloaded,
            ),
            (json!({"type": "error", "error": {"type": "api_error", "message": "oops"}}), Overloaded),
            (json!({"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}}), RateLimited),
            (json!({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}), Refused),
            (json!({"error": {"message": "no", "type": "BadRequestError", "code": 400}}), Refused),
            (json!({"error": {"message": "Provider returned error", "code": 502}}), Overloaded),
            (json!({"error": {"message": "late", "code": "408"}}), Timeout),
            (json!({"error": "unexpected EOF"}), Overloaded),
        ];
        for (event, expected) in cases {
            assert_eq!(VendorError::from_value(&event).failure(None), expected, "{event}");
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_wish_to_wait_is_read_as_seconds_milliseconds_or_a_date() {
        const DATE: (&str, &str) = ("date", "Fri, 20 Nov 2026 10:00:00 GMT");
        type Pairs = &'static [(&'static str, &'static str)];
        let cases: [(Pairs, Option<Duration>); 9] = [
            (&[("retry-after", "7")], Some(Duration::from_secs(7))),
            (&[("retry-after", " 1.5 ")], Some(Duration::from_millis(1500))),
            (&[("retry-after-ms", "250"), ("retry-after", "1")], Some(Duration::from_millis(250))),
            (&[("retry-after", "Fri, 20 Nov 2026 10:01:30 GMT"), DATE], Some(Duration::from_secs(90))),
            (&[("retry-after", "Fri, 20 Nov 2026 09:59:00 GMT"), DATE], Some(Duration::ZERO)),
            (&[("retry-after", "Fri, 20 Nov 2026 10:01:30 GMT")], None),
            (&[("retry-after", "-3")], None),
            (&[("retry-after", "soon")], None),
            (&[], None),
        ];
        for (pairs, expected) in cases {
            assert_eq!(retry_after(&headers(pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn only_a_refusal_quotes_the_vendor_and_never_a_secret() {
        let model: ModelRef = "openai/gpt".parse().unwrap();
        let secrets = [Secret::new("sk-123456")];
        let error = |status, kind: &str| {
            let body = json!({"error": {"type": kind, "message": "header sk-123456 is wrong"}});
            Fault::of_vendor(Some(status), None, &VendorError::from_value(&body)).told(&model, &secrets)
        };
        let refused = error(400, "invalid_request_error");
        assert_eq!(refused.message, "openai/gpt: the vendor refused the request: header [redacted] is wrong");
        let log = refused.source.unwrap().to_string();
        assert_eq!(log, "status 400, invalid_request_error: header [redacted] is wrong");
        let credential = error(401, "invalid_api_key");
        assert_eq!(
            credential.message,
            "openai/gpt: the vendor refused the provider's key; its operator must check it"
        );
        assert_eq!(credential.source.unwrap().to_string(), "status 401, invalid_api_key: ");
    }

    #[test]
    fn a_key_that_is_only_a_word_leaves_the_vendors_words_as_they_are() {
        let model: ModelRef = "vllm/x".parse().unwrap();
        let words = "none of the parameters is known: max_tokens, x-team blue";
        let body = json!({"error": {"type": "invalid_request_error", "message": words}});
        let secrets = ["none", "x", "blue"].map(Secret::new);
        let refused =
            Fault::of_vendor(Some(400), None, &VendorError::from_value(&body)).told(&model, &secrets);
        assert_eq!(refused.message, format!("vllm/x: the vendor refused the request: {words}"));
    }

    #[test]
    fn a_vendors_novel_is_cut_short() {
        let model: ModelRef = "openai/gpt".parse().unwrap();
        let body = json!({"error": {"type": "invalid_request_error", "message": "ä".repeat(5000)}});
        let error = Fault::of_vendor(Some(400), None, &VendorError::from_value(&body)).told(&model, &[]);
        assert!(error.message.ends_with("ää…") && error.message.chars().count() < 400, "{}", error.message);
    }
}
