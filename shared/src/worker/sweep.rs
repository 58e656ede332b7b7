//! The sweep: finishes turns that a crash interrupted, gives a region's sign of life, and brings what an old home wrote late
//! to one outcome.
//!
//! A turn may be what its process dies of. Those that were resumed in vain before are suspects: each is set going while no
//! other one is at work, so that one poisoned turn does not use up the tries of those that are sound.

use crate::app::App;
use crate::error::{Error, ErrorKind};
use crate::id::{TenantId, TurnId};
use crate::session::{Interrupted, Turn};
use std::collections::{BTreeMap, BTreeSet};
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
#[derive(Clone, Copy, PartialEq, Eq)]
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
        let apart = in_vain.keys().cloned().collect();
        resumed.extend(resume(&app, &work, places, resumed.is_empty(), &apart).await);
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
    let mut had = BTreeSet::new();
    // They come first: their callers wait.
    let mut resumed = resume(app, work, IN_A_FUNCTION, true, &had).await;
    let mut touched = reconcile(app).await;
    while !resumed.is_empty() {
        for turn in resumed {
            touched += usize::from(matches!(turn.going.await, Ok(Went::Resumed)));
            had.insert(turn.which);
        }
        let is_late = began.elapsed() >= LOOKS_ON;
        resumed = if is_late { Vec::new() } else { resume(app, work, IN_A_FUNCTION, true, &had).await };
    }
    touched
}

async fn beat(app: &App) {
    if let Some(regions) = &app.regions
        && let Err(error) = regions.beat(app.clock.now()).await
    {
        tracing::error!(target: "error", { cause = Error::from(error).cause() }, "no sign of life could be given");
    }
}

/// Sets up to `places` interrupted turns going again, `apart` from these; a suspect only if it `is_alone`.
async fn resume(
    app: &App,
    work: &TaskTracker,
    places: usize,
    is_alone: bool,
    apart: &BTreeSet<Which>,
) -> Vec<Resumed> {
    if places == 0 {
        return Vec::new();
    }
    let found = match app.stores.index.interrupted(app.clock.now(), FOUND_AT_ONCE + apart.len()).await {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(target: "error", { cause = Error::from(error).cause() }, "interrupted turns cannot be listed");
            return Vec::new();
        }
    };
    let which = |turn: &Turn| (turn.tenant.clone(), turn.id.clone());
    let found = found.into_iter().filter(|found| !apart.contains(&which(&found.turn))).collect();
    let turns = chosen(found, places, is_alone).into_iter();
    let going = |turn: &Turn| work.spawn(Box::pin(resume_one(app.clone(), turn.clone())));
    turns.map(|turn| Resumed { which: which(&turn), going: going(&turn) }).collect()
}

/// Which of the turns are resumed now.
fn chosen(found: Vec<Interrupted>, places: usize, is_alone: bool) -> Vec<Turn> {
    let (suspects, sound): (Vec<_>, Vec<_>) = found.into_iter().partition(Interrupted::is_suspect);
    let chosen = if sound.is_empty() {
        suspects.into_iter().take(usize::from(is_alone)).collect::<Vec<_>>()
    } else {
        sound.into_iter().take(places).collect()
    };
    chosen.into_iter().map(|interrupted| interrupted.turn).collect()
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
