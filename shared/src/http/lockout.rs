//! Locks addresses out that try wrong credentials again and again. Kept per process and in bounded memory: the
//! address unheard of for longest is forgotten first.

use crate::bounds::{ADDRESSES_REMEMBERED, HOOK_LOGIN_FAILURES, LOCKOUT, LOGIN_FAILURES, LOGIN_WINDOW};
use crate::clock::Timestamp;
use lru::LruCache;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Which door a credential was tried at; failures at one do not lock the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Door {
    /// Everything but hooks. This host's own address is never locked out.
    Api,
    /// `/hooks/*`: called by other people's machines, perhaps through a proxy on this host.
    Hooks,
}

impl Door {
    /// Failures within the window before the lockout.
    const fn most(self) -> u32 {
        match self {
            Self::Api => LOGIN_FAILURES,
            Self::Hooks => HOOK_LOGIN_FAILURES,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    since: Timestamp,
    count: u32,
    locked_until: Option<Timestamp>,
}

/// Who failed how often.
#[derive(Debug)]
pub(super) struct Lockout(Mutex<LruCache<(Door, IpAddr), Failures>>);

impl Lockout {
    /// Nobody yet.
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(ADDRESSES_REMEMBERED)))
    }

    /// For how much longer the address is locked out.
    pub(super) fn remaining(&self, door: Door, ip: IpAddr, now: Timestamp) -> Option<Duration> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = known.peek(&(door, neighbourhood(ip)))?.locked_until?;
        until.runs_at(now, LOCKOUT).then(|| until.since(now))
    }

    /// Counts a wrong credential.
    pub(super) fn failed(&self, door: Door, ip: IpAddr, now: Timestamp) {
        if door == Door::Api && ip.is_loopback() {
            return;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = known.get_or_insert_mut((door, neighbourhood(ip)), || Failures {
            since: now,
            count: 0,
            locked_until: None,
        });
        // Failures that are to come were counted by a clock that was ahead: nobody knows how long ago that is.
        if now.since(entry.since) >= LOGIN_WINDOW || entry.since.is_to_come(now) {
            *entry = Failures { since: now, count: 0, locked_until: None };
        }
        entry.count += 1;
        if entry.count >= door.most() {
            *entry = Failures { since: now, count: 0, locked_until: Some(now + LOCKOUT) };
        }
    }
}

/// One subscriber of IPv6 holds a whole /64.
fn neighbourhood(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_000_000);

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn ten_failures_within_a_minute_lock_an_address_out_for_five_minutes() {
        let lockout = Lockout::new();
        let caller = ip("192.0.2.7");
        for second in 0..10 {
            let now = START + Duration::from_secs(second);
            assert_eq!(lockout.remaining(Door::Api, caller, now), None);
            lockout.failed(Door::Api, caller, now);
        }
        let locked_at = START + Duration::from_secs(9);
        assert_eq!(lockout.remaining(Door::Api, caller, locked_at), Some(LOCKOUT));
        assert_eq!(lockout.remaining(Door::Hooks, caller, locked_at), None);
        assert_eq!(lockout.remaining(Door::Api, ip("192.0.2.8"), locked_at), None);
        assert_eq!(lockout.remaining(Door::Api, caller, locked_at + LOCKOUT), None);
    }

    #[test]
    fn failures_that_are_far_apart_do_not_add_up() {
        let lockout = Lockout::new();
        let caller = ip("192.0.2.7");
        for minute in 0..30 {
            lockout.failed(Door::Api, caller, START + LOGIN_WINDOW * minute);
        }
        assert_eq!(lockout.remaining(Door::Api, caller, START + LOGIN_WINDOW * 30), None);
    }

    #[test]
    fn the_address_unheard_of_for_longest_is_forgotten_first() {
        let lockout = Lockout::new();
        let address = |number: u32| IpAddr::V4((0x0a00_0000 + number).into());
        let others = u32::try_from(ADDRESSES_REMEMBERED.get()).expect("a small number");
        for _ in 0..LOGIN_FAILURES {
            lockout.failed(Door::Api, address(0), START);
        }
        for number in 1..others {
            lockout.failed(Door::Api, address(number), START);
        }
        assert_eq!(lockout.remaining(Door::Api, address(0), START), Some(LOCKOUT));
        lockout.failed(Door::Api, address(others), START);
        assert_eq!(lockout.remaining(Door::Api, address(0), START), None);
    }

    #[test]
    fn a_clock_that_was_ahead_for_a_moment_locks_nobody_out_for_longer() {
        let lockout = Lockout::new();
        let caller = ip("192.0.2.7");
        let ahead = START + Duration::from_secs(86_400);
        for _ in 0..10 {
            lockout.failed(Door::Api, caller, ahead);
        }
        assert_eq!(lockout.remaining(Door::Api, caller, ahead), Some(LOCKOUT));
        assert_eq!(lockout.remaining(Door::Api, caller, START), None);
        // Nor do failures of that moment count together with those of a whole day.
        for minute in 0..9 {
            lockout.failed(Door::Api, caller, ahead);
            lockout.failed(Door::Api, caller, START + LOGIN_WINDOW * minute);
        }
        assert_eq!(lockout.remaining(Door::Api, caller, START + LOGIN_WINDOW * 9), None);
    }

    #[test]
    fn this_host_is_locked_out_of_hooks_only() {
        let lockout = Lockout::new();
        let caller = ip("127.0.0.1");
        for _ in 0..20 {
            lockout.failed(Door::Api, caller, START);
            lockout.failed(Door::Hooks, caller, START);
        }
        assert_eq!(lockout.remaining(Door::Api, caller, START), None);
        assert_eq!(lockout.remaining(Door::Hooks, caller, START), Some(LOCKOUT));
    }

    #[test]
    fn an_ipv6_subscriber_is_one_address() {
        let lockout = Lockout::new();
        for host in 0..10 {
            lockout.failed(Door::Api, ip(&format!("2001:db8::{host:x}")), START);
        }
        assert_eq!(lockout.remaining(Door::Api, ip("2001:db8::ffff"), START), Some(LOCKOUT));
        assert_eq!(lockout.remaining(Door::Api, ip("2001:db8:0:1::1"), START), None);
    }
}
