//! Failures as HTTP answers: the shapes that OpenAI's clients and OpenClaw's scripts know.

use super::body::json;
use crate::answer::Answer;
use crate::error::{Error, ErrorKind, StoreError};
use crate::principal::Scope;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::time::Duration;

/// The code of a turn that waits for a person.
const PARKED: &str = "parked";

/// OpenAI's SDKs send a request again after any 409 unless this says `false`; without an idempotency key that would
/// be another turn, and the parked tool's effect a second one.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// A failure on its way out. Made from any concept's error by `?`; logged once, here, when it becomes an answer.
#[derive(Debug)]
pub(super) struct ApiError(Box<Parts>);

#[derive(Debug)]
struct Parts {
    error: Error,
    status: StatusCode,
    kind: &'static str,
    code: &'static str,
    shape: Shape,
}

/// How the body looks.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// `{"error":{"message","type","code","param"}}`.
    OpenAi,
    /// `{"ok":false,"error":{…}}`, as OpenClaw's own surfaces answer.
    OkFalse,
    /// As [`Shape::OkFalse`], naming the scope that is missing.
    MissingScope(Scope),
}

/// The `type` of OpenAI's and OpenClaw's error bodies.
const fn type_of(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Invalid | ErrorKind::Mismatch => "invalid_request_error",
        ErrorKind::NotFound => "not_found",
        ErrorKind::Unauthenticated => "unauthorized",
        ErrorKind::Forbidden => "forbidden",
        ErrorKind::Conflict => "conflict",
        ErrorKind::RateLimited => "rate_limit_error",
        ErrorKind::BudgetExceeded => "insufficient_quota",
        ErrorKind::Upstream | ErrorKind::Unavailable | ErrorKind::Internal => "api_error",
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let status =
            StatusCode::from_u16(error.kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let (kind, code) = (type_of(error.kind), error.kind.code());
        Self(Box::new(Parts { error, status, kind, code, shape: Shape::OpenAi }))
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Error::from(error).into()
    }
}

impl ApiError {
    /// The request is wrong.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Error::invalid(message).into()
    }

    /// The request's field `param` is wrong.
    pub(super) fn invalid_at(param: impl Into<String>, message: impl Into<String>) -> Self {
        Error::invalid(message).at(param).into()
    }

    /// The named thing is not there.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Error::not_found(message).into()
    }

    /// Another failure.
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error::new(kind, message).into()
    }

    /// No valid credential.
    pub(super) fn unauthorized() -> Self {
        Self::new(ErrorKind::Unauthenticated, "Unauthorized")
    }

    /// No credential that could be one. Says what is wrong with it, which gives nothing away.
    pub(super) fn unauthorized_for(why: &str) -> Self {
        Self::new(ErrorKind::Unauthenticated, format!("Unauthorized: {why}"))
    }

    /// The caller's token lacks the scope.
    pub(super) fn missing_scope(scope: Scope) -> Self {
        let mut error = Self::new(ErrorKind::Forbidden, format!("missing scope: {scope}"));
        error.0.shape = Shape::MissingScope(scope);
        error
    }

    /// The body is longer than the surface takes.
    pub(super) fn too_large() -> Self {
        Self::invalid("Payload too large")
            .with_status(StatusCode::PAYLOAD_TOO_LARGE)
            .with_code("payload_too_large")
    }

    /// 409 for a turn or a call that waits for a person: `what` was interrupted while its `once` tool was at work.
    pub(super) fn parked(what: &str, tool: &str) -> Self {
        let message = format!(
            "the {what} is parked: the tool `{tool}` was interrupted, and whether it did its work is not known; \
             a person must look"
        );
        Self::new(ErrorKind::Conflict, message).with_code(PARKED)
    }

    /// Gives the answer another status than its kind's.
    pub(super) fn with_status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }

    /// Gives the answer a narrower code than its kind's.
    pub(super) fn with_code(mut self, code: &'static str) -> Self {
        self.0.code = code;
        self
    }

    /// Gives the answer another `type` than its kind's.
    pub(super) fn with_type(mut self, kind: &'static str) -> Self {
        self.0.kind = kind;
        self
    }

    /// Says when to try again.
    pub(super) fn after(mut self, wait: Duration) -> Self {
        self.0.error.retry_after = Some(wait);
        self
    }

    /// Answers as OpenClaw's own surfaces do, with `"ok":false` beside the error.
    pub(super) fn ok_false(mut self) -> Self {
        if matches!(self.0.shape, Shape::OpenAi) {
            self.0.shape = Shape::OkFalse;
        }
        if self.0.kind == "invalid_request_error" {
            self.0.kind = "invalid_request";
        }
        self
    }

    /// The `code` of its body.
    pub(super) fn code(&self) -> &'static str {
        self.0.code
    }

    /// The sentence for the caller.
    pub(super) fn message(&self) -> &str {
        &self.0.error.message
    }

    /// What kind of failure it is.
    pub(super) fn kind(&self) -> ErrorKind {
        self.0.error.kind
    }

    /// The status that it answers with.
    pub(super) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The inner part of the body, also used as the last event of a stream.
    pub(super) fn to_value(&self) -> Value {
        let Parts { error, kind, code, .. } = &*self.0;
        json!({"message": error.message, "type": kind, "code": code, "param": error.param})
    }

    /// The body.
    pub(super) fn body(&self) -> Value {
        let mut error = self.to_value();
        match self.0.shape {
            Shape::OpenAi => json!({"error": error}),
            Shape::OkFalse => json!({"ok": false, "error": error}),
            Shape::MissingScope(scope) => {
                error["details"] =
                    json!({"code": "MISSING_SCOPE", "missingScope": scope, "requiredScopes": [scope]});
                json!({"ok": false, "error": error})
            }
        }
    }

    /// The answer as it is kept for an idempotency key.
    pub(super) fn to_answer(&self) -> Answer {
        Answer {
            status: self.0.status.as_u16(),
            content_type: super::body::JSON.to_owned(),
            body: self.body().to_string(),
        }
    }

    /// Writes the failure to the log: the only place where its cause is seen.
    pub(super) fn log(&self) {
        let Parts { error, status, code, .. } = &*self.0;
        let (status, cause) = (status.as_u16(), error.cause());
        if status >= 500 {
            tracing::error!(target: "error", { status, code, cause }, "{}", error.message);
        } else if !cause.is_empty() {
            tracing::info!(target: "operation", { status, code, cause }, "{}", error.message);
        }
    }
}

/// A wait in whole seconds as `Retry-After` wants them: rounded up, at least one.
pub(super) fn retry_after(wait: Duration) -> HeaderValue {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    HeaderValue::from(seconds.max(1))
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let mut response = json(self.0.status, &self.body());
        if let Some(wait) = self.0.error.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after(wait));
        }
        if self.0.code == PARKED {
            response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response
    }
}
