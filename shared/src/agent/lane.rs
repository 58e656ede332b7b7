//! Lanes: requests for one session wait for each other in this process, in arrival order.
//!
//! The session's lease already keeps two turns apart; a lane only makes the second request wait here, first come
//! first served, instead of asking the store again and again. Requests of another process on the same store are
//! kept apart by the lease alone, without an order between the processes.

use crate::error::{Error, ErrorKind};
use crate::id::{SessionKey, TenantId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

type Name = (TenantId, SessionKey);

/// All lanes of this process.
#[derive(Default)]
pub struct Lanes {
    open: Arc<Mutex<HashMap<Name, Lane>>>,
}

#[derive(Default)]
struct Lane {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// The one at work and those that wait.
    present: usize,
}

/// Counts one request into its lane until it is dropped, whether it is waiting or at work.
struct Place {
    open: Arc<Mutex<HashMap<Name, Lane>>>,
    name: Name,
}

/// The right to go: held while the turn is at work.
pub struct LaneGuard {
    // Dropped in this order: first the next one may go, then the place is given back.
    _turn: OwnedMutexGuard<()>,
    _place: Place,
}

/// A panic while the map was held cannot leave it half changed: every change is one insert or one remove.
fn held(map: &Mutex<HashMap<Name, Lane>>) -> MutexGuard<'_, HashMap<Name, Lane>> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lanes {
    /// Waits for the lane of a session.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] at once if `max_waiting` others wait already, or after `max_wait`.
    pub async fn enter(
        &self,
        tenant: &TenantId,
        session: &SessionKey,
        max_waiting: usize,
        max_wait: Duration,
    ) -> Result<LaneGuard, Error> {
        let name = (tenant.clone(), session.clone());
        let (turn, place) = {
            let mut open = held(&self.open);
            let lane = open.entry(name.clone()).or_default();
            if lane.present > max_waiting {
                return Err(busy(&format!(
                    "the session is busy and {max_waiting} requests wait for it already"
                )));
            }
            lane.present += 1;
            (Arc::clone(&lane.turn), Place { open: Arc::clone(&self.open), name })
        };
        match tokio::time::timeout(max_wait, turn.lock_owned()).await {
            Ok(turn) => Ok(LaneGuard { _turn: turn, _place: place }),
            Err(_) => Err(busy(&format!("the session was still busy after {} s", max_wait.as_secs()))),
        }
    }

    /// Requests at work or waiting, of all sessions.
    pub fn len(&self) -> usize {
        held(&self.open).values().map(|lane| lane.present).sum()
    }

    /// Whether no request is at work or waiting.
    pub fn is_empty(&self) -> bool {
        held(&self.open).is_empty()
    }
}

/// The refusal of a busy session.
pub(super) fn busy(message: &str) -> Error {
    Error::new(ErrorKind::Conflict, format!("{message}; try again later")).after(Duration::from_secs(1))
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = held(&self.open);
        if let Some(lane) = open.get_mut(&self.name) {
            lane.present -= 1;
            if lane.present == 0 {
                open.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::future::{join3, poll_immediate};

    const LONG: Duration = Duration::from_secs(60);

    fn names() -> (TenantId, SessionKey) {
        (TenantId::single(), SessionKey::new("agent:a:main"))
    }

    #[tokio::test]
    async fn requests_for_one_session_go_in_arrival_order() {
        let lanes = Lanes::default();
        let (tenant, session) = names();
        let order = Mutex::new(Vec::new());
        let request = |number| {
            let (lanes, order, tenant, session) = (&lanes, &order, &tenant, &session);
            async move {
                let _guard = lanes.enter(tenant, session, 8, LONG).await.unwrap();
                tokio::task::yield_now().await;
                order.lock().unwrap().push(number);
            }
        };
        join3(request(1), request(2), request(3)).await;
        assert_eq!(*order.lock().unwrap(), [1, 2, 3]);
        assert!(lanes.is_empty(), "a lane nobody uses is forgotten");
    }

    #[tokio::test]
    async fn one_more_than_may_wait_is_refused_and_a_leaver_makes_room() {
        let lanes = Lanes::default();
        let (tenant, session) = names();
        let at_work = lanes.enter(&tenant, &session, 1, LONG).await.unwrap();
        let mut waiting = lanes.enter(&tenant, &session, 1, LONG).boxed();
        assert!(poll_immediate(&mut waiting).await.is_none());
        let refused = lanes.enter(&tenant, &session, 1, LONG).await.err().unwrap();
        assert_eq!((refused.kind, refused.retry_after), (ErrorKind::Conflict, Some(Duration::from_secs(1))));
        drop(waiting);
        let next = lanes.enter(&tenant, &session, 1, LONG);
        drop(at_work);
        next.await.unwrap();
        assert!(lanes.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_waited_too_long_is_refused() {
        let lanes = Lanes::default();
        let (tenant, session) = names();
        let _at_work = lanes.enter(&tenant, &session, 1, LONG).await.unwrap();
        let refused = lanes.enter(&tenant, &session, 1, LONG).await.err().unwrap();
        assert_eq!(refused.kind, ErrorKind::Conflict);
        assert_eq!(lanes.len(), 1);
    }
}
