//! The suites of the stock OpenAI clients in `tests/clients`, against any server.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

/// No suite takes so long; a hang becomes a failure.
const LIMIT: Duration = Duration::from_secs(300);

/// A server, and who calls.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its base URL. Its agents are `main` and `email-manager`, both on `demo/echo`.
    pub url: String,
    /// A token for `chat` without a limit that matters.
    pub token: String,
    /// A token for `chat` with one request a second and no burst beyond it.
    pub slow_token: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Stops a test whose client is not installed.
fn installed(path: &Path) {
    assert!(path.exists(), "{} is missing: `tests/run tools` installs it", path.display());
}

/// Runs a suite to its end.
///
/// # Errors
/// What it said, if it failed.
async fn run(mut suite: Command, target: &Target) -> Result<(), String> {
    // Nothing of this host's own settings, a proxy's above all.
    suite
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("REEF_TEST_URL", &target.url)
        .env("REEF_TEST_TOKEN", &target.token)
        .env("REEF_TEST_SLOW_TOKEN", &target.slow_token)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended =
        timeout(LIMIT, suite.output()).await.expect("a suite that ends").expect("a suite that starts");
    let said = [&ended.stdout, &ended.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    if ended.status.success() { Ok(()) } else { Err(said.concat()) }
}

/// The Python client, and the acceptance cases of the Open Responses specification.
///
/// # Errors
/// What the suite said, if it failed.
pub async fn python(target: &Target) -> Result<(), String> {
    let python = root().join(".venv/bin/python");
    installed(&python);
    let mut suite = Command::new(python);
    suite
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .current_dir(root().join("tests/clients/python"));
    run(suite, target).await
}

/// The fenced block of this language in a README, as a reader copies it.
fn block(readme: &str, language: &str) -> String {
    let text = std::fs::read_to_string(root().join(readme)).expect("the README");
    let opening = format!("\n```{language}\n");
    let (_, rest) = text.split_once(&opening).expect("a block of this language");
    let (block, _) = rest.split_once("\n```").expect("its end");
    format!("{block}\n")
}

/// Runs a README's lines for the stock Python and Node clients as they stand there, but for the server's address; returns
/// what each printed.
///
/// # Errors
/// What they said, if one failed.
pub async fn readme(readme: &str, target: &Target) -> Result<[String; 2], String> {
    let python = root().join(".venv/bin/python");
    let node_folder = root().join("tests/clients/node");
    for client in [&python, &node_folder.join("node_modules/openai")] {
        installed(client);
    }
    let mut in_python = Command::new(python);
    in_python.arg("-");
    // Node looks for packages from where a program stands; one that is read has the folder in which it runs.
    let mut in_node = Command::new("node");
    in_node.args(["--input-type=module", "-"]).current_dir(&node_folder);
    let mut printed = [String::new(), String::new()];
    for (at, (mut client, language)) in [(in_python, "python"), (in_node, "js")].into_iter().enumerate() {
        let lines = block(readme, language).replace("http://127.0.0.1:18789", &target.url);
        client
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PYTHONIOENCODING", "utf-8")
            .env("REEF_TOKEN", &target.token)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut started = client.spawn().expect("a client that starts");
        let mut stdin = started.stdin.take().expect("its input");
        stdin.write_all(lines.as_bytes()).await.expect("a client that reads");
        drop(stdin);
        let ended = timeout(LIMIT, started.wait_with_output())
            .await
            .expect("a client that ends")
            .expect("its output");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !ended.status.success() {
            return Err(format!("{readme}, {language}: {}{}", text(&ended.stdout), text(&ended.stderr)));
        }
        printed[at] = text(&ended.stdout);
    }
    Ok(printed)
}

/// The Node client.
///
/// # Errors
/// What the suite said, if it failed.
pub async fn node(target: &Target) -> Result<(), String> {
    let folder = root().join("tests/clients/node");
    installed(&folder.join("node_modules/openai"));
    let mut suite = Command::new("node");
    suite.arg("--test").current_dir(folder);
    run(suite, target).await
}
