//! Retries of a provider's calls, before the first sign of an answer only.
//!
//! A call is tried again when it failed in a way that may pass ([`ModelError::is_retryable`]) and nothing of the
//! answer has come yet: later, words were said that cannot be taken back. The wait doubles from half a second to at
//! most [`VENDOR_WAIT`], or is what the vendor asked for. A vendor that asks for more than that is not tried again:
//! the caller may ask another model, or come back when it is time.

use crate::bounds::VENDOR_WAIT;
use crate::model::{ModelError, ModelEvent, ModelProvider, ModelRequest, ModelStream};
use async_trait::async_trait;
use futures::StreamExt;
use std::time::Duration;

/// The first wait.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// A provider whose calls are tried several times.
#[derive(Debug)]
pub struct Retried<P> {
    inner: P,
    max_attempts: u32,
}

impl<P> Retried<P> {
    /// Tries each call at most `max_attempts` times, the first included; 0 counts as 1.
    pub const fn new(inner: P, max_attempts: u32) -> Self {
        Self { inner, max_attempts }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<P: ModelProvider> ModelProvider for Retried<P> {
    async fn stream(&self, request: &ModelRequest) -> Result<ModelStream, ModelError> {
        let mut attempt = 1;
        loop {
            let error = match begin(&self.inner, request).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let Some(wait) = wait(&error, attempt).filter(|_| attempt < self.max_attempts) else {
                return Err(error);
            };
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }
}

/// One attempt, up to the first event that is more than a count of tokens.
async fn begin(inner: &impl ModelProvider, request: &ModelRequest) -> Result<ModelStream, ModelError> {
    let mut stream = inner.stream(request).await?;
    let (mut usage, mut first) = (None, None);
    while let Some(event) = stream.next().await {
        match event? {
            // Only the last one counts; a model that thinks for long may send one in every chunk.
            counts @ ModelEvent::Usage(_) => usage = Some(Ok(counts)),
            begun => {
                first = Some(Ok(begun));
                break;
            }
        }
    }
    Ok(futures::stream::iter(usage.into_iter().chain(first)).chain(stream).boxed())
}

/// How long to wait before the next attempt; `None` if there is to be none.
fn wait(error: &ModelError, attempt: u32) -> Option<Duration> {
    if !error.is_retryable() {
        return None;
    }
    match error.retry_after {
        Some(wish) => Some(wish).filter(|wish| *wish <= VENDOR_WAIT),
        None => {
            let doubled = 1_u32.checked_shl(attempt - 1).unwrap_or(u32::MAX);
            Some(FIRST_WAIT.saturating_mul(doubled).min(VENDOR_WAIT))
        }
    }
}
