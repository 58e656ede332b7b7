//! A region's template, as far as a deployment needs it: which keys it names, and what it takes where nothing is given.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Behind this a template names a key of the secret.
const REFERENCE: &str = "-provider-keys:SecretString:";

/// The text of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    /// Where it is, from the folder of `samconfig.toml`.
    pub(super) file: PathBuf,
    text: String,
}

impl Template {
    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(folder: &Path, file: &Path) -> Result<Self, String> {
        Ok(Self { file: file.to_owned(), text: text_of(folder, file)? })
    }

    /// The names of the keys that it hands to functions.
    pub(super) fn keys(&self) -> BTreeSet<String> {
        let is_of_name = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '_';
        let behind = self.text.split(REFERENCE).skip(1);
        let names = behind.map(|rest| rest.chars().take_while(is_of_name).collect::<String>());
        names.filter(|name| !name.is_empty()).collect()
    }

    /// What a parameter is if nobody gives it.
    pub(super) fn default(&self, parameter: &str) -> Option<&str> {
        let begin = format!("  {parameter}:");
        let lines = self.text.lines().skip_while(|line| line.trim_end() != begin).skip(1);
        let mut own = lines.take_while(|line| line.starts_with("    "));
        own.find_map(|line| line.strip_prefix("    Default:")).map(|value| value.trim().trim_matches('"'))
    }
}

/// The text of a file that `samconfig.toml` leads to.
pub(super) fn text_of(folder: &Path, file: &Path) -> Result<String, String> {
    std::fs::read_to_string(folder.join(file))
        .map_err(|error| format!("{} cannot be read: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_defaults_are_found_in_a_template() {
        let text = "Parameters:\n  A:\n    Description: >-\n      Default: no\n    Default: \"\"\n  B:\n    Default: 5\n  C:\n    \
                    Type: String\nResources:\n  D: {{resolve:secretsmanager:x-provider-keys:SecretString:K_1::v}}\n";
        let template = Template { file: PathBuf::new(), text: text.to_owned() };
        assert_eq!(
            ["A", "B", "C", "D"].map(|name| template.default(name)),
            [Some(""), Some("5"), None, None]
        );
        assert_eq!(template.keys(), BTreeSet::from(["K_1".to_owned()]));
    }
}
