//! What must be so, or should be, before anything is changed.

use super::command::Command;
use super::samconfig::Section;
use super::template::Template;
use std::collections::{BTreeMap, BTreeSet};

/// Functions that run at once beside those of jobs: some people, each of whom holds two.
const ROOM: f64 = 20.0;

/// What must be so before anything is changed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Requirement {
    /// The first of these that works is asked.
    pub(super) commands: Vec<Command>,
    /// What is missing if the command fails, and what to do.
    pub(super) remedy: String,
    /// Whether a deployment goes on without it.
    pub(super) is_advice: bool,
    wanted: Wanted,
}

#[derive(Debug, Clone, PartialEq)]
enum Wanted {
    Anything,
    Text(&'static str),
    /// A zone that these names lie in.
    ZoneOf(BTreeSet<String>),
    /// A number that is not less.
    AtLeast(f64),
}

impl Requirement {
    fn new(command: Command, remedy: impl Into<String>, wanted: Wanted) -> Self {
        Self { commands: vec![command], remedy: remedy.into(), is_advice: false, wanted }
    }

    /// As it is typed into a shell.
    pub(super) fn line(&self) -> String {
        self.commands.iter().map(Command::line).collect::<Vec<_>>().join(" || ")
    }

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
            Wanted::AtLeast(least) => {
                let is_enough = said.parse::<f64>().is_ok_and(|found| found >= *least);
                (!is_enough).then(|| format!("{}: found {said}", self.remedy))
            }
        }
    }
}

/// Programs, the account in each region, the zones of domains, and room for the functions.
pub(super) fn all(sections: &[&Section], regions: &[&Section], template: &Template) -> Vec<Requirement> {
    let tool = |arguments: &[&str], remedy: &str, wanted| {
        Requirement::new(Command::new(arguments[0], &arguments[1..]), remedy, wanted)
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
    let built = regions.first().filter(|section| section.built.is_some());
    all.extend(built.and_then(|section| zig(architecture(section, template))));
    let places: BTreeSet<&str> = sections.iter().map(|section| section.region.as_str()).collect();
    for region in places {
        let command =
            ["sts", "get-caller-identity", "--region", region, "--query", "Account", "--output", "text"];
        let remedy = format!(
            "there are no credentials for {region}, or the account has it switched off; try `aws configure`"
        );
        all.push(Requirement::new(Command::new("aws", &command), remedy, Wanted::Anything));
    }
    all.extend(zones(sections));
    all.extend(regions.iter().filter_map(|section| concurrency(section, template)));
    all
}

/// The processor that a region's functions are built for.
pub(super) fn architecture<'a>(section: &'a Section, template: &'a Template) -> &'a str {
    section.parameter("Architecture").or(template.default("Architecture")).unwrap_or("arm64")
}

/// cargo-lambda links for another processor, or on another system, with Zig; the package `ziglang` brings it without the
/// command.
fn zig(architecture: &str) -> Option<Requirement> {
    let processor = if architecture == "arm64" { "aarch64" } else { architecture };
    if cfg!(target_os = "linux") && std::env::consts::ARCH == processor {
        return None;
    }
    let remedy = format!("Zig is needed to build for {architecture} on this machine: pip install ziglang");
    let mut zig = Requirement::new(Command::new("zig", &["version"]), remedy, Wanted::Anything);
    zig.commands.push(Command::new("python3", &["-m", "ziglang", "version"]));
    Some(zig)
}

fn zones(sections: &[&Section]) -> Vec<Requirement> {
    let mut zones: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for section in sections {
        if let (Some(zone), Some(name)) = (section.parameter("HostedZoneId"), section.parameter("DomainName"))
        {
            zones.entry(zone).or_default().insert(name.to_owned());
        }
    }
    let ask = |(zone, names): (&str, _)| {
        let command =
            ["route53", "get-hosted-zone", "--id", zone, "--query", "HostedZone.Name", "--output", "text"];
        let remedy = format!("HostedZoneId {zone} of samconfig.toml does not fit");
        Requirement::new(Command::new("aws", &command), remedy, Wanted::ZoneOf(names))
    };
    zones.into_iter().map(ask).collect()
}

/// New accounts may run ten functions at once: jobs alone would take them all.
fn concurrency(section: &Section, template: &Template) -> Option<Requirement> {
    let jobs = section.parameter("WorkerConcurrency").or(template.default("WorkerConcurrency"))?;
    let jobs: f64 = jobs.parse().ok()?;
    let (region, least) = (&section.region, jobs + ROOM);
    let quota = ["service-quotas", "get-service-quota", "--region", region];
    let which = ["--service-code", "lambda", "--quota-code", "L-B99A9384"];
    let shown = ["--query", "Quota.Value", "--output", "text"];
    let command = Command::new("aws", &[&quota[..], &which, &shown].concat());
    let remedy = format!(
        "Lambda's quota \"Concurrent executions\" should be at least {least} in {region} (WorkerConcurrency {jobs} and \
         {ROOM} for people); ask AWS for more, or lower WorkerConcurrency"
    );
    Some(Requirement { is_advice: true, ..Requirement::new(command, remedy, Wanted::AtLeast(least)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanting(wanted: Wanted) -> Requirement {
        Requirement::new(Command::new("aws", &[]), "no", wanted)
    }

    #[test]
    fn a_domain_outside_its_zone_is_found() {
        let names = ["a.example.com".to_owned(), "example.com".to_owned()].into();
        assert_eq!(wanting(Wanted::ZoneOf(names)).problem_with("example.com.\n"), None);
        let told =
            wanting(Wanted::ZoneOf(["badexample.com".to_owned()].into())).problem_with("example.com.\n");
        assert_eq!(told.as_deref(), Some("no: it is the zone example.com, and badexample.com is not in it"));
    }

    #[test]
    fn a_number_below_the_least_or_none_at_all_is_found() {
        let told = |said: &str| wanting(Wanted::AtLeast(30.0)).problem_with(said);
        assert_eq!((told("30.0\n"), told("1000.0")), (None, None));
        assert_eq!(told("10.0\n").as_deref(), Some("no: found 10.0"));
        assert_eq!(told("None").as_deref(), Some("no: found None"));
    }
}
