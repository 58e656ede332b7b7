//! How many bytes a token may bring: what it sends is kept, so a token that sends without an end would fill the disk, or
//! the bill. Counted in this process, and not in the store: a turn costs no write more for it.

use super::auth::Caller;
use super::error::ApiError;
use crate::bounds::{BYTES_AT_ONCE_LEAST, BYTES_AT_ONCE_SECONDS};
use crate::error::ErrorKind;
use crate::id::{PrincipalId, TenantId};
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Tokens whose bytes are remembered; the one used longest ago makes room, and has its allowance again.
const KEPT: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// When what each token has sent is worked off at its rate.
#[derive(Debug)]
pub(super) struct ByteRate {
    until: Mutex<LruCache<(TenantId, PrincipalId), Instant>>,
}

impl ByteRate {
    /// Nothing was sent yet.
    pub(super) fn new() -> Self {
        Self { until: Mutex::new(LruCache::new(KEPT)) }
    }

    /// Counts the bytes of a request, whose token may bring so many a second in the long run. The one that goes beyond is
    /// taken, the next one is not.
    ///
    /// # Errors
    /// 429 with the time when the next one is taken; nothing is counted.
    pub(super) fn take(&self, caller: &Caller, per_second: f64, bytes: usize) -> Result<(), ApiError> {
        let mut all = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (caller.tenant.clone(), caller.id.clone());
        let now = Instant::now();
        let due = all.get(&key).map_or(now, |until| (*until).max(now));
        if let Some(wait) = due.duration_since(now).checked_sub(at_once(per_second)) {
            let message = "Too many bytes: this token has brought more than its rate allows. Try again after the time in \
                           `Retry-After`, or send less at once.";
            return Err(ApiError::new(ErrorKind::RateLimited, message).after(wait));
        }
        if let Some(until) = due.checked_add(time_of(bytes, per_second)) {
            all.put(key, until);
        }
        Ok(())
    }
}

/// How long so many bytes take at the rate.
fn time_of(bytes: usize, per_second: f64) -> Duration {
    let bytes = u32::try_from(bytes).map_or(f64::from(u32::MAX), f64::from);
    Duration::try_from_secs_f64(bytes / per_second).unwrap_or(Duration::MAX)
}

/// How far a token may be ahead of its rate.
fn at_once(per_second: f64) -> Duration {
    BYTES_AT_ONCE_SECONDS.max(time_of(BYTES_AT_ONCE_LEAST, per_second))
}
