//! A desk with programs that stand in for `sam`, `aws`, `cargo`, `curl` and Zig.

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
    "aws service-quotas "*) echo 1000.0 ;;
    "aws cloudformation "*StackStatus*) echo UPDATE_COMPLETE ;;
    "aws cloudformation "*us-east-1*) echo https://one.example.com/live ;;
    "aws cloudformation "*eu-central-1*) echo https://two.example.com/live ;;
    "aws secretsmanager "*VersionId*) echo version-1 ;;
    "aws secretsmanager "*SecretString*) echo '{"ANTHROPIC_API_KEY":"sk-precious","OPENAI_API_KEY":""}' ;;
    "aws lambda "*) echo '{"ready": true}' ;;
    "curl --version") ;;
    "curl "*) echo '{"ok":true,"status":"started"}' ;;
"#;

pub(crate) const SAMCONFIG: &str = r#"
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
parameter_overrides = ["Environment=dev", "Regions=us-east-1,eu-central-1", "DomainName=origin.example.com"]
[dev-eu-central-1.build.parameters]
template_file = "infra/aws/region.yaml"
[dev-eu-central-1.deploy.parameters]
stack_name = "reef-dev-region"
region = "eu-central-1"
parameter_overrides = ["Environment=dev", "Regions=us-east-1,eu-central-1", "DomainName=origin.example.com"]
[dev-edge.deploy.parameters]
stack_name = "reef-dev-edge"
region = "us-east-1"
parameter_overrides = ["Environment=dev", "DomainName=reef.example.com", "OriginDomainName=origin.example.com", "HostedZoneId=Z1"]
"#;

/// As much of a region's template as is read: some defaults, and the names of the keys.
const TEMPLATE: &str = r#"
Parameters:
  Architecture:
    Default: arm64
  WorkerConcurrency:
    Default: 10
A: !Sub "{{resolve:secretsmanager:reef-${Environment}-provider-keys:SecretString:ANTHROPIC_API_KEY::${ProviderKeysVersion}}}"
B: !Sub "{{resolve:secretsmanager:reef-${Environment}-provider-keys:SecretString:OPENAI_API_KEY::${ProviderKeysVersion}}}"
"#;

const SETTINGS: &str = r#"{agents: [{id: "a", model: "anthropic/claude-sonnet-5-5"}]}"#;

/// A folder with `samconfig.toml` and the stand-ins.
pub(crate) struct Desk(TempDir);

impl Desk {
    /// `answers` come before those of [`CONTENT`], as arms of a shell's `case`.
    pub(crate) fn new(answers: &str) -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        desk.write("samconfig.toml", SAMCONFIG);
        desk.write("infra/aws/region.yaml", TEMPLATE);
        desk.write("infra/agents/openclaw.json", SETTINGS);
        desk.write("infra/agents/workspaces/a/AGENTS.md", "You help.");
        fs::write(desk.path().join("calls"), "").unwrap();
        let calls = desk.path().join("calls");
        let script = format!(
            "#!/bin/sh\ncall=\"${{0##*/}} $*\"\necho \"$call\" >> '{}'\ncase \"$call\" in\n{answers}\n{CONTENT}\n*) echo did it ;;\nesac\n",
            calls.display()
        );
        let bin = desk.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for name in ["sam", "aws", "cargo", "curl", "zig", "python3"] {
            fs::write(bin.join(name), &script).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        desk
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Exit code, standard output, standard error.
    pub(crate) fn deploy(&self, more: &[&str]) -> (i32, String, String) {
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
    pub(crate) fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.path().join("calls")).unwrap().lines().map(str::to_owned).collect()
    }
}
