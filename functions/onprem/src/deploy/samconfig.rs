//! `samconfig.toml`, as far as a deployment needs it.

use crate::fault::Fault;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The environments of the SAM CLI, by name.
pub(super) type Sections = BTreeMap<String, Section>;

/// One environment of the SAM CLI: for us, one stack in one region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    /// The stack's name.
    pub(super) stack: String,
    /// Where it goes.
    pub(super) region: String,
    /// Whether it is built first.
    pub(super) is_built: bool,
    /// Parameters that it gives.
    pub(super) parameters: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Commands {
    build: Option<toml::Value>,
    deploy: Option<Of<Deploy>>,
}

#[derive(Debug, Deserialize)]
struct Of<T> {
    parameters: T,
}

#[derive(Debug, Deserialize)]
struct Deploy {
    stack_name: String,
    region: String,
    #[serde(default)]
    parameter_overrides: Overrides,
}

/// `["Name=value", …]`, or the same in one text with spaces between.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Overrides {
    List(Vec<String>),
    Text(String),
}

impl Default for Overrides {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl Overrides {
    fn read(self) -> BTreeMap<String, String> {
        let list = match self {
            Self::List(list) => list,
            Self::Text(text) => text.split_whitespace().map(str::to_owned).collect(),
        };
        let pairs = list.iter().filter_map(|one| one.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect()
    }
}

/// Reads the file. Environments that deploy nothing are left out.
pub(super) fn read(file: &Path) -> Result<Sections, Fault> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let what = format!(
            "{} cannot be read; run this at the top of the repository, or name it with --samconfig",
            file.display()
        );
        Fault::because(&what, &error)
    })?;
    parse(&text).map_err(|error| Fault::because(&format!("{} is not understood", file.display()), &error))
}

fn parse(text: &str) -> Result<Sections, toml::de::Error> {
    let mut all: toml::Table = toml::from_str(text)?;
    all.remove("version");
    let mut sections = Sections::new();
    for (name, value) in all {
        let Commands { build, deploy } = value.try_into()?;
        if let Some(Of { parameters: Deploy { stack_name, region, parameter_overrides } }) = deploy {
            let parameters = parameter_overrides.read();
            sections
                .insert(name, Section { stack: stack_name, region, is_built: build.is_some(), parameters });
        }
    }
    Ok(sections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_a_stack_in_a_region_with_its_parameters() {
        let text = r#"
            version = 0.1
            [dev-a.build.parameters]
            cached = true
            [dev-a.deploy.parameters]
            stack_name = "s"
            region = "eu-central-1"
            parameter_overrides = ["Environment=dev", "Regions=a,b"]
            [dev-b.deploy.parameters]
            stack_name = "t"
            region = "us-east-1"
            parameter_overrides = "Environment=dev Waf=\"true\""
            [default.validate.parameters]
            lint = true
        "#;
        let section = |stack: &str, region: &str, is_built, parameters: [(&str, &str); 2]| Section {
            stack: stack.to_owned(),
            region: region.to_owned(),
            is_built,
            parameters: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        };
        let expected = Sections::from([
            (
                "dev-a".to_owned(),
                section("s", "eu-central-1", true, [("Environment", "dev"), ("Regions", "a,b")]),
            ),
            ("dev-b".to_owned(), section("t", "us-east-1", false, [("Environment", "dev"), ("Waf", "true")])),
        ]);
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn a_deployment_without_a_region_is_not_understood() {
        let error = parse("[dev-a.deploy.parameters]\nstack_name = \"s\"").unwrap_err().to_string();
        assert!(error.contains("missing field `region`"), "{error}");
    }
}
