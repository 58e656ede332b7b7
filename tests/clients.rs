//! The stock OpenAI clients, in Python and in Node, and the acceptance cases of the Open Responses specification,
//! against the real binary. What they check is in `tests/clients`.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use harness::process::Site;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

const REEF: &str = env!("CARGO_BIN_EXE_reef");

/// No suite takes so long; a hang becomes a failure.
const LIMIT: Duration = Duration::from_secs(300);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Stops a test whose client is not installed.
fn installed(path: &Path) {
    assert!(path.exists(), "{} is missing: `tests/run tools` installs it", path.display());
}

/// Runs a suite against a server of its own; it must succeed.
async fn run(mut suite: Command) {
    let agent = |id: &str| json!({"id": id, "model": "demo/echo", "workspace": id});
    let site = Site::new(REEF, &json!({"agents": [agent("main"), agent("email-manager")]}));
    let token = site.token("chat").await;
    let slow = ["token", "create", "--name", "slow", "--scopes", "chat", "--rate-limit", "1,0", "--json"];
    let slow = site.json(&slow).await["token"].as_str().expect("a token").to_owned();
    let server = site.serve(&[]);
    let url = server.url().await.unwrap_or_else(|| panic!("no server:\n{}", server.output()));

    // Nothing of this host's own settings, a proxy's above all.
    suite
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("REEF_TEST_URL", url)
        .env("REEF_TEST_TOKEN", token)
        .env("REEF_TEST_SLOW_TOKEN", slow)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended =
        timeout(LIMIT, suite.output()).await.expect("a suite that ends").expect("a suite that starts");
    let said = [&ended.stdout, &ended.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    // One line for each request would bury what the suite says.
    let server = server.output();
    let unusual =
        server.lines().filter(|line| !line.contains(r#""level":"info""#)).collect::<Vec<_>>().join("\n");
    assert!(ended.status.success(), "the server said:\n{unusual}\nthe suite said:\n{}", said.concat());
}

#[tokio::test]
async fn the_stock_python_client_and_the_open_responses_cases_get_right_answers() {
    let python = root().join(".venv/bin/python");
    installed(&python);
    let mut suite = Command::new(python);
    suite
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .current_dir(root().join("tests/clients/python"));
    run(suite).await;
}

#[tokio::test]
async fn the_stock_node_client_gets_right_answers() {
    let folder = root().join("tests/clients/node");
    installed(&folder.join("node_modules/openai"));
    let mut suite = Command::new("node");
    suite.arg("--test").current_dir(folder);
    run(suite).await;
}
