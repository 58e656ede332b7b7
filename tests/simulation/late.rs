//! What a region finds of another one's late writes, in hand-written situations that no random history comes to.

use super::dice::Dice;
use super::life::Life;
use super::regions::{Stage, World, name, stores};
use super::settled::has_begun;
use super::tables::{RegionTable, Tables, Which};
use crate::stores::{at, done, new_turn, run, says, start, tenant};
use crate::time::SequentialIds;
use async_trait::async_trait;
use shared::adapters::aws::dynamodb::schema::DUE;
use shared::adapters::aws::dynamodb::table::{Attr, Condition, Item, Key, Query, Table, Write};
use shared::app::{App, Stores};
use shared::clock::Timestamp;
use shared::error::StoreError;
use shared::id::{AgentId, RegionId, SessionKey, TenantId, TurnId};
use shared::region::{Home, Reconciled, RegionState, Regions, Verdict};
use shared::session::{Begun, NewTurn, Window};
use shared::worker::sweep;
use std::sync::Arc;
use std::time::Duration;

/// Regions 0 and 1 with one process each.
struct Two {
    tables: Arc<Tables>,
    life: Arc<Life>,
    stores: [Stores; 2],
    regions: [Arc<dyn Regions>; 2],
}

impl Two {
    fn new() -> Self {
        let (tables, life) = (Tables::new(Arc::new(Dice::new(1))), Arc::new(Life::default()));
        let parts = [0, 1].map(|region| stores(&tables, region, &life, Arc::new(SequentialIds::default())));
        let [(one, regions_of_one), (other, regions_of_other)] = parts;
        Self { tables, life, stores: [one, other], regions: [regions_of_one, regions_of_other] }
    }

    /// Lets everything arrive.
    async fn replicate(&self) {
        self.tables.set_cut(0, 1, false);
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(self.tables.is_quiet());
    }

    /// Region 1 takes over what is at home in region 0.
    async fn take_over(&self, session: &str, now: i64) {
        let (tenant, session) = (tenant(), SessionKey::new(session));
        let home = self.regions[1].home(&tenant, &session).await.expect("an answer").expect("a session");
        let taken = self.regions[1].take_over(&tenant, &session, &home, at(now)).await.expect("a home");
        assert_eq!(taken.region, name(1));
    }

    /// A session that region 1 has taken over while region 0 ran a turn of so many bytes on it three times.
    async fn with_late_turn(&self, session: &str, bytes: usize) {
        run(&self.stores[0], &new_turn(&format!("{session} first"), session), 0).await;
        self.replicate().await;
        self.tables.set_cut(0, 1, true);
        let late = format!("{session} late");
        let mut lease = start(&self.stores[0], &new_turn(&late, session), 10, 100).await;
        for text in ["a", "b", "c"] {
            let step = says(&text.repeat(bytes));
            lease = self.stores[0].sessions.append(&lease, &step, at(10), at(100)).await.expect("a lease");
        }
        let committed = self.stores[0].sessions.commit(&lease, &says("d"), &done("d"), at(20)).await;
        committed.expect("a commit");
        self.take_over(session, 1_000).await;
        self.replicate().await;
    }

    async fn reconciled(&self, now: i64, limit: usize) -> Vec<Reconciled> {
        self.regions[1].reconcile(at(now), limit).await.expect("a look")
    }

    fn core(&self, region: usize) -> Arc<RegionTable> {
        RegionTable::new(&self.tables, region, Which::Core, &self.life)
    }
}

fn ended(session: &str) -> Reconciled {
    let turn = TurnId::new(format!("{session} late"));
    Reconciled { tenant: tenant(), session: SessionKey::new(session), turn, verdict: Verdict::Ended }
}

#[tokio::test(start_paused = true)]
async fn a_late_turn_that_is_larger_than_a_transaction_is_copied_whole() {
    let two = Two::new();
    two.with_late_turn("s", 2_000_000).await;
    assert_eq!(two.reconciled(2_000, 64).await, [ended("s")]);
    let session = SessionKey::new("s");
    let sessions = &two.stores[1].sessions;
    let read = sessions.transcript(&tenant(), &session, Window::newest(100)).await.expect("a transcript");
    let read: Vec<(usize, u64, usize)> = read
        .iter()
        .map(|message| (message.turn.as_str().len(), message.seq, message.body.text().len()))
        .collect();
    let (first, late) = ("s first".len(), "s late".len());
    let bytes = 2_000_000;
    let expected = [
        (first, 1, "hello from s first".len()),
        (first, 2, "reply to s first".len()),
        (late, 3, "hello from s late".len()),
        (late, 4, bytes),
        (late, 5, bytes),
        (late, 6, bytes),
        (late, 7, 1),
    ];
    assert_eq!(read, expected);
    let found =
        sessions.turn(&tenant(), &TurnId::new("s late")).await.expect("a turn").expect("a known turn");
    assert_eq!(found.outcome, Some(done("d")));
    let head = sessions.load(&tenant(), &session).await.expect("a head").expect("a session");
    assert_eq!(head.holder, None);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_be_looked_after_is_no_reason_to_leave_the_others() {
    let two = Two::new();
    two.with_late_turn("s1", 1).await;
    two.with_late_turn("s2", 1).await;
    let key = Key { partition: format!("W#{}", name(1)), sort: "S#main#s1".to_owned() };
    let mut entry = two.core(1).get(&key).await.expect("an answer").expect("an entry");
    entry.attrs.insert("done".to_owned(), Attr::Text("not what was written".to_owned()));
    two.core(1).write(vec![Write::Put(entry, Condition::Always)]).await.expect("a write");
    assert_eq!(two.reconciled(2_000, 64).await, [ended("s2")]);
}

#[tokio::test(start_paused = true)]
async fn a_look_visits_so_many_sessions_and_the_next_one_goes_on_behind_them() {
    let two = Two::new();
    for number in 10..45 {
        run(&two.stores[1], &new_turn(&format!("t{number}"), &format!("a{number}")), 0).await;
    }
    two.with_late_turn("s", 1).await;
    assert_eq!(two.reconciled(2_000, 1).await, []);
    assert_eq!(two.reconciled(2_000, 1).await, [ended("s")]);
}

#[tokio::test(start_paused = true)]
async fn a_region_that_was_lost_with_a_clock_a_day_ahead_is_gone_as_soon_as_any_other() {
    const DAY: i64 = 24 * 60 * 60 * 1_000;
    const LEASE: Duration = Duration::from_secs(90);
    let two = Two::new();
    // What region 1 takes for the latest sign of region 0 at this time, after it has looked.
    let seen = async |now: i64| {
        two.replicate().await;
        two.regions[1].beat(at(now)).await.expect("a beat");
        let states = two.regions[1].states(at(now)).await.expect("regions");
        states.into_iter().find(|state| state.region == name(0)).expect("the other one")
    };
    two.regions[0].beat(at(DAY)).await.expect("a beat");
    assert_eq!(seen(60_000).await.beat_at, Some(at(60_000)));
    // As long as its signs change it lives, whatever its clock says.
    two.regions[0].beat(at(DAY + 60_000)).await.expect("a beat");
    assert_eq!(seen(120_000).await.beat_at, Some(at(120_000)));
    let last = seen(270_000).await;
    assert_eq!(last.beat_at, Some(at(120_000)), "nothing new was heard");
    assert!(!last.is_gone(at(270_000), LEASE));
    assert!(last.is_gone(at(270_001), LEASE));
    // And back again, with its clock set right.
    two.regions[0].beat(at(300_000)).await.expect("a beat");
    assert_eq!(seen(301_000).await.beat_at, Some(at(300_000)));
}

#[tokio::test(start_paused = true)]
async fn a_region_resumes_its_own_turns_and_those_of_regions_that_are_gone() {
    let two = Two::new();
    for region in &two.regions {
        region.beat(at(0)).await.expect("a beat");
    }
    start(&two.stores[0], &new_turn("t", "s"), 0, 100).await;
    two.replicate().await;
    let listed = async |region: usize, now: i64| {
        let turns = two.stores[region]
            .index
            .interrupted(at(now), Duration::from_millis(100), 10)
            .await
            .expect("a list");
        turns.into_iter().map(|found| found.turn.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed(0, 1_000).await, ["t"]);
    assert_eq!(listed(1, 1_000).await, [""; 0]);
    assert_eq!(listed(1, 200_000).await, ["t"]);
}

/// Region 1 took the session over while region 0 went on with it, and may have told nobody but region 0.
#[tokio::test(start_paused = true)]
async fn what_was_accepted_behind_a_home_that_is_gone_is_brought_by_the_region_that_accepted_it() {
    let two = Two::new();
    for region in &two.regions {
        region.beat(at(0)).await.expect("a beat");
    }
    two.with_late_turn("s", 1).await;
    two.tables.set_lost(1, true);
    let (session, late) = (SessionKey::new("s"), TurnId::new("s late"));
    let home =
        async || two.regions[0].home(&tenant(), &session).await.expect("an answer").expect("a session");
    let look = async |now| two.regions[0].reconcile(at(now), 64).await.expect("a look");
    let seen = async || two.stores[0].sessions.turn(&tenant(), &late).await.expect("an answer");

    assert_eq!(look(150_000).await, []);
    assert_eq!((home().await.region, seen().await), (name(1), None));
    assert_eq!(look(150_001).await, [ended("s")]);
    assert_eq!(home().await.region, name(0));
    assert_eq!(seen().await.and_then(|turn| turn.outcome), Some(done("d")));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_moved_away_and_left_nothing_behind_stays_there_and_is_watched_no_longer() {
    let two = Two::new();
    for region in &two.regions {
        region.beat(at(0)).await.expect("a beat");
    }
    run(&two.stores[0], &new_turn("t", "s"), 0).await;
    two.replicate().await;
    two.take_over("s", 1_000).await;
    two.replicate().await;
    let watched = Key { partition: format!("W#{}", name(0)), sort: "S#main#s".to_owned() };
    let session = SessionKey::new("s");
    for (now, is_watched) in [(901_000, true), (901_001, false)] {
        assert_eq!(two.regions[0].reconcile(at(now), 64).await.expect("a look"), []);
        let entry = two.core(0).get(&watched).await.expect("an answer");
        assert_eq!(entry.is_some(), is_watched, "{now}");
    }
    let home = two.regions[0].home(&tenant(), &session).await.expect("an answer").expect("a session");
    assert_eq!(home.region, name(1));
}

/// Both regions made the session. What says that it is at home in region 0 has arrived in region 1, its transcript has not.
/// The next epoch was counted from region 0's alone, and was the one under which region 1 had made the session: the
/// take-over was refused for ever.
#[tokio::test(start_paused = true)]
async fn a_session_whose_home_told_nothing_but_that_it_is_is_taken_over_under_an_epoch_of_its_own() {
    let two = Two::new();
    two.tables.set_cut(0, 1, true);
    run(&two.stores[1], &new_turn("one", "s"), 0).await;
    run(&two.stores[0], &new_turn("other", "s"), 0).await;
    let meta = Key { partition: "S#main#s".to_owned(), sort: "H".to_owned() };
    let item = two.core(0).get(&meta).await.expect("an answer").expect("a session");
    two.core(1).write(vec![Write::Put(item, Condition::Always)]).await.expect("a write");
    two.take_over("s", 1_000).await;
    let home = two.regions[1].home(&tenant(), &SessionKey::new("s")).await.expect("an answer");
    assert_eq!(home.map(|home| home.epoch), Some(17));
}

/// What the index of sessions at work names in a region.
async fn at_work(table: &RegionTable) -> Vec<Item> {
    let mut found = Vec::new();
    for shard in 0..4 {
        let query = Query {
            index: Some(DUE),
            partition: format!("HELD#{shard}"),
            from: "0".to_owned(),
            to: "g".to_owned(),
            newest_first: false,
            limit: 100,
        };
        found.extend(table.query(&query).await.expect("an answer"));
    }
    found
}

#[tokio::test(start_paused = true)]
async fn a_session_that_moved_is_at_work_nowhere_once_it_is_looked_after_no_longer() {
    let two = Two::new();
    let new = new_turn("t", "s");
    start(&two.stores[0], &new, 0, 100).await;
    two.replicate().await;
    two.take_over("s", 1_000).await;
    let begun = two.stores[1].sessions.begin(&new, at(1_000), at(2_000)).await.expect("a verdict");
    let Begun::Resumed { lease, .. } = begun else { panic!("{begun:?}") };
    two.stores[1].sessions.commit(&lease, &says("d"), &done("d"), at(1_000)).await.expect("a commit");
    assert_eq!(two.reconciled(1_000, 64).await, []);
    assert_eq!(at_work(&two.core(1)).await.len(), 1);
    assert_eq!(two.reconciled(1_000_000, 64).await, []);
    two.replicate().await;
    assert_eq!(at_work(&two.core(0)).await, []);
    assert_eq!(two.tables.differences(), [""; 0]);
}

/// What the random histories ask of the tables when a region is lost.
#[tokio::test(start_paused = true)]
async fn a_turn_has_begun_where_it_was_accepted_and_only_arrived_elsewhere() {
    let two = Two::new();
    let begun = |turn| [0, 1].map(|region| has_begun(&two.tables, region, turn));
    let new = new_turn("t", "s");
    let lease = start(&two.stores[0], &new, 0, 100).await;
    two.stores[0].sessions.append(&lease, &says("a"), at(10), at(100)).await.expect("a lease");
    assert_eq!(begun("t"), [true, false]);
    two.replicate().await;
    assert_eq!(two.tables.items(1, "M#").len(), 2, "its steps have arrived");
    assert_eq!(begun("t"), [true, false]);
    two.take_over("s", 1_000).await;
    let resumed = two.stores[1].sessions.begin(&new, at(1_000), at(2_000)).await.expect("a verdict");
    let Begun::Resumed { lease, .. } = resumed else { panic!("{resumed:?}") };
    two.stores[1].sessions.commit(&lease, &says("d"), &done("d"), at(1_000)).await.expect("a commit");
    assert_eq!(begun("t"), [true, false], "it went on there");
    run(&two.stores[1], &new_turn("next", "s"), 1_000).await;
    two.replicate().await;
    assert_eq!(begun("next"), [false, true]);
}

/// Regions whose look never ends.
struct Stuck(Arc<dyn Regions>);

#[async_trait]
impl Regions for Stuck {
    async fn home(&self, tenant: &TenantId, session: &SessionKey) -> Result<Option<Home>, StoreError> {
        self.0.home(tenant, session).await
    }

    async fn take_over(
        &self,
        tenant: &TenantId,
        session: &SessionKey,
        from: &Home,
        now: Timestamp,
    ) -> Result<Home, StoreError> {
        self.0.take_over(tenant, session, from, now).await
    }

    async fn states(&self, now: Timestamp) -> Result<Vec<RegionState>, StoreError> {
        self.0.states(now).await
    }

    async fn set_in_service(
        &self,
        region: &RegionId,
        in_service: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.0.set_in_service(region, in_service, now).await
    }

    async fn beat(&self, now: Timestamp) -> Result<(), StoreError> {
        self.0.beat(now).await
    }

    async fn reconcile(&self, _: Timestamp, _: usize) -> Result<Vec<Reconciled>, StoreError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_turn_does_not_wait_for_the_look_at_late_ones() {
    let world = World::start(&Arc::new(Stage::default()), &Arc::new(Dice::new(1))).await;
    let app = world.at(0).app;
    let new = NewTurn { agent: AgentId::new("main"), ..new_turn("t", "s") };
    start(&app.stores, &new, 0, 100).await;
    let regions = app.regions.clone().expect("several regions");
    let app = App { regions: Some(Arc::new(Stuck(regions))), ..app };
    let look = tokio::time::timeout(Duration::from_secs(60), sweep::once(&app, &world.work)).await;
    assert!(look.is_err());
    let turn = app.stores.sessions.turn(&tenant(), &TurnId::new("t")).await.expect("a turn");
    assert!(turn.is_some_and(|turn| turn.outcome.is_some()));
}
