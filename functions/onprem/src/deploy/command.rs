//! A command line: shown as it is typed, and with blanks for what only AWS knows.

/// Where a stack's address stands until it is known.
pub(super) const ADDRESS: &str = "$URL";

/// Where the version of the vendors' keys stands until it is known.
pub(super) const VERSION: &str = "$VERSION";

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
}

impl Command {
    pub(super) fn new(program: &str, arguments: &[&str]) -> Self {
        Self { program: program.to_owned(), arguments: arguments.iter().map(|&one| one.to_owned()).collect() }
    }

    /// As it is typed into a shell.
    pub(super) fn line(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.arguments);
        words.map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }

    /// With a blank filled in.
    pub(super) fn with(&self, blank: &str, value: &str) -> Self {
        let arguments = self.arguments.iter().map(|one| one.replace(blank, value)).collect();
        Self { program: self.program.clone(), arguments }
    }
}

fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,@%+".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else if word.contains(ADDRESS) || word.contains(VERSION) {
        format!("\"{word}\"")
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_a_shell_takes_it() {
        let command = Command::new("aws", &["a", "b c", "it's", "$URL/readyz", "K=$VERSION", ""]);
        assert_eq!(command.line(), r#"aws a 'b c' 'it'\''s' "$URL/readyz" "K=$VERSION" ''"#);
        let filled = command.with(ADDRESS, "https://x").with(VERSION, "v1");
        assert_eq!(filled.line(), r#"aws a 'b c' 'it'\''s' https://x/readyz K=v1 ''"#);
    }
}
