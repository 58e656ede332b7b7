//! The templates of `infra/aws`: rules over what SAM makes of them, AWS's checkers, what they cost, and their deployment
//! into an emulated AWS. What is checked is in `tests/templates`, in Python, because SAM's transform is.

#![expect(clippy::expect_used, reason = "a test fails by a panic")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the suites start.
const PROGRAMS: [(&str, &str); 4] = [
    ("REEF_TEST_REEF", env!("CARGO_BIN_EXE_reef-under-test")),
    ("REEF_TEST_GATEWAY", env!("CARGO_BIN_EXE_gateway-under-test")),
    ("REEF_TEST_AGENT_INVOKE", env!("CARGO_BIN_EXE_agent-invoke-under-test")),
    ("REEF_TEST_QUEUE_WORKER", env!("CARGO_BIN_EXE_queue-worker-under-test")),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs one file of tests; all of them must succeed.
fn run(module: &str) {
    let python = root().join(".venv-sam/bin/python");
    assert!(python.exists(), "{} is missing: `tests/run tools` installs it", python.display());
    let ended = Command::new(python)
        .args(["-m", "unittest", "--quiet", module])
        .current_dir(root().join("tests/templates"))
        // Nothing of this host's own settings, its AWS account above all.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(PROGRAMS)
        .stdin(Stdio::null())
        .output()
        .expect("a suite that starts");
    let said = [&ended.stdout, &ended.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(ended.status.success(), "{}", said.concat());
}

#[test]
fn the_templates_keep_the_rules_and_each_rule_finds_what_breaks_it() {
    run("test_rules");
}

#[test]
fn the_checkers_find_only_what_is_explained() {
    run("test_linters");
}

#[test]
fn a_version_that_is_not_ready_gets_no_traffic() {
    run("test_pre_traffic");
}

#[test]
fn two_idle_regions_cost_at_most_five_dollars_a_month() {
    run("test_cost");
}

#[test]
fn every_stack_is_deployed_into_an_emulated_aws() {
    run("test_deploy");
}

#[test]
fn a_chat_turn_and_a_job_run_through_the_deployed_stack() {
    run("test_local_cloud");
}
