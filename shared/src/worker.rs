//! The queue's worker: [`process`] runs one delivery and says how it ended, [`handle`] settles it; [`run`] is the loop
//! around them. Beside it [`sweep`] finishes turns that a crash interrupted.

mod places;
pub mod sweep;

use crate::agent::{AgentInvoker, RunRequest, TurnEvent};
use crate::app::App;
use crate::error::{Error, ErrorKind, JobVerdict, StoreError};
use crate::job::{Delivery, Outcome, Work, unreadable_reason};
use crate::session::{Turn, TurnOutcome};
use futures::{FutureExt, StreamExt};
use places::Places;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause between two looks at an empty queue. A job waits half of it on average.
const IDLE: Duration = Duration::from_millis(250);

/// First and longest pause before a failed job is tried again; it doubles with each attempt.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(900));

/// Shortest and longest pause before a job looks again whether its session is free. Between them it waits as long as it
/// has waited already: looks that are no attempts must not become many.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// How often a job's request is in memory while it runs, beside its turn: as it was delivered, and as it was handed on.
const COPIES: usize = 2;

/// Runs one delivery to its end. Runs the work at most once at a time: a turn delivered twice is resumed or replayed.
pub async fn process(app: &App, delivery: &Delivery) -> Outcome {
    if let Some(why) = &delivery.job.unreadable {
        return Outcome::Dead { reason: unreadable_reason(why) };
    }
    let (attempt, max_attempts) = (delivery.job.attempts, app.config.turns.job_max_attempts);
    let Work::Turn(request) = &delivery.job.job.work;
    if attempt > max_attempts {
        return unsettled(app, request, max_attempts).await;
    }
    let mut request = request.as_ref().clone();
    request.options.enqueued_at = Some(delivery.job.created_at);
    let error = match run_turn(app.agents.as_ref(), request).await {
        Ok(TurnOutcome::Done(_)) => return Outcome::Done,
        Ok(TurnOutcome::Parked(parked)) => {
            let reason = format!(
                "parked: whether the tool call {} ({}) took effect is not known",
                parked.call.id, parked.call.name
            );
            return Outcome::Dead { reason };
        }
        Ok(TurnOutcome::Failed(failure)) => Error::from(failure),
        Err(error) => error,
    };
    let age = app.clock.now().since(delivery.job.created_at);
    verdict(&error, attempt, max_attempts, age)
}

/// What becomes of a job that was delivered as often as may be, without any of those deliveries being settled: whatever
/// it does to its worker, it would do again.
async fn unsettled(app: &App, request: &RunRequest, max_attempts: u32) -> Outcome {
    let turn = app.stores.sessions.turn(&request.tenant, &request.turn).await;
    if matches!(turn, Ok(Some(Turn { outcome: Some(TurnOutcome::Done(_)), .. }))) {
        // Only its settlement was lost.
        return Outcome::Done;
    }
    let reason = format!(
        "given up after {max_attempts} attempts: each ended without a word, as if the worker had died over it"
    );
    Outcome::Dead { reason }
}

/// What becomes of a job of this age that failed with `error` at its `attempt`-th delivery.
fn verdict(error: &Error, attempt: u32, max_attempts: u32, age: Duration) -> Outcome {
    let reason = format!("{}: {error}", error.kind.code());
    // A busy session is nobody's failure, and a turn that goes on elsewhere none at all: neither was an attempt.
    let counts = error.kind != ErrorKind::Conflict;
    match error.kind.job_verdict() {
        JobVerdict::Dead => Outcome::Dead { reason },
        JobVerdict::Retry if counts && attempt >= max_attempts => {
            Outcome::Dead { reason: format!("given up after {attempt} attempts; the last: {reason}") }
        }
        JobVerdict::Retry => {
            let pause = if counts {
                let doubled = BACK_OFF.0.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
                doubled.min(BACK_OFF.1)
            } else {
                age.clamp(LOOK_AGAIN.0, LOOK_AGAIN.1)
            };
            Outcome::Retry { after: pause.max(error.retry_after.unwrap_or_default()), counts, reason }
        }
    }
}

async fn run_turn(agents: &dyn AgentInvoker, request: RunRequest) -> Result<TurnOutcome, Error> {
    let mut events = agents.invoke(request).await?;
    while let Some(event) = events.next().await {
        if let TurnEvent::Ended { outcome } = event? {
            return Ok(outcome);
        }
    }
    Err(Error::new(
        ErrorKind::Unavailable,
        "the turn was left unfinished; it goes on when its lease has run out",
    ))
}

/// How long a delivery stays hidden before it must be extended: as long as a turn's lease, so that what a dead process
/// had taken is not out of reach for longer than what it had begun.
fn visibility(app: &App) -> Duration {
    app.config.turns.lease
}

/// Takes jobs from the queue and runs them on `work`, at most `worker_concurrency` at once and none while the memory budget is
/// drawn, until `stop`. Jobs at work
/// then are finished by whoever waits for `work`. No agent, vendor or token gets all of the places.
pub async fn run(app: App, work: TaskTracker, stop: CancellationToken) {
    let all = app.config.turns.worker_concurrency.max(1);
    let places = Arc::new(Places::new(all, &app.config, Arc::clone(&app.metrics)));
    let free = Arc::new(Semaphore::new(all));
    while !stop.is_cancelled() {
        let Some(free) =
            stop.run_until_cancelled(Arc::clone(&free).acquire_owned()).await.and_then(Result::ok)
        else {
            return;
        };
        if app.budget.is_spent() {
            drop(free);
            let _ = stop.run_until_cancelled(tokio::time::sleep(IDLE)).await;
            continue;
        }
        let Some(delivery) = next(&app, &places).await else {
            drop(free);
            // What is left aside now may come as soon as a place is given back.
            let _ = stop.run_until_cancelled(timeout(IDLE, places.freed())).await;
            continue;
        };
        // Counted before the next one is taken, so that a queue of large jobs is not taken at once.
        let mut lent = app.budget.draw();
        let Work::Turn(request) = &delivery.job.job.work;
        lent.hold(request.bytes() * COPIES);
        let place = places.take(&delivery.job.job);
        let app = app.clone();
        work.spawn(Box::pin(async move {
            handle(&app, &delivery).await;
            drop(lent);
            // In this order: whoever gets the free place knows that it was given back.
            drop(place);
            drop(free);
        }));
    }
}

/// The next job that may have a place.
async fn next(app: &App, places: &Places) -> Option<Delivery> {
    for apart in places.looks() {
        let now = app.clock.now();
        match app.stores.jobs.receive(1, now, now + visibility(app), &apart).await {
            // At most one was asked for.
            Ok(received) if received.is_empty() => {}
            Ok(received) => return received.into_iter().next(),
            Err(error) => {
                tracing::error!(target: "error", { cause = Error::from(error).cause() }, "the queue cannot be read");
                return None;
            }
        }
    }
    None
}

/// Runs one delivery, keeps it hidden meanwhile, and settles it. `false` if that is not on record: the job comes again by
/// itself, and its turn is replayed, not run again.
pub async fn handle(app: &App, delivery: &Delivery) -> bool {
    // A panic is a bug, but one job's bug: the others go on, and this one would only do it again.
    let mut running = pin!(AssertUnwindSafe(process(app, delivery)).catch_unwind());
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = &mut running => break outcome.unwrap_or_else(|_| Outcome::Dead {
                reason: "internal: the job panicked; the error log says where".to_owned(),
            }),
            () = tokio::time::sleep(visibility(app) / 3) => {
                let now = app.clock.now();
                match app.stores.jobs.extend(&delivery.receipt, now, now + visibility(app)).await {
                    // Somebody else has the job now: the turn itself is safe, its lease keeps the two apart.
                    Err(StoreError::Fenced) => return true,
                    Err(error) => tracing::error!(target: "error", { job.id = %delivery.receipt.job, cause = Error::from(error).cause() }, "a job could not be kept"),
                    Ok(()) => {}
                }
            }
        }
    };
    let (word, reason) = match &outcome {
        Outcome::Done => ("done", ""),
        Outcome::Retry { reason, .. } => ("retry", reason.as_str()),
        Outcome::Dead { reason } => ("dead", reason.as_str()),
    };
    tracing::info!(target: "operation", { job.id = %delivery.receipt.job,
        outcome = word,
        reason,
        attempt = delivery.job.attempts }, "job ended");
    if matches!(outcome, Outcome::Dead { .. }) {
        app.metrics.job_dead();
    }
    match app.stores.jobs.settle(&delivery.receipt, &outcome, app.clock.now()).await {
        // Whoever has it now settles it.
        Ok(()) | Err(StoreError::Fenced) => true,
        Err(error) => {
            tracing::error!(target: "error", { job.id = %delivery.receipt.job, cause = Error::from(error).cause() }, "a job could not be settled");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_can_pass_is_tried_again_with_growing_pauses_and_then_given_up() {
        let error = Error::new(ErrorKind::Upstream, "no answer");
        let after = |attempt| match verdict(&error, attempt, 5, Duration::from_secs(7_200)) {
            Outcome::Retry { after, .. } => after.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!([after(1), after(2), after(3), after(4)], [2, 4, 8, 16]);
        let reason = "given up after 5 attempts; the last: upstream: no answer".to_owned();
        assert_eq!(verdict(&error, 5, 5, Duration::ZERO), Outcome::Dead { reason });
    }

    #[test]
    fn the_vendors_wish_is_obeyed_when_it_is_longer() {
        let error = Error::new(ErrorKind::RateLimited, "slow down").after(Duration::from_secs(60));
        let Outcome::Retry { after, .. } = verdict(&error, 1, 5, Duration::ZERO) else { panic!() };
        assert_eq!(after, Duration::from_secs(60));
    }

    #[test]
    fn a_wrong_request_is_dead_at_once_and_a_busy_session_never() {
        let wrong = Error::invalid("no");
        let verdict = |error: &Error, attempt| verdict(error, attempt, 5, Duration::ZERO);
        assert_eq!(verdict(&wrong, 1), Outcome::Dead { reason: "invalid: no".to_owned() });
        let busy = Error::new(ErrorKind::Conflict, "busy");
        assert!(matches!(verdict(&busy, 50), Outcome::Retry { counts: false, .. }));
        let failed = Error::new(ErrorKind::Upstream, "no answer");
        assert!(matches!(verdict(&failed, 1), Outcome::Retry { counts: true, .. }));
    }

    #[test]
    fn a_job_looks_for_its_busy_session_ever_less_often_and_at_least_once_a_minute() {
        let busy = Error::new(ErrorKind::Conflict, "busy").after(Duration::from_secs(1));
        let after = |age| match verdict(&busy, 1, 5, Duration::from_secs(age)) {
            Outcome::Retry { after, .. } => after.as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!([after(0), after(2), after(4), after(30), after(86_400)], [2, 2, 4, 30, 60]);
    }
}
