//! Plays a history: clients that ask, and what happens to the regions meanwhile.

use super::dice::Dice;
use super::op::{Kind, Op, TIMES};
use super::regions::{Answer, Stage, World, name};
use super::settled;
use super::tables::REGIONS;
use serde_json::json;
use shared::id::{SessionId, SessionKey, TenantId, TurnId};
use shared::session::Window;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// How many sessions a history uses.
pub(super) const SESSIONS: u8 = 3;

/// A request, so that it can be asked again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ask {
    pub(super) session: u8,
    pub(super) key: Option<u8>,
    /// The name of its input, unique but for requests with one key.
    pub(super) name: String,
    pub(super) word: &'static str,
    pub(super) is_hook: bool,
}

impl Ask {
    fn new(number: usize, session: u8, key: Option<u8>, kind: u8, is_hook: bool) -> Self {
        let prefix = if is_hook { "h" } else { "c" };
        match key {
            None => Self {
                session: session % SESSIONS,
                key,
                name: format!("{prefix}{number}"),
                word: Kind::of(kind).word(),
                is_hook,
            },
            // One key is one request: it says the rest.
            Some(key) => Self {
                session: key % SESSIONS,
                key: Some(key),
                name: format!("{prefix}k{key}"),
                word: Kind::of(key + 2).word(),
                is_hook,
            },
        }
    }

    /// The session's key.
    pub(super) fn session_key(&self) -> String {
        key_of(self.session).to_string()
    }

    /// The turn that an answer names.
    pub(super) fn turn_of(&self, answer: &Answer) -> Option<String> {
        if self.is_hook {
            return answer.json()["runId"].as_str().map(str::to_owned);
        }
        let in_head = answer.header("x-reef-turn-id").map(str::to_owned);
        in_head.or_else(|| {
            let text = answer.text();
            let (_, rest) = text.split_once("\"id\":\"chatcmpl_")?;
            Some(rest.split_once('"')?.0.to_owned())
        })
    }

    /// Asks for it in a region.
    pub(super) async fn send(&self, world: &World, region: usize) -> Option<Answer> {
        let input = format!("[{} {}]", self.name, self.word);
        let key = self.key.map(|key| format!("{}{key}", if self.is_hook { "h" } else { "c" }));
        let session = format!("s{}", self.session);
        let mut headers = Vec::new();
        if let Some(key) = &key {
            headers.push(("idempotency-key", key.as_str()));
        }
        if self.is_hook {
            let body = json!({"message": input, "sessionKey": session, "sessionMode": "persistent"});
            world.ask(region, "POST", "/hooks/agent", &headers, body.to_string()).await
        } else {
            headers.push(("x-openclaw-session-key", session.as_str()));
            let stream = self.word == "slow";
            let messages = json!([{"role": "user", "content": input}]);
            let body = json!({"model": "openclaw/main", "messages": messages, "stream": stream});
            world.ask(region, "POST", "/v1/chat/completions", &headers, body.to_string()).await
        }
    }
}

/// What was accepted, and by whom.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// Turns that clients were told of, each with its request.
    pub(super) accepted: BTreeMap<String, Ask>,
    /// Which regions were asked for what.
    pub(super) asked: BTreeMap<Ask, BTreeSet<usize>>,
    /// Transcripts that were put away.
    pub(super) resets: Vec<Reset>,
    /// Answers that are neither a reply nor an error that says when to try again.
    pub(super) odd: Vec<String>,
}

impl Told {
    /// Keeps what an answer says.
    pub(super) fn note(&mut self, ask: &Ask, region: usize, answer: &Answer) {
        let status = answer.status.as_u16();
        let body = answer.json();
        let code = body["error"]["code"].as_str().unwrap_or_default();
        match (status, ask.turn_of(answer)) {
            (200, Some(turn)) => {
                self.accepted.insert(turn, ask.clone());
            }
            // It waited for so long that the answer had begun; the refusal is an event.
            (200, None) if answer.text().contains("\"error\"") => {}
            (409, _) if code == "parked" => {}
            (409 | 429 | 503, _) if answer.header("retry-after").is_some() => {}
            _ => self.odd.push(format!("{ask:?} in region {region} was answered {status} {}", answer.text())),
        }
    }
}

/// A transcript that was put away, as its client saw it.
#[derive(Debug, Clone)]
pub(super) struct Reset {
    pub(super) session: u8,
    /// The transcript.
    pub(super) before: SessionId,
    /// The one that began instead.
    pub(super) after: SessionId,
    /// Turns that were seen in it.
    pub(super) turns: BTreeSet<TurnId>,
}

/// A session's stable key.
pub(super) fn key_of(session: u8) -> SessionKey {
    SessionKey::new(format!("agent:main:s{session}"))
}

/// What a history broke; nothing if all is well.
pub type Report = Vec<String>;

/// Plays a history and checks what it promised. The seed decides delays.
///
/// Runs on a runtime of its own, on this thread.
pub fn run(stage: &Arc<Stage>, seed: u64, ops: &[Op]) -> Report {
    let played = std::panic::catch_unwind(AssertUnwindSafe(|| play_all(stage, seed, ops)));
    played.unwrap_or_else(|_| vec!["something panicked; it says above where".to_owned()])
}

fn play_all(stage: &Arc<Stage>, seed: u64, ops: &[Op]) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let stage = stage.clone();
    let dice = Arc::new(Dice::new(seed));
    runtime.block_on(async move {
        let world = World::start(&stage, &dice).await;
        let told = Arc::new(Mutex::new(Told::default()));
        let clients = TaskTracker::new();
        for (number, op) in ops.iter().enumerate() {
            play(&world, &told, &clients, number, *op).await;
            for region in 0..REGIONS {
                world.restart(region);
            }
            let pause = [1, 150, 2_500][usize::try_from(dice.below(3)).expect("below 3")];
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        settled::wake(&world, &clients, &dice).await;
        let mut report = settled::survive(&world, &clients, &told, &dice).await;
        if report.is_empty() {
            report = settled::settle(&world, &clients).await;
        }
        if report.is_empty() {
            report = settled::check(&world, &told, &dice).await;
        }
        report
    })
}

fn region(index: u8) -> usize {
    usize::from(index) % REGIONS
}

async fn play(world: &Arc<World>, told: &Arc<Mutex<Told>>, clients: &TaskTracker, number: usize, op: Op) {
    match op {
        Op::Chat { region: at, session, key, kind } => {
            ask(world, told, clients, region(at), Ask::new(number, session, key, kind, false));
        }
        Op::EnqueueJob { region: at, session, key, kind } => {
            ask(world, told, clients, region(at), Ask::new(number, session, key, kind, true));
        }
        Op::Reset { region: at, session } => {
            let (world, told, at) = (world.clone(), told.clone(), region(at));
            clients.spawn(Box::pin(async move {
                let life = world.at(at).life;
                life.during(reset(&world, &told, at, session % SESSIONS)).await;
            }));
        }
        Op::RunWorker { region: at } => {
            let (world, at) = (world.clone(), region(at));
            clients.spawn(Box::pin(async move { world.run_worker(at).await }));
        }
        Op::Sweep { region: at } => {
            let (world, at) = (world.clone(), region(at));
            clients.spawn(Box::pin(async move { world.sweep(at).await }));
        }
        Op::Advance { time } => pass(world, TIMES[usize::from(time) % TIMES.len()]).await,
        Op::Replicate { percent } => world.tables.hurry(u64::from(percent)),
        Op::LoseRegion { region: at } => {
            world.tables.set_lost(region(at), true);
            world.kill(region(at));
        }
        Op::ReturnRegions => (0..REGIONS).for_each(|at| world.tables.set_lost(at, false)),
        Op::Partition { one, other } => world.tables.set_cut(region(one), region(other), true),
        Op::Heal => heal(world),
        Op::Evacuate { from, region: at } => set_in_service(world, region(from), region(at), false).await,
        Op::Restore { from, region: at } => set_in_service(world, region(from), region(at), true).await,
        Op::Freeze { region: at } => world.freeze(region(at)),
        Op::Thaw => world.thaw(),
        Op::LoseAnswers { region: at, every } => {
            world.at(region(at)).life.lose_answers(2 + u64::from(every));
        }
        Op::Crash { region: at, write } => world.at(region(at)).life.end_at(u64::from(write)),
        Op::LoseAnswer { region: at, write } => {
            world.at(region(at)).life.loses_answer_at(u64::from(write));
        }
    }
}

fn ask(world: &Arc<World>, told: &Arc<Mutex<Told>>, clients: &TaskTracker, at: usize, ask: Ask) {
    let (world, told) = (world.clone(), told.clone());
    told.lock().expect("no panic").asked.entry(ask.clone()).or_default().insert(at);
    clients.spawn(Box::pin(async move {
        if let Some(answer) = ask.send(&world, at).await {
            told.lock().expect("no panic").note(&ask, at, &answer);
        }
    }));
}

/// Asks for a reset, and notes what it put away if that is beyond doubt: the session had one home all the while. What a
/// region put away that had lost the session is undone with the rest of what it did too late.
async fn reset(world: &World, told: &Mutex<Told>, at: usize, session: u8) {
    let (tenant, key) = (TenantId::single(), key_of(session));
    let sessions = world.at(at).app.stores.sessions;
    let before = sessions.load(&tenant, &key).await;
    let seen = sessions.transcript(&tenant, &key, Window::newest(1_000)).await;
    let path = format!("/v1/sessions/{key}/reset");
    let Some(answer) = world.ask(at, "POST", &path, &[], String::new()).await else { return };
    match answer.status.as_u16() {
        200 => {}
        404 => return,
        409 | 429 | 503 if answer.header("retry-after").is_some() => return,
        status => {
            let odd =
                format!("the reset of s{session} in region {at} was answered {status} {}", answer.text());
            told.lock().expect("no panic").odd.push(odd);
            return;
        }
    }
    let after = sessions.load(&tenant, &key).await;
    let (Ok(Some(before)), Ok(seen), Ok(Some(after))) = (before, seen, after) else { return };
    if before.epoch == after.epoch && answer.json()["session_id"] == after.id.as_str() {
        let turns = seen.into_iter().map(|message| message.turn).collect();
        let reset = Reset { session, before: before.id, after: after.id, turns };
        told.lock().expect("no panic").resets.push(reset);
    }
}

/// Mends every link.
pub(super) fn heal(world: &World) {
    for one in 0..REGIONS {
        for other in 0..one {
            world.tables.set_cut(one, other, false);
        }
    }
}

/// Lets seconds pass, with every region's signs of life.
pub(super) async fn pass(world: &World, seconds: u64) {
    let mut left = seconds;
    while left > 0 {
        let step = left.min(50);
        for region in 0..REGIONS {
            world.beat(region).await;
        }
        tokio::time::sleep(Duration::from_secs(step)).await;
        left -= step;
    }
}

/// As an operator's command in region `from` does it.
pub(super) async fn set_in_service(world: &World, from: usize, region: usize, in_service: bool) {
    let process = world.at(from);
    let regions = process.app.regions.clone().expect("several regions");
    let now = process.app.clock.now();
    // An operator whose region is lost hears so.
    let _ = process.life.during(regions.set_in_service(&name(region), in_service, now)).await;
}
