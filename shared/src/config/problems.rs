//! What is wrong with a configuration: every problem with its path, told together.

use crate::bounds::{ERROR_BYTES, QUOTED_CHARS, SETTINGS_PROBLEMS};
use crate::quote::shortened;
use std::fmt;

/// Most bytes of a path that are told: the keys of a file may be of any length.
const PATH_BYTES: usize = 3 * QUOTED_CHARS;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where in the file, e.g. `agents[2].model`; empty for the file as a whole.
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// What is wrong with one configuration, in the order in which it was found; never empty as an error. Beyond
/// [`SETTINGS_PROBLEMS`] problems are only counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    told: Vec<Problem>,
    further: usize,
}

impl Problems {
    /// The problems that are told.
    pub fn all(&self) -> &[Problem] {
        &self.told
    }

    /// How many there are beyond those.
    pub const fn further(&self) -> usize {
        self.further
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Adds one – unless the value itself, or one around it, is known to be wrong already: what is missing only because
    /// it had to be set aside is no news.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        let path = shortened(path.into(), PATH_BYTES);
        if self.told.iter().any(|known| covers(&known.path, &path)) {
            return;
        }
        if self.told.len() < SETTINGS_PROBLEMS {
            self.told.push(Problem { path, message: shortened(message.into(), ERROR_BYTES) });
        } else {
            self.further += 1;
        }
    }

    /// Adds those of another part of the same configuration.
    pub(super) fn append(&mut self, others: Self) {
        for Problem { path, message } in others.told {
            self.add(path, message);
        }
        self.further += others.further;
    }
}

fn covers(outer: &str, inner: &str) -> bool {
    !outer.is_empty()
        && inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || rest.starts_with('['))
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.told.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}{problem}")?;
        }
        if self.further > 0 {
            write!(f, "\nand {} more", self.further)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_a_hundred_problems_are_counted() {
        let mut problems = Problems::default();
        for number in 0..SETTINGS_PROBLEMS + 7 {
            problems.add(format!("a{number}"), "is missing");
        }
        let mut all = Problems::default();
        all.add("b", "is missing");
        all.append(problems);
        assert_eq!((all.all().len(), all.further()), (SETTINGS_PROBLEMS, 8));
        assert!(all.to_string().ends_with("\nand 8 more"), "{all}");
    }

    #[test]
    fn a_problem_within_a_value_that_is_known_to_be_wrong_is_not_told_again() {
        let mut problems = Problems::default();
        problems.add("agents[1]", "must be an object");
        problems.add("agents[1].id", "is missing");
        problems.add("agents[1]", "is missing");
        problems.add("agents[10].id", "is missing");
        assert_eq!(problems.to_string(), "agents[1]: must be an object\nagents[10].id: is missing");
    }
}
