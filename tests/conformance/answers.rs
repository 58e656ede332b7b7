//! Stored answers: [`shared::answer::AnswerStore`].

use harness::stores::{answer_key, at, idempotency, keyed_turn, new_turn, start};
use shared::answer::{Answer, AnswerKey, Claim};
use shared::app::Stores;
use shared::error::StoreError;
use shared::id::{PrincipalId, TenantId};
use shared::session::{Begun, NewTurn};
use tokio::task::JoinSet;

pub(super) fn answer(body: &str) -> Answer {
    Answer { status: 200, content_type: "application/json".to_owned(), body: body.to_owned() }
}

async fn claim(stores: &Stores, key: &AnswerKey, now: i64, until: i64) -> Claim {
    stores.answers.claim(key, at(now), at(until)).await.expect("a verdict")
}

pub(super) async fn store(stores: &Stores, key: &AnswerKey, body: &str, now: i64) -> Result<(), StoreError> {
    stores.answers.store(key, &answer(body), at(now)).await
}

pub(crate) async fn a_claimed_key_is_busy_until_its_claim_ends(stores: &Stores) {
    let key = answer_key("k", "f");
    assert_eq!(claim(stores, &key, 10, 100).await, Claim::Claimed);
    assert_eq!(claim(stores, &key, 20, 300).await, Claim::Busy { until: at(100) });
    assert_eq!(claim(stores, &key, 99, 300).await, Claim::Busy { until: at(100) });
}

pub(crate) async fn a_claim_that_ran_out_can_be_claimed_again(stores: &Stores) {
    let key = answer_key("k", "f");
    assert_eq!(claim(stores, &key, 10, 100).await, Claim::Claimed);
    assert_eq!(claim(stores, &key, 100, 200).await, Claim::Abandoned);
    assert_eq!(claim(stores, &key, 150, 300).await, Claim::Busy { until: at(200) });
}

pub(crate) async fn a_claim_that_ends_later_than_it_can_has_run_out(stores: &Stores) {
    const DAY: i64 = 24 * 60 * 60 * 1_000;
    let key = answer_key("k", "f");
    assert_eq!(claim(stores, &key, DAY, DAY + 100).await, Claim::Claimed);
    assert_eq!(claim(stores, &key, DAY - 5_000, DAY - 4_900).await, Claim::Busy { until: at(DAY + 100) });
    assert_eq!(claim(stores, &key, 1_000, 1_100).await, Claim::Abandoned);
    assert_eq!(claim(stores, &key, 1_050, 1_150).await, Claim::Busy { until: at(1_100) });
}

pub(crate) async fn an_answer_is_given_again(stores: &Stores) {
    let key = answer_key("k", "f");
    let body = "{\"日本語\": \"quote ' nul \0\"}";
    claim(stores, &key, 10, 100).await;
    store(stores, &key, body, 20).await.expect("a stored answer");
    assert_eq!(claim(stores, &key, 30, 200).await, Claim::Answered(answer(body)));
    assert_eq!(claim(stores, &key, 1_000_000, 2_000_000).await, Claim::Answered(answer(body)));
}

pub(crate) async fn an_answer_of_a_megabyte_is_given_again(stores: &Stores) {
    let key = answer_key("k", "f");
    let body = "{\"日本語\": \"quote ' nul \0\"}".repeat(40_000);
    claim(stores, &key, 10, 100).await;
    store(stores, &key, &body, 20).await.expect("a stored answer");
    store(stores, &key, "later", 25).await.expect("no harm");
    assert!(claim(stores, &key, 30, 200).await == Claim::Answered(answer(&body)));
    assert_eq!(claim(stores, &answer_key("k", "g"), 30, 200).await, Claim::Mismatch);
    let turn = NewTurn { idempotency: Some(key.idempotency), ..new_turn("t", "s") };
    let begun = stores.sessions.begin(&turn, at(40), at(140)).await.expect("a verdict");
    assert_eq!(begun, Begun::Mismatch);
}

pub(crate) async fn the_first_answer_stays(stores: &Stores) {
    let key = answer_key("k", "f");
    claim(stores, &key, 10, 100).await;
    // The claim ran out, somebody else did the work and answered; then the first one comes back.
    claim(stores, &key, 100, 200).await;
    store(stores, &key, "second", 110).await.expect("a stored answer");
    store(stores, &key, "first", 120).await.expect("no harm");
    assert_eq!(claim(stores, &key, 130, 300).await, Claim::Answered(answer("second")));
}

pub(crate) async fn a_key_with_another_body_is_a_mismatch(stores: &Stores) {
    claim(stores, &answer_key("k", "f"), 10, 100).await;
    assert_eq!(
        claim(stores, &answer_key("k", "other"), 20, 100).await,
        Claim::Mismatch,
        "while it is claimed"
    );
    assert_eq!(
        claim(stores, &answer_key("k", "other"), 200, 300).await,
        Claim::Mismatch,
        "after the claim ran out"
    );
    store(stores, &answer_key("k", "f"), "done", 20).await.expect("a stored answer");
    assert_eq!(claim(stores, &answer_key("k", "other"), 20, 100).await, Claim::Mismatch, "after the answer");
}

pub(crate) async fn only_a_claimed_key_can_be_answered(stores: &Stores) {
    let refused = store(stores, &answer_key("k", "f"), "x", 10).await;
    assert!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
    claim(stores, &answer_key("k", "f"), 10, 100).await;
    let refused = store(stores, &answer_key("k", "other"), "x", 20).await;
    assert!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
    start(stores, &keyed_turn("t", "s", "a turn's"), 10, 100).await;
    let refused = store(stores, &answer_key("a turn's", "same"), "x", 20).await;
    assert!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
}

pub(crate) async fn a_released_key_is_free_again(stores: &Stores) {
    claim(stores, &answer_key("k", "f"), 10, 100).await;
    // Who asks for something else has no say in it.
    stores.answers.release(&answer_key("k", "other")).await.expect("no harm");
    assert_eq!(claim(stores, &answer_key("k", "f"), 20, 200).await, Claim::Busy { until: at(100) });
    stores.answers.release(&answer_key("k", "f")).await.expect("a release");
    assert_eq!(claim(stores, &answer_key("k", "other"), 20, 200).await, Claim::Claimed);
    stores.answers.release(&answer_key("never claimed", "f")).await.expect("no harm");
}

pub(crate) async fn an_answered_key_is_not_released(stores: &Stores) {
    claim(stores, &answer_key("k", "f"), 10, 100).await;
    store(stores, &answer_key("k", "f"), "done", 20).await.expect("a stored answer");
    stores.answers.release(&answer_key("k", "f")).await.expect("no harm");
    assert_eq!(claim(stores, &answer_key("k", "f"), 30, 100).await, Claim::Answered(answer("done")));
}

pub(crate) async fn keys_belong_to_one_principal_of_one_tenant(stores: &Stores) {
    let alices = answer_key("k", "f");
    let bobs = AnswerKey { principal: PrincipalId::new("bob"), ..answer_key("k", "g") };
    let elsewhere = AnswerKey { tenant: TenantId::new("other"), ..answer_key("k", "h") };
    for mine in [&alices, &bobs, &elsewhere] {
        assert_eq!(claim(stores, mine, 10, 100).await, Claim::Claimed);
    }
    store(stores, &bobs, "bob's", 20).await.expect("a stored answer");
    stores.answers.release(&elsewhere).await.expect("a release");
    assert_eq!(claim(stores, &alices, 30, 100).await, Claim::Busy { until: at(100) });
    assert_eq!(claim(stores, &bobs, 30, 100).await, Claim::Answered(answer("bob's")));
}

pub(crate) async fn a_turns_key_is_a_mismatch(stores: &Stores) {
    let turn = NewTurn { idempotency: Some(idempotency("k", "f")), ..new_turn("t", "s") };
    start(stores, &turn, 10, 100).await;
    assert_eq!(claim(stores, &answer_key("k", "f"), 20, 100).await, Claim::Mismatch);
    assert_eq!(claim(stores, &answer_key("k", "other"), 20, 100).await, Claim::Mismatch);
    stores.answers.release(&answer_key("k", "f")).await.expect("no harm");
    assert_eq!(claim(stores, &answer_key("k", "f"), 20, 100).await, Claim::Mismatch);
}

pub(crate) async fn of_many_claims_at_once_one_gets_it(stores: &Stores) {
    let mut tasks = JoinSet::new();
    for _ in 0..32 {
        let stores = stores.clone();
        tasks.spawn(async move { claim(&stores, &answer_key("k", "f"), 10, 100).await });
    }
    let verdicts = tasks.join_all().await;
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == Claim::Claimed).count(), 1);
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == Claim::Busy { until: at(100) }).count(), 31);
}
