//! Files that agents work with: paths that lead nowhere else, and the [`Files`] port.
//!
//! A path is checked here, once for every adapter, before it is used: it is relative and plain, without `..` and without
//! control characters. Where a file may be written is a type of its own, [`TargetPath`]: an agent's instructions are no such
//! place, in no folder and in no case of letters.

use crate::bounds::{FILE_BYTES, PATH_BYTES};
use crate::error::Source;
use crate::id::{AgentId, TenantId};
use crate::quote::quoted;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// The files that make an agent's instructions, in the order in which the model reads them. People write them, agents do
/// not.
pub const INSTRUCTION_FILES: [&str; 6] =
    ["AGENTS.md", "SOUL.md", "IDENTITY.md", "USER.md", "TOOLS.md", "MEMORY.md"];

/// Why nothing is written at a path. Every adapter says it in the same words.
pub(crate) const NAME_A_FILE: &str = "is a folder; name a file";
/// As above: a folder of the path is a file.
pub(crate) const THROUGH_NO_FOLDER: &str = "leads through something that is no folder";
/// As above: a part of the path, or all of it.
pub(crate) const NAME_TOO_LONG: &str = "has a name that is too long";
/// Why nothing is listed at a path.
pub(crate) const NO_FOLDER: &str = "is no folder; `read` shows a file";

/// Whose files.
#[derive(Debug, Clone, Copy)]
pub struct Workspace<'a> {
    /// Whose agent.
    pub tenant: &'a TenantId,
    /// Which agent.
    pub agent: &'a AgentId,
    /// The agent's folder: all of its files, or those that it was deployed with.
    pub folder: &'a Path,
}

/// A path beneath a workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath {
    text: String,
    parts: Vec<String>,
}

impl FilePath {
    /// Checks a path as a model gives it; `.` is the workspace itself.
    ///
    /// # Errors
    /// [`FileError::Path`] for what can be no path, [`FileError::Refused`] for one that leads outside.
    pub fn new(text: &str) -> Result<Self, FileError> {
        if text.is_empty() {
            return Err(FileError::Path("must not be empty; the workspace is `.`".to_owned()));
        }
        if text.len() > PATH_BYTES {
            return Err(FileError::Path(format!("longer than {PATH_BYTES} bytes")));
        }
        if text.chars().any(char::is_control) {
            return Err(FileError::Path("must hold no control characters".to_owned()));
        }
        let mut path = Self { text: text.to_owned(), parts: Vec::new() };
        for component in Path::new(text).components() {
            match component {
                Component::Normal(part) => path.parts.extend(part.to_str().map(str::to_owned)),
                Component::CurDir => {}
                Component::ParentDir => {
                    return Err(path.refused("leads out of the folder it is in: `..` is not allowed"));
                }
                Component::RootDir | Component::Prefix(_) => {
                    return Err(path.refused("is absolute: paths are relative to your workspace"));
                }
            }
        }
        Ok(path)
    }

    /// The text as it was given, for sentences.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The plain components; none for the workspace itself.
    pub fn parts(&self) -> &[String] {
        &self.parts
    }

    /// Whether it names a file of some agent's instructions.
    pub fn is_instructions(&self) -> bool {
        self.parts.last().is_some_and(|name| is_instruction_file(name))
    }

    /// There is nothing at this path.
    pub fn missing(&self) -> FileError {
        FileError::Missing(format!("`{}` does not exist", quoted(&self.text)))
    }

    /// This path, and why not.
    pub fn refused(&self, why: &str) -> FileError {
        FileError::Refused(format!("`{}` {why}", quoted(&self.text)))
    }
}

/// Whether a file of this name would count as instructions. In any case of letters: workspaces may lie on file systems that
/// ignore it.
pub fn is_instruction_file(name: &str) -> bool {
    INSTRUCTION_FILES.iter().any(|file| file.eq_ignore_ascii_case(name))
}

/// A path at which an agent may write a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPath {
    path: FilePath,
    name: String,
}

impl TargetPath {
    /// Checks a path as a model gives it.
    ///
    /// # Errors
    /// As [`FilePath::new`], and [`FileError::Refused`] for a folder and for the agent's own instructions.
    pub fn new(text: &str) -> Result<Self, FileError> {
        let path = FilePath::new(text)?;
        let Some(name) = path.parts.last().cloned() else { return Err(path.refused(NAME_A_FILE)) };
        if text.ends_with('/') {
            return Err(path.refused("ends like a folder; name a file"));
        }
        // In every folder: workspaces may lie in one another.
        if is_instruction_file(&name) {
            return Err(path.refused("belongs to an agent's instructions; only a person may change it"));
        }
        Ok(Self { path, name })
    }

    /// The same path, to look at what is there.
    pub const fn as_path(&self) -> &FilePath {
        &self.path
    }

    /// The file's own name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folders that lead to it.
    pub fn folders(&self) -> &[String] {
        &self.path.parts[..self.path.parts.len().saturating_sub(1)]
    }

    /// The length in bytes of a file of `before` bytes, with so many more.
    ///
    /// # Errors
    /// [`FileError::Refused`] beyond [`FILE_BYTES`].
    pub fn grown(&self, before: u64, added: usize) -> Result<u64, FileError> {
        let total = before.saturating_add(added as u64);
        if total > FILE_BYTES {
            return Err(self.path.refused(&format!("would grow beyond {FILE_BYTES} bytes")));
        }
        Ok(total)
    }
}

/// Bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePart {
    /// What was read.
    pub bytes: Vec<u8>,
    /// The length of the whole file in bytes.
    pub total: u64,
}

/// One thing in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A folder.
    Folder,
    /// A file.
    File {
        /// Its length.
        bytes: u64,
    },
    /// What no tool works with.
    Other {
        /// What it is, e.g. `link`.
        kind: &'static str,
    },
}

/// The first entries of a folder by name, and how many there are. Holds no more than it shows, however full the folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    most: usize,
    /// By name.
    pub entries: BTreeMap<String, Entry>,
    /// All of them, those that are not shown included.
    pub total: usize,
}

impl Listing {
    /// None yet; at most so many will be shown.
    pub const fn of_at_most(most: usize) -> Self {
        Self { most, entries: BTreeMap::new(), total: 0 }
    }

    /// Whether an entry of this name would be among those that are shown.
    pub fn shows(&self, name: &str) -> bool {
        self.entries.len() < self.most
            || self.entries.last_key_value().is_some_and(|(last, _)| name <= last.as_str())
    }

    /// One more entry.
    pub fn add(&mut self, name: String, entry: Entry) {
        self.total += 1;
        if !self.shows(&name) {
            return;
        }
        self.entries.insert(name, entry);
        if self.entries.len() > self.most {
            self.entries.pop_last();
        }
    }
}

/// Why nothing was read or written. The texts are for the model.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// This can be no path: give another one.
    #[error("`path`: {0}")]
    Path(String),
    /// There is nothing there yet: it may be written.
    #[error("{0}")]
    Missing(String),
    /// A folder is there instead of a file: list it, or name a file in it. The text is the path.
    #[error("`{0}` is a folder; `ls` lists it")]
    Folder(String),
    /// It is not allowed, or not possible as things are; the text says what and why.
    #[error("{0}")]
    Refused(String),
    /// Not right now, but perhaps later: the disk is full or read-only, files cannot be opened, the bucket does not answer.
    #[error("{message}")]
    Unavailable {
        /// For the model.
        message: String,
        /// Nothing was changed, that is certain.
        unchanged: bool,
        /// For the log.
        #[source]
        source: Source,
    },
    /// It broke. Unless the message says more, nothing was changed.
    #[error("{message}")]
    Failed {
        /// For the model.
        message: String,
        /// For the log.
        #[source]
        source: Source,
    },
}

impl FileError {
    /// The same, after part of the content was `added` or not.
    #[must_use]
    pub fn with_part_added(self, added: bool) -> Self {
        match self {
            Self::Unavailable { source, .. } if added => Self::Unavailable {
                message: "the disk took only a beginning of it: read the file before you try again"
                    .to_owned(),
                unchanged: false,
                source,
            },
            other => other,
        }
    }
}

/// The files of agents.
#[async_trait]
pub trait Files: Send + Sync {
    /// At most `most` bytes of a file from byte `offset` on; none behind the file's end.
    ///
    /// # Errors
    /// [`FileError::Missing`], [`FileError::Folder`], a refusal or a failure.
    async fn read(
        &self,
        of: Workspace<'_>,
        path: &FilePath,
        offset: u64,
        most: u64,
    ) -> Result<FilePart, FileError>;

    /// What a folder holds: the first `most` entries by name, and how many there are.
    ///
    /// # Errors
    /// [`FileError::Missing`], a refusal – it is a file – or a failure.
    async fn list(&self, of: Workspace<'_>, path: &FilePath, most: usize) -> Result<Listing, FileError>;

    /// Makes a file with its folders, or replaces it as a whole; says whether there was one. Whoever reads meanwhile, or
    /// after a crash, finds the old file or the new one. Durable when this returns. `mark` is that of the call: the same
    /// call has the same one again after a crash, and so takes away what the crash left.
    ///
    /// # Errors
    /// A refusal or a failure.
    async fn write(
        &self,
        of: Workspace<'_>,
        path: &TargetPath,
        content: Vec<u8>,
        mark: u64,
    ) -> Result<bool, FileError>;

    /// Adds to the end of a file, which is made with its folders if there is none; says how many bytes it has then. Of many
    /// who do so at once each adds its own; what the others add at that very moment may not be counted. Durable when this returns.
    ///
    /// # Errors
    /// A refusal – the file would grow beyond [`FILE_BYTES`] – or a failure. After a failure the content, or a beginning
    /// of it, may have been added.
    async fn append(&self, of: Workspace<'_>, path: &TargetPath, content: Vec<u8>) -> Result<u64, FileError>;
}
