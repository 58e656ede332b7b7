//! What a data folder knows of the server on it: which settings it serves with. The operator's commands on the folder
//! take the same, so that nobody works on the right data with the wrong agents.

use crate::fault::Fault;
use crate::folder;
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The note's name in the data folder.
const FILE: &str = "serving.json";

/// With which settings the data is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// The settings' absolute path; `None` for the built-in example agents.
    pub(crate) settings: Option<PathBuf>,
    /// Whether every agent is on the demo model.
    #[serde(default)]
    pub(crate) demo: bool,
}

impl Note {
    /// The note in a data folder, if a server has left one.
    pub(crate) fn read(data: &Path) -> Result<Option<Self>, Fault> {
        let file = folder::absolute(data).join(FILE);
        let unreadable = |error: &(dyn std::error::Error + 'static)| {
            let what = format!(
                "{} cannot be read, which says with which settings the data is served; name them with --config or \
                 REEF_CONFIG",
                file.display()
            );
            Fault::because(&what, error)
        };
        let read = folder::read_if_there(&file);
        let read = read.map_err(|error| folder::plain_reason(data).unwrap_or_else(|| unreadable(&error)));
        let Some(text) = read? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| unreadable(&error))
    }

    /// Leaves the note in a data folder that is there; writes nothing if it stands there already. Readable for its owner
    /// alone, and whole or not at all.
    pub(crate) fn leave(&self, data: &Path) -> io::Result<()> {
        if matches!(Self::read(data), Ok(Some(known)) if known == *self) {
            return Ok(());
        }
        let text = serde_json::to_string(self)?;
        let beside = data.join(format!("{FILE}.{}", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&beside, data.join(FILE)));
        if written.is_err() {
            // What could not be written, or renamed, is of no use to anybody.
            let _ = std::fs::remove_file(&beside);
        }
        written
    }

    /// The settings for a person.
    pub(crate) fn shown(&self) -> String {
        let demo = if self.demo { " and --demo" } else { "" };
        match &self.settings {
            Some(file) => format!("{}{demo}", file.display()),
            None => "the built-in example agents".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_note_is_read_as_it_was_left_and_belongs_to_its_owner_alone() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(Note::read(data.path()).unwrap(), None);
        assert_eq!(Note::read(&data.path().join("nowhere")).unwrap(), None);
        let mut note = Note { settings: Some("/etc/reef/日本.json".into()), demo: true };
        note.leave(data.path()).unwrap();
        let first = std::fs::metadata(data.path().join(FILE)).unwrap();
        assert_eq!(first.mode() & 0o777, 0o600);
        note.leave(data.path()).unwrap();
        assert_eq!(std::fs::metadata(data.path().join(FILE)).unwrap().ino(), first.ino(), "written again");
        for settings in [None, Some("/srv/other.json".into())] {
            note.settings = settings;
            note.leave(data.path()).unwrap();
            assert_eq!(Note::read(data.path()).unwrap().as_ref(), Some(&note));
        }
        let names: Vec<_> =
            std::fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [FILE], "nothing is left beside it");
    }

    #[test]
    fn a_spoilt_note_is_a_clear_problem_and_is_replaced_by_the_next_one() {
        let data = tempfile::tempdir().unwrap();
        std::fs::write(data.path().join(FILE), "{").unwrap();
        let Err(Fault::Told(said)) = Note::read(data.path()) else { panic!("it was read") };
        assert!(said.contains("serving.json cannot be read") && said.contains("--config"), "{said}");
        let note = Note { settings: None, demo: false };
        note.leave(data.path()).unwrap();
        assert_eq!(Note::read(data.path()).unwrap(), Some(note));
    }
}
