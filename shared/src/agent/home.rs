//! [`HomeInvoker`]: sends each turn, reset and deletion to the region that writes the session, and makes this one the home
//! of sessions whose home is gone. [`HomeReceiver`]: the other end, where what was sent arrives.
//!
//! A region that cannot be reached is not gone: its turns may be at work. So forwarding that fails is an error for the
//! caller to try again, never a reason to run the turn here.
//!
//! Who sends may not know the newest home: the last word of a region that is lost may have reached only the receiver. Then
//! the receiver takes the session over. It never sends on, so nothing goes round in circles.

use super::{AgentInvoker, RunRequest, TurnStream};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::id::{RegionId, SessionKey, TenantId, TurnId};
use crate::region::{Home, Regions};
use crate::session::{Session, SessionChange, SessionStore, TurnOutcome};
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
        let home = self.parts.regions.home(tenant, session).await?;
        self.way_from(home, tenant, session).await
    }

    /// As [`Self::way`], for a session whose home was just read.
    async fn way_from(
        &self,
        mut home: Option<Home>,
        tenant: &TenantId,
        session: &SessionKey,
    ) -> Result<Way, Error> {
        let HomeParts { here, regions, elsewhere, clock, lease, .. } = &self.parts;
        for _ in 0..MOST_CHANGES {
            let Some(at) = home else { return Ok(Way::Here(None)) };
            if at.region == *here {
                return Ok(Way::Here(Some(at)));
            }
            let now = clock.now();
            let states = regions.states(now).await?;
            let is_gone = match states.iter().find(|state| state.region == at.region) {
                Some(state) => state.is_gone(now, *lease),
                // It has just started, and its first sign of life is still on its way; or it is none of ours any more.
                None => !elsewhere.contains_key(&at.region),
            };
            if !is_gone {
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

    /// Says in the request whether the turn may have run before the session came to this home.
    fn mark(&self, request: &mut RunRequest, home: Option<&Home>) {
        // Enqueued before the session moved: the old home may have run the turn, and what it did may not be known here.
        // The lease's length on top allows for clocks that differ.
        let changed_at = home.and_then(|home| home.since);
        request.options.may_have_run |= changed_at
            .zip(request.options.enqueued_at)
            .is_some_and(|(changed, enqueued)| enqueued <= changed + self.parts.lease);
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
        self.mark(&mut request, home);
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

    async fn change(&self, change: &SessionChange) -> Result<Option<Session>, Error> {
        match self.way(&change.tenant, &change.session).await? {
            Way::Here(_) => Ok(None),
            Way::To(home) => self.invoker(&home.region)?.change(change).await,
        }
    }
}

/// Answers what other regions send here because they take this one for the session's home.
pub struct HomeReceiver {
    homes: HomeInvoker,
}

impl HomeReceiver {
    /// A receiver over these parts; what runs turns elsewhere is never asked.
    pub const fn new(parts: HomeParts) -> Self {
        Self { homes: HomeInvoker::new(parts) }
    }
}

#[async_trait]
impl AgentInvoker for HomeReceiver {
    async fn invoke(&self, request: RunRequest) -> Result<TurnStream, Error> {
        let HomeParts { here, regions, local, .. } = &self.homes.parts;
        let (tenant, session) = (request.tenant.clone(), request.session.clone());
        // Nearly always the sender is right, and looking first would make each turn dearer.
        let refused = match local.invoke(request.clone()).await {
            Err(error) if error.kind == ErrorKind::Conflict => error,
            answered => return answered,
        };
        let home = regions.home(&tenant, &session).await?;
        if home.as_ref().is_none_or(|home| home.region == *here) {
            return Err(refused);
        }
        match self.homes.way_from(home, &tenant, &session).await? {
            Way::Here(home) => {
                let mut request = request;
                self.homes.mark(&mut request, home.as_ref());
                local.invoke(request).await
            }
            Way::To(_) => Err(refused),
        }
    }

    async fn resume(&self, tenant: &TenantId, turn: &TurnId) -> Result<TurnOutcome, Error> {
        self.homes.parts.local.resume(tenant, turn).await
    }

    async fn change(&self, change: &SessionChange) -> Result<Option<Session>, Error> {
        match self.homes.way(&change.tenant, &change.session).await? {
            Way::Here(_) => Ok(None),
            Way::To(home) => Err(elsewhere(&home)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::memory::Memory;
    use crate::agent::{RunOptions, TurnEvent};
    use crate::clock::Timestamp;
    use crate::error::StoreError;
    use crate::id::{AgentId, PrincipalId, SessionId};
    use crate::message::MessageBody;
    use crate::region::{Reconciled, RegionState};
    use crate::session::Becomes;
    use futures::{StreamExt, stream};
    use std::sync::Mutex;

    const LEASE: Duration = Duration::from_secs(90);

    struct At(Timestamp);

    impl Clock for At {
        fn now(&self) -> Timestamp {
            self.0
        }
    }

    /// A region that knows one session, if that.
    struct Known {
        home: Mutex<Option<Home>>,
        states: Vec<RegionState>,
        /// How often it was asked for the home.
        looks: Mutex<u32>,
    }

    #[async_trait]
    impl Regions for Known {
        async fn home(&self, _: &TenantId, _: &SessionKey) -> Result<Option<Home>, StoreError> {
            *self.looks.lock().unwrap() += 1;
            Ok(self.home.lock().unwrap().clone())
        }

        async fn take_over(
            &self,
            _: &TenantId,
            _: &SessionKey,
            from: &Home,
            now: Timestamp,
        ) -> Result<Home, StoreError> {
            let mut home = self.home.lock().unwrap();
            assert_eq!(home.as_ref(), Some(from));
            let taken = Home { region: RegionId::new("here"), epoch: from.epoch + 1, since: Some(now) };
            *home = Some(taken.clone());
            Ok(taken)
        }

        async fn states(&self, _: Timestamp) -> Result<Vec<RegionState>, StoreError> {
            Ok(self.states.clone())
        }

        async fn set_in_service(&self, _: &RegionId, _: bool, _: Timestamp) -> Result<(), StoreError> {
            Ok(())
        }

        async fn beat(&self, _: Timestamp) -> Result<(), StoreError> {
            Ok(())
        }

        async fn reconcile(&self, _: Timestamp, _: usize) -> Result<Vec<Reconciled>, StoreError> {
            Ok(Vec::new())
        }
    }

    /// Keeps whether what it was asked may have run before; answers, or cannot be reached. The one of a region refuses what
    /// is at home elsewhere, as its store does.
    #[derive(Default)]
    struct Invoker {
        asked: Mutex<Vec<bool>>,
        is_out_of_reach: bool,
        of: Option<Arc<Known>>,
    }

    #[async_trait]
    impl AgentInvoker for Invoker {
        async fn invoke(&self, request: RunRequest) -> Result<TurnStream, Error> {
            self.asked.lock().unwrap().push(request.options.may_have_run);
            if self.is_out_of_reach {
                return Err(out_of_reach("no way".to_owned()));
            }
            let home = self.of.as_ref().and_then(|known| known.home.lock().unwrap().clone());
            if let Some(home) = home.filter(|home| home.region.as_str() != "here") {
                return Err(elsewhere(&home));
            }
            Ok(stream::iter(Vec::<Result<TurnEvent, Error>>::new()).boxed())
        }

        async fn resume(&self, _: &TenantId, _: &TurnId) -> Result<TurnOutcome, Error> {
            Err(Error::not_found("no such turn"))
        }

        async fn change(&self, _: &SessionChange) -> Result<Option<Session>, Error> {
            self.asked.lock().unwrap().push(false);
            Err(Error::not_found("there is no such session"))
        }
    }

    struct Stage {
        known: Arc<Known>,
        local: Arc<Invoker>,
        other: Arc<Invoker>,
        home: HomeInvoker,
        receiver: HomeReceiver,
    }

    /// A session at home in `at`, whose region was last heard of so many seconds ago.
    fn stage(at: Option<&str>, silent_for: i64, change: impl Fn(&mut RegionState), reached: bool) -> Stage {
        let now = Timestamp::from_millis(10_000_000);
        let state = |name: &str, silent_for: i64| RegionState {
            region: RegionId::new(name),
            is_here: name == "here",
            in_service: true,
            beat_at: Some(Timestamp::from_millis(now.as_millis() - silent_for * 1_000)),
        };
        let mut states = vec![state("here", 0), state("there", silent_for)];
        states.iter_mut().for_each(change);
        let home = at.map(|at| Home { region: RegionId::new(at), epoch: 1, since: None });
        let known = Arc::new(Known { home: Mutex::new(home), states, looks: Mutex::new(0) });
        let local = Arc::new(Invoker { of: Some(known.clone()), ..Invoker::default() });
        let other = Arc::new(Invoker { is_out_of_reach: !reached, ..Invoker::default() });
        let parts = || HomeParts {
            here: RegionId::new("here"),
            regions: known.clone(),
            sessions: Arc::new(Memory::new()),
            local: local.clone(),
            elsewhere: BTreeMap::from([(RegionId::new("there"), other.clone() as Arc<dyn AgentInvoker>)]),
            clock: Arc::new(At(now)),
            lease: LEASE,
        };
        let (home, receiver) = (HomeInvoker::new(parts()), HomeReceiver::new(parts()));
        Stage { known, local, other, home, receiver }
    }

    type Heard = (Vec<bool>, Vec<bool>, Option<ErrorKind>);

    impl Stage {
        /// Who was asked, here and there, and what the caller heard.
        async fn ask(&self, enqueued_at: Option<i64>) -> Heard {
            self.heard(&self.home, enqueued_at).await
        }

        /// The same, of a turn that another region sent here.
        async fn receive(&self, enqueued_at: Option<i64>) -> Heard {
            self.heard(&self.receiver, enqueued_at).await
        }

        async fn heard(&self, asked: &dyn AgentInvoker, enqueued_at: Option<i64>) -> Heard {
            let enqueued_at = enqueued_at.map(Timestamp::from_millis);
            let request = RunRequest {
                turn: TurnId::new("t"),
                tenant: TenantId::single(),
                principal: PrincipalId::new("p"),
                agent: AgentId::new("a"),
                session: SessionKey::new("s"),
                sticky: true,
                idempotency: None,
                input: vec![MessageBody::user_text("hello")],
                options: RunOptions { enqueued_at, ..RunOptions::default() },
            };
            let heard = asked.invoke(request).await.err().map(|error| error.kind);
            (self.local.asked.lock().unwrap().clone(), self.other.asked.lock().unwrap().clone(), heard)
        }
    }

    #[tokio::test]
    async fn a_turn_goes_to_its_sessions_home_and_a_new_session_is_made_here() {
        let asked = |at| async move { stage(at, 0, |_| {}, true).ask(None).await };
        assert_eq!(asked(None).await, (vec![false], vec![], None));
        assert_eq!(asked(Some("here")).await, (vec![false], vec![], None));
        assert_eq!(asked(Some("there")).await, (vec![], vec![false], None));
    }

    #[tokio::test]
    async fn a_session_is_changed_by_its_home_and_here_only_if_that_is_gone() {
        let change = SessionChange {
            tenant: TenantId::single(),
            session: SessionKey::new("s"),
            from: SessionId::new("old"),
            to: Becomes::Nothing,
        };
        let asked = async |at, silent_for| {
            let stage = stage(at, silent_for, |_| {}, true);
            let heard = stage.home.change(&change).await.map_err(|error| error.kind);
            assert!(stage.local.asked.lock().unwrap().is_empty());
            heard
        };
        assert_eq!(asked(Some("here"), 0).await, Ok(None));
        assert_eq!(asked(Some("there"), 150).await, Err(ErrorKind::NotFound));
        assert_eq!(asked(Some("there"), 151).await, Ok(None));
    }

    #[tokio::test]
    async fn what_another_region_sends_runs_here_without_a_look_at_the_home() {
        for at in [None, Some("here")] {
            let stage = stage(at, 0, |_| {}, true);
            assert_eq!(stage.receive(None).await, (vec![false], vec![], None));
            assert_eq!(*stage.known.looks.lock().unwrap(), 0);
        }
    }

    #[tokio::test]
    async fn a_turn_that_was_sent_here_takes_its_session_over_from_a_home_that_is_gone_and_is_never_sent_on()
    {
        let received = async |silent_for| stage(Some("there"), silent_for, |_| {}, true).receive(None).await;
        assert_eq!(received(150).await, (vec![false], vec![], Some(ErrorKind::Conflict)));
        assert_eq!(received(151).await, (vec![false, false], vec![], None));
        let moved = stage(Some("there"), 151, |_| {}, true);
        assert_eq!(moved.receive(Some(10_090_000)).await.0, [false, true]);
        let all_out = stage(Some("there"), 0, |state| state.in_service = false, true);
        assert_eq!(all_out.receive(None).await.2, Some(ErrorKind::Unavailable));
    }

    #[tokio::test]
    async fn a_change_that_was_sent_here_takes_its_session_over_from_a_home_that_is_gone() {
        let received = async |at, silent_for| {
            let change = SessionChange {
                tenant: TenantId::single(),
                session: SessionKey::new("s"),
                from: SessionId::new("old"),
                to: Becomes::Nothing,
            };
            let stage = stage(Some(at), silent_for, |_| {}, true);
            let heard = stage.receiver.change(&change).await.map_err(|error| error.kind);
            assert!(stage.other.asked.lock().unwrap().is_empty());
            heard
        };
        assert_eq!(received("here", 0).await, Ok(None));
        assert_eq!(received("there", 150).await, Err(ErrorKind::Conflict));
        assert_eq!(received("there", 151).await, Ok(None));
    }

    #[tokio::test]
    async fn a_home_that_cannot_be_reached_is_not_gone_and_the_turn_does_not_run_here() {
        let asked = stage(Some("there"), 150, |_| {}, false).ask(None).await;
        assert_eq!(asked, (vec![], vec![false], Some(ErrorKind::Unavailable)));
    }

    #[tokio::test]
    async fn a_session_whose_home_is_silent_for_a_lease_and_a_beat_or_out_of_service_is_taken_over() {
        let silent = stage(Some("there"), 151, |_| {}, true).ask(None).await;
        assert_eq!(silent, (vec![false], vec![], None));
        let evacuate = |state: &mut RegionState| state.in_service = state.is_here;
        let evacuated = stage(Some("there"), 0, evacuate, true).ask(None).await;
        assert_eq!(evacuated, (vec![false], vec![], None));
    }

    #[tokio::test]
    async fn a_home_of_which_no_sign_of_life_has_arrived_yet_is_not_gone() {
        let unheard = |state: &mut RegionState| {
            if !state.is_here {
                state.region = RegionId::new("somewhere else");
            }
        };
        let asked = stage(Some("there"), 0, unheard, true).ask(None).await;
        assert_eq!(asked, (vec![], vec![false], None));
    }

    #[tokio::test]
    async fn a_session_of_a_region_that_is_none_of_ours_any_more_is_taken_over() {
        let asked = stage(Some("closed"), 0, |_| {}, true).ask(None).await;
        assert_eq!(asked, (vec![false], vec![], None));
    }

    #[tokio::test]
    async fn a_region_out_of_service_takes_nothing_over() {
        let all_out = |state: &mut RegionState| state.in_service = false;
        let asked = stage(Some("there"), 0, all_out, true).ask(None).await;
        assert_eq!(asked, (vec![], vec![], Some(ErrorKind::Unavailable)));
    }

    #[tokio::test]
    async fn what_was_enqueued_before_the_session_moved_may_have_run() {
        let moved = || stage(Some("there"), 151, |_| {}, true);
        assert_eq!(moved().ask(Some(10_090_000)).await.0, [true]);
        assert_eq!(moved().ask(Some(10_090_001)).await.0, [false]);
    }
}
