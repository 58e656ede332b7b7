//! Turns: [`shared::session::SessionStore`].

use harness::stores::{
    answer_key, at, audit, delete, done, failed, idempotency, keyed_turn, new_turn, run, says, start, tenant,
};
use serde_json::json;
use shared::app::Stores;
use shared::audit::AuditFilter;
use shared::error::{ErrorKind, StoreError};
use shared::id::{AgentId, PrincipalId, SessionId, SessionKey, TenantId, TurnId};
use shared::message::{Message, MessageBody, Part, ToolCall};
use shared::session::{Begun, Holder, Lease, NewTurn, Parked, Session, Step, Turn, TurnOutcome, Window};
use std::collections::BTreeSet;
use tokio::task::JoinSet;

const ALL: Window = Window::newest(usize::MAX);

fn key(text: &str) -> SessionKey {
    SessionKey::new(text)
}

async fn load(stores: &Stores, session: &str) -> Session {
    stores.sessions.load(&tenant(), &key(session)).await.expect("a head").expect("a session")
}

async fn transcript(stores: &Stores, session: &str) -> Vec<Message> {
    stores.sessions.transcript(&tenant(), &key(session), ALL).await.expect("a transcript")
}

async fn texts(stores: &Stores, session: &str) -> Vec<String> {
    transcript(stores, session).await.iter().map(|message| message.body.text()).collect()
}

async fn turn(stores: &Stores, id: &str) -> Turn {
    stores.sessions.turn(&tenant(), &TurnId::new(id)).await.expect("a turn").expect("a known turn")
}

async fn begin(stores: &Stores, turn: &NewTurn, now: i64, until: i64) -> Begun {
    stores.sessions.begin(turn, at(now), at(until)).await.expect("a verdict")
}

async fn audit_rows(stores: &Stores) -> usize {
    let all = AuditFilter { limit: usize::MAX, ..AuditFilter::default() };
    stores.audit.list(&tenant(), &all).await.expect("the audit trail").len()
}

/// The turn as [`Turn`] has it, right after its acceptance.
fn accepted(new: &NewTurn, now: i64) -> Turn {
    Turn {
        id: new.turn.clone(),
        tenant: new.tenant.clone(),
        session: new.session.clone(),
        session_id: new.new_session_id.clone(),
        agent: new.agent.clone(),
        principal: new.principal.clone(),
        user: new.user.clone(),
        channel: new.channel.clone(),
        options: new.options.clone(),
        accepted_at: at(now),
        ended_at: None,
        outcome: None,
    }
}

fn message(seq: u64, turn: &str, millis: i64, body: MessageBody) -> Message {
    Message { seq, epoch: 0, turn: TurnId::new(turn), at: at(millis), body }
}

pub(crate) async fn what_was_never_used_is_not_there(stores: &Stores) {
    assert_eq!(stores.sessions.load(&tenant(), &key("s")).await.expect("an answer"), None);
    assert_eq!(stores.sessions.transcript(&tenant(), &key("s"), ALL).await.expect("an answer"), []);
    assert_eq!(stores.sessions.turn(&tenant(), &TurnId::new("t")).await.expect("an answer"), None);
}

pub(crate) async fn a_first_turn_makes_its_session(stores: &Stores) {
    let new = NewTurn { user: Some("hanako".to_owned()), ..new_turn("t1", "s") };
    let lease = Lease {
        tenant: tenant(),
        session: key("s"),
        session_id: new.new_session_id.clone(),
        turn: TurnId::new("t1"),
        fence: 1,
        until: at(100),
        epoch: 0,
        seq: 1,
        summarised_through: 0,
    };
    assert_eq!(begin(stores, &new, 10, 100).await, Begun::Started(lease));
    let head = Session {
        tenant: tenant(),
        key: key("s"),
        id: new.new_session_id.clone(),
        agent: AgentId::new("mail"),
        user: Some("hanako".to_owned()),
        channel: "webchat".to_owned(),
        created_at: at(10),
        updated_at: at(10),
        epoch: 0,
        seq: 1,
        summarised_through: 0,
        holder: Some(Holder { turn: TurnId::new("t1"), until: at(100) }),
    };
    assert_eq!(load(stores, "s").await, head);
    let input = MessageBody::user_text("hello from t1");
    assert_eq!(transcript(stores, "s").await, [message(1, "t1", 10, input)]);
    assert_eq!(turn(stores, "t1").await, accepted(&new, 10));
}

pub(crate) async fn a_commit_appends_the_reply_and_releases_the_session(stores: &Stores) {
    let new = new_turn("t1", "s");
    let lease = start(stores, &new, 10, 100).await;
    stores.sessions.commit(&lease, &says("hi"), &done("hi"), at(20)).await.expect("a commit");
    let head = load(stores, "s").await;
    assert_eq!((head.holder, head.seq, head.created_at, head.updated_at), (None, 2, at(10), at(20)));
    let expected = [
        message(1, "t1", 10, MessageBody::user_text("hello from t1")),
        message(2, "t1", 20, MessageBody::assistant_text("hi")),
    ];
    assert_eq!(transcript(stores, "s").await, expected);
    let ended = Turn { ended_at: Some(at(20)), outcome: Some(done("hi")), ..accepted(&new, 10) };
    assert_eq!(turn(stores, "t1").await, ended);
}

pub(crate) async fn a_second_turn_goes_on_in_the_same_transcript(stores: &Stores) {
    let first = run(stores, &new_turn("t1", "s"), 10).await;
    let second = NewTurn {
        new_session_id: SessionId::new("not used"),
        user: Some("not the first".to_owned()),
        channel: "not the first".to_owned(),
        ..new_turn("t2", "s")
    };
    let lease = start(stores, &second, 20, 110).await;
    let expected = Lease { turn: TurnId::new("t2"), fence: 2, until: at(110), seq: 3, ..first };
    assert_eq!(lease, expected);
    stores.sessions.commit(&lease, &says("again"), &done("again"), at(30)).await.expect("a commit");
    let head = load(stores, "s").await;
    assert_eq!((head.user, head.channel.as_str(), head.seq), (None, "webchat", 4));
    assert_eq!(texts(stores, "s").await, ["hello from t1", "reply to t1", "hello from t2", "again"]);
}

pub(crate) async fn an_append_journals_a_step_and_extends_the_lease(stores: &Stores) {
    let lease = start(stores, &new_turn("t1", "s"), 10, 100).await;
    let call = ToolCall { id: "c1".to_owned(), name: "read".to_owned(), arguments: "{}".to_owned() };
    let asked = MessageBody::Assistant { text: String::new(), tool_calls: vec![call] };
    let answered = MessageBody::ToolResult {
        call_id: "c1".to_owned(),
        name: "read".to_owned(),
        content: "text".to_owned(),
        is_error: false,
    };
    let step = Step { messages: vec![asked.clone(), answered.clone()], audit: Vec::new() };
    let next = stores.sessions.append(&lease, &step, at(20), at(200)).await.expect("an append");
    assert_eq!(next, Lease { until: at(200), seq: 3, ..lease.clone() });
    let head = load(stores, "s").await;
    assert_eq!(head.holder, Some(Holder { turn: TurnId::new("t1"), until: at(200) }));
    assert_eq!((head.seq, head.updated_at), (3, at(20)));
    let stored = transcript(stores, "s").await;
    assert_eq!(stored[1..], [message(2, "t1", 20, asked), message(3, "t1", 20, answered)]);
    // The fence did not move, so the lease from before the step can be extended.
    let extended = stores.sessions.append(&lease, &Step::default(), at(30), at(300)).await;
    assert_eq!(extended.expect("an append"), Lease { until: at(300), ..next });
}

pub(crate) async fn a_step_that_is_appended_again_is_recorded_once(stores: &Stores) {
    let lease = start(stores, &new_turn("t1", "s"), 10, 100).await;
    let messages = vec![MessageBody::assistant_text("one"), MessageBody::assistant_text("two")];
    let step = Step { messages, audit: vec![audit("a", 20, "model.fallback")] };
    let next = stores.sessions.append(&lease, &step, at(20), at(110)).await.expect("an append");
    let (rows, stored) = (audit_rows(stores).await, transcript(stores, "s").await);
    // Whoever did not hear the answer repeats the step with the lease from before it.
    let again = stores.sessions.append(&lease, &step, at(30), at(120)).await.expect("an append");
    assert_eq!(again, Lease { until: at(120), ..next });
    assert_eq!(load(stores, "s").await.holder, Some(Holder { turn: TurnId::new("t1"), until: at(120) }));
    assert_eq!((audit_rows(stores).await, transcript(stores, "s").await), (rows, stored));
    // The same words are another step behind the new position.
    let more = stores.sessions.append(&again, &step, at(40), at(130)).await.expect("an append");
    assert_eq!(more.seq, 5);
    stores.sessions.commit(&more, &says("hi"), &done("hi"), at(50)).await.expect("a commit");
    assert_eq!(texts(stores, "s").await, ["hello from t1", "one", "two", "one", "two", "hi"]);
}

pub(crate) async fn a_lease_with_other_messages_behind_its_position_is_fenced(stores: &Stores) {
    let lease = start(stores, &new_turn("t1", "s"), 10, 100).await;
    let two = Step { messages: [says("one").messages, says("two").messages].concat(), audit: Vec::new() };
    stores.sessions.append(&lease, &two, at(20), at(110)).await.expect("an append");
    let (head, rows) = (load(stores, "s").await, audit_rows(stores).await);
    let three = Step { messages: [two.messages.clone(), says("three").messages].concat(), audit: Vec::new() };
    let with_a_row = Step { audit: vec![audit("late", 0, "late")], ..says("other") };
    for other in [says("one"), says("other"), with_a_row, three] {
        let appended = stores.sessions.append(&lease, &other, at(30), at(9_000)).await;
        assert!(matches!(appended, Err(StoreError::Fenced)), "{other:?}: {appended:?}");
    }
    let ahead = Lease { seq: 9, ..lease.clone() };
    let appended = stores.sessions.append(&ahead, &says("other"), at(30), at(9_000)).await;
    assert!(matches!(appended, Err(StoreError::Fenced)), "{appended:?}");
    assert_eq!((load(stores, "s").await, audit_rows(stores).await), (head, rows), "nothing was written");
    // A turn whose append was given up half way still ends.
    stores.sessions.commit(&lease, &says("hi"), &done("hi"), at(40)).await.expect("a commit");
    assert_eq!(texts(stores, "s").await, ["hello from t1", "one", "two", "hi"]);
}

pub(crate) async fn a_commit_that_is_made_again_is_made_once(stores: &Stores) {
    let lease = start(stores, &new_turn("t1", "s"), 10, 100).await;
    let last = Step { audit: vec![audit("a", 20, "turn.committed")], ..says("hi") };
    stores.sessions.commit(&lease, &last, &done("hi"), at(20)).await.expect("a commit");
    let other = start(stores, &new_turn("t2", "s"), 25, 100).await;
    let (head, rows) = (load(stores, "s").await, audit_rows(stores).await);
    stores.sessions.commit(&lease, &last, &done("hi"), at(30)).await.expect("a commit");
    assert_eq!((load(stores, "s").await, audit_rows(stores).await), (head, rows), "nothing was written");
    assert_eq!(turn(stores, "t1").await.ended_at, Some(at(20)));
    // With another end it is somebody else's.
    let fenced = stores.sessions.commit(&lease, &last, &failed(ErrorKind::Upstream), at(30)).await;
    assert!(matches!(fenced, Err(StoreError::Fenced)), "{fenced:?}");
    stores.sessions.commit(&other, &says("hi"), &done("hi"), at(40)).await.expect("a commit");
}

pub(crate) async fn an_empty_append_only_extends_the_lease(stores: &Stores) {
    let lease = start(stores, &new_turn("t1", "s"), 10, 100).await;
    let before = load(stores, "s").await;
    let next = stores.sessions.append(&lease, &Step::default(), at(50), at(200)).await.expect("an append");
    assert_eq!(next, Lease { until: at(200), ..lease });
    let holder = Some(Holder { turn: TurnId::new("t1"), until: at(200) });
    assert_eq!(load(stores, "s").await, Session { holder, ..before });
}

pub(crate) async fn a_summary_moves_the_prompts_start(stores: &Stores) {
    run(stores, &new_turn("t1", "s"), 10).await;
    let lease = start(stores, &new_turn("t2", "s"), 20, 100).await;
    let summary = MessageBody::Summary { text: "so far".to_owned(), through: 2 };
    let step = Step { messages: vec![summary], audit: Vec::new() };
    let next = stores.sessions.append(&lease, &step, at(30), at(100)).await.expect("an append");
    assert_eq!(next, Lease { seq: 4, summarised_through: 2, ..lease });
    assert_eq!(load(stores, "s").await.summarised_through, 2);
    stores.sessions.commit(&next, &says("hi"), &done("hi"), at(40)).await.expect("a commit");
    assert_eq!(start(stores, &new_turn("t3", "s"), 50, 100).await.summarised_through, 2);
}

pub(crate) async fn a_session_at_work_is_busy_for_another_turn(stores: &Stores) {
    start(stores, &new_turn("t1", "s"), 10, 100).await;
    let (head, rows) = (load(stores, "s").await, audit_rows(stores).await);
    let busy = Begun::Busy { until: at(100), turn: TurnId::new("t1") };
    assert_eq!(begin(stores, &keyed_turn("t2", "s", "k"), 20, 110).await, busy);
    assert_eq!((load(stores, "s").await, audit_rows(stores).await), (head, rows), "nothing was written");
    let known = stores.sessions.turn(&tenant(), &TurnId::new("t2")).await.expect("an answer");
    assert_eq!(known, None);
    // Another session is not touched by that, and the key of the refused turn is free.
    start(stores, &keyed_turn("t3", "other", "k"), 20, 110).await;
}

pub(crate) async fn a_turn_at_work_is_busy_for_itself(stores: &Stores) {
    let new = keyed_turn("t1", "s", "k");
    start(stores, &new, 10, 100).await;
    let busy = Begun::Busy { until: at(100), turn: TurnId::new("t1") };
    assert_eq!(begin(stores, &new, 20, 110).await, busy);
    assert_eq!(begin(stores, &keyed_turn("t2", "elsewhere", "k"), 20, 110).await, busy, "by its key");
    assert_eq!(begin(stores, &new_turn("t1", "s"), 20, 110).await, busy, "by its id");
    assert_eq!(load(stores, "s").await.seq, 1);
}

pub(crate) async fn an_ended_turn_is_replayed_by_key_and_by_id(stores: &Stores) {
    let new = keyed_turn("t1", "s", "k");
    run(stores, &new, 10).await;
    run(stores, &new_turn("t2", "s"), 20).await;
    let (head, rows) = (load(stores, "s").await, audit_rows(stores).await);
    let ended = Turn { ended_at: Some(at(10)), outcome: Some(done("reply to t1")), ..accepted(&new, 10) };
    let replayed = Begun::Replayed(Box::new(ended));
    assert_eq!(begin(stores, &keyed_turn("t3", "elsewhere", "k"), 30, 110).await, replayed);
    assert_eq!(begin(stores, &new_turn("t1", "s"), 30, 110).await, replayed);
    assert_eq!(begin(stores, &keyed_turn("t1", "s", "another key"), 30, 110).await, replayed);
    assert_eq!((load(stores, "s").await, audit_rows(stores).await), (head, rows), "nothing was written");
    // Also while another turn is at work on the session.
    start(stores, &new_turn("t4", "s"), 40, 110).await;
    assert_eq!(begin(stores, &keyed_turn("t5", "s", "k"), 50, 110).await, replayed);
}

pub(crate) async fn a_key_with_another_body_is_a_mismatch(stores: &Stores) {
    let lease = start(stores, &keyed_turn("t1", "s", "k"), 10, 100).await;
    let other = NewTurn { idempotency: Some(idempotency("k", "other")), ..new_turn("t2", "s") };
    assert_eq!(begin(stores, &other, 20, 110).await, Begun::Mismatch, "while it is at work");
    assert_eq!(begin(stores, &other, 200, 300).await, Begun::Mismatch, "when it was interrupted");
    stores.sessions.commit(&lease, &says("hi"), &done("hi"), at(20)).await.expect("a commit");
    assert_eq!(begin(stores, &other, 20, 110).await, Begun::Mismatch, "after its end");
}

pub(crate) async fn a_turns_id_with_another_body_is_a_mismatch(stores: &Stores) {
    run(stores, &keyed_turn("t1", "s", "k"), 10).await;
    let other = NewTurn { idempotency: Some(idempotency("another key", "other")), ..new_turn("t1", "s") };
    assert_eq!(begin(stores, &other, 20, 110).await, Begun::Mismatch);
}

pub(crate) async fn an_interrupted_turn_is_resumed_behind_its_steps(stores: &Stores) {
    run(stores, &new_turn("t0", "s"), 5).await;
    let new = keyed_turn("t1", "s", "k");
    let first = start(stores, &new, 10, 100).await;
    let next = stores.sessions.append(&first, &says("step one"), at(20), at(110)).await.expect("an append");
    stores.sessions.append(&next, &says("step two"), at(30), at(120)).await.expect("an append");
    let rows = audit_rows(stores).await;
    let lease = Lease { fence: 3, until: at(300), seq: 5, ..first };
    let steps = vec![
        message(4, "t1", 20, MessageBody::assistant_text("step one")),
        message(5, "t1", 30, MessageBody::assistant_text("step two")),
    ];
    let by_id = begin(stores, &new_turn("t1", "s"), 200, 300).await;
    assert_eq!(by_id, Begun::Resumed { lease: lease.clone(), steps: steps.clone(), tries: 1 });
    // Interrupted once more, and found by its key this time.
    let by_key = begin(stores, &keyed_turn("t2", "s", "k"), 400, 500).await;
    let lease = Lease { fence: 4, until: at(500), ..lease };
    assert_eq!(by_key, Begun::Resumed { lease: lease.clone(), steps, tries: 2 });
    assert_eq!(load(stores, "s").await.seq, 5, "the input is not written again");
    assert_eq!(load(stores, "s").await.updated_at, at(30));
    assert_eq!(audit_rows(stores).await, rows);
    assert_eq!(
        turn(stores, "t1").await,
        accepted(&NewTurn { new_session_id: lease.session_id.clone(), ..new }, 10)
    );
    stores.sessions.commit(&lease, &says("hi"), &done("hi"), at(410)).await.expect("a commit");
    assert_eq!(turn(stores, "t1").await.outcome, Some(done("hi")));
}

pub(crate) async fn a_resumption_by_key_stays_on_the_first_session(stores: &Stores) {
    let first = start(stores, &keyed_turn("t1", "made for t1", "k"), 10, 100).await;
    let again = begin(stores, &keyed_turn("t2", "made for t2", "k"), 200, 300).await;
    let lease = Lease { fence: 2, until: at(300), ..first };
    assert_eq!(again, Begun::Resumed { lease, steps: Vec::new(), tries: 1 });
    let unused = stores.sessions.load(&tenant(), &key("made for t2")).await.expect("an answer");
    assert_eq!(unused, None);
}

pub(crate) async fn an_interrupted_turn_stands_in_the_way_of_others(stores: &Stores) {
    let interrupted = new_turn("t1", "s");
    start(stores, &interrupted, 10, 100).await;
    let head = load(stores, "s").await;
    let orphan = accepted(&interrupted, 10);
    assert_eq!(begin(stores, &new_turn("t2", "s"), 200, 300).await, Begun::Orphaned(Box::new(orphan)));
    assert_eq!(load(stores, "s").await, head, "nothing was written");
}

pub(crate) async fn a_lease_has_run_out_from_its_end_on(stores: &Stores) {
    let new = new_turn("t1", "s");
    start(stores, &new, 10, 100).await;
    let busy = Begun::Busy { until: at(100), turn: TurnId::new("t1") };
    assert_eq!(begin(stores, &new, 99, 200).await, busy);
    assert_eq!(begin(stores, &new_turn("t2", "s"), 99, 200).await, busy);
    let orphaned = begin(stores, &new_turn("t2", "s"), 100, 200).await;
    assert!(matches!(orphaned, Begun::Orphaned(_)), "{orphaned:?}");
    let resumed = begin(stores, &new, 100, 200).await;
    assert!(matches!(resumed, Begun::Resumed { .. }), "{resumed:?}");
}

pub(crate) async fn a_turn_that_failed_for_now_runs_again_under_its_old_id(stores: &Stores) {
    let kinds = [
        ErrorKind::Conflict,
        ErrorKind::RateLimited,
        ErrorKind::BudgetExceeded,
        ErrorKind::Upstream,
        ErrorKind::Unavailable,
    ];
    for (number, kind) in kinds.into_iter().enumerate() {
        let (session, id) = (format!("s{number}"), format!("t{number}"));
        let lease = start(stores, &keyed_turn(&id, &session, &id), 10, 100).await;
        stores.sessions.commit(&lease, &Step::default(), &failed(kind), at(20)).await.expect("a commit");
        let asked_again = NewTurn {
            user: Some("hanako".to_owned()),
            channel: "cli".to_owned(),
            options: json!({ "trigger": "cli" }),
            ..keyed_turn("not used", &session, &id)
        };
        let again = start(stores, &asked_again, 30, 120).await;
        assert_eq!(again, Lease { fence: 2, until: at(120), seq: 2, ..lease }, "after {kind:?}");
        let expected = Turn {
            id: TurnId::new(id.as_str()),
            session_id: again.session_id.clone(),
            ..accepted(&asked_again, 30)
        };
        assert_eq!(turn(stores, &id).await, expected);
        assert_eq!(
            texts(stores, &session).await,
            [format!("hello from {id}"), "hello from not used".to_owned()]
        );
        stores.sessions.commit(&again, &says("hi"), &done("hi"), at(40)).await.expect("a commit");
        let replayed = begin(stores, &keyed_turn("t9", &session, &id), 50, 150).await;
        let ended = Turn { ended_at: Some(at(40)), outcome: Some(done("hi")), ..expected };
        assert_eq!(replayed, Begun::Replayed(Box::new(ended)));
    }
}

pub(crate) async fn a_turn_that_runs_again_stays_on_its_session_and_behind_what_came_since(stores: &Stores) {
    let lease = start(stores, &keyed_turn("t1", "s", "k"), 10, 100).await;
    let failure = failed(ErrorKind::Upstream);
    stores.sessions.commit(&lease, &Step::default(), &failure, at(20)).await.expect("a commit");
    // The session has another turn at work: the one that would run again must wait like any other.
    let other = start(stores, &new_turn("t2", "s"), 30, 130).await;
    let retry = NewTurn { principal: PrincipalId::new("alice"), ..keyed_turn("t3", "elsewhere", "k") };
    let busy = Begun::Busy { until: at(130), turn: TurnId::new("t2") };
    assert_eq!(begin(stores, &retry, 40, 140).await, busy);
    let orphaned = begin(stores, &retry, 131, 140).await;
    assert!(matches!(orphaned, Begun::Orphaned(ref turn) if turn.id == TurnId::new("t2")), "{orphaned:?}");
    assert_eq!(turn(stores, "t1").await.outcome, Some(failure), "it is as it was");
    stores.sessions.commit(&other, &says("hi"), &done("hi"), at(50)).await.expect("a commit");
    let again = start(stores, &retry, 60, 160).await;
    assert_eq!((again.turn.as_str(), again.session.as_str(), again.seq), ("t1", "s", 4));
    assert_eq!(texts(stores, "s").await, ["hello from t1", "hello from t2", "hi", "hello from t3"]);
    let unused = stores.sessions.load(&tenant(), &key("elsewhere")).await.expect("an answer");
    assert_eq!(unused, None);
}

pub(crate) async fn a_turn_that_runs_again_can_be_interrupted_and_resumed(stores: &Stores) {
    let lease = start(stores, &keyed_turn("t1", "s", "k"), 10, 100).await;
    stores.sessions.append(&lease, &says("a first step"), at(15), at(100)).await.expect("an append");
    let failure = failed(ErrorKind::Upstream);
    stores.sessions.commit(&lease, &Step::default(), &failure, at(20)).await.expect("a commit");
    let again = start(stores, &keyed_turn("t2", "s", "k"), 30, 130).await;
    stores.sessions.append(&again, &says("a second step"), at(40), at(130)).await.expect("an append");
    let resumed = begin(stores, &keyed_turn("t3", "s", "k"), 200, 300).await;
    let lease = Lease { fence: 3, until: at(300), seq: 4, ..again };
    let steps = vec![message(4, "t1", 40, MessageBody::assistant_text("a second step"))];
    let expected = Begun::Resumed { lease, steps, tries: 1 };
    assert_eq!(resumed, expected, "steps from before its second input do not count");
}

pub(crate) async fn a_turn_that_failed_for_good_is_replayed(stores: &Stores) {
    let call = ToolCall { id: "c".to_owned(), name: "pay".to_owned(), arguments: "{}".to_owned() };
    let outcomes = [
        failed(ErrorKind::Invalid),
        failed(ErrorKind::Unauthenticated),
        failed(ErrorKind::Forbidden),
        failed(ErrorKind::NotFound),
        failed(ErrorKind::Mismatch),
        failed(ErrorKind::Internal),
        TurnOutcome::Parked(Parked { call, at: at(15) }),
    ];
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let (session, id) = (format!("s{number}"), format!("t{number}"));
        let new = keyed_turn(&id, &session, &id);
        let lease = start(stores, &new, 10, 100).await;
        stores.sessions.commit(&lease, &Step::default(), &outcome, at(20)).await.expect("a commit");
        let ended = Turn { ended_at: Some(at(20)), outcome: Some(outcome), ..accepted(&new, 10) };
        assert_eq!(begin(stores, &new, 30, 100).await, Begun::Replayed(Box::new(ended)));
    }
}

pub(crate) async fn keys_belong_to_one_principal_of_one_tenant(stores: &Stores) {
    start(stores, &keyed_turn("t1", "s1", "k"), 10, 100).await;
    let bobs = NewTurn { principal: PrincipalId::new("bob"), ..keyed_turn("t2", "s2", "k") };
    assert_eq!(start(stores, &bobs, 10, 100).await.turn, TurnId::new("t2"));
    let elsewhere = NewTurn { tenant: TenantId::new("other"), ..keyed_turn("t1", "s1", "k") };
    assert_eq!(start(stores, &elsewhere, 10, 100).await.tenant, TenantId::new("other"));
}

pub(crate) async fn tenants_do_not_see_each_other(stores: &Stores) {
    run(stores, &new_turn("t1", "s"), 10).await;
    let other = TenantId::new("other");
    assert_eq!(stores.sessions.load(&other, &key("s")).await.expect("an answer"), None);
    assert_eq!(stores.sessions.transcript(&other, &key("s"), ALL).await.expect("an answer"), []);
    assert_eq!(stores.sessions.turn(&other, &TurnId::new("t1")).await.expect("an answer"), None);
    let theirs =
        NewTurn { tenant: other.clone(), input: vec![MessageBody::user_text("x")], ..new_turn("t1", "s") };
    let lease = start(stores, &theirs, 20, 100).await;
    assert_eq!((lease.seq, lease.fence), (1, 1));
    assert_eq!(texts(stores, "s").await, ["hello from t1", "reply to t1"]);
    assert_eq!(turn(stores, "t1").await.outcome, Some(done("reply to t1")));
}

pub(crate) async fn a_key_of_another_request_is_a_mismatch(stores: &Stores) {
    let taken = answer_key("k", "same");
    stores.answers.claim(&taken, at(1), at(2)).await.expect("a claim");
    assert_eq!(begin(stores, &keyed_turn("t1", "s", "k"), 10, 100).await, Begun::Mismatch);
    assert_eq!(stores.sessions.load(&tenant(), &key("s")).await.expect("an answer"), None);
    stores.answers.release(&taken).await.expect("a release");
    start(stores, &keyed_turn("t1", "s", "k"), 10, 100).await;
}

/// Both writes with this lease are refused.
async fn assert_fenced(stores: &Stores, lease: &Lease) {
    let step = Step { messages: says("late").messages, audit: vec![audit("late", 0, "late")] };
    let appended = stores.sessions.append(lease, &step, at(1), at(9_000)).await;
    assert!(matches!(appended, Err(StoreError::Fenced)), "{appended:?}");
    let committed = stores.sessions.commit(lease, &step, &done("late"), at(1)).await;
    assert!(matches!(committed, Err(StoreError::Fenced)), "{committed:?}");
}

pub(crate) async fn an_old_lease_is_fenced_and_writes_nothing(stores: &Stores) {
    let new = new_turn("t1", "s");
    let old = start(stores, &new, 10, 100).await;
    let Begun::Resumed { lease: current, .. } = begin(stores, &new, 200, 300).await else {
        unreachable!("the lease had run out")
    };
    let (head, rows) = (load(stores, "s").await, audit_rows(stores).await);
    // By the clock the old one is good again; the fence counts.
    assert_fenced(stores, &old).await;
    assert_eq!((load(stores, "s").await, audit_rows(stores).await), (head, rows));
    assert_eq!(texts(stores, "s").await, ["hello from t1"]);
    assert_eq!(turn(stores, "t1").await.outcome, None);
    // A lease that has run out and that nobody took over is still the newest one.
    stores.sessions.commit(&current, &says("hi"), &done("hi"), at(400)).await.expect("a commit");
}

pub(crate) async fn a_lease_is_worth_nothing_after_the_commit(stores: &Stores) {
    let first = run(stores, &new_turn("t1", "s"), 10).await;
    assert_fenced(stores, &first).await;
    start(stores, &new_turn("t2", "s"), 20, 100).await;
    assert_fenced(stores, &first).await;
    let forged = Lease { fence: 2, ..first };
    assert_fenced(stores, &forged).await;
    assert_eq!(turn(stores, "t1").await.outcome, Some(done("reply to t1")));
}

pub(crate) async fn a_lease_of_a_deleted_session_is_worth_nothing_on_the_next_one(stores: &Stores) {
    let new = new_turn("t1", "s");
    let old = run(stores, &new, 10).await;
    assert_fenced(stores, &Lease { session: key("never used"), ..old.clone() }).await;
    delete(stores, "s").await;
    assert_fenced(stores, &old).await;
    let next = NewTurn { new_session_id: SessionId::new("second transcript"), ..new };
    assert_eq!(start(stores, &next, 20, 100).await.fence, 1);
    assert_fenced(stores, &old).await;
}

pub(crate) async fn a_session_never_changes_its_agent(stores: &Stores) {
    run(stores, &new_turn("t1", "s"), 10).await;
    let head = load(stores, "s").await;
    let other = NewTurn { agent: AgentId::new("research"), ..keyed_turn("t2", "s", "k") };
    let refused = stores.sessions.begin(&other, at(20), at(100)).await;
    assert!(matches!(refused, Err(StoreError::Broken(_))), "{refused:?}");
    assert_eq!(load(stores, "s").await, head);
    // Nothing remains of the refused one, its key included.
    start(stores, &keyed_turn("t2", "s", "k"), 30, 100).await;
}

/// Begins all turns at once; returns the verdicts in the order of the turns.
async fn begin_all(stores: &Stores, turns: Vec<NewTurn>, now: i64, until: i64) -> Vec<Begun> {
    let mut tasks = JoinSet::new();
    for (number, turn) in turns.into_iter().enumerate() {
        let stores = stores.clone();
        tasks.spawn(async move { (number, begin(&stores, &turn, now, until).await) });
    }
    let mut verdicts = tasks.join_all().await;
    verdicts.sort_by_key(|(number, _)| *number);
    verdicts.into_iter().map(|(_, verdict)| verdict).collect()
}

pub(crate) async fn of_many_turns_at_once_one_starts(stores: &Stores) {
    let turns = (0..32).map(|number| new_turn(&format!("t{number}"), "s")).collect();
    let verdicts = begin_all(stores, turns, 10, 100).await;
    let started: Vec<&Lease> = verdicts
        .iter()
        .filter_map(|verdict| if let Begun::Started(lease) = verdict { Some(lease) } else { None })
        .collect();
    let [lease] = started[..] else { unreachable!("{} turns started", started.len()) };
    let busy = Begun::Busy { until: at(100), turn: lease.turn.clone() };
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == busy).count(), 31);
    assert_eq!(texts(stores, "s").await, [format!("hello from {}", lease.turn)]);
    assert_eq!(audit_rows(stores).await, 1);
}

pub(crate) async fn of_many_requests_with_one_key_one_starts(stores: &Stores) {
    let turns = (0..32).map(|number| keyed_turn(&format!("t{number}"), &format!("s{number}"), "k")).collect();
    let verdicts = begin_all(stores, turns, 10, 100).await;
    let started: BTreeSet<String> = verdicts
        .iter()
        .filter_map(
            |verdict| if let Begun::Started(lease) = verdict { Some(lease.turn.to_string()) } else { None },
        )
        .collect();
    assert_eq!(started.len(), 1);
    for verdict in verdicts {
        if let Begun::Busy { turn, .. } = verdict {
            assert!(started.contains(turn.as_str()));
        }
    }
    assert_eq!(audit_rows(stores).await, 1);
}

pub(crate) async fn of_many_who_take_over_one_resumes(stores: &Stores) {
    let new = new_turn("t1", "s");
    start(stores, &new, 10, 100).await;
    let verdicts = begin_all(stores, vec![new; 32], 200, 300).await;
    let busy = Begun::Busy { until: at(300), turn: TurnId::new("t1") };
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == busy).count(), 31);
    assert_eq!(verdicts.iter().filter(|verdict| matches!(verdict, Begun::Resumed { .. })).count(), 1);
}

pub(crate) async fn windows_are_the_newest_messages_that_fit(stores: &Stores) {
    for number in 1..=5 {
        run(stores, &new_turn(&format!("t{number}"), "s"), number * 10).await;
    }
    run(stores, &new_turn("t6", "another session"), 60).await;
    let cases = [
        (Window::newest(3), vec![8, 9, 10]),
        (Window::newest(0), vec![]),
        (ALL, (1..=10).collect()),
        (Window { newest: 100, after: 7, before: None }, vec![8, 9, 10]),
        (Window { newest: 2, after: 4, before: None }, vec![9, 10]),
        (Window { newest: 100, after: 0, before: Some(3) }, vec![1, 2]),
        (Window { newest: 2, after: 0, before: Some(9) }, vec![7, 8]),
        (Window { newest: 100, after: 3, before: Some(6) }, vec![4, 5]),
        (Window { newest: 100, after: 5, before: Some(6) }, vec![]),
        (Window { newest: 100, after: 10, before: None }, vec![]),
        (Window { newest: 3, after: u64::MAX, before: Some(u64::MAX) }, vec![]),
        (Window { newest: 3, after: 0, before: Some(u64::MAX) }, vec![8, 9, 10]),
    ];
    for (window, expected) in cases {
        let found = stores.sessions.transcript(&tenant(), &key("s"), window).await.expect("a transcript");
        let found: Vec<u64> = found.iter().map(|message| message.seq).collect();
        assert_eq!(found, expected, "{window:?}");
    }
}

pub(crate) async fn everything_comes_back_as_it_was_stored(stores: &Stores) {
    let awkward = "quote ' \" \\ 日本語 🦀 nul \0 line\r\n $1 ?1 ; -- %";
    let call =
        ToolCall { id: awkward.to_owned(), name: "read".to_owned(), arguments: "{\"a\": [1, 2".to_owned() };
    let bodies = vec![
        MessageBody::User {
            parts: vec![
                Part::Text { text: awkward.to_owned() },
                Part::Image { media_type: "image/png".to_owned(), data: "aGVsbG8=".repeat(10_000) },
                Part::Text { text: String::new() },
            ],
        },
        MessageBody::Assistant { text: awkward.to_owned(), tool_calls: vec![call.clone(), call.clone()] },
        MessageBody::ToolResult {
            call_id: awkward.to_owned(),
            name: String::new(),
            content: awkward.to_owned(),
            is_error: true,
        },
        MessageBody::Summary { text: awkward.to_owned(), through: 3 },
        MessageBody::assistant_text(""),
    ];
    let new = NewTurn {
        turn: TurnId::new(awkward),
        session: key(awkward),
        new_session_id: SessionId::new(awkward),
        agent: AgentId::new(awkward),
        principal: PrincipalId::new(awkward),
        user: Some(String::new()),
        channel: awkward.to_owned(),
        idempotency: Some(idempotency(awkward, awkward)),
        input: bodies.clone(),
        options: json!({
            "sampling": { "temperature": 0.1 + 0.2, "seed": i64::MIN, "top_p": 1e-300 },
            "big": u64::MAX, "z": null, "a": [true, awkward],
        }),
        ..new_turn("t", "s")
    };
    let lease = start(stores, &new, 10, i64::MAX).await;
    let stored: Vec<MessageBody> =
        transcript(stores, awkward).await.into_iter().map(|message| message.body).collect();
    assert_eq!(stored, bodies);
    let outcome = TurnOutcome::Parked(Parked { call, at: at(i64::MIN) });
    stores.sessions.commit(&lease, &Step::default(), &outcome, at(20)).await.expect("a commit");
    let ended = Turn { ended_at: Some(at(20)), outcome: Some(outcome), ..accepted(&new, 10) };
    assert_eq!(turn(stores, awkward).await, ended);
    assert_eq!(begin(stores, &new, 30, 100).await, Begun::Replayed(Box::new(ended)));
    let head = load(stores, awkward).await;
    assert_eq!((head.user.as_deref(), head.seq, head.summarised_through), (Some(""), 5, 3));
}

pub(crate) async fn a_lease_that_ends_later_than_it_can_has_run_out(stores: &Stores) {
    const HOUR: i64 = 60 * 60 * 1_000;
    let turn = new_turn("t1", "s");
    let lost = start(stores, &turn, HOUR, HOUR + 1_000).await;
    // The clock was set back: by a little, as two clocks may differ, and then by all of it.
    let begin = async |turn: &NewTurn, now: i64| {
        stores.sessions.begin(turn, at(now), at(now + 1_000)).await.expect("a verdict")
    };
    let busy = Begun::Busy { until: at(HOUR + 1_000), turn: TurnId::new("t1") };
    assert_eq!(begin(&turn, HOUR - 5_000).await, busy);
    assert_eq!(begin(&new_turn("t2", "s"), HOUR - 5_000).await, busy);
    let orphaned = begin(&new_turn("t2", "s"), 2_000).await;
    assert!(matches!(orphaned, Begun::Orphaned(ref turn) if turn.id == TurnId::new("t1")), "{orphaned:?}");
    let resumed = begin(&turn, 2_000).await;
    let Begun::Resumed { lease, .. } = resumed else { panic!("{resumed:?}") };
    assert_eq!(lease.until, at(3_000));
    // Whoever had it may be alive after all: it writes nothing any more.
    let late = stores.sessions.append(&lost, &says("late"), at(HOUR + 500), at(HOUR + 1_500)).await;
    assert!(matches!(late, Err(StoreError::Fenced)), "{late:?}");
    stores.sessions.commit(&lease, &says("hi"), &done("hi"), at(2_500)).await.expect("a commit");
}
