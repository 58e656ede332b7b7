//! [`HomeInvoker`]: sends each turn to the region that writes its session, and makes this one the home of sessions whose
//! home is gone.
//!
//! A region that cannot be reached is not gone: its turns may be at work. So forwarding that fails is an error for the
//! caller to try again, never a reason to run the turn here.

use super::{AgentInvoker, RunRequest, TurnStream};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::id::{RegionId, SessionKey, TenantId, TurnId};
use crate::region::{Home, RegionState, Regions};
use crate::session::{SessionStore, TurnOutcome};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// When a caller should ask again whose session's home cannot be asked now.
const LATER: Duration = Duration::from_secs(5);

/// Homes that a request may see change before it gives up.
const MOST_CHANGES: usize = 3;

/// What a [`HomeInvoker`] works with.
pub struct HomeParts {
    /// This region.
    pub here: RegionId,
    /// Homes and signs of life.
    pub regions: Arc<dyn Regions>,
    /// Where turns are looked up.
    pub sessions: Arc<dyn SessionStore>,
    /// Runs turns in this region.
    pub local: Arc<dyn AgentInvoker>,
    /// Runs turns in each other region.
    pub elsewhere: BTreeMap<RegionId, Arc<dyn AgentInvoker>>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// How long a turn's lease runs.
    pub lease: Duration,
}

/// Sends turns to their sessions' homes.
pub struct HomeInvoker {
    parts: HomeParts,
}

/// Where a turn goes.
enum Way {
    Here(Option<Home>),
    To(Home),
}

/// The answer of a store that saw the home change after it was asked for.
pub(super) fn elsewhere(home: &Home) -> Error {
    let message = format!("the session moved to the region {}; try again", home.region);
    Error::new(ErrorKind::Conflict, message).after(Duration::from_secs(1))
}

fn out_of_reach(message: String) -> Error {
    Error::new(ErrorKind::Unavailable, message).after(LATER)
}

impl HomeInvoker {
    /// An invoker over these parts.
    pub const fn new(parts: HomeParts) -> Self {
        Self { parts }
    }

    /// Where the session's turns go now; takes the session over if its home is gone.
    async fn way(&self, tenant: &TenantId, session: &SessionKey) -> Result<Way, Error> {
        let HomeParts { here, regions, clock, lease, .. } = &self.parts;
        let mut home = regions.home(tenant, session).await?;
        for _ in 0..MOST_CHANGES {
            let Some(at) = home else { return Ok(Way::Here(None)) };
            if at.region == *here {
                return Ok(Way::Here(Some(at)));
            }
            let (now, states) = (clock.now(), regions.states().await?);
            let state = |region: &RegionId| states.iter().find(|state| state.region == *region);
            if !state(&at.region).is_none_or(|state: &RegionState| state.is_gone(now, *lease)) {
                return Ok(Way::To(at));
            }
            // Two regions out of service would take a session from each other for ever.
            if states.iter().any(|state| state.is_here && !state.in_service) {
                return Err(out_of_reach(format!(
                    "the session's region {} is gone, and the region {here} is out of service; try again elsewhere",
                    at.region
                )));
            }
            let taken = regions.take_over(tenant, session, &at, now).await?;
            tracing::warn!(target: "operation", { session.key = %session, from = %at.region, home = %taken.region, epoch = taken.epoch }, "session taken over");
            home = Some(taken);
        }
        Err(out_of_reach("the session changes its region again and again; try again".to_owned()))
    }

    fn invoker(&self, region: &RegionId) -> Result<&Arc<dyn AgentInvoker>, Error> {
        let invoker = self.parts.elsewhere.get(region);
        invoker.ok_or_else(|| out_of_reach(format!("the session's region {region} is not known here")))
    }
}

#[async_trait]
impl AgentInvoker for HomeInvoker {
    async fn invoke(&self, mut request: RunRequest) -> Result<TurnStream, Error> {
        let way = self.way(&request.tenant, &request.session).await?;
        let home = match &way {
            Way::Here(home) => home.as_ref(),
            Way::To(home) => Some(home),
        };
        // Enqueued before the session moved: the old home may have run the turn, and what it did may not be known here.
        // The lease's length on top allows for clocks that differ.
        let changed_at = home.and_then(|home| home.since);
        request.options.may_have_run |= changed_at
            .zip(request.options.enqueued_at)
            .is_some_and(|(changed, enqueued)| enqueued <= changed + self.parts.lease);
        match way {
            Way::Here(_) => self.parts.local.invoke(request).await,
            Way::To(home) => self.invoker(&home.region)?.invoke(request).await,
        }
    }

    async fn resume(&self, tenant: &TenantId, turn: &TurnId) -> Result<TurnOutcome, Error> {
        let found = self.parts.sessions.turn(tenant, turn).await?;
        let found = found.ok_or_else(|| Error::not_found("no such turn"))?;
        match self.way(tenant, &found.session).await? {
            Way::Here(_) => self.parts.local.resume(tenant, turn).await,
            // Its own sweep sees to it.
            Way::To(home) => Err(elsewhere(&home)),
        }
    }
}
