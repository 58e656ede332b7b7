//! Sessions as a whole: [`shared::session::SessionIndex`].

use harness::stores::{
    at, delete, done, idempotency, keyed_turn, new_job, new_turn, reset, run, says, start, tenant,
};
use shared::app::Stores;
use shared::audit::AuditFilter;
use shared::error::StoreError;
use shared::id::{AgentId, SessionId, SessionKey, TenantId, TurnId};
use shared::job::{Apart, Delivery, JobFilter, JobState, NewJob, Outcome, Work};
use shared::message::ToolCall;
use shared::session::{
    Begun, Interrupted, Lease, NewTurn, Parked, SessionFilter, Step, Turn, TurnOutcome, Window,
};
use std::time::Duration;

/// What these tests give a lease for, or longer.
const LEASE: Duration = Duration::from_secs(1);

fn key(text: &str) -> SessionKey {
    SessionKey::new(text)
}

fn all() -> SessionFilter {
    SessionFilter { limit: usize::MAX, ..SessionFilter::default() }
}

async fn list(stores: &Stores, filter: &SessionFilter) -> Vec<String> {
    let sessions = stores.index.list(&tenant(), filter).await.expect("a listing");
    sessions.into_iter().map(|session| session.key.to_string()).collect()
}

fn ids(turns: &[Turn]) -> Vec<&str> {
    turns.iter().map(|turn| turn.id.as_str()).collect()
}

pub(crate) async fn sessions_are_listed_last_changed_first(stores: &Stores) {
    run(stores, &new_turn("t1", "a"), 10).await;
    run(stores, &new_turn("t2", "c"), 20).await;
    run(stores, &new_turn("t3", "b"), 20).await;
    run(stores, &new_turn("t4", "d"), 15).await;
    assert_eq!(list(stores, &all()).await, ["b", "c", "d", "a"]);
    let held = start(stores, &new_turn("t5", "a"), 30, 100).await;
    assert_eq!(list(stores, &all()).await, ["a", "b", "c", "d"]);
    let found = stores.index.list(&tenant(), &SessionFilter { limit: 1, ..all() }).await.expect("a listing");
    assert_eq!(
        found,
        [stores.sessions.load(&tenant(), &held.session).await.expect("a head").expect("a session")]
    );
}

pub(crate) async fn a_session_may_have_the_longest_name_of_any_characters(stores: &Stores) {
    for character in ["#", "%", " ", "\"", "~", "x", "é"] {
        // As long as the gateway lets a name be, behind the longest name of an agent.
        let name = format!("agent:{}:{}", "a".repeat(64), character.repeat(512 / character.len()));
        let user = Some(character.repeat(256 / character.len()));
        let new = NewTurn { user: user.clone(), ..keyed_turn(&format!("t{character}"), &name, character) };
        run(stores, &new, 10).await;
        assert_eq!(list(stores, &SessionFilter { user, ..all() }).await, [name.as_str()]);
        assert!(list(stores, &all()).await.contains(&name), "{character}");
        reset(stores, &name, character, 20).await;
        delete(stores, &name).await;
    }
}

pub(crate) async fn listings_are_filtered(stores: &Stores) {
    for (number, (session, agent, user)) in [
        ("a", "mail", Some("hanako")),
        ("b", "research", None),
        ("c", "mail", None),
        ("d", "code", Some("hanako")),
        ("e", "research", Some("taro")),
    ]
    .into_iter()
    .enumerate()
    {
        let new = NewTurn {
            agent: AgentId::new(agent),
            user: user.map(str::to_owned),
            ..new_turn(&format!("t{number}"), session)
        };
        run(stores, &new, i64::try_from(number).expect("few") * 10).await;
    }
    let elsewhere = NewTurn { tenant: TenantId::new("other"), ..new_turn("t", "f") };
    run(stores, &elsewhere, 99).await;
    let agents = |names: &[&str]| Some(names.iter().map(|name| AgentId::new(*name)).collect());
    let cases: [(SessionFilter, &[&str]); 9] = [
        (all(), &["e", "d", "c", "b", "a"]),
        (SessionFilter { limit: 2, ..all() }, &["e", "d"]),
        (SessionFilter { limit: 0, ..all() }, &[]),
        (SessionFilter { agents: agents(&["mail", "code", "mail"]), ..all() }, &["d", "c", "a"]),
        (SessionFilter { agents: agents(&["mail", "research"]), limit: 3, ..all() }, &["e", "c", "b"]),
        (SessionFilter { agents: agents(&[]), ..all() }, &[]),
        (SessionFilter { user: Some("hanako".to_owned()), ..all() }, &["d", "a"]),
        (SessionFilter { updated_before: Some(at(30)), ..all() }, &["c", "b", "a"]),
        (
            SessionFilter {
                agents: agents(&["mail"]),
                user: Some("hanako".to_owned()),
                updated_before: Some(at(30)),
                limit: 1,
            },
            &["a"],
        ),
    ];
    for (filter, expected) in cases {
        assert_eq!(list(stores, &filter).await, expected, "{filter:?}");
    }
}

pub(crate) async fn interrupted_turns_are_found_in_every_tenant_oldest_first(stores: &Stores) {
    start(stores, &new_turn("t1", "s1"), 30, 100).await;
    start(stores, &new_turn("t2", "s2"), 20, 110).await;
    let elsewhere = NewTurn { tenant: TenantId::new("other"), ..new_turn("t3", "s1") };
    start(stores, &elsewhere, 25, 90).await;
    start(stores, &new_turn("t4", "s4"), 5, 1_000).await;
    run(stores, &new_turn("t5", "s5"), 1).await;
    let found = async |now: i64, limit| -> Vec<Turn> {
        let found = stores.index.interrupted(at(now), LEASE, limit).await.expect("a listing");
        found.into_iter().map(|found| found.turn).collect()
    };
    assert_eq!(found(89, 10).await, []);
    let all = found(110, 10).await;
    assert_eq!(ids(&all), ["t2", "t3", "t1"]);
    assert_eq!(all[1].tenant, TenantId::new("other"));
    assert_eq!(ids(&found(110, 2).await), ["t2", "t3"]);
    // One that somebody has resumed is not interrupted any more.
    stores.sessions.begin(&elsewhere, at(110), at(200)).await.expect("a verdict");
    let left = found(110, 10).await;
    assert_eq!(ids(&left), ["t2", "t1"]);
    let stored = stores.sessions.turn(&tenant(), &TurnId::new("t2")).await.expect("a turn");
    assert_eq!(Some(&left[0]), stored.as_ref());
}

pub(crate) async fn a_turn_whose_lease_ends_later_than_it_can_is_interrupted(stores: &Stores) {
    const HOUR: i64 = 60 * 60 * 1_000;
    // The process died, and the clock is an hour behind what it was.
    start(stores, &new_turn("t1", "s1"), HOUR, HOUR + 1_000).await;
    start(stores, &new_turn("t2", "s2"), 4_000, 6_000).await;
    let found = async |now: i64| -> Vec<Turn> {
        let found = stores.index.interrupted(at(now), LEASE, 10).await.expect("a listing");
        found.into_iter().map(|found| found.turn).collect()
    };
    assert_eq!(ids(&found(1_000).await), ["t1"], "of a clock that is a little ahead it is believed");
    assert_eq!(ids(&found(HOUR).await), ["t2"]);
    assert_eq!(ids(&found(HOUR - 5_000).await), ["t2"]);
    assert_eq!(ids(&found(HOUR - 5_001).await), ["t2", "t1"]);
}

pub(crate) async fn interrupted_turns_that_were_resumed_in_vain_hide_no_others(stores: &Stores) {
    let suspects: Vec<String> = (0..9).map(|number| format!("suspect {number}")).collect();
    for (id, accepted) in suspects.iter().zip(1..) {
        let turn = new_turn(id, id);
        start(stores, &turn, accepted, 100).await;
        for _ in 0..Interrupted::SUSPECT_FROM {
            let begun = stores.sessions.begin(&turn, at(100), at(100)).await.expect("a verdict");
            assert!(matches!(begun, Begun::Resumed { .. }), "{begun:?}");
        }
    }
    start(stores, &new_turn("sound 1", "sound 1"), 50, 100).await;
    start(stores, &new_turn("sound 2", "sound 2"), 60, 100).await;
    for (limit, expected) in
        [(2, ["sound 1", "sound 2"].as_slice()), (4, &["sound 1", "sound 2", "suspect 0", "suspect 1"])]
    {
        let found = stores.index.interrupted(at(110), LEASE, limit).await.expect("a listing");
        let found: Vec<&str> = found.iter().map(|found| found.turn.id.as_str()).collect();
        assert_eq!(found, expected);
    }
}

pub(crate) async fn an_interrupted_turn_says_how_often_it_was_resumed_since_its_last_step(stores: &Stores) {
    let tries = async |now: i64| -> Vec<u32> {
        let found = stores.index.interrupted(at(now), LEASE, 10).await.expect("a listing");
        found.into_iter().map(|found| found.tries).collect()
    };
    let turn = new_turn("t", "s");
    start(stores, &turn, 10, 20).await;
    assert_eq!(tries(20).await, [0]);
    for (now, until) in [(20, 30), (30, 40)] {
        stores.sessions.begin(&turn, at(now), at(until)).await.expect("a verdict");
    }
    assert_eq!(tries(40).await, [2]);
    let begun = stores.sessions.begin(&turn, at(40), at(50)).await.expect("a verdict");
    let Begun::Resumed { lease, .. } = begun else { panic!("{begun:?}") };
    stores.sessions.append(&lease, &says("on it"), at(45), at(60)).await.expect("a step");
    assert_eq!(tries(60).await, [0]);
}

pub(crate) async fn parked_turns_are_found_newest_first(stores: &Stores) {
    for (id, ended) in [("t1", 30), ("t2", 50), ("t3", 40)] {
        let lease = start(stores, &new_turn(id, id), 10, 100).await;
        let call = ToolCall { id: id.to_owned(), name: "pay".to_owned(), arguments: "{}".to_owned() };
        let outcome = TurnOutcome::Parked(Parked { call, at: at(ended) });
        stores.sessions.commit(&lease, &Step::default(), &outcome, at(ended)).await.expect("a commit");
    }
    run(stores, &new_turn("t4", "t4"), 60).await;
    start(stores, &new_turn("t5", "t5"), 60, 100).await;
    let found = stores.index.parked(&tenant(), 10).await.expect("a listing");
    assert_eq!(ids(&found), ["t2", "t3", "t1"]);
    assert_eq!(ids(&stores.index.parked(&tenant(), 1).await.expect("a listing")), ["t2"]);
    assert_eq!(stores.index.parked(&TenantId::new("other"), 10).await.expect("a listing"), []);
}

pub(crate) async fn a_reset_gives_an_empty_transcript(stores: &Stores) {
    run(stores, &keyed_turn("t1", "s", "k"), 10).await;
    let lease = start(stores, &new_turn("t2", "s"), 20, 100).await;
    let summary = shared::message::MessageBody::Summary { text: "so far".to_owned(), through: 2 };
    let step = Step { messages: vec![summary], audit: Vec::new() };
    stores.sessions.commit(&lease, &step, &done(""), at(20)).await.expect("a commit");
    let before = stores.sessions.load(&tenant(), &key("s")).await.expect("a head").expect("a session");
    let second = SessionId::new("second transcript");
    let after = reset(stores, "s", "second transcript", 30).await;
    let expected = shared::session::Session {
        id: second.clone(),
        seq: 0,
        summarised_through: 0,
        updated_at: at(30),
        ..before
    };
    assert_eq!(after, expected);
    assert_eq!(stores.sessions.load(&tenant(), &key("s")).await.expect("a head"), Some(expected));
    let everything = Window::newest(usize::MAX);
    assert_eq!(stores.sessions.transcript(&tenant(), &key("s"), everything).await.expect("a transcript"), []);
    // Turns from before are still known, by id and by key.
    let replayed =
        stores.sessions.begin(&keyed_turn("t3", "s", "k"), at(40), at(100)).await.expect("a verdict");
    assert!(matches!(replayed, Begun::Replayed(ref turn) if turn.id == TurnId::new("t1")), "{replayed:?}");
    let next = start(stores, &new_turn("t4", "s"), 50, 100).await;
    let lease = Lease {
        turn: TurnId::new("t4"),
        session_id: second,
        fence: 3,
        seq: 1,
        until: at(100),
        ..next.clone()
    };
    assert_eq!(next, lease);
    stores.sessions.commit(&next, &says("hi"), &done("hi"), at(60)).await.expect("a commit");
    // And once more.
    let third = SessionId::new("third transcript");
    reset(stores, "s", "third transcript", 70).await;
    assert_eq!(run(stores, &new_turn("t5", "s"), 80).await.session_id, third);
}

pub(crate) async fn a_session_at_work_or_interrupted_is_neither_reset_nor_deleted(stores: &Stores) {
    let (from, id) = (SessionId::new("first transcript of s"), SessionId::new("second transcript"));
    let unknown = stores.index.reset(&tenant(), &key("s"), &from, &id, at(10)).await;
    assert!(matches!(unknown, Err(StoreError::NotFound)), "{unknown:?}");
    let unknown = stores.index.delete(&tenant(), &key("s"), &from).await;
    assert!(matches!(unknown, Err(StoreError::NotFound)), "{unknown:?}");
    let lease = start(stores, &new_turn("t1", "s"), 10, 100).await;
    let head = stores.sessions.load(&tenant(), &key("s")).await.expect("a head");
    for now in [20, 200] {
        let held = stores.index.reset(&tenant(), &key("s"), &from, &id, at(now)).await;
        assert!(matches!(held, Err(StoreError::Fenced)), "{held:?}");
        let held = stores.index.delete(&tenant(), &key("s"), &from).await;
        assert!(matches!(held, Err(StoreError::Fenced)), "{held:?}");
    }
    let other = stores.index.delete(&TenantId::new("other"), &key("s"), &from).await;
    assert!(matches!(other, Err(StoreError::NotFound)), "{other:?}");
    assert_eq!(stores.sessions.load(&tenant(), &key("s")).await.expect("a head"), head);
    stores.sessions.commit(&lease, &says("hi"), &done("hi"), at(20)).await.expect("a commit");
    delete(stores, "s").await;
}

pub(crate) async fn a_newer_transcript_is_neither_reset_nor_deleted(stores: &Stores) {
    let old = run(stores, &new_turn("t1", "s"), 10).await.session_id;
    delete(stores, "s").await;
    // Whoever knows the old one only asks while the new one is idle, and while it is at work.
    let anew = NewTurn { new_session_id: SessionId::new("second"), ..new_turn("t2", "s") };
    run(stores, &anew, 20).await;
    for turn in [None, Some(new_turn("t3", "s"))] {
        if let Some(turn) = turn {
            start(stores, &turn, 30, 100).await;
        }
        let head = stores.sessions.load(&tenant(), &key("s")).await.expect("a head");
        let deleted = stores.index.delete(&tenant(), &key("s"), &old).await;
        assert!(matches!(deleted, Err(StoreError::NotFound)), "{deleted:?}");
        let reset = stores.index.reset(&tenant(), &key("s"), &old, &SessionId::new("third"), at(40)).await;
        assert!(matches!(reset, Err(StoreError::NotFound)), "{reset:?}");
        assert_eq!(stores.sessions.load(&tenant(), &key("s")).await.expect("a head"), head);
    }
    let kept = stores.sessions.turn(&tenant(), &TurnId::new("t2")).await.expect("an answer");
    assert_eq!(kept.and_then(|turn| turn.outcome), Some(done("reply to t2")));
}

pub(crate) async fn a_reset_is_done_once(stores: &Stores) {
    let first = run(stores, &new_turn("t1", "s"), 10).await.session_id;
    reset(stores, "s", "second", 20).await;
    let (second, third) = (SessionId::new("second"), SessionId::new("third"));
    let again = stores.index.reset(&tenant(), &key("s"), &first, &second, at(30)).await.expect("an answer");
    assert_eq!((again.id, again.updated_at), (second.clone(), at(20)));
    reset(stores, "s", "third", 40).await;
    start(stores, &new_turn("t2", "s"), 50, 100).await;
    let head = stores.sessions.load(&tenant(), &key("s")).await.expect("a head");
    // Another one has followed, and a turn is at work.
    for from in [&first, &second, &third] {
        let again = stores.index.reset(&tenant(), &key("s"), from, &second, at(60)).await;
        assert_eq!(Some(again.expect("an answer")), head);
    }
    assert_eq!(stores.sessions.load(&tenant(), &key("s")).await.expect("a head"), head);
}

pub(crate) async fn a_deletion_takes_everything_but_the_audit_trail(stores: &Stores) {
    run(stores, &keyed_turn("t1", "s", "k"), 10).await;
    reset(stores, "s", "second", 20).await;
    run(stores, &new_turn("t2", "s"), 30).await;
    delete(stores, "s").await;
    assert_eq!(stores.sessions.load(&tenant(), &key("s")).await.expect("an answer"), None);
    assert_eq!(list(stores, &all()).await, Vec::<String>::new());
    for id in ["t1", "t2"] {
        assert_eq!(stores.sessions.turn(&tenant(), &TurnId::new(id)).await.expect("an answer"), None);
    }
    let filter = AuditFilter { session: Some(key("s")), limit: 10, ..AuditFilter::default() };
    assert_eq!(stores.audit.list(&tenant(), &filter).await.expect("the audit trail").len(), 2);
    let again = stores.index.delete(&tenant(), &key("s"), &SessionId::new("second")).await;
    assert!(matches!(again, Err(StoreError::NotFound)), "{again:?}");
    // The name, the turns' ids and the key are free again, the key even for another body.
    let next = NewTurn {
        new_session_id: SessionId::new("third"),
        agent: AgentId::new("research"),
        idempotency: Some(idempotency("k", "other")),
        ..new_turn("t1", "s")
    };
    let lease = start(stores, &next, 40, 100).await;
    assert_eq!((lease.seq, lease.fence, lease.session_id), (1, 1, SessionId::new("third")));
}

pub(crate) async fn a_deletion_leaves_everything_else(stores: &Stores) {
    run(stores, &keyed_turn("t1", "s", "k1"), 10).await;
    run(stores, &keyed_turn("t2", "other session", "k2"), 10).await;
    let elsewhere = NewTurn { tenant: TenantId::new("other"), ..keyed_turn("t1", "s", "k1") };
    run(stores, &elsewhere, 10).await;
    delete(stores, "s").await;
    for kept in [keyed_turn("t3", "other session", "k2"), elsewhere] {
        let replayed = stores.sessions.begin(&kept, at(20), at(100)).await.expect("a verdict");
        assert!(matches!(replayed, Begun::Replayed(_)), "{replayed:?}");
        let transcript = stores.sessions.transcript(&kept.tenant, &kept.session, Window::newest(10)).await;
        assert_eq!(transcript.expect("a transcript").len(), 2);
    }
}

async fn jobs(stores: &Stores) -> Vec<(String, JobState)> {
    let all = JobFilter { limit: 10, ..JobFilter::default() };
    let listed = stores.jobs.list(&tenant(), &all, at(0)).await.expect("a listing");
    let mut jobs: Vec<_> = listed.into_iter().map(|job| (job.job.id.to_string(), job.state)).collect();
    jobs.sort();
    jobs
}

async fn enqueue(stores: &Stores, job: &NewJob, now: i64) {
    assert!(stores.jobs.enqueue(job, Duration::ZERO, at(now)).await.expect("an answer"));
}

async fn deliver(stores: &Stores, now: i64) -> Delivery {
    let deliveries =
        stores.jobs.receive(1, at(now), at(now + 100), &Apart::default()).await.expect("deliveries");
    deliveries.into_iter().next().expect("a due job")
}

pub(crate) async fn a_deletion_takes_the_sessions_jobs_along(stores: &Stores) {
    run(stores, &new_turn("t1", "s"), 10).await;
    let long = "a long story ".repeat(1_000);
    for (id, outcome) in [
        ("done", Outcome::Done),
        ("dead", Outcome::Dead { reason: "bad".to_owned() }),
        ("later", Outcome::Retry { after: Duration::from_secs(60), counts: true, reason: "busy".to_owned() }),
    ] {
        enqueue(stores, &new_job(id, &long), 20).await;
        let delivery = deliver(stores, 30).await;
        stores.jobs.settle(&delivery.receipt, &outcome, at(40)).await.expect("a settlement");
    }
    enqueue(stores, &new_job("waiting", &long), 50).await;
    let mut other = new_job("other", "hello");
    let Work::Turn(request) = &mut other.work;
    request.session = key("other session");
    enqueue(stores, &other, 60).await;
    let elsewhere = NewJob { tenant: TenantId::new("other"), ..new_job("waiting", "hello") };
    enqueue(stores, &elsewhere, 60).await;

    delete(stores, "s").await;
    assert_eq!(jobs(stores).await, [("other".to_owned(), JobState::Pending)]);
    let left =
        stores.jobs.receive(9, at(1_000_000), at(1_000_100), &Apart::default()).await.expect("deliveries");
    let mut left: Vec<_> = left.iter().map(|delivery| delivery.receipt.tenant.as_str()).collect();
    left.sort_unstable();
    assert_eq!(left, ["main", "other"], "no job of the session makes it anew");
    // Its id is free: what is asked for again is another wish.
    enqueue(stores, &new_job("waiting", "hello"), 2_000_000).await;
}

pub(crate) async fn a_session_whose_job_is_at_work_is_not_deleted(stores: &Stores) {
    run(stores, &new_turn("t1", "s"), 10).await;
    enqueue(stores, &new_job("j", "hello"), 20).await;
    let delivery = deliver(stores, 30).await;
    let (tenant, session) = (tenant(), key("s"));
    let head = stores.sessions.load(&tenant, &session).await.expect("an answer").expect("a session");
    let refused = stores.index.delete(&tenant, &session, &head.id).await;
    assert!(matches!(refused, Err(StoreError::Fenced)), "its turn may begin at any moment: {refused:?}");
    assert_eq!(jobs(stores).await, [("j".to_owned(), JobState::Pending)], "nothing was deleted");
    let retry = Outcome::Retry { after: Duration::from_secs(60), counts: true, reason: "busy".to_owned() };
    stores.jobs.settle(&delivery.receipt, &retry, at(40)).await.expect("a settlement");
    delete(stores, "s").await;
    assert_eq!(jobs(stores).await, []);
}
