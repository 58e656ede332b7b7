//! The events in `events/`, as AWS sends them, replayed through the real binaries; what comes back is pinned.
//!
//! A file's name is `<function>-<case>.json`. The same files work with `sam local invoke` and `cargo lambda invoke`; the
//! README shows how.

#![expect(clippy::expect_used, reason = "a test fails by a panic")]

use harness::cloud::{AGENT_INVOKE, Deployment, GATEWAY, Programs, QUEUE_WORKER};
use harness::stores::token;
use serde_json::{Value, json};
use shared::agent::{RunOptions, RunRequest};
use shared::clock::Timestamp;
use shared::error::StoreError;
use shared::id::{JobId, TenantId};
use shared::job::{JobFilter, JobState, NewJob, Work};
use shared::message::{MessageBody, Part};
use shared::principal::{Scope, Token, secret_sha256};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PROGRAMS: Programs = Programs {
    gateway: env!("CARGO_BIN_EXE_gateway-under-test"),
    agent_invoke: env!("CARGO_BIN_EXE_agent-invoke-under-test"),
    queue_worker: env!("CARGO_BIN_EXE_queue-worker-under-test"),
};

/// The files of one function, by case.
fn events(function: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../events");
    let files = std::fs::read_dir(folder).expect("the events").map(|file| file.expect("a file").path());
    let name = |path: &PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    let mut found: Vec<_> = files
        .filter(|path| name(path).starts_with(&format!("{function}-")))
        .map(|path| (name(&path), std::fs::read(&path).expect("an event")))
        .collect();
    found.sort();
    assert!(found.len() > 2, "the events of {function} are missing");
    found
}

async fn deploy() -> Deployment {
    let agent = |id: &str| json!({"id": id, "model": "demo/echo", "workspace": id});
    // Networks from which CloudFront asks, as `gateway.trustedProxies` takes them.
    let edge = json!({"trustedProxies": ["130.176.0.0/16", "2600:9000:1000::/36"]});
    let settings = json!({"agents": [agent("main"), agent("email-manager")], "gateway": edge});
    let deployment = Deployment::start(PROGRAMS, &settings).await;
    // The token that the events bring: its secret is no secret.
    let token = Token {
        tenant: TenantId::single(),
        secret_sha256: secret_sha256("exampleonly"),
        scopes: vec![Scope::Chat, Scope::Hooks],
        cidrs: Some(vec!["203.0.113.9/32".parse().expect("a network")]),
        ..token("01EVENTS", 0)
    };
    deployment.stores.tokens.insert(&token).await.expect("a stored token");
    deployment
}

/// What came back, without what is new each time.
fn pin(case: &str, answer: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("events/snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.add_filter("[0-7][0-9A-HJKMNP-TV-Z]{25}", "[ulid]");
    settings.add_filter(r#""(created|at)":\d+"#, r#""$1":0"#);
    settings.add_filter(r#""version":"[^"]+""#, r#""version":"[version]""#);
    // The length goes with what changes.
    settings.add_filter(r#"(?s)content-length: \d+(.*"uptimeMs":)\d+"#, "content-length: [length]${1}0");
    settings.bind(|| insta::assert_snapshot!(case, answer));
}

/// A streamed answer: the runtime's prelude, and what stands behind its NULs.
fn split(answer: &[u8]) -> (Value, String) {
    let end = answer.windows(8).position(|window| window == [0; 8]).expect("the prelude's end");
    let prelude = serde_json::from_slice(&answer[..end]).expect("a prelude in JSON");
    (prelude, String::from_utf8(answer[end + 8..].to_vec()).expect("text"))
}

#[tokio::test]
async fn the_gateway_answers_its_recorded_events() {
    let deployment = deploy().await;
    for (case, event) in events(GATEWAY) {
        let answer = deployment.platform.answer(GATEWAY, event).await;
        let (prelude, body) = split(&answer.unwrap_or_else(|error| panic!("{case}: {error:?}")));
        let mut text = format!("{}\n", prelude["statusCode"]);
        for (name, value) in prelude["headers"].as_object().expect("headers") {
            writeln!(text, "{name}: {}", value.as_str().unwrap_or_default()).expect("memory");
        }
        pin(&case, &format!("{text}\n{body}"));
    }
}

#[tokio::test]
async fn the_agents_function_answers_its_recorded_events() {
    let deployment = deploy().await;
    for (case, event) in events(AGENT_INVOKE) {
        let answer = deployment.platform.answer(AGENT_INVOKE, event).await;
        pin(&case, &split(&answer.unwrap_or_else(|error| panic!("{case}: {error:?}"))).1);
    }
}

#[tokio::test]
async fn the_worker_answers_its_recorded_events() {
    let deployment = deploy().await;
    let tenant = TenantId::single();
    let jobs = &deployment.stores.jobs;
    for (id, agent) in [("01EVENTSGOOD", "main"), ("01EVENTSPOISON", "nobody")] {
        let request = RunRequest {
            turn: format!("{id}TURN").into(),
            tenant: tenant.clone(),
            principal: "01EVENTS".into(),
            agent: agent.into(),
            session: format!("agent:{agent}:events").into(),
            sticky: true,
            idempotency: None,
            input: vec![MessageBody::User { parts: vec![Part::Text { text: "good morning".to_owned() }] }],
            options: RunOptions::default(),
        };
        let job = NewJob { id: id.into(), tenant: tenant.clone(), work: Work::Turn(Box::new(request)) };
        let is_new = jobs.enqueue(&job, Duration::ZERO, Timestamp::EPOCH).await.expect("a stored job");
        assert!(is_new);
    }
    for (case, event) in events(QUEUE_WORKER) {
        let answer = deployment.platform.answer(QUEUE_WORKER, event).await;
        let answer = answer.unwrap_or_else(|error| panic!("{case}: {error:?}"));
        pin(&case, std::str::from_utf8(&answer).expect("text"));
    }
    let state = async |id: &str| -> Result<_, StoreError> {
        let filter = JobFilter { id: Some(JobId::new(id)), state: None, limit: 1 };
        let found = jobs.list(&tenant, &filter, Timestamp::EPOCH).await?;
        Ok(found.first().map(|job| (job.state, job.reason.clone())))
    };
    let good = state("01EVENTSGOOD").await.expect("the job");
    assert_eq!(good, Some((JobState::Done, None)), "{}", deployment.unusual());
    let reason = "invalid: Unknown agent 'nobody'.".to_owned();
    assert_eq!(state("01EVENTSPOISON").await.expect("the job"), Some((JobState::Dead, Some(reason))));
    assert_eq!(deployment.metric(QUEUE_WORKER, "DeadJobs").await, [1.0]);
    assert_eq!(deployment.metric(QUEUE_WORKER, "Turns").await, [1.0]);
    assert_eq!(deployment.metric(QUEUE_WORKER, "TurnErrors").await, [0.0; 0]);
}
