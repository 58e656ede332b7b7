//! Regions: which one writes a session, how it is known that one is gone, and the [`Regions`] port.
//!
//! A session has one *home*: the only region that accepts turns on it. Whoever is asked elsewhere forwards. What is
//! written replicates late, so a change of home cannot be agreed upon; it is announced, and told apart by its *epoch*:
//! each home writes under an epoch of its own, so that what an old home wrote without knowing better never overwrites
//! what the new one writes. Such late writes are found and brought to one visible answer by [`Regions::reconcile`].
//!
//! What that promises: within an epoch a turn runs once and answers once. Across a change of home each accepted turn
//! still has exactly one visible outcome, but while two regions cannot see each other, two clients may have been told
//! two answers to one key, and one of them stays. A tool that may not run twice never does: a turn that goes on under
//! another epoch parks before such a call, because whether the old home made it cannot be known.

use crate::bounds::REGIONS;
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::{RegionId, SessionKey, TenantId, TurnId};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Pause between two signs of life of a region.
pub const BEAT_EVERY: Duration = Duration::from_secs(60);

/// Most regions of one installation: an epoch is a number whose remainder by this says whose it is.
pub const MOST_REGIONS: u64 = REGIONS;

/// The smallest epoch above `than` that only the region of this ordinal gives.
pub const fn next_epoch(than: u64, ordinal: u64) -> u64 {
    let base = than - than % MOST_REGIONS + ordinal;
    if base > than { base } else { base + MOST_REGIONS }
}

/// Which region writes a session, and since which change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Home {
    /// The region.
    pub region: RegionId,
    /// Told apart from every other home that the session had.
    pub epoch: u64,
    /// When it took the session over; `None` if the session was made there.
    pub since: Option<Timestamp>,
}

/// What is known of a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionState {
    /// Which.
    pub region: RegionId,
    /// It is this one.
    pub is_here: bool,
    /// `false`: an operator has taken it out of service; its sessions go elsewhere when they are next asked for.
    pub in_service: bool,
    /// Its latest sign of life that is known here; `None` before the first. One that [is to come](Timestamp::is_to_come)
    /// counts from when it was first seen here: a region whose clock is ahead lives as long as its signs change, and one
    /// that was lost with a clock that was ahead is not waited for until that time has come.
    pub beat_at: Option<Timestamp>,
}

impl RegionState {
    /// Whether its sessions may be taken over: it is out of service, or has been silent for longer than a turn's lease
    /// and a beat. A region that never gave a sign is not gone: it has not started.
    pub fn is_gone(&self, now: Timestamp, lease: Duration) -> bool {
        !self.in_service || self.beat_at.is_some_and(|beat_at| beat_at + lease + BEAT_EVERY < now)
    }
}

/// What became of a late write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The turn stands at the end of the present transcript now; it had ended.
    Ended,
    /// The turn stands at the end of the present transcript now; it is interrupted, and goes on here.
    Interrupted,
    /// The present transcript has the turn, or one under the same idempotency key: that one stays.
    Superseded,
}

/// A turn that an old home wrote too late to be seen by the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciled {
    /// Whose data.
    pub tenant: TenantId,
    /// On which session.
    pub session: SessionKey,
    /// Which turn.
    pub turn: TurnId,
    /// What became of it.
    pub verdict: Verdict,
}

/// Keeps homes and signs of life. Every answer is what is known in this region now.
#[async_trait]
pub trait Regions: Send + Sync {
    /// The home of a session, or `None` if there is no such session yet.
    async fn home(&self, tenant: &TenantId, session: &SessionKey) -> Result<Option<Home>, StoreError>;

    /// Makes this region the session's home, atomically, if `from` still is. What of the transcript has arrived here
    /// stays visible; a turn that has not ended in it is interrupted, and is resumed when its lease has run out. Returns
    /// the home as it is then: another one if somebody was faster.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such session.
    async fn take_over(
        &self,
        tenant: &TenantId,
        session: &SessionKey,
        from: &Home,
        now: Timestamp,
    ) -> Result<Home, StoreError>;

    /// Every region, this one included, by name, as they are at `now`.
    async fn states(&self, now: Timestamp) -> Result<Vec<RegionState>, StoreError>;

    /// Puts a region in or out of service; from anywhere. A region out of service keeps the sessions it has until another
    /// one is asked for them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such region.
    async fn set_in_service(
        &self,
        region: &RegionId,
        in_service: bool,
        now: Timestamp,
    ) -> Result<(), StoreError>;

    /// Gives a sign of life of this region.
    async fn beat(&self, now: Timestamp) -> Result<(), StoreError>;

    /// Looks through the sessions that changed their home to here and brings up to `limit` late turns to one visible
    /// outcome each. A turn that has not ended is left interrupted on its session, for the sweep.
    ///
    /// Takes over here, too, what nobody else goes on with: due jobs of regions that are gone, and sessions whose later home
    /// is gone without having heard of a late turn.
    async fn reconcile(&self, now: Timestamp, limit: usize) -> Result<Vec<Reconciled>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_regions_give_the_same_epoch_and_epochs_grow() {
        assert_eq!([next_epoch(0, 0), next_epoch(0, 1), next_epoch(0, 2)], [16, 1, 2]);
        assert_eq!([next_epoch(18, 1), next_epoch(18, 2), next_epoch(18, 3)], [33, 34, 19]);
    }

    #[test]
    fn a_region_is_gone_when_it_is_out_of_service_or_silent_for_longer_than_a_lease_and_a_beat() {
        let lease = Duration::from_secs(90);
        let state = |in_service, beat_at: Option<i64>| RegionState {
            region: RegionId::new("r"),
            is_here: false,
            in_service,
            beat_at: beat_at.map(Timestamp::from_millis),
        };
        let now = Timestamp::from_millis(1_000_000);
        assert!(state(false, Some(1_000_000)).is_gone(now, lease));
        assert!(!state(true, None).is_gone(now, lease));
        assert!(!state(true, Some(850_000)).is_gone(now, lease));
        assert!(state(true, Some(849_999)).is_gone(now, lease));
    }
}
