//! The job queue on SQS (emulated), beyond what every queue promises: messages that are late, lost or too many.

#![expect(clippy::expect_used, reason = "a case that cannot be set up fails")]

use aws_sdk_sqs::types::QueueAttributeName;
use harness::dynamo::{Dynamo, here, region, regions_over};
use harness::sqs::Sqs;
use harness::stores::{at, new_job, tenant};
use shared::adapters::aws::dynamodb::{DynamoStores, DynamoTable};
use shared::adapters::aws::sqs::{Pointer, SqsJobQueue};
use shared::error::StoreError;
use shared::id::{JobId, RegionId};
use shared::job::{Apart, Delivery, JobQueue, Outcome, Work};
use shared::region::Regions;
use std::sync::Arc;
use std::time::Duration;

const GRACE: Duration = Duration::from_secs(60);
const AT_ONCE: Duration = Duration::ZERO;

struct Lab {
    core: Arc<DynamoTable>,
    rows: DynamoStores,
    jobs: SqsJobQueue,
    queue_url: String,
    server: Sqs,
    _dynamo: Arc<Dynamo>,
}

impl Lab {
    async fn new() -> Self {
        let (dynamo, server) = (Dynamo::shared(), Sqs::start());
        let (core, local) = dynamo.tables().await;
        let core = Arc::new(core);
        let rows = DynamoStores::new(core.clone(), Arc::new(local), here());
        let queue_url = server.queue().await;
        let jobs = SqsJobQueue::new(rows.clone(), server.client().config().clone(), &queue_url, GRACE);
        Self { core, rows, jobs, queue_url, server, _dynamo: dynamo }
    }

    async fn receive(&self, now: i64) -> Vec<Delivery> {
        self.jobs.receive(10, at(now), at(now + 30_000), &Apart::default()).await.expect("deliveries")
    }

    /// A job that was given up here.
    async fn dead(&self, id: &str) {
        assert!(self.rows.enqueue(&new_job(id, "hello"), AT_ONCE, at(1_000)).await.expect("an answer"));
        let delivery = self.jobs.deliver(&pointer(id), at(1_001), at(31_000)).await.expect("an answer");
        let dead = Outcome::Dead { reason: "bad".to_owned() };
        let receipt = delivery.expect("a delivery").receipt;
        self.jobs.settle(&receipt, &dead, at(1_002)).await.expect("a settlement");
    }

    /// Another region's queue over the same table, and its rows.
    async fn in_another_region(&self) -> (SqsJobQueue, DynamoStores) {
        let here = region(1, &["eu-central-1", "ap-northeast-1"]);
        let rows = DynamoStores::new(self.core.clone(), self.core.clone(), here);
        let queue_url = self.server.queue().await;
        let config = self.server.client().config().clone();
        (SqsJobQueue::new(rows.clone(), config, queue_url, GRACE), rows)
    }

    async fn messages(&self, kind: QueueAttributeName) -> String {
        let asked = self.server.client().get_queue_attributes().queue_url(&self.queue_url);
        let answer = asked.attribute_names(kind.clone()).send().await.expect("the queue's attributes");
        answer.attributes().and_then(|found| found.get(&kind)).expect("a number").clone()
    }
}

fn pointer(id: &str) -> Pointer {
    Pointer { tenant: tenant(), job: JobId::new(id) }
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| delivery.job.job.id.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_comes_by_its_message_without_waiting_for_the_grace() {
    let lab = Lab::new().await;
    assert!(lab.jobs.enqueue(&new_job("j", "hello"), AT_ONCE, at(1_000)).await.expect("an answer"));
    assert_eq!(ids(&lab.receive(1_001).await), ["j"]);
    assert_eq!(ids(&lab.receive(1_002).await), [""; 0]);
    let left = lab.messages(QueueAttributeName::ApproximateNumberOfMessages).await;
    assert_eq!(left, "0", "its message is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_lost_its_message_is_sent_again_after_the_grace() {
    let lab = Lab::new().await;
    // The process died between the row and the message.
    assert!(lab.rows.enqueue(&new_job("j", "hello"), AT_ONCE, at(1_000)).await.expect("an answer"));
    assert_eq!(ids(&lab.receive(1_001).await), [""; 0]);
    assert_eq!(lab.jobs.resend_stranded(at(60_999)).await.expect("a count"), 0);
    assert_eq!(lab.jobs.resend_stranded(at(61_000)).await.expect("a count"), 1);
    let waiting = lab.messages(QueueAttributeName::ApproximateNumberOfMessages).await;
    assert_eq!(waiting, "1");
    let delivery = lab.jobs.deliver(&pointer("j"), at(61_001), at(90_000)).await.expect("an answer");
    assert_eq!(delivery.map(|delivery| delivery.job.job.id), Some(JobId::new("j")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_comes_too_early_is_sent_again() {
    let lab = Lab::new().await;
    let hour = Duration::from_secs(3_600);
    assert!(lab.rows.enqueue(&new_job("j", "hello"), hour, at(0)).await.expect("an answer"));
    // SQS holds a message back for a quarter of an hour at most.
    let early = lab.jobs.deliver(&pointer("j"), at(900_000), at(990_000)).await.expect("an answer");
    assert_eq!(early, None);
    assert_eq!(lab.messages(QueueAttributeName::ApproximateNumberOfMessagesDelayed).await, "1");
    let due = lab.jobs.deliver(&pointer("j"), at(3_600_000), at(3_690_000)).await.expect("an answer");
    assert_eq!(due.expect("a delivery").job.attempts, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_a_clock_hid_which_was_ahead_is_delivered_by_its_message() {
    const HOUR: i64 = 3_600_000;
    let lab = Lab::new().await;
    assert!(lab.rows.enqueue(&new_job("j", "hello"), AT_ONCE, at(HOUR)).await.expect("an answer"));
    let lost = lab.jobs.deliver(&pointer("j"), at(HOUR), at(HOUR + 90_000)).await.expect("an answer");
    assert!(lost.is_some());
    let early =
        lab.jobs.deliver(&pointer("j"), at(HOUR - 5_000), at(HOUR + 85_000)).await.expect("an answer");
    assert_eq!(early, None, "there may be two clocks");
    let again = lab.jobs.deliver(&pointer("j"), at(1_000), at(91_000)).await.expect("an answer");
    assert_eq!(again.expect("a delivery").job.attempts, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_comes_twice_delivers_once() {
    let lab = Lab::new().await;
    assert!(lab.rows.enqueue(&new_job("j", "hello"), AT_ONCE, at(1_000)).await.expect("an answer"));
    let first = lab.jobs.deliver(&pointer("j"), at(1_001), at(31_000)).await.expect("an answer");
    let first = first.expect("a delivery");
    assert_eq!(lab.jobs.deliver(&pointer("j"), at(1_002), at(31_000)).await.expect("an answer"), None);
    lab.jobs.settle(&first.receipt, &Outcome::Done, at(1_003)).await.expect("a settlement");
    assert_eq!(lab.jobs.deliver(&pointer("j"), at(40_000), at(70_000)).await.expect("an answer"), None);
    assert_eq!(lab.jobs.deliver(&pointer("unknown"), at(40_000), at(70_000)).await.expect("an answer"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_job_of_another_region_is_redriven_there_only() {
    let lab = Lab::new().await;
    lab.dead("j").await;
    let (elsewhere, _) = lab.in_another_region().await;
    let refused = elsewhere.redrive(&tenant(), &JobId::new("j"), at(2_000)).await;
    let Err(StoreError::Elsewhere { region }) = &refused else { panic!("{refused:?}") };
    assert_eq!(region, "eu-central-1");
    assert_eq!(ids(&lab.receive(100_000).await), [""; 0], "it stays dead");
    lab.jobs.redrive(&tenant(), &JobId::new("j"), at(100_000)).await.expect("a redrive");
    let again = lab.receive(100_001).await;
    let Work::Turn(request) = &again[0].job.job.work;
    assert!(!request.options.may_have_run);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_job_of_a_region_out_of_service_is_redriven_here_and_may_have_run() {
    let lab = Lab::new().await;
    lab.dead("j").await;
    let (elsewhere, rows) = lab.in_another_region().await;
    let lost = RegionId::new("eu-central-1");
    regions_over(lab.rows.clone()).beat(at(1_500)).await.expect("a sign of life");
    regions_over(rows).set_in_service(&lost, false, at(2_000)).await.expect("a flag");
    elsewhere.redrive(&tenant(), &JobId::new("j"), at(3_000)).await.expect("a redrive");
    assert_eq!(ids(&lab.receive(100_000).await), [""; 0], "it is no job of the lost region any more");
    let taken = elsewhere.receive(10, at(100_001), at(130_001), &Apart::default()).await.expect("an answer");
    assert_eq!(ids(&taken), ["j"]);
    let Work::Turn(request) = &taken[0].job.job.work;
    assert!(request.options.may_have_run);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_no_pointer_is_dropped() {
    let lab = Lab::new().await;
    let send = lab.server.client().send_message().queue_url(&lab.queue_url).message_body("not ours");
    send.send().await.expect("a message");
    assert_eq!(ids(&lab.receive(1_000).await), [""; 0]);
    assert_eq!(lab.messages(QueueAttributeName::ApproximateNumberOfMessagesNotVisible).await, "0");
}
