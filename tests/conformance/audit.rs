//! The audit trail: [`shared::audit::AuditLog`].

use harness::stores::{at, audit, delete, done, new_turn, reset, run, says, start, tenant};
use serde_json::json;
use shared::app::Stores;
use shared::audit::{AuditFilter, AuditRow, AuditVerdict, NewAudit};
use shared::error::StoreError;
use shared::id::{AgentId, PrincipalId, SessionId, SessionKey, TenantId, TurnId};
use shared::session::{Lease, NewTurn, Step};

fn all() -> AuditFilter {
    AuditFilter { limit: usize::MAX, ..AuditFilter::default() }
}

/// All rows, as they happened.
async fn list(stores: &Stores, filter: &AuditFilter) -> Vec<AuditRow> {
    let mut rows = stores.audit.list(&tenant(), filter).await.expect("the audit trail");
    rows.reverse();
    rows
}

async fn listed(stores: &Stores, filter: &AuditFilter) -> Vec<String> {
    let rows = stores.audit.list(&tenant(), filter).await.expect("the audit trail");
    rows.into_iter().map(|row| row.entry.id).collect()
}

async fn verify(stores: &Stores) -> AuditVerdict {
    stores.audit.verify(&tenant()).await.expect("a verdict")
}

fn intact(rows: u64) -> AuditVerdict {
    AuditVerdict { rows, broken: Vec::new() }
}

fn step(rows: &[(&str, i64)]) -> Step {
    let audit = rows.iter().map(|(id, millis)| audit(id, *millis, "model.fallback")).collect();
    Step { messages: Vec::new(), audit }
}

/// A turn whose acceptance is recorded under `id` at `millis`.
fn recorded(turn: &str, session: &str, id: &str, millis: i64) -> NewTurn {
    NewTurn { audit: audit(id, millis, "turn.accepted"), ..new_turn(turn, session) }
}

async fn end(stores: &Stores, lease: &Lease, rows: &[(&str, i64)]) {
    stores.sessions.commit(lease, &step(rows), &done("hi"), at(99)).await.expect("a commit");
}

pub(crate) async fn rows_are_written_with_what_they_record_and_form_a_chain(stores: &Stores) {
    assert_eq!(verify(stores).await, intact(0));
    let lease = start(stores, &recorded("t1", "s", "1", 10), 10, 100).await;
    let next = stores.sessions.append(&lease, &step(&[("2", 20), ("3", 20)]), at(20), at(100)).await;
    end(stores, &next.expect("an append"), &[("4", 30)]).await;
    let lease = start(stores, &recorded("t2", "s", "5", 40), 40, 100).await;
    end(stores, &lease, &[]).await;
    let mut previous = String::new();
    let mut expected = Vec::new();
    for (id, millis, action, turn) in [
        ("1", 10, "turn.accepted", "t1"),
        ("2", 20, "model.fallback", "t1"),
        ("3", 20, "model.fallback", "t1"),
        ("4", 30, "model.fallback", "t1"),
        ("5", 40, "turn.accepted", "t2"),
    ] {
        let mut row = AuditRow {
            entry: audit(id, millis, action),
            tenant: tenant(),
            session: SessionKey::new("s"),
            session_id: lease.session_id.clone(),
            agent: AgentId::new("mail"),
            turn: TurnId::new(turn),
            previous,
            hash: String::new(),
        };
        row.hash = row.expected_hash();
        previous = row.hash.clone();
        expected.push(row);
    }
    assert_eq!(list(stores, &all()).await, expected);
    assert_eq!(verify(stores).await, intact(5));
}

pub(crate) async fn a_refused_write_leaves_no_row(stores: &Stores) {
    let old = run(stores, &recorded("t1", "s", "1", 10), 10).await;
    let late = stores.sessions.append(&old, &step(&[("late", 20)]), at(20), at(100)).await;
    assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
    start(stores, &recorded("t2", "s", "2", 30), 30, 100).await;
    stores.sessions.begin(&recorded("t3", "s", "busy", 40), at(40), at(100)).await.expect("a verdict");
    stores.sessions.begin(&recorded("t2", "s", "resumed", 40), at(200), at(300)).await.expect("a verdict");
    assert_eq!(listed(stores, &all()).await, ["2", "1"]);
}

pub(crate) async fn rows_are_listed_newest_first_counted_and_filtered(stores: &Stores) {
    run(stores, &recorded("t1", "b", "late", 30), 30).await;
    run(stores, &recorded("t2", "c", "tie c", 20), 20).await;
    let lease = start(stores, &recorded("t3", "a", "tie a", 20), 20, 100).await;
    end(stores, &lease, &[("tie a, second", 20), ("early", 10)]).await;
    let elsewhere = NewTurn { tenant: TenantId::new("other"), ..recorded("t1", "a", "theirs", 15) };
    run(stores, &elsewhere, 15).await;
    let session = |key: &str| Some(SessionKey::new(key));
    let cases: [(AuditFilter, &[&str]); 10] = [
        (all(), &["late", "tie c", "tie a, second", "tie a", "early"]),
        (AuditFilter { limit: 1, ..all() }, &["late"]),
        (AuditFilter { limit: 3, ..all() }, &["late", "tie c", "tie a, second"]),
        (AuditFilter { limit: 0, ..all() }, &[]),
        (AuditFilter { session: session("a"), ..all() }, &["tie a, second", "tie a", "early"]),
        (AuditFilter { session: session("unknown"), ..all() }, &[]),
        (AuditFilter { since: Some(at(20)), ..all() }, &["late", "tie c", "tie a, second", "tie a"]),
        (AuditFilter { until: Some(at(20)), ..all() }, &["early"]),
        (AuditFilter { since: Some(at(i64::MAX)), until: Some(at(20)), ..all() }, &[]),
        (
            AuditFilter {
                session: session("a"),
                since: Some(at(11)),
                until: Some(at(30)),
                limit: 1,
                ..all()
            },
            &["tie a, second"],
        ),
    ];
    for (filter, expected) in cases {
        assert_eq!(listed(stores, &filter).await, expected, "{filter:?}");
        let count = stores.audit.count(&tenant(), &filter).await.expect("a count");
        assert_eq!(count, expected.len() as u64, "{filter:?}");
    }
    let theirs = stores.audit.list(&TenantId::new("other"), &all()).await.expect("the audit trail");
    assert_eq!(theirs.len(), 1);
    assert_eq!(verify(stores).await, intact(5), "the order of writing counts, not that of time");
}

pub(crate) async fn rows_are_found_by_agent_caller_and_action(stores: &Stores) {
    let by = |turn: &str, agent: &str, caller: &str, action: &str, millis: i64| {
        let entry = NewAudit { principal: PrincipalId::new(caller), ..audit(turn, millis, action) };
        NewTurn { agent: AgentId::new(agent), audit: entry, ..new_turn(turn, &format!("of {agent}")) }
    };
    // A day and more lies between rows: what is looked for need not be among the newest.
    const DAY: i64 = 86_400_000;
    for turn in [
        by("1", "mail", "ann", "turn.accepted", DAY),
        by("2", "data", "ben", "turn.accepted", 2 * DAY),
        by("3", "mail", "ben", "turn.parked", 4 * DAY),
        by("4", "mail", "ann", "turn.accepted", 4 * DAY),
    ] {
        run(stores, &turn, turn.audit.at.as_millis()).await;
    }
    let agent = |id: &str| Some(AgentId::new(id));
    let caller = |id: &str| Some(PrincipalId::new(id));
    let action = |name: &str| Some(name.to_owned());
    let cases: [(AuditFilter, &[&str]); 8] = [
        (AuditFilter { agent: agent("data"), limit: 1, ..all() }, &["2"]),
        (AuditFilter { agent: agent("mail"), ..all() }, &["4", "3", "1"]),
        (AuditFilter { agent: agent("nobody"), ..all() }, &[]),
        (AuditFilter { principal: caller("ben"), ..all() }, &["3", "2"]),
        (AuditFilter { action: action("turn.parked"), ..all() }, &["3"]),
        (AuditFilter { action: action("turn"), ..all() }, &[]),
        (AuditFilter { principal: caller("ann"), until: Some(at(2 * DAY)), limit: 1, ..all() }, &["1"]),
        (
            AuditFilter {
                session: Some(SessionKey::new("of mail")),
                agent: agent("mail"),
                principal: caller("ann"),
                action: action("turn.accepted"),
                limit: 1,
                ..all()
            },
            &["4"],
        ),
    ];
    for (filter, expected) in cases {
        assert_eq!(listed(stores, &filter).await, expected, "{filter:?}");
        let count = stores.audit.count(&tenant(), &filter).await.expect("a count");
        assert_eq!(count, expected.len() as u64, "{filter:?}");
    }
}

pub(crate) async fn each_transcript_has_a_chain_of_its_own(stores: &Stores) {
    run(stores, &recorded("t1", "a", "1", 10), 10).await;
    run(stores, &recorded("t2", "b", "2", 20), 20).await;
    reset(stores, "a", "second", 30).await;
    run(stores, &recorded("t3", "a", "3", 40), 40).await;
    delete(stores, "a").await;
    let again = NewTurn { new_session_id: SessionId::new("third"), ..recorded("t4", "a", "4", 50) };
    run(stores, &again, 50).await;
    let rows = list(stores, &all()).await;
    let firsts: Vec<(&str, &str)> =
        rows.iter().map(|row| (row.entry.id.as_str(), row.previous.as_str())).collect();
    assert_eq!(firsts, [("1", ""), ("2", ""), ("3", ""), ("4", "")]);
    assert_eq!(verify(stores).await, intact(4));
}

pub(crate) async fn rows_before_a_time_are_pruned(stores: &Stores) {
    for number in 1..=5 {
        let id = number.to_string();
        run(stores, &recorded(&id, &format!("s{}", number % 2), &id, number * 10), number * 10).await;
    }
    let elsewhere = NewTurn { tenant: TenantId::new("other"), ..recorded("t", "s", "theirs", 10) };
    run(stores, &elsewhere, 10).await;
    assert_eq!(stores.audit.prune(&tenant(), at(10)).await.expect("a count"), 0);
    assert_eq!(stores.audit.prune(&tenant(), at(30)).await.expect("a count"), 2);
    assert_eq!(listed(stores, &all()).await, ["5", "4", "3"]);
    assert_eq!(verify(stores).await, intact(3));
    let theirs = stores.audit.list(&TenantId::new("other"), &all()).await.expect("the audit trail");
    assert_eq!(theirs.len(), 1);
}

pub(crate) async fn a_chain_goes_on_after_its_rows_were_pruned(stores: &Stores) {
    run(stores, &recorded("t1", "s", "1", 10), 10).await;
    let pruned = list(stores, &all()).await.remove(0);
    assert_eq!(stores.audit.prune(&tenant(), at(50)).await.expect("a count"), 1);
    run(stores, &recorded("t2", "s", "2", 60), 60).await;
    let rows = list(stores, &all()).await;
    assert_eq!(rows.iter().map(|row| &row.previous).collect::<Vec<_>>(), [&pruned.hash]);
    assert_eq!(verify(stores).await, intact(1));
}

pub(crate) async fn details_come_back_as_they_were_hashed(stores: &Stores) {
    let detail = json!({
        "float": 0.1 + 0.2, "small": 5e-324, "whole": 1.0, "negative zero": -0.0, "big": u64::MAX,
        "text": "quote ' \" nul \0 日本語", "z": [null, true, {}], "a": "",
    });
    let entry = NewAudit { detail, ..audit("1", 10, "it's \"odd\"") };
    let lease = start(stores, &NewTurn { audit: entry.clone(), ..new_turn("t", "s") }, 10, 100).await;
    stores.sessions.commit(&lease, &says("hi"), &done("hi"), at(20)).await.expect("a commit");
    let rows = list(stores, &all()).await;
    assert_eq!(rows.iter().map(|row| &row.entry).collect::<Vec<_>>(), [&entry]);
    assert_eq!(verify(stores).await, intact(1));
}
