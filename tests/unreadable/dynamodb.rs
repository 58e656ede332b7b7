//! DynamoDB (emulated), damaged item by item.

use super::{
    an_unreadable_answer_is_said_to_be_one, an_unreadable_job_is_dead_by_its_name,
    an_unreadable_session_can_be_deleted, an_unreadable_session_can_be_reset_and_deleted,
    an_unreadable_turn_ends_and_its_session_goes_on, fill, others_go_on, too_deep,
    what_could_not_be_read_back_is_never_stored,
};
use harness::dynamo::{Dynamo, here};
use harness::stores::stores_of;
use shared::adapters::aws::dynamodb::table::{Attr, Condition, Item, Query, Table, Write};
use shared::adapters::aws::dynamodb::{DynamoStores, DynamoTable};
use shared::app::Stores;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What becomes of an attribute.
#[derive(Debug, Clone, Copy)]
enum To {
    Junk,
    Deep,
    Number(i64),
    Nothing,
}

/// The partition and the beginning of the sort key of an item, an attribute of it, and what becomes of that.
type Kind = (&'static str, &'static str, &'static str, To);

const JOB: &str = "J#main#bad-j";
const HELD: &str = "S#main#bad-held";
const IDLE: &str = "S#main#bad-idle";

/// Jobs whose item cannot be read.
const JOBS: [Kind; 10] = [
    (JOB, "-", "job", To::Junk),
    (JOB, "-", "job", To::Deep),
    (JOB, "-", "job", To::Nothing),
    (JOB, "-", "job", To::Number(1)),
    (JOB, "-", "state", To::Number(1)),
    (JOB, "-", "attempts", To::Number(-5)),
    (JOB, "-", "token", To::Junk),
    (JOB, "-", "token", To::Nothing),
    (JOB, "-", "created", To::Junk),
    (JOB, "-", "region", To::Nothing),
];

/// Interrupted turns of which not all can be read.
const TURNS: [Kind; 5] = [
    (HELD, "M#", "b", To::Junk),
    (HELD, "M#", "b", To::Deep),
    (HELD, "M#", "b", To::Number(7)),
    (HELD, "M#", "at", To::Junk),
    (HELD, "M#", "a", To::Number(3)),
];

/// Sessions whose head cannot be read.
const HEADS: [Kind; 8] = [
    (HELD, "H#", "seq", To::Junk),
    (HELD, "H#", "v", To::Nothing),
    (HELD, "H#", "fence", To::Number(-1)),
    (HELD, "H#", "until", To::Nothing),
    (HELD, "H#", "lineage", To::Junk),
    (IDLE, "H#", "updated", To::Junk),
    (IDLE, "H", "channel", To::Number(1)),
    (IDLE, "H", "created", To::Nothing),
];

/// What else there is.
const OTHERS: [Kind; 8] = [
    (JOB, "-", "visible", To::Junk),
    (IDLE, "M#", "a", To::Junk),
    (IDLE, "M#", "b", To::Deep),
    ("T#main#bad-idle-t", "0", "first", To::Junk),
    ("U#bad-u", "-", "token", To::Junk),
    ("I#main#alice#bad-a", "-", "answer", To::Junk),
    ("I#main#alice#bad-a", "-", "fingerprint", To::Number(1)),
    ("G#main", "G#", "agent", To::Number(1)),
];

struct Lab {
    core: DynamoTable,
    adapter: Arc<DynamoStores>,
    stores: Stores,
    _server: Arc<Dynamo>,
}

impl Lab {
    async fn new() -> Self {
        let server = Dynamo::shared();
        let (core, local) = server.tables().await;
        let adapter = Arc::new(DynamoStores::new(Arc::new(core.clone()), Arc::new(local), here()));
        Self { core, stores: stores_of(&adapter), adapter, _server: server }
    }

    async fn filled() -> Self {
        let lab = Self::new().await;
        fill(&lab.stores).await;
        lab
    }

    async fn damage(&self, (partition, begin, attr, to): Kind) {
        let query = Query {
            index: None,
            partition: partition.to_owned(),
            from: begin.to_owned(),
            // The session's own item is alone before the heads.
            to: if begin == "H" { begin.to_owned() } else { format!("{begin}~") },
            newest_first: false,
            limit: 1,
        };
        let items = self.core.query(&query).await.expect("items");
        let [item] = items.as_slice() else { panic!("{partition} {begin}: {items:?}") };
        let Item { key, mut attrs } = item.clone();
        match to {
            To::Junk => attrs.insert(attr.to_owned(), Attr::Text("junk".to_owned())),
            To::Deep => attrs.insert(attr.to_owned(), Attr::Text(too_deep())),
            To::Number(number) => attrs.insert(attr.to_owned(), Attr::Number(number)),
            To::Nothing => attrs.remove(attr),
        };
        let put = vec![Write::Put(Item { key, attrs }, Condition::Present)];
        self.core.write(put).await.expect("a damaged item");
    }

    fn seen(&self) -> BTreeSet<&'static str> {
        self.adapter.sightings().rows().into_iter().map(|row| row.table).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kind_of_unreadable_item_harms_anybody_else() {
    let kinds = [&JOBS[..], &TURNS, &HEADS, &OTHERS].concat();
    assert!(kinds.len() >= 20);
    for kind in kinds {
        let lab = Lab::filled().await;
        lab.damage(kind).await;
        others_go_on(&lab.stores, &format!("{kind:?}")).await;
    }
}

#[tokio::test]
async fn an_unreadable_job_is_dead_and_told_of() {
    // What was delivered and ended is written anew; what it was to do stays unreadable.
    for kind in JOBS.into_iter().filter(|kind| kind.2 == "job") {
        let lab = Lab::filled().await;
        lab.damage(kind).await;
        let shown = format!("{kind:?}");
        others_go_on(&lab.stores, &shown).await;
        an_unreadable_job_is_dead_by_its_name(&lab.stores, &shown).await;
        assert_eq!(lab.seen(), BTreeSet::from(["jobs"]), "{shown}");
    }
}

#[tokio::test]
async fn an_interrupted_turn_that_cannot_be_read_ends_as_failed() {
    for kind in TURNS {
        let lab = Lab::filled().await;
        lab.damage(kind).await;
        let shown = format!("{kind:?}");
        an_unreadable_turn_ends_and_its_session_goes_on(&lab.stores, &shown).await;
        assert!(lab.seen().contains("turns"), "{shown}: {:?}", lab.seen());
    }
}

#[tokio::test]
async fn a_session_whose_head_cannot_be_read_can_be_reset_and_deleted() {
    for kind in HEADS {
        let shown = format!("{kind:?}");
        let session = kind.0.trim_start_matches("S#main#");
        let lab = Lab::filled().await;
        lab.damage(kind).await;
        an_unreadable_session_can_be_reset_and_deleted(&lab.stores, session, &shown).await;
        let lab = Lab::filled().await;
        lab.damage(kind).await;
        an_unreadable_session_can_be_deleted(&lab.stores, session, &shown).await;
    }
}

#[tokio::test]
async fn a_key_whose_answer_cannot_be_read_has_an_answer_that_stays() {
    let lab = Lab::filled().await;
    lab.damage(("I#main#alice#bad-a", "-", "answer", To::Deep)).await;
    an_unreadable_answer_is_said_to_be_one(&lab.stores, "deep").await;
}

#[tokio::test]
async fn nothing_that_could_not_be_read_back_is_stored() {
    let lab = Lab::new().await;
    what_could_not_be_read_back_is_never_stored(&lab.stores).await;
}
