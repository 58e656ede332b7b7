//! What must hold when everything is healed and nothing happens any more.

use super::dice::Dice;
use super::history::{Ask, Report, SESSIONS, Told, heal, key_of, pass, set_in_service};
use super::model::marked;
use super::regions::{Answer, NAMES, World, name};
use super::tables::{REGIONS, Tables};
use serde_json::Value;
use shared::adapters::aws::dynamodb::table::{Attr, Item};
use shared::id::{SessionId, TenantId, TurnId};
use shared::job::{JobFilter, JobState, Work};
use shared::message::{Message, MessageBody};
use shared::region::MOST_REGIONS;
use shared::session::Window;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_util::task::TaskTracker;

/// Looks of every region after which nothing may be left to do.
const ROUNDS: u32 = 40;

/// Who slept wakes up.
pub(super) async fn wake(world: &Arc<World>, clients: &TaskTracker, dice: &Dice) {
    if world.has_frozen() {
        // Who slept wakes up while others are at work on what it had begun.
        for region in 0..REGIONS {
            world.restart(region);
        }
        pass(world, 100).await;
        for region in 0..REGIONS {
            let world = world.clone();
            clients.spawn(Box::pin(async move { world.sweep(region).await }));
        }
        tokio::time::sleep(Duration::from_millis(dice.below(2_500))).await;
        world.thaw();
    }
}

/// If a region is lost: the others go on for good without it, with what has arrived there. What they accepted themselves is
/// all there.
pub(super) async fn survive(
    world: &Arc<World>,
    clients: &TaskTracker,
    told: &Mutex<Told>,
    dice: &Dice,
) -> Report {
    let (lost, there): (Vec<_>, Vec<_>) = (0..REGIONS).partition(|region| world.tables.is_lost(*region));
    let (Some(first), false) = (there.first(), lost.is_empty()) else { return Report::new() };
    heal(world);
    start(world, &there);
    for region in &there {
        set_in_service(world, *first, *region, true).await;
    }
    for region in &lost {
        // Lost before its first sign of life was everywhere: that it is gone, an operator has to say.
        if !is_known(world, &there, *region).await {
            set_in_service(world, *first, *region, false).await;
        }
    }
    let region = there[usize::try_from(dice.below(2)).expect("below 2") % there.len()];
    let mut report = rest(world, clients, &there).await;
    if report.is_empty() {
        // Whether anybody asks for their sessions again or not.
        own_outcomes(world, &there, told, &mut report).await;
    }
    if report.is_empty() {
        sessions_go_on(world, region, "alone", told, &mut report).await;
    }
    if report.is_empty() {
        report = rest(world, clients, &there).await;
    }
    if report.is_empty() {
        own_outcomes(world, &there, told, &mut report).await;
    }
    for line in &mut report {
        *line = format!("without {lost:?}: {line}");
    }
    report
}

/// Each turn that began in one of these regions has an outcome in one of them. Not in each: it may stand behind something, or
/// have come to the outcome of another turn, that a lost region told only one of them.
async fn own_outcomes(world: &World, regions: &[usize], told: &Mutex<Told>, report: &mut Report) {
    let told = told.lock().expect("no panic").clone();
    for (turn, ask) in &told.accepted {
        if !regions.iter().any(|region| has_begun(&world.tables, *region, turn)) {
            continue;
        }
        let mut seen = Vec::new();
        for region in regions {
            seen.extend(without_outcome(world, *region, turn, ask).await);
        }
        if seen.len() == regions.len() {
            report.extend(seen);
        }
    }
}

/// Whether a turn has begun in a region, and not only arrived there. Reads the stored form by hand.
pub(super) fn has_begun(tables: &Tables, region: usize, turn: &str) -> bool {
    let is_first = |step: &Item| {
        // Of a deleted session's step only the audit rows are left.
        let Some(body) = step.attrs.get("b") else { return false };
        let Attr::Text(body) = body else { panic!("no body: {body:?}") };
        // No step of a history is so large that its body goes on in further items.
        let body: Value = serde_json::from_str(body).expect("a whole body");
        let epoch = step.key.sort.split('#').nth(2).expect("a step's key");
        let epoch: u64 = epoch.parse().expect("an epoch");
        body.get("t").is_some() && epoch % MOST_REGIONS == region as u64
    };
    let of_turn = |step: &Item| step.attrs.get("turn") == Some(&Attr::Text(turn.to_owned()));
    tables.items(region, "M#").iter().any(|step| of_turn(step) && is_first(step))
}

/// Whether each of these regions has had a sign of life of that one.
async fn is_known(world: &World, regions: &[usize], that: usize) -> bool {
    for region in regions {
        let app = &world.at(*region).app;
        let regions = app.regions.as_ref().expect("several regions");
        let known = regions.states(app.clock.now()).await.expect("regions");
        if !known.iter().any(|state| state.region == name(that)) {
            return false;
        }
    }
    true
}

/// Mends everything and lets it come to rest. What does not is reported.
pub(super) async fn settle(world: &Arc<World>, clients: &TaskTracker) -> Report {
    heal(world);
    let all: Vec<usize> = (0..REGIONS).collect();
    for region in &all {
        world.tables.set_lost(*region, false);
    }
    start(world, &all);
    for region in &all {
        set_in_service(world, 0, *region, true).await;
    }
    rest(world, clients, &all).await
}

/// Nothing happens to these regions' processes any more.
fn start(world: &Arc<World>, regions: &[usize]) {
    for region in regions {
        let life = world.at(*region).life;
        life.end_at(u64::MAX);
        life.loses_answer_at(u64::MAX);
        life.lose_answers(0);
        world.restart(*region);
    }
}

/// Lets these regions come to rest.
async fn rest(world: &Arc<World>, clients: &TaskTracker, regions: &[usize]) -> Report {
    let mut quiet = 0;
    for _ in 0..ROUNDS {
        pass(world, 100).await;
        let mut touched = 0;
        for region in regions {
            touched += world.sweep(*region).await;
            touched += world.run_worker(*region).await;
            touched += usize::from(has_pending_jobs(world, *region).await);
        }
        let is_quiet = touched == 0 && clients.is_empty() && world.tables.is_quiet();
        quiet = if is_quiet { quiet + 1 } else { 0 };
        if quiet == 2 {
            return Report::new();
        }
    }
    let mut report = vec![format!("it does not come to rest; {} clients still wait", clients.len())];
    for region in regions {
        let app = world.at(*region).app;
        let left = app.stores.index.interrupted(app.clock.now(), app.config.turns.lease, 10).await;
        report.push(format!("interrupted in {}: {left:?}", NAMES[*region]));
        report.push(world.tables.dump(*region, ""));
    }
    report
}

async fn jobs(world: &World, region: usize) -> Vec<shared::job::Job> {
    let filter = JobFilter { limit: 100, ..JobFilter::default() };
    let app = &world.at(region).app;
    app.stores.jobs.list(&TenantId::single(), &filter, app.clock.now()).await.expect("the queue")
}

async fn has_pending_jobs(world: &World, region: usize) -> bool {
    jobs(world, region).await.iter().any(|job| job.state == JobState::Pending)
}

/// Checks every promise; see the module's head. What is replicated is the same everywhere, which is looked at twice;
/// beyond that one region's view is as good as any other's.
pub(super) async fn check(world: &Arc<World>, all_told: &Mutex<Told>, dice: &Dice) -> Report {
    let told = all_told.lock().expect("no panic").clone();
    let mut report = told.odd.clone();
    report.extend(world.tables.differences());
    let view = || usize::try_from(dice.below(3)).expect("few regions");
    outcomes(world, view(), &told, &mut report).await;
    keys(world, view(), &told, &mut report).await;
    effects(world, &told, &mut report);
    for job in jobs(world, view()).await {
        if job.state == JobState::Pending || (job.state == JobState::Dead && job.reason.is_none()) {
            report.push(format!("the job {} is {:?}: {:?}", job.job.id, job.state, job.reason));
        }
    }
    sessions_go_on(world, view(), "last", all_told, &mut report).await;
    let told = all_told.lock().expect("no panic").clone();
    while !world.tables.is_quiet() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    transcripts(world, view(), &told, &mut report).await;
    let app = world.at(view()).app;
    let verdict = app.stores.audit.verify(&TenantId::single()).await.expect("the audit trail");
    if !verdict.broken.is_empty() {
        report.push(format!("broken audit rows: {:?}", verdict.broken));
    }
    report.extend(world.tables.differences());
    report
}

/// Each accepted turn has an outcome.
async fn outcomes(world: &World, region: usize, told: &Told, report: &mut Report) {
    for (turn, ask) in &told.accepted {
        report.extend(without_outcome(world, region, turn, ask).await);
    }
}

/// What is seen of a turn, if that is no outcome. A hook's is looked for as its sender does: its job may be dead.
async fn without_outcome(world: &World, region: usize, turn: &str, ask: &Ask) -> Option<String> {
    let status = if ask.is_hook {
        let path = format!("/v1/sessions/{}/turns/{turn}", ask.session_key());
        let answer = world.ask(region, "GET", &path, &[], String::new()).await;
        answer.map(|answer| answer.json()["status"].clone()).unwrap_or_default()
    } else {
        let sessions = world.at(region).app.stores.sessions;
        let found = sessions.turn(&TenantId::single(), &TurnId::new(turn)).await;
        let outcome = found.expect("a turn").and_then(|turn| turn.outcome);
        serde_json::to_value(outcome).expect("an outcome")["status"].clone()
    };
    let is_seen = ["done", "failed", "parked"].iter().any(|word| status == *word);
    (!is_seen).then(|| format!("the turn {turn} of {ask:?} is seen in {} as {status}", NAMES[region]))
}

/// Whoever asks again with a key gets the one outcome of that key.
async fn keys(world: &World, region: usize, told: &Told, report: &mut Report) {
    let keyed: BTreeSet<&Ask> = told.accepted.values().filter(|ask| ask.key.is_some()).collect();
    for ask in keyed {
        let answer = ask.send(world, region).await;
        let is_told = answer.as_ref().is_some_and(|answer| match answer.status.as_u16() {
            200 if ask.is_hook => ask.turn_of(answer).is_some_and(|turn| told.accepted.contains_key(&turn)),
            200 => {
                answer.header("idempotency-replayed") == Some("true")
                    && answer.text().contains(&format!("reply to {}", ask.name))
            }
            409 => answer.json()["error"]["code"] == "parked",
            _ => false,
        });
        if !is_told {
            report.push(format!("{ask:?} again is answered {answer:?}"));
        }
    }
}

/// No turn paid twice. A hook that was sent to two regions is two requests.
fn effects(world: &World, told: &Told, report: &mut Report) {
    for (turn, count) in world.effects.lock().expect("no panic").iter() {
        let ask = told.accepted.get(turn.as_str());
        let regions = ask.and_then(|ask| told.asked.get(ask)).map_or(1, BTreeSet::len);
        let allowed = if ask.is_some_and(|ask| ask.is_hook) { regions } else { 1 };
        if usize::try_from(*count).expect("few") > allowed {
            report.push(format!("the turn {turn} of {ask:?} paid {count} times"));
        }
    }
}

/// Each session takes a further turn, named by `word`.
async fn sessions_go_on(world: &World, region: usize, word: &str, told: &Mutex<Told>, report: &mut Report) {
    for session in 0..SESSIONS {
        let name = format!("{word}{session}");
        let ask = Ask { session, key: None, name, word: "plain", is_hook: false };
        let answer = ask.send(world, region).await;
        let is_reply = |answer: &Answer| {
            answer.status.as_u16() == 200 && answer.text().contains(&format!("reply to {}", ask.name))
        };
        match answer {
            Some(answer) if is_reply(&answer) => {
                told.lock().expect("no panic").note(&ask, region, &answer);
            }
            other => report.push(format!("the session s{session} takes no further turn: {other:?}")),
        }
    }
}

/// A transcript holds each input and each tool's result once, every accepted input that was not put away, and its turns one
/// after the other, each with one reply and an outcome. Nothing that was put away comes back.
async fn transcripts(world: &World, region: usize, told: &Told, report: &mut Report) {
    let sessions = world.at(region).app.stores.sessions;
    let tenant = TenantId::single();
    let dead: BTreeSet<TurnId> = jobs(world, region)
        .await
        .into_iter()
        .filter(|job| job.state == JobState::Dead)
        .map(|job| {
            let Work::Turn(request) = job.job.work;
            request.turn
        })
        .collect();
    for session in 0..SESSIONS {
        let present = sessions.load(&tenant, &key_of(session)).await.expect("a session");
        let Some(present) = present.map(|session| session.id) else {
            report.push(format!("there is no s{session}"));
            continue;
        };
        let read = sessions.transcript(&tenant, &key_of(session), Window::newest(1_000)).await;
        let transcript = read.expect("a transcript");
        for turn in transcript.chunk_by(|one, next| one.turn == next.turn) {
            let id = &turn[0].turn;
            let is_reply = |message: &&Message| matches!(&message.body, MessageBody::Assistant { tool_calls, .. } if tool_calls.is_empty());
            let replies = turn.iter().filter(is_reply).count();
            let is_twice =
                |message: &Message| turn.iter().filter(|other| other.body == message.body).count() > 1;
            let found = sessions.turn(&tenant, id).await.expect("a turn");
            let has_ended = found.is_some_and(|turn| turn.outcome.is_some());
            let is_whole = transcript.iter().filter(|message| message.turn == *id).count() == turn.len();
            if replies != 1 || turn.iter().any(is_twice) || !has_ended || !is_whole {
                report.push(format!(
                    "the transcript of s{session} holds, ended: {has_ended}, whole: {is_whole}: {turn:?}"
                ));
            }
        }
        let mut inputs: BTreeMap<String, Vec<TurnId>> = BTreeMap::new();
        let mut results: BTreeSet<(&TurnId, &str)> = BTreeSet::new();
        for message in &transcript {
            if let MessageBody::ToolResult { call_id, .. } = &message.body
                && !results.insert((&message.turn, call_id))
            {
                report.push(format!("the transcript of s{session} holds the result of {call_id} twice"));
            }
            if let MessageBody::User { .. } = &message.body {
                let text = message.body.text();
                let (name, _) = marked(&text).expect("an input of ours");
                inputs.entry(name.to_owned()).or_default().push(message.turn.clone());
            }
        }
        for (name, turns) in &inputs {
            if turns.len() > 1 {
                report.push(format!("the transcript of s{session} holds {name} for each of {turns:?}"));
            }
        }
        let put_away = put_away(told, session, &present);
        for turn in transcript.iter().map(|message| &message.turn).collect::<BTreeSet<_>>() {
            if put_away.contains(turn) {
                report.push(format!("the transcript of s{session} holds {turn} again, which was put away"));
            }
        }
        for (turn, ask) in told.accepted.iter().filter(|(_, ask)| ask.session == session) {
            let turn = TurnId::new(turn.as_str());
            let is_dead = ask.is_hook && dead.contains(&turn);
            if is_dead || inputs.contains_key(&ask.name) {
                continue;
            }
            let found = sessions.turn(&tenant, &turn).await.expect("a turn");
            if found.is_none_or(|turn| turn.session_id == present) {
                report.push(format!("the transcript of s{session} lacks {}", ask.name));
            }
        }
    }
}

/// The turns of the transcripts that were put away one after the other until the present one began.
fn put_away<'t>(told: &'t Told, session: u8, present: &SessionId) -> BTreeSet<&'t TurnId> {
    let (mut ids, mut turns) = (vec![present], BTreeSet::new());
    while let Some(id) = ids.pop() {
        for reset in told.resets.iter().filter(|reset| reset.session == session && reset.after == *id) {
            ids.push(&reset.before);
            turns.extend(&reset.turns);
        }
    }
    turns
}
