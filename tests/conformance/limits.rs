//! Rate limits: [`shared::limit::RateLimiter`].

use harness::stores::at;
use shared::app::Stores;
use shared::limit::{Decision, Limit};
use std::time::Duration;
use tokio::task::JoinSet;

async fn take(stores: &Stores, subject: &str, limit: Limit, now: i64) -> Decision {
    stores.limits.take(subject, limit, at(now)).await.expect("a decision")
}

/// How many of `calls` calls one after the other are allowed.
async fn allowed(stores: &Stores, subject: &str, limit: Limit, now: i64, calls: usize) -> usize {
    let mut allowed = 0;
    for _ in 0..calls {
        allowed += usize::from(take(stores, subject, limit, now).await == Decision::Allowed);
    }
    allowed
}

pub(crate) async fn an_idle_subject_may_send_its_burst_and_one_more(stores: &Stores) {
    let limit = Limit::default();
    assert_eq!(allowed(stores, "s", limit, 1_000, 30).await, 21);
    assert_eq!(allowed(stores, "s", limit, 1_100, 5).await, 1);
    assert_eq!(allowed(stores, "s", limit, 1_000_000, 30).await, 21);
    let strict = Limit { per_second: 0.5, burst: 0 };
    assert_eq!(allowed(stores, "strict", strict, 1_000, 3).await, 1);
}

pub(crate) async fn a_denial_says_when_and_is_not_counted(stores: &Stores) {
    let limit = Limit { per_second: 2.0, burst: 1 };
    assert_eq!(allowed(stores, "s", limit, 1_000, 2).await, 2);
    for (now, wait) in [(1_000, 500), (1_100, 400), (1_499, 1)] {
        let denied = Decision::Denied { retry_after: Duration::from_millis(wait) };
        assert_eq!(take(stores, "s", limit, now).await, denied);
    }
    assert_eq!(take(stores, "s", limit, 1_500).await, Decision::Allowed);
}

pub(crate) async fn subjects_are_independent(stores: &Stores) {
    let limit = Limit { per_second: 1.0, burst: 0 };
    for subject in ["a", "b", "", "日本語 ' \0"] {
        assert_eq!(allowed(stores, subject, limit, 1_000, 2).await, 1, "{subject:?}");
    }
}

pub(crate) async fn an_allowance_comes_back_at_the_steady_rate(stores: &Stores) {
    let limit = Limit { per_second: 10.0, burst: 5 };
    assert_eq!(allowed(stores, "s", limit, 1_000, 10).await, 6);
    assert_eq!(allowed(stores, "s", limit, 1_250, 10).await, 2);
    assert_eq!(allowed(stores, "s", limit, 1_300, 10).await, 1);
    // A clock that was set back grants nothing.
    assert_eq!(allowed(stores, "s", limit, 900, 10).await, 0);
}

pub(crate) async fn of_many_calls_at_once_as_many_pass_as_may(stores: &Stores) {
    let limit = Limit { per_second: 1.0, burst: 9 };
    let mut tasks = JoinSet::new();
    for _ in 0..32 {
        let stores = stores.clone();
        tasks.spawn(async move { take(&stores, "s", limit, 1_000).await });
    }
    let decisions = tasks.join_all().await;
    assert_eq!(decisions.iter().filter(|decision| **decision == Decision::Allowed).count(), 10);
}

pub(crate) async fn thousands_of_subjects_are_counted_exactly(stores: &Stores) {
    // Far more subjects than any adapter keeps when they are idle; those that are not must not be forgotten.
    let limit = Limit { per_second: 1.0, burst: 0 };
    let slow = Limit { per_second: 0.001, burst: 0 };
    assert_eq!(take(stores, "busy", slow, 1_000).await, Decision::Allowed);
    for round in 0..3 {
        let now = 2_000 + round * 2_000;
        let mut tasks = JoinSet::new();
        for task in 0..16 {
            let stores = stores.clone();
            tasks.spawn(async move {
                for number in 0..90 {
                    let subject = format!("{round} {task} {number}");
                    assert_eq!(take(&stores, &subject, limit, now).await, Decision::Allowed);
                }
            });
        }
        tasks.join_all().await;
    }
    let denied = Decision::Denied { retry_after: Duration::from_secs(995) };
    assert_eq!(take(stores, "busy", slow, 6_000).await, denied);
}

pub(crate) async fn a_clock_that_was_ahead_for_a_moment_locks_nobody_out(stores: &Stores) {
    const DAY: i64 = 24 * 60 * 60 * 1_000;
    let limit = Limit::default();
    assert_eq!(allowed(stores, "s", limit, 1_000 + DAY, 30).await, 21);
    // As if nothing had been asked: not one more, and not one less.
    assert_eq!(allowed(stores, "s", limit, 1_000, 30).await, 21);
    assert_eq!(allowed(stores, "s", limit, 1_100, 5).await, 1);
    // A step back of a few seconds is no reason to forget: there may be two clocks.
    assert_eq!(allowed(stores, "s", limit, 100, 5).await, 0);
}

pub(crate) async fn a_limit_that_was_raised_counts_at_once(stores: &Stores) {
    let slow = Limit { per_second: 0.001, burst: 3 };
    assert_eq!(allowed(stores, "s", slow, 1_000, 9).await, 4);
    assert_eq!(allowed(stores, "s", Limit::default(), 2_000, 30).await, 21);
}
