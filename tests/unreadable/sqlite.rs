//! SQLite, damaged by SQL.

use super::{
    LATER, LEASE, an_unreadable_answer_is_said_to_be_one, an_unreadable_job_is_dead_by_its_name,
    an_unreadable_session_can_be_deleted, an_unreadable_session_can_be_reset_and_deleted,
    an_unreadable_turn_ends_and_its_session_goes_on, fill, others_go_on, too_deep,
    what_could_not_be_read_back_is_never_stored,
};
use harness::stores::{at, new_turn, run, start, stores_of, tenant};
use rusqlite::Connection;
use shared::adapters::onprem::Sqlite;
use shared::app::Stores;
use shared::id::{PrincipalId, SessionKey};
use shared::job::Apart;
use shared::limit::{Decision, Limit};
use shared::session::{SessionFilter, Window};
use std::collections::BTreeSet;
use std::sync::Arc;
use tempfile::TempDir;

/// A column of the rows that are to be damaged, and what is put there.
type Kind = (&'static str, &'static str, &'static str);

/// Jobs whose row cannot be read.
const JOBS: [Kind; 9] = [
    ("jobs", "work", "'DEEP'"),
    ("jobs", "work", "'no JSON'"),
    ("jobs", "work", "'[]'"),
    ("jobs", "work", "x'00ff'"),
    ("jobs", "work", "CAST(x'ff' AS TEXT)"),
    ("jobs", "attempts", "-5"),
    ("jobs", "attempts", "'many'"),
    ("jobs", "created_at", "1.5"),
    ("jobs", "reason", "x'00'"),
];

/// Interrupted turns of which not all can be read.
const TURNS: [Kind; 9] = [
    ("turns", "options", "'DEEP'"),
    ("turns", "options", "x'00'"),
    ("turns", "principal", "x'00'"),
    ("turns", "user_id", "CAST(x'ff' AS TEXT)"),
    ("turns", "accepted_at", "'then'"),
    ("turns", "input_through", "-1"),
    ("turns", "outcome", "'no JSON'"),
    ("messages", "content", "'no JSON'"),
    ("messages", "created_at", "x'00'"),
];

/// Sessions whose head cannot be read.
const HEADS: [Kind; 7] = [
    ("sessions", "seq", "-1"),
    ("sessions", "epoch", "'new'"),
    ("sessions", "id", "CAST(session_key AS BLOB)"),
    ("sessions", "summarised_through", "2.5"),
    ("sessions", "lease_until", "NULL"),
    ("sessions", "turn_id", "x'00'"),
    ("sessions", "lease_until", "'never'"),
];

/// What else there is.
const OTHERS: [Kind; 14] = [
    ("sessions", "channel", "x'00'"),
    ("jobs", "state", "'odd'"),
    ("jobs", "token", "'x'"),
    ("jobs", "visible_at", "'soon'"),
    ("sessions", "tries", "-1"),
    ("sessions", "audit_n", "'x'"),
    ("tokens", "scopes", "'no JSON'"),
    ("tokens", "created_at", "'x'"),
    ("idempotency", "answer", "'no JSON'"),
    ("idempotency", "fingerprint", "x'00'"),
    ("audit", "detail", "'no JSON'"),
    ("audit", "at", "x'00'"),
    ("audit", "principal", "x'0f'"),
    ("past_transcripts", "session_id", "x'00'"),
];

struct Lab {
    data: TempDir,
    sqlite: Arc<Sqlite>,
    stores: Stores,
}

impl Lab {
    async fn filled() -> Self {
        let data = tempfile::tempdir().expect("a directory for data");
        let sqlite = Arc::new(Sqlite::open(data.path()).expect("a data directory"));
        let lab = Self { data, stores: stores_of(&sqlite), sqlite };
        fill(&lab.stores).await;
        lab
    }

    fn raw(&self) -> Connection {
        Connection::open(self.data.path().join("reef.sqlite")).expect("the database")
    }

    /// Puts `value` into a column of every row that is to be damaged.
    fn damage(&self, (table, column, value): Kind) {
        let rows = match table {
            "messages" => "session_id LIKE '%bad%' AND seq = 2",
            "tokens" => "id LIKE 'bad%'",
            "jobs" => "id LIKE 'bad%'",
            "idempotency" => "idempotency_key LIKE 'bad%'",
            "turns" => "id LIKE 'bad%'",
            _ => "session_key LIKE 'bad%'",
        };
        let value = value.replace("DEEP", &too_deep());
        let update = format!("UPDATE {table} SET {column} = {value} WHERE {rows}");
        self.raw().execute(&update, []).expect("a damaged row");
    }

    fn seen(&self) -> BTreeSet<&'static str> {
        self.sqlite.sightings().rows().into_iter().map(|row| row.table).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kind_of_unreadable_row_harms_anybody_else() {
    let kinds = [&JOBS[..], &TURNS, &HEADS, &OTHERS].concat();
    assert!(kinds.len() >= 20);
    for kind in kinds {
        let lab = Lab::filled().await;
        lab.damage(kind);
        others_go_on(&lab.stores, &format!("{kind:?}")).await;
    }
}

#[tokio::test]
async fn a_job_whose_very_name_cannot_be_read_hides_no_other() {
    let mallory = Apart { principals: [PrincipalId::new("mallory")].into(), ..Apart::default() };
    for (column, value) in [("id", "x'fffe'"), ("id", "CAST(x'fffe' AS TEXT)"), ("tenant", "x'ff'")] {
        for apart in [&Apart::default(), &mallory] {
            let lab = Lab::filled().await;
            lab.raw()
                .execute("UPDATE jobs SET visible_at = 1 WHERE id LIKE 'bad%'", [])
                .expect("the first one");
            lab.damage(("jobs", column, value));
            // One at a time, as the worker takes them.
            let delivered =
                lab.stores.jobs.receive(1, at(LATER), at(LATER + 90), apart).await.expect("a delivery");
            assert_eq!(delivered.len(), 1, "{column} = {value}, {apart:?}");
            assert_eq!(lab.seen(), BTreeSet::from(["jobs"]), "{column} = {value}");
        }
    }
}

#[tokio::test]
async fn an_unreadable_job_is_dead_and_told_of() {
    // What its end writes anew can be read again.
    for kind in JOBS.into_iter().filter(|kind| ["work", "created_at"].contains(&kind.1)) {
        let lab = Lab::filled().await;
        lab.damage(kind);
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
        lab.damage(kind);
        let shown = format!("{kind:?}");
        an_unreadable_turn_ends_and_its_session_goes_on(&lab.stores, &shown).await;
        assert!(lab.seen().contains(kind.0), "{shown}: {:?}", lab.seen());
    }
}

#[tokio::test]
async fn a_turn_whose_row_is_gone_ends_as_failed() {
    let lab = Lab::filled().await;
    lab.raw().execute("DELETE FROM turns WHERE id = 'bad-held-t'", []).expect("a row less");
    lab.raw().execute("DELETE FROM idempotency WHERE turn_id = 'bad-held-t'", []).expect("a row less");
    let again = new_turn("bad-held-t", "bad-held");
    let begun = lab.stores.sessions.begin(&again, at(LATER), at(LATER + 90)).await.expect("a verdict");
    let shared::session::Begun::Unreadable(lease) = begun else { panic!("{begun:?}") };
    let failed = harness::stores::failed(shared::error::ErrorKind::NotFound);
    lab.stores
        .sessions
        .commit(&lease, &harness::stores::says("no"), &failed, at(LATER))
        .await
        .expect("an end");
    run(&lab.stores, &new_turn("next", "bad-held"), LATER).await;
}

#[tokio::test]
async fn a_session_whose_head_cannot_be_read_can_be_reset_and_deleted() {
    for kind in HEADS {
        let shown = format!("{kind:?}");
        for session in ["bad-idle", "bad-held"] {
            // Of an idle one both are absent.
            let held_only = kind.1 == "lease_until" && kind.2 == "NULL";
            if session == "bad-idle" && held_only {
                continue;
            }
            let lab = Lab::filled().await;
            lab.damage(kind);
            an_unreadable_session_can_be_reset_and_deleted(&lab.stores, session, &shown).await;
            let lab = Lab::filled().await;
            lab.damage(kind);
            an_unreadable_session_can_be_deleted(&lab.stores, session, &shown).await;
        }
    }
}

#[tokio::test]
async fn a_key_whose_answer_cannot_be_read_has_an_answer_that_stays() {
    let lab = Lab::filled().await;
    lab.damage(("idempotency", "answer", "'DEEP'"));
    an_unreadable_answer_is_said_to_be_one(&lab.stores, "deep").await;
}

#[tokio::test]
async fn a_note_stands_for_a_message_that_cannot_be_read() {
    let lab = Lab::filled().await;
    lab.damage(("messages", "content", "'no JSON'"));
    let key = SessionKey::new("bad-idle");
    let messages = lab.stores.sessions.transcript(&tenant(), &key, Window::newest(10)).await;
    let messages = messages.expect("a transcript");
    let texts: Vec<String> = messages.iter().map(|message| message.body.text()).collect();
    assert_eq!(texts, ["hello from bad-idle-t", "[This message cannot be read any more.]"]);
    run(&lab.stores, &new_turn("next", "bad-idle"), LATER).await;
}

#[tokio::test]
async fn a_rate_limit_that_cannot_be_read_is_counted_anew() {
    let lab = Lab::filled().await;
    let limit = Limit { per_second: 0.01, burst: 0 };
    for now in [1_000, 2_000] {
        let decision = lab.stores.limits.take("subject", limit, at(now)).await.expect("a decision");
        assert_eq!(decision, Decision::Allowed);
        let limits = Connection::open(lab.data.path().join("limits.sqlite")).expect("the database");
        limits.execute("UPDATE limits SET arrival = 'x'", []).expect("a damaged row");
    }
}

#[tokio::test]
async fn nothing_that_could_not_be_read_back_is_stored() {
    let data = tempfile::tempdir().expect("a directory for data");
    let sqlite = Arc::new(Sqlite::open(data.path()).expect("a data directory"));
    what_could_not_be_read_back_is_never_stored(&stores_of(&sqlite)).await;
}

#[tokio::test]
async fn a_check_names_every_row_that_cannot_be_read_and_nothing_else() {
    let lab = Lab::filled().await;
    let sound = lab.sqlite.check().await.expect("a check");
    assert!(sound.is_sound() && sound.rows > 20, "{sound:?}");
    let kinds = [&JOBS[..], &TURNS, &HEADS, &OTHERS].concat();
    for kind in kinds.into_iter().filter(|kind| kind.0 != "past_transcripts") {
        let lab = Lab::filled().await;
        lab.damage(kind);
        let checked = lab.sqlite.check().await.expect("a check");
        let tables: BTreeSet<&str> = checked.unreadable.iter().map(|row| row.table).collect();
        // A turn's name that is bytes leads nowhere, too.
        assert!(tables.contains(kind.0), "{kind:?}: {checked:?}");
        assert!(checked.unreadable.iter().all(|row| row.id.contains("bad")), "{kind:?}: {checked:?}");
    }
}

/// Overwrites the page of the database on which this text stands.
fn spoil_page_of(lab: &Lab, text: &str) {
    let raw = lab.raw();
    raw.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("everything in one file");
    let size: u32 = raw.query_row("PRAGMA page_size", [], |row| row.get(0)).expect("a page's size");
    let size = usize::try_from(size).expect("a size");
    drop(raw);
    let path = lab.data.path().join("reef.sqlite");
    let mut bytes = std::fs::read(&path).expect("the file");
    let at = bytes.windows(text.len()).position(|some| some == text.as_bytes()).expect("the text");
    let page = at / size * size;
    bytes[page..page + size].fill(0x5a);
    std::fs::write(&path, bytes).expect("the file");
}

#[tokio::test]
async fn a_damaged_page_costs_what_lies_on_it_and_nothing_else() {
    let data = tempfile::tempdir().expect("a directory for data");
    let sqlite = Arc::new(Sqlite::open(data.path()).expect("a data directory"));
    let lab = Lab { data, stores: stores_of(&sqlite), sqlite };
    for number in 10..60 {
        start(&lab.stores, &new_turn(&format!("t{number}"), &format!("s{number}")), number, number + 10)
            .await;
    }
    lab.sqlite.close().await.expect("a close");
    // The heads stand in the order of their names, five or six to a page then.
    lab.raw()
        .execute("UPDATE sessions SET channel = session_key || printf('%0500d', 0)", [])
        .expect("long heads");
    spoil_page_of(&lab, &format!("s34{}", "0".repeat(500)));
    let sqlite = Arc::new(Sqlite::open(lab.data.path()).expect("a data directory"));
    let lab = Lab { data: lab.data, stores: stores_of(&sqlite), sqlite };

    let checked = lab.sqlite.check().await.expect("a check");
    assert!(
        !checked.pages.is_empty() && checked.pages.iter().any(|line| line.contains("sessions")),
        "{checked:?}"
    );
    assert!(!checked.unreadable.is_empty(), "{checked:?}");
    let all = SessionFilter { limit: 100, ..SessionFilter::default() };
    let listed = lab.stores.index.list(&tenant(), &all).await.expect("a listing");
    assert!((40..50).contains(&listed.len()), "{}", listed.len());
    let interrupted = lab.stores.index.interrupted(at(LATER), LEASE, 100).await.expect("a listing");
    assert!((40..50).contains(&interrupted.len()), "{}", interrupted.len());
    for number in [10, 59] {
        let key = SessionKey::new(format!("s{number}"));
        let found = lab.stores.sessions.load(&tenant(), &key).await.expect("an answer");
        assert!(found.is_some());
    }
}
