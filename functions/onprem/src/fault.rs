//! Why a command failed, for the person at the terminal.

use shared::error::{Error, StoreError};
use std::io::{self, Write};
use std::process::ExitCode;

/// Why a command failed: what, where, and what to do next.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Told on standard error.
    Told(String),
    /// Has been told already, as the command's own output.
    Shown,
    /// Nobody reads our output any more: not a failure, and nobody is left to tell.
    Closed,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::Told(message.into())
    }

    /// A failure with its causes: this is the operator, who needs them.
    pub(crate) fn because(what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = format!("{what}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !message.ends_with(&cause_text) {
                message.push_str(": ");
                message.push_str(&cause_text);
            }
            source = cause.source();
        }
        Self::Told(message)
    }

    /// Tells it, and says with which code to exit.
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Closed => return ExitCode::SUCCESS,
            Self::Shown => {}
            Self::Told(message) => {
                // If standard error is closed too, the exit code has to say it all.
                let _ = writeln!(io::stderr().lock(), "reef: {message}");
            }
        }
        ExitCode::FAILURE
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::because("this did not work", &error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::because("the data cannot be read or written", &error)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::because("the output cannot be written", &error)
        }
    }
}
