//! `reef deploy` against programs that stand in for `sam`, `aws`, `cargo` and `curl`: what it runs, in which order, and where
//! it stops.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const REEF: &str = env!("CARGO_BIN_EXE_reef");

/// What the stand-ins answer if all is well.
const CONTENT: &str = r#"
    "aws --version") echo aws-cli/2.31.0 ;;
    "aws sts "*) echo 111122223333 ;;
    "aws route53 "*) echo example.com. ;;
    "aws cloudformation "*us-east-1*) echo https://one.example.com/live ;;
    "aws cloudformation "*eu-central-1*) echo https://two.example.com/live ;;
    "aws lambda "*) echo '{"ready": true}' ;;
    "curl --version") ;;
    "curl "*) echo '{"ready":true}' ;;
"#;

const SAMCONFIG: &str = r#"
version = 0.1
[dev-global.deploy.parameters]
stack_name = "reef-dev-global"
region = "us-east-1"
parameter_overrides = ["Environment=dev"]
[dev-us-east-1.build.parameters]
template_file = "infra/aws/region.yaml"
[dev-us-east-1.deploy.parameters]
stack_name = "reef-dev-region"
region = "us-east-1"
parameter_overrides = ["Environment=dev", "Regions=us-east-1,eu-central-1"]
[dev-eu-central-1.build.parameters]
template_file = "infra/aws/region.yaml"
[dev-eu-central-1.deploy.parameters]
stack_name = "reef-dev-region"
region = "eu-central-1"
parameter_overrides = ["Environment=dev", "Regions=us-east-1,eu-central-1"]
[dev-edge.deploy.parameters]
stack_name = "reef-dev-edge"
region = "us-east-1"
parameter_overrides = ["Environment=dev", "DomainName=reef.example.com", "HostedZoneId=Z1"]
"#;

const PREREQUISITES: [&str; 7] = [
    "sam --version",
    "aws --version",
    "cargo lambda --version",
    "curl --version",
    "aws sts get-caller-identity --region eu-central-1 --query Account --output text",
    "aws sts get-caller-identity --region us-east-1 --query Account --output text",
    "aws route53 get-hosted-zone --id Z1 --query HostedZone.Name --output text",
];

fn query(region: &str) -> String {
    format!(
        "aws cloudformation describe-stacks --region {region} --stack-name reef-dev-region --query \
         Stacks[0].Outputs[?OutputKey=='ApiUrl'].OutputValue --output text"
    )
}

fn ready(address: &str) -> String {
    format!("curl --fail --silent --show-error --max-time 60 {address}/readyz")
}

fn ask(region: &str, function: &str) -> String {
    format!(
        "aws lambda invoke --region {region} --function-name reef-dev-{function}:live --cli-binary-format \
         raw-in-base64-out --payload {{\"check\":\"ready\"}} /dev/stdout"
    )
}

fn probes(region: &str, address: &str) -> Vec<String> {
    vec![ready(address), ask(region, "agent-invoke"), ask(region, "queue-worker")]
}

/// A folder with `samconfig.toml` and the stand-ins.
struct Desk(TempDir);

impl Desk {
    /// `answers` come before those of [`CONTENT`], as arms of a shell's `case`.
    fn new(answers: &str) -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        fs::write(desk.path().join("samconfig.toml"), SAMCONFIG).unwrap();
        fs::write(desk.path().join("calls"), "").unwrap();
        let calls = desk.path().join("calls");
        let script = format!(
            "#!/bin/sh\ncall=\"${{0##*/}} $*\"\necho \"$call\" >> '{}'\ncase \"$call\" in\n{answers}\n{CONTENT}\n*) echo did it ;;\nesac\n",
            calls.display()
        );
        let bin = desk.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for name in ["sam", "aws", "cargo", "curl"] {
            fs::write(bin.join(name), &script).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        desk
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Exit code, standard output, standard error.
    fn deploy(&self, more: &[&str]) -> (i32, String, String) {
        let ended = Command::new(REEF)
            .args(["deploy"])
            .args(more)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", self.path().join("bin"))
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (ended.status.code().unwrap(), text(&ended.stdout), text(&ended.stderr))
    }

    /// What was run.
    fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.path().join("calls")).unwrap().lines().map(str::to_owned).collect()
    }
}

#[test]
fn stacks_are_deployed_one_after_the_other_and_each_is_probed() {
    let desk = Desk::new("");
    let (code, said, complaints) = desk.deploy(&["dev"]);
    assert_eq!((code, complaints.as_str()), (0, ""), "{said}");
    let (one, two) = ("https://one.example.com/live", "https://two.example.com/live");
    let edge = ready("https://reef.example.com");
    let mut expected: Vec<String> = PREREQUISITES.map(str::to_owned).into();
    let line = |text: &str| vec![text.to_owned()];
    let steps = [
        line("sam deploy --config-env dev-global"),
        line("sam build --config-env dev-us-east-1"),
        line("sam deploy --config-env dev-us-east-1"),
        vec![query("us-east-1")],
        probes("us-east-1", one),
        line("sam deploy --config-env dev-eu-central-1"),
        vec![query("eu-central-1")],
        probes("eu-central-1", two),
        line("sam deploy --config-env dev-edge"),
        vec![edge.clone()],
        // All of them once more.
        probes("us-east-1", one),
        probes("eu-central-1", two),
        vec![edge],
    ];
    expected.extend(steps.concat());
    assert_eq!(desk.calls(), expected);
    let end = "deployed:\n  reef-dev-global in us-east-1\n  reef-dev-region in us-east-1, https://one.example.com/live\n  \
               reef-dev-region in eu-central-1, https://two.example.com/live\n  reef-dev-edge in us-east-1\n";
    assert!(said.ends_with(end), "{said}");
}

#[test]
fn a_dry_run_prints_the_commands_and_runs_none() {
    let desk = Desk::new("");
    let (code, said, complaints) = desk.deploy(&["dev", "--dry-run"]);
    assert_eq!((code, complaints.as_str()), (0, ""));
    assert_eq!(desk.calls(), Vec::<String>::new());
    let region = |region: &str| {
        [
            format!(
                "URL=$(aws cloudformation describe-stacks --region {region} --stack-name reef-dev-region --query \
                 'Stacks[0].Outputs[?OutputKey=='\\''ApiUrl'\\''].OutputValue' --output text)"
            ),
            "curl --fail --silent --show-error --max-time 60 \"$URL/readyz\"".to_owned(),
            ask(region, "agent-invoke").replace(r#"{"check":"ready"}"#, r#"'{"check":"ready"}'"#),
            ask(region, "queue-worker").replace(r#"{"check":"ready"}"#, r#"'{"check":"ready"}'"#),
        ]
    };
    let mut expected = vec!["# prerequisites".to_owned()];
    expected.extend(PREREQUISITES.map(str::to_owned));
    expected.extend(
        [
            "# reef-dev-global in us-east-1",
            "sam deploy --config-env dev-global",
            "# reef-dev-region in us-east-1",
        ]
        .map(str::to_owned),
    );
    expected.extend(
        ["sam build --config-env dev-us-east-1", "sam deploy --config-env dev-us-east-1"].map(str::to_owned),
    );
    expected.extend(region("us-east-1"));
    expected.extend(
        ["# reef-dev-region in eu-central-1", "sam deploy --config-env dev-eu-central-1"].map(str::to_owned),
    );
    expected.extend(region("eu-central-1"));
    expected.extend(["# reef-dev-edge in us-east-1", "sam deploy --config-env dev-edge"].map(str::to_owned));
    expected.push(ready("https://reef.example.com"));
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn it_stops_at_the_first_stack_that_fails_and_says_what_is_live() {
    let desk = Desk::new(r#""sam deploy --config-env dev-eu-central-1") echo no rights; exit 3 ;;"#);
    let (code, _, complaints) = desk.deploy(&["dev"]);
    assert_eq!(code, 1);
    let expected = "reef: stopped: `sam deploy --config-env dev-eu-central-1` ended with exit status: 3\n\
                    live:\n  reef-dev-global in us-east-1\n  reef-dev-region in us-east-1, https://one.example.com/live\n\
                    failed, and as it was before or broken:\n  reef-dev-region in eu-central-1\n\
                    not touched:\n  reef-dev-edge in us-east-1\n\
                    Mend it and run the same command again: what is up to date is left as it is.\n";
    assert_eq!(complaints, expected);
    assert_eq!(desk.calls().last().unwrap(), "sam deploy --config-env dev-eu-central-1");
}

#[test]
fn a_region_that_is_deployed_but_does_not_work_stops_it() {
    for (broken, told) in [
        (
            r#""curl "*one.example.com*) echo '{"ready":false}' ;;"#,
            "`curl --fail --silent --show-error --max-time 60 https://one.example.com/live/readyz` answered: {\"ready\":false}",
        ),
        (
            r#""aws lambda "*queue-worker*) echo no such function >&2; exit 254 ;;"#,
            "/dev/stdout` ended with exit status: 254: no such function",
        ),
        (r#""aws cloudformation "*) echo None ;;"#, "the stack does not say where it answers: None"),
    ] {
        let desk = Desk::new(broken);
        let (code, _, complaints) = desk.deploy(&["dev"]);
        assert_eq!(code, 1);
        assert!(complaints.contains(told), "{complaints}");
        assert!(complaints.contains("live:\n  reef-dev-global in us-east-1\nfailed"), "{complaints}");
        assert!(!desk.calls().iter().any(|call| call.contains("dev-eu-central-1")), "{complaints}");
    }
}

#[test]
fn all_prerequisites_that_are_missing_are_told_at_once_and_nothing_is_changed() {
    let desk = Desk::new(
        r#""aws --version") echo aws-cli/1.46.2 ;;
           "cargo lambda"*) echo no such command >&2; exit 101 ;;
           "aws sts "*eu-central-1*) echo not enabled >&2; exit 254 ;;
           "aws route53 "*) echo other.example. ;;"#,
    );
    fs::remove_file(desk.path().join("bin/curl")).unwrap();
    let (code, _, complaints) = desk.deploy(&["dev"]);
    let expected = "reef: prerequisites are missing; nothing was changed\n  \
        version 2 of the AWS CLI is needed: found aws-cli/1.46.2\n  \
        cargo-lambda is needed: pip install cargo-lambda: `cargo lambda --version` ended with exit status: 101: no such command\n  \
        curl is needed: `curl` is not installed, or not on the PATH\n  \
        there are no credentials for eu-central-1, or the account has it switched off; try `aws configure`: `aws sts get-caller-identity \
        --region eu-central-1 --query Account --output text` ended with exit status: 254: not enabled\n  \
        HostedZoneId Z1 of samconfig.toml does not fit: it is the zone other.example, and reef.example.com is not in it\n";
    assert_eq!((code, complaints.as_str()), (1, expected));
    assert!(!desk.calls().iter().any(|call| call.contains("deploy") || call.contains("build")));
}

#[test]
fn settings_that_do_not_fit_are_told_before_anything_is_run() {
    let desk = Desk::new("");
    let told = |arguments: &[&str]| desk.deploy(arguments).2;
    assert_eq!(
        told(&["test"]),
        "reef: samconfig.toml: 1 problem\n  there is no environment test; there are: dev\n"
    );
    assert!(told(&["dev", "--samconfig", "no.toml"]).starts_with(
        "reef: no.toml cannot be read; run this at the top of the repository, or name it with --samconfig: "
    ));
    fs::write(desk.path().join("samconfig.toml"), "[dev-global").unwrap();
    assert!(told(&["dev"]).starts_with("reef: samconfig.toml is not understood: "));
    assert_eq!(desk.calls(), Vec::<String>::new());
}

#[test]
fn our_own_samconfig_is_deployed_in_the_order_of_its_regions() {
    let desk = Desk::new("");
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samconfig.toml");
    fs::copy(ours, desk.path().join("samconfig.toml")).unwrap();
    for environment in ["dev", "prod"] {
        let (code, said, complaints) = desk.deploy(&[environment, "--dry-run"]);
        assert_eq!((code, complaints.as_str()), (0, ""));
        let deployed: Vec<_> =
            said.lines().filter(|line| line.starts_with("sam ") && !line.contains("--version")).collect();
        let expected = [
            "deploy global",
            "build us-east-1",
            "deploy us-east-1",
            "deploy eu-central-1",
            "deploy ap-northeast-1",
        ]
        .map(|step| step.split_once(' ').unwrap())
        .map(|(command, name)| format!("sam {command} --config-env {environment}-{name}"));
        assert_eq!(deployed, expected);
    }
}
