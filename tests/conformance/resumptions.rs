//! How often a turn was resumed without getting further: [`shared::session::Begun::Resumed`].

use harness::stores::{at, failed, keyed_turn, new_turn, says, start};
use shared::app::Stores;
use shared::error::ErrorKind;
use shared::session::{Begun, Lease, NewTurn, Step};

/// Resumes a turn whose lease has run out; how often that was tried.
async fn resume(stores: &Stores, turn: &NewTurn, now: i64) -> (Lease, u32) {
    let begun = stores.sessions.begin(turn, at(now), at(now + 100)).await.expect("a verdict");
    let Begun::Resumed { lease, tries, .. } = begun else { panic!("{begun:?}") };
    (lease, tries)
}

pub(crate) async fn resumptions_without_a_step_between_them_are_counted(stores: &Stores) {
    let turn = new_turn("t1", "s");
    start(stores, &turn, 10, 100).await;
    for tries in 1..=3 {
        let now = 1_000 * i64::from(tries);
        let (lease, found) = resume(stores, &turn, now).await;
        assert_eq!(found, tries);
        // It was alive for a while, and no more than that.
        let kept = stores.sessions.append(&lease, &Step::default(), at(now + 50), at(now + 150)).await;
        kept.expect("a lease");
    }
    let (lease, tries) = resume(stores, &turn, 4_000).await;
    assert_eq!(tries, 4);
    stores.sessions.append(&lease, &says("a step"), at(4_010), at(4_110)).await.expect("an append");
    assert_eq!(resume(stores, &turn, 5_000).await.1, 1, "it got further");
    assert_eq!(resume(stores, &turn, 6_000).await.1, 2);
}

pub(crate) async fn a_turn_that_runs_again_is_counted_anew(stores: &Stores) {
    let turn = keyed_turn("t1", "s", "k");
    start(stores, &turn, 10, 100).await;
    let (lease, tries) = resume(stores, &turn, 1_000).await;
    assert_eq!(tries, 1);
    let failure = failed(ErrorKind::Upstream);
    stores.sessions.commit(&lease, &Step::default(), &failure, at(1_010)).await.expect("a commit");
    start(stores, &turn, 1_020, 1_100).await;
    assert_eq!(resume(stores, &turn, 2_000).await.1, 1);
}
