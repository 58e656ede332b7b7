//! Two regions: what is asked in the one for a session that is at home in the other.

use super::{CHAT, PROGRAMS, echoing, question};
use harness::client::{Client, Reply};
use harness::cloud::{AGENT_INVOKE, Deployment, QUEUE_WORKER};
use harness::lambda::front::Front;
use harness::lambda::in_region;
use http::Method;
use serde_json::{Value, json};
use shared::agent::hop::{Ask, Line, Lines};
use shared::clock::{Clock, SystemClock};
use shared::error::ErrorKind;
use shared::id::{SessionId, TenantId};
use shared::region::Regions;
use shared::session::{Becomes, Session, SessionChange};

const HERE: &str = "eu-central-1";
const THERE: &str = "us-east-1";

/// The session of [`TwoRegions::chat`].
const ONE: &str = "/v1/sessions/agent:main:one";

/// The functions in both regions, each with a client.
struct TwoRegions {
    deployment: Deployment,
    here: Client,
    there: Client,
    _front: Front,
}

impl TwoRegions {
    /// Starts them; each region gives a sign of life.
    async fn start() -> Self {
        let deployment = Deployment::start_in(PROGRAMS, &echoing(), &[HERE, THERE]).await;
        let token = deployment.admin().await;
        let front = Front::start(&deployment.platform, &in_region("gateway", THERE)).await;
        let (here, there) = (Client::new(deployment.front.url(), &token), Client::new(front.url(), &token));
        let schedule =
            json!({"source": "aws.scheduler", "detail-type": "Scheduled Event", "detail": {}}).to_string();
        for worker in [QUEUE_WORKER.to_owned(), in_region(QUEUE_WORKER, THERE)] {
            deployment.platform.answer(&worker, schedule.clone()).await.expect("an answer");
        }
        Self { deployment, here, there, _front: front }
    }

    async fn chat(&self, client: &Client, text: &str) {
        let headers = [("x-openclaw-session-key", "one")];
        let answer = client.post(CHAT, &headers, &question(text, false)).await.expect("an answer");
        let said = &answer.json()["choices"][0]["message"]["content"];
        assert_eq!(said, &format!("You said: {text}"), "{}", self.deployment.unusual());
    }

    /// How many processes of the agents' function there are, here and there.
    fn instances(&self) -> [usize; 2] {
        let platform = &self.deployment.platform;
        [platform.instances(AGENT_INVOKE), platform.instances(&in_region(AGENT_INVOKE, THERE))]
    }

    async fn evacuate_here(&self) {
        let regions = &self.deployment.regions;
        regions.set_in_service(&HERE.into(), false, SystemClock.now()).await.expect("a region");
    }

    /// What the agents' function of the first region says to this, as another region's gateway asks it.
    async fn change(&self, from: &SessionId, to: Becomes) -> Result<Session, ErrorKind> {
        let (tenant, session) = (TenantId::single(), "agent:main:one".into());
        let ask = Ask::Change(SessionChange { tenant, session, from: from.clone(), to });
        let ask = serde_json::to_vec(&ask).expect("JSON");
        let mut lines = Lines::default();
        lines.push(&self.deployment.platform.answer(AGENT_INVOKE, ask).await.expect("an answer"));
        match lines.next_line().expect("a line").expect("a line of ours") {
            Line::Session { session } => Ok(*session),
            Line::Error { error } => Err(error.kind),
            other => panic!("{other:?}"),
        }
    }
}

/// Resets the session of [`TwoRegions::chat`] and returns its new transcript's id.
async fn reset(client: &Client) -> Value {
    let answer = once(client, Method::POST, &format!("{ONE}/reset")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["messages"]), (200, &json!(0)), "{}", answer.body);
    answer.json()["session_id"].clone()
}

async fn once(client: &Client, method: Method, path: &str) -> Reply {
    client.send(method, path, &[], None).await.expect("an answer")
}

#[tokio::test]
async fn a_turn_runs_in_its_sessions_region_wherever_it_is_asked_for_until_that_region_is_evacuated() {
    let regions = TwoRegions::start().await;
    let (here, there) = (&regions.here, &regions.there);
    let ready = async |client: &Client| client.get("/readyz").await.expect("an answer").status.as_u16();

    regions.chat(here, "first").await;
    regions.chat(there, "second").await;
    assert_eq!(regions.instances(), [1, 0], "the second turn was not forwarded");

    regions.evacuate_here().await;
    assert_eq!([ready(here).await, ready(there).await], [503, 200]);
    regions.chat(there, "third").await;
    assert_eq!(regions.instances(), [1, 1], "the session was not taken over");
    let session = there.get("/v1/sessions").await.expect("an answer").json();
    assert_eq!(session["data"][0]["messages"], 6, "{session}");
}

#[tokio::test]
async fn a_session_is_reset_and_deleted_wherever_that_is_asked_for_and_moves_only_if_its_region_is_evacuated()
{
    let regions = TwoRegions::start().await;
    let (here, there) = (&regions.here, &regions.there);
    let epoch = async || {
        let sessions = &regions.deployment.stores.sessions;
        let found = sessions.load(&TenantId::single(), &"agent:main:one".into()).await.expect("an answer");
        found.expect("a session").epoch
    };

    regions.chat(here, "first").await;
    let at_first = epoch().await;
    let transcript = reset(there).await;
    assert_eq!(here.get(ONE).await.expect("an answer").json()["session_id"], transcript);
    assert_eq!(epoch().await, at_first, "the session moved");
    assert_eq!(once(there, Method::DELETE, ONE).await.json()["deleted"], true);
    assert_eq!(once(here, Method::GET, ONE).await.code(), "not_found");
    assert_eq!(once(there, Method::DELETE, ONE).await.code(), "not_found");

    regions.chat(here, "second").await;
    regions.evacuate_here().await;
    let at_second = epoch().await;
    reset(there).await;
    assert_ne!(epoch().await, at_second, "the session was not taken over");
    regions.chat(there, "third").await;
    assert_eq!(once(there, Method::DELETE, ONE).await.json()["deleted"], true);
    assert_eq!(once(there, Method::GET, ONE).await.code(), "not_found");
    assert_eq!(regions.instances(), [1, 1]);
}

#[tokio::test]
async fn a_reset_whose_answer_was_lost_and_a_change_of_what_is_there_no_more_leave_a_newer_transcript_alone()
{
    let regions = TwoRegions::start().await;
    regions.chat(&regions.here, "first").await;
    let session = regions.here.get(ONE).await.expect("an answer").json();
    let old = SessionId::new(session["session_id"].as_str().expect("an id"));
    let again = || regions.change(&old, Becomes::Empty("new".into()));

    assert_eq!(again().await.map(|session| (session.id, session.seq)), Ok(("new".into(), 0)));
    regions.chat(&regions.there, "second").await;
    assert_eq!(again().await.map(|session| (session.id, session.seq)), Ok(("new".into(), 2)));
    for to in [Becomes::Empty("newest".into()), Becomes::Nothing] {
        assert_eq!(regions.change(&old, to).await.map(|session| session.id), Err(ErrorKind::Conflict));
    }
    assert_eq!(regions.here.get(ONE).await.expect("an answer").json()["messages"], 2);
}
