//! Bodies: reading one within its limits, making sense of it as JSON, answering JSON; paths and queries.

use super::error::ApiError;
use crate::bounds::BODY_LEVELS;
use crate::bounds::BODY_TIME;
use crate::nesting::{TooDeep, too_deep};
use crate::quote::{quoted, reason};
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The content type of every JSON answer.
pub(super) const JSON: &str = "application/json; charset=utf-8";

/// Reads a whole body of at most `most` bytes.
///
/// # Errors
/// 413 when it is longer, 408 when it takes longer than 30 s, 400 when the connection breaks.
pub(super) async fn read(body: Body, headers: &HeaderMap, most: usize) -> Result<Bytes, ApiError> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let declared = declared.and_then(|text| text.parse::<u64>().ok());
    if declared.is_some_and(|length| usize::try_from(length).is_ok_and(|length| length > most)) {
        return Err(ApiError::too_large());
    }
    let collected = tokio::time::timeout(BODY_TIME, Limited::new(body, most).collect());
    match collected.await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::too_large()),
        Ok(Err(_)) => Err(ApiError::invalid("the body could not be read")),
        Err(_) => Err(ApiError::invalid("Request body timeout")
            .with_status(StatusCode::REQUEST_TIMEOUT)
            .with_code("request_timeout")),
    }
}

/// Reads a body as a JSON object. Fields that `T` does not have are read over.
///
/// # Errors
/// 400: not UTF-8, not JSON, nested too deeply, or a field of the wrong type; the field is named.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    let text = std::str::from_utf8(body).map_err(|_| ApiError::invalid("the body is not valid UTF-8"))?;
    // Also in fields that are ignored, so that whatever is kept of the body can be read back, however deep it then stands.
    if let Some(TooDeep { path }) = too_deep(body, BODY_LEVELS) {
        return Err(nested_too_deeply(&path));
    }
    match serde_json::from_str(text) {
        // A list would fill the fields of `T` in their order.
        Ok(_) if !text.trim_start().starts_with('{') => {
            Err(ApiError::invalid("the body must be a JSON object"))
        }
        Ok(value) => Ok(value),
        Err(error) if error.is_data() => Err(wrong_field::<T>(text, &error)),
        Err(error) => Err(ApiError::invalid(error.to_string())),
    }
}

fn nested_too_deeply(path: &str) -> ApiError {
    let most =
        format!("is nested too deeply: at most {BODY_LEVELS} levels of objects and lists in a whole body");
    if path.is_empty() {
        return ApiError::invalid(format!("the body {most}"));
    }
    ApiError::invalid_at(path, format!("`{path}` {most}"))
}

/// Reads once more, this time keeping track of the path: only what fails pays for it.
fn wrong_field<'a, T: Deserialize<'a>>(text: &'a str, error: &serde_json::Error) -> ApiError {
    let mut reader = serde_json::Deserializer::from_str(text);
    let tracked = serde_path_to_error::deserialize::<_, T>(&mut reader);
    let path = tracked.err().map(|error| error.path().to_string()).filter(|path| path != ".");
    let text = error.to_string();
    // serde_json ends with the place in the text, which says less than the path.
    let reason = reason(text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason));
    match path {
        Some(path) => {
            let message = format!("`{}`: {reason}", quoted(&path));
            ApiError::invalid_at(path, message)
        }
        None => ApiError::invalid(reason),
    }
}

/// A JSON answer.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            (status, [(header::CONTENT_TYPE, HeaderValue::from_static(JSON))], bytes).into_response()
        }
        Err(error) => ApiError::from(crate::error::Error::internal(error)).into_response(),
    }
}

/// `value` as JSON at the end of `out`.
pub(super) fn write_json<T: Serialize>(out: &mut BytesMut, value: &T) {
    use bytes::BufMut;
    // Writing to memory cannot fail, and our own types have string keys only.
    let _ = serde_json::to_writer(out.writer(), value);
}

/// The variable parts of the path; what cannot be read is a 400 in our shape.
pub(super) struct PathArgs<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathArgs<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(_) => Err(ApiError::invalid("the path cannot be read; percent-encode its parts as UTF-8")),
        }
    }
}

/// The query; what cannot be read is a 400 in our shape.
pub(super) struct QueryArgs<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryArgs<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(ApiError::invalid(reason(&rejection.body_text()))),
        }
    }
}
