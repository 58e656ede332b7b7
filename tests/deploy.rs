//! `reef deploy` against programs that stand in for `sam`, `aws`, `cargo` and `curl`: what it runs, in which order, and where
//! it stops.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

#[path = "deploy/desk.rs"]
mod desk;

use desk::{Desk, SAMCONFIG};
use std::fs;
use std::path::Path;

fn prerequisites() -> Vec<String> {
    let mut all = ["sam --version", "aws --version", "cargo lambda --version", "curl --version"]
        .map(str::to_owned)
        .to_vec();
    if !is_arm() {
        all.push("zig version".to_owned());
    }
    all.extend(["eu-central-1", "us-east-1"].map(|region| {
        format!("aws sts get-caller-identity --region {region} --query Account --output text")
    }));
    all.push("aws route53 get-hosted-zone --id Z1 --query HostedZone.Name --output text".to_owned());
    all.extend(["us-east-1", "eu-central-1"].map(quota));
    all
}

/// Whether functions for arm64 are built without another linker.
fn is_arm() -> bool {
    cfg!(all(target_os = "linux", target_arch = "aarch64"))
}

fn quota(region: &str) -> String {
    format!(
        "aws service-quotas get-service-quota --region {region} --service-code lambda --quota-code L-B99A9384 --query \
         Quota.Value --output text"
    )
}

fn state(region: &str, stack: &str) -> String {
    format!(
        "aws cloudformation describe-stacks --region {region} --stack-name {stack} --query Stacks[0].StackStatus --output text"
    )
}

/// Asks for the secret's version, then for what it holds.
fn keys(region: &str, version: &str) -> [String; 2] {
    let ask =
        format!("aws secretsmanager get-secret-value --region {region} --secret-id reef-dev-provider-keys");
    [
        format!("{ask} --query VersionId --output text"),
        format!("{ask} --version-id {version} --query SecretString --output text"),
    ]
}

fn deploy_region(region: &str, version: &str) -> String {
    format!(
        "sam deploy --config-env dev-{region} --parameter-overrides DomainName=origin.example.com Environment=dev \
         Regions=us-east-1,eu-central-1 ProviderKeysVersion={version}"
    )
}

fn query(region: &str) -> String {
    format!(
        "aws cloudformation describe-stacks --region {region} --stack-name reef-dev-region --query \
         Stacks[0].Outputs[?OutputKey=='ApiUrl'].OutputValue --output text"
    )
}

fn started(address: &str) -> String {
    format!("curl --fail --silent --show-error --max-time 60 {address}/startupz")
}

fn edge_started() -> String {
    "curl --fail --silent --show-error --max-time 60 --retry 20 --retry-all-errors --retry-delay 15 \
     https://reef.example.com/startupz"
        .to_owned()
}

fn ask(region: &str, function: &str) -> String {
    format!(
        "aws lambda invoke --region {region} --function-name reef-dev-{function}:live --cli-binary-format \
         raw-in-base64-out --payload {{\"check\":\"ready\"}} /dev/stdout"
    )
}

fn probes(region: &str, address: &str) -> Vec<String> {
    vec![started(address), ask(region, "agent-invoke"), ask(region, "queue-worker")]
}

#[test]
fn stacks_are_deployed_one_after_the_other_and_each_is_probed() {
    let desk = Desk::new("");
    let (code, said, complaints) = desk.deploy(&["dev"]);
    assert_eq!((code, complaints.as_str()), (0, ""), "{said}");
    let (one, two) = ("https://one.example.com/live", "https://two.example.com/live");
    let mut expected = prerequisites();
    let line = |text: &str| vec![text.to_owned()];
    let steps = [
        vec![state("us-east-1", "reef-dev-global")],
        line("sam deploy --config-env dev-global"),
        vec![state("us-east-1", "reef-dev-region")],
        keys("us-east-1", "version-1").to_vec(),
        line("sam build --config-env dev-us-east-1"),
        vec![deploy_region("us-east-1", "version-1"), query("us-east-1")],
        probes("us-east-1", one),
        vec![state("eu-central-1", "reef-dev-region")],
        keys("eu-central-1", "version-1").to_vec(),
        vec![deploy_region("eu-central-1", "version-1"), query("eu-central-1")],
        probes("eu-central-1", two),
        vec![state("us-east-1", "reef-dev-edge")],
        line("sam deploy --config-env dev-edge"),
        vec![edge_started()],
        // All of them once more.
        probes("us-east-1", one),
        probes("eu-central-1", two),
        vec![edge_started()],
    ];
    expected.extend(steps.concat());
    assert_eq!(desk.calls(), expected);
    let end = "deployed:\n  reef-dev-global in us-east-1\n  reef-dev-region in us-east-1, https://one.example.com/live\n  \
               reef-dev-region in eu-central-1, https://two.example.com/live\n  reef-dev-edge in us-east-1\n";
    assert!(said.ends_with(end), "{said}");
    assert!(!said.contains("sk-precious") && !said.contains("warning"), "{said}");
}

#[test]
fn a_dry_run_prints_the_commands_and_runs_none() {
    let desk = Desk::new("");
    let (code, said, complaints) = desk.deploy(&["dev", "--dry-run"]);
    assert_eq!((code, complaints.as_str()), (0, ""));
    assert_eq!(desk.calls(), Vec::<String>::new());
    let unfinished =
        "   # with --disable-rollback if there is no such stack yet, or it is CREATE_FAILED or UPDATE_FAILED";
    let stated = |region: &str, stack: &str| {
        state(region, stack).replace("Stacks[0].StackStatus", "'Stacks[0].StackStatus'")
    };
    let plain = |stack: &str| format!("sam deploy --config-env dev-{stack}{unfinished}");
    let region = |region: &str, build: &[&str]| {
        let [version, value] = keys(region, "\"$VERSION\"");
        let mut lines = vec![
            format!("# reef-dev-region in {region}"),
            stated(region, "reef-dev-region"),
            format!("VERSION=$({version})"),
            format!(
                "{value} > /dev/null   # must hold ANTHROPIC_API_KEY, OPENAI_API_KEY (not empty: ANTHROPIC_API_KEY); never \
                 shown, only AWS knows $VERSION"
            ),
        ];
        lines.extend(build.iter().map(|&line| line.to_owned()));
        let deploy = deploy_region(region, "$VERSION");
        lines.push(
            deploy.replace("ProviderKeysVersion=$VERSION", "\"ProviderKeysVersion=$VERSION\"") + unfinished,
        );
        lines.extend([
            format!(
                "URL=$(aws cloudformation describe-stacks --region {region} --stack-name reef-dev-region --query \
                 'Stacks[0].Outputs[?OutputKey=='\\''ApiUrl'\\''].OutputValue' --output text)"
            ),
            "curl --fail --silent --show-error --max-time 60 \"$URL/startupz\"".to_owned(),
            ask(region, "agent-invoke").replace(r#"{"check":"ready"}"#, r#"'{"check":"ready"}'"#),
            ask(region, "queue-worker").replace(r#"{"check":"ready"}"#, r#"'{"check":"ready"}'"#),
        ]);
        lines
    };
    let mut expected = vec!["# prerequisites".to_owned()];
    expected.extend(prerequisites().into_iter().map(|line| match line.as_str() {
        "zig version" => "zig version || python3 -m ziglang version".to_owned(),
        quota if quota.contains("quota") => format!("{quota}   # a warning only"),
        _ => line,
    }));
    expected.push("# reef-dev-global in us-east-1".to_owned());
    expected.extend([stated("us-east-1", "reef-dev-global"), plain("global")]);
    expected.extend(region("us-east-1", &["sam build --config-env dev-us-east-1"]));
    expected.extend(region("eu-central-1", &[]));
    expected.push("# reef-dev-edge in us-east-1".to_owned());
    expected.extend([stated("us-east-1", "reef-dev-edge"), plain("edge"), edge_started()]);
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn it_stops_at_the_first_stack_that_fails_and_says_what_is_live() {
    let desk = Desk::new(r#""sam deploy --config-env dev-eu-central-1"*) echo no rights; exit 3 ;;"#);
    let (code, _, complaints) = desk.deploy(&["dev"]);
    assert_eq!(code, 1);
    let deploy = deploy_region("eu-central-1", "version-1");
    let expected = format!(
        "reef: stopped: `{deploy}` ended with exit status: 3\n\
                    live:\n  reef-dev-global in us-east-1\n  reef-dev-region in us-east-1, https://one.example.com/live\n\
                    failed, and as it was before or broken:\n  reef-dev-region in eu-central-1\n\
                    not touched:\n  reef-dev-edge in us-east-1\n\
                    Mend it and run the same command again: what is up to date is left as it is.\n"
    );
    assert_eq!(complaints, expected);
    assert_eq!(*desk.calls().last().unwrap(), deploy);
}

#[test]
fn a_first_deployment_stops_behind_the_global_stack_until_the_secret_holds_the_keys() {
    let put = "aws secretsmanager put-secret-value --region us-east-1 --secret-id reef-dev-provider-keys --secret-string \
               '{\"ANTHROPIC_API_KEY\":\"…\",\"OPENAI_API_KEY\":\"\"}'";
    for (held, lacking) in [
        (r#"{"ANTHROPIC_API_KEY":"","OPENAI_API_KEY":""}"#, "it lacks ANTHROPIC_API_KEY"),
        (r#"{"ANTHROPIC_API_KEY":"sk-precious"}"#, "it lacks OPENAI_API_KEY"),
        (r#"{"ANTHROPIC_API_KEY":7,"OPENAI_API_KEY":"sk-precious"}"#, "it lacks ANTHROPIC_API_KEY"),
        ("sk-precious", "it lacks ANTHROPIC_API_KEY, OPENAI_API_KEY"),
        (
            r#"{"ANTHROPIC_API_KEY":"sk precious","OPENAI_API_KEY":""}"#,
            "models.providers.anthropic.apiKey: holds characters that no key has: only visible ASCII without spaces is sent",
        ),
    ] {
        let desk = Desk::new(&format!(r#""aws secretsmanager "*SecretString*) echo '{held}' ;;"#));
        let (code, said, complaints) = desk.deploy(&["dev"]);
        let expected = format!(
            "reef: stopped: the secret reef-dev-provider-keys in us-east-1 does not hold what the functions need to start: \
             {lacking}\nPut the keys in, all names at once (\"\" for a vendor that no agent asks):\n  {put}\n\
             live:\n  reef-dev-global in us-east-1\n\
             not touched:\n  reef-dev-region in us-east-1\n  reef-dev-region in eu-central-1\n  reef-dev-edge in us-east-1\n\
             Mend it and run the same command again: what is up to date is left as it is.\n"
        );
        assert_eq!((code, complaints), (1, expected));
        assert!(!said.contains("precious"), "{said}");
        assert!(desk.calls().iter().any(|call| call == "sam deploy --config-env dev-global"));
        assert!(!desk.calls().iter().any(|call| call.contains("dev-us-east-1")), "{said}");
    }
}

#[test]
fn every_region_is_given_its_own_versions_id_and_keys_that_have_not_arrived_stop_it() {
    let desk = Desk::new(r#""aws secretsmanager "*eu-central-1*VersionId*) echo version-2 ;;"#);
    assert_eq!(desk.deploy(&["dev"]).0, 0);
    for call in [deploy_region("us-east-1", "version-1"), deploy_region("eu-central-1", "version-2")] {
        assert!(desk.calls().contains(&call), "{call}");
    }
    let old = r#""aws secretsmanager "*eu-central-1*SecretString*) echo '{"ANTHROPIC_API_KEY":"sk-old","OPENAI_API_KEY":""}' ;;"#;
    let desk = Desk::new(old);
    let (code, _, complaints) = desk.deploy(&["dev"]);
    assert_eq!(code, 1);
    let told = "reef: stopped: the secret reef-dev-provider-keys does not hold in eu-central-1 yet what it holds in the region \
                before; AWS copies it from us-east-1 within seconds\nlive:\n  reef-dev-global in us-east-1\n";
    assert!(complaints.starts_with(told), "{complaints}");
    assert!(!desk.calls().iter().any(|call| call.contains("dev-eu-central-1")));
}

#[test]
fn settings_with_which_the_functions_would_not_start_are_told_before_anything_is_run() {
    let desk = Desk::new("");
    desk.write("infra/agents/openclaw.json", r#"{agents: [{id: "a", model: "antropic/x"}]}"#);
    let (code, _, complaints) = desk.deploy(&["dev"]);
    let start =
        "reef: samconfig.toml: 1 problem\n  infra/agents/openclaw.json: 1 problem\n  agents[0].model: ";
    assert!(code == 1 && complaints.starts_with(start), "{complaints}");
    let end = "(of the environment the functions are given ANTHROPIC_API_KEY, OPENAI_API_KEY, see infra/aws/region.yaml)\n";
    assert!(complaints.ends_with(end), "{complaints}");
    fs::remove_file(desk.path().join("infra/aws/region.yaml")).unwrap();
    let (_, _, complaints) = desk.deploy(&["dev"]);
    assert!(complaints.contains("\n  infra/aws/region.yaml cannot be read: "), "{complaints}");
    assert_eq!(desk.calls(), Vec::<String>::new());
}

#[test]
fn a_stack_whose_creation_has_not_succeeded_yet_is_not_rolled_back() {
    let missing = r#""aws cloudformation "*reef-dev-region*StackStatus*) echo Stack with id reef-dev-region does not exist >&2; exit 254 ;;"#;
    for state in [missing, r#""aws cloudformation "*reef-dev-region*StackStatus*) echo CREATE_FAILED ;;"#] {
        let desk = Desk::new(state);
        let (code, _, complaints) = desk.deploy(&["dev"]);
        assert_eq!((code, complaints.as_str()), (0, ""));
        let unfinished =
            deploy_region("us-east-1", "version-1").replace("deploy ", "deploy --disable-rollback ");
        assert!(desk.calls().contains(&unfinished), "{:?}", desk.calls());
        assert!(desk.calls().contains(&"sam deploy --config-env dev-global".to_owned()));
    }
}

#[test]
fn a_stack_that_takes_no_changes_is_left_alone_and_what_frees_it_is_told() {
    let desk = Desk::new(r#""aws cloudformation "*eu-central-1*StackStatus*) echo ROLLBACK_COMPLETE ;;"#);
    let (code, _, complaints) = desk.deploy(&["dev"]);
    assert_eq!(code, 1);
    let on = "--region eu-central-1 --stack-name reef-dev-region";
    let expected = format!(
        "reef: stopped: the stack reef-dev-region in eu-central-1 is ROLLBACK_COMPLETE and takes no changes. See what it would \
         leave behind, delete it, and then what it left, which would be in the way:\n  \
         aws cloudformation describe-stack-events {on} --query \
         'StackEvents[?ResourceStatus==`DELETE_SKIPPED`].[ResourceType,PhysicalResourceId]' --output text\n  \
         aws cloudformation delete-stack {on}\n  aws cloudformation wait stack-delete-complete {on}\nlive:\n"
    );
    assert!(complaints.starts_with(&expected), "{complaints}");
    assert!(complaints.contains("not touched:\n  reef-dev-region in eu-central-1\n"), "{complaints}");
    // AWS not answering is no state.
    let desk = Desk::new(r#""aws cloudformation "*StackStatus*) echo expired >&2; exit 255 ;;"#);
    let (code, _, complaints) = desk.deploy(&["dev"]);
    assert!(code == 1 && complaints.contains("exit status: 255: expired"), "{complaints}");
    assert!(!desk.calls().iter().any(|call| call.starts_with("sam deploy")));
}

#[test]
fn what_is_allowed_and_rarely_meant_is_told_and_deployed() {
    let desk = Desk::new(
        r#""aws service-quotas "*us-east-1*) echo 10.0 ;;
           "aws service-quotas "*) echo no rights >&2; exit 254 ;;"#,
    );
    desk.write("samconfig.toml", &SAMCONFIG.replace("[dev-", "[prod-").replace("=dev", "=prod"));
    let (code, said, complaints) = desk.deploy(&["prod"]);
    assert_eq!((code, complaints.as_str()), (0, ""));
    let warnings: Vec<_> = said.lines().filter(|line| line.starts_with("warning: ")).collect();
    let quota_of = |region: &str| {
        format!(
            "warning: Lambda's quota \"Concurrent executions\" should be at least 30 in {region} (WorkerConcurrency 10 and 20 for \
             people); ask AWS for more, or lower WorkerConcurrency: "
        )
    };
    let refused = quota("eu-central-1");
    let expected = [
        "warning: no AlarmEmail is given by prod-global, prod-us-east-1, prod-eu-central-1: nobody is told of their alarms"
            .to_owned(),
        quota_of("us-east-1") + "found 10.0",
        quota_of("eu-central-1") + &format!("`{refused}` ended with exit status: 254: no rights"),
    ];
    assert_eq!(warnings, expected);
    let (_, said, _) = desk.deploy(&["prod", "--dry-run"]);
    assert!(said.starts_with("# warning: no AlarmEmail is given by prod-global"), "{said}");
}

#[test]
fn a_region_that_is_deployed_but_does_not_work_stops_it() {
    for (broken, told) in [
        (
            r#""curl "*one.example.com*) echo '{"ok":false}' ;;"#,
            "`curl --fail --silent --show-error --max-time 60 https://one.example.com/live/startupz` answered: {\"ok\":false}",
        ),
        (
            r#""aws lambda "*queue-worker*) echo no such function >&2; exit 254 ;;"#,
            "/dev/stdout` ended with exit status: 254: no such function",
        ),
        (r#""aws cloudformation "*ApiUrl*) echo None ;;"#, "the stack does not say where it answers: None"),
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
           "zig "*|"python3 "*) echo no zig >&2; exit 1 ;;
           "aws sts "*eu-central-1*) echo not enabled >&2; exit 254 ;;
           "aws route53 "*) echo other.example. ;;"#,
    );
    fs::remove_file(desk.path().join("bin/curl")).unwrap();
    let (code, _, complaints) = desk.deploy(&["dev"]);
    let zig = "Zig is needed to build for arm64 on this machine: pip install ziglang: `python3 -m ziglang version` ended with \
               exit status: 1: no zig\n  ";
    let zig = if is_arm() { "" } else { zig };
    let expected = format!(
        "reef: prerequisites are missing; nothing was changed\n  \
        version 2 of the AWS CLI is needed: found aws-cli/1.46.2\n  \
        cargo-lambda is needed: pip install cargo-lambda: `cargo lambda --version` ended with exit status: 101: no such command\n  \
        curl is needed: `curl` is not installed, or not on the PATH\n  {zig}\
        there are no credentials for eu-central-1, or the account has it switched off; try `aws configure`: `aws sts get-caller-identity \
        --region eu-central-1 --query Account --output text` ended with exit status: 254: not enabled\n  \
        HostedZoneId Z1 of samconfig.toml does not fit: it is the zone other.example, and reef.example.com is not in it\n"
    );
    assert_eq!((code, complaints), (1, expected));
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
    desk.write(
        "samconfig.toml",
        &SAMCONFIG.replacen("DomainName=origin", "Architecture=x86_64 DomainName=origin", 1),
    );
    let told_of_processors = "reef: samconfig.toml: 1 problem\n  the sections dev-… give different Architectures: arm64 and \
                              x86_64; functions are built once\n";
    assert_eq!(told(&["dev"]), told_of_processors);
    desk.write("samconfig.toml", "[dev-global");
    assert!(told(&["dev"]).starts_with("reef: samconfig.toml is not understood: "));
    assert_eq!(desk.calls(), Vec::<String>::new());
}

#[test]
fn our_own_samconfig_is_deployed_in_the_order_of_its_regions() {
    let desk = Desk::new("");
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for file in ["samconfig.toml", "infra/aws/region.yaml", "infra/agents/openclaw.json"] {
        desk.write(file, &fs::read_to_string(top.join(file)).unwrap());
    }
    for environment in ["dev", "prod"] {
        let (code, said, complaints) = desk.deploy(&[environment, "--dry-run"]);
        assert_eq!((code, complaints.as_str()), (0, ""));
        let deployed: Vec<_> =
            said.lines().filter(|line| line.starts_with("sam ") && !line.contains("--version")).collect();
        let region = |name: &str| {
            let more = if environment == "dev" { " DeploymentType=AllAtOnce" } else { "" };
            format!(
                "sam deploy --config-env {environment}-{name} --parameter-overrides CanaryDeployment=true{more} \
                 Environment={environment} Regions=us-east-1,eu-central-1,ap-northeast-1 \"ProviderKeysVersion=$VERSION\""
            )
        };
        let mut expected = [
            format!("sam deploy --config-env {environment}-global"),
            format!("sam build --config-env {environment}-us-east-1"),
        ]
        .to_vec();
        expected.extend(["us-east-1", "eu-central-1", "ap-northeast-1"].map(region));
        let deployed: Vec<_> = deployed.iter().map(|line| line.split("   #").next().unwrap()).collect();
        let held = "must hold ANTHROPIC_API_KEY, OPENAI_API_KEY (not empty: ANTHROPIC_API_KEY)";
        assert_eq!(said.lines().filter(|line| line.contains(held)).count(), 3, "{said}");
        assert_eq!(deployed, expected);
    }
}

#[test]
fn an_agent_whose_instructions_are_not_in_the_layer_is_warned_of() {
    let desk = Desk::new("");
    let folder = desk.path().join("infra/agents/workspaces/a");
    let warning =
        format!("# warning: agent a has no instructions: there is no AGENTS.md in {}", folder.display());
    let (code, quiet, _) = desk.deploy(&["dev", "--dry-run"]);
    assert_eq!(code, 0);
    assert!(!quiet.contains("has no instructions"), "{quiet}");
    fs::remove_file(folder.join("AGENTS.md")).unwrap();
    let (code, said, _) = desk.deploy(&["dev", "--dry-run"]);
    assert_eq!(code, 0);
    assert!(said.lines().any(|line| line == warning), "{said}");
}
