//! The data folder belongs to the user who runs the server, and to nobody else: what is made is made so, and what was left
//! too open is closed, or the operator is told.

use rustix::fs::Mode;
use rustix::process::umask;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

/// Rights of anybody but the owner.
const OTHERS: u32 = 0o077;

/// Beginnings of the names that Reef gives in a data folder.
const OURS: [&str; 6] = ["reef", ".reef", "limits.sqlite", "workspaces", "first-admin-token", "serving.json"];

/// Whatever this process makes from now on is for its user alone. Before any thread is started.
pub(crate) fn nothing_for_others() {
    umask(Mode::from_bits_truncate(OTHERS));
}

/// Makes a folder, with those that lead to it, for this user alone. One that is there stays as it is.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Closes a data folder, and what Reef made in it, to other users, as an earlier release or a copy may have left it open.
/// Returns what the operator should know of that.
pub(crate) fn close(data: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(data) else { return Vec::new() };
    let (mut told, mut all_ours) = (Vec::new(), true);
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_ours = OURS.iter().any(|begin| name.to_string_lossy().starts_with(begin));
        // A link leads to what is somebody else's to decide.
        if is_ours && entry.file_type().is_ok_and(|kind| !kind.is_symlink()) {
            told.extend(closed(&entry.path()));
        }
        all_ours &= is_ours;
    }
    if all_ours {
        told.extend(closed(data));
    } else if open_to_others(data) {
        // It may be a folder that others live in, too.
        told.push(format!(
            "the data folder {} can be entered by other users, and holds more than Reef's own files: take these rights away \
             with `chmod go-rwx`, or give Reef a folder of its own",
            data.display()
        ));
    }
    told
}

fn open_to_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.mode() & OTHERS != 0)
}

/// Takes others' rights away, if they have any, and says so.
fn closed(path: &Path) -> Option<String> {
    let mode = fs::metadata(path).ok()?.mode() & 0o7777;
    if mode & OTHERS == 0 {
        return None;
    }
    let shown = path.display();
    Some(match fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS)) {
        Ok(()) => format!("{shown} was open to other users (mode {mode:o}); it is closed to them now"),
        Err(error) => {
            format!("{shown} is open to other users (mode {mode:o}), and cannot be closed: {error}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn open_folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(folder.path().join(name), "").unwrap();
            fs::set_permissions(folder.path().join(name), Permissions::from_mode(0o644)).unwrap();
        }
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        folder
    }

    #[test]
    fn an_open_data_folder_is_closed_with_what_is_in_it() {
        let data = open_folder(&["reef.sqlite", "limits.sqlite-wal"]);
        assert_eq!(close(data.path()).len(), 3);
        assert_eq!(mode(data.path()), 0o700);
        assert_eq!(mode(&data.path().join("reef.sqlite")), 0o600);
        assert_eq!(mode(&data.path().join("limits.sqlite-wal")), 0o600);
        assert_eq!(close(data.path()), [""; 0], "the second time there is nothing to do");
    }

    #[test]
    fn a_folder_that_holds_other_things_is_only_told_of() {
        let data = open_folder(&["reef.sqlite", "letters.txt"]);
        let told = close(data.path());
        assert!(told.iter().any(|line| line.contains("chmod go-rwx")), "{told:?}");
        assert_eq!(mode(data.path()), 0o755);
        assert_eq!(mode(&data.path().join("letters.txt")), 0o644);
        assert_eq!(mode(&data.path().join("reef.sqlite")), 0o600);
    }
}
