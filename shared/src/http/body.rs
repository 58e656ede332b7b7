//! Bodies: reading one within its limits, making sense of it as JSON, answering JSON; paths and queries.

use super::error::ApiError;
use super::{Gateway, fields};
use crate::bounds::{BODY_LEVELS, BODY_TIME, BODY_VALUES, BODY_WEIGHT, COUNTED_BODY_BYTES, VALUE_WEIGHT};
use crate::budget::Drawn;
use crate::error::{Error, ErrorKind};
use crate::nesting::{TooDeep, too_deep};
use crate::quote::{quoted, reason};
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

/// The content type of every JSON answer.
pub(super) const JSON: &str = "application/json; charset=utf-8";

/// When to try again after there was no memory for a body: those that are read take a second or two.
const ROOM_IN: Duration = Duration::from_secs(2);

/// A whole body, and what is lent for it until it is dropped: keep it until its work is accepted.
#[derive(Debug)]
pub(super) struct Taken {
    bytes: Bytes,
    lent: Drawn,
}

impl Deref for Taken {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Taken {
    /// Gives the bytes back, but not what is lent: the request that was made of them is about as large.
    pub(super) fn understood(self) -> Drawn {
        self.lent
    }
}

/// Reads a whole body of at most `most` bytes. Memory for all of it is lent before the first byte is read, if it says its
/// length, and else as it grows.
///
/// # Errors
/// 413 when it is longer, or longer than this process could ever hold; 503 when there is no memory for it right now; 408 when
/// it takes longer than 30 s; 400 when the connection breaks, or when it holds too many values.
pub(super) async fn read(
    gateway: &Gateway,
    body: Body,
    headers: &HeaderMap,
    most: usize,
) -> Result<Taken, ApiError> {
    let most = most.min(gateway.app.budget.largest() / BODY_WEIGHT);
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let declared = declared.and_then(|text| text.parse::<u64>().ok());
    let declared = declared.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if declared.is_some_and(|length| length > most) {
        return Err(ApiError::too_large());
    }
    let mut body = Limited::new(body, most);
    match tokio::time::timeout(BODY_TIME, collect(gateway, &mut body, declared.unwrap_or(0))).await {
        Ok(Ok(taken)) => Ok(taken),
        Ok(Err(Unread::TooLong)) => Err(ApiError::too_large()),
        Ok(Err(Unread::Broken)) => Err(ApiError::invalid("the body could not be read")),
        Ok(Err(Unread::NoRoom)) => {
            gateway.app.metrics.memory_refused();
            // A client that sends without being asked to would else lose the answer together with its connection.
            if !headers.contains_key(header::EXPECT) {
                let _ = tokio::time::timeout(BODY_TIME, ignore(body)).await;
            }
            let message = "this gateway has no memory for the request right now; try again";
            Err(Error::new(ErrorKind::Unavailable, message).after(ROOM_IN).into())
        }
        Ok(Err(Unread::Crowded(error))) => Err(error),
        Err(_) => Err(ApiError::invalid("Request body timeout")
            .with_status(StatusCode::REQUEST_TIMEOUT)
            .with_code("request_timeout")),
    }
}

/// Why a body was not read.
enum Unread {
    TooLong,
    Broken,
    NoRoom,
    Crowded(ApiError),
}

async fn collect(gateway: &Gateway, body: &mut Limited<Body>, declared: usize) -> Result<Taken, Unread> {
    let mut lent = gateway.app.budget.draw();
    if !lent.reserve(declared * BODY_WEIGHT) {
        return Err(Unread::NoRoom);
    }
    let mut first = None;
    let mut rest = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| if error.is::<LengthLimitError>() { Unread::TooLong } else { Unread::Broken })?;
        let Ok(bytes) = frame.into_data() else { continue };
        length += bytes.len();
        let missing = (length * BODY_WEIGHT).saturating_sub(lent.bytes());
        if missing > 0 && !lent.reserve(missing) {
            return Err(Unread::NoRoom);
        }
        // Most bodies come in one piece, which is then the body.
        match (&first, rest.is_empty()) {
            (None, true) => first = Some(bytes),
            _ => {
                if rest.is_empty() {
                    rest.reserve(declared.max(length));
                    rest.extend_from_slice(&first.take().unwrap_or_default());
                }
                rest.extend_from_slice(&bytes);
            }
        }
    }
    let bytes = first.unwrap_or_else(|| rest.freeze());
    if bytes.len() > COUNTED_BODY_BYTES {
        let values = values_in(&bytes);
        let most = BODY_VALUES.min(gateway.app.budget.largest() / VALUE_WEIGHT);
        if values > most {
            return Err(Unread::Crowded(crowded(&bytes, most)));
        }
        // A body is either long texts or many values: what is lent for the bytes counts for both.
        let missing = (values * VALUE_WEIGHT).saturating_sub(lent.bytes());
        if missing > 0 && !lent.reserve(missing) {
            return Err(Unread::NoRoom);
        }
    }
    Ok(Taken { bytes, lent })
}

async fn ignore(mut body: Limited<Body>) {
    while let Some(Ok(_)) = body.frame().await {}
}

/// About how many values a JSON text holds: each but the first stands behind a comma or an opening bracket.
fn values_in(text: &[u8]) -> usize {
    let (mut values, mut in_text, mut escaped) = (0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => values += 1,
            _ => {}
        }
    }
    values
}

/// What is wrong with a body of too many values: its messages, if those are too many.
fn crowded(body: &[u8], most: usize) -> ApiError {
    #[derive(Deserialize)]
    struct Lists {
        #[serde(default)]
        messages: Entries,
        #[serde(default)]
        input: Entries,
    }
    if let Ok(Lists { messages, input }) = serde_json::from_slice::<Lists>(body) {
        for (field, entries) in [("messages", messages), ("input", input)] {
            if let Err(error) = fields::entries(entries.0, field) {
                return error;
            }
        }
    }
    ApiError::invalid(format!("the body holds more than {most} values; send a shorter request"))
}

/// The length of a list, which is not kept.
#[derive(Default)]
struct Entries(usize);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counter;
        impl<'de> Visitor<'de> for Counter {
            type Value = Entries;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Entries, A::Error> {
                let mut length = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    length += 1;
                }
                Ok(Entries(length))
            }
        }
        deserializer.deserialize_seq(Counter)
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
        Err(error) => ApiError::from(Error::internal(error)).into_response(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_texts_only() {
        let count = |text: &str| values_in(text.as_bytes());
        assert_eq!(count("7"), 0);
        assert_eq!(count(r#"{"a": [1, 2, {}], "b,[{": "x,\\\"[,{"}"#), 6);
        assert_eq!(count(&format!("[{}]", vec!["[]"; 1_000].join(","))), 2_000);
    }

    #[test]
    fn a_crowded_body_is_refused_for_its_messages_if_those_are_too_many() {
        let list =
            |field: &str, entries: usize| format!("{{\"{field}\": [{}]}}", vec!["[]"; entries].join(","));
        for (field, named) in [("messages", "messages"), ("input", "input"), ("other", "the body")] {
            let error = crowded(list(field, BODY_VALUES).as_bytes(), BODY_VALUES);
            assert!(error.message().contains(named), "{}", error.message());
        }
    }
}
