//! An event source mapping, emulated: brings the messages of a queue to a function, in batches, and takes those that were
//! not reported as failed out of the queue (`ReportBatchItemFailures`).

use super::{Part, Platform, Shared};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, Message};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// A message whose batch failed comes again so soon; on AWS that takes hours, here a test waits for it.
const HIDDEN_SECONDS: i32 = 3;

/// Brings messages until it is dropped.
pub struct Source {
    pollers: Vec<JoinHandle<()>>,
}

impl Source {
    /// Brings what this poller finds, in so many batches at once.
    pub fn start(poller: &Poller, batches: usize) -> Self {
        let polling = |_| {
            let poller = poller.clone();
            poller.shared.tasks.clone().spawn(async move {
                loop {
                    poller.poll().await;
                }
            })
        };
        Self { pollers: (0..batches).map(polling).collect() }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.pollers.iter().for_each(JoinHandle::abort);
    }
}

/// Looks into a queue for a function.
#[derive(Clone)]
pub struct Poller {
    shared: Arc<Shared>,
    function: String,
    client: Client,
    queue_url: String,
}

impl Poller {
    /// Brings messages of this queue to this function.
    pub fn new(platform: &Platform, function: &str, client: Client, queue_url: &str) -> Self {
        let shared = Arc::clone(&platform.shared);
        Self { shared, function: function.to_owned(), client, queue_url: queue_url.to_owned() }
    }

    /// Waits a second for messages, and brings them; returns when the function has answered.
    pub async fn poll(&self) {
        let received = self
            .client
            .receive_message()
            .queue_url(&self.queue_url)
            .max_number_of_messages(10)
            .wait_time_seconds(1)
            .visibility_timeout(HIDDEN_SECONDS)
            .send()
            .await
            .expect("the queue's emulator");
        let messages = received.messages.unwrap_or_default();
        if messages.is_empty() {
            return;
        }
        let Some(failed) = self.bring(&messages).await else { return };
        let done = messages
            .iter()
            .filter(|message| !failed.contains(message.message_id().unwrap_or_default()))
            .enumerate()
            .map(|(number, message)| {
                let entry = DeleteMessageBatchRequestEntry::builder().id(number.to_string());
                entry.receipt_handle(message.receipt_handle().expect("a receipt")).build().expect("an entry")
            })
            .collect::<Vec<_>>();
        if !done.is_empty() {
            let delete = self.client.delete_message_batch().queue_url(&self.queue_url);
            delete.set_entries(Some(done)).send().await.expect("the queue's emulator");
        }
    }

    /// Brings a batch; which of its messages failed. `None` if all did: the function was not there, or broke.
    async fn bring(&self, messages: &[Message]) -> Option<BTreeSet<String>> {
        let mut parts = self.shared.invoke(&self.function, event(messages).to_string().into()).await.ok()?;
        let mut answer = Vec::new();
        loop {
            match parts.recv().await? {
                Part::Data(data) => answer.extend_from_slice(&data),
                Part::End => break,
                Part::Error { .. } => return None,
            }
        }
        let answer: Value = serde_json::from_slice(&answer).ok()?;
        let failed = answer["batchItemFailures"].as_array().into_iter().flatten();
        Some(failed.filter_map(|item| item["itemIdentifier"].as_str()).map(str::to_owned).collect())
    }
}

/// The event that Lambda makes of messages.
fn event(messages: &[Message]) -> Value {
    let record = |message: &Message| {
        json!({
            "messageId": message.message_id(),
            "receiptHandle": message.receipt_handle(),
            "body": message.body(),
            "attributes": {},
            "messageAttributes": {},
            "md5OfBody": message.md5_of_body(),
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:eu-central-1:000000000000:jobs",
            "awsRegion": "eu-central-1",
        })
    };
    json!({"Records": messages.iter().map(record).collect::<Vec<_>>()})
}
