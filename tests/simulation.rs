//! Random histories of three regions, and hand-written ones of bugs that were found so; see [`harness::simulation`].

use harness::simulation::{Stage, try_seed};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Histories of one run.
const HISTORIES: u64 = 10_000;

#[test]
fn whatever_happens_to_three_regions_each_accepted_turn_has_one_outcome() {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let stage = Arc::new(Stage::default());
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= HISTORIES {
                        break;
                    }
                    if let Err(failure) = try_seed(&stage, seed) {
                        next.store(HISTORIES, Ordering::SeqCst);
                        panic!("{failure}");
                    }
                }
            });
        }
    });
}
