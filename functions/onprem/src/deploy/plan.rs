//! What a deployment does, step by step, before anything is done.

use super::command::{ADDRESS, Command, VERSION};
use super::keys::Keys;
use super::requirement::{self, Requirement, architecture};
use super::samconfig::{Section, Sections, written};
use super::stack::{Probe, Stack};
use super::template::Template;
use shared::config::CLOSED;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What a function answers when it is asked whether it is ready.
const READY: &str = "\"ready\":true";

/// What the gateway answers when it has started. It is not asked whether traffic may come: in a region that was taken out of
/// service none may, and it must be possible to deploy to that region, too.
const STARTED: &str = "\"status\":\"started\"";

/// The parameter that says which version of the keys the functions are given. CloudFormation reads the secret only when
/// this changes.
const KEYS_VERSION: &str = "ProviderKeysVersion";

/// A whole deployment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) requirements: Vec<Requirement>,
    /// What is allowed and rarely meant.
    pub(super) warnings: Vec<String>,
    /// The vendors' keys, if the functions are given any.
    pub(super) keys: Option<Keys>,
    pub(super) stacks: Vec<Stack>,
}

impl Plan {
    /// The global stack, the regions in the order of their parameter `Regions`, the edge if it has a domain. Templates and
    /// settings are looked for beside the file.
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
        let edge = mine.remove("edge").filter(|edge| edge.parameter("DomainName").is_some());
        let regions = ordered(&prefix, &mine, &mut problems);
        problems.extend(edge.iter().flat_map(|edge| misled(&prefix, edge, &regions)));
        let first = regions.first().map(|(_, section)| *section);
        let (Some(global), Some(first), true) = (global, first, problems.is_empty()) else {
            return Err(problems);
        };
        let folder = file.parent().unwrap_or(Path::new(""));
        let file_of = first.built.as_deref().unwrap_or(Path::new("infra/aws/region.yaml"));
        let template = Template::read(folder, file_of).map_err(|problem| vec![problem])?;
        let processors: BTreeSet<&str> =
            regions.iter().map(|(_, section)| architecture(section, &template)).collect();
        if processors.len() > 1 {
            let processors = processors.into_iter().collect::<Vec<_>>().join(" and ");
            let problem = format!(
                "the sections {prefix}… give different Architectures: {processors}; functions are built once"
            );
            return Err(vec![problem]);
        }
        let keys = Keys::read(global, first, &template, folder).map_err(|problem| vec![problem])?;

        let tool = Tool { prefix: &prefix, file, has_keys: keys.is_some() };
        let mut stacks = vec![tool.global(global)];
        for (place, (name, section)) in regions.iter().enumerate() {
            stacks.push(tool.region(name, section, place == 0));
        }
        stacks.extend(edge.map(|edge| tool.edge(edge)));
        let only: Vec<&Section> = regions.iter().map(|(_, section)| *section).collect();
        let all: Vec<&Section> = std::iter::once(global).chain(only.iter().copied()).chain(edge).collect();
        let watched = std::iter::once(("global", global)).chain(regions.iter().copied());
        let of_agents = keys.iter().flat_map(|keys| keys.warnings.clone());
        let warnings = unheard(environment, watched).into_iter().chain(of_agents).collect();
        Ok(Self { requirements: requirement::all(&all, &only, &template), warnings, keys, stacks })
    }

    /// The commands as a shell script. What depends on what AWS answers stands in remarks.
    pub(super) fn script(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.warnings.iter().map(|one| format!("# warning: {one}")).collect();
        lines.push("# prerequisites".to_owned());
        let remark = |one: &Requirement| if one.is_advice { "   # a warning only" } else { "" };
        lines.extend(self.requirements.iter().map(|one| format!("{}{}", one.line(), remark(one))));
        for stack in &self.stacks {
            lines.push(format!("# {}", stack.title()));
            lines.push(stack.state().line());
            if let Some(keys) = self.keys.as_ref().filter(|_| stack.takes_keys) {
                lines.push(format!("VERSION=$({})", keys.version_in(&stack.region).line()));
                let value = keys.value_in(&stack.region).line();
                lines.push(format!("{value} > /dev/null   # {}", keys.note()));
            }
            lines.extend(stack.build.iter().map(Command::line));
            let unfinished = "with --disable-rollback if there is no such stack yet, or it is CREATE_FAILED or UPDATE_FAILED";
            lines.push(format!("{}   # {unfinished}", stack.deploy.line()));
            lines.extend(stack.address.iter().map(|command| format!("URL=$({})", command.line())));
            lines.extend(stack.probes.iter().map(|probe| probe.command.line()));
        }
        lines
    }
}

/// What is wrong with an edge in front of these regions.
fn misled(prefix: &str, edge: &Section, regions: &[(&str, &Section)]) -> Vec<String> {
    let mut problems = Vec::new();
    if edge.parameter("HostedZoneId").is_none() {
        problems.push(format!("{prefix}edge gives no HostedZoneId, the zone that its DomainName lies in"));
    }
    let Some(origin) = edge.parameter("OriginDomainName") else {
        problems.push(format!("{prefix}edge gives no OriginDomainName; give the DomainName of its regions"));
        return problems;
    };
    if edge.parameter("DomainName") == Some(origin) {
        problems.push(format!(
            "{prefix}edge gives {origin} as DomainName and as OriginDomainName, and would ask itself"
        ));
    }
    for (name, section) in regions {
        let own = section.parameter("DomainName").unwrap_or("none");
        if own != origin {
            problems.push(format!(
                "{prefix}edge gives the OriginDomainName {origin}, but {prefix}{name} gives the DomainName {own}; \
                 they must be the same"
            ));
        }
    }
    problems
}

/// Told if nobody would hear the alarms. An environment to try things out may be without.
fn unheard<'a>(
    environment: &str,
    mut watched: impl Iterator<Item = (&'a str, &'a Section)>,
) -> Option<String> {
    if environment == "dev" {
        return None;
    }
    let silent: Vec<String> = watched
        .by_ref()
        .filter(|(_, section)| section.parameter("AlarmEmail").is_none())
        .map(|(name, _)| format!("{environment}-{name}"))
        .collect();
    let list = silent.join(", ");
    (!silent.is_empty()).then(|| format!("no AlarmEmail is given by {list}: nobody is told of their alarms"))
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
        if section.parameters.contains_key(KEYS_VERSION) {
            problems.push(format!(
                "{prefix}{name} gives {KEYS_VERSION}; take it out, `reef deploy` gives the current one"
            ));
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
    for region in regions.into_iter().filter(|region| *region != CLOSED) {
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
    has_keys: bool,
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

    /// Parameters on the command line take the place of all that the section gives.
    fn with_parameters<'a>(mut sam: Command, given: impl Iterator<Item = (&'a str, &'a str)>) -> Command {
        sam.arguments.push("--parameter-overrides".to_owned());
        sam.arguments.extend(given.map(|(name, value)| written(name, value)));
        sam
    }

    fn stack(section: &Section, deploy: Command) -> Stack {
        Stack {
            name: section.stack.clone(),
            region: section.region.clone(),
            takes_keys: false,
            build: None,
            deploy,
            address: None,
            probes: Vec::new(),
        }
    }

    fn global(&self, section: &Section) -> Stack {
        Self::stack(section, self.sam("deploy", "global"))
    }

    /// Functions are built once: they are the same in every region.
    fn region(&self, name: &str, section: &Section, is_first: bool) -> Stack {
        let build = (is_first && section.built.is_some()).then(|| {
            let build = self.sam("build", name);
            match section.parameter("Architecture") {
                Some(architecture) => {
                    Self::with_parameters(build, [("Architecture", architecture)].into_iter())
                }
                None => build,
            }
        });
        let mut deploy = self.sam("deploy", name);
        if self.has_keys {
            let own = section.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            deploy = Self::with_parameters(deploy, own.chain([(KEYS_VERSION, VERSION)]));
        }
        let environment = section.parameter("Environment").unwrap_or("dev");
        let region = section.region.as_str();
        let ask = |function: &str| {
            let alias = format!("reef-{environment}-{function}:live");
            let arguments = ["lambda", "invoke", "--region", region, "--function-name", &alias];
            let format = ["--cli-binary-format", "raw-in-base64-out"];
            let payload = ["--payload", r#"{"check":"ready"}"#, "/dev/stdout"];
            let command = Command::new("aws", &[&arguments[..], &format, &payload].concat());
            Probe { command, wanted: READY }
        };
        let mut stack = Self::stack(section, deploy);
        stack.takes_keys = self.has_keys;
        stack.build = build;
        stack.address = Some(stack.described("Stacks[0].Outputs[?OutputKey=='ApiUrl'].OutputValue"));
        stack.probes = vec![started(ADDRESS, &[]), ask("agent-invoke"), ask("queue-worker")];
        stack
    }

    fn edge(&self, section: &Section) -> Stack {
        let domain = section.parameter("DomainName").unwrap_or_default();
        let mut stack = Self::stack(section, self.sam("deploy", "edge"));
        // Resolvers may take minutes to hear of a new name.
        let patience = ["--retry", "20", "--retry-all-errors", "--retry-delay", "15"];
        stack.probes = vec![started(&format!("https://{domain}"), &patience)];
        stack
    }
}

fn started(address: &str, more: &[&str]) -> Probe {
    let url = format!("{address}/startupz");
    let curl = ["--fail", "--silent", "--show-error", "--max-time", "60"];
    Probe { command: Command::new("curl", &[&curl[..], more, &[&url]].concat()), wanted: STARTED }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(stack: &str, region: &str, parameters: &[(&str, &str)]) -> Section {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Section {
            stack: stack.to_owned(),
            region: region.to_owned(),
            built: (stack == "region").then(|| "infra/aws/region.yaml".into()),
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
        let both = [("Regions", "us-east-1,closed,eu-central-1")];
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
    fn an_edge_must_lead_to_its_regions() {
        let regions = ("Regions", "a,b");
        let (global, a) =
            (section("g", "a", &[]), section("region", "a", &[regions, ("DomainName", "o.x.org")]));
        let b = section("region", "b", &[regions]);
        let told = |edge: &[(&str, &str)]| {
            problems(&[
                ("dev-global", global.clone()),
                ("dev-a", a.clone()),
                ("dev-b", b.clone()),
                ("dev-edge", section("e", "a", edge)),
            ])
        };
        let expected = [
            "dev-edge gives no HostedZoneId, the zone that its DomainName lies in",
            "dev-edge gives no OriginDomainName; give the DomainName of its regions",
        ];
        assert_eq!(told(&[("DomainName", "x.org")]), expected);
        let expected = [
            "dev-edge gives x.org as DomainName and as OriginDomainName, and would ask itself",
            "dev-edge gives the OriginDomainName x.org, but dev-a gives the DomainName o.x.org; they must be the same",
            "dev-edge gives the OriginDomainName x.org, but dev-b gives the DomainName none; they must be the same",
        ];
        let edge = [("DomainName", "x.org"), ("OriginDomainName", "x.org"), ("HostedZoneId", "Z1")];
        assert_eq!(told(&edge), expected);
    }

    #[test]
    fn what_a_deployment_decides_itself_is_not_taken_from_the_sections() {
        let found = problems(&[
            ("dev-global", section("g", "a", &[])),
            ("dev-a", section("region", "a", &[("Regions", "a,b"), ("ProviderKeysVersion", "v")])),
            ("dev-b", section("region", "b", &[("Regions", "a,b")])),
        ]);
        assert_eq!(
            found,
            ["dev-a gives ProviderKeysVersion; take it out, `reef deploy` gives the current one"]
        );
    }
}
