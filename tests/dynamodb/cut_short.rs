//! Deletions that are cut short.

use super::Lab;
use async_trait::async_trait;
use harness::dynamo::here;
use harness::stores::{at, delete, done, keyed_turn, reset, says, start, stores_of, tenant, transcript_of};
use shared::adapters::aws::dynamodb::table::{Item, Key, Query, Table, Write, WriteError};
use shared::adapters::aws::dynamodb::{DynamoStores, DynamoTable};
use shared::error::StoreError;
use shared::id::{SessionId, SessionKey};
use shared::message::{MessageBody, ToolCall};
use shared::session::{NewTurn, Parked, Step, TurnOutcome, Window};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The table of a process that writes so many times and then dies.
pub(super) struct Dying {
    pub(super) table: DynamoTable,
    pub(super) left: AtomicUsize,
}

impl Dying {
    fn is_dead(&self) -> Result<(), WriteError> {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| WriteError::Store(StoreError::Unavailable("it is dead".into())))
    }
}

#[async_trait]
impl Table for Dying {
    async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        self.table.get(key).await
    }

    async fn query(&self, query: &Query) -> Result<Vec<Item>, StoreError> {
        self.table.query(query).await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        self.is_dead()?;
        self.table.write(writes).await
    }

    async fn write_once(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        self.is_dead()?;
        self.table.write_once(writes).await
    }
}

/// A session with all that a deletion must find: a transcript that was put away, steps of several items with and without
/// audit rows, a key, a parked turn.
async fn a_session(lab: &Lab) {
    let long = MessageBody::assistant_text("long ".repeat(63_000));
    let new = NewTurn { input: vec![long.clone()], ..keyed_turn("t1", "s", "k") };
    let lease = start(&lab.stores, &new, 10, 100).await;
    let step = Step { messages: vec![long], audit: Vec::new() };
    let lease = lab.stores.sessions.append(&lease, &step, at(20), at(100)).await.expect("an append");
    lab.stores.sessions.commit(&lease, &says("hi"), &done("hi"), at(30)).await.expect("a commit");
    reset(&lab.stores, "s", "second transcript", 40).await;
    let lease = start(&lab.stores, &keyed_turn("t2", "s", "k2"), 50, 100).await;
    let call = ToolCall { id: "c".to_owned(), name: "pay".to_owned(), arguments: "{}".to_owned() };
    let parked = TurnOutcome::Parked(Parked { call, at: at(60) });
    lab.stores.sessions.commit(&lease, &step, &parked, at(60)).await.expect("a commit");
}

/// What is left of the session and its turns, less the audit rows.
async fn left(lab: &Lab) -> Vec<String> {
    let mut left = Vec::new();
    for partition in ["S#main#s", "T#main#t1", "T#main#t2", "I#main#alice#k", "I#main#alice#k2", "K#main"] {
        let items = lab.items(partition, " ").await;
        let is_row = |item: &Item| item.attrs.contains_key("a") && !item.attrs.contains_key("b");
        left.extend(items.into_iter().filter(|item| !is_row(item)).map(|item| format!("{:?}", item.key)));
    }
    left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_that_is_cut_short_anywhere_is_completed_by_whoever_uses_the_key_next() {
    let key = SessionKey::new("s");
    for writes in 0.. {
        let lab = Lab::new().await;
        a_session(&lab).await;
        let core = Arc::new(Dying { table: lab.core.clone(), left: AtomicUsize::new(writes) });
        let dying = stores_of(&Arc::new(DynamoStores::new(core, Arc::new(lab.local.clone()), here())));
        let deleted = dying.index.delete(&tenant(), &key, &transcript_of(&lab.stores, "s").await).await;
        let is_cut_short = deleted.is_err();
        if lab.stores.sessions.load(&tenant(), &key).await.expect("an answer").is_none() {
            let next = NewTurn { new_session_id: SessionId::new("third"), ..keyed_turn("t3", "s", "k") };
            let lease = start(&lab.stores, &next, 70, 100).await;
            lab.stores.sessions.commit(&lease, &says("hi"), &done("hi"), at(80)).await.expect("a commit");
            let found = lab.stores.sessions.transcript(&tenant(), &key, Window::newest(9)).await;
            assert_eq!(found.expect("a transcript").len(), 2, "after {writes} writes");
        }
        delete(&lab.stores, "s").await;
        assert_eq!(left(&lab).await, [""; 0], "after {writes} writes");
        if !is_cut_short {
            assert!(writes > 8, "only {writes} writes");
            break;
        }
    }
}
