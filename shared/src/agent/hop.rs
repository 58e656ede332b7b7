//! What a process that takes requests and one that runs turns say to each other: an [`Ask`], answered by lines of JSON,
//! each a [`Line`]. An empty line only says that the answering process is alive.

use super::{RunRequest, TurnEvent};
use crate::bounds::HOP_LINE_BYTES;
use crate::id::{TenantId, TurnId};
use crate::session::{Failure, Session, SessionChange};
use serde::{Deserialize, Serialize};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// To run a turn: answered by its events.
    Run(Box<RunRequest>),
    /// To go on with an interrupted turn: answered by its end.
    Resume {
        /// Whose data.
        tenant: TenantId,
        /// Which.
        turn: TurnId,
    },
    /// To reset or delete a session that is at home there: answered by [`Line::Session`].
    Change(SessionChange),
    /// How the process is: answered by [`Line::Ready`].
    Check(Check),
}

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Whether work may come.
    Ready,
}

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// What happened.
    Event(TurnEvent),
    /// Why there is nothing more: before [`TurnEvent::Accepted`] the turn was refused, behind it the turn goes on elsewhere.
    Error {
        /// Without its cause, which the answering process has logged.
        error: Failure,
    },
    /// The answer to [`Check::Ready`].
    Ready {
        /// Whether it may.
        ready: bool,
    },
    /// The answer to [`Ask::Change`].
    Session {
        /// As [`crate::app::App::change`] returns it.
        session: Box<Session>,
    },
}

impl Line {
    /// The line with its end.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Fails only for maps whose keys are no texts, which no event has.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Why bytes are no line of ours.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It is none that [`Line`] knows.
    #[error("a line of something else")]
    Unknown(#[from] serde_json::Error),
    /// It is longer than [`HOP_LINE_BYTES`].
    #[error("a line is longer than {HOP_LINE_BYTES} bytes")]
    TooLong,
}

/// Puts lines together from bytes as they come.
///
/// What stands in a line before a NUL is no part of it: the runtime of a function puts a prelude of its own in front of
/// everything, and ends it with NULs.
#[derive(Debug, Default)]
pub struct Lines {
    waiting: Vec<u8>,
    /// So many of them hold no end of a line.
    searched: usize,
}

impl Lines {
    /// Takes more bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// The next whole line that is not empty.
    ///
    /// # Errors
    /// See [`LineError`]. Nothing sensible comes behind a line that is too long.
    pub fn next_line(&mut self) -> Option<Result<Line, LineError>> {
        loop {
            let Some(end) = self.waiting[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.waiting.len();
                if self.searched <= HOP_LINE_BYTES {
                    return None;
                }
                *self = Self::default();
                return Some(Err(LineError::TooLong));
            };
            let end = std::mem::take(&mut self.searched) + end;
            let line: Vec<u8> = self.waiting.drain(..=end).collect();
            let text = line.rsplit(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
            if !text.is_empty() {
                return Some(serde_json::from_slice(text).map_err(LineError::from));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn text(delta: &str) -> Line {
        Line::Event(TurnEvent::Text { delta: delta.to_owned() })
    }

    #[test]
    fn lines_are_the_same_wherever_the_bytes_are_cut() {
        let refused =
            Failure { kind: ErrorKind::Conflict, message: "busy".to_owned(), param: None, retry_after: None };
        let said = [text("one\ntwo \u{0} ä"), Line::Error { error: refused }, Line::Ready { ready: true }];
        let mut bytes = b"{\"statusCode\":200}\0\0\0\0\0\0\0\0\n\n".to_vec();
        for line in &said {
            bytes.extend(line.to_bytes());
            bytes.push(b'\n');
        }
        for size in 1..bytes.len() {
            let mut lines = Lines::default();
            let mut heard = Vec::new();
            for part in bytes.chunks(size) {
                lines.push(part);
                while let Some(line) = lines.next_line() {
                    heard.push(line.unwrap());
                }
            }
            assert_eq!(heard, said, "in parts of {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_an_error_and_is_not_kept() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; 1024 * 1024];
        let refused = (0..=HOP_LINE_BYTES / piece.len()).find_map(|_| {
            lines.push(&piece);
            lines.next_line()
        });
        assert!(matches!(refused, Some(Err(LineError::TooLong))), "{refused:?}");
        assert_eq!(lines.waiting.len(), 0);
    }

    #[test]
    fn a_line_of_something_else_is_an_error() {
        let mut lines = Lines::default();
        lines.push(b"{\"errorType\":\"Runtime.ExitError\"}\n");
        assert!(lines.next_line().unwrap().is_err());
        assert!(lines.next_line().is_none());
    }
}
