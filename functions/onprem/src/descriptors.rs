//! File descriptors: a turn that waits for its model holds two sockets, and hosts give a process 1,024 of them unless
//! it asks for more.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for some thousand waiting turns.
const ENOUGH: u64 = 1 << 14;

/// Raises the soft limit towards the hard one, to [`ENOUGH`] or to `needed` if that is more. Returns the limit that holds
/// now; `None` for no limit.
pub(crate) fn raise(needed: u64) -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let enough = needed.max(ENOUGH);
    let wanted = maximum.map_or(enough, |maximum| maximum.min(enough));
    if current.is_none_or(|current| current >= wanted) {
        return current;
    }
    // Refused by the host: the process runs with what it has.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    getrlimit(Resource::Nofile).current
}
