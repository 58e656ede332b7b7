//! A region that was closed: it gives no sign of life any more, and is among the regions that there are no longer.

use super::Lab;
use harness::stores::{at, new_job, new_turn, run, tenant};
use shared::adapters::aws::dynamodb::table::{Key, Table};
use shared::id::SessionKey;
use shared::job::{Apart, Work};
use shared::region::{Regions, Verdict};
use std::time::Duration;

const MINUTE: i64 = 60_000;

/// Whether a session is looked after in `a`.
async fn is_watched(lab: &Lab, session: &str) -> bool {
    let key = Key { partition: "W#a".to_owned(), sort: format!("S#main#{session}") };
    lab.core.get(&key).await.expect("an answer").is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_region_keeps_no_session_on_the_list_of_those_that_are_looked_after() {
    for (others, expected) in [(["a", "b", "c"].as_slice(), true), (&["a", "b", "closed"], false)] {
        let lab = Lab::new().await;
        let (_, closed) = lab.region(2, &["a", "b", "c"]);
        closed.beat(at(0)).await.expect("a sign of life");
        let ((stores, a), (_, b)) = (lab.region(0, others), lab.region(1, others));
        run(&stores, &new_turn("t", "s"), 10).await;
        for minute in 1..20 {
            b.beat(at(minute * MINUTE)).await.expect("a sign of life");
            a.beat(at(minute * MINUTE)).await.expect("a sign of life");
            a.reconcile(at(minute * MINUTE), 10).await.expect("a look");
        }
        assert_eq!(is_watched(&lab, "s").await, expected, "of {others:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_closed_region_accepted_is_taken_over_also_by_the_last_one() {
    for left in [["a", "b", "closed"], ["a", "closed", "closed"]] {
        let lab = Lab::new().await;
        let (there, closed) = lab.region(2, &["a", "b", "c"]);
        closed.beat(at(0)).await.expect("a sign of life");
        let (stores, a) = lab.region(0, &left);
        run(&there, &new_turn("k", "s"), 10).await;
        assert!(there.jobs.enqueue(&new_job("j", "hello"), Duration::ZERO, at(20)).await.expect("an answer"));
        let session = SessionKey::new("s");
        let home = a.home(&tenant(), &session).await.expect("an answer").expect("a home");
        let before = lab.core.get(&Key { partition: "S#main#s".to_owned(), sort: "H".to_owned() }).await;
        let before = before.expect("an answer").expect("the session's item");
        a.take_over(&tenant(), &session, &home, at(30)).await.expect("a home");
        let now = lab.core.get(&before.key).await.expect("an answer").expect("the session's item");
        // A turn that it writes after the session has moved.
        lab.put(before).await;
        run(&there, &new_turn("t2", "s"), 40).await;
        lab.put(now).await;
        let settled = a.reconcile(at(20 * MINUTE), 10).await.expect("a look");
        let verdicts: Vec<_> = settled.iter().map(|late| (late.turn.as_str(), late.verdict)).collect();
        assert_eq!(verdicts, [("t2", Verdict::Ended)]);
        // A job of this region whose turn the closed one has run under its own epoch.
        let again = new_job("k", "hello");
        assert!(stores.jobs.enqueue(&again, Duration::ZERO, at(20 * MINUTE)).await.expect("an answer"));
        let taken = stores
            .jobs
            .receive(9, at(21 * MINUTE), at(22 * MINUTE), &Apart::default())
            .await
            .expect("an answer");
        let may_have_run = taken.iter().map(|taken| {
            let Work::Turn(request) = &taken.job.job.work;
            (taken.job.job.id.as_str(), request.options.may_have_run)
        });
        assert_eq!(may_have_run.collect::<Vec<_>>(), [("j", true), ("k", true)]);
    }
}
