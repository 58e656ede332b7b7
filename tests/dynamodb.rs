//! The stores on DynamoDB (emulated), beyond what every store promises: what a turn costs, what is too large for an item,
//! deletions that are cut short, and answers that are lost on the way.

#![expect(clippy::expect_used, reason = "a case that cannot be set up fails")]
#![expect(clippy::print_stdout, reason = "the figures are for people")]

#[path = "dynamodb/closed.rs"]
mod closed;
#[path = "dynamodb/cut_short.rs"]
mod cut_short;
#[path = "dynamodb/moved.rs"]
mod moved;
#[path = "dynamodb/not_arrived.rs"]
mod not_arrived;
#[path = "dynamodb/on_the_way.rs"]
mod on_the_way;

use harness::app::TestApp;
use harness::dynamo::{Dynamo, here, region, regions_over};
use harness::stores::{
    answer_key, at, delete, done, keyed_turn, new_job, new_turn, run, start, stores_of, tenant,
};
use serde_json::json;
use shared::adapters::aws::dynamodb::schema::EXPIRES;
use shared::adapters::aws::dynamodb::table::{Attr, Condition, Item, Key, Query, Table, Write};
use shared::adapters::aws::dynamodb::{DynamoRegions, DynamoStores, DynamoTable, Units};
use shared::answer::{Answer, Claim};
use shared::app::Stores;
use shared::error::StoreError;
use shared::id::{AgentId, JobId, SessionId, SessionKey, TurnId};
use shared::job::{Apart, Outcome};
use shared::message::MessageBody;
use shared::principal::Scope;
use shared::session::{Begun, NewTurn, Step, Window};
use std::sync::Arc;
use std::time::Duration;

struct Lab {
    core: DynamoTable,
    local: DynamoTable,
    stores: Stores,
    _server: Arc<Dynamo>,
}

impl Lab {
    async fn new() -> Self {
        let server = Dynamo::shared();
        let (core, local) = server.tables().await;
        let adapter = DynamoStores::new(Arc::new(core.clone()), Arc::new(local.clone()), here());
        Self { core, local, stores: stores_of(&Arc::new(adapter)), _server: server }
    }

    /// Items of a partition of `core` whose sort keys begin so, or all for a blank.
    async fn items(&self, partition: &str, begin: &str) -> Vec<Item> {
        let (partition, from) = (partition.to_owned(), begin.to_owned());
        let to = format!("{}~", begin.trim());
        let query = Query { index: None, partition, from, to, newest_first: false, limit: 1_000 };
        self.core.query(&query).await.expect("items")
    }

    /// Writes an item as replication does.
    async fn put(&self, item: Item) {
        self.core.write(vec![Write::Put(item, Condition::Always)]).await.expect("an arrival");
    }

    /// The stores of the region with this number among these, and its look after the others.
    fn region(&self, number: usize, of: &[&str]) -> (Stores, DynamoRegions) {
        self.region_over(Arc::new(self.core.clone()), number, of)
    }

    /// As `region`, with another way to `core`.
    fn region_over(&self, core: Arc<dyn Table>, number: usize, of: &[&str]) -> (Stores, DynamoRegions) {
        let rows = DynamoStores::new(core, Arc::new(self.local.clone()), region(number, of));
        (stores_of(&Arc::new(rows.clone())), regions_over(rows))
    }

    fn consumed(&self) -> (Units, Units) {
        (self.core.consumed(), self.local.consumed())
    }
}

fn between(before: Units, after: Units) -> Units {
    Units { read: after.read - before.read, written: after.written - before.written }
}

/// Asks for a turn on the session, as a client does; what it cost.
async fn cost_of_a_turn(lab: &Lab, app: &TestApp, token: &str, key: Option<&str>) -> (Units, Units) {
    let before = lab.consumed();
    let text = "What is on my calendar today?";
    let body = json!({"model": "main", "messages": [{"role": "user", "content": text}]});
    let mut ask = app.post("/v1/chat/completions", token).header("x-openclaw-session-key", "agent:main:old");
    if let Some(key) = key {
        ask = ask.header("idempotency-key", key);
    }
    let answer = ask.json(&body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let after = lab.consumed();
    (between(before.0, after.0), between(before.1, after.1))
}

/// A session with so many messages, the last of which is a summary of the others.
async fn age(stores: &Stores, messages: usize) {
    let mut left = messages;
    while left > 0 {
        let some = left.min(200);
        left -= some;
        let id = format!("filler {left}");
        let new = NewTurn {
            session: SessionKey::new("agent:main:old"),
            agent: AgentId::new("main"),
            ..new_turn(&id, "agent:main:old")
        };
        let lease = start(stores, &new, 1_795_132_740_000, 1_795_132_790_000).await;
        let mut said = vec![MessageBody::assistant_text("a short reply"); some - 1];
        if left == 0 {
            let through = lease.seq + said.len() as u64 - 1;
            said.pop();
            said.push(MessageBody::Summary { text: "so far".to_owned(), through });
        }
        let step = Step { messages: said, audit: Vec::new() };
        stores
            .sessions
            .commit(&lease, &step, &done("a short reply"), at(1_795_132_740_000))
            .await
            .expect("a commit");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_turn_costs_the_same_in_a_young_and_in_an_old_session() {
    let mut costs = Vec::new();
    for messages in [10, 10_000] {
        let lab = Lab::new().await;
        let app = TestApp::with_stores(lab.stores.clone());
        let token = app.token("00000000000000000000TOKEN1", &[Scope::Chat]).await;
        age(&lab.stores, messages).await;
        let (core, local) = cost_of_a_turn(&lab, &app, &token, None).await;
        println!(
            "{messages} messages: {} write units and {} read units in `core`, {} and {} in `local`",
            core.written, core.read, local.written, local.read
        );
        costs.push((core.written, local.written));
        // In the same minute, so that the session stays where it is listed.
        let (keyed, _) = cost_of_a_turn(&lab, &app, &token, Some("key")).await;
        let (replayed, _) = cost_of_a_turn(&lab, &app, &token, Some("key")).await;
        println!(
            "with a key, in the same minute: {} write units; replayed: {} write and {} read units",
            keyed.written, replayed.written, replayed.read
        );
        assert!(replayed.written < 0.5, "{} write units for an answer that is given again", replayed.written);
    }
    assert_eq!(costs[0], costs[1], "the session's age costs nothing");
    let (core, local) = costs[0];
    assert!(core + local <= 16.0, "{core} write units for the turn, {local} for the caller's rate limit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_for_an_item_is_kept_in_several() {
    let lab = Lab::new().await;
    let text = "long, ü 日本 ".repeat(25_000);
    let new = NewTurn { input: vec![MessageBody::user_text(text.as_str())], ..keyed_turn("t1", "s", "k") };
    let lease = start(&lab.stores, &new, 10, 100).await;
    let step = Step { messages: vec![MessageBody::assistant_text(text.as_str()); 2], audit: Vec::new() };
    let lease = lab.stores.sessions.append(&lease, &step, at(20), at(100)).await.expect("an append");
    lab.stores.sessions.commit(&lease, &step, &done("hi"), at(30)).await.expect("a commit");
    for (newest, expected) in [(1, vec![5]), (3, vec![3, 4, 5]), (9, vec![1, 2, 3, 4, 5])] {
        let window = Window::newest(newest);
        let found = lab.stores.sessions.transcript(&tenant(), &SessionKey::new("s"), window).await;
        let found = found.expect("a transcript");
        assert_eq!(found.iter().map(|message| message.seq).collect::<Vec<_>>(), expected);
        assert!(found.iter().all(|message| message.body.text() == text));
    }
    let again = lab.stores.sessions.begin(&new, at(40), at(100)).await.expect("a verdict");
    assert!(matches!(again, Begun::Replayed(_)));
    delete(&lab.stores, "s").await;
    let next = NewTurn { new_session_id: SessionId::new("second"), ..new };
    start(&lab.stores, &next, 50, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_for_a_transaction_is_refused() {
    let lab = Lab::new().await;
    let text = "x".repeat(3_600_000);
    let new = NewTurn { input: vec![MessageBody::user_text(text)], ..new_turn("t1", "s") };
    let refused = lab.stores.sessions.begin(&new, at(10), at(100)).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { most: 3_500_000, .. })), "{refused:?}");
    assert_eq!(lab.stores.sessions.turn(&tenant(), &TurnId::new("t1")).await.expect("an answer"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_to_a_large_job_costs_as_much_as_if_it_were_small() {
    let mut costs = Vec::new();
    for text in ["short".to_owned(), "long, ü 日本 ".repeat(60_000)] {
        let lab = Lab::new().await;
        let queue = &lab.stores.jobs;
        assert!(queue.enqueue(&new_job("j", &text), Duration::ZERO, at(10)).await.expect("an answer"));
        let before = lab.core.consumed();
        let delivery = queue
            .receive(1, at(20), at(100), &Apart::default())
            .await
            .expect("a delivery")
            .pop()
            .expect("a job");
        queue.extend(&delivery.receipt, at(30), at(200)).await.expect("an extension");
        let retry = Outcome::Retry { after: Duration::ZERO, counts: true, reason: "busy".to_owned() };
        queue.settle(&delivery.receipt, &retry, at(150)).await.expect("a settlement");
        costs.push(between(before, lab.core.consumed()).written);
        assert!(delivery.job.job == new_job("j", &text), "it comes as it was enqueued");
    }
    println!("delivered, extended and tried again: {} write units, {} for a megabyte", costs[0], costs[1]);
    assert!(costs[1] <= costs[0], "what it is to do is not written again");
}

/// The items of a partition, with the time when each is forgotten.
async fn expiries(lab: &Lab, partition: &str) -> Vec<(String, Option<Attr>)> {
    let items = lab.items(partition, " ").await;
    items.into_iter().map(|item| (item.key.sort, item.attrs.get(EXPIRES).cloned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_of_a_job_is_forgotten_when_it_is_done_and_not_before() {
    let lab = Lab::new().await;
    let queue = &lab.stores.jobs;
    let text = "long, ü 日本 ".repeat(60_000);
    queue.enqueue(&new_job("j", &text), Duration::ZERO, at(10)).await.expect("an answer");
    let mut delivery =
        queue.receive(1, at(20), at(100), &Apart::default()).await.expect("a delivery").remove(0);
    queue.extend(&delivery.receipt, at(30), at(200)).await.expect("an extension");
    let dead = Outcome::Dead { reason: "bad".to_owned() };
    queue.settle(&delivery.receipt, &dead, at(150)).await.expect("a settlement");
    let kept = expiries(&lab, "J#main#j").await;
    assert!(kept.len() > 3 && kept.iter().all(|(_, end)| end.is_none()), "{kept:?}");
    queue.redrive(&tenant(), &JobId::new("j"), at(160)).await.expect("a redrive");
    delivery = queue.receive(1, at(170), at(300), &Apart::default()).await.expect("a delivery").remove(0);
    let before = lab.core.consumed();
    queue.settle(&delivery.receipt, &Outcome::Done, at(1_001)).await.expect("a settlement");
    let cost = between(before, lab.core.consumed());
    println!("a job of a megabyte is done: {} write units, {} read units", cost.written, cost.read);
    let end = Some(Attr::Number(2 + 14 * 24 * 60 * 60));
    let marked = expiries(&lab, "J#main#j").await;
    assert_eq!(marked, [("-".to_owned(), end.clone())], "what was said is gone at once");
    assert_eq!(expiries(&lab, "S#main#s").await, [("J#j".to_owned(), end)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotency_records_are_forgotten_by_the_table_with_what_belongs_to_them() {
    let lab = Lab::new().await;
    run(&lab.stores, &keyed_turn("t1", "s", "k1"), 1_001).await;
    let end = |seconds: i64| Some(Attr::Number(seconds + 30 * 24 * 60 * 60));
    assert_eq!(expiries(&lab, "I#main#alice#k1").await, [("-".to_owned(), end(2))]);
    let key = answer_key("k2", "f");
    lab.stores.answers.claim(&key, at(10), at(100)).await.expect("a claim");
    assert_eq!(expiries(&lab, "I#main#alice#k2").await, [("-".to_owned(), end(1))]);
    let large = Answer::json(&"long, ü 日本 ".repeat(60_000));
    lab.stores.answers.store(&key, &large, at(5_000)).await.expect("a stored answer");
    let answered = expiries(&lab, "I#main#alice#k2").await;
    assert!(answered.len() > 3 && answered.iter().all(|(_, at)| *at == end(5)), "{answered:?}");
    // What a turn is found by is no record of a key.
    for partition in ["T#main#t1", "S#main#s"] {
        let kept = expiries(&lab, partition).await;
        assert!(!kept.is_empty() && kept.iter().all(|(_, end)| end.is_none()), "{partition}: {kept:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_or_an_answer_that_is_too_large_for_a_transaction_is_refused() {
    let lab = Lab::new().await;
    let text = "x".repeat(3_600_000);
    let refused = lab.stores.jobs.enqueue(&new_job("j", &text), Duration::ZERO, at(10)).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { most: 3_500_000, .. })), "{refused:?}");
    let key = answer_key("k", "f");
    lab.stores.answers.claim(&key, at(10), at(100)).await.expect("a claim");
    let refused = lab.stores.answers.store(&key, &Answer::json(&text), at(20)).await;
    assert!(matches!(refused, Err(StoreError::TooLarge { most: 3_500_000, .. })), "{refused:?}");
    let again = lab.stores.answers.claim(&key, at(30), at(100)).await.expect("a verdict");
    assert_eq!(again, Claim::Busy { until: at(100) });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn background_work_is_accepted_up_to_what_a_transaction_takes() {
    let lab = Lab::new().await;
    let app = TestApp::with_stores(lab.stores.clone());
    let token = app.token("00000000000000000000TOKEN1", &[Scope::Chat]).await;
    for (bytes, expected) in [(1_000_000, 200), (3_600_000, 400)] {
        let body = json!({"model": "main", "input": "x".repeat(bytes), "background": true});
        let answer = app.post("/v1/responses", &token).json(&body).await;
        assert_eq!(answer.status, expected, "{bytes}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limits_state_is_forgotten_when_the_subject_is_idle() {
    let lab = Lab::new().await;
    let limit = shared::limit::Limit { per_second: 1.0, burst: 0 };
    lab.stores.limits.take("alice", limit, at(5_000)).await.expect("a decision");
    let key = Key { partition: "R#alice".to_owned(), sort: "-".to_owned() };
    let item = lab.local.get(&key).await.expect("an answer").expect("its state");
    assert_eq!(item.attrs[EXPIRES], Attr::Number(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_deleted_session_is_left_but_its_audit_rows() {
    let lab = Lab::new().await;
    run(&lab.stores, &keyed_turn("t1", "s", "k"), 10).await;
    let places = [("T#main#t1", " "), ("I#main#alice#k", " "), ("S#main#s", "H")];
    for (partition, from) in places {
        assert_ne!(lab.items(partition, from).await, [], "{partition} {from}");
    }
    delete(&lab.stores, "s").await;
    for (partition, from) in places {
        assert_eq!(lab.items(partition, from).await, [], "{partition} {from}");
    }
}
