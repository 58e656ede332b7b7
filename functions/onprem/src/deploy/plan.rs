//! What a deployment does, step by step, before anything is done.

use super::samconfig::{Section, Sections};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Where a stack's address stands in a probe until it is known.
const ADDRESS: &str = "$URL";

/// What a function answers when it is asked whether it is ready.
const READY: &str = "\"ready\":true";

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
}

impl Command {
    fn new(program: &str, arguments: &[&str]) -> Self {
        Self { program: program.to_owned(), arguments: arguments.iter().map(|&one| one.to_owned()).collect() }
    }

    /// As it is typed into a shell.
    pub(super) fn line(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.arguments);
        words.map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }

    /// With the address filled in.
    pub(super) fn at(&self, address: Option<&str>) -> Self {
        let Some(address) = address else { return self.clone() };
        let arguments = self.arguments.iter().map(|one| one.replace(ADDRESS, address)).collect();
        Self { program: self.program.clone(), arguments }
    }
}

fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,@%+".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else if word.contains(ADDRESS) {
        format!("\"{word}\"")
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What must be so before anything is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Requirement {
    pub(super) command: Command,
    /// What is missing if the command fails, and what to do.
    pub(super) remedy: String,
    wanted: Wanted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Anything,
    Text(&'static str),
    /// A zone that these names lie in.
    ZoneOf(BTreeSet<String>),
}

impl Requirement {
    /// What is wrong with what the command said.
    pub(super) fn problem_with(&self, said: &str) -> Option<String> {
        let said = said.trim();
        match &self.wanted {
            Wanted::Anything => None,
            Wanted::Text(text) => (!said.contains(text)).then(|| format!("{}: found {said}", self.remedy)),
            Wanted::ZoneOf(names) => {
                let zone = said.trim_end_matches('.');
                let outside = |name: &&String| *name != zone && !name.ends_with(&format!(".{zone}"));
                let name = names.iter().find(outside)?;
                Some(format!("{}: it is the zone {zone}, and {name} is not in it", self.remedy))
            }
        }
    }
}

/// A question to what was deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) command: Command,
}

impl Probe {
    pub(super) fn is_content(&self, said: &str) -> bool {
        said.replace(' ', "").contains(READY)
    }
}

/// One stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stack {
    name: String,
    region: String,
    /// What deploys it.
    pub(super) commands: Vec<Command>,
    /// What tells where it answers.
    pub(super) address: Option<Command>,
    /// What tells whether it works.
    pub(super) probes: Vec<Probe>,
}

impl Stack {
    pub(super) fn title(&self) -> String {
        format!("{} in {}", self.name, self.region)
    }
}

/// A whole deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) requirements: Vec<Requirement>,
    pub(super) stacks: Vec<Stack>,
}

impl Plan {
    /// The global stack, the regions in the order of their parameter `Regions`, the edge if it has a domain.
    ///
    /// # Errors
    /// What is wrong with the environment's sections, all of it.
    pub(super) fn new(environment: &str, sections: &Sections, file: &Path) -> Result<Self, Vec<String>> {
        let prefix = format!("{environment}-");
        let mut mine: BTreeMap<&str, &Section> = sections
            .iter()
            .filter_map(|(name, section)| Some((name.strip_prefix(&prefix)?, section)))
            .collect();
        if mine.is_empty() {
            let known: BTreeSet<_> =
                sections.keys().filter_map(|name| Some(name.split_once('-')?.0)).collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(vec![format!("there is no environment {environment}; there are: {known}")]);
        }
        let mut problems = Vec::new();
        let global = mine.remove("global");
        if global.is_none() {
            problems.push(format!("there is no section {prefix}global"));
        }
        let edge = mine.remove("edge").filter(|edge| edge.parameters.contains_key("DomainName"));
        let regions = ordered(&prefix, &mine, &mut problems);
        let (Some(global), true) = (global, problems.is_empty()) else { return Err(problems) };

        let tool = Tool { prefix: &prefix, file };
        let mut stacks = vec![tool.global(global)];
        for (place, (name, section)) in regions.iter().enumerate() {
            stacks.push(tool.region(name, section, place == 0));
        }
        stacks.extend(edge.map(|edge| tool.edge(edge)));
        let all: Vec<&Section> =
            std::iter::once(global).chain(regions.iter().map(|(_, section)| *section)).chain(edge).collect();
        Ok(Self { requirements: requirements(&all), stacks })
    }

    /// The commands as a shell script.
    pub(super) fn script(&self) -> Vec<String> {
        let mut lines = vec!["# prerequisites".to_owned()];
        lines.extend(self.requirements.iter().map(|one| one.command.line()));
        for stack in &self.stacks {
            lines.push(format!("# {}", stack.title()));
            lines.extend(stack.commands.iter().map(Command::line));
            lines.extend(stack.address.iter().map(|command| format!("URL=$({})", command.line())));
            lines.extend(stack.probes.iter().map(|probe| probe.command.line()));
        }
        lines
    }
}

/// The regions' sections in the order in which the regions were added.
fn ordered<'a>(
    prefix: &str,
    sections: &BTreeMap<&'a str, &'a Section>,
    problems: &mut Vec<String>,
) -> Vec<(&'a str, &'a Section)> {
    let mut lists: BTreeSet<&str> = BTreeSet::new();
    for (name, section) in sections {
        if *name != section.region {
            problems.push(format!("{prefix}{name} goes to {}; name it after its region", section.region));
        }
        match section.parameters.get("Regions") {
            Some(list) => drop(lists.insert(list)),
            None => problems.push(format!("{prefix}{name} gives no parameter Regions")),
        }
    }
    if sections.is_empty() {
        problems.push(format!("there is no section of a region, e.g. {prefix}us-east-1"));
    }
    if lists.len() > 1 {
        let lists = lists.into_iter().collect::<Vec<_>>().join(" and ");
        problems
            .push(format!("the sections {prefix}… give different Regions: {lists}; they must be the same"));
        return Vec::new();
    }
    let regions: Vec<&str> = lists.into_iter().flat_map(|list| list.split(',')).map(str::trim).collect();
    for name in sections.keys().filter(|name| !regions.contains(name)) {
        problems.push(format!("{prefix}{name} is not among its own Regions"));
    }
    let mut found = Vec::new();
    for region in regions {
        match sections.get_key_value(region) {
            Some((name, section)) => found.push((*name, *section)),
            None => {
                problems.push(format!("Regions names {region}, but there is no section {prefix}{region}"));
            }
        }
    }
    found
}

/// Makes the commands.
struct Tool<'a> {
    prefix: &'a str,
    file: &'a Path,
}

impl Tool<'_> {
    fn sam(&self, command: &str, name: &str) -> Command {
        let environment = format!("{}{name}", self.prefix);
        let mut sam = Command::new("sam", &[command, "--config-env", &environment]);
        // The SAM CLI finds it by itself where it usually is.
        if self.file.file_name().is_none_or(|name| name != "samconfig.toml") {
            let file = self.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            sam.arguments.extend(["--config-file".to_owned(), file]);
        }
        sam
    }

    fn global(&self, section: &Section) -> Stack {
        Stack {
            name: section.stack.clone(),
            region: section.region.clone(),
            commands: vec![self.sam("deploy", "global")],
            address: None,
            probes: Vec::new(),
        }
    }

    /// Functions are built once: they are the same in every region.
    fn region(&self, name: &str, section: &Section, is_first: bool) -> Stack {
        let build = (is_first && section.is_built).then(|| self.sam("build", name));
        let environment = section.parameters.get("Environment").map_or("dev", String::as_str);
        let region = section.region.as_str();
        let ask = |function: &str| Probe {
            command: Command::new(
                "aws",
                &[
                    "lambda",
                    "invoke",
                    "--region",
                    region,
                    "--function-name",
                    &format!("reef-{environment}-{function}:live"),
                    "--cli-binary-format",
                    "raw-in-base64-out",
                    "--payload",
                    r#"{"check":"ready"}"#,
                    "/dev/stdout",
                ],
            ),
        };
        let query = "Stacks[0].Outputs[?OutputKey=='ApiUrl'].OutputValue";
        let arguments =
            ["cloudformation", "describe-stacks", "--region", region, "--stack-name", &section.stack];
        let shown = ["--query", query, "--output", "text"];
        Stack {
            name: section.stack.clone(),
            region: section.region.clone(),
            commands: build.into_iter().chain([self.sam("deploy", name)]).collect(),
            address: Some(Command::new("aws", &[&arguments[..], &shown].concat())),
            probes: vec![readiness(ADDRESS), ask("agent-invoke"), ask("queue-worker")],
        }
    }

    fn edge(&self, section: &Section) -> Stack {
        let domain = section.parameters.get("DomainName").map_or("", String::as_str);
        Stack {
            name: section.stack.clone(),
            region: section.region.clone(),
            commands: vec![self.sam("deploy", "edge")],
            address: None,
            probes: vec![readiness(&format!("https://{domain}"))],
        }
    }
}

fn readiness(address: &str) -> Probe {
    let url = format!("{address}/readyz");
    Probe { command: Command::new("curl", &["--fail", "--silent", "--show-error", "--max-time", "60", &url]) }
}

/// Programs, the account in each region, and the zones of domains.
fn requirements(sections: &[&Section]) -> Vec<Requirement> {
    let tool = |arguments: &[&str], remedy: &str, wanted| Requirement {
        command: Command::new(arguments[0], &arguments[1..]),
        remedy: remedy.to_owned(),
        wanted,
    };
    let mut all = vec![
        tool(&["sam", "--version"], "the SAM CLI is needed: pip install aws-sam-cli", Wanted::Anything),
        tool(&["aws", "--version"], "version 2 of the AWS CLI is needed", Wanted::Text("aws-cli/2")),
        tool(
            &["cargo", "lambda", "--version"],
            "cargo-lambda is needed: pip install cargo-lambda",
            Wanted::Anything,
        ),
        tool(&["curl", "--version"], "curl is needed", Wanted::Anything),
    ];
    let regions: BTreeSet<&str> = sections.iter().map(|section| section.region.as_str()).collect();
    for region in regions {
        let command =
            ["sts", "get-caller-identity", "--region", region, "--query", "Account", "--output", "text"];
        all.push(Requirement {
            command: Command::new("aws", &command),
            remedy: format!("there are no credentials for {region}, or the account has it switched off; try `aws configure`"),
            wanted: Wanted::Anything,
        });
    }
    let mut zones: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for section in sections {
        let parameter = |name: &str| section.parameters.get(name).filter(|value| !value.is_empty());
        if let (Some(zone), Some(name)) = (parameter("HostedZoneId"), parameter("DomainName")) {
            zones.entry(zone).or_default().insert(name.clone());
        }
    }
    for (zone, names) in zones {
        let command =
            ["route53", "get-hosted-zone", "--id", zone, "--query", "HostedZone.Name", "--output", "text"];
        all.push(Requirement {
            command: Command::new("aws", &command),
            remedy: format!("HostedZoneId {zone} of samconfig.toml does not fit"),
            wanted: Wanted::ZoneOf(names),
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(stack: &str, region: &str, parameters: &[(&str, &str)]) -> Section {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Section {
            stack: stack.to_owned(),
            region: region.to_owned(),
            is_built: stack == "region",
            parameters: parameters.collect(),
        }
    }

    fn problems(sections: &[(&str, Section)]) -> Vec<String> {
        let sections = sections.iter().map(|(name, section)| ((*name).to_owned(), section.clone())).collect();
        Plan::new("dev", &sections, Path::new("samconfig.toml")).unwrap_err()
    }

    #[test]
    fn an_unknown_environment_is_told_which_there_are() {
        let found = problems(&[("prod-global", section("g", "us-east-1", &[]))]);
        assert_eq!(found, ["there is no environment dev; there are: prod"]);
    }

    #[test]
    fn all_that_is_wrong_with_the_sections_is_told_at_once() {
        let both = [("Regions", "us-east-1,eu-central-1")];
        let found = problems(&[
            ("dev-us-east-1", section("region", "us-west-2", &both)),
            ("dev-ap-northeast-1", section("region", "ap-northeast-1", &both)),
            ("dev-sa-east-1", section("region", "sa-east-1", &[])),
        ]);
        let expected = [
            "there is no section dev-global",
            "dev-sa-east-1 gives no parameter Regions",
            "dev-us-east-1 goes to us-west-2; name it after its region",
            "dev-ap-northeast-1 is not among its own Regions",
            "dev-sa-east-1 is not among its own Regions",
            "Regions names eu-central-1, but there is no section dev-eu-central-1",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn regions_that_disagree_about_each_other_are_told() {
        let found = problems(&[
            ("dev-global", section("g", "us-east-1", &[])),
            ("dev-a", section("region", "a", &[("Regions", "a,b")])),
            ("dev-b", section("region", "b", &[("Regions", "b,a")])),
        ]);
        assert_eq!(found, ["the sections dev-… give different Regions: a,b and b,a; they must be the same"]);
    }

    #[test]
    fn a_command_is_shown_as_a_shell_takes_it() {
        let command = Command::new("aws", &["a", "b c", "it's", "$URL/readyz", ""]);
        assert_eq!(command.line(), r#"aws a 'b c' 'it'\''s' "$URL/readyz" ''"#);
        assert_eq!(command.at(Some("https://x")).line(), r#"aws a 'b c' 'it'\''s' https://x/readyz ''"#);
    }

    #[test]
    fn a_domain_outside_its_zone_is_found() {
        let names = ["a.example.com".to_owned(), "example.com".to_owned()].into();
        let zone = |names| Requirement {
            command: Command::new("aws", &[]),
            remedy: "no".to_owned(),
            wanted: Wanted::ZoneOf(names),
        };
        assert_eq!(zone(names).problem_with("example.com.\n"), None);
        let told = zone(["badexample.com".to_owned()].into()).problem_with("example.com.\n");
        assert_eq!(told.as_deref(), Some("no: it is the zone example.com, and badexample.com is not in it"));
    }
}
