//! The job queue: [`shared::job::JobQueue`].

use harness::stores::{at, idempotency, keyed_turn, new_turn, run, tenant};
use serde_json::json;
use shared::agent::{RunOptions, RunRequest};
use shared::app::Stores;
use shared::error::StoreError;
use shared::id::{AgentId, JobId, PrincipalId, SessionKey, TenantId, TurnId};
use shared::job::{
    Apart, Backlog, Delivery, Job, JobFilter, JobState, NewJob, Outcome, Receipt, Work, done_kept_until,
};
use shared::message::MessageBody;
use shared::session::Begun;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::JoinSet;

const AT_ONCE: Duration = Duration::ZERO;

fn job(id: &str) -> NewJob {
    let request = RunRequest {
        turn: TurnId::new(id),
        tenant: tenant(),
        principal: PrincipalId::new("alice"),
        agent: AgentId::new("mail"),
        session: SessionKey::new("s"),
        sticky: true,
        idempotency: Some(idempotency("k", "f")),
        input: vec![MessageBody::user_text("hello")],
        options: RunOptions { trigger: "hook".to_owned(), ..RunOptions::default() },
    };
    NewJob { id: JobId::new(id), tenant: tenant(), work: Work::Turn(Box::new(request)) }
}

/// The job as stored when it was enqueued at once.
fn pending(id: &str, now: i64) -> Job {
    Job {
        job: job(id),
        state: JobState::Pending,
        attempts: 0,
        created_at: at(now),
        visible_at: at(now),
        reason: None,
        unreadable: None,
    }
}

async fn enqueue(stores: &Stores, id: &str, now: i64) {
    assert!(stores.jobs.enqueue(&job(id), AT_ONCE, at(now)).await.expect("an answer"));
}

async fn receive(stores: &Stores, max: usize, now: i64, until: i64) -> Vec<Delivery> {
    stores.jobs.receive(max, at(now), at(until), &Apart::default()).await.expect("deliveries")
}

/// As [`receive`], of those who are not apart.
async fn receive_apart(stores: &Stores, max: usize, now: i64, apart: &Apart) -> Vec<Delivery> {
    stores.jobs.receive(max, at(now), at(now + 100), apart).await.expect("deliveries")
}

async fn receive_one(stores: &Stores, now: i64, until: i64) -> Delivery {
    let mut deliveries = receive(stores, 1, now, until).await;
    deliveries.pop().expect("a due job")
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| delivery.job.job.id.as_str()).collect()
}

async fn find(stores: &Stores, id: &str) -> Job {
    let filter = JobFilter { id: Some(JobId::new(id)), state: None, limit: 1 };
    let mut found = stores.jobs.list(&tenant(), &filter, at(0)).await.expect("a listing");
    found.pop().expect("a known job")
}

async fn assert_fenced(stores: &Stores, receipt: &Receipt) {
    let extended = stores.jobs.extend(receipt, at(1), at(9_000)).await;
    assert!(matches!(extended, Err(StoreError::Fenced)), "{extended:?}");
    let retry = Outcome::Retry { after: AT_ONCE, counts: true, reason: "late".to_owned() };
    for outcome in [Outcome::Done, retry, Outcome::Dead { reason: "late".to_owned() }] {
        let settled = stores.jobs.settle(receipt, &outcome, at(1)).await;
        assert!(matches!(settled, Err(StoreError::Fenced)), "{settled:?}");
    }
}

pub(crate) async fn a_job_is_delivered_when_it_is_due(stores: &Stores) {
    assert_eq!(receive(stores, 10, 0, 100).await, []);
    let delay = Duration::from_millis(50);
    assert!(stores.jobs.enqueue(&job("j"), delay, at(10)).await.expect("an answer"));
    assert_eq!(receive(stores, 10, 59, 100).await, []);
    let delivery = receive_one(stores, 60, 100).await;
    let expected = Job { attempts: 1, visible_at: at(100), ..pending("j", 10) };
    assert_eq!(delivery.job, expected);
    assert_eq!((delivery.receipt.tenant.as_str(), delivery.receipt.job.as_str()), ("main", "j"));
    assert_eq!(find(stores, "j").await, expected);
}

pub(crate) async fn the_same_job_is_enqueued_once(stores: &Stores) {
    enqueue(stores, "j", 10).await;
    let changed = NewJob { work: job("changed").work, ..job("j") };
    assert!(!stores.jobs.enqueue(&changed, AT_ONCE, at(20)).await.expect("an answer"));
    assert_eq!(find(stores, "j").await, pending("j", 10));
    let delivery = receive_one(stores, 30, 100).await;
    stores.jobs.settle(&delivery.receipt, &Outcome::Done, at(40)).await.expect("a settlement");
    assert!(
        !stores.jobs.enqueue(&job("j"), AT_ONCE, at(50)).await.expect("an answer"),
        "also when it is done"
    );
    assert_eq!(receive(stores, 10, 60, 100).await, []);
}

pub(crate) async fn due_jobs_come_longest_due_first_and_no_more_than_asked_for(stores: &Stores) {
    enqueue(stores, "c", 30).await;
    enqueue(stores, "a", 20).await;
    enqueue(stores, "b", 20).await;
    assert!(stores.jobs.enqueue(&job("d"), Duration::from_millis(15), at(1)).await.expect("an answer"));
    assert_eq!(receive(stores, 0, 100, 200).await, []);
    assert_eq!(ids(&receive(stores, 3, 100, 200).await), ["d", "a", "b"]);
    assert_eq!(ids(&receive(stores, 3, 100, 200).await), ["c"]);
}

pub(crate) async fn a_delivered_job_is_hidden_until_its_delivery_ends(stores: &Stores) {
    enqueue(stores, "j", 10).await;
    let first = receive_one(stores, 20, 100).await;
    assert_eq!(receive(stores, 10, 99, 200).await, []);
    let second = receive_one(stores, 100, 200).await;
    assert_eq!(second.job, Job { attempts: 2, visible_at: at(200), ..pending("j", 10) });
    assert!(second.receipt.token > first.receipt.token);
}

pub(crate) async fn a_delivery_can_be_extended(stores: &Stores) {
    enqueue(stores, "j", 10).await;
    let delivery = receive_one(stores, 20, 100).await;
    stores.jobs.extend(&delivery.receipt, at(90), at(150)).await.expect("an extension");
    assert_eq!(receive(stores, 10, 149, 200).await, []);
    // Nobody else has it, so it can be extended after its end, too.
    stores.jobs.extend(&delivery.receipt, at(160), at(300)).await.expect("an extension");
    assert_eq!(receive(stores, 10, 200, 400).await, []);
    assert_eq!(find(stores, "j").await.attempts, 1);
    stores.jobs.settle(&delivery.receipt, &Outcome::Done, at(350)).await.expect("a settlement");
    assert_eq!(find(stores, "j").await.state, JobState::Done);
}

fn job_of(id: &str, agent: &str, principal: &str) -> NewJob {
    let NewJob { id, tenant, work: Work::Turn(request) } = job(id);
    let (agent, principal) = (AgentId::new(agent), PrincipalId::new(principal));
    NewJob { id, tenant, work: Work::Turn(Box::new(RunRequest { agent, principal, ..*request })) }
}

pub(crate) async fn jobs_of_those_who_have_their_share_are_left_and_hide_no_others(stores: &Stores) {
    for number in 0..40 {
        let flood = job_of(&format!("flood {number:02}"), "mail", "alice");
        assert!(stores.jobs.enqueue(&flood, AT_ONCE, at(10)).await.expect("an answer"));
    }
    for (id, agent, principal) in [("b1", "mail", "bob"), ("b2", "code", "bob"), ("a", "code", "alice")] {
        let job = job_of(id, agent, principal);
        assert!(stores.jobs.enqueue(&job, AT_ONCE, at(20)).await.expect("an answer"));
    }
    let alice = Apart { principals: [PrincipalId::new("alice")].into(), ..Apart::default() };
    let mail = Apart { agents: [AgentId::new("mail")].into(), ..Apart::default() };
    let both = Apart { agents: mail.agents.clone(), principals: alice.principals.clone() };
    assert_eq!(receive_apart(stores, 10, 19, &alice).await, []);
    let delivered = receive_apart(stores, 1, 30, &both).await;
    assert_eq!(ids(&delivered), ["b2"]);
    assert_eq!((delivered[0].job.attempts, delivered[0].job.visible_at), (1, at(130)));
    assert_eq!(ids(&receive_apart(stores, 10, 30, &alice).await), ["b1"]);
    assert_eq!(ids(&receive_apart(stores, 10, 30, &mail).await), ["a"]);
    assert_eq!(receive_apart(stores, 10, 30, &both).await, []);
    assert_eq!(receive_apart(stores, 0, 30, &mail).await, []);
    // Those that were left come in their order as soon as they may.
    let nobody = Apart { principals: [PrincipalId::new("carol")].into(), ..Apart::default() };
    assert_eq!(ids(&receive_apart(stores, 2, 30, &nobody).await), ["flood 00", "flood 01"]);
    assert_eq!(ids(&receive(stores, 1, 30, 200).await), ["flood 02"]);
}

pub(crate) async fn a_clock_that_was_ahead_for_a_moment_hides_no_job(stores: &Stores) {
    const HOUR: i64 = 60 * 60 * 1_000;
    // Where messages bring them, they are found by these: see aws_queue.rs.
    if stores.jobs.backlog(at(0)).await.expect("a backlog").is_none() {
        return;
    }
    // Enqueued, delivered, to be tried again and extended by a clock that was an hour ahead.
    let delay = Duration::from_millis(50);
    for id in ["delayed", "delivered", "extended", "tried"] {
        assert!(stores.jobs.enqueue(&job(id), delay, at(HOUR)).await.expect("an answer"));
    }
    let deliveries = receive(stores, 10, HOUR + 60, HOUR + 160).await;
    assert_eq!(ids(&deliveries), ["delayed", "delivered", "extended", "tried"]);
    let retry = Outcome::Retry { after: delay, counts: true, reason: "busy".to_owned() };
    for delivery in [&deliveries[0], &deliveries[3]] {
        stores.jobs.settle(&delivery.receipt, &retry, at(HOUR + 60)).await.expect("a settlement");
    }
    stores.jobs.extend(&deliveries[2].receipt, at(HOUR + 60), at(HOUR + 200)).await.expect("an extension");
    // A little is believed: there may be two clocks.
    assert_eq!(receive(stores, 10, HOUR - 4_940, HOUR - 4_000).await, []);
    // Whoever is alive says so by the clock that is right now.
    stores.jobs.extend(&deliveries[2].receipt, at(1_000), at(1_100)).await.expect("an extension");
    let again = receive(stores, 10, 1_000, 1_100).await;
    assert_eq!(ids(&again), ["delayed", "tried", "delivered"]);
    assert_eq!(receive(stores, 10, 1_099, 1_200).await, []);
    assert_eq!(ids(&receive(stores, 10, 1_100, 1_200).await), ["delayed", "delivered", "extended", "tried"]);
}

pub(crate) async fn a_backlog_says_how_much_waits_and_for_how_long(stores: &Stores) {
    let backlog = async |now: i64| stores.jobs.backlog(at(now)).await.expect("a backlog");
    let Some(none) = backlog(10).await else { return };
    assert_eq!(none, Backlog::default());
    for (id, now) in [("a", 10), ("b", 20), ("c", 30), ("d", 100), ("e", 200)] {
        enqueue(stores, id, now).await;
    }
    let expected = Backlog { due: 3, hidden: 2, dead: 0, oldest_due: Some(at(10)) };
    assert_eq!(backlog(50).await, Some(expected));
    let deliveries = receive(stores, 3, 50, 90).await;
    let dead = Outcome::Dead { reason: "bad".to_owned() };
    stores.jobs.settle(&deliveries[0].receipt, &dead, at(60)).await.expect("a settlement");
    stores.jobs.settle(&deliveries[1].receipt, &Outcome::Done, at(60)).await.expect("a settlement");
    // The third one's delivery has run out, and one more has come to its time.
    let expected = Backlog { due: 2, hidden: 1, dead: 1, oldest_due: Some(at(90)) };
    assert_eq!(backlog(100).await, Some(expected));
}

pub(crate) async fn a_job_of_a_megabyte_stays_as_it_was_enqueued(stores: &Stores) {
    let mut large = job("large");
    let Work::Turn(request) = &mut large.work;
    request.input = vec![MessageBody::user_text("a long story, 日本, ü ".repeat(45_000))];
    assert!(stores.jobs.enqueue(&large, AT_ONCE, at(10)).await.expect("an answer"));
    assert!(!stores.jobs.enqueue(&large, AT_ONCE, at(15)).await.expect("an answer"));
    enqueue(stores, "small", 10).await;
    let retry = Outcome::Retry { after: AT_ONCE, counts: true, reason: "busy".to_owned() };
    for outcome in [retry, Outcome::Dead { reason: "bad".to_owned() }] {
        let delivery = receive_one(stores, 20, 100).await;
        assert!(delivery.job.job == large);
        stores.jobs.extend(&delivery.receipt, at(30), at(200)).await.expect("an extension");
        stores.jobs.settle(&delivery.receipt, &outcome, at(5)).await.expect("a settlement");
    }
    let all = JobFilter { limit: 10, ..JobFilter::default() };
    let listed = stores.jobs.list(&tenant(), &all, at(0)).await.expect("a listing");
    assert_eq!(listed.len(), 2);
    assert!(listed[0].job == job("small") && listed[1].job == large);
    stores.jobs.redrive(&tenant(), &JobId::new("large"), at(5)).await.expect("a redrive");
    assert!(receive_one(stores, 30, 100).await.job.job == large);
}

pub(crate) async fn an_older_receipt_is_fenced(stores: &Stores) {
    enqueue(stores, "j", 10).await;
    let first = receive_one(stores, 20, 100).await;
    let second = receive_one(stores, 100, 200).await;
    let before = find(stores, "j").await;
    assert_fenced(stores, &first.receipt).await;
    assert_fenced(stores, &Receipt { job: JobId::new("unknown"), ..second.receipt.clone() }).await;
    assert_fenced(stores, &Receipt { tenant: TenantId::new("other"), ..second.receipt.clone() }).await;
    assert_eq!(find(stores, "j").await, before);
    stores.jobs.settle(&second.receipt, &Outcome::Done, at(110)).await.expect("a settlement");
}

pub(crate) async fn a_receipt_settles_once(stores: &Stores) {
    let retry = Outcome::Retry { after: AT_ONCE, counts: true, reason: "busy".to_owned() };
    for (id, outcome) in
        [("a", Outcome::Done), ("b", retry), ("c", Outcome::Dead { reason: "bad".to_owned() })]
    {
        enqueue(stores, id, 10).await;
        let delivery = receive_one(stores, 20, 100).await;
        assert_eq!(delivery.job.job.id, JobId::new(id));
        stores.jobs.settle(&delivery.receipt, &outcome, at(30)).await.expect("a settlement");
        assert_fenced(stores, &delivery.receipt).await;
        if id == "b" {
            let delivery = receive_one(stores, 30, 100).await;
            stores.jobs.settle(&delivery.receipt, &Outcome::Done, at(40)).await.expect("a settlement");
        }
    }
}

pub(crate) async fn a_retry_comes_after_its_wait(stores: &Stores) {
    enqueue(stores, "j", 10).await;
    let first = receive_one(stores, 20, 100).await;
    let (after, reason) = (Duration::from_millis(500), "the model was busy".to_owned());
    let retry = Outcome::Retry { after, counts: true, reason };
    stores.jobs.settle(&first.receipt, &retry, at(50)).await.expect("a settlement");
    let waiting = Job {
        attempts: 1,
        visible_at: at(550),
        reason: Some("the model was busy".to_owned()),
        ..pending("j", 10)
    };
    assert_eq!(find(stores, "j").await, waiting);
    assert_eq!(receive(stores, 10, 549, 600).await, []);
    let second = receive_one(stores, 550, 600).await;
    assert_eq!(second.job, Job { attempts: 2, visible_at: at(600), ..waiting });
    stores.jobs.settle(&second.receipt, &Outcome::Done, at(560)).await.expect("a settlement");
    let ended = find(stores, "j").await;
    assert_eq!((ended.state, ended.attempts, ended.reason), (JobState::Done, 2, None));
}

pub(crate) async fn a_retry_that_was_no_attempt_is_not_counted(stores: &Stores) {
    enqueue(stores, "j", 10).await;
    for (counts, expected) in [(false, 0), (true, 1), (false, 1), (true, 2)] {
        let delivery = receive_one(stores, 20, 100).await;
        assert_eq!(delivery.job.attempts, expected + u32::from(!counts), "{counts}");
        let retry = Outcome::Retry { after: AT_ONCE, counts, reason: "busy".to_owned() };
        stores.jobs.settle(&delivery.receipt, &retry, at(20)).await.expect("a settlement");
        assert_fenced(stores, &delivery.receipt).await;
        assert_eq!(find(stores, "j").await.attempts, expected);
    }
}

pub(crate) async fn a_dead_job_waits_for_its_redrive(stores: &Stores) {
    enqueue(stores, "j", 10).await;
    let delivery = receive_one(stores, 20, 100).await;
    let dead = Outcome::Dead { reason: "no such agent".to_owned() };
    stores.jobs.settle(&delivery.receipt, &dead, at(30)).await.expect("a settlement");
    let found = find(stores, "j").await;
    assert_eq!(
        (found.state, found.attempts, found.reason.as_deref()),
        (JobState::Dead, 1, Some("no such agent"))
    );
    assert_eq!(receive(stores, 10, 10_000, 20_000).await, []);
    stores.jobs.redrive(&tenant(), &JobId::new("j"), at(40)).await.expect("a redrive");
    let redriven = Job { visible_at: at(40), reason: Some("no such agent".to_owned()), ..pending("j", 10) };
    assert_eq!(find(stores, "j").await, redriven);
    assert_fenced(stores, &delivery.receipt).await;
    let again = receive_one(stores, 40, 100).await;
    assert_eq!(again.job, Job { attempts: 1, visible_at: at(100), ..redriven });
    assert!(again.receipt.token > delivery.receipt.token);
    assert_fenced(stores, &delivery.receipt).await;
}

pub(crate) async fn only_a_dead_job_is_redriven(stores: &Stores) {
    enqueue(stores, "pending", 10).await;
    enqueue(stores, "done", 5).await;
    let delivery = receive_one(stores, 20, 100).await;
    stores.jobs.settle(&delivery.receipt, &Outcome::Done, at(30)).await.expect("a settlement");
    enqueue(stores, "dead", 1).await;
    let delivery = receive_one(stores, 20, 100).await;
    let dead = Outcome::Dead { reason: "bad".to_owned() };
    stores.jobs.settle(&delivery.receipt, &dead, at(30)).await.expect("a settlement");
    for id in ["pending", "done", "unknown"] {
        let redriven = stores.jobs.redrive(&tenant(), &JobId::new(id), at(40)).await;
        assert!(matches!(redriven, Err(StoreError::NotFound)), "{id}: {redriven:?}");
    }
    let other = stores.jobs.redrive(&TenantId::new("other"), &JobId::new("dead"), at(40)).await;
    assert!(matches!(other, Err(StoreError::NotFound)), "{other:?}");
    assert_eq!(find(stores, "dead").await.state, JobState::Dead);
}

async fn listed(stores: &Stores, filter: &JobFilter, now: i64) -> Vec<JobState> {
    let jobs = stores.jobs.list(&tenant(), filter, at(now)).await.expect("a listing");
    jobs.iter().map(|job| job.state).collect()
}

pub(crate) async fn a_job_that_is_done_is_kept_until_its_end_and_then_forgotten(stores: &Stores) {
    enqueue(stores, "j", 10).await;
    enqueue(stores, "other", 10).await;
    for delivery in receive(stores, 2, 20, 100).await {
        stores.jobs.settle(&delivery.receipt, &Outcome::Done, at(1_234)).await.expect("a settlement");
    }
    let end = done_kept_until(at(1_234)).as_millis();
    assert_eq!(end, 2_000 + 14 * 24 * 60 * 60 * 1_000);
    let one = JobFilter { id: Some(JobId::new("j")), state: None, limit: 1 };
    let of_state = JobFilter { id: None, state: Some(JobState::Done), limit: 10 };
    let all = JobFilter { limit: 10, ..JobFilter::default() };
    for (filter, kept) in [(&one, 1), (&of_state, 2), (&all, 2)] {
        assert_eq!(listed(stores, filter, end - 1).await, vec![JobState::Done; kept], "{filter:?}");
        assert_eq!(listed(stores, filter, end).await, [], "{filter:?}");
    }
    assert!(!stores.jobs.enqueue(&job("j"), AT_ONCE, at(end - 1)).await.expect("an answer"));
    assert!(stores.jobs.enqueue(&job("j"), AT_ONCE, at(end)).await.expect("an answer"), "as a new one");
    let delivery = receive_one(stores, end + 10, end + 100).await;
    assert_eq!(delivery.job, Job { attempts: 1, visible_at: at(end + 100), ..pending("j", end) });
    assert_eq!(listed(stores, &all, end + 10).await, [JobState::Pending]);
}

pub(crate) async fn a_large_job_that_is_done_is_forgotten_as_a_whole(stores: &Stores) {
    let mut now = 10;
    for text in ["a long story, 日本, ü ".repeat(45_000), "a shorter one ".repeat(500)] {
        let mut large = job("large");
        let Work::Turn(request) = &mut large.work;
        request.input = vec![MessageBody::user_text(text)];
        assert!(stores.jobs.enqueue(&large, AT_ONCE, at(now)).await.expect("an answer"));
        let delivery = receive_one(stores, now + 10, now + 100).await;
        assert!(delivery.job.job == large);
        stores.jobs.settle(&delivery.receipt, &Outcome::Done, at(now + 20)).await.expect("a settlement");
        let end = done_kept_until(at(now + 20)).as_millis();
        let all = JobFilter { limit: 10, ..JobFilter::default() };
        let kept = stores.jobs.list(&tenant(), &all, at(end - 1)).await.expect("a listing");
        large.work.forget_what_was_said();
        assert_eq!(kept.into_iter().map(|job| job.job).collect::<Vec<_>>(), [large]);
        assert_eq!(listed(stores, &all, end).await, []);
        now = end;
    }
}

pub(crate) async fn a_job_that_is_done_keeps_nothing_of_what_was_said(stores: &Stores) {
    for (id, text) in [("short", "a secret".to_owned()), ("long", "a secret ".repeat(5_000))] {
        let mut said = job(id);
        let Work::Turn(request) = &mut said.work;
        request.input = vec![MessageBody::user_text(text)];
        request.options.instructions = Some("keep it secret".to_owned());
        request.options.echo = json!({ "instructions": "keep it secret" });
        assert!(stores.jobs.enqueue(&said, AT_ONCE, at(10)).await.expect("an answer"));
        let retry = Outcome::Retry { after: AT_ONCE, counts: true, reason: "busy".to_owned() };
        let delivery = receive_one(stores, 20, 100).await;
        stores.jobs.settle(&delivery.receipt, &retry, at(30)).await.expect("a settlement");
        let delivery = receive_one(stores, 40, 100).await;
        assert!(delivery.job.job == said, "as long as it is not done it is whole");
        stores.jobs.settle(&delivery.receipt, &Outcome::Done, at(50)).await.expect("a settlement");
        let kept = find(stores, id).await;
        let text = serde_json::to_string(&kept).expect("JSON");
        assert!(!text.contains("secret"), "{text}");
        let Work::Turn(request) = kept.job.work;
        assert_eq!((request.session.as_str(), request.options.trigger.as_str()), ("s", "hook"));
    }
}

pub(crate) async fn a_job_that_is_not_done_is_kept(stores: &Stores) {
    const YEARS: i64 = 10 * 365 * 24 * 60 * 60 * 1_000;
    enqueue(stores, "dead", 10).await;
    let delivery = receive_one(stores, 20, 100).await;
    let dead = Outcome::Dead { reason: "bad".to_owned() };
    stores.jobs.settle(&delivery.receipt, &dead, at(30)).await.expect("a settlement");
    enqueue(stores, "pending", 40).await;
    let all = JobFilter { limit: 10, ..JobFilter::default() };
    assert_eq!(listed(stores, &all, YEARS).await, [JobState::Pending, JobState::Dead]);
    for id in ["dead", "pending"] {
        assert!(!stores.jobs.enqueue(&job(id), AT_ONCE, at(YEARS)).await.expect("an answer"), "{id}");
    }
    assert_eq!(ids(&receive(stores, 10, YEARS, YEARS + 100).await), ["pending"]);
}

pub(crate) async fn a_job_that_is_redriven_after_a_year_meets_its_turn(stores: &Stores) {
    const YEAR: i64 = 365 * 24 * 60 * 60 * 1_000;
    enqueue(stores, "j", 10).await;
    let delivery = receive_one(stores, 20, 100).await;
    run(stores, &keyed_turn("j", "s", "k"), 30).await;
    // As when its worker died between the turn's end and this, again and again.
    let dead = Outcome::Dead { reason: "its workers all went without a word".to_owned() };
    stores.jobs.settle(&delivery.receipt, &dead, at(40)).await.expect("a settlement");
    stores.jobs.redrive(&tenant(), &JobId::new("j"), at(YEAR)).await.expect("a redrive");
    assert_eq!(ids(&receive(stores, 1, YEAR + 10, YEAR + 100).await), ["j"]);
    for turn in [new_turn("j", "s"), keyed_turn("j", "s", "k")] {
        let begun = stores.sessions.begin(&turn, at(YEAR + 20), at(YEAR + 100)).await.expect("a verdict");
        assert!(matches!(&begun, Begun::Replayed(turn) if turn.id == TurnId::new("j")), "{begun:?}");
    }
}

pub(crate) async fn jobs_are_listed_newest_first_and_filtered(stores: &Stores) {
    for (id, now) in [("a", 10), ("c", 20), ("b", 20), ("d", 15)] {
        enqueue(stores, id, now).await;
    }
    let delivery = receive_one(stores, 20, 100).await;
    stores.jobs.settle(&delivery.receipt, &Outcome::Done, at(30)).await.expect("a settlement");
    let elsewhere = NewJob { tenant: TenantId::new("other"), ..job("e") };
    stores.jobs.enqueue(&elsewhere, AT_ONCE, at(30)).await.expect("an answer");
    let all = JobFilter { limit: 10, ..JobFilter::default() };
    let cases: [(JobFilter, &[&str]); 7] = [
        (all.clone(), &["c", "b", "d", "a"]),
        (JobFilter { limit: 2, ..all.clone() }, &["c", "b"]),
        (JobFilter { limit: 0, ..all.clone() }, &[]),
        (JobFilter { state: Some(JobState::Pending), ..all.clone() }, &["c", "b", "d"]),
        (JobFilter { state: Some(JobState::Done), ..all.clone() }, &["a"]),
        (JobFilter { state: Some(JobState::Dead), ..all.clone() }, &[]),
        (JobFilter { id: Some(JobId::new("d")), state: Some(JobState::Pending), limit: 10 }, &["d"]),
    ];
    for (filter, expected) in cases {
        let found = stores.jobs.list(&tenant(), &filter, at(0)).await.expect("a listing");
        let found: Vec<&str> = found.iter().map(|job| job.job.id.as_str()).collect();
        assert_eq!(found, expected, "{filter:?}");
    }
}

pub(crate) async fn jobs_of_two_tenants_share_nothing_but_the_queue(stores: &Stores) {
    enqueue(stores, "j", 10).await;
    let elsewhere = NewJob { tenant: TenantId::new("other"), ..job("j") };
    assert!(stores.jobs.enqueue(&elsewhere, AT_ONCE, at(10)).await.expect("an answer"));
    let deliveries = receive(stores, 10, 20, 100).await;
    let tenants: Vec<&str> = deliveries.iter().map(|delivery| delivery.job.job.tenant.as_str()).collect();
    assert_eq!(tenants, ["main", "other"]);
    stores.jobs.settle(&deliveries[0].receipt, &Outcome::Done, at(30)).await.expect("a settlement");
    let all = JobFilter { limit: 10, ..JobFilter::default() };
    let theirs = stores.jobs.list(&TenantId::new("other"), &all, at(0)).await.expect("a listing");
    assert_eq!(theirs.iter().map(|job| job.state).collect::<Vec<_>>(), [JobState::Pending]);
}

pub(crate) async fn many_workers_get_each_job_once(stores: &Stores) {
    for number in 0..40 {
        enqueue(stores, &format!("j{number:02}"), 10).await;
    }
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let stores = stores.clone();
        tasks.spawn(async move { receive(&stores, 3, 20, 100).await });
    }
    let delivered: Vec<Delivery> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(delivered.len(), 40);
    let distinct: BTreeSet<&str> = ids(&delivered).into_iter().collect();
    assert_eq!(distinct.len(), 40);
}
