//! When a call is tried again, and after how long: on paused time.

use async_trait::async_trait;
use futures::StreamExt;
use shared::adapters::models::retry::Retried;
use shared::model::{
    ModelError, ModelEvent, ModelFailure, ModelProvider, ModelRequest, ModelStream, StopReason, Usage,
};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

type Attempt = Result<Vec<Result<ModelEvent, ModelError>>, ModelError>;

/// Answers by a list, and keeps when it was asked.
struct Script {
    attempts: Mutex<VecDeque<Attempt>>,
    asked: Arc<Mutex<Vec<Instant>>>,
}

#[async_trait]
impl ModelProvider for Script {
    async fn stream(&self, _request: &ModelRequest) -> Result<ModelStream, ModelError> {
        self.asked.lock().unwrap().push(Instant::now());
        let attempt = self.attempts.lock().unwrap().pop_front().expect("an attempt too many");
        Ok(futures::stream::iter(attempt?).boxed())
    }
}

fn failure(failure: ModelFailure) -> ModelError {
    ModelError::new(failure, "it failed")
}

fn asking(failure: ModelFailure, wait: Duration) -> ModelError {
    ModelError { retry_after: Some(wait), ..self::failure(failure) }
}

fn good() -> Attempt {
    Ok(vec![Ok(ModelEvent::Text("yes".to_owned())), Ok(ModelEvent::Stop(StopReason::End))])
}

/// The outcome of a call with at most `max` attempts, and the milliseconds before each further attempt.
async fn run(max: u32, attempts: Vec<Attempt>) -> (Result<Vec<ModelEvent>, ModelFailure>, Vec<u128>) {
    let asked = Arc::<Mutex<Vec<Instant>>>::default();
    let script = Script { attempts: Mutex::new(attempts.into()), asked: asked.clone() };
    let retried = Retried::new(script, max);
    let outcome = super::events(&retried, &super::request("vendor/model", "hello")).await;
    let asked = asked.lock().unwrap();
    let waits = asked.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    (outcome.map_err(|error| error.failure), waits)
}

fn yes() -> Vec<ModelEvent> {
    vec![ModelEvent::Text("yes".to_owned()), ModelEvent::Stop(StopReason::End)]
}

#[tokio::test(start_paused = true)]
async fn waits_double_up_to_the_longest() {
    let failures = [
        ModelFailure::Overloaded,
        ModelFailure::Network,
        ModelFailure::Timeout,
        ModelFailure::RateLimited,
        ModelFailure::Overloaded,
        ModelFailure::Overloaded,
        ModelFailure::Overloaded,
    ];
    let mut attempts: Vec<Attempt> = failures.into_iter().map(|kind| Err(failure(kind))).collect();
    attempts.push(good());
    let waits = vec![500, 1_000, 2_000, 4_000, 8_000, 16_000, 20_000];
    assert_eq!(run(9, attempts).await, (Ok(yes()), waits));
}

#[tokio::test(start_paused = true)]
async fn the_vendors_wish_takes_the_place_of_the_wait() {
    let wish = |millis| Err(asking(ModelFailure::RateLimited, Duration::from_millis(millis)));
    assert_eq!(
        run(5, vec![wish(7_000), wish(0), wish(20_000), good()]).await,
        (Ok(yes()), vec![7_000, 0, 20_000])
    );
}

#[tokio::test(start_paused = true)]
async fn a_wish_beyond_the_longest_wait_ends_the_tries() {
    let wish = Err(asking(ModelFailure::RateLimited, Duration::from_secs(21)));
    assert_eq!(run(5, vec![wish]).await, (Err(ModelFailure::RateLimited), vec![]));
}

#[tokio::test(start_paused = true)]
async fn the_last_attempts_failure_is_the_calls() {
    let attempts = vec![Err(failure(ModelFailure::Network)), Err(failure(ModelFailure::Overloaded))];
    assert_eq!(run(2, attempts).await, (Err(ModelFailure::Overloaded), vec![500]));
    assert_eq!(run(0, vec![Err(failure(ModelFailure::Network))]).await, (Err(ModelFailure::Network), vec![]));
}

#[tokio::test(start_paused = true)]
async fn what_will_not_pass_is_not_tried_again() {
    for kind in [
        ModelFailure::Credential,
        ModelFailure::Billing,
        ModelFailure::UnknownModel,
        ModelFailure::Refused,
        ModelFailure::ContextOverflow,
        ModelFailure::Protocol,
    ] {
        assert_eq!(run(5, vec![Err(failure(kind))]).await, (Err(kind), vec![]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_the_first_word_is_tried_again_and_leaves_no_trace() {
    let usage = |input_tokens| ModelEvent::Usage(Usage { input_tokens, ..Usage::default() });
    let broken = Ok(vec![Ok(usage(1)), Err(failure(ModelFailure::Overloaded))]);
    let good =
        Ok(vec![Ok(usage(2)), Ok(ModelEvent::Text("yes".to_owned())), Ok(ModelEvent::Stop(StopReason::End))]);
    let mut expected = yes();
    expected.insert(0, usage(2));
    assert_eq!(run(3, vec![broken, good]).await, (Ok(expected), vec![500]));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_tried_again_once_a_word_was_said_or_a_tool_called() {
    let call = ModelEvent::ToolCallStart { index: 0, id: "c".to_owned(), name: "clock".to_owned() };
    for first in [ModelEvent::Text("y".to_owned()), call] {
        let broken = Ok(vec![Ok(first), Err(failure(ModelFailure::Overloaded))]);
        assert_eq!(run(3, vec![broken]).await, (Err(ModelFailure::Overloaded), vec![]));
    }
}

#[tokio::test(start_paused = true)]
async fn of_the_counts_that_come_before_an_answer_only_the_last_is_kept() {
    let counts = |output_tokens| ModelEvent::Usage(Usage { output_tokens, ..Usage::default() });
    let thinking = (1..=1_000).map(|tokens| Ok(counts(tokens))).chain(good().unwrap()).collect();
    let (events, _) = run(1, vec![Ok(thinking)]).await;
    assert_eq!(events, Ok([vec![counts(1_000)], yes()].concat()));
}
