//! [`JobQueue`] on SQS: the job's row in the table `core` is the truth, a message only points to it.
//!
//! A message may come twice, late, or never: whoever has one asks the row whether there is anything to do. What no
//! message leads to – because the process died between the row and the message, or SQS lost it – is found by
//! [`SqsJobQueue::resend_stranded`].

use super::dynamodb::DynamoStores;
use super::on_use::OnUse;
use crate::clock::Timestamp;
use crate::error::{Error, StoreError};
use crate::id::{JobId, TenantId};
use crate::job::{Apart, Backlog, Delivery, Job, JobFilter, JobQueue, NewJob, Outcome, Receipt};
use async_trait::async_trait;
use aws_sdk_sqs::types::Message;
use aws_sdk_sqs::{Client, Config};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// SQS holds a message back no longer; longer waits are chained.
const LONGEST_DELAY: Duration = Duration::from_secs(900);

/// SQS hands out no more messages at once.
const MESSAGES_AT_ONCE: usize = 10;

/// Stranded jobs that one look sends again.
const STRANDED_AT_ONCE: usize = 100;

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// Whose data.
    pub tenant: TenantId,
    /// Which job.
    pub job: JobId,
}

/// The job queue. Clones share its connections.
#[derive(Clone)]
pub struct SqsJobQueue {
    rows: DynamoStores,
    client: OnUse<Client>,
    queue_url: String,
    /// A job that has been due for so long has lost its message.
    grace: Duration,
}

impl SqsJobQueue {
    /// The queue with this address, for the jobs that `rows` keeps. A job whose message does not come within `grace` of
    /// being due counts as stranded.
    pub fn new(rows: DynamoStores, config: Config, queue_url: impl Into<String>, grace: Duration) -> Self {
        let client = OnUse::new(config, Client::from_conf);
        Self { rows, client, queue_url: queue_url.into(), grace }
    }

    /// Delivers the job that a message points to, hidden until `until`: for whoever was handed the message, and may
    /// forget it after this. `None` if there is nothing to do: the job has ended, is at work, or is not yet due – then
    /// another message comes when it is.
    pub async fn deliver(
        &self,
        pointer: &Pointer,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Delivery>, StoreError> {
        let delivery = self.rows.deliver(&pointer.tenant, &pointer.job, now, until).await?;
        if delivery.is_none()
            && let Some(visible_at) = self.rows.waits_until(&pointer.tenant, &pointer.job).await?
            && visible_at > now
        {
            self.send(pointer, pointer.tenant.as_str(), visible_at.since(now)).await?;
        }
        Ok(delivery)
    }

    /// Sends messages for jobs of this region that should have been delivered long ago, and says how many. Others than
    /// the first hundred wait for the next look.
    pub async fn resend_stranded(&self, now: Timestamp) -> Result<usize, StoreError> {
        let stranded = self.rows.due_jobs(now - self.grace, STRANDED_AT_ONCE).await?;
        let count = stranded.len();
        for (tenant, job) in stranded {
            let pointer = Pointer { tenant, job };
            self.send(&pointer, pointer.tenant.as_str(), Duration::ZERO).await?;
        }
        Ok(count)
    }

    /// Sends a message that comes after `delay`, or at the longest that SQS knows. A standard queue shares itself fairly among
    /// the groups of its messages: whoever has many at work comes after the others.
    async fn send(&self, pointer: &Pointer, group: &str, delay: Duration) -> Result<(), StoreError> {
        let body = serde_json::to_string(pointer).map_err(|error| StoreError::Broken(error.into()))?;
        // Rounded up: a message that comes too early is sent again.
        let seconds = delay.min(LONGEST_DELAY).as_millis().div_ceil(1000);
        self.client
            .send_message()
            .queue_url(&self.queue_url)
            .message_body(body)
            .delay_seconds(i32::try_from(seconds).unwrap_or(i32::MAX))
            .message_group_id(group)
            .send()
            .await
            .map_err(|error| StoreError::Unavailable(error.into()))?;
        Ok(())
    }

    /// Sends a message for a row that is stored: without one its job only comes later.
    async fn try_to_send(&self, pointer: &Pointer, group: &str, delay: Duration) {
        if let Err(error) = self.send(pointer, group, delay).await {
            let cause = Error::from(error).cause();
            tracing::warn!(target: "error", { job.id = %pointer.job, cause }, "a job's message could not be sent: the sweep finds the job");
        }
    }

    async fn messages(&self, max: usize) -> Result<Vec<Message>, StoreError> {
        let max = i32::try_from(max.min(MESSAGES_AT_ONCE)).unwrap_or(i32::MAX);
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.queue_url)
            .max_number_of_messages(max)
            .send()
            .await
            .map_err(|error| StoreError::Unavailable(error.into()))?;
        Ok(answer.messages.unwrap_or_default())
    }

    async fn forget(&self, message: &Message) -> Result<(), StoreError> {
        self.client
            .delete_message()
            .queue_url(&self.queue_url)
            .set_receipt_handle(message.receipt_handle.clone())
            .send()
            .await
            .map_err(|error| StoreError::Unavailable(error.into()))?;
        Ok(())
    }
}

fn pointer_to(job: &NewJob) -> Pointer {
    Pointer { tenant: job.tenant.clone(), job: job.id.clone() }
}

#[async_trait]
impl JobQueue for SqsJobQueue {
    async fn enqueue(&self, job: &NewJob, delay: Duration, now: Timestamp) -> Result<bool, StoreError> {
        let is_new = self.rows.enqueue(job, delay, now).await?;
        if is_new {
            // The row is stored, so the job is accepted; without a message it comes later.
            let (_, principal) = job.whose();
            self.try_to_send(&pointer_to(job), principal.as_str(), delay).await;
        }
        Ok(is_new)
    }

    /// What the queue has messages for, and what has been due for longer than the grace.
    async fn receive(
        &self,
        max: usize,
        now: Timestamp,
        until: Timestamp,
        apart: &Apart,
    ) -> Result<Vec<Delivery>, StoreError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let mut deliveries = self.rows.receive_due(max, now - self.grace, (now, until), apart).await?;
        if deliveries.len() < max {
            for message in self.messages(max - deliveries.len()).await? {
                // What does not read as a pointer was not sent by us, and leads nowhere.
                let body = message.body.as_deref().unwrap_or_default();
                if let Ok(pointer) = serde_json::from_str::<Pointer>(body) {
                    // Its message stays, and comes again.
                    if !apart.is_empty() && self.rows.is_apart(&pointer.tenant, &pointer.job, apart).await? {
                        continue;
                    }
                    deliveries.extend(self.deliver(&pointer, now, until).await?);
                }
                self.forget(&message).await?;
            }
        }
        Ok(deliveries)
    }

    async fn extend(&self, receipt: &Receipt, now: Timestamp, until: Timestamp) -> Result<(), StoreError> {
        self.rows.extend(receipt, now, until).await
    }

    async fn backlog(&self, now: Timestamp) -> Result<Option<Backlog>, StoreError> {
        self.rows.backlog(now).await
    }

    async fn settle(&self, receipt: &Receipt, outcome: &Outcome, now: Timestamp) -> Result<(), StoreError> {
        self.rows.settle(receipt, outcome, now).await?;
        if let Outcome::Retry { after, .. } = outcome {
            let pointer = Pointer { tenant: receipt.tenant.clone(), job: receipt.job.clone() };
            // As with a new job: the row is the truth. Whose it is would be one more read.
            self.try_to_send(&pointer, receipt.tenant.as_str(), *after).await;
        }
        Ok(())
    }

    async fn list(
        &self,
        tenant: &TenantId,
        filter: &JobFilter,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        self.rows.list(tenant, filter, now).await
    }

    async fn redrive(&self, tenant: &TenantId, id: &JobId, now: Timestamp) -> Result<(), StoreError> {
        self.rows.redrive(tenant, id, now).await?;
        let pointer = Pointer { tenant: tenant.clone(), job: id.clone() };
        self.try_to_send(&pointer, tenant.as_str(), Duration::ZERO).await;
        Ok(())
    }
}
