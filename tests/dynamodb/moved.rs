//! Jobs whose session has moved to another region meanwhile.

use super::Lab;
use super::cut_short::Dying;
use harness::stores::{at, new_job, new_turn, run, tenant};
use shared::id::SessionKey;
use shared::job::{Apart, Work};
use shared::region::Regions;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

const NAMES: [&str; 2] = ["us-east-1", "eu-central-1"];

/// Whether a job that waits in the first region is told that it may have run, after the region `begins` has begun it and
/// died behind so many writes, and the session has moved to the other one.
async fn may_have_run(begins: usize, writes: usize) -> bool {
    let lab = Lab::new().await;
    let [here, there] = [0, 1].map(|number| lab.region(number, &NAMES));
    let (first, next) = if begins == 0 { (&here, &there) } else { (&there, &here) };
    run(&first.0, &new_turn("before", "s"), 10).await;
    assert!(here.0.jobs.enqueue(&new_job("j", "hello"), Duration::ZERO, at(20)).await.expect("an answer"));
    let dying = Dying { table: lab.core.clone(), left: AtomicUsize::new(writes) };
    let (dying, _) = lab.region_over(Arc::new(dying), begins, &NAMES);
    let begun = dying.sessions.begin(&new_turn("j", "s"), at(30), at(120)).await;
    assert_eq!(begun.is_ok(), writes > 1, "{begun:?}");
    let session = SessionKey::new("s");
    let home = next.1.home(&tenant(), &session).await.expect("an answer").expect("a home");
    next.1.take_over(&tenant(), &session, &home, at(40)).await.expect("a home");
    let delivered = here.0.jobs.receive(1, at(50), at(140), &Apart::default()).await.expect("a delivery");
    let Work::Turn(request) = &delivered[0].job.job.work;
    request.options.may_have_run
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_that_was_only_about_to_begin_has_not_run() {
    assert!(!may_have_run(0, 1).await, "nothing but its pointer was written");
    assert!(may_have_run(0, 99).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_whose_beginning_elsewhere_has_not_arrived_may_have_run() {
    assert!(may_have_run(1, 1).await, "more than its pointer may be on its way");
}
