//! What others wrote, in sentences of ours: short enough for an answer and a log line, and without what would steer
//! a terminal.

use crate::bounds::QUOTED_CHARS;
use std::borrow::Cow;

/// Stands where a text was cut.
const CUT: char = '…';

/// Most bytes of a quotation: long characters come in fewer.
const QUOTED_BYTES: usize = 2 * QUOTED_CHARS;

/// A value of a caller's or an operator's as a sentence may quote it: at most [`QUOTED_CHARS`] characters of it, on one
/// line.
pub fn quoted(text: &str) -> Cow<'_, str> {
    let fits = |(index, (at, letter)): &(usize, (usize, char))| {
        *index < QUOTED_CHARS && at + letter.len_utf8() <= QUOTED_BYTES
    };
    let end = text.char_indices().enumerate().take_while(fits).last();
    let end = end.map_or(0, |(_, (at, letter))| at + letter.len_utf8());
    let kept = &text[..end];
    if end == text.len() && !kept.chars().any(steers) {
        return Cow::Borrowed(text);
    }
    let mut out: String = kept
        .chars()
        .map(|letter| if steers(letter) { char::REPLACEMENT_CHARACTER } else { letter })
        .collect();
    if end < text.len() {
        out.push(CUT);
    }
    Cow::Owned(out)
}

/// Whether the character does something to a terminal or to the direction of the text around it.
fn steers(letter: char) -> bool {
    let separates = matches!(letter, '\u{2028}' | '\u{2029}');
    letter.is_control()
        || separates
        || matches!(letter, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{200E}' | '\u{200F}')
}

/// A text of at most `most` bytes: the beginning of a longer one, which then ends with `…`.
pub fn shortened(mut text: String, most: usize) -> String {
    if text.len() > most {
        let room = most.saturating_sub(CUT.len_utf8());
        text.truncate(text.floor_char_boundary(room));
        text.push(CUT);
        // A text of megabytes is not kept for its first line.
        text.shrink_to_fit();
    }
    text
}

/// What a reader of serde's says, with the value in it as [`quoted`]: `invalid type: string "…", expected a boolean`.
pub fn reason(said: &str) -> String {
    // What was expected is in our own words and stands last.
    let (found, expected) = said.rfind(", expected ").map_or((said, ""), |at| said.split_at(at));
    let mark = |letter: char| letter == '"' || letter == '`';
    let value = found.find(mark).map(|at| at + 1).zip(found.rfind(mark)).filter(|(start, end)| start <= end);
    match value {
        Some((start, end)) => {
            let (before, value, after) = (&found[..start], &found[start..end], &found[end..]);
            format!("{before}{}{after}{expected}", quoted(value))
        }
        // A sentence of ours, or of the reader's, without a value.
        None => shortened(said.to_owned(), QUOTED_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[test]
    fn a_short_text_is_quoted_as_it_is_and_a_long_one_by_its_first_hundred_characters() {
        let hundred = "é".repeat(100);
        assert_eq!(quoted(&hundred), hundred);
        assert_eq!(quoted(&"é".repeat(101)), format!("{hundred}…"));
        assert_eq!(quoted(&"x".repeat(3_000_000)), format!("{}…", "x".repeat(100)));
        assert_eq!(quoted(&"\u{1F600}".repeat(100)), format!("{}…", "\u{1F600}".repeat(50)));
        assert_eq!(quoted(""), "");
    }

    #[test]
    fn what_steers_a_terminal_is_not_quoted() {
        assert_eq!(quoted("a\u{1b}[2J\nb\u{202e}c\u{2028}"), "a\u{fffd}[2J\u{fffd}b\u{fffd}c\u{fffd}");
        assert_eq!(quoted("日本語"), "日本語");
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(shortened("äöü".to_owned(), 6), "äöü");
        assert_eq!(shortened("äöüß".to_owned(), 6), "ä…");
        assert_eq!(shortened("äöü".to_owned(), 0), "…");
    }

    #[test]
    fn serdes_words_keep_what_was_expected_and_lose_a_long_value() {
        #[derive(Debug, Deserialize)]
        enum Choice {
            One,
        }
        let long = "x".repeat(3_000_000);
        let shown = format!("{}…", "x".repeat(100));
        let said = |error: serde_json::Error| reason(&error.to_string());
        assert_eq!(
            said(serde_json::from_value::<bool>(json!(long)).unwrap_err()),
            format!("invalid type: string \"{shown}\", expected a boolean")
        );
        assert_eq!(
            said(serde_json::from_value::<Choice>(json!(long)).unwrap_err()),
            format!("unknown variant `{shown}`, expected `One`")
        );
        assert_eq!(
            said(serde_json::from_value::<bool>(json!(["a"])).unwrap_err()),
            "invalid type: sequence, expected a boolean"
        );
        let tricky = format!("\", expected {long}");
        let said = said(serde_json::from_value::<bool>(json!(tricky)).unwrap_err());
        assert!(said.len() < 200 && said.ends_with(", expected a boolean"), "{said}");
        assert!(matches!(serde_json::from_value(json!("One")), Ok(Choice::One)));
    }
}
