//! Whether the disk takes a small file: tried at times, so that who asks hears of a full disk before a turn does.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The file that is tried, and removed again.
const FILE: &str = ".reef-probe";

/// How large it is: a commit needs some pages of 4 KB.
const BYTES: usize = 256 * 1024;

/// How long a result counts. Balancers ask every few seconds, each of them.
const COUNTS_FOR: Duration = Duration::from_secs(5);

/// What was found last.
#[derive(Debug)]
pub(super) struct Probe {
    path: PathBuf,
    last: Mutex<Option<(Instant, Option<String>)>>,
}

impl Probe {
    /// The disk of this directory.
    pub(super) fn of(directory: &Path) -> Self {
        Self { path: directory.join(FILE), last: Mutex::new(None) }
    }

    /// Why nothing can be written, as found within the last seconds.
    pub(super) fn failure(&self) -> Option<String> {
        // Whoever asks meanwhile waits for the same answer.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((at, found)) if at.elapsed() < COUNTS_FOR => found.clone(),
            _ => {
                let found = self.write().err().map(|error| error.to_string());
                *last = Some((Instant::now(), found.clone()));
                found
            }
        }
    }

    fn write(&self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(&self.path).and_then(|mut file| file.write_all(&vec![0; BYTES]));
        // Not there is as good as removed.
        let _ = std::fs::remove_file(&self.path);
        written
    }
}
