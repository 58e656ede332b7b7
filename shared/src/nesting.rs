//! How deep a JSON text is nested, found out without reading it: what is nested deeper than a reader goes down is never
//! read back.

/// The first place at which a text is nested deeper than it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooDeep {
    /// The way there from the top, e.g. `tools[0].parameters.properties`, cut after a few steps; empty if that is not known.
    pub path: String,
}

/// Steps of a path that are told; behind them it only goes on as it began.
const TOLD_STEPS: usize = 4;

/// Bytes of a member's name that are told.
const TOLD_BYTES: usize = 32;

/// Whether a JSON text has more than `most` levels of objects and lists within each other, and where. One pass over the
/// bytes; of a text that is no JSON the answer means nothing, but comes as fast.
pub fn too_deep(text: &[u8], most: usize) -> Option<TooDeep> {
    let mut level = 0_usize;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at = behind_string(text, at),
            b'{' | b'[' => {
                level += 1;
                if level > most {
                    return Some(TooDeep { path: path_to(text, at) });
                }
                at += 1;
            }
            b'}' | b']' => {
                level = level.saturating_sub(1);
                at += 1;
            }
            _ => at += 1,
        }
    }
    None
}

/// The place behind the string that begins at `from`.
fn behind_string(text: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    loop {
        match text.get(at) {
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return text.len(),
        }
    }
}

/// A step down.
enum Step {
    /// Into the member of this name, as it is written.
    Member(std::ops::Range<usize>),
    /// Into this entry of a list.
    Entry(usize),
}

/// The way to the bracket at `end`. Only what is refused pays for it.
fn path_to(text: &[u8], end: usize) -> String {
    let mut steps: Vec<Step> = Vec::new();
    let mut string = 0..0;
    let mut at = 0;
    while at < end {
        match text.get(at) {
            Some(b'"') => {
                let behind = behind_string(text, at);
                string = at + 1..behind.saturating_sub(1).max(at + 1);
                at = behind;
                continue;
            }
            Some(b':') => {
                if let Some(step) = steps.last_mut() {
                    *step = Step::Member(string.clone());
                }
            }
            Some(b',') => {
                if let Some(Step::Entry(number)) = steps.last_mut() {
                    *number += 1;
                }
            }
            Some(b'{') => steps.push(Step::Member(0..0)),
            Some(b'[') => steps.push(Step::Entry(0)),
            Some(b'}' | b']') => drop(steps.pop()),
            _ => {}
        }
        at += 1;
    }
    let mut path = String::new();
    for step in steps.iter().take(TOLD_STEPS) {
        match step {
            Step::Member(name) => {
                if !path.is_empty() {
                    path.push('.');
                }
                let name = text.get(name.clone()).unwrap_or_default();
                let name = String::from_utf8_lossy(name.get(..TOLD_BYTES).unwrap_or(name));
                path.extend(name.chars().filter(|letter| !letter.is_control()));
            }
            Step::Entry(number) => path.push_str(&format!("[{number}]")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::STORED_LEVELS;
    use serde_json::Value;

    #[test]
    fn levels_are_counted_and_brackets_in_strings_are_not() {
        for (text, levels) in [
            ("1", 0),
            ("{}", 1),
            (r#"{"a":[{"b":1},{"c":[]}]}"#, 4),
            (r#"{"[[[[\"[[{":"]]}\\"}"#, 1),
            ("[[],[],[[]]]", 3),
        ] {
            assert_eq!(too_deep(text.as_bytes(), levels), None, "{text}");
            assert!(levels == 0 || too_deep(text.as_bytes(), levels - 1).is_some(), "{text}");
        }
    }

    #[test]
    fn the_way_to_what_is_too_deep_is_told_in_a_few_steps() {
        let text = r#"{"model":"m","tools":[{"x":{}},{"parameters":{"a":{"a":{"a":{}}}}}]}"#;
        assert_eq!(too_deep(text.as_bytes(), 6), Some(TooDeep { path: "tools[1].parameters.a".to_owned() }));
        assert_eq!(too_deep(text.as_bytes(), 7), None);
    }

    #[test]
    fn what_is_no_json_is_answered_as_well() {
        for text in ["\"", "\"\\", "]]]}", "{\"a", ":,:", "[\"\\"] {
            assert_eq!(too_deep(text.as_bytes(), 5), None, "{text}");
            assert_eq!(too_deep(text.as_bytes(), 0).is_some(), text.starts_with(['{', '[']), "{text}");
        }
    }

    #[test]
    fn what_is_stored_at_its_bound_is_read_back_and_one_level_more_is_not() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        for (levels, is_read) in [(STORED_LEVELS, true), (STORED_LEVELS + 1, false)] {
            let text = nested(levels);
            assert_eq!(serde_json::from_str::<Value>(&text).is_ok(), is_read);
            assert_eq!(too_deep(text.as_bytes(), STORED_LEVELS).is_none(), is_read);
        }
    }
}
