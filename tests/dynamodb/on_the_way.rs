//! What happens between a store and DynamoDB: answers that are lost, and answers that are not whole.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use harness::dynamo::{Dynamo, client, here};
use harness::stores::{answer_key, at, audit, new_job, new_turn, says, start, stores_of, tenant, token};
use serde_json::{Value, json};
use shared::adapters::aws::dynamodb::schema::LISTED;
use shared::adapters::aws::dynamodb::table::{Query, Table};
use shared::adapters::aws::dynamodb::{DynamoStores, DynamoTable};
use shared::answer::Claim;
use shared::app::Stores;
use shared::error::StoreError;
use shared::id::{JobId, SessionKey};
use shared::job::{Apart, Outcome};
use shared::session::{Begun, Step, Window};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// A client that asks a server at most three times.
async fn client_of(router: Router) -> (Client, JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let served = async move { axum::serve(listener, router).await.expect("a server") };
    let retries = RetryConfig::standard().with_initial_backoff(Duration::from_millis(1));
    let config = client(&endpoint).config().to_builder().retry_config(retries).build();
    let mut server = JoinSet::new();
    server.spawn(served);
    (Client::from_conf(config), server)
}

fn operation(headers: &HeaderMap) -> &str {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    target.and_then(|target| target.split_once('.')).map_or("", |(_, operation)| operation)
}

/// A way to the server on which answers to writes are lost.
#[derive(Clone)]
struct Lossy {
    endpoint: String,
    client: reqwest::Client,
    losing: Arc<AtomicUsize>,
}

impl Lossy {
    /// Carries a request; of a write that was carried out the caller may hear that it failed.
    async fn carry(State(way): State<Self>, headers: HeaderMap, body: Bytes) -> Response {
        let mut request = way.client.post(&way.endpoint).body(body);
        for name in ["x-amz-target", "content-type", "authorization", "x-amz-date"] {
            request =
                headers.get(name).into_iter().fold(request, |request, value| request.header(name, value));
        }
        let answer = request.send().await.expect("an answer");
        let (status, body) = (answer.status(), answer.bytes().await.expect("a body"));
        let is_write = matches!(operation(&headers), "PutItem" | "TransactWriteItems");
        let lose = |left: usize| left.checked_sub(1);
        if is_write && way.losing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_ok() {
            return (StatusCode::INTERNAL_SERVER_ERROR, r#"{"__type": "InternalServerError"}"#)
                .into_response();
        }
        (status, [("content-type", "application/x-amz-json-1.0")], body).into_response()
    }

    /// So many answers to writes are lost from now on. Those that were to be lost before must have been.
    fn lose(&self, answers: usize) {
        assert_eq!(self.losing.swap(answers, Ordering::SeqCst), 0, "an answer was not lost");
    }
}

/// New stores behind such a way.
struct Far {
    stores: Stores,
    way: Lossy,
    _servers: (JoinSet<()>, Arc<Dynamo>),
}

impl Far {
    async fn new() -> Self {
        let server = Dynamo::shared();
        let [core, local] = server.create_tables().await;
        let client = reqwest::Client::new();
        let way = Lossy { endpoint: server.endpoint().to_owned(), client, losing: Arc::default() };
        let (client, served) = client_of(Router::new().fallback(Lossy::carry).with_state(way.clone())).await;
        let table = |name: String| Arc::new(DynamoTable::new(client.clone(), name));
        let stores = DynamoStores::new(table(core), table(local), here());
        Self { stores: stores_of(&Arc::new(stores)), way, _servers: (served, server) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_repeated_because_its_answer_was_lost_does_not_lose_against_itself() {
    let Far { stores, way, _servers } = Far::new().await;
    let key = answer_key("k", "same");
    way.lose(1);
    let claim = stores.answers.claim(&key, at(10), at(100)).await.expect("a claim");
    assert_eq!(claim, Claim::Claimed);
    way.lose(1);
    let claim = stores.answers.claim(&key, at(100), at(200)).await.expect("a claim");
    assert_eq!(claim, Claim::Abandoned);
    way.lose(1);
    assert!(
        stores.jobs.enqueue(&new_job("j", "hello"), Duration::ZERO, at(10)).await.expect("an answer"),
        "it is new"
    );
    way.lose(1);
    let delivered = stores.jobs.receive(9, at(20), at(100), &Apart::default()).await.expect("deliveries");
    assert_eq!(delivered.iter().map(|delivery| delivery.job.attempts).collect::<Vec<_>>(), [1]);
    let new = new_turn("t1", "s");
    start(&stores, &new, 10, 100).await;
    way.lose(1);
    let resumed = stores.sessions.begin(&new, at(200), at(300)).await.expect("a verdict");
    assert!(matches!(resumed, Begun::Resumed { .. }), "{resumed:?}");
    way.lose(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jobs_end_and_its_redrive_do_not_lose_against_themselves() {
    let Far { stores, way, _servers } = Far::new().await;
    let is_new = stores.jobs.enqueue(&new_job("j", "hello"), Duration::ZERO, at(10)).await;
    assert!(is_new.expect("an answer"));
    let again = Outcome::Retry { after: Duration::ZERO, counts: true, reason: "busy".to_owned() };
    let dead = Outcome::Dead { reason: "bad".to_owned() };
    for outcome in [again, dead] {
        let delivered = stores.jobs.receive(1, at(20), at(100), &Apart::default()).await.expect("deliveries");
        way.lose(1);
        stores.jobs.extend(&delivered[0].receipt, at(25), at(110)).await.expect("an extension");
        way.lose(1);
        stores.jobs.settle(&delivered[0].receipt, &outcome, at(20)).await.expect("a settlement");
    }
    way.lose(1);
    stores.jobs.redrive(&tenant(), &JobId::new("j"), at(30)).await.expect("a redrive");
    way.lose(0);
    let delivered = stores.jobs.receive(1, at(40), at(100), &Apart::default()).await.expect("deliveries");
    assert_eq!(delivered.iter().map(|delivery| delivery.job.attempts).collect::<Vec<_>>(), [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_token_does_not_find_its_own_id_taken() {
    let Far { stores, way, _servers } = Far::new().await;
    let token = token("alice", 10);
    way.lose(1);
    stores.tokens.insert(&token).await.expect("a token");
    way.lose(0);
    let taken = stores.tokens.insert(&token).await;
    assert!(matches!(taken, Err(StoreError::Broken(_))), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_whose_answers_are_all_lost_is_recorded_once() {
    let Far { stores, way, _servers } = Far::new().await;
    let lease = start(&stores, &new_turn("t1", "s"), 10, 100).await;
    let step = Step { audit: vec![audit("a", 20, "model.fallback")], ..says("one") };
    way.lose(3);
    let lost = stores.sessions.append(&lease, &step, at(20), at(110)).await;
    assert!(matches!(lost, Err(StoreError::Unavailable(_))), "{lost:?}");
    way.lose(0);
    let next = stores.sessions.append(&lease, &step, at(30), at(120)).await.expect("an append");
    assert_eq!((next.seq, next.until), (2, at(120)));
    let window = Window::newest(9);
    let found = stores.sessions.transcript(&tenant(), &SessionKey::new("s"), window).await;
    let texts: Vec<String> = found.expect("a transcript").iter().map(|found| found.body.text()).collect();
    assert_eq!(texts, ["hello from t1", "one"]);
    let verdict = stores.audit.verify(&tenant()).await.expect("a verdict");
    assert_eq!((verdict.rows, verdict.broken), (2, Vec::new()));
}

/// A server whose index names one item twice, and which leaves the item out of so many answers.
async fn doubled(State(leaving_out): State<Arc<AtomicUsize>>, headers: HeaderMap, body: Bytes) -> Response {
    let key = json!({"pk": {"S": "p"}, "sk": {"S": "s"}});
    if operation(&headers) == "Query" {
        return axum::Json(json!({"Items": [key, key], "Count": 2, "ScannedCount": 2})).into_response();
    }
    let body: Value = serde_json::from_slice(&body).expect("a request");
    let keys = body["RequestItems"]["t"]["Keys"].as_array().cloned().unwrap_or_default();
    if keys.iter().map(Value::to_string).collect::<BTreeSet<_>>().len() != keys.len() {
        let refused = json!({
            "__type": "com.amazon.coral.validate#ValidationException",
            "message": "Provided list of item keys contains duplicates",
        });
        return (StatusCode::BAD_REQUEST, axum::Json(refused)).into_response();
    }
    let leave_out = |left: usize| left.checked_sub(1);
    if leaving_out.fetch_update(Ordering::SeqCst, Ordering::SeqCst, leave_out).is_ok() {
        return axum::Json(json!({"Responses": {}, "UnprocessedKeys": body["RequestItems"]})).into_response();
    }
    let item = json!({"pk": {"S": "p"}, "sk": {"S": "s"}, "lp": {"S": "listed"}, "ls": {"S": "1"}});
    axum::Json(json!({"Responses": {"t": [item]}})).into_response()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_moves_in_an_index_or_is_left_out_is_read_once() {
    let leaving_out = Arc::new(AtomicUsize::new(2));
    let (client, _server) = client_of(Router::new().fallback(doubled).with_state(leaving_out.clone())).await;
    let table = DynamoTable::new(client, "t");
    let query = Query {
        index: Some(LISTED),
        partition: "listed".to_owned(),
        from: "0".to_owned(),
        to: "g".to_owned(),
        newest_first: false,
        limit: 10,
    };
    assert_eq!(table.query(&query).await.expect("items").len(), 1);
    // Whoever is left out every time hears that the table is busy.
    leaving_out.store(usize::MAX, Ordering::SeqCst);
    let busy = table.query(&query).await;
    assert!(matches!(busy, Err(StoreError::Unavailable(_))), "{busy:?}");
}
