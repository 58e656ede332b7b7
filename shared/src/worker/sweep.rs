//! The sweep: finishes turns that a crash interrupted, gives a region's sign of life, and brings what an old home wrote late
//! to one outcome.
//!
//! A turn may be what its process dies of. Those that were resumed in vain before are suspects: each is resumed without
//! another one beside it, so that one poisoned turn does not use up the tries of those that are sound.

use crate::app::App;
use crate::error::{Error, ErrorKind};
use crate::session::{Interrupted, Turn};
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

/// How long a function that found many looks for more.
const LOOKS_ON: Duration = Duration::from_secs(30);

/// Resumptions in vain from which on a turn is a suspect. The first may have been taken along by another one's end.
const SUSPECT_FROM: u32 = 2;

/// Sweeps until `stop`: at once at the start, then every second. Turns whose lease still runs come later.
pub async fn run(app: App, work: TaskTracker, stop: CancellationToken) {
    let mut resumed: Vec<JoinHandle<bool>> = Vec::new();
    while !stop.is_cancelled() {
        beat(&app).await;
        // A turn may take minutes; those that are interrupted meanwhile do not wait for it.
        resumed.retain(|turn| !turn.is_finished());
        resumed.extend(
            resume(&app, &work, ON_A_SERVER - resumed.len().min(ON_A_SERVER), resumed.is_empty()).await,
        );
        reconcile(&app).await;
        let _ = stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
    }
}

/// The sweep of a function: gives this region's sign of life, then finishes interrupted turns whose session's home is here,
/// or whose home is gone, and meanwhile brings what an old home wrote late to one outcome. Waits for those turns. Returns
/// how many it touched.
pub async fn once(app: &App, work: &TaskTracker) -> usize {
    let began = Instant::now();
    beat(app).await;
    // They come first: their callers wait.
    let resumed = resume(app, work, IN_A_FUNCTION, true).await;
    let mut touched = reconcile(app).await;
    let mut taken = all_taken(resumed).await;
    while taken == IN_A_FUNCTION && began.elapsed() < LOOKS_ON {
        touched += taken;
        taken = all_taken(resume(app, work, IN_A_FUNCTION, true).await).await;
    }
    touched + taken
}

/// Waits for turns that were resumed; how many of them were interrupted indeed.
async fn all_taken(resumed: Vec<JoinHandle<bool>>) -> usize {
    let ended = futures::future::join_all(resumed).await;
    ended.into_iter().filter(|taken| matches!(taken, Ok(true))).count()
}

async fn beat(app: &App) {
    if let Some(regions) = &app.regions
        && let Err(error) = regions.beat(app.clock.now()).await
    {
        tracing::error!(target: "error", { cause = Error::from(error).cause() }, "no sign of life could be given");
    }
}

/// Sets up to `places` interrupted turns going again; a suspect only if it `is_alone`. Each says in the end whether it was
/// interrupted indeed: somebody else may have been faster, or its home is not gone.
async fn resume(app: &App, work: &TaskTracker, places: usize, is_alone: bool) -> Vec<JoinHandle<bool>> {
    if places == 0 {
        return Vec::new();
    }
    let found = match app.stores.index.interrupted(app.clock.now(), FOUND_AT_ONCE).await {
        Ok(found) => found,
        Err(error) => {
            tracing::error!(target: "error", { cause = Error::from(error).cause() }, "interrupted turns cannot be listed");
            return Vec::new();
        }
    };
    let turns = chosen(found, places, is_alone).into_iter();
    turns.map(|turn| work.spawn(Box::pin(resume_one(app.clone(), turn)))).collect()
}

/// Which of the turns are resumed now.
fn chosen(found: Vec<Interrupted>, places: usize, is_alone: bool) -> Vec<Turn> {
    let (suspects, sound): (Vec<_>, Vec<_>) = found.into_iter().partition(|turn| turn.tries >= SUSPECT_FROM);
    let chosen = if sound.is_empty() {
        suspects.into_iter().take(usize::from(is_alone)).collect::<Vec<_>>()
    } else {
        sound.into_iter().take(places).collect()
    };
    chosen.into_iter().map(|interrupted| interrupted.turn).collect()
}

async fn resume_one(app: App, turn: Turn) -> bool {
    match app.agents.resume(&turn.tenant, &turn.id).await {
        Ok(_) => true,
        Err(error) if error.kind == ErrorKind::Conflict => false,
        Err(error) => {
            tracing::error!(target: "error", { turn.id = %turn.id, error = %error, cause = error.cause() }, "a turn could not be resumed");
            true
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
