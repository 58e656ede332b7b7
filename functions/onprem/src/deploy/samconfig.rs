//! `samconfig.toml`, as far as a deployment needs it.

use crate::fault::Fault;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The environments of the SAM CLI, by name.
pub(super) type Sections = BTreeMap<String, Section>;

/// One environment of the SAM CLI: for us, one stack in one region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    /// The stack's name.
    pub(super) stack: String,
    /// Where it goes.
    pub(super) region: String,
    /// The template that is built first, if one is.
    pub(super) built: Option<PathBuf>,
    /// Parameters that it gives.
    pub(super) parameters: BTreeMap<String, String>,
}

impl Section {
    /// A parameter that is given and not empty.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

#[derive(Debug, Deserialize)]
struct Commands {
    build: Option<Of<Build>>,
    deploy: Option<Of<Deploy>>,
}

#[derive(Debug, Deserialize)]
struct Of<T> {
    parameters: T,
}

#[derive(Debug, Deserialize)]
struct Build {
    template_file: PathBuf,
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
    /// All of them, or the first that is not understood: a deployment gives them all again, so none may be lost.
    fn read(self) -> Result<BTreeMap<String, String>, String> {
        let texts = match self {
            Self::List(list) => list,
            Self::Text(text) => vec![text],
        };
        let mut found = BTreeMap::new();
        for one in texts.iter().flat_map(|text| words(text)) {
            let wrong = || format!("the parameter {one} is not written as Name=value or Name=\"value\"");
            let (name, value) = one.split_once('=').ok_or_else(wrong)?;
            let bare = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
            if name == "ParameterKey" || bare.contains(['"', '\'', '\\']) {
                return Err(wrong());
            }
            found.insert(name.to_owned(), bare.to_owned());
        }
        Ok(found)
    }
}

/// Splits at spaces outside of double quotes.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut is_quoted, mut word) = (Vec::new(), false, String::new());
    for letter in text.chars() {
        is_quoted ^= letter == '"';
        if letter.is_whitespace() && !is_quoted {
            words.push(std::mem::take(&mut word));
        } else {
            word.push(letter);
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// A parameter as the SAM CLI takes it.
pub(super) fn written(name: &str, value: &str) -> String {
    if value.is_empty() || value.contains(char::is_whitespace) {
        format!("{name}=\"{value}\"")
    } else {
        format!("{name}={value}")
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
    parse(&text).map_err(|problem| Fault::new(format!("{} is not understood: {problem}", file.display())))
}

fn parse(text: &str) -> Result<Sections, String> {
    let mut all: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
    all.remove("version");
    let mut sections = Sections::new();
    for (name, value) in all {
        let told = |problem: String| format!("[{name}]: {problem}");
        let Commands { build, deploy } =
            value.try_into().map_err(|error: toml::de::Error| told(error.to_string()))?;
        if let Some(Of { parameters: Deploy { stack_name, region, parameter_overrides } }) = deploy {
            let parameters = parameter_overrides.read().map_err(told)?;
            let built = build.map(|build| build.parameters.template_file);
            sections.insert(name, Section { stack: stack_name, region, built, parameters });
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
            template_file = "t.yaml"
            [dev-a.deploy.parameters]
            stack_name = "s"
            region = "eu-central-1"
            parameter_overrides = ["Environment=dev", "Regions=a,b"]
            [dev-b.deploy.parameters]
            stack_name = "t"
            region = "us-east-1"
            parameter_overrides = "Environment=\"two words\" Waf=\"true\""
            [default.validate.parameters]
            lint = true
        "#;
        let section =
            |stack: &str, region: &str, built: Option<&str>, parameters: [(&str, &str); 2]| Section {
                stack: stack.to_owned(),
                region: region.to_owned(),
                built: built.map(PathBuf::from),
                parameters: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            };
        let (one, two) =
            ([("Environment", "dev"), ("Regions", "a,b")], [("Environment", "two words"), ("Waf", "true")]);
        let expected = Sections::from([
            ("dev-a".to_owned(), section("s", "eu-central-1", Some("t.yaml"), one)),
            ("dev-b".to_owned(), section("t", "us-east-1", None, two)),
        ]);
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn a_deployment_without_a_region_is_not_understood() {
        let error = parse("[dev-a.deploy.parameters]\nstack_name = \"s\"").unwrap_err();
        assert!(error.starts_with("[dev-a]: ") && error.contains("missing field `region`"), "{error}");
    }

    #[test]
    fn a_parameter_that_is_not_understood_is_told_and_not_lost() {
        let read = |text: &str| Overrides::Text(text.to_owned()).read().unwrap_err();
        for text in ["file://more.json", "ParameterKey=A,ParameterValue=b", r"A=b\ c", "A='b'"] {
            let first = text.split(' ').next().unwrap();
            assert!(read(text).starts_with(&format!("the parameter {first}")), "{}", read(text));
        }
    }

    #[test]
    fn a_parameter_is_written_as_it_was_read() {
        for (name, value) in [("A", "b,c"), ("A", "two words"), ("A", "")] {
            let again = Overrides::Text(written(name, value)).read().unwrap();
            assert_eq!(again, BTreeMap::from([(name.to_owned(), value.to_owned())]));
        }
    }
}
