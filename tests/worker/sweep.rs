//! The sweep: which interrupted turns are resumed beside each other, and which wait for what.

use async_trait::async_trait;
use harness::app::TestApp;
use harness::stores::{done, new_turn, says, start};
use shared::agent::{AgentInvoker, RunRequest, TurnStream};
use shared::app::Stores;
use shared::clock::{Clock, Timestamp};
use shared::error::{Error, ErrorKind};
use shared::id::{TenantId, TurnId};
use shared::session::{Begun, TurnOutcome};
use shared::worker::sweep;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How the resumption of a turn goes that does not just end.
#[derive(Clone, Copy)]
enum Goes {
    /// For as long as anybody looks.
    On,
    /// Its home is another region.
    Elsewhere,
    /// It cannot be read.
    InVain,
}

/// Resumes turns, and tells which it was asked for.
struct Resumer {
    named: BTreeMap<&'static str, Goes>,
    asked: UnboundedSender<String>,
    stores: OnceLock<Stores>,
    now: OnceLock<Timestamp>,
    at_work: AtomicUsize,
    most_at_work: AtomicUsize,
}

impl Resumer {
    async fn end(&self, turn: &TurnId) -> TurnOutcome {
        let (stores, now) = (self.stores.get().expect("stores"), *self.now.get().expect("a time"));
        let id = turn.as_str();
        let begun = stores.sessions.begin(&new_turn(id, id), now, now + Duration::from_secs(1)).await;
        let Ok(Begun::Resumed { lease, .. }) = begun else { panic!("{begun:?}") };
        stores.sessions.commit(&lease, &says("fine"), &done("fine"), now).await.expect("a commit");
        done("fine")
    }
}

#[async_trait]
impl AgentInvoker for Resumer {
    async fn invoke(&self, _: RunRequest) -> Result<TurnStream, Error> {
        Err(Error::not_found("no request is made here"))
    }

    async fn resume(&self, _: &TenantId, turn: &TurnId) -> Result<TurnOutcome, Error> {
        self.asked.send(turn.to_string()).expect("a listener");
        match self.named.get(turn.as_str()) {
            Some(Goes::On) => std::future::pending().await,
            Some(Goes::Elsewhere) => Err(Error::new(ErrorKind::Conflict, "it is at home elsewhere")),
            Some(Goes::InVain) => Err(Error::new(ErrorKind::Internal, "it cannot be read")),
            None => {
                let at_work = self.at_work.fetch_add(1, Ordering::Relaxed) + 1;
                self.most_at_work.fetch_max(at_work, Ordering::Relaxed);
                // Whoever else was set going begins, too.
                tokio::task::yield_now().await;
                let outcome = self.end(turn).await;
                self.at_work.fetch_sub(1, Ordering::Relaxed);
                Ok(outcome)
            }
        }
    }
}

struct Stage {
    app: TestApp,
    resumer: Arc<Resumer>,
    asked: UnboundedReceiver<String>,
}

impl Stage {
    fn new(named: &[(&'static str, Goes)]) -> Self {
        let (sender, asked) = unbounded_channel();
        let resumer = Arc::new(Resumer {
            named: named.iter().copied().collect(),
            asked: sender,
            stores: OnceLock::new(),
            now: OnceLock::new(),
            at_work: AtomicUsize::new(0),
            most_at_work: AtomicUsize::new(0),
        });
        let app = TestApp::with_agents(Arc::clone(&resumer) as Arc<_>);
        resumer.stores.get_or_init(|| app.app.stores.clone());
        let stage = Self { app, resumer, asked };
        stage.resumer.now.get_or_init(|| stage.app.clock.now());
        stage
    }

    /// A turn whose lease ends so many milliseconds from now, after it was resumed `tries` times.
    async fn interrupted(&self, id: &str, tries: u32, ends_in: i64) {
        let (stores, turn) = (&self.app.app.stores, new_turn(id, id));
        let now = self.app.clock.now().as_millis();
        start(stores, &turn, now, now + ends_in).await;
        for _ in 0..tries {
            let end = Timestamp::from_millis(now + ends_in);
            let begun = stores.sessions.begin(&turn, end, end).await;
            assert!(matches!(begun, Ok(Begun::Resumed { .. })), "{begun:?}");
        }
    }

    /// A server's sweep, and what stops it.
    fn server(&self) -> (JoinHandle<()>, CancellationToken) {
        let (work, stop) = (TaskTracker::new(), CancellationToken::new());
        (work.spawn(sweep::run(self.app.app.clone(), work.clone(), stop.clone())), stop)
    }

    /// One sweep of a function: which turns it resumed, and how many it says that it touched.
    async fn once(&mut self) -> (Vec<String>, usize) {
        let touched = sweep::once(&self.app.app, &TaskTracker::new()).await;
        let mut asked = Vec::new();
        while let Ok(turn) = self.asked.try_recv() {
            asked.push(turn);
        }
        (asked, touched)
    }
}

fn named(ids: &[&str]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_turn_that_was_resumed_in_vain_twice_is_resumed_with_none_beside_it() {
    let mut stage = Stage::new(&[]);
    for (id, tries) in [("poison", 2), ("taken-along", 2)] {
        stage.interrupted(id, tries, 0).await;
    }
    assert_eq!(stage.once().await, (named(&["poison", "taken-along"]), 2));
    assert_eq!(stage.resumer.most_at_work.load(Ordering::Relaxed), 1);
    for (id, tries) in [("poison 2", 2), ("first-time", 1), ("sound", 0)] {
        stage.interrupted(id, tries, 0).await;
    }
    assert_eq!(stage.once().await, (named(&["first-time", "sound", "poison 2"]), 3));
    assert_eq!(stage.once().await, (named(&[]), 0));
}

#[tokio::test]
async fn a_function_resumes_what_it_has_memory_for_at_once_and_then_looks_for_more() {
    let mut stage = Stage::new(&[]);
    for number in 0..40 {
        stage.interrupted(&format!("t{number}"), 0, 0).await;
    }
    let (asked, touched) = stage.once().await;
    assert_eq!((asked.len(), touched), (40, 40));
    assert_eq!(stage.resumer.most_at_work.load(Ordering::Relaxed), 16);
}

#[tokio::test]
async fn a_turn_of_another_region_is_not_counted_as_resumed() {
    let mut stage = Stage::new(&[("t", Goes::Elsewhere)]);
    stage.interrupted("t", 0, 0).await;
    assert_eq!(stage.once().await, (named(&["t"]), 0));
}

#[tokio::test]
async fn turns_that_cannot_be_resumed_keep_no_others_from_it() {
    let broken = [
        "b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "b9", "c0", "c1", "c2", "c3", "c4", "c5", "c6",
    ];
    let mut stage = Stage::new(&broken.map(|id| (id, Goes::InVain)));
    for id in broken {
        stage.interrupted(id, 0, 0).await;
    }
    stage.interrupted("sound", 0, 0).await;
    stage.interrupted("suspect", 2, 0).await;
    // Each is tried once: the first sixteen, then what is sound, then what may end the process.
    let expected = [broken.as_slice(), &["sound", "suspect"]].concat();
    assert_eq!(stage.once().await, (named(&expected), 2));
}

#[tokio::test(start_paused = true)]
async fn a_server_leaves_a_turn_alone_for_a_minute_that_it_could_not_resume() {
    let mut stage = Stage::new(&[("broken", Goes::InVain)]);
    stage.interrupted("broken", 0, 0).await;
    stage.interrupted("suspect", 2, 0).await;
    let began = tokio::time::Instant::now();
    let (looking, stop) = stage.server();
    let mut asked = Vec::new();
    for _ in 0..3 {
        let turn = stage.asked.recv().await.expect("a turn");
        asked.push((turn, began.elapsed().as_secs()));
    }
    let named = |turn: &str, after| (turn.to_owned(), after);
    assert_eq!(asked, [named("broken", 0), named("suspect", 1), named("broken", 61)]);
    stop.cancel();
    looking.await.expect("the end of the sweep");
}

#[tokio::test(start_paused = true)]
async fn on_a_server_no_interrupted_turn_waits_for_the_end_of_another_one() {
    let mut stage = Stage::new(&[("long", Goes::On)]);
    stage.interrupted("long", 0, 0).await;
    stage.interrupted("short", 0, 10_000).await;
    let (looking, stop) = stage.server();
    assert_eq!(stage.asked.recv().await.as_deref(), Some("long"));
    stage.app.clock.advance(Duration::from_secs(11));
    // The long one never takes its lease, so it is found and asked for again and again.
    let until_short = async { while stage.asked.recv().await.expect("a turn") != "short" {} };
    tokio::time::timeout(Duration::from_secs(10), until_short).await.expect("the other turn");
    stop.cancel();
    looking.await.expect("the end of the sweep");
}

#[tokio::test]
async fn a_turn_whose_process_died_before_the_clock_was_set_back_is_resumed_at_once() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let mut stage = Stage::new(&[]);
    stage.app.clock.advance(HOUR);
    stage.interrupted("t", 0, 90_000).await;
    assert_eq!(stage.once().await, (named(&[]), 0), "its lease runs");
    stage.app.clock.set_back(HOUR);
    assert_eq!(stage.once().await, (named(&["t"]), 1));
}
