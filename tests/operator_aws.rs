//! The operator's commands on an environment on AWS (emulated): the same as on a site's folder.

#![expect(clippy::expect_used, reason = "a test that cannot set itself up fails")]

use harness::dynamo::{self, Dynamo, here};
use harness::sqs::Sqs;
use harness::stores::{at, new_turn, run, stores_of};
use serde_json::{Value, json};
use shared::adapters::aws::dynamodb::schema::{CORE_INDEXES, LOCAL_INDEXES};
use shared::adapters::aws::dynamodb::{DynamoStores, DynamoTable};
use shared::agent::{RunOptions, RunRequest};
use shared::app::Stores;
use shared::id::{AgentId, JobId, PrincipalId, SessionKey, TenantId, TurnId};
use shared::job::{Apart, NewJob, Outcome, Work};
use shared::message::MessageBody;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

/// An environment named `test` as the stacks would make it.
struct Environment {
    dynamo: Arc<Dynamo>,
    sqs: Sqs,
    stores: Stores,
}

impl Environment {
    async fn new() -> Self {
        let (dynamo, sqs) = (Dynamo::shared(), Sqs::start());
        let client = dynamo.client();
        dynamo::create(&client, "reef-test-core", &CORE_INDEXES).await;
        dynamo::create(&client, "reef-test-local", &LOCAL_INDEXES).await;
        sqs.client().create_queue().queue_name("reef-test-jobs").send().await.expect("a queue");
        let table = |name: &str| Arc::new(DynamoTable::new(client.clone(), name));
        let stores = DynamoStores::new(table("reef-test-core"), table("reef-test-local"), here());
        Self { dynamo, sqs, stores: stores_of(&Arc::new(stores)) }
    }

    fn reef(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_reef"))
            .args(arguments)
            .env("AWS_ENDPOINT_URL_DYNAMODB", self.dynamo.endpoint())
            .env("AWS_ENDPOINT_URL_SQS", self.sqs.endpoint())
            .env("AWS_REGION", here().region)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .output()
            .expect("reef starts")
    }

    /// What a command prints.
    fn prints(&self, arguments: &[&str]) -> String {
        let output = self.reef(&[&["--aws", "test"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.prints(&[arguments, &["--json"]].concat())).expect("JSON")
    }

    /// What a command that fails says.
    fn complains(&self, arguments: &[&str]) -> String {
        let output = self.reef(arguments);
        assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()), "{arguments:?}");
        String::from_utf8(output.stderr).expect("text")
    }
}

fn job(id: &str) -> NewJob {
    let request = RunRequest {
        turn: TurnId::new(id),
        tenant: TenantId::single(),
        principal: PrincipalId::new("alice"),
        agent: AgentId::new("mail"),
        session: SessionKey::new("s"),
        sticky: true,
        idempotency: None,
        input: vec![MessageBody::user_text("hello")],
        options: RunOptions { trigger: "hook".to_owned(), ..RunOptions::default() },
    };
    NewJob { id: JobId::new(id), tenant: TenantId::single(), work: Work::Turn(Box::new(request)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_sessions_jobs_and_the_audit_trail_of_an_environment_are_at_hand() {
    let environment = Environment::new().await;

    let made = environment.json(&["token", "create", "--name", "ci", "--scopes", "chat"]);
    let id = made["id"].as_str().expect("an id");
    let token = environment.stores.tokens.find(&PrincipalId::new(id)).await.expect("an answer");
    let secret = made["token"].as_str().and_then(|text| text.rsplit('_').next()).expect("its text");
    assert!(token.expect("the token").has_secret(secret));
    assert_eq!(environment.json(&["token", "list"])[0]["state"], "live");
    assert_eq!(environment.json(&["token", "revoke", id])["state"], "revoked");

    let turn = shared::session::NewTurn { tenant: TenantId::single(), ..new_turn("t", "agent:mail:main") };
    run(&environment.stores, &turn, 10).await;
    let sessions = environment.json(&["sessions", "list"]);
    assert_eq!(
        (sessions[0]["key"].clone(), sessions[0]["messages"].clone()),
        (json!("agent:mail:main"), json!(2))
    );
    let exported = environment.prints(&["sessions", "export", "agent:mail:main"]);
    assert_eq!(exported.lines().count(), 2);
    assert_eq!(environment.json(&["audit", "verify"]), json!({"ok": true, "rows": 1, "broken": []}));
    let later = shared::session::NewTurn {
        tenant: TenantId::single(),
        audit: harness::stores::audit("later", 20, "turn.accepted"),
        ..new_turn("later", "agent:mail:main")
    };
    run(&environment.stores, &later, 20).await;
    let ids = |arguments: &[&str]| -> Vec<String> {
        let listed = environment.json(&[&["audit", "list"], arguments].concat());
        let rows = listed.as_array().expect("a list").iter();
        rows.map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(ids(&[]), ["later", "t accepted"], "newest first");
    let fit = ["--agent", "mail", "--by", "alice", "--action", "turn.accepted"];
    assert_eq!(ids(&[&fit[..], &["--until", "1970-01-01T00:00:00.020Z"]].concat()), ["t accepted"]);
    for wrong in [["--agent", "data"], ["--by", "bob"], ["--action", "turn.parked"]] {
        assert_eq!(ids(&wrong), [""; 0], "{wrong:?}");
    }
    let one = environment.prints(&["audit", "list", "--limit", "1"]);
    assert!(one.contains("2 rows fit, the newest 1 are shown; see --limit"), "{one}");

    let jobs = &environment.stores.jobs;
    jobs.enqueue(&job("j"), Duration::ZERO, at(10)).await.expect("a job");
    let deliveries = jobs.receive(1, at(20), at(30), &Apart::default()).await.expect("a delivery");
    let dead = Outcome::Dead { reason: "it was poison".to_owned() };
    jobs.settle(&deliveries[0].receipt, &dead, at(25)).await.expect("settled");
    let listed = environment.json(&["jobs", "list", "--state", "dead"]);
    assert_eq!(listed["jobs"][0]["reason"], "it was poison");
    assert_eq!(environment.json(&["jobs", "redrive", "j"])["state"], "pending");
    let queue = environment.sqs.client();
    let address =
        queue.get_queue_url().queue_name("reef-test-jobs").send().await.expect("the queue").queue_url;
    let messages = queue.receive_message().set_queue_url(address).send().await.expect("an answer");
    let bodies: Vec<_> = messages.messages().iter().filter_map(|message| message.body()).collect();
    let pointer = format!(r#"{{"tenant":"{}","job":"j"}}"#, TenantId::single());
    assert_eq!(bodies, [pointer.as_str()], "a redriven job's message is sent at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_on_aws_are_those_of_the_settings_that_are_named() {
    let environment = Environment::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("openclaw.json");
    let settings = json!({"agents": [{"id": "mail", "model": "demo/echo", "workspace": {"root": "./mail"}}]});
    std::fs::write(&file, settings.to_string()).expect("a settings file");
    let file = file.to_str().expect("a path in UTF-8");

    let unnamed = "reef: --aws: which agents there are is read from the settings that were deployed; name the file with \
                   --config or REEF_CONFIG, e.g. --config infra/agents/openclaw.json\n";
    // The agent is one of the built-in examples, which nobody has deployed.
    let create =
        |agent: &'static str| ["token", "create", "--name", "ci", "--scopes", "chat", "--agents", agent];
    assert_eq!(environment.complains(&[&["--aws", "test"], &create("email-manager")[..]].concat()), unnamed);
    assert_eq!(environment.complains(&["--aws", "test", "agents", "list"]), unnamed);

    let listed = environment.json(&["--config", file, "agents", "list"]);
    let seen: Vec<_> =
        listed.as_array().expect("a list").iter().map(|one| (&one["id"], &one["workspace"])).collect();
    assert_eq!(seen, [(&json!("mail"), &json!("/opt/mail"))]);
    let named = [&["--aws", "test", "--config", file], &create("email-manager")[..]].concat();
    assert_eq!(
        environment.complains(&named),
        "reef: --agents: there is no agent email-manager; there are mail\n"
    );
    let made = environment.json(&[&["--config", file], &create("mail")[..]].concat());
    assert_eq!(made["agents"], json!(["mail"]));
    assert_eq!(environment.stores.tokens.list(&TenantId::single()).await.expect("tokens").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_on_aws_is_said() {
    let environment =
        Environment { stores: harness::stores::memory().stores, dynamo: Dynamo::shared(), sqs: Sqs::start() };
    let unknown = environment.complains(&["--aws", "none", "jobs", "list"]);
    let start = "reef: the environment none on AWS cannot be used: its queue reef-none-jobs is not found in eu-central-1; \
                 is it deployed there?";
    assert!(unknown.starts_with(start), "{unknown}");
    let served = environment.complains(&["--aws", "test", "serve"]);
    assert_eq!(
        served,
        "reef: `reef serve` runs agents on this machine; --aws and REEF_AWS are for token, agents, sessions, jobs, audit \
         and region\n"
    );
}
