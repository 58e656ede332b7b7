//! Names of things: one type per kind of identifier, and the [`IdSource`] that makes new ones.

use crate::audit::hex;
use crate::clock::Timestamp;
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps the text as it is; what is valid is decided where the text comes from.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::new(text)
            }
        }
    };
}

identifier!(
    /// Whose data it is. Part of every key; an installation for one company never sees the word.
    TenantId
);
identifier!(
    /// A configured persona, e.g. `email-manager`: `[a-z0-9][a-z0-9_-]{0,63}`.
    AgentId
);
identifier!(
    /// The stable name that routes to a session, e.g. `agent:email-manager:main`.
    SessionKey
);
identifier!(
    /// One transcript. A reset gives the same [`SessionKey`] a new one.
    SessionId
);
identifier!(
    /// One accepted input until its final reply.
    TurnId
);
identifier!(
    /// One job of the queue.
    JobId
);
identifier!(
    /// A place where the installation runs, e.g. `eu-central-1`.
    RegionId
);
identifier!(
    /// Who calls: the id of a token, or a name like `operator` for the local command line.
    PrincipalId
);

impl TenantId {
    /// The tenant of an installation that has only one.
    pub fn single() -> Self {
        Self::new("main")
    }
}

/// Where new identifiers come from. Injected, so that a test can know them beforehand.
pub trait IdSource: Send + Sync {
    /// A new ULID in its canonical 26 characters: sorts by `now`, unique without coordination.
    fn ulid(&self, now: Timestamp) -> String;

    /// A new secret of 256 random bits, as 64 hexadecimal digits.
    fn secret(&self) -> String {
        hex(&random::<32>())
    }
}

/// ULIDs with the operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl IdSource for RandomIds {
    fn ulid(&self, now: Timestamp) -> String {
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        ulid::Ulid::from_parts(millis, u128::from_le_bytes(random())).to_string()
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut random = [0_u8; N];
    // Without randomness no token and no identifier is safe; the system call fails only on a broken host.
    #[expect(clippy::expect_used, reason = "there is no safe way on without the system's randomness")]
    getrandom::fill(&mut random).expect("the operating system's random numbers");
    random
}
