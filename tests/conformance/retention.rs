//! What is forgotten, and when: idempotency records of turns and of other requests.

use super::answers::{answer, store};
use harness::stores::{
    answer_key, at, delete, done, failed, idempotency, keyed_turn, new_turn, run, says, start,
};
use shared::answer::{AnswerKey, Claim};
use shared::app::Stores;
use shared::error::{ErrorKind, StoreError};
use shared::id::TurnId;
use shared::session::{Begun, Idempotency, NewTurn};

/// From when on the record of what was accepted or answered then counts no longer.
fn end_of(accepted: i64) -> i64 {
    Idempotency::kept_until(at(accepted)).as_millis()
}

fn other_body(turn: &str, session: &str, key: &str) -> NewTurn {
    NewTurn { idempotency: Some(idempotency(key, "other")), ..new_turn(turn, session) }
}

async fn begin(stores: &Stores, turn: &NewTurn, now: i64) -> Begun {
    stores.sessions.begin(turn, at(now), at(now + 90)).await.expect("a verdict")
}

async fn claim(stores: &Stores, key: &AnswerKey, now: i64) -> Claim {
    stores.answers.claim(key, at(now), at(now + 90)).await.expect("a verdict")
}

fn is_replay_of(begun: &Begun, id: &str) -> bool {
    matches!(begun, Begun::Replayed(turn) if turn.id == TurnId::new(id))
}

/// The turn that started.
async fn started(stores: &Stores, turn: &NewTurn, now: i64) -> TurnId {
    start(stores, turn, now, now + 90).await.turn
}

pub(crate) async fn a_turns_key_is_known_until_its_end_and_then_free(stores: &Stores) {
    run(stores, &keyed_turn("t1", "s", "k"), 1_234).await;
    let end = end_of(1_234);
    let replayed = begin(stores, &keyed_turn("t2", "s", "k"), end - 1).await;
    assert!(is_replay_of(&replayed, "t1"), "{replayed:?}");
    assert_eq!(begin(stores, &other_body("t2", "s", "k"), end - 1).await, Begun::Mismatch);
    // From its end on it is anybody's, also for something else.
    run(stores, &other_body("t2", "s", "k"), end).await;
    let replayed = begin(stores, &other_body("t3", "s", "k"), end + 10).await;
    assert!(is_replay_of(&replayed, "t2"), "{replayed:?}");
    assert_eq!(begin(stores, &keyed_turn("t3", "s", "k"), end + 10).await, Begun::Mismatch);
    // It names the second turn as long as if it had never been used.
    let replayed = begin(stores, &other_body("t3", "s", "k"), end_of(end) - 1).await;
    assert!(is_replay_of(&replayed, "t2"), "{replayed:?}");
    assert_eq!(started(stores, &keyed_turn("t3", "s", "k"), end_of(end)).await, TurnId::new("t3"));
}

pub(crate) async fn a_turn_is_known_by_its_id_when_its_key_is_forgotten(stores: &Stores) {
    run(stores, &keyed_turn("t1", "s", "k"), 10).await;
    run(stores, &keyed_turn("t2", "s", "k"), end_of(10)).await;
    let later = end_of(end_of(10));
    for again in [new_turn("t1", "s"), keyed_turn("t1", "elsewhere", "k"), keyed_turn("t1", "s", "new")] {
        let replayed = begin(stores, &again, later).await;
        assert!(is_replay_of(&replayed, "t1"), "{replayed:?}");
    }
    assert_eq!(begin(stores, &other_body("t1", "s", "k"), later).await, Begun::Mismatch);
}

pub(crate) async fn a_turn_that_runs_again_keeps_its_key_for_longer(stores: &Stores) {
    let first = start(stores, &keyed_turn("t1", "s", "k"), 10, 100).await;
    let outcome = failed(ErrorKind::Upstream);
    stores.sessions.commit(&first, &says(""), &outcome, at(20)).await.expect("a commit");
    let again = end_of(10) - 1;
    let second = start(stores, &keyed_turn("t2", "s", "k"), again, again + 90).await;
    assert_eq!(second.turn, TurnId::new("t1"));
    stores.sessions.commit(&second, &says("hi"), &done("hi"), at(again)).await.expect("a commit");
    for now in [end_of(10), end_of(again) - 1] {
        let replayed = begin(stores, &keyed_turn("t3", "s", "k"), now).await;
        assert!(is_replay_of(&replayed, "t1"), "{replayed:?}");
    }
    assert_eq!(started(stores, &keyed_turn("t3", "s", "k"), end_of(again)).await, TurnId::new("t3"));
}

pub(crate) async fn a_turn_that_runs_again_by_its_id_brings_no_key_back(stores: &Stores) {
    let first = start(stores, &keyed_turn("t1", "s", "k"), 10, 100).await;
    let outcome = failed(ErrorKind::Upstream);
    stores.sessions.commit(&first, &says(""), &outcome, at(20)).await.expect("a commit");
    let again = end_of(10);
    let second = start(stores, &keyed_turn("t1", "s", "k"), again, again + 90).await;
    stores.sessions.commit(&second, &says("hi"), &done("hi"), at(again)).await.expect("a commit");
    assert_eq!(started(stores, &keyed_turn("t2", "s", "k"), again).await, TurnId::new("t2"));
}

pub(crate) async fn a_turn_that_did_not_end_holds_its_session_when_its_key_is_forgotten(stores: &Stores) {
    let end = end_of(10);
    start(stores, &keyed_turn("t1", "s", "k"), 10, end + 50).await;
    let next = keyed_turn("t2", "s", "k");
    let busy = Begun::Busy { until: at(end + 50), turn: TurnId::new("t1") };
    assert_eq!(begin(stores, &next, end).await, busy);
    let orphaned = begin(stores, &next, end + 50).await;
    assert!(
        matches!(&orphaned, Begun::Orphaned(turn) if turn.id == TurnId::new("t1")),
        "it is finished first: {orphaned:?}"
    );
    let resumed = begin(stores, &new_turn("t1", "s"), end + 60).await;
    let Begun::Resumed { lease, .. } = resumed else { unreachable!("{resumed:?}") };
    stores.sessions.commit(&lease, &says("hi"), &done("hi"), at(end + 70)).await.expect("a commit");
    assert_eq!(started(stores, &next, end + 80).await, TurnId::new("t2"));
}

pub(crate) async fn a_deletion_leaves_a_key_that_names_another_sessions_turn_by_now(stores: &Stores) {
    run(stores, &keyed_turn("t1", "old", "k"), 10).await;
    let end = end_of(10);
    run(stores, &keyed_turn("t2", "young", "k"), end).await;
    delete(stores, "old").await;
    let replayed = begin(stores, &keyed_turn("t3", "s", "k"), end + 10).await;
    assert!(is_replay_of(&replayed, "t2"), "{replayed:?}");
}

pub(crate) async fn an_answer_is_given_until_its_end_and_then_forgotten(stores: &Stores) {
    let key = answer_key("k", "f");
    claim(stores, &key, 10).await;
    store(stores, &key, "first", 1_234).await.expect("a stored answer");
    // What comes too late changes nothing, nor how long the first is kept.
    store(stores, &key, "late", 900_000).await.expect("no harm");
    let end = end_of(1_234);
    assert_eq!(claim(stores, &key, end - 1).await, Claim::Answered(answer("first")));
    assert_eq!(claim(stores, &answer_key("k", "other"), end - 1).await, Claim::Mismatch);
    assert_eq!(claim(stores, &answer_key("k", "other"), end).await, Claim::Claimed);
    assert_eq!(claim(stores, &key, end).await, Claim::Mismatch);
    store(stores, &answer_key("k", "other"), "second", end + 20).await.expect("a stored answer");
    assert_eq!(claim(stores, &answer_key("k", "other"), end + 30).await, Claim::Answered(answer("second")));
}

pub(crate) async fn a_large_answer_is_forgotten_as_a_whole(stores: &Stores) {
    let key = answer_key("k", "f");
    let mut now = 10;
    for body in ["long, ü 日本 ".repeat(60_000), "shorter, ü 日本 ".repeat(30_000), "short".to_owned()]
    {
        assert_eq!(claim(stores, &key, now).await, Claim::Claimed);
        store(stores, &key, &body, now).await.expect("a stored answer");
        assert!(claim(stores, &key, end_of(now) - 1).await == Claim::Answered(answer(&body)));
        now = end_of(now);
    }
    assert_eq!(claim(stores, &key, now).await, Claim::Claimed);
}

pub(crate) async fn a_claim_without_an_answer_is_forgotten_like_one(stores: &Stores) {
    let [forgotten, again, late] = ["k1", "k2", "k3"].map(|key| answer_key(key, "f"));
    for key in [&forgotten, &again, &late] {
        claim(stores, key, 10).await;
    }
    let end = end_of(10);
    assert_eq!(claim(stores, &again, end - 1).await, Claim::Abandoned);
    assert_eq!(claim(stores, &again, end).await, Claim::Busy { until: at(end + 89) });
    assert_eq!(claim(stores, &again, end_of(end - 1) - 1).await, Claim::Abandoned, "kept for longer");
    assert_eq!(claim(stores, &forgotten, end).await, Claim::Claimed);
    let refused = store(stores, &late, "late", end).await;
    assert!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
    stores.answers.release(&late).await.expect("no harm");
    assert_eq!(claim(stores, &late, end).await, Claim::Claimed);
}

pub(crate) async fn a_free_key_may_be_used_by_the_other_kind(stores: &Stores) {
    run(stores, &keyed_turn("t1", "s", "turn's"), 10).await;
    claim(stores, &answer_key("request's", "same"), 10).await;
    let end = end_of(10);
    assert_eq!(claim(stores, &answer_key("turn's", "same"), end - 1).await, Claim::Mismatch);
    assert_eq!(begin(stores, &keyed_turn("t2", "s", "request's"), end - 1).await, Begun::Mismatch);
    assert_eq!(claim(stores, &answer_key("turn's", "same"), end).await, Claim::Claimed);
    assert_eq!(started(stores, &keyed_turn("t2", "s", "request's"), end).await, TurnId::new("t2"));
    assert_eq!(claim(stores, &answer_key("request's", "same"), end + 10).await, Claim::Mismatch);
    assert_eq!(begin(stores, &keyed_turn("t3", "s", "turn's"), end + 10).await, Begun::Mismatch);
}

/// The same for every store: it needs none.
#[test]
fn records_are_kept_for_thirty_days() {
    assert_eq!(end_of(1_000), 1_000 + 30 * 24 * 60 * 60 * 1_000);
    assert_eq!(end_of(1_001), end_of(2_000), "up to a whole second");
}
