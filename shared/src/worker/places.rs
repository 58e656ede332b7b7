//! Who holds how many of a worker's places. A job may hold its place for as long as a vendor is silent, so no agent, no
//! vendor and no token gets all of them: one that is in trouble takes no others along.
//!
//! Whoever holds half of the places gives way to those who hold less. Beyond that a token may have all but a quarter of
//! them (at least two are left), an agent and a vendor all but one: whatever one token does, some of its own agent's and its own
//! vendor's places are left to others. With two places each gets one; with one place there is nothing to share.

use crate::agent::Agent;
use crate::bounds::{most_of_other, most_of_token};
use crate::config::Config;
use crate::id::{AgentId, PrincipalId};
use crate::job::{Apart, NewJob, Work};
use crate::metrics::Metrics;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Who has a share.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Agent(AgentId),
    Token(PrincipalId),
    /// Of an agent's model.
    Vendor(String),
}

/// The places of one worker, and who holds them.
pub(super) struct Places {
    all: usize,
    /// Each agent's vendor.
    vendors: BTreeMap<AgentId, String>,
    held: Mutex<BTreeMap<Holder, usize>>,
    in_use: Mutex<usize>,
    freed: Notify,
    metrics: Arc<Metrics>,
}

/// One place, until it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    holders: Vec<Holder>,
}

impl Places {
    /// So many places, for the agents of these settings.
    pub(super) fn new(all: usize, config: &Config, metrics: Arc<Metrics>) -> Self {
        let vendor = |agent: &Agent| (agent.id.clone(), agent.model.provider.clone());
        metrics.worker_places(all);
        Self {
            all,
            vendors: config.agents.iter().map(vendor).collect(),
            held: Mutex::default(),
            in_use: Mutex::default(),
            freed: Notify::new(),
            metrics,
        }
    }

    /// Takes a place for the job.
    pub(super) fn take(self: &Arc<Self>, job: &NewJob) -> Place {
        let (agent, principal) = job.whose();
        let Work::Turn(request) = &job.work;
        let asked = request.options.model.as_ref().map(|model| &model.provider);
        let vendor = asked.or_else(|| self.vendors.get(agent)).cloned().map(Holder::Vendor);
        let mut holders = vec![Holder::Agent(agent.clone()), Holder::Token(principal.clone())];
        holders.extend(vendor);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for holder in &holders {
            *held.entry(holder.clone()).or_default() += 1;
        }
        drop(held);
        self.count(1);
        Place { places: Arc::clone(self), holders }
    }

    /// Whose jobs are left aside, from the first look for the next job to the last: jobs of those who hold less come first.
    pub(super) fn looks(&self) -> Vec<Apart> {
        let half = self.all.div_ceil(2);
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut looks: Vec<Apart> = Vec::new();
        for (token, other) in [(half, half), (half, usize::MAX), (usize::MAX, usize::MAX)] {
            let is_at_share = |holder: &Holder, count: usize| match holder {
                Holder::Token(_) => count >= token.min(most_of_token(self.all)),
                Holder::Agent(_) | Holder::Vendor(_) => count >= other.min(most_of_other(self.all)),
            };
            let mut apart = Apart::default();
            for (holder, _) in held.iter().filter(|(holder, count)| is_at_share(holder, **count)) {
                self.put_apart(holder, &mut apart);
            }
            if looks.last() != Some(&apart) {
                looks.push(apart);
            }
        }
        looks
    }

    /// Where all agents have one vendor, or there is one agent, there are no others to leave a place to.
    fn put_apart(&self, holder: &Holder, apart: &mut Apart) {
        match holder {
            Holder::Token(principal) => {
                apart.principals.insert(principal.clone());
            }
            Holder::Agent(agent) if self.vendors.len() > 1 => {
                apart.agents.insert(agent.clone());
            }
            Holder::Vendor(vendor) if self.vendors.values().any(|other| other != vendor) => {
                let theirs = self.vendors.iter().filter(|(_, of)| *of == vendor);
                apart.agents.extend(theirs.map(|(agent, _)| agent.clone()));
            }
            Holder::Agent(_) | Holder::Vendor(_) => {}
        }
    }

    /// Waits until a place is given back.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }

    fn count(&self, by: isize) {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        *in_use = in_use.saturating_add_signed(by);
        self.metrics.worker_places_in_use(*in_use);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.held.lock().unwrap_or_else(PoisonError::into_inner);
        for holder in &self.holders {
            if let Some(count) = held.get_mut(holder) {
                *count -= 1;
                if *count == 0 {
                    held.remove(holder);
                }
            }
        }
        drop(held);
        self.places.count(-1);
        self.places.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{RunOptions, RunRequest};
    use crate::id::{JobId, SessionKey, TenantId, TurnId};
    use crate::message::MessageBody;
    use std::path::Path;

    fn job(agent: &str, principal: &str) -> NewJob {
        let request = RunRequest {
            turn: TurnId::new("t"),
            tenant: TenantId::single(),
            principal: PrincipalId::new(principal),
            agent: AgentId::new(agent),
            session: SessionKey::new("s"),
            sticky: false,
            idempotency: None,
            input: vec![MessageBody::user_text("hello")],
            options: RunOptions::default(),
        };
        NewJob { id: JobId::new("j"), tenant: TenantId::single(), work: Work::Turn(Box::new(request)) }
    }

    /// The agents a and b of one vendor and c of another.
    fn places(all: usize) -> Arc<Places> {
        let text = r#"{
            models: { providers: {
                one: { api: "openai-completions", baseUrl: "http://127.0.0.1:1/v1", apiKey: "none-of-it" },
                two: { api: "openai-completions", baseUrl: "http://127.0.0.1:2/v1", apiKey: "none-of-it" },
            } },
            agents: [
                { id: "a", model: "one/m" }, { id: "b", model: "one/m" }, { id: "c", model: "two/m" },
            ],
        }"#;
        let config = Config::load(text, Path::new("/"), &|_| None, false);
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        Arc::new(Places::new(all, &config, Arc::new(Metrics::told(None))))
    }

    /// Takes jobs of these until none of them may have a place any more; in this order at each look.
    fn fill(places: &Arc<Places>, wanting: &[(&str, &str)]) -> Vec<Place> {
        let mut taken = Vec::new();
        while *places.in_use.lock().unwrap() < places.all {
            let may = |(agent, principal): &&(&str, &str), apart: &Apart| {
                !apart.has((&AgentId::new(*agent), &PrincipalId::new(*principal)))
            };
            let looks = places.looks();
            let next = looks.iter().find_map(|apart| wanting.iter().find(|job| may(job, apart)));
            let Some((agent, principal)) = next else { break };
            taken.push(places.take(&job(agent, principal)));
        }
        taken
    }

    fn of_token(taken: &[Place], principal: &str) -> usize {
        let token = Holder::Token(PrincipalId::new(principal));
        taken.iter().filter(|place| place.holders.contains(&token)).count()
    }

    #[test]
    fn whatever_one_token_does_there_is_a_place_for_another_one_at_once() {
        for all in 3..40 {
            for others in [("a", "bob"), ("b", "bob"), ("c", "bob")] {
                let places = places(all);
                let flood = fill(&places, &[("a", "alice")]);
                assert!(!flood.is_empty() && flood.len() < all, "{all}");
                assert!(!fill(&places, &[others]).is_empty(), "{all} {others:?}");
            }
        }
    }

    #[test]
    fn a_token_alone_gets_all_but_a_quarter_and_gives_way_from_half_on() {
        let places = places(8);
        let alone = fill(&places, &[("a", "alice")]);
        assert_eq!(alone.len(), 6);
        drop(alone);
        let both = fill(&places, &[("a", "alice"), ("c", "bob")]);
        assert_eq!((of_token(&both, "alice"), of_token(&both, "bob")), (4, 4));
    }

    #[test]
    fn a_silent_vendor_leaves_a_place_to_the_others_whoever_asks_it() {
        let places = places(8);
        let silent = fill(&places, &[("a", "alice"), ("b", "bob"), ("a", "carol"), ("b", "dave")]);
        assert_eq!(silent.len(), 7);
        assert_eq!(fill(&places, &[("a", "eve"), ("c", "eve")]).len(), 1);
    }

    #[test]
    fn a_single_place_is_for_everybody() {
        let places = places(1);
        assert_eq!(places.looks(), [Apart::default()]);
        let taken = fill(&places, &[("a", "alice")]);
        assert_eq!(taken.len(), 1);
        drop(taken);
        assert_eq!(places.looks(), [Apart::default()], "it is given back");
    }
}
