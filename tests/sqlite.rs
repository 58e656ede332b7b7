//! What SQLite promises beyond the ports: durability, two processes on one directory, and careful files.

#![expect(clippy::expect_used, reason = "a case that cannot be set up fails")]

use harness::stores::{
    answer_key, at, audit, delete, done, failed, keyed_turn, new_job, new_turn, open_sqlite, reset, run,
    says, start, stores_of, tenant,
};
use rusqlite::Connection;
use shared::adapters::onprem::{OpenError, Sqlite};
use shared::answer::{Answer, Claim};
use shared::app::Stores;
use shared::audit::AuditFilter;
use shared::error::{ErrorKind, StoreError};
use shared::id::{PrincipalId, SessionKey, TurnId};
use shared::job::{Apart, Backlog, JobFilter, Outcome, Work};
use shared::limit::{Decision, Limit};
use shared::message::{Message, MessageBody};
use shared::readiness::{Readiness, Unready};
use shared::session::{Begun, Lease, NewTurn, Session, SessionFilter, Step, Turn, Window};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory for data")
}

/// The main database, as an operator's tool would open it.
fn raw(directory: &Path) -> Connection {
    Connection::open(directory.join("reef.sqlite")).expect("the database")
}

async fn transcript(stores: &Stores, session: &str) -> Vec<Message> {
    let key = SessionKey::new(session);
    stores.sessions.transcript(&tenant(), &key, Window::newest(usize::MAX)).await.expect("a transcript")
}

async fn head(stores: &Stores, session: &str) -> Session {
    stores.sessions.load(&tenant(), &SessionKey::new(session)).await.expect("a head").expect("a session")
}

async fn turn(stores: &Stores, id: &str) -> Turn {
    stores.sessions.turn(&tenant(), &TurnId::new(id)).await.expect("a turn").expect("a known turn")
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let data = directory();
    let stores = open_sqlite(data.path());
    run(&stores, &keyed_turn("t1", "s", "k1"), 10).await;
    let held = start(&stores, &keyed_turn("t2", "s", "k2"), 20, 100).await;
    let held = stores.sessions.append(&held, &says("a step"), at(30), at(110)).await.expect("an append");
    let key = answer_key("k3", "f");
    let answer = Answer { status: 200, content_type: "text/plain".to_owned(), body: "hi".to_owned() };
    stores.answers.claim(&key, at(40), at(100)).await.expect("a claim");
    stores.answers.store(&key, &answer, at(50)).await.expect("a stored answer");
    let limit = Limit { per_second: 0.01, burst: 0 };
    assert_eq!(stores.limits.take("subject", limit, at(1_000)).await.expect("a decision"), Decision::Allowed);
    let before = (head(&stores, "s").await, transcript(&stores, "s").await, turn(&stores, "t1").await);
    drop(stores);

    let stores = open_sqlite(data.path());
    let after = (head(&stores, "s").await, transcript(&stores, "s").await, turn(&stores, "t1").await);
    assert_eq!(after, before);
    let replayed =
        stores.sessions.begin(&keyed_turn("t3", "s", "k1"), at(60), at(200)).await.expect("a verdict");
    assert_eq!(replayed, Begun::Replayed(Box::new(before.2)));
    let resumed =
        stores.sessions.begin(&keyed_turn("t4", "s", "k2"), at(200), at(300)).await.expect("a verdict");
    let lease = Lease { fence: held.fence + 1, until: at(300), ..held };
    let steps = before.1[3..].to_vec();
    assert_eq!(resumed, Begun::Resumed { lease, steps, tries: 1 });
    let claim = stores.answers.claim(&key, at(60), at(100)).await.expect("a verdict");
    assert_eq!(claim, Claim::Answered(answer));
    let decision = stores.limits.take("subject", limit, at(1_000)).await.expect("a decision");
    assert!(matches!(decision, Decision::Denied { .. }), "{decision:?}");
}

#[tokio::test]
async fn a_closed_store_has_finished_its_writes_and_takes_no_more() {
    let data = directory();
    let sqlite = Arc::new(Sqlite::open(data.path()).expect("a data directory"));
    let stores = stores_of(&sqlite);
    let new = new_turn("t1", "s");
    let (begun, closed) = tokio::join!(stores.sessions.begin(&new, at(10), at(100)), sqlite.close());
    closed.expect("a close");
    assert!(matches!(begun, Ok(Begun::Started(_))), "{begun:?}");
    let log = std::fs::metadata(data.path().join("reef.sqlite-wal")).map_or(0, |file| file.len());
    assert_eq!(log, 0, "everything is in the database itself");
    let late = stores.sessions.begin(&new_turn("t2", "other"), at(10), at(100)).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
    let again = sqlite.close().await;
    assert!(matches!(again, Err(StoreError::Unavailable(_))), "{again:?}");
    let reopened = open_sqlite(data.path());
    assert_eq!(head(&reopened, "s").await.seq, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_write_does_not_harm_the_others_of_its_batch() {
    let data = directory();
    let stores = open_sqlite(data.path());
    run(&stores, &new_turn("t0", "taken"), 10).await;
    let taken = head(&stores, "taken").await.id;
    let mut tasks = JoinSet::new();
    for number in 0..64 {
        let stores = stores.clone();
        let mut new = keyed_turn(&format!("t1-{number}"), &format!("s{number}"), &format!("k{number}"));
        if number % 8 == 3 {
            // The database itself refuses a second session with this transcript, after some rows are written.
            new.new_session_id = taken.clone();
        }
        tasks.spawn(async move { (number, stores.sessions.begin(&new, at(20), at(100)).await) });
    }
    for (number, begun) in tasks.join_all().await {
        if number % 8 == 3 {
            assert!(matches!(begun, Err(StoreError::Broken(_))), "{number}: {begun:?}");
        } else {
            assert!(matches!(begun, Ok(Begun::Started(_))), "{number}: {begun:?}");
            assert_eq!(transcript(&stores, &format!("s{number}")).await.len(), 1);
        }
    }
    let all = SessionFilter { limit: 1_000, ..SessionFilter::default() };
    assert_eq!(stores.index.list(&tenant(), &all).await.expect("a listing").len(), 1 + 56);
    assert_eq!(transcript(&stores, "taken").await.len(), 2);
    let verdict = stores.audit.verify(&tenant()).await.expect("a verdict");
    assert_eq!((verdict.rows, verdict.broken), (1 + 56, Vec::new()));
    let unused = stores.sessions.turn(&tenant(), &TurnId::new("t1-3")).await.expect("an answer");
    assert_eq!(unused, None);
}

/// Begins the turn, waiting for its session by asking again, as two gateways would; ends it with a reply.
async fn run_contended(stores: &Stores, new: &NewTurn) {
    loop {
        match stores.sessions.begin(new, at(10), at(1_000_000)).await.expect("a verdict") {
            Begun::Started(lease) => {
                let lease = stores
                    .sessions
                    .append(&lease, &says("a step"), at(11), at(1_000_000))
                    .await
                    .expect("an append");
                let reply = format!("reply to {}", new.turn);
                stores.sessions.commit(&lease, &says(&reply), &done(&reply), at(12)).await.expect("a commit");
                return;
            }
            Begun::Busy { .. } => tokio::task::yield_now().await,
            other => unreachable!("nobody was interrupted: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_on_one_directory_write_between_each_other() {
    const TURNS: usize = 120;
    const SESSIONS: usize = 8;
    let data = directory();
    let gateways = [open_sqlite(data.path()), open_sqlite(data.path())];
    let mut tasks = JoinSet::new();
    for number in 0..TURNS {
        let stores = gateways[number % 2].clone();
        let (id, session) = (format!("t{number}"), format!("s{}", number % SESSIONS));
        tasks.spawn(async move { run_contended(&stores, &keyed_turn(&id, &session, &id)).await });
    }
    tasks.join_all().await;
    for session in 0..SESSIONS {
        let session = format!("s{session}");
        let messages = transcript(&gateways[0], &session).await;
        assert_eq!(transcript(&gateways[1], &session).await, messages);
        assert_eq!(messages.len(), 3 * TURNS / SESSIONS);
        for (position, of_turn) in messages.chunks(3).enumerate() {
            let id = of_turn[0].turn.as_str();
            let texts: Vec<String> = of_turn.iter().map(|message| message.body.text()).collect();
            assert_eq!(texts, [format!("hello from {id}"), "a step".to_owned(), format!("reply to {id}")]);
            let seqs: Vec<usize> =
                of_turn.iter().map(|message| usize::try_from(message.seq).expect("a small number")).collect();
            assert_eq!(seqs, [position * 3 + 1, position * 3 + 2, position * 3 + 3]);
        }
    }
    let verdict = gateways[1].audit.verify(&tenant()).await.expect("a verdict");
    assert_eq!((verdict.rows, verdict.broken), (TURNS as u64, Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_count_one_allowance() {
    let data = directory();
    let gateways = [open_sqlite(data.path()), open_sqlite(data.path())];
    let limit = Limit { per_second: 1.0, burst: 29 };
    let mut tasks = JoinSet::new();
    for number in 0..80 {
        let stores = gateways[number % 2].clone();
        tasks
            .spawn(async move { stores.limits.take("subject", limit, at(1_000)).await.expect("a decision") });
    }
    let decisions = tasks.join_all().await;
    assert_eq!(decisions.iter().filter(|decision| **decision == Decision::Allowed).count(), 30);
}

#[tokio::test]
async fn a_lease_taken_over_by_another_process_is_fenced() {
    let data = directory();
    let (first, second) = (open_sqlite(data.path()), open_sqlite(data.path()));
    let new = keyed_turn("t1", "s", "k");
    let old = start(&first, &new, 10, 100).await;
    let resumed = second.sessions.begin(&new, at(100), at(200)).await.expect("a verdict");
    assert!(matches!(resumed, Begun::Resumed { .. }), "{resumed:?}");
    let late = first.sessions.commit(&old, &says("late"), &done("late"), at(110)).await;
    assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
    assert_eq!(transcript(&first, "s").await.len(), 1);
}

#[test]
fn many_processes_may_make_a_directory_at_once() {
    let data = directory();
    let fresh = data.path().join("a/b/c");
    std::thread::scope(|scope| {
        let open = || Sqlite::open(&fresh).map(drop);
        let opened: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        for thread in opened {
            thread.join().expect("no panic").expect("a data directory that opens");
        }
    });
    let versions: u32 = Connection::open(fresh.join("reef.sqlite"))
        .and_then(|database| database.query_row("SELECT COUNT(*) FROM schema_versions", [], |row| row.get(0)))
        .expect("a count");
    assert_eq!(versions, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_the_first_release_is_brought_up_with_what_it_holds() {
    let data = directory();
    let stores = open_sqlite(data.path());
    let new = new_turn("t1", "s");
    start(&stores, &new, 10, 100).await;
    run(&stores, &keyed_turn("t2", "other", "k"), 5_000).await;
    let [claimed, other] = ["claimed", "claimed, too"].map(|key| answer_key(key, "f"));
    for key in [&claimed, &other] {
        stores.answers.claim(key, at(5_000), at(6_000)).await.expect("a claim");
    }
    for id in ["done", "pending"] {
        stores.jobs.enqueue(&new_job(id, "hi"), Duration::ZERO, at(10)).await.expect("an answer");
    }
    let delivery =
        stores.jobs.receive(1, at(20), at(7_000), &Apart::default()).await.expect("a delivery").remove(0);
    stores.jobs.settle(&delivery.receipt, &Outcome::Done, at(30)).await.expect("a settlement");
    drop(stores);
    let back = "DROP INDEX jobs_by_lane; DROP INDEX jobs_by_set; DROP INDEX jobs_dead;
        ALTER TABLE jobs DROP COLUMN lane; ALTER TABLE jobs DROP COLUMN set_at;
        DROP INDEX sessions_by_user; DROP INDEX jobs_by_session; ALTER TABLE jobs DROP COLUMN session_key;
        ALTER TABLE jobs DROP COLUMN delivered; DROP INDEX jobs_by_expiry; ALTER TABLE jobs DROP COLUMN expires_at;
        DROP INDEX idempotency_by_expiry; ALTER TABLE idempotency DROP COLUMN expires_at;
        ALTER TABLE sessions DROP COLUMN tries; DELETE FROM schema_versions WHERE number > 1";
    raw(data.path()).execute_batch(back).expect("the schema of the first release");

    let stores = open_sqlite(data.path());
    let begun = stores.sessions.begin(&new, at(200), at(300)).await.expect("a verdict");
    assert!(matches!(begun, Begun::Resumed { tries: 1, .. }), "{begun:?}");
    // What was kept for ever has an end now: so long after a turn was accepted, a claim ran out, or the last delivery of
    // a job did.
    let days = |days: i64| days * 24 * 60 * 60 * 1_000;
    let keyed = keyed_turn("t3", "other", "k");
    let [before, after] = [days(30) + 4_999, days(30) + 5_000].map(at);
    let begun = stores.sessions.begin(&keyed, before, at(days(31))).await.expect("a verdict");
    assert!(matches!(begun, Begun::Replayed(_)), "{begun:?}");
    let begun = stores.sessions.begin(&keyed, after, at(days(31))).await.expect("a verdict");
    assert!(matches!(begun, Begun::Started(_)), "{begun:?}");
    for (key, now, expected) in
        [(&other, days(30) + 5_999, Claim::Abandoned), (&claimed, days(30) + 6_000, Claim::Claimed)]
    {
        let claim = stores.answers.claim(key, at(now), at(days(31))).await.expect("a verdict");
        assert_eq!(claim, expected, "{now}");
    }
    // Of a job from before nobody knows whose it is without reading it: it is left aside for nobody.
    let alice = Apart { principals: [PrincipalId::new("alice")].into(), ..Apart::default() };
    let delivered = stores.jobs.receive(9, at(7_000), at(7_100), &alice).await.expect("deliveries");
    assert_eq!(delivered.len(), 1);
    let all = JobFilter { limit: 10, ..JobFilter::default() };
    for (now, kept) in [(days(14) + 6_999, 2), (days(14) + 7_000, 1)] {
        assert_eq!(stores.jobs.list(&tenant(), &all, at(now)).await.expect("a listing").len(), kept);
    }
    stores.jobs.settle(&delivered[0].receipt, &Outcome::Done, at(7_050)).await.expect("a settlement");
    // Jobs of that time are known to be for their session.
    let lease = match stores.sessions.begin(&new, at(400), at(500)).await.expect("a verdict") {
        Begun::Resumed { lease, .. } => lease,
        other => panic!("{other:?}"),
    };
    let ended = stores.sessions.commit(&lease, &says("done"), &done("done"), at(450)).await;
    ended.expect("a commit");
    delete(&stores, "s").await;
    assert_eq!(stores.jobs.list(&tenant(), &all, at(0)).await.expect("a listing"), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_jobs_are_left_aside_they_hide_no_other() {
    let data = directory();
    let stores = open_sqlite(data.path());
    let flood = "INSERT INTO jobs (tenant, id, work, lane, state, attempts, token, created_at, visible_at)
        WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 20000)
        SELECT 'main', 'flood ' || n, 'of no use', '[\"mail\",\"mallory\"]', 'pending', 0, 0, 1, 1 FROM numbers";
    raw(data.path()).execute_batch(flood).expect("a flood");
    stores.jobs.enqueue(&new_job("mine", "hi"), Duration::ZERO, at(10)).await.expect("an answer");
    let mallory = Apart { principals: [PrincipalId::new("mallory")].into(), ..Apart::default() };
    let delivered = stores.jobs.receive(9, at(20), at(100), &mallory).await.expect("deliveries");
    assert_eq!(delivered.iter().map(|delivery| delivery.receipt.job.as_str()).collect::<Vec<_>>(), ["mine"]);
    let counted = Backlog { due: 10_000, hidden: 1, dead: 0, oldest_due: Some(at(1)) };
    assert_eq!(stores.jobs.backlog(at(20)).await.expect("a backlog"), Some(counted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forgotten_is_cleared_away_by_what_comes_after_it() {
    let data = directory();
    let stores = open_sqlite(data.path());
    let run_job = async |id: String, now: i64| {
        stores.jobs.enqueue(&new_job(&id, "hi"), Duration::ZERO, at(now)).await.expect("an answer");
        let delivery = stores
            .jobs
            .receive(1, at(now), at(now + 90), &Apart::default())
            .await
            .expect("a delivery")
            .remove(0);
        stores.jobs.settle(&delivery.receipt, &Outcome::Done, at(now)).await.expect("a settlement");
    };
    let claim = async |key: String, now: i64| {
        stores.answers.claim(&answer_key(&key, "f"), at(now), at(now + 90)).await.expect("a verdict");
    };
    let rows = |table: &str| -> i64 {
        let count = format!("SELECT COUNT(*) FROM {table}");
        raw(data.path()).query_row(&count, [], |row| row.get(0)).expect("a count")
    };
    for number in 0..20 {
        run_job(format!("old {number}"), 10).await;
        claim(format!("old {number}"), 10).await;
    }
    run(&stores, &keyed_turn("t", "s", "turn's"), 10).await;
    assert_eq!((rows("jobs"), rows("idempotency")), (20, 21));
    let later = 31 * 24 * 60 * 60 * 1_000;
    for number in 0..3 {
        run_job(format!("new {number}"), later).await;
        claim(format!("new {number}"), later).await;
    }
    assert_eq!((rows("jobs"), rows("idempotency")), (3, 3));
    assert_eq!(rows("turns"), 1, "a turn goes with its session only");
}

#[test]
fn a_database_of_a_newer_release_is_refused_and_left_alone() {
    let data = directory();
    drop(Sqlite::open(data.path()).expect("a data directory"));
    raw(data.path()).execute("INSERT INTO schema_versions (number) VALUES (99)", []).expect("an insertion");
    let refused = Sqlite::open(data.path()).map(drop);
    assert!(matches!(refused, Err(OpenError::TooNew { found: 99, known: 5, .. })), "{refused:?}");
    let message = refused.expect_err("refused").to_string();
    assert!(message.ends_with(
        "has schema version 99, but this program knows only up to 5: start the release that wrote it, or a newer one"
    ));
    // Nothing was left behind that keeps the newer release from writing.
    raw(data.path()).execute("DELETE FROM schema_versions WHERE number = 99", []).expect("a deletion");
    Sqlite::open(data.path()).map(drop).expect("a data directory");
}

#[test]
fn a_file_that_is_no_database_is_named_and_left_alone() {
    let data = directory();
    let path = data.path().join("reef.sqlite");
    std::fs::write(&path, "not a database, but somebody's letter".repeat(100)).expect("a file");
    let refused = Sqlite::open(data.path()).map(drop);
    assert!(
        matches!(&refused, Err(OpenError::Database { path: named, .. }) if *named == path),
        "{refused:?}"
    );
    assert!(std::fs::read_to_string(&path).expect("the file").starts_with("not a database"));
}

#[tokio::test]
async fn spoilt_rate_limits_are_counted_anew() {
    let data = directory();
    std::fs::write(data.path().join("limits.sqlite"), "spoilt".repeat(1_000)).expect("a file");
    let stores = open_sqlite(data.path());
    let limit = Limit { per_second: 1.0, burst: 0 };
    assert_eq!(stores.limits.take("subject", limit, at(1_000)).await.expect("a decision"), Decision::Allowed);
    let denied = stores.limits.take("subject", limit, at(1_000)).await.expect("a decision");
    assert!(matches!(denied, Decision::Denied { .. }), "{denied:?}");
}

#[tokio::test]
async fn idle_subjects_are_forgotten() {
    let data = directory();
    let stores = open_sqlite(data.path());
    let limit = Limit { per_second: 1_000.0, burst: 0 };
    for number in 0..9_000_i64 {
        stores.limits.take(&format!("subject {number}"), limit, at(number)).await.expect("a decision");
    }
    let rows: i64 = Connection::open(data.path().join("limits.sqlite"))
        .and_then(|database| database.query_row("SELECT COUNT(*) FROM limits", [], |row| row.get(0)))
        .expect("a count");
    assert!(rows <= 4_097, "{rows} rows");
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_may_read_the_data() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    let data = directory();
    let fresh = data.path().join("reef");
    let stores = open_sqlite(&fresh);
    run(&stores, &new_turn("t", "s"), 10).await;
    assert_eq!(mode(&fresh), 0o700);
    let mut files = Vec::new();
    for file in std::fs::read_dir(&fresh).expect("a directory") {
        let path = file.expect("a file").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        files.push(path);
    }
    assert_eq!(files.len(), 6, "two databases with their logs and indexes: {files:?}");
}

/// Five rows of one chain, `1` to `5`.
async fn chain(stores: &Stores) {
    let lease = start(stores, &NewTurn { audit: audit("1", 10, "a"), ..new_turn("t", "s") }, 10, 100).await;
    let rows = ["2", "3", "4"].map(|id| audit(id, 20, "b")).to_vec();
    let step = Step { messages: Vec::new(), audit: rows };
    let lease = stores.sessions.append(&lease, &step, at(20), at(100)).await.expect("an append");
    let last = Step { messages: Vec::new(), audit: vec![audit("5", 30, "c")] };
    stores.sessions.commit(&lease, &last, &failed(ErrorKind::Internal), at(30)).await.expect("a commit");
}

#[tokio::test]
async fn a_changed_or_missing_audit_row_is_found() {
    let cases: [(&str, &[&str]); 7] = [
        ("UPDATE audit SET action = 'z' WHERE id = '3'", &["3", "4"]),
        ("UPDATE audit SET detail = '{\"row\":\"4\"}' WHERE id = '3'", &["3", "4"]),
        ("UPDATE audit SET detail = 'no JSON' WHERE id = '5'", &["5"]),
        ("UPDATE audit SET hash = 'z' WHERE id = '2'", &["2"]),
        ("UPDATE audit SET previous = 'z' WHERE id = '4'", &["4", "5"]),
        ("UPDATE audit SET principal = 'mallory', session_id = session_id WHERE id = '1'", &["1", "2"]),
        ("DELETE FROM audit WHERE id = '3'", &["4"]),
    ];
    for (tampering, broken) in cases {
        let data = directory();
        let stores = open_sqlite(data.path());
        chain(&stores).await;
        assert_eq!(raw(data.path()).execute(tampering, []).expect("a change"), 1);
        let verdict = stores.audit.verify(&tenant()).await.expect("a verdict");
        assert_eq!(verdict.broken, broken, "{tampering}");
        // The other rows can still be read.
        let all = AuditFilter { limit: 10, ..AuditFilter::default() };
        assert!(stores.audit.list(&tenant(), &all).await.expect("the audit trail").len() >= 4);
    }
}

#[tokio::test]
async fn a_long_trail_is_verified_and_pruned_in_pieces() {
    let data = directory();
    let stores = open_sqlite(data.path());
    let mut lease = start(&stores, &new_turn("t", "s"), 10, 100).await;
    for part in 0..5_i64 {
        let rows = (0..500).map(|number| audit(&format!("{part}-{number}"), part, "a")).collect();
        let step = Step { messages: Vec::new(), audit: rows };
        lease = stores.sessions.append(&lease, &step, at(20), at(100)).await.expect("an append");
    }
    run(&stores, &new_turn("t2", "s2"), 10).await;
    let verdict = stores.audit.verify(&tenant()).await.expect("a verdict");
    assert_eq!((verdict.rows, verdict.broken), (2_502, Vec::new()));
    // The first row of each chain is from time 0.
    assert_eq!(stores.audit.prune(&tenant(), at(4)).await.expect("a count"), 2_002);
    let verdict = stores.audit.verify(&tenant()).await.expect("a verdict");
    assert_eq!((verdict.rows, verdict.broken), (500, Vec::new()));
}

#[tokio::test]
async fn a_long_transcript_is_read_whole_and_deleted_whole() {
    let data = directory();
    let stores = open_sqlite(data.path());
    let lease = start(&stores, &new_turn("t", "s"), 10, 100).await;
    let many = Step { messages: vec![says("a step").messages.remove(0); 999], audit: Vec::new() };
    stores.sessions.commit(&lease, &many, &done("hi"), at(20)).await.expect("a commit");
    let messages = transcript(&stores, "s").await;
    assert_eq!(
        messages.iter().map(|message| message.seq).collect::<Vec<_>>(),
        (1..=1_000).collect::<Vec<_>>()
    );
    assert_eq!(reset(&stores, "s", "second", 30).await.seq, 0);
    delete(&stores, "s").await;
    let left: i64 =
        raw(data.path()).query_row("SELECT COUNT(*) FROM messages", [], |row| row.get(0)).expect("a count");
    assert_eq!(left, 0);
}

/// Every byte that a data folder holds.
fn bytes_of(directory: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(directory).expect("a folder").map(|entry| entry.expect("an entry").path());
    files.flat_map(|file| std::fs::read(file).expect("a file")).collect()
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

#[tokio::test]
async fn what_was_deleted_is_in_no_file_any_more() {
    let data = directory();
    let store = Arc::new(Sqlite::open(data.path()).expect("a data folder"));
    let stores = stores_of(&store);
    // A short one shares its page with others, a long one has pages of its own, which become free.
    for (turn, text) in [("t1", "ZEBRA-IN-A-MESSAGE".to_owned()), ("t2", "ZEBRA-IN-PAGES ".repeat(20_000))] {
        let new = NewTurn { input: vec![MessageBody::user_text(text)], ..keyed_turn(turn, "s", turn) };
        run(&stores, &new, 10).await;
    }
    run(&stores, &new_turn("t3", "other"), 10).await;
    let enqueued = stores.jobs.enqueue(&new_job("j1", "ZEBRA-IN-A-JOB"), Duration::ZERO, at(10)).await;
    assert!(enqueued.expect("an answer"));
    let mut done = new_job("j2", &"ZEBRA-IN-A-DONE-JOB ".repeat(20_000));
    let Work::Turn(request) = &mut done.work;
    request.session = SessionKey::new("other");
    assert!(stores.jobs.enqueue(&done, Duration::ZERO, at(5)).await.expect("an answer"));
    let delivered = stores.jobs.receive(1, at(20), at(100), &Apart::default()).await.expect("a delivery");
    assert!(holds(&bytes_of(data.path()), "ZEBRA"), "the texts would be found");
    stores.jobs.settle(&delivered[0].receipt, &Outcome::Done, at(30)).await.expect("a settlement");
    delete(&stores, "s").await;
    // Puts the log into the database.
    store.close().await.expect("a close");
    let bytes = bytes_of(data.path());
    assert!(holds(&bytes, "hello from t3"), "what was not deleted is there");
    assert!(!holds(&bytes, "ZEBRA"), "what was deleted is there still");
}

#[tokio::test]
async fn a_data_folder_that_was_taken_away_takes_no_turn_and_says_so() {
    let place = directory();
    let (data, aside) = (place.path().join("data"), place.path().join("aside"));
    let store = Arc::new(Sqlite::open(&data).expect("a data folder"));
    let stores = stores_of(&store);
    run(&stores, &new_turn("t1", "s"), 10).await;
    assert_eq!(store.unready().await, []);
    std::fs::rename(&data, &aside).expect("a folder taken away");
    let refused = stores.sessions.begin(&new_turn("t2", "s"), at(20), at(100)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    let unread = stores.sessions.load(&tenant(), &SessionKey::new("s")).await;
    assert!(matches!(unread, Err(StoreError::Unavailable(_))), "{unread:?}");
    let reasons =
        |unready: Vec<Unready>| unready.into_iter().map(|unready| unready.reason).collect::<Vec<_>>();
    assert_eq!(reasons(store.unready().await), ["folder"]);
    // Another one in its place is not ours either.
    drop(Sqlite::open(&data).expect("another data folder"));
    assert_eq!(reasons(store.unready().await), ["folder"]);
    std::fs::remove_dir_all(&data).expect("a removed folder");
    std::fs::rename(&aside, &data).expect("a folder put back");
    assert_eq!(reasons(store.unready().await), [""; 0]);
    run(&stores, &new_turn("t3", "other"), 30).await;
}
