//! Stored answers: idempotency for requests that are no turns (`/tools/invoke`, hooks, resets), and the
//! [`AnswerStore`] port. A turn needs none of this: its idempotency record is written in its own acceptance.
//!
//! A claim and an answer are kept for [`Idempotency::KEPT`] after they were made. Then the key is free, and what is asked
//! under it is done: anew by a tool, and under the same id, so not twice, by a hook or a reset.

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{PrincipalId, TenantId};
use crate::session::Idempotency;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// Which request: the client's key within tenant and principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerKey {
    /// Whose data.
    pub tenant: TenantId,
    /// Who asks.
    pub principal: PrincipalId,
    /// The client's key and what was asked.
    pub idempotency: Idempotency,
}

/// An HTTP answer, to be given again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The content type.
    pub content_type: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A 200 with `value` as JSON.
    pub fn json<T: Serialize>(value: &T) -> Self {
        // Fails only for maps whose keys are no texts, which no answer has.
        let body = serde_json::to_string(value).unwrap_or_default();
        Self { status: 200, content_type: "application/json; charset=utf-8".to_owned(), body }
    }
}

/// What [`AnswerStore::claim`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nobody asked before, or it was given back: do it.
    Claimed,
    /// Whoever asked before never answered, and its claim ran out: it is the caller's now. How far the first try came
    /// is not known: do it only if doing it twice is the same.
    Abandoned,
    /// Answered before.
    Answered(Answer),
    /// Answered before, but the answer cannot be read any more.
    Unreadable,
    /// At work until then, at most.
    Busy {
        /// The claim's end.
        until: Timestamp,
    },
    /// The key was used with another fingerprint – by such a request or by a turn.
    Mismatch,
}

/// Keeps answers.
#[async_trait]
pub trait AnswerStore: Send + Sync {
    /// Claims the key until `until`, durably and atomically: of two concurrent claims one gets it. What was kept of the
    /// key for longer than [`Idempotency::KEPT`], by a turn or a request, is as if it had never been.
    async fn claim(&self, key: &AnswerKey, now: Timestamp, until: Timestamp) -> Result<Claim, StoreError>;

    /// Stores the answer of a claimed key.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the key was never claimed, or so long ago that the claim is forgotten.
    async fn store(&self, key: &AnswerKey, answer: &Answer, now: Timestamp) -> Result<(), StoreError>;

    /// Gives a claim back unanswered: the request failed in a way that may pass, and may be tried again.
    async fn release(&self, key: &AnswerKey) -> Result<(), StoreError>;
}
