//! The events of the worker: a batch of pointers to jobs, the schedule's sweep, and the check before a new version gets
//! traffic.

use super::Cloud;
use crate::agent::hop::Check;
use crate::error::Error;
use crate::worker::{self, sweep};
use futures::FutureExt;
use futures::future::{join, join_all};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::panic::AssertUnwindSafe;

/// What a worker is told. Everything else in an event is read over.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Event {
    /// The queue brings messages.
    Messages {
        #[serde(rename = "Records")]
        records: Vec<Message>,
    },
    /// The schedule says that it is time to look for what was left behind.
    Scheduled {
        #[serde(rename = "detail-type")]
        #[expect(dead_code, reason = "its presence is what it says")]
        detail: String,
    },
    /// A new version is asked before it gets traffic.
    Check { check: Check },
}

/// A message of the queue.
#[derive(Debug, Deserialize)]
struct Message {
    #[serde(rename = "messageId")]
    id: String,
    body: String,
}

/// Names the messages that must be seen again.
#[derive(Debug, Serialize)]
struct Failures {
    #[serde(rename = "batchItemFailures")]
    items: Vec<Failure>,
}

#[derive(Debug, Serialize)]
struct Failure {
    #[serde(rename = "itemIdentifier")]
    id: String,
}

/// Does what an event asks for, and returns the answer when nothing of it is left at work.
///
/// # Errors
/// It is no event that a worker knows.
pub async fn run(cloud: &Cloud, event: Value) -> Result<Value, Error> {
    let event: Event = serde_json::from_value(event).map_err(|error| {
        let known =
            "the worker knows messages of its queue, events of its schedule and {\"check\": \"ready\"}";
        Error::invalid(known).caused_by(error)
    })?;
    let answer = match event {
        Event::Messages { records } => {
            let settled = join_all(records.into_iter().map(|message| async move {
                // One message's bug is not another one's.
                let done = AssertUnwindSafe(deliver(cloud, &message)).catch_unwind().await.unwrap_or(false);
                (!done).then_some(Failure { id: message.id })
            }));
            json!(Failures { items: settled.await.into_iter().flatten().collect() })
        }
        Event::Scheduled { .. } => {
            // Side by side: a queue that fails must not keep the region from giving its sign of life, nor may a turn that
            // is resumed keep jobs from being sent again.
            let resent = cloud.queue.resend_stranded(cloud.app.clock.now());
            let (resent, resumed) = join(resent, sweep::once(&cloud.app, &cloud.work)).await;
            json!({"resumed": resumed, "resent": resent?})
        }
        Event::Check { check: Check::Ready } => json!({"ready": cloud.app.store_answers().await}),
    };
    cloud.idle().await;
    Ok(answer)
}

/// Runs the job that a message points to. `false` if the message must be seen again: its job could not be read or settled,
/// or it points nowhere – then it comes to the dead messages, where a person looks.
async fn deliver(cloud: &Cloud, message: &Message) -> bool {
    let pointer = match serde_json::from_str(&message.body) {
        Ok(pointer) => pointer,
        Err(error) => {
            tracing::error!(target: "error", { message.id = message.id, cause = error.to_string() }, "a message of the queue is no pointer to a job");
            return false;
        }
    };
    let app = &cloud.app;
    let now = app.clock.now();
    match cloud.queue.deliver(&pointer, now, now + app.config.turns.lease).await {
        Ok(Some(delivery)) => worker::handle(app, &delivery).await,
        // Settled, or at work elsewhere, or not due: whoever has it, or the sweep, sends a pointer when it is time.
        Ok(None) => true,
        Err(error) => {
            tracing::error!(target: "error", { message.id = message.id, cause = Error::from(error).cause() }, "a job cannot be read");
            false
        }
    }
}
