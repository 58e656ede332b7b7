//! The data folder as the operator named it: where it is, whether data is there, and what is wrong with it.

use crate::fault::Fault;
use shared::adapters::onprem::Sqlite;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What to do when it is the wrong one.
const CHOOSE: &str = "name the server's folder with --data or REEF_DATA";

/// The path from the root: a message must not depend on where the reader stands.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    // Without the dots of `./data`.
    whole.components().collect()
}

/// Whether an installation's data is there.
pub(crate) fn holds_data(data: &Path) -> Result<bool, Fault> {
    match Sqlite::is_in(data) {
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(data, &error)),
    }
}

/// Refuses a folder without data: a command that works on an installation makes none. `instead` is what else can be done.
pub(crate) fn needs_data(data: &Path, instead: &str) -> Result<(), Fault> {
    if holds_data(data)? {
        return Ok(());
    }
    Err(Fault::new(format!("there is no data in {}; {CHOOSE}{instead}", absolute(data).display())))
}

/// Why the folder, or something in it, could not be used: the plain reason if there is one, else the error with its causes.
pub(crate) fn unusable(data: &Path, error: &(dyn std::error::Error + 'static)) -> Fault {
    let otherwise =
        || Fault::because(&format!("the data in {} cannot be used", absolute(data).display()), error);
    plain_reason(data).unwrap_or_else(otherwise)
}

/// The plain reason why the folder cannot be used, if there is one.
pub(crate) fn plain_reason(data: &Path) -> Option<Fault> {
    let reason = trouble(data)?;
    let folder = absolute(data);
    Some(Fault::new(format!(
        "the data folder {} cannot be used: {reason}; choose one with --data or REEF_DATA",
        folder.display()
    )))
}

/// What is wrong with the folder, as far as one can see from outside.
fn trouble(data: &Path) -> Option<String> {
    let (at, found) = nearest(data)?;
    let shown = at.display();
    if !found.is_dir() {
        return Some(format!("{shown} is a file"));
    }
    let (owner, me) = (found.uid(), rustix::process::geteuid());
    if me.is_root() || may_write(&found) {
        return None;
    }
    Some(if at == absolute(data) && owner != me.as_raw() {
        format!(
            "it belongs to the user with the id {owner}, and this is the user with the id {}; run this as its owner",
            me.as_raw()
        )
    } else {
        format!("{shown} may not be written by the user with the id {}", me.as_raw())
    })
}

/// The folder, or the nearest one around it that there is.
fn nearest(data: &Path) -> Option<(PathBuf, Metadata)> {
    let data = absolute(data);
    data.ancestors().find_map(|at| Some((at.to_path_buf(), std::fs::metadata(at).ok()?)))
}

fn may_write(found: &Metadata) -> bool {
    let (mode, me) = (found.mode(), rustix::process::geteuid().as_raw());
    let group = rustix::process::getegid().as_raw();
    let bits = match (found.uid() == me, found.gid() == group) {
        (true, _) => mode >> 6,
        (_, true) => mode >> 3,
        _ => mode,
    };
    bits & 0o3 == 0o3
}

/// Reads a small file that may not be there, or whose folder may not be there.
pub(crate) fn read_if_there(file: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
