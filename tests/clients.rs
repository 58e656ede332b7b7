//! The stock OpenAI clients, in Python and in Node, and the acceptance cases of the Open Responses specification,
//! against the real binary. What they check is in `tests/clients`.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use harness::clients::{self, Target};
use harness::process::{Process, Site};
use serde_json::json;

const REEF: &str = env!("CARGO_BIN_EXE_reef");

/// The agents that the suites expect.
const AGENTS: [&str; 2] = ["main", "email-manager"];

/// A server of its own for each suite.
async fn serve(agents: &[&str]) -> (Site, Process, Target) {
    let agent = |id: &&str| json!({"id": id, "model": "demo/echo", "workspace": id});
    let agents: Vec<_> = agents.iter().map(agent).collect();
    let site = Site::new(REEF, &json!({"agents": agents}));
    let token = site.token("chat").await;
    let slow = ["token", "create", "--name", "slow", "--scopes", "chat", "--rate-limit", "1,0", "--json"];
    let slow_token = site.json(&slow).await["token"].as_str().expect("a token").to_owned();
    let server = site.serve(&[]);
    let url = server.url().await.unwrap_or_else(|| panic!("no server:\n{}", server.output()));
    (site, server, Target { url, token, slow_token })
}

fn check(suite: Result<(), String>, server: &Process) {
    // One line for each request would bury what the suite says.
    let server = server.output();
    let unusual =
        server.lines().filter(|line| !line.contains(r#""level":"info""#)).collect::<Vec<_>>().join("\n");
    assert!(
        suite.is_ok(),
        "the server said:\n{unusual}\nthe suite said:\n{}",
        suite.err().unwrap_or_default()
    );
}

#[tokio::test]
async fn the_stock_python_client_and_the_open_responses_cases_get_right_answers() {
    let (_site, server, target) = serve(&AGENTS).await;
    check(clients::python(&target).await, &server);
}

#[tokio::test]
async fn the_stock_node_client_gets_right_answers() {
    let (_site, server, target) = serve(&AGENTS).await;
    check(clients::node(&target).await, &server);
}

#[tokio::test]
async fn the_readmes_lines_for_the_stock_clients_run_as_they_are_pasted() {
    let (_site, server, target) = serve(&["email-manager", "data-analyst"]).await;
    for (readme, said) in [("README.md", "Hello"), ("README.ja.md", "こんにちは")] {
        let printed = clients::readme(readme, &target).await;
        let expected = format!("You said: {said}\n");
        assert_eq!(printed, Ok([expected.clone(), expected]), "{}", server.output());
    }
}
