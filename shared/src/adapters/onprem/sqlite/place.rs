//! Where a data directory's database is: whether its file is still the one that is open. A program keeps a file that was
//! removed under it, and everything that it writes there is lost.

use crate::error::StoreError;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, io};

/// The open file, by its name and by what it is.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    file: (u64, u64),
    is_lost: AtomicBool,
}

/// The device and the number of a file.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(path)?;
    #[cfg(unix)]
    let of = |found: &fs::Metadata| {
        use std::os::unix::fs::MetadataExt;
        (found.dev(), found.ino())
    };
    #[cfg(not(unix))]
    let of = |_: &fs::Metadata| (0, 0);
    Ok(of(&found))
}

impl Place {
    /// The place of a database that was just opened.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: identity(path)?, is_lost: AtomicBool::new(false) })
    }

    /// Looks: one `stat`. `false` if the file was removed, or another one is in its place.
    pub(super) fn is_there(&self) -> bool {
        let is_there = match identity(&self.path) {
            Ok(file) => file == self.file,
            // Too many open files, or a folder that must not be entered right now: not known to be gone.
            Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        };
        self.is_lost.store(!is_there, Ordering::Relaxed);
        is_there
    }

    /// Refuses, if the last look found the file gone. Costs nothing.
    pub(super) fn known_to_be_there(&self) -> Result<(), StoreError> {
        if self.is_lost.load(Ordering::Relaxed) { Err(lost()) } else { Ok(()) }
    }
}

/// The database was removed or replaced.
pub(super) fn lost() -> StoreError {
    StoreError::Unavailable(
        "the data folder was removed or replaced under this process: put it back, or restart".into(),
    )
}
