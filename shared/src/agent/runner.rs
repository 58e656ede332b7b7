//! [`Runner`]: accepts turns and runs them in this process.
//!
//! Accepting is here: the session's lane, what the transcript knows already, [`SessionStore::begin`], and what to do
//! with each of its answers. What happens between acceptance and reply is [`super::turn`].

use super::history;
use super::home::elsewhere;
use super::lane::{LaneGuard, Lanes, busy};
use super::listener;
use super::recent::Recent;
use super::turn::{SoFar, TurnRun};
use super::workspace::Instructions;
use super::{Agent, AgentInvoker, RunOptions, RunRequest, TurnEvent, TurnStream};
use crate::audit::NewAudit;
use crate::bounds::RESUMPTIONS;
use crate::budget::Budget;
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::id::{IdSource, PrincipalId, SessionId, SessionKey, TenantId, TurnId};
use crate::message::MessageBody;
use crate::metrics::Metrics;
use crate::model::{ModelProvider, ModelRef};
use crate::quote::quoted;
use crate::session::{Begun, Failure, Lease, NewTurn, SessionStore, Turn, TurnOutcome, Window};
use crate::tool::Tool;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// First and longest pause between two looks at a session that another process holds.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// What a [`Runner`] works with.
pub struct RunnerParts {
    /// The agents, and how turns are run.
    pub config: Arc<Config>,
    /// Where turns are kept.
    pub sessions: Arc<dyn SessionStore>,
    /// Model vendors by their id in the configuration.
    pub models: BTreeMap<String, Arc<dyn ModelProvider>>,
    /// The built-in tools by name.
    pub tools: Arc<BTreeMap<String, Arc<dyn Tool>>>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where identifiers come from.
    pub ids: Arc<dyn IdSource>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What turns and their listeners may hold in memory.
    pub budget: Budget,
    /// Where turns run: a turn whose client left goes on here, and drain waits for it.
    pub turns: TaskTracker,
}

/// Until when turns may run in this process: on a server as long as they need, in a function until shortly before the end
/// of its invocation. A turn that is at work then stops where it stands, its steps recorded and its lease given back; it is
/// resumed like one whose process died. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Deadline(Arc<Mutex<Option<Instant>>>);

impl Deadline {
    /// From now on: until `at`. Counts for turns that begin or are resumed afterwards.
    pub fn set(&self, at: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// Waits until then.
    pub(super) fn passed(&self) -> impl Future<Output = ()> + Send + use<> {
        let at = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        async move {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        }
    }
}

/// Runs turns in this process. Cheap to clone.
#[derive(Clone)]
pub struct Runner {
    shared: Arc<Shared>,
}

/// What all turns of a runner share.
pub(super) struct Shared {
    pub(super) parts: RunnerParts,
    pub(super) instructions: Instructions,
    pub(super) recent: Recent,
    pub(super) deadline: Deadline,
    lanes: Lanes,
}

/// What acceptance led to.
enum Accepted {
    Run { lease: Lease, so_far: SoFar },
    Replay(Box<Turn>),
}

impl Runner {
    /// A runner over these parts.
    pub fn new(parts: RunnerParts) -> Self {
        Self::with_deadline(parts, Deadline::default())
    }

    /// A runner over these parts whose turns end or stop before the deadline.
    pub fn with_deadline(parts: RunnerParts, deadline: Deadline) -> Self {
        let shared = Shared {
            parts,
            instructions: Instructions::default(),
            recent: Recent::default(),
            deadline,
            lanes: Lanes::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Turns at work or waiting for their session, in this process.
    pub fn present(&self) -> usize {
        self.shared.lanes.len()
    }
}

#[async_trait]
impl AgentInvoker for Runner {
    async fn invoke(&self, mut request: RunRequest) -> Result<TurnStream, Error> {
        let shared = &self.shared;
        let agent = shared.agent(&request)?;
        let started = Instant::now();
        let lane = shared.enter_lane(&request.tenant, &request.session).await?;
        let until = started + shared.parts.config.turns.max_wait;
        match shared.accept(&mut request, &agent, until).await? {
            Accepted::Replay(turn) => Ok(replay(*turn)),
            Accepted::Run { lease, so_far } => {
                let principal = request.principal.clone();
                Ok(shared.start(agent, principal, request.options, lease, so_far, lane))
            }
        }
    }

    async fn resume(&self, tenant: &TenantId, turn: &TurnId) -> Result<TurnOutcome, Error> {
        let shared = &self.shared;
        let turn = shared
            .parts
            .sessions
            .turn(tenant, turn)
            .await?
            .ok_or_else(|| Error::not_found("no such turn"))?;
        let lane = shared.enter_lane(tenant, &turn.session).await?;
        shared.take_over(turn, lane).await
    }
}

/// A finished turn's answer, as if it came now.
fn replay(turn: Turn) -> TurnStream {
    let accepted = TurnEvent::Accepted {
        turn: turn.id,
        session: turn.session,
        session_id: turn.session_id,
        replayed: true,
    };
    let text = match &turn.outcome {
        Some(TurnOutcome::Done(reply)) if !reply.text.is_empty() => {
            Some(TurnEvent::Text { delta: reply.text.clone() })
        }
        _ => None,
    };
    let ended = turn.outcome.map(|outcome| TurnEvent::Ended { outcome });
    let events: Vec<_> = [Some(accepted), text, ended].into_iter().flatten().map(Ok).collect();
    stream::iter(events).boxed()
}

impl Shared {
    /// The agent that a request is for, if it and its model exist.
    fn agent(&self, request: &RunRequest) -> Result<Agent, Error> {
        let agent = self.parts.config.agent(&request.agent).ok_or_else(|| {
            Error::invalid(format!("Unknown agent '{}'.", quoted(request.agent.as_str()))).at("model")
        })?;
        if let Some(model) = &request.options.model {
            self.provider(model)?;
        }
        Ok(agent.clone())
    }

    /// Waits for the session's lane.
    async fn enter_lane(&self, tenant: &TenantId, session: &SessionKey) -> Result<LaneGuard, Error> {
        let turns = &self.parts.config.turns;
        let metrics = &self.parts.metrics;
        let _waiting = Waiting::new(metrics);
        self.lanes.enter(tenant, session, turns.max_waiting, turns.max_wait).await
    }

    /// The vendor of a model.
    pub(super) fn provider(&self, model: &ModelRef) -> Result<&Arc<dyn ModelProvider>, Error> {
        self.parts.models.get(&model.provider).ok_or_else(|| {
            Error::not_found(format!("Unknown model: {}", quoted(&model.to_string()))).at("model")
        })
    }

    /// An audit row of now.
    pub(super) fn audit(&self, principal: &PrincipalId, action: &str, detail: Value) -> NewAudit {
        let at = self.parts.clock.now();
        let id = self.parts.ids.ulid(at);
        NewAudit { id, at, principal: principal.clone(), action: action.to_owned(), detail }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    /// Asks the store until the turn is accepted, answered, or refused; other turns that were interrupted on this
    /// session are finished first.
    async fn accept(
        self: &Arc<Self>,
        request: &mut RunRequest,
        agent: &Agent,
        give_up: Instant,
    ) -> Result<Accepted, Error> {
        let input = self.new_input(request).await?;
        let options = serde_json::to_value(&request.options).map_err(Error::internal)?;
        let detail = json!({"trigger": request.options.trigger, "messages": input.len()});
        let mut new = NewTurn {
            turn: request.turn.clone(),
            tenant: request.tenant.clone(),
            session: request.session.clone(),
            new_session_id: SessionId::new(self.parts.ids.ulid(self.now())),
            agent: agent.id.clone(),
            principal: request.principal.clone(),
            user: request.options.user.clone(),
            channel: channel(&request.options).to_owned(),
            idempotency: request.idempotency.clone(),
            input,
            options,
            audit: self.audit(&request.principal, "turn.accepted", detail),
        };
        let mut pause = LOOK_AGAIN.0;
        loop {
            let now = self.now();
            new.audit.at = now;
            match self.parts.sessions.begin(&new, now, now + self.parts.config.turns.lease).await? {
                Begun::Started(lease) => {
                    self.parts.metrics.session_turn_created(&new.channel, &request.options.trigger);
                    return Ok(Accepted::Run { lease, so_far: SoFar::Input(new.input) });
                }
                // Asked once more, the store gives the outcome.
                Begun::Resumed { lease, tries, .. } if tries > RESUMPTIONS => {
                    self.give_up(&lease).await?;
                }
                Begun::Resumed { lease, steps, .. } => {
                    return Ok(Accepted::Run { lease, so_far: SoFar::Steps(steps) });
                }
                Begun::Unreadable(lease) => {
                    self.end_unreadable(&lease).await?;
                }
                Begun::Replayed(turn) => return Ok(Accepted::Replay(turn)),
                Begun::Mismatch => {
                    return Err(Error::new(
                        ErrorKind::Mismatch,
                        "this idempotency key was used with another request; use a new key for a new request",
                    ));
                }
                Begun::Elsewhere(home) => return Err(elsewhere(&home)),
                Begun::Orphaned(orphan) => {
                    // The lane of its session is ours: it is the session that we asked for.
                    Box::pin(self.finish(*orphan)).await?;
                }
                Begun::Busy { until, .. } => {
                    if Instant::now() + pause >= give_up {
                        return Err(busy("another process is at work on the session"));
                    }
                    tokio::time::sleep(pause.min(until.since(now).max(LOOK_AGAIN.0))).await;
                    pause = (pause * 2).min(LOOK_AGAIN.1);
                }
            }
        }
    }

    /// What the request adds to the session's transcript; taken out of it, since it may be large.
    async fn new_input(&self, request: &mut RunRequest) -> Result<Vec<MessageBody>, Error> {
        if request.input.is_empty() {
            return Err(Error::invalid("Missing user message in `messages`.").at("messages"));
        }
        if !request.sticky || request.input.len() < 2 {
            return Ok(std::mem::take(&mut request.input));
        }
        let window = Window::newest(history::look_back(&request.input));
        let transcript = self.parts.sessions.transcript(&request.tenant, &request.session, window).await?;
        Ok(history::unknown_part(&transcript, std::mem::take(&mut request.input)))
    }

    /// Sets an accepted turn going; its events come by the stream, which the turn does not need.
    fn start(
        self: &Arc<Self>,
        agent: Agent,
        principal: PrincipalId,
        options: RunOptions,
        lease: Lease,
        so_far: SoFar,
        lane: LaneGuard,
    ) -> TurnStream {
        let (teller, heard) =
            listener::channel(&self.parts.budget, lease.session.clone(), lease.turn.clone());
        let accepted = TurnEvent::Accepted {
            turn: lease.turn.clone(),
            session: lease.session.clone(),
            session_id: lease.session_id.clone(),
            replayed: false,
        };
        let mut run = TurnRun::new(Arc::clone(self), agent, principal, options, lease, Some(teller));
        run.weigh(&so_far);
        let work = async move {
            // Its outcome is stored and sent; an error is logged where it arose.
            let _ = run.complete(so_far).await;
            drop(lane);
        };
        self.parts.turns.spawn(Box::pin(work));
        stream::once(async { Ok(accepted) }).chain(heard).boxed()
    }

    /// Goes on with an interrupted turn on the tracker, so that it ends even if the caller goes.
    async fn take_over(self: &Arc<Self>, turn: Turn, lane: LaneGuard) -> Result<TurnOutcome, Error> {
        let shared = Arc::clone(self);
        let work = async move {
            let outcome = shared.finish(turn).await;
            drop(lane);
            outcome
        };
        let ended = self.parts.turns.spawn(Box::pin(work)).await;
        ended.unwrap_or_else(|stopped| Err(Error::internal(stopped)))
    }

    /// Takes an interrupted turn's lease and runs it to its end. The caller holds the session's lane.
    async fn finish(self: &Arc<Self>, turn: Turn) -> Result<TurnOutcome, Error> {
        let options: Result<RunOptions, _> = serde::Deserialize::deserialize(&turn.options);
        let again = NewTurn {
            turn: turn.id,
            tenant: turn.tenant,
            session: turn.session,
            new_session_id: turn.session_id,
            agent: turn.agent,
            principal: turn.principal,
            user: turn.user,
            channel: turn.channel,
            idempotency: None,
            input: Vec::new(),
            options: turn.options,
            audit: self.audit(&PrincipalId::new("reef"), "turn.accepted", json!({"trigger": "resume"})),
        };
        let now = self.now();
        let begun = self.parts.sessions.begin(&again, now, now + self.parts.config.turns.lease).await?;
        let (lease, steps) = match begun {
            Begun::Resumed { lease, tries, .. } if tries > RESUMPTIONS => {
                return self.give_up(&lease).await;
            }
            Begun::Resumed { lease, steps, tries } => {
                tracing::warn!(target: "operation", { turn.id = %lease.turn, session.key = %lease.session, tries }, "turn resumed");
                (lease, steps)
            }
            Begun::Unreadable(lease) => return self.end_unreadable(&lease).await,
            Begun::Replayed(turn) => {
                return turn.outcome.ok_or_else(|| Error::internal("a replayed turn has no outcome"));
            }
            // Between our look and now somebody else finished it with an error that may pass: it has no input of
            // ours, so there is nothing to run.
            Begun::Started(lease) => {
                let error = Error::new(ErrorKind::Unavailable, "the turn was interrupted; ask again");
                return TurnRun::refuse(self, &lease, error, Vec::new()).await;
            }
            Begun::Busy { .. } | Begun::Orphaned(_) | Begun::Mismatch => {
                return Err(busy("another process is at work on the session"));
            }
            Begun::Elsewhere(home) => return Err(elsewhere(&home)),
        };
        let Ok(options) = options else { return self.end_unreadable(&lease).await };
        let Some(agent) = self.parts.config.agent(&again.agent).cloned() else {
            let error = Error::not_found(format!(
                "the agent '{}' is no longer configured",
                quoted(again.agent.as_str())
            ));
            return TurnRun::refuse(self, &lease, error, Vec::new()).await;
        };
        TurnRun::new(Arc::clone(self), agent, again.principal, options, lease, None)
            .complete(SoFar::Steps(steps))
            .await
    }

    /// Ends a turn of which not all that is stored can be read: its session goes on without it.
    async fn end_unreadable(self: &Arc<Self>, lease: &Lease) -> Result<TurnOutcome, Error> {
        tracing::error!(target: "error", { turn.id = %lease.turn,
            session.key = %lease.session }, "a turn was given up: what is stored of it cannot be read");
        let row = self.audit(&PrincipalId::new("reef"), "turn.given_up", json!({"unreadable": true}));
        TurnRun::refuse(self, lease, Failure::unreadable().into(), vec![row]).await
    }

    /// Ends a turn that was resumed too often at the same step.
    async fn give_up(self: &Arc<Self>, lease: &Lease) -> Result<TurnOutcome, Error> {
        tracing::error!(target: "error", { turn.id = %lease.turn,
            session.key = %lease.session,
            tries = RESUMPTIONS }, "a turn was given up: whoever resumed it got no further");
        let row = self.audit(&PrincipalId::new("reef"), "turn.given_up", json!({"tries": RESUMPTIONS}));
        let message = format!(
            "the turn was given up: it was interrupted and resumed {RESUMPTIONS} times and got no further"
        );
        TurnRun::refuse(self, lease, Error::new(ErrorKind::Internal, message), vec![row]).await
    }
}

/// Counts a request as waiting in the lane metrics, until it goes on or its caller leaves.
struct Waiting<'a> {
    metrics: &'a Metrics,
    since: Instant,
}

impl<'a> Waiting<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.lane_entered("session");
        Self { metrics, since: Instant::now() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.metrics.lane_left("session", self.since.elapsed());
    }
}

/// Where a turn is held, for the store and the metrics.
fn channel(options: &RunOptions) -> &str {
    if options.channel.is_empty() { "webchat" } else { &options.channel }
}
