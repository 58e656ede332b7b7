//! Jobs of a region that is lost, of whose work a part has not arrived from there.

use super::Lab;
use async_trait::async_trait;
use harness::stores::{at, new_job, tenant};
use shared::adapters::aws::dynamodb::DynamoRegions;
use shared::adapters::aws::dynamodb::schema::DUE;
use shared::adapters::aws::dynamodb::table::{Condition, Item, Key, Query, Table, Write, WriteError};
use shared::app::Stores;
use shared::error::StoreError;
use shared::id::{JobId, RegionId};
use shared::job::{Apart, Delivery, JobFilter, JobState, Work};
use shared::region::Regions;
use std::sync::Arc;
use std::time::Duration;

const LOST: &str = "eu-central-1";

/// The lost region and one that lives.
const NAMES: [&str; 2] = [LOST, "ap-northeast-1"];

const DAY: i64 = 24 * 60 * 60 * 1_000;

/// A job whose work does not fit into its row.
async fn enqueue(stores: &Stores, id: &str, now: i64) {
    let job = new_job(id, &"long ".repeat(1_000));
    assert!(stores.jobs.enqueue(&job, Duration::ZERO, at(now)).await.expect("an answer"));
}

/// Takes what a job's work goes on in from the table; it has not arrived.
async fn keep_back(lab: &Lab, id: &str, by: &str) -> Item {
    let key = Key { partition: format!("J#main#{id}"), sort: format!("B#{by}#000") };
    let piece = lab.core.get(&key).await.expect("an answer").expect("a piece");
    lab.core.write(vec![Write::Delete(key, Condition::Always)]).await.expect("a deletion");
    piece
}

/// Looks after the lost region, as each minute does.
async fn look(regions: &DynamoRegions, now: i64, limit: usize) {
    regions.reconcile(at(now), limit).await.expect("a look");
}

async fn lose(lab: &Lab, regions: &DynamoRegions) {
    let (_, there) = lab.region(0, &NAMES);
    there.beat(at(1)).await.expect("a sign of life");
    regions.set_in_service(&RegionId::new(LOST), false, at(20)).await.expect("a flag");
}

async fn listed(stores: &Stores) -> Vec<(String, JobState, Option<String>)> {
    let filter = JobFilter { limit: 99, ..JobFilter::default() };
    let jobs = stores.jobs.list(&tenant(), &filter, at(0)).await.expect("a listing");
    jobs.into_iter().map(|job| (job.job.id.to_string(), job.state, job.reason)).collect()
}

async fn receive(stores: &Stores, max: usize, now: i64) -> Vec<Delivery> {
    stores.jobs.receive(max, at(now), at(now + 60_000), &Apart::default()).await.expect("an answer")
}

/// The jobs that wait in a shard of the lost region's queue, in their order.
async fn waiting(lab: &Lab, shard: u64) -> Vec<String> {
    let query = Query {
        index: Some(DUE),
        partition: format!("DUE#{LOST}#{shard}"),
        from: "0".to_owned(),
        to: "g".to_owned(),
        newest_first: false,
        limit: 100,
    };
    let items = lab.core.query(&query).await.expect("items");
    items.into_iter().map(|item| item.key.partition.replace("J#main#", "")).collect()
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| delivery.job.job.id.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_taken_over_when_all_of_it_has_arrived() {
    let lab = Lab::new().await;
    let (stores, regions) = lab.region(1, &NAMES);
    enqueue(&lab.stores, "j", 10).await;
    let piece = keep_back(&lab, "j", LOST).await;
    lose(&lab, &regions).await;
    look(&regions, 60_000, 10).await;
    assert_eq!(receive(&stores, 9, 60_001).await, []);
    assert_eq!(listed(&stores).await, [], "what cannot be told is left out");
    lab.put(piece).await;
    look(&regions, 120_000, 10).await;
    let taken = receive(&stores, 9, 120_001).await;
    assert_eq!(taken.iter().map(|taken| taken.job.attempts).collect::<Vec<_>>(), [1]);
    let Work::Turn(request) = &taken[0].job.job.work;
    assert!(request.options.may_have_run);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_does_not_arrive_within_a_day_is_given_up_and_redriven_where_it_was_written() {
    let lab = Lab::new().await;
    let (stores, regions) = lab.region(1, &NAMES);
    enqueue(&lab.stores, "j", 10).await;
    let piece = keep_back(&lab, "j", LOST).await;
    lose(&lab, &regions).await;
    look(&regions, DAY + 11, 10).await;
    let refused = stores.jobs.redrive(&tenant(), &JobId::new("j"), at(DAY + 20)).await;
    assert!(matches!(&refused, Err(StoreError::Elsewhere { region }) if region == LOST), "{refused:?}");
    lab.put(piece).await;
    let reason = "part of it has not arrived from the region eu-central-1 within a day: when that region is back, redrive it there";
    assert_eq!(listed(&stores).await, [("j".to_owned(), JobState::Dead, Some(reason.to_owned()))]);
    lab.stores.jobs.redrive(&tenant(), &JobId::new("j"), at(DAY + 30)).await.expect("a redrive");
    let redriven = receive(&lab.stores, 9, DAY + 40).await;
    assert_eq!(ids(&redriven), ["j"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_have_not_arrived_keep_no_others_waiting() {
    let lab = Lab::new().await;
    let (stores, regions) = lab.region(1, &NAMES);
    for number in 0..8 {
        let id = format!("large {number}");
        enqueue(&lab.stores, &id, number).await;
        keep_back(&lab, &id, LOST).await;
        let small = new_job(&format!("small {number}"), "hello");
        let is_new = lab.stores.jobs.enqueue(&small, Duration::ZERO, at(20 + number)).await;
        assert!(is_new.expect("an answer"));
    }
    for shard in 0..4 {
        let waiting = waiting(&lab, shard).await;
        let first = waiting.first().is_some_and(|id| id.starts_with("large"));
        let is_behind = first && waiting.iter().any(|id| id.starts_with("small"));
        assert!(is_behind, "in each shard of the queue a small one stands behind a large one: {waiting:?}");
    }
    lose(&lab, &regions).await;
    for _ in 0..8 {
        look(&regions, 60_000, 1).await;
    }
    let expected: Vec<String> = (0..8).map(|number| format!("small {number}")).collect();
    assert_eq!(ids(&receive(&stores, 99, 60_001).await), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_was_taken_over_too_early_keeps_no_others_waiting() {
    let lab = Lab::new().await;
    // As if this region had taken it over before its work had arrived.
    enqueue(&lab.stores, "large", 10).await;
    let piece = keep_back(&lab, "large", LOST).await;
    let small = new_job("small", "hello");
    assert!(lab.stores.jobs.enqueue(&small, Duration::ZERO, at(20)).await.expect("an answer"));
    assert_eq!(ids(&receive(&lab.stores, 1, 30).await), ["small"]);
    assert_eq!(receive(&lab.stores, 1, 40).await, []);
    lab.put(piece).await;
    let next = receive(&lab.stores, 1, 70_000).await;
    assert_eq!(ids(&next), ["large"]);
    assert_eq!(next[0].job.attempts, 1);
}

/// A table that cannot tell what stands beside an item.
struct Troubled(Arc<dyn Table>);

#[async_trait]
impl Table for Troubled {
    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        self.0.get(key).await
    }

    async fn query(&self, query: &Query) -> Result<Vec<Item>, StoreError> {
        if query.from.starts_with("B#") {
            return Err(StoreError::Unavailable("out of order".into()));
        }
        self.0.query(query).await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        self.0.write(writes).await
    }

    async fn write_once(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        self.0.write_once(writes).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_no_gap_in_what_has_arrived() {
    let lab = Lab::new().await;
    let (stores, regions) = lab.region_over(Arc::new(Troubled(Arc::new(lab.core.clone()))), 1, &NAMES);
    enqueue(&lab.stores, "j", 10).await;
    lose(&lab, &regions).await;
    let filter = JobFilter { limit: 99, ..JobFilter::default() };
    let shortened = stores.jobs.list(&tenant(), &filter, at(0)).await;
    assert!(matches!(shortened, Err(StoreError::Unavailable(_))), "{shortened:?}");
    let looked = regions.reconcile(at(2 * DAY), 10).await;
    assert!(matches!(looked, Err(StoreError::Unavailable(_))), "{looked:?}");
    assert_eq!(listed(&lab.stores).await, [("j".to_owned(), JobState::Pending, None)], "it is not given up");
}
