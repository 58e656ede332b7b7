//! An eye on a process' memory: a look every hundredth of a second.

use harness::usage;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// In MiB.
#[derive(Debug, Clone, Copy)]
struct Looks {
    first: f64,
    peak: f64,
    newest: f64,
}

fn note(looks: &Mutex<Looks>, now: f64) {
    let mut looks = looks.lock().unwrap_or_else(PoisonError::into_inner);
    looks.newest = now;
    looks.peak = looks.peak.max(now);
}

/// Looks until it is dropped, or the process is gone.
pub(crate) struct Watch {
    looks: Arc<Mutex<Looks>>,
    looking: JoinHandle<()>,
}

impl Watch {
    /// Of this process.
    pub(crate) fn start(process: u32) -> Self {
        let first = usage::rss_mib(process).expect("a process");
        let looks = Arc::new(Mutex::new(Looks { first, peak: first, newest: first }));
        let seen = Arc::clone(&looks);
        let looking = TaskTracker::new().spawn(async move {
            while let Ok(now) = usage::rss_mib(process) {
                note(&seen, now);
                sleep(PAUSE).await;
            }
        });
        Self { looks, looking }
    }

    fn looks(&self) -> Looks {
        *self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn first(&self) -> f64 {
        self.looks().first
    }

    pub(crate) fn peak(&self) -> f64 {
        self.looks().peak
    }

    pub(crate) fn now(&self) -> f64 {
        self.looks().newest
    }

    /// Waits until it is at most this much; returns how long that took, `None` if it took too long.
    pub(crate) async fn until_below(&self, mib: f64, limit: Duration) -> Option<Duration> {
        let began = Instant::now();
        while self.now() > mib || self.looking.is_finished() {
            if began.elapsed() > limit || self.looking.is_finished() {
                return None;
            }
            sleep(PAUSE).await;
        }
        Some(began.elapsed())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.looking.abort();
    }
}
