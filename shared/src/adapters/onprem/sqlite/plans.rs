//! Which way each statement goes: by an index to its rows, never through a whole table or all of a tenant's rows. This
//! is what keeps a turn in an old, large database as cheap as the first one.

use super::now;
use super::tx::SqliteTx;
use crate::adapters::onprem::sql::sessions::{EncodedOutcome, EncodedStep, EncodedTurn};
use crate::adapters::onprem::sql::{
    Arg, Row, SqlError, Tx, answers, audit, index, jobs, limits, schema, sessions, tokens,
};
use crate::answer::AnswerKey;
use crate::audit::{AuditFilter, ChainCheck, NewAudit};
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::id::{AgentId, JobId, PrincipalId, SessionId, SessionKey, TenantId, TurnId};
use crate::job::{Apart, JobFilter, Outcome};
use crate::limit::Limit;
use crate::message::MessageBody;
use crate::session::{Begun, Failure, Idempotency, NewTurn, SessionFilter, Step, TurnOutcome, Window};
use crate::unreadable::Sightings;
use rusqlite::Connection;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// A transaction that asks SQLite for its plan before each statement.
struct Explained<'c> {
    tx: SqliteTx<'c>,
    plans: BTreeMap<&'static str, Vec<String>>,
}

impl Explained<'_> {
    fn explain(&mut self, sql: &'static str, args: &[Arg<'_>]) {
        let explain: &'static str = Box::leak(format!("EXPLAIN QUERY PLAN {sql}").into_boxed_str());
        let rows = now(self.tx.query(explain, args)).unwrap();
        let detail = |mut row: Row| {
            let [_, _, _] = [row.int(), row.int(), row.int()].map(Result::unwrap);
            row.text().unwrap()
        };
        self.plans.insert(sql, rows.into_iter().map(detail).collect());
    }
}

impl Tx for Explained<'_> {
    const ROW_LOCKS: bool = false;

    fn execute(
        &mut self,
        sql: &'static str,
        args: &[Arg<'_>],
    ) -> impl Future<Output = Result<u64, SqlError>> + Send {
        self.explain(sql, args);
        self.tx.execute(sql, args)
    }

    fn query(
        &mut self,
        sql: &'static str,
        args: &[Arg<'_>],
    ) -> impl Future<Output = Result<Vec<Row>, SqlError>> + Send {
        self.explain(sql, args);
        self.tx.query(sql, args)
    }

    fn query_until(
        &mut self,
        sql: &'static str,
        args: &[Arg<'_>],
    ) -> impl Future<Output = (Vec<Row>, Option<SqlError>)> + Send {
        self.explain(sql, args);
        self.tx.query_until(sql, args)
    }

    fn saw(&mut self, table: &'static str, id: String, why: &str) {
        self.tx.saw(table, id, why);
    }

    fn batch(&mut self, sql: &str) -> impl Future<Output = Result<(), SqlError>> + Send {
        self.tx.batch(sql)
    }
}

const START: Timestamp = Timestamp::EPOCH;
const LATER: Timestamp = Timestamp::from_millis(100);

fn new_turn(turn: &str) -> EncodedTurn {
    let principal = PrincipalId::new("alice");
    let new = NewTurn {
        turn: TurnId::new(turn),
        tenant: TenantId::single(),
        session: SessionKey::new("s"),
        new_session_id: SessionId::new("transcript"),
        agent: AgentId::new("mail"),
        principal: principal.clone(),
        user: None,
        channel: String::new(),
        idempotency: Some(Idempotency { key: turn.to_owned(), fingerprint: String::new() }),
        input: vec![MessageBody::user_text("hello")],
        options: Value::Null,
        audit: NewAudit {
            id: turn.to_owned(),
            at: START,
            principal,
            action: String::new(),
            detail: Value::Null,
        },
    };
    EncodedTurn::new(&new).unwrap()
}

/// Every operation, in an order in which each finds something to do.
fn run_everything(tx: &mut impl Tx) {
    let (tenant, key) = (TenantId::single(), SessionKey::new("s"));
    let begin = |tx: &mut _, turn: &str, at| now(sessions::begin(tx, &new_turn(turn), at, LATER)).unwrap();
    let step = EncodedStep::new(&Step::default()).unwrap();
    let says = Step { messages: vec![MessageBody::assistant_text("hi")], audit: Vec::new() };
    let says = EncodedStep::new(&says).unwrap();
    let failure =
        Failure { kind: ErrorKind::Upstream, message: String::new(), param: None, retry_after: None };
    let failed = EncodedOutcome::new(&TurnOutcome::Failed(failure)).unwrap();
    let Begun::Started(lease) = begin(tx, "t1", START) else { panic!("not started") };
    now(sessions::append(tx, &lease, &step, START, LATER)).unwrap();
    now(sessions::append(tx, &lease, &says, START, LATER)).unwrap();
    assert!(matches!(begin(tx, "t2", LATER), Begun::Orphaned(_)));
    now(index::interrupted(tx, LATER, Duration::ZERO, 10)).unwrap();
    let Begun::Resumed { lease, .. } = begin(tx, "t1", LATER) else { panic!("not resumed") };
    now(sessions::commit(tx, &lease, &says, &failed, LATER)).unwrap();
    let Begun::Started(lease) = begin(tx, "t1", LATER) else { panic!("not started again") };
    now(sessions::commit(tx, &lease, &says, &failed, LATER)).unwrap();
    now(sessions::load(tx, &tenant, &key)).unwrap();
    now(sessions::transcript(tx, &tenant, &key, Window::newest(10))).unwrap();
    now(sessions::turn(tx, &tenant, &TurnId::new("t1"))).unwrap();
    for agents in [None, Some(vec![AgentId::new("mail")])] {
        for user in [None, Some("ann".to_owned())] {
            let filter =
                SessionFilter { agents: agents.clone(), user, limit: 10, ..SessionFilter::default() };
            now(index::list(tx, &tenant, &filter)).unwrap();
        }
    }
    now(index::parked(tx, &tenant, 10)).unwrap();
    now(index::reset(tx, &tenant, &key, &lease.session_id, &SessionId::new("next"), LATER)).unwrap();

    let job = JobId::new("j");
    let encoded = jobs::EncodedJob {
        tenant: tenant.clone(),
        id: job.clone(),
        session: key.clone(),
        work: "null".to_owned(),
        lane: "[\"mail\", \"alice\"]".to_owned(),
    };
    now(jobs::enqueue(tx, &encoded, Duration::ZERO, START)).unwrap();
    let (nobody, bob) = (Apart::default(), PrincipalId::new("bob"));
    let apart = Apart { principals: [bob].into(), ..Apart::default() };
    assert!(now(jobs::any_due(tx, START, &nobody)).unwrap());
    assert!(!now(jobs::any_due(tx, START - Duration::from_millis(1), &nobody)).unwrap());
    now(jobs::backlog(tx, START)).unwrap();
    for id in [None, Some(job.clone())] {
        // The work is no real work, so it cannot be read; the plans are what counts.
        now(jobs::list(tx, &tenant, &JobFilter { id, state: None, limit: 10 }, START)).unwrap();
    }
    for apart in [&nobody, &apart] {
        now(jobs::receive(tx, 10, START, LATER, apart)).unwrap();
    }
    let receipt = crate::job::Receipt { tenant: tenant.clone(), job: job.clone(), token: 1 };
    now(jobs::extend(tx, &receipt, START, LATER)).unwrap();
    now(jobs::settle(tx, &receipt, &Outcome::Dead { reason: String::new() }, LATER)).unwrap();
    now(jobs::redrive(tx, &tenant, &job, LATER)).unwrap_err();

    let idempotency = Idempotency { key: "k".to_owned(), fingerprint: String::new() };
    let answer = AnswerKey { tenant: tenant.clone(), principal: PrincipalId::new("alice"), idempotency };
    now(answers::claim(tx, &answer, START, START)).unwrap();
    now(answers::claim(tx, &answer, START, START)).unwrap();
    now(answers::release(tx, &answer)).unwrap();
    now(answers::store(tx, &answer, "null", START)).unwrap_err();

    let alice = PrincipalId::new("alice");
    now(tokens::find(tx, &alice)).unwrap();
    now(tokens::list(tx, &tenant)).unwrap();
    now(tokens::insert_first(
        tx,
        &crate::principal::NewToken::admin("first").mint(tenant.clone(), &crate::id::RandomIds, START).0,
    ))
    .unwrap();
    now(tokens::revoke(tx, &tenant, &alice, START)).unwrap_err();

    for session in [None, Some(key.clone())] {
        let filter = AuditFilter { session, limit: 10, ..AuditFilter::default() };
        now(audit::list(tx, &tenant, &filter)).unwrap();
        now(audit::count(tx, &tenant, &filter)).unwrap();
    }
    let mut check = ChainCheck::default();
    now(audit::verify_some(tx, &tenant, &audit::Cursor::default(), &mut check)).unwrap();
    now(audit::prune_some(tx, &tenant, LATER)).unwrap();
    now(index::delete(tx, &tenant, &key, &SessionId::new("next"))).unwrap();
    now(limits::take(tx, "subject", Limit::default(), START)).unwrap();
}

#[test]
fn no_statement_walks_a_table() {
    let mut connection = Connection::open_in_memory().unwrap();
    let sightings = Sightings::default();
    let mut tx = Explained { tx: SqliteTx::new(&mut connection, &sightings), plans: BTreeMap::new() };
    for migration in schema::MAIN.iter().chain(schema::LIMITS) {
        now(tx.batch(migration.sql)).unwrap();
    }
    run_everything(&mut tx);
    assert!(tx.plans.len() > 40, "only {} statements were seen", tx.plans.len());
    let walks = |step: &String| step.starts_with("SCAN") || step.ends_with("PRIMARY KEY (tenant=?)");
    let ahead = tx.plans.iter().find(|(sql, _)| sql.contains("set_at > $1")).expect("jobs hidden ahead");
    assert!(ahead.1[0].contains("jobs_by_set"), "{ahead:?}");
    for (sql, plan) in tx.plans {
        assert!(!plan.iter().any(walks), "{sql}\n{plan:#?}");
        // Where a user or a job's session is asked for, its own index is walked, and no longer one.
        let index = match &sql {
            sql if !sql.starts_with("SELECT") && !sql.starts_with("DELETE") => continue,
            sql if sql.contains("user_id = $") => "sessions_by_user (tenant=? AND user_id=?",
            sql if sql.contains("FROM jobs") && sql.contains("session_key = $") => {
                "jobs_by_session (session_key=?"
            }
            _ => continue,
        };
        assert!(plan.iter().any(|step| step.contains(index)), "{sql}\n{plan:#?}");
    }
}
