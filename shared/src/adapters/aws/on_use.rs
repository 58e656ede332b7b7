//! A client that is made when it is first asked for.
//!
//! Each of the SDK's clients reads a table of AWS's regions and the certificates when it is made, a good part of what a cold
//! start costs, and most invocations need one or two of them.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

type Made<C> = LazyLock<C, Box<dyn FnOnce() -> C + Send>>;

/// A client, there when it is needed. Clones share it.
pub struct OnUse<C>(Arc<Made<C>>);

impl<C: 'static> OnUse<C> {
    /// The client of these settings.
    pub fn new<S: Send + 'static>(settings: S, make: fn(S) -> C) -> Self {
        Self(Arc::new(LazyLock::new(Box::new(move || make(settings)))))
    }
}

impl<C: Send + 'static> From<C> for OnUse<C> {
    /// A client that is there already.
    fn from(client: C) -> Self {
        Self::new(client, std::convert::identity)
    }
}

impl<C> Clone for OnUse<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C> Deref for OnUse<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.0
    }
}

impl<C> fmt::Debug for OnUse<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnUse").finish_non_exhaustive()
    }
}
