//! The sweep: finishes turns that a crash interrupted, gives a region's sign of life, and brings what an old home wrote late
//! to one outcome.
//!
//! A turn may be what its process dies of. Those that were resumed in vain before are suspects: each is set going while no
//! other one is at work, so that one poisoned turn does not use up the tries of those that are sound.

use crate::app::App;
use crate::error::{Error, ErrorKind};
use crate::id::{TenantId, TurnId};
use crate::session::{Interrupted, Turn};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause between two looks of a server.
const EVERY: Duration = Duration::from_secs(1);

/// Most turns and late writes that one look finds.
const FOUND_AT_ONCE: usize = 64;

/// Most turns that a server resumes beside each other.
const ON_A_SERVER: usize = 64;

/// Most turns that a function resumes beside each other: each loads its transcript, and a function has 256 MB.
const IN_A_FUNCTION: usize = 16;

/// How long a function that found some looks for more.
const LOOKS_ON: Duration = Duration::from_secs(30);

/// How long a server leaves a turn alone that it could not resume: the next ones come first.
const LEFT_ALONE: Duration = Duration::from_secs(60);

/// One turn among those of every tenant.
type Which = (TenantId, TurnId);

/// A turn that was set going again.
struct Resumed {
    which: Which,
    going: JoinHandle<Went>,
}

/// How it went.
enum Went {
    /// It was interrupted indeed, and has its end.
    Resumed,
    /// Somebody else was faster, or its home is not gone.
    NotOurs,
    /// It stays interrupted.
    InVain,
}

/// Sweeps until `stop`: at once at the start, then every second. Turns whose lease still runs come later.
///
/// A turn may take minutes, and those that are interrupted meanwhile do not wait for it: a suspect at work may get others
/// beside it.
pub async fn run(app: App, work: TaskTracker, stop: CancellationToken) {
    let mut resumed: Vec<Resumed> = Vec::new();
    let mut in_vain: BTreeMap<Which, Instant> = BTreeMap::new();
    while !stop.is_cancelled() {
        beat(&app).await;
        for turn in resumed.extract_if(.., |turn| turn.going.is_finished()) {
            if !matches!(turn.going.await, Ok(Went::Resumed | Went::NotOurs)) {
                in_vain.insert(turn.which, Instant::now());
            }
        }
        in_vain.retain(|_, since| since.elapsed() < LEFT_ALONE);
        let places = ON_A_SERVER.saturating_sub(resumed.len());
        if places > 0 && !app.budget.is_spent() {
            let found = found(&app, &in_vain.keys().cloned().collect()).await;
            let first = together(&found, places, resumed.is_empty());
            resumed.extend(found.into_iter().take(first).map(|found| set_going(&app, &work, found.turn)));
        }
        reconcile(&app).await;
        let _ = stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
    }
}

/// The sweep of a function: gives this region's sign of life, then finishes interrupted turns whose session's home is here,
/// or whose home is gone, each once, and meanwhile brings what an old home wrote late to one outcome. Waits for those turns.
/// Returns how many it touched.
pub async fn once(app: &App, work: &TaskTracker) -> usize {
    let began = Instant::now();
    beat(app).await;
    let mut rounds = Rounds::default();
    // They come first: their callers wait.
    let mut resumed = rounds.next(app, work).await;
    let mut touched = reconcile(app).await;
    while !resumed.is_empty() {
        for turn in resumed {
            touched += usize::from(matches!(turn.going.await, Ok(Went::Resumed)));
        }
        resumed = if began.elapsed() < LOOKS_ON { rounds.next(app, work).await } else { Vec::new() };
    }
    touched
}

/// What a function resumes together, one time after the other.
#[derive(Default)]
struct Rounds {
    found: VecDeque<Interrupted>,
    had: BTreeSet<Which>,
}

impl Rounds {
    async fn next(&mut self, app: &App, work: &TaskTracker) -> Vec<Resumed> {
        // Sound turns of one look follow each other; before each suspect there may be new ones.
        if self.found.front().is_none_or(Interrupted::is_suspect) {
            self.found = found(app, &self.had).await.into();
        }
        let first = together(self.found.make_contiguous(), IN_A_FUNCTION, true);
        let resumed: Vec<Resumed> =
            self.found.drain(..first).map(|found| set_going(app, work, found.turn)).collect();
        self.had.extend(resumed.iter().map(|turn| turn.which.clone()));
        resumed
    }
}

async fn beat(app: &App) {
    if let Some(regions) = &app.regions
        && let Err(error) = regions.beat(app.clock.now()).await
    {
        tracing::error!(target: "error", { cause = Error::from(error).cause() }, "no sign of life could be given");
    }
}

/// Interrupted turns `apart` from these, in the order in which they are resumed: suspects last.
async fn found(app: &App, apart: &BTreeSet<Which>) -> Vec<Interrupted> {
    let (now, lease) = (app.clock.now(), app.config.turns.lease);
    match app.stores.index.interrupted(now, lease, FOUND_AT_ONCE + apart.len()).await {
        Ok(mut found) => {
            found.retain(|found| !apart.contains(&which(&found.turn)));
            found
        }
        Err(error) => {
            tracing::error!(target: "error", { cause = Error::from(error).cause() }, "interrupted turns cannot be listed");
            Vec::new()
        }
    }
}

/// How many of these turns are resumed beside each other: as many as are sound, up to `places`, or one suspect if it
/// `is_alone`.
fn together(found: &[Interrupted], places: usize, is_alone: bool) -> usize {
    match found.iter().take(places).take_while(|found| !found.is_suspect()).count() {
        0 => usize::from(is_alone).min(found.len()),
        sound => sound,
    }
}

fn which(turn: &Turn) -> Which {
    (turn.tenant.clone(), turn.id.clone())
}

fn set_going(app: &App, work: &TaskTracker, turn: Turn) -> Resumed {
    Resumed { which: which(&turn), going: work.spawn(Box::pin(resume_one(app.clone(), turn))) }
}

async fn resume_one(app: App, turn: Turn) -> Went {
    match app.agents.resume(&turn.tenant, &turn.id).await {
        Ok(_) => Went::Resumed,
        Err(error) if error.kind == ErrorKind::Conflict => Went::NotOurs,
        Err(error) => {
            tracing::error!(target: "error", { turn.id = %turn.id, error = %error, cause = error.cause() }, "a turn could not be resumed");
            Went::InVain
        }
    }
}

/// Brings late turns to one outcome each. Returns how many.
async fn reconcile(app: &App) -> usize {
    let Some(regions) = &app.regions else { return 0 };
    match regions.reconcile(app.clock.now(), FOUND_AT_ONCE).await {
        Ok(reconciled) => {
            for late in &reconciled {
                tracing::warn!(target: "operation", { turn.id = %late.turn, session.key = %late.session, verdict = ?late.verdict }, "late turn reconciled");
            }
            reconciled.len()
        }
        Err(error) => {
            tracing::error!(target: "error", { cause = Error::from(error).cause() }, "late turns cannot be reconciled");
            0
        }
    }
}
