//! [`Secret`]: a value that must not be shown.

use std::fmt;

/// Letters from which on a value is looked for in texts of others. A shorter one is no secret but a word that stands
/// where a key must stand – `none`, `ollama`, `x` –, and to take it out would only spoil the text.
const LEAST_LETTERS: usize = 8;

/// What stands in the place of a secret.
const REDACTED: &str = "[redacted]";

/// A value that must not be shown: prints as `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the wire only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text without any of these secrets, e.g. a vendor's words before they are passed on. Of a value of several
    /// words (`Bearer …`) each one counts. Secrets of fewer than 8 letters stay: see [`LEAST_LETTERS`].
    pub fn blot(secrets: &[Self], text: &str) -> String {
        let words = secrets.iter().flat_map(|secret| {
            let whole = std::iter::once(secret.expose());
            whole.chain(secret.expose().split_ascii_whitespace())
        });
        let mut words: Vec<&str> =
            words.filter(|word| word.chars().count() >= LEAST_LETTERS && text.contains(word)).collect();
        // The longest first: a secret that another one begins with must not leave the other's rest.
        words.sort_by_key(|word| std::cmp::Reverse(word.len()));
        words.into_iter().fold(text.to_owned(), |text, word| text.replace(word, REDACTED))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_8_letters_and_more_are_blotted_and_shorter_ones_leave_the_text_as_it_is() {
        let blot = |secrets: &[&str], text: &str| {
            Secret::blot(&secrets.iter().map(|secret| Secret::new(*secret)).collect::<Vec<_>>(), text)
        };
        let words = "none of the models of ollama takes x; max_tokens is 7 letters";
        assert_eq!(blot(&["none", "ollama", "x", "", "letters"], words), words);
        assert_eq!(blot(&["sk-12345"], "key sk-12345 is wrong"), "key [redacted] is wrong");
        assert_eq!(blot(&["sk-12345", "sk-12345-longer"], "sk-12345-longer"), "[redacted]");
        assert_eq!(blot(&["Bearer sk-12345"], "sk-12345, Bearer sk-12345"), "[redacted], [redacted]");
        assert_eq!(blot(&["sekrét-日"], "sekrét-日"), "[redacted]", "letters are counted, not bytes");
        assert_eq!(blot(&["日本語"], "日本語"), "日本語");
    }
}
