//! An agent's instructions: the Markdown files at the root of its workspace, as one text for the system prompt.
//!
//! People edit these files; agents cannot (`tools` refuses to write them). An edit counts from the next turn on. A
//! turn whose workspace did not change pays a few `stat` calls and no reading.

use crate::bounds::{INSTRUCTION_FILE_CHARS, INSTRUCTIONS_CHARS, INSTRUCTIONS_REMEMBERED};
use crate::files::INSTRUCTION_FILES;
use lru::LruCache;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// The file without which an agent does not know what it is.
pub const REQUIRED: &str = INSTRUCTION_FILES[0];

/// Most bytes read of one file: [`INSTRUCTION_FILE_CHARS`] of the longest UTF-8 character, and enough to see that more follow.
const MAX_FILE_BYTES: u64 = INSTRUCTION_FILE_CHARS as u64 * 4 + 4;

/// What a `stat` says of one file: while it stays the same, so does the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamp {
    Missing,
    File {
        modified: SystemTime,
        bytes: u64,
    },
    /// There, but not a file that can be read. Looked at again each time: a `chmod` changes no stamp.
    Unreadable,
}

type Stamps = [Stamp; INSTRUCTION_FILES.len()];

struct Kept {
    stamps: Stamps,
    text: Arc<str>,
}

/// The instructions of all agents, each read again only when one of its files changed.
pub struct Instructions {
    kept: Mutex<LruCache<PathBuf, Kept>>,
}

impl Default for Instructions {
    fn default() -> Self {
        Self { kept: Mutex::new(LruCache::new(INSTRUCTIONS_REMEMBERED)) }
    }
}

impl Instructions {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The instructions in `workspace`, for the system prompt. Never empty and never fails: what is missing, cannot
    /// be read or is too long is said in the text, so that the agent itself can tell the operator.
    ///
    /// Blocks for six `stat` calls, and after an edit for reading at most six small files.
    pub fn load(&self, workspace: &Path) -> Arc<str> {
        let stamps = INSTRUCTION_FILES.map(|name| stamp(&workspace.join(name)));
        let unreadable = stamps.contains(&Stamp::Unreadable);
        if !unreadable
            && let Some(kept) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(workspace)
            && kept.stamps == stamps
        {
            return Arc::clone(&kept.text);
        }
        // Stamps were taken before reading: an edit in between is read now and again next time, never missed.
        let text: Arc<str> = read_all(workspace, &stamps).into();
        if !unreadable {
            let kept = Kept { stamps, text: Arc::clone(&text) };
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).put(workspace.to_owned(), kept);
        }
        text
    }
}

/// Which instruction files are in `workspace`: for the operator, who is told at the start what is not.
pub fn found(workspace: &Path) -> Vec<&'static str> {
    INSTRUCTION_FILES.into_iter().filter(|name| stamp(&workspace.join(name)) != Stamp::Missing).collect()
}

fn stamp(path: &Path) -> Stamp {
    // Links are followed: a container's mounted configuration is made of them, and only people can make them here.
    match fs::metadata(path) {
        Ok(found) if found.is_file() => match found.modified() {
            Ok(modified) => Stamp::File { modified, bytes: found.len() },
            Err(_) => Stamp::Unreadable,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Stamp::Missing,
        _ => Stamp::Unreadable,
    }
}

fn read_all(workspace: &Path, stamps: &Stamps) -> String {
    let mut text = String::new();
    let mut left = INSTRUCTIONS_CHARS;
    for (name, stamp) in INSTRUCTION_FILES.into_iter().zip(stamps) {
        let path = workspace.join(name);
        match stamp {
            Stamp::Missing if name == REQUIRED => {
                // Where the folder lies is nothing for a model's vendor: the operator is told at the start.
                section(&mut text, name, "[MISSING] There is no such file in this agent's workspace.");
            }
            Stamp::Missing => {}
            Stamp::Unreadable => {
                section(&mut text, name, "[UNREADABLE] It is not a file that can be read.");
            }
            Stamp::File { .. } => match read_file(&path) {
                Ok(content) => add(&mut text, name, content.trim(), &mut left),
                Err(error) => {
                    // The cause goes to the operator's log, not to the model's vendor.
                    tracing::warn!(file.path = %path.display(), %error, "instructions cannot be read");
                    section(&mut text, name, "[UNREADABLE] It is not a text in UTF-8 that can be read.");
                }
            },
        }
    }
    text
}

/// At most [`MAX_FILE_BYTES`] of the file; what is cut within a character loses that character.
fn read_file(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    let content = match std::str::from_utf8(&bytes) {
        Ok(content) => content,
        // Without `error_len` the bytes end within a character: the cut, not the file, is to blame.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    };
    Ok(content.strip_prefix('\u{feff}').unwrap_or(content).to_owned())
}

fn add(text: &mut String, name: &str, content: &str, left: &mut usize) {
    if content.is_empty() {
        return;
    }
    let most = INSTRUCTION_FILE_CHARS.min(*left);
    match content.char_indices().nth(most) {
        None => {
            *left -= content.chars().count();
            section(text, name, content);
        }
        Some((end, _)) => {
            *left -= most;
            let note = format!("[TRUNCATED] Only the first {most} characters of {name} are shown here.");
            section(text, name, &format!("{}\n{note}", &content[..end]));
        }
    }
}

fn section(text: &mut String, name: &str, content: &str) {
    if !text.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str("## ");
    text.push_str(name);
    text.push_str("\n\n");
    text.push_str(content);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tempfile::TempDir;

    fn put(folder: &TempDir, name: &str, content: &str) {
        fs::write(folder.path().join(name), content).unwrap();
    }

    fn set_modified(folder: &TempDir, name: &str, seconds: u64) {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        File::options().write(true).open(folder.path().join(name)).unwrap().set_modified(at).unwrap();
    }

    #[test]
    fn files_come_in_their_order_and_empty_ones_are_left_out() {
        let folder = TempDir::new().unwrap();
        put(&folder, "TOOLS.md", "Ask first.\n");
        put(&folder, "AGENTS.md", "\u{feff}You read mail.\n\n");
        put(&folder, "SOUL.md", "  \n");
        assert_eq!(
            &*Instructions::new().load(folder.path()),
            "## AGENTS.md\n\nYou read mail.\n\n## TOOLS.md\n\nAsk first."
        );
    }

    #[test]
    fn nothing_of_the_instructions_says_where_the_workspace_lies() {
        let folder = TempDir::new().unwrap();
        let place = folder.path().to_str().unwrap();
        let missing = Instructions::new().load(folder.path());
        put(&folder, "SOUL.md", &"x".repeat(INSTRUCTION_FILE_CHARS + 1));
        fs::write(folder.path().join("USER.md"), b"\xff").unwrap();
        fs::create_dir(folder.path().join("AGENTS.md")).unwrap();
        let odd = Instructions::new().load(folder.path());
        for text in [missing, odd] {
            assert!(text.contains("AGENTS.md") && !text.contains(place), "{text}");
        }
    }

    #[test]
    fn what_is_there_of_the_instructions_is_told_in_their_order() {
        let folder = TempDir::new().unwrap();
        assert_eq!(found(folder.path()), [""; 0]);
        put(&folder, "SOUL.md", "Be kind.");
        put(&folder, "AGENTS.md", "");
        put(&folder, "notes.md", "");
        assert_eq!(found(folder.path()), ["AGENTS.md", "SOUL.md"]);
        assert_eq!(found(&folder.path().join("nowhere")), [""; 0]);
    }

    #[test]
    fn a_missing_agents_file_is_said_and_other_missing_files_are_not() {
        let folder = TempDir::new().unwrap();
        put(&folder, "SOUL.md", "Be kind.");
        assert_eq!(
            &*Instructions::new().load(folder.path()),
            "## AGENTS.md\n\n[MISSING] There is no such file in this agent's workspace.\n\n## SOUL.md\n\nBe kind."
        );
    }

    #[test]
    fn an_unchanged_workspace_is_not_read_again_and_an_edit_counts_at_once() {
        let folder = TempDir::new().unwrap();
        let instructions = Instructions::new();
        put(&folder, "AGENTS.md", "one");
        set_modified(&folder, "AGENTS.md", 1_000);
        let first = instructions.load(folder.path());
        assert!(Arc::ptr_eq(&first, &instructions.load(folder.path())), "read again without a change");

        put(&folder, "AGENTS.md", "two");
        set_modified(&folder, "AGENTS.md", 2_000);
        assert_eq!(&*instructions.load(folder.path()), "## AGENTS.md\n\ntwo");

        put(&folder, "USER.md", "Mina");
        assert_eq!(&*instructions.load(folder.path()), "## AGENTS.md\n\ntwo\n\n## USER.md\n\nMina");

        fs::remove_file(folder.path().join("USER.md")).unwrap();
        assert_eq!(&*instructions.load(folder.path()), "## AGENTS.md\n\ntwo");
    }

    #[test]
    fn a_long_file_is_cut_at_a_character_and_says_so() {
        let folder = TempDir::new().unwrap();
        put(&folder, "AGENTS.md", &"あ".repeat(INSTRUCTION_FILE_CHARS + 1));
        let expected = format!(
            "## AGENTS.md\n\n{}\n[TRUNCATED] Only the first 20000 characters of AGENTS.md are shown here.",
            "あ".repeat(INSTRUCTION_FILE_CHARS)
        );
        assert!(*Instructions::new().load(folder.path()) == *expected, "cut elsewhere");

        put(&folder, "AGENTS.md", &"𠮷".repeat(INSTRUCTION_FILE_CHARS));
        let expected = format!("## AGENTS.md\n\n{}", "𠮷".repeat(INSTRUCTION_FILE_CHARS));
        assert!(*Instructions::new().load(folder.path()) == *expected, "a file of just the cap was cut");
    }

    #[test]
    fn all_files_together_are_capped_too() {
        let folder = TempDir::new().unwrap();
        for name in ["AGENTS.md", "SOUL.md", "IDENTITY.md"] {
            put(&folder, name, &"x".repeat(19_000));
        }
        put(&folder, "USER.md", &"é".repeat(4_000));
        put(&folder, "MEMORY.md", "z");
        let text = Instructions::new().load(folder.path());
        assert!(text.contains("ééé\n[TRUNCATED] Only the first 3000 characters of USER.md are shown here."));
        assert!(text.ends_with("\n[TRUNCATED] Only the first 0 characters of MEMORY.md are shown here."));
        assert_eq!(text.matches('é').count(), 3_000);
    }

    #[test]
    fn a_file_that_is_no_text_is_named_without_its_bytes() {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("AGENTS.md"), b"ab\xffcd").unwrap();
        fs::create_dir(folder.path().join("SOUL.md")).unwrap();
        assert_eq!(
            &*Instructions::new().load(folder.path()),
            "## AGENTS.md\n\n[UNREADABLE] It is not a text in UTF-8 that can be read.\n\n\
             ## SOUL.md\n\n[UNREADABLE] It is not a file that can be read."
        );
    }
}
