//! The job queue of the real binary: nobody's jobs take the others' places.

use harness::client::Client;
use harness::process::Site;
use harness::vendor::{Answer, Gate, Vendor};
use serde_json::{Value, json};

/// Far more than there are places.
const FLOOD: usize = 100;

/// A response in the background, of this agent.
async fn ask(client: &Client, agent: &str) -> Value {
    let body = json!({"model": format!("openclaw/{agent}"), "input": "hello", "background": true});
    let reply = client.post("/v1/responses", &[], &body).await.expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()
}

/// What a scrape says of the queue.
async fn scraped(client: &Client) -> Vec<String> {
    let text = client.get("/metrics").await.expect("an answer").body;
    let lines = text.lines().filter(|line| line.starts_with("reef_jobs") || line.starts_with("reef_worker"));
    lines.filter(|line| !line.contains("oldest_due")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_jobs_for_a_silent_vendor_keeps_nobody_elses_job_waiting() {
    let (vendor, silence) = (Vendor::start().await, Gate::new());
    for _ in 0..FLOOD {
        vendor.answer(Answer::Silence(silence.clone()));
    }
    let site = Site::new(
        env!("CARGO_BIN_EXE_reef-under-test"),
        &json!({
            "agents": [
                {"id": "main", "model": "silent/m", "workspace": "./main"},
                {"id": "mail", "model": "demo/echo", "workspace": "./mail"},
            ],
            "models": {"providers": {"silent": {"baseUrl": format!("{}/v1", vendor.url()), "api": "openai-completions"}}},
        }),
    );
    let (one, other) = (site.token("chat,metrics").await, site.token("chat,metrics").await);
    let process = site.serve(&[("REEF_LOG", "info")]);
    let url = process.url().await.expect("a server");
    let (one, other) = (Client::new(&url, &one), Client::new(&url, &other));
    for _ in 0..FLOOD {
        ask(&one, "main").await;
    }
    // As many as a token may have of eight.
    for _ in 0..6 {
        silence.reached().await;
    }
    let mut told = scraped(&one).await;
    told.sort();
    let expected = [
        "reef_jobs_pending 100",
        r#"reef_jobs{state="dead"} 0"#,
        r#"reef_jobs{state="due"} 94"#,
        r#"reef_jobs{state="hidden"} 6"#,
        "reef_worker_places 8",
        "reef_worker_places_in_use 6",
    ];
    assert_eq!(told, expected);

    // Another token's job for another agent ends first of all, although a hundred came before it.
    let job = ask(&other, "mail").await;
    let ended = process.line(|line| line.contains("job ended")).await.expect("an end");
    assert!(ended.contains("done"), "{ended}");
    let id = job["id"].as_str().expect("an id");
    let answer = other.get(&format!("/v1/responses/{id}")).await.expect("an answer").json();
    assert_eq!(answer["status"], "completed", "{answer}");
    // And one for the flooded agent itself gets its place, too.
    ask(&other, "main").await;
    silence.reached().await;
}
