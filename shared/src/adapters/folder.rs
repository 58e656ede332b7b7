//! [`Files`] in a folder with no way out.
//!
//! cap-std resolves every path beneath the open folder, so a link that leads outside ends in a refusal – also one that is
//! put there between a check and its use. Links that stay inside may be read through; writing follows none. Only plain files
//! are opened, and never in a way that waits for a pipe's other end.

use crate::files::{
    Entry, FileError, FilePart, FilePath, Files, Listing, NAME_A_FILE, NAME_TOO_LONG, NO_FOLDER,
    THROUGH_NO_FOLDER, TargetPath, Workspace,
};
use async_trait::async_trait;
use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt, OpenOptionsSyncExt};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirBuilder, File, Metadata, OpenOptions, Permissions};
use rustix::io::Errno;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The files of each agent in its own folder.
#[derive(Debug, Clone, Copy, Default)]
pub struct FolderFiles;

#[async_trait]
impl Files for FolderFiles {
    async fn read(
        &self,
        of: Workspace<'_>,
        path: &FilePath,
        offset: u64,
        most: u64,
    ) -> Result<FilePart, FileError> {
        blocking(of, path, move |folder, path| read(&folder, &path, offset, most)).await
    }

    async fn list(&self, of: Workspace<'_>, path: &FilePath, most: usize) -> Result<Listing, FileError> {
        blocking(of, path, move |folder, path| list(&folder, &path, most)).await
    }

    async fn write(
        &self,
        of: Workspace<'_>,
        path: &TargetPath,
        content: Vec<u8>,
        mark: u64,
    ) -> Result<bool, FileError> {
        blocking(of, path, move |folder, path| write(&folder, &path, &content, mark)).await
    }

    async fn append(&self, of: Workspace<'_>, path: &TargetPath, content: Vec<u8>) -> Result<u64, FileError> {
        blocking(of, path, move |folder, path| append(&folder, &path, &content)).await
    }
}

/// Runs file work off the runtime's threads.
async fn blocking<P: Clone + Send + 'static, T: Send + 'static>(
    of: Workspace<'_>,
    path: &P,
    work: impl FnOnce(PathBuf, P) -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    let (folder, path) = (of.folder.to_owned(), path.clone());
    tokio::task::spawn_blocking(move || work(folder, path)).await.unwrap_or_else(|error| {
        Err(FileError::Failed { message: "the tool broke".to_owned(), source: error.into() })
    })
}

fn read(folder: &Path, path: &FilePath, offset: u64, most: u64) -> Result<FilePart, FileError> {
    let (mut file, found) = Folder::open(folder)?.file(path)?;
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(offset))
        .and_then(|_| file.take(most).read_to_end(&mut bytes))
        .map_err(|error| explain(path, error))?;
    Ok(FilePart { bytes, total: found.len() })
}

fn list(folder: &Path, path: &FilePath, most: usize) -> Result<Listing, FileError> {
    let dir = Folder::open(folder)?.folder(path)?;
    first_entries(&dir, most).map_err(|error| explain(path, error))
}

fn first_entries(dir: &Dir, most: usize) -> io::Result<Listing> {
    let mut listing = Listing::of_at_most(most);
    for entry in dir.entries()? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !listing.shows(&name) {
            listing.total += 1;
            continue;
        }
        let kind = entry.file_type()?;
        let found = if kind.is_dir() {
            Entry::Folder
        } else if kind.is_symlink() {
            Entry::Other { kind: "link" }
        } else if !kind.is_file() {
            Entry::Other { kind: "special" }
        } else {
            match entry.metadata() {
                Ok(metadata) => Entry::File { bytes: metadata.len() },
                // Gone since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
        };
        listing.add(name, found);
    }
    Ok(listing)
}

fn write(folder: &Path, path: &TargetPath, content: &[u8], mark: u64) -> Result<bool, FileError> {
    let place = Folder::open_or_make(folder)?.place(path)?;
    let before = place.existing()?;
    let draft = format!(".reef-{mark:016x}.tmp");
    let permissions = before.as_ref().map(Metadata::permissions);
    let written = write_draft(&place, &draft, content, permissions)
        .and_then(|()| place.dir.rename(&draft, &place.dir, path.name()));
    if let Err(error) = written {
        // Nothing was replaced; the draft is of no use to anybody, and may not even be there.
        let _ = place.dir.remove_file(&draft);
        return Err(place.explain(error));
    }
    place.sync()?;
    Ok(before.is_some())
}

/// Writes the content beside its place, durable, with the permissions of what it will replace.
fn write_draft(place: &Place<'_>, draft: &str, content: &[u8], like: Option<Permissions>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).follow(FollowSymlinks::No);
    private(&mut options);
    let mut file = place.dir.open_with(draft, &options)?;
    file.write_all(content)?;
    if let Some(permissions) = like {
        file.set_permissions(permissions)?;
    }
    file.sync_all()
}

fn append(folder: &Path, path: &TargetPath, content: &[u8]) -> Result<u64, FileError> {
    let place = Folder::open_or_make(folder)?.place(path)?;
    let made = place.existing()?.is_none();
    let (mut file, found) = place.open_to_append()?;
    let total = path.grown(found.len(), content.len())?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(|error| {
        // A disk that is full takes a beginning.
        let grew = file.metadata().map_or(true, |now| now.len() != found.len());
        place.explain(error).with_part_added(grew)
    })?;
    if made {
        place.sync()?;
    }
    Ok(total)
}

/// Makes a workspace, with the folders that lead to it, if it is not there.
fn make_folder(workspace: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(workspace)
}

/// Folders that are made: for their owner alone, whatever the process's mask says.
fn private_folder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    cap_std::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// Files that are made, likewise.
fn private(options: &mut OpenOptions) {
    #[cfg(unix)]
    cap_std::fs::OpenOptionsExt::mode(options, 0o600);
}

/// An agent's workspace, open.
struct Folder(Dir);

impl Folder {
    /// Opens a workspace to look at it.
    ///
    /// # Errors
    /// [`FileError::Missing`] if there is none yet.
    fn open(workspace: &Path) -> Result<Self, FileError> {
        match Dir::open_ambient_dir(workspace, ambient_authority()) {
            Ok(dir) => Ok(Self(dir)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(FileError::Missing("your workspace holds no files yet".to_owned()))
            }
            Err(error) => Err(failed("your workspace cannot be opened", error)),
        }
    }

    /// Opens a workspace to write in it, making it first if need be.
    fn open_or_make(workspace: &Path) -> Result<Self, FileError> {
        make_folder(workspace)
            .and_then(|()| Dir::open_ambient_dir(workspace, ambient_authority()))
            .map(Self)
            .map_err(|error| failed("your workspace cannot be opened", error))
    }

    /// A folder in it, to be listed.
    fn folder(&self, path: &FilePath) -> Result<Dir, FileError> {
        // Looked at first, so that a file is named as one; opening a folder that is none is refused all the same.
        let found = self.0.metadata(joined(path)).map_err(|error| explain(path, error))?;
        if !found.is_dir() {
            return Err(path.refused(NO_FOLDER));
        }
        self.0.open_dir(joined(path)).map_err(|error| explain(path, error))
    }

    /// A plain file in it, open for reading, and what it is.
    fn file(&self, path: &FilePath) -> Result<(File, Metadata), FileError> {
        let mut options = OpenOptions::new();
        // Without `nonblock`, opening a pipe would wait for its writer for ever.
        options.read(true).nonblock(true);
        let file = self.0.open_with(joined(path), &options).map_err(|error| explain(path, error))?;
        let found = plain_file(path, &file)?;
        Ok((file, found))
    }

    /// The folder that a file is to be written in, made if need be.
    ///
    /// # Errors
    /// [`FileError::Refused`] for a link on the way.
    fn place<'a>(&self, path: &'a TargetPath) -> Result<Place<'a>, FileError> {
        let mut dir = self.0.try_clone().map_err(|error| explain(path.as_path(), error))?;
        for parent in path.folders() {
            let next = match dir.open_dir_nofollow(parent) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Somebody else may make it in between: then it is there.
                    match dir.create_dir_with(parent, &private_folder()) {
                        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                        _ => dir.open_dir_nofollow(parent),
                    }
                }
                other => other,
            };
            dir = next.map_err(|error| explain(path.as_path(), error))?;
        }
        Ok(Place { dir, path })
    }
}

/// For [`Dir`]: the path as it is resolved.
fn joined(path: &FilePath) -> String {
    if path.parts().is_empty() { ".".to_owned() } else { path.parts().join("/") }
}

/// Where a file is to be written.
struct Place<'a> {
    /// The folder, open.
    dir: Dir,
    path: &'a TargetPath,
}

impl Place<'_> {
    /// The file that is there now, if any.
    ///
    /// # Errors
    /// [`FileError::Refused`] if something else is there: a folder, a link, a pipe, a device.
    fn existing(&self) -> Result<Option<Metadata>, FileError> {
        let path = self.path.as_path();
        match self.dir.symlink_metadata(self.path.name()) {
            Ok(found) if found.is_file() => Ok(Some(found)),
            Ok(found) if found.is_dir() => Err(path.refused(NAME_A_FILE)),
            Ok(_) => Err(path.refused("is no plain file")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.explain(error)),
        }
    }

    /// The file, open for appending, made if need be, and what it is.
    fn open_to_append(&self) -> Result<(File, Metadata), FileError> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).nonblock(true).follow(FollowSymlinks::No);
        private(&mut options);
        let file = self.dir.open_with(self.path.name(), &options).map_err(|error| self.explain(error))?;
        let found = plain_file(self.path.as_path(), &file)?;
        Ok((file, found))
    }

    /// Makes names durable: without it a new file may be gone after a power cut, although its content was synced.
    fn sync(&self) -> Result<(), FileError> {
        // Opened anew for reading: the handle at hand may be one that only leads further (`O_PATH`).
        self.dir.open(".").and_then(|dir| dir.sync_all()).map_err(|error| self.explain(error))
    }

    /// A failure as the model is told it.
    fn explain(&self, error: io::Error) -> FileError {
        explain(self.path.as_path(), error)
    }
}

fn plain_file(path: &FilePath, file: &File) -> Result<Metadata, FileError> {
    let found = file.metadata().map_err(|error| explain(path, error))?;
    if found.is_file() {
        Ok(found)
    } else if found.is_dir() {
        Err(FileError::Folder(path.text().to_owned()))
    } else {
        Err(path.refused("is no plain file"))
    }
}

/// A failed file operation, in the model's words.
fn explain(path: &FilePath, error: io::Error) -> FileError {
    match Errno::from_io_error(&error) {
        Some(Errno::LOOP) => return path.refused("leads through a link"),
        // What opening a socket, or a pipe that nobody reads, answers.
        Some(Errno::NXIO) => return path.refused("is no plain file"),
        _ => {}
    }
    match error.kind() {
        io::ErrorKind::NotFound => path.missing(),
        io::ErrorKind::NotADirectory => path.refused(THROUGH_NO_FOLDER),
        io::ErrorKind::IsADirectory => path.refused("is a folder"),
        io::ErrorKind::PermissionDenied => path.refused("is not within your workspace, or not yours to open"),
        io::ErrorKind::InvalidFilename => path.refused(NAME_TOO_LONG),
        _ => failed("the file system failed", error),
    }
}

/// What may pass: somebody makes room, mounts the disk for writing, or closes files.
fn passes(error: &io::Error) -> Option<&'static str> {
    match (error.kind(), Errno::from_io_error(error)) {
        (io::ErrorKind::StorageFull, _) => Some("the disk is full"),
        (io::ErrorKind::QuotaExceeded, _) => Some("the disk's quota is used up"),
        (io::ErrorKind::ReadOnlyFilesystem, _) => Some("the workspace is read-only right now"),
        (io::ErrorKind::OutOfMemory, _) => Some("the memory is full"),
        (_, Some(Errno::MFILE | Errno::NFILE)) => Some("too many files are open"),
        (_, Some(Errno::IO | Errno::STALE)) => Some("the disk does not answer"),
        _ => None,
    }
}

fn failed(message: &str, source: io::Error) -> FileError {
    if let Some(why) = passes(&source) {
        let message = format!("{why}; nothing was changed, try again later");
        return FileError::Unavailable { message, unchanged: true, source: source.into() };
    }
    FileError::Failed { message: message.to_owned(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_told_from_what_does_not() {
        let of = |errno: Errno| failed("broken", errno.into());
        for errno in
            [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::IO]
        {
            let error = of(errno);
            assert!(matches!(error, FileError::Unavailable { unchanged: true, .. }), "{errno:?}: {error:?}");
            let error = error.with_part_added(true);
            assert!(matches!(error, FileError::Unavailable { unchanged: false, .. }), "{errno:?}: {error:?}");
        }
        assert!(matches!(of(Errno::INVAL), FileError::Failed { .. }));
    }
}
