//! The workspace as tools see it: a folder with no way out.
//!
//! Every path is relative and plain: no `..`, nothing absolute, no control characters. cap-std resolves it beneath
//! the open folder, so a link that leads outside ends in a refusal – also one that is put there between a check and its
//! use. Links that stay inside may be read through; writing follows none. Only plain files are opened, and never in a
//! way that waits for a pipe's other end.

use crate::agent::workspace::INSTRUCTION_FILES;
use crate::tool::ToolError;
use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt, OpenOptionsSyncExt};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, Metadata, OpenOptions};
use rustix::io::Errno;
use std::io;
use std::path::{Component, Path};

/// Longest path, in bytes (Linux's own `PATH_MAX`).
const MAX_PATH_BYTES: usize = 4_096;

/// A checked path beneath the workspace: its plain components; none for the workspace itself.
pub(super) struct InnerPath<'a> {
    text: &'a str,
    parts: Vec<&'a str>,
}

impl<'a> InnerPath<'a> {
    /// Checks the text of the argument `path`.
    ///
    /// # Errors
    /// [`ToolError::Arguments`] for what can be no path, [`ToolError::Refused`] for one that leads outside.
    pub(super) fn new(text: &'a str) -> Result<Self, ToolError> {
        if text.is_empty() {
            return Err(ToolError::Arguments("`path`: must not be empty; the workspace is `.`".to_owned()));
        }
        if text.len() > MAX_PATH_BYTES {
            return Err(ToolError::Arguments(format!("`path`: longer than {MAX_PATH_BYTES} bytes")));
        }
        if text.chars().any(char::is_control) {
            return Err(ToolError::Arguments("`path`: must hold no control characters".to_owned()));
        }
        let mut parts = Vec::new();
        for component in Path::new(text).components() {
            match component {
                Component::Normal(part) => parts.extend(part.to_str()),
                Component::CurDir => {}
                Component::ParentDir => {
                    return Err(refused(text, "leads out of the folder it is in: `..` is not allowed"));
                }
                Component::RootDir | Component::Prefix(_) => {
                    return Err(refused(text, "is absolute: paths are relative to your workspace"));
                }
            }
        }
        Ok(Self { text, parts })
    }

    /// For [`Dir`]: the path as it is resolved.
    fn joined(&self) -> String {
        if self.parts.is_empty() { ".".to_owned() } else { self.parts.join("/") }
    }
}

fn refused(path: &str, why: &str) -> ToolError {
    ToolError::Refused(format!("`{path}` {why}"))
}

/// An agent's workspace, open.
pub(super) struct Folder(Dir);

impl Folder {
    /// Opens a workspace to look at it.
    ///
    /// # Errors
    /// [`ToolError::Refused`] if there is none yet.
    pub(super) fn open(workspace: &Path) -> Result<Self, ToolError> {
        match Dir::open_ambient_dir(workspace, ambient_authority()) {
            Ok(dir) => Ok(Self(dir)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ToolError::Refused("your workspace holds no files yet".to_owned()))
            }
            Err(error) => Err(failed("your workspace cannot be opened", error)),
        }
    }

    /// Opens a workspace to write in it, making it first if need be.
    pub(super) fn open_or_make(workspace: &Path) -> Result<Self, ToolError> {
        Dir::create_ambient_dir_all(workspace, ambient_authority())
            .and_then(|()| Dir::open_ambient_dir(workspace, ambient_authority()))
            .map(Self)
            .map_err(|error| failed("your workspace cannot be opened", error))
    }

    /// A folder in it, to be listed.
    pub(super) fn folder(&self, path: &InnerPath<'_>) -> Result<Dir, ToolError> {
        // Looked at first, so that a file is named as one; opening a folder that is none is refused all the same.
        let found = self.0.metadata(path.joined()).map_err(|error| explain(path.text, error))?;
        if !found.is_dir() {
            return Err(refused(path.text, "is no folder; `read` shows a file"));
        }
        self.0.open_dir(path.joined()).map_err(|error| explain(path.text, error))
    }

    /// A plain file in it, open for reading, and what it is.
    pub(super) fn file(&self, path: &InnerPath<'_>) -> Result<(File, Metadata), ToolError> {
        let mut options = OpenOptions::new();
        // Without `nonblock`, opening a pipe would wait for its writer for ever.
        options.read(true).nonblock(true);
        let file = self.0.open_with(path.joined(), &options).map_err(|error| explain(path.text, error))?;
        let found = plain_file(path.text, &file)?;
        Ok((file, found))
    }

    /// The folder that a file is to be written in, made if need be, and the file's name.
    ///
    /// # Errors
    /// [`ToolError::Refused`] for a link on the way, and for a name of the agent's own instructions.
    pub(super) fn place<'a>(&self, path: &InnerPath<'a>) -> Result<Place<'a>, ToolError> {
        let Some((name, parents)) = path.parts.split_last() else {
            return Err(refused(path.text, "is a folder; name a file"));
        };
        if path.text.ends_with('/') {
            return Err(refused(path.text, "ends like a folder; name a file"));
        }
        // In every folder and in any case: workspaces may lie in one another, and on file systems that ignore case.
        if INSTRUCTION_FILES.iter().any(|file| file.eq_ignore_ascii_case(name)) {
            return Err(refused(
                path.text,
                "belongs to an agent's instructions; only a person may change it",
            ));
        }
        let mut dir = self.0.try_clone().map_err(|error| explain(path.text, error))?;
        for parent in parents {
            let next = match dir.open_dir_nofollow(parent) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Somebody else may make it in between: then it is there.
                    match dir.create_dir(parent) {
                        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                        _ => dir.open_dir_nofollow(parent),
                    }
                }
                other => other,
            };
            dir = next.map_err(|error| explain(path.text, error))?;
        }
        Ok(Place { dir, name, text: path.text })
    }
}

/// Where a file is to be written.
pub(super) struct Place<'a> {
    /// The folder, open.
    pub(super) dir: Dir,
    /// The file's name in it.
    pub(super) name: &'a str,
    text: &'a str,
}

impl Place<'_> {
    /// The file that is there now, if any.
    ///
    /// # Errors
    /// [`ToolError::Refused`] if something else is there: a folder, a link, a pipe, a device.
    pub(super) fn existing(&self) -> Result<Option<Metadata>, ToolError> {
        match self.dir.symlink_metadata(self.name) {
            Ok(found) if found.is_file() => Ok(Some(found)),
            Ok(found) if found.is_dir() => Err(refused(self.text, "is a folder; name a file")),
            Ok(_) => Err(refused(self.text, "is no plain file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// The file, open for appending, made if need be, and what it is.
    pub(super) fn open_to_append(&self) -> Result<(File, Metadata), ToolError> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).nonblock(true).follow(FollowSymlinks::No);
        let file = self.dir.open_with(self.name, &options).map_err(|error| self.explain(error))?;
        let found = plain_file(self.text, &file)?;
        Ok((file, found))
    }

    /// Makes names durable: without it a new file may be gone after a power cut, although its content was synced.
    pub(super) fn sync(&self) -> Result<(), ToolError> {
        // Opened anew for reading: the handle at hand may be one that only leads further (`O_PATH`).
        self.dir.open(".").and_then(|dir| dir.sync_all()).map_err(|error| self.explain(error))
    }

    /// A failure as the model is told it.
    pub(super) fn explain(&self, error: io::Error) -> ToolError {
        explain(self.text, error)
    }
}

fn plain_file(path: &str, file: &File) -> Result<Metadata, ToolError> {
    let found = file.metadata().map_err(|error| explain(path, error))?;
    if found.is_file() {
        Ok(found)
    } else if found.is_dir() {
        Err(refused(path, "is a folder; `ls` lists it"))
    } else {
        Err(refused(path, "is no plain file"))
    }
}

/// A failed file operation, in the model's words.
pub(super) fn explain(path: &str, error: io::Error) -> ToolError {
    match Errno::from_io_error(&error) {
        Some(Errno::LOOP) => return refused(path, "leads through a link"),
        // What opening a socket, or a pipe that nobody reads, answers.
        Some(Errno::NXIO) => return refused(path, "is no plain file"),
        _ => {}
    }
    match error.kind() {
        io::ErrorKind::NotFound => refused(path, "does not exist"),
        io::ErrorKind::NotADirectory => refused(path, "leads through something that is no folder"),
        io::ErrorKind::IsADirectory => refused(path, "is a folder"),
        io::ErrorKind::PermissionDenied => {
            refused(path, "is not within your workspace, or not yours to open")
        }
        io::ErrorKind::InvalidFilename => refused(path, "has a name that is too long"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => failed("the disk is full", error),
        io::ErrorKind::ReadOnlyFilesystem => failed("the workspace is read-only", error),
        _ => failed("the file system failed", error),
    }
}

fn failed(message: &str, source: io::Error) -> ToolError {
    ToolError::Failed { message: message.to_owned(), source: Box::new(source) }
}
