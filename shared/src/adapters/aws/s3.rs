//! [`Files`] in a bucket of S3, over the files that agents were deployed with.
//!
//! A file is looked for in the bucket first, under `agents/<tenant>/<agent>/<path>`, then in the agent's folder, which is a
//! read-only layer. What an agent writes goes to the bucket and hides the layer's file of the same name; the layer never
//! changes. The files that make an agent's instructions are the layer's alone: nothing in the bucket counts as one.
//!
//! A bucket knows no folders. There is one where a file lies behind it; so that no path is a file and a folder at once,
//! a new file is refused where it would make it both. (Of two that are made at the same moment, both may pass: then a
//! listing shows one of them.)

use super::on_use::OnUse;
use crate::bounds::{FILE_BYTES, OBJECT_KEY_BYTES};
use crate::files::{
    Entry, FileError, FilePart, FilePath, Files, Listing, NAME_A_FILE, NAME_TOO_LONG, NO_FOLDER,
    THROUGH_NO_FOLDER, TargetPath, Workspace, is_instruction_file,
};
use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Config;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::Arc;

/// How often an append is tried while others are faster. Each time one of them succeeds, so that this is the number of
/// appends to one file that may come at the same moment.
const APPENDS_AT_ONCE: usize = 32;

/// What one bucket holds, over what lies below.
pub struct S3Files {
    client: OnUse<Client>,
    bucket: String,
    below: Arc<dyn Files>,
}

impl S3Files {
    /// This bucket over these files, which are only read. Opens no connection.
    pub fn new(config: Config, bucket: impl Into<String>, below: Arc<dyn Files>) -> Self {
        Self { client: OnUse::new(config, Client::from_conf), bucket: bucket.into(), below }
    }

    /// The object at this key, or a range of it. Its bytes are still to come.
    async fn object(&self, key: &str, range: Option<String>) -> Result<Object, FileError> {
        let asked = self.client.get_object().bucket(&self.bucket).key(key).set_range(range);
        match asked.send().await {
            Ok(object) => Ok(Object::Found(Box::new(object))),
            Err(error) => match error.code() {
                Some("NoSuchKey") => Ok(Object::Missing),
                Some("InvalidRange") => Ok(Object::EndsBefore),
                _ => Err(unreachable(&error)),
            },
        }
    }

    /// The length in bytes of the object at this key; `None` if there is none.
    ///
    /// That it says so and not "access denied" needs the right to list the bucket.
    async fn length(&self, key: &str) -> Result<Option<u64>, FileError> {
        match self.client.head_object().bucket(&self.bucket).key(key).send().await {
            Ok(found) => Ok(Some(bytes(found.content_length()))),
            Err(error) if error.as_service_error().is_some_and(|error| error.is_not_found()) => Ok(None),
            Err(error) => Err(unreachable(&error)),
        }
    }

    /// A part of the object at this key; `None` if there is none.
    async fn part(&self, key: &str, offset: u64, most: u64) -> Result<Option<FilePart>, FileError> {
        // A range of nothing cannot be asked for.
        if let Some(last) = most.checked_sub(1) {
            let range = format!("bytes={offset}-{}", offset.saturating_add(last));
            match self.object(key, Some(range)).await? {
                Object::Found(object) => {
                    let total = total(&object);
                    let mut bytes = Vec::new();
                    collect(object.body, &mut bytes).await?;
                    return Ok(Some(FilePart { bytes, total }));
                }
                Object::Missing => return Ok(None),
                Object::EndsBefore => {}
            }
        }
        Ok(self.length(key).await?.map(|total| FilePart { bytes: Vec::new(), total }))
    }

    /// Whether any object's key begins like this.
    async fn holds(&self, prefix: &str) -> Result<bool, FileError> {
        let asked = self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).max_keys(1).send();
        Ok(asked.await.map_err(|error| unreachable(&error))?.key_count().unwrap_or(0) > 0)
    }

    /// The length in bytes of the layer's file where one is to be made in the bucket; `None` if there is none.
    ///
    /// # Errors
    /// A refusal if there is a folder instead, or a file where the path has a folder.
    async fn length_below(&self, of: Workspace<'_>, path: &TargetPath) -> Result<Option<u64>, FileError> {
        let mut folder = root(of);
        for name in path.folders() {
            folder.push_str(name);
            if self.length(&folder).await?.is_some() {
                return Err(path.as_path().refused(THROUGH_NO_FOLDER));
            }
            folder.push('/');
        }
        if self.holds(&format!("{folder}{}/", path.name())).await? {
            return Err(path.as_path().refused(NAME_A_FILE));
        }
        match self.below.read(of, path.as_path(), 0, 0).await {
            Ok(found) => Ok(Some(found.total)),
            Err(FileError::Missing(_)) => Ok(None),
            Err(FileError::Folder(_)) => Err(path.as_path().refused(NAME_A_FILE)),
            Err(error) => Err(error),
        }
    }

    /// A file as it is now, with what it must still be when it is replaced: this tag, or not there.
    async fn whole(
        &self,
        of: Workspace<'_>,
        path: &TargetPath,
        key: &str,
        added: usize,
    ) -> Result<(Vec<u8>, Option<String>), FileError> {
        let Object::Found(object) = self.object(key, None).await? else {
            let Some(length) = self.length_below(of, path).await? else { return Ok((Vec::new(), None)) };
            path.grown(length, added)?;
            return Ok((self.below.read(of, path.as_path(), 0, FILE_BYTES).await?.bytes, None));
        };
        // Looked at before anything is loaded: a function has little memory.
        let grown = path.grown(total(&object), added)?;
        let tag = object.e_tag.ok_or_else(|| unreachable(&io::Error::other("an object without a tag")))?;
        let mut whole = Vec::with_capacity(usize::try_from(grown).unwrap_or(0));
        collect(object.body, &mut whole).await?;
        Ok((whole, Some(tag)))
    }
}

/// What lies at a key.
enum Object {
    Found(Box<GetObjectOutput>),
    Missing,
    /// An object, but not so long that it has any of the range.
    EndsBefore,
}

/// The beginning of all keys of an agent. Neither a tenant's nor an agent's id holds a `/`.
fn root(of: Workspace<'_>) -> String {
    format!("agents/{}/{}/", of.tenant, of.agent)
}

/// The key of a path; that of the workspace itself ends with a `/`.
///
/// # Errors
/// A refusal of what can be no key.
fn key(of: Workspace<'_>, path: &FilePath) -> Result<String, FileError> {
    let key = root(of) + &path.parts().join("/");
    if key.len() > OBJECT_KEY_BYTES {
        return Err(path.refused(NAME_TOO_LONG));
    }
    // Listings are XML, which cannot hold them.
    if key.contains(['\u{fffe}', '\u{ffff}']) {
        return Err(path.refused("has a name that cannot be kept"));
    }
    Ok(key)
}

/// The beginning of the keys of all that lies in a folder.
fn folder(mut key: String) -> String {
    if !key.ends_with('/') {
        key.push('/');
    }
    key
}

fn bytes(length: Option<i64>) -> u64 {
    length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0)
}

/// The length of an object of which perhaps only a range was asked for: `bytes 0-9/25`.
fn total(object: &GetObjectOutput) -> u64 {
    let of_range = object.content_range().and_then(|range| range.rsplit_once('/')?.1.parse().ok());
    of_range.unwrap_or_else(|| bytes(object.content_length()))
}

async fn collect(mut body: ByteStream, into: &mut Vec<u8>) -> Result<(), FileError> {
    while let Some(chunk) = body.next().await {
        into.extend_from_slice(&chunk.map_err(|error| unreachable(&error))?);
    }
    Ok(())
}

const UNREACHABLE: &str = "your files cannot be reached right now; nothing was changed, try again";

fn unavailable(message: &str, unchanged: bool, cause: &dyn Error) -> FileError {
    // With all causes: of itself an error of the SDK only says that there was one.
    let source = DisplayErrorContext(cause).to_string().into();
    FileError::Unavailable { message: message.to_owned(), unchanged, source }
}

fn unreachable(cause: &dyn Error) -> FileError {
    unavailable(UNREACHABLE, true, cause)
}

/// Whether a conditional write was refused because the object has changed: it has not been written, that is certain.
fn is_overtaken<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    matches!(error.code(), Some("PreconditionFailed" | "ConditionalRequestConflict" | "NoSuchKey"))
}

#[async_trait]
impl Files for S3Files {
    async fn read(
        &self,
        of: Workspace<'_>,
        path: &FilePath,
        offset: u64,
        most: u64,
    ) -> Result<FilePart, FileError> {
        let key = key(of, path)?;
        if !path.is_instructions()
            && !path.parts().is_empty()
            && let Some(part) = self.part(&key, offset, most).await?
        {
            return Ok(part);
        }
        match self.below.read(of, path, offset, most).await {
            Err(FileError::Missing(_)) if self.holds(&folder(key)).await? => {
                Err(FileError::Folder(path.text().to_owned()))
            }
            Err(FileError::Missing(_)) => Err(path.missing()),
            other => other,
        }
    }

    async fn list(&self, of: Workspace<'_>, path: &FilePath, most: usize) -> Result<Listing, FileError> {
        let key = key(of, path)?;
        let prefix = folder(key.clone());
        // All of the layer's: people wrote them, so they are few.
        let (mut below, refusal) = match self.below.list(of, path, usize::MAX).await {
            Ok(listing) => (listing.entries, None),
            Err(error @ (FileError::Unavailable { .. } | FileError::Failed { .. })) => return Err(error),
            Err(error) => (BTreeMap::new(), Some(error)),
        };
        let mut listing = Listing::of_at_most(most);
        let mut add = |key: Option<&str>, entry: Entry| {
            let name = key.and_then(|key| key.strip_prefix(&prefix)).unwrap_or_default();
            let name = name.strip_suffix('/').unwrap_or(name);
            // Nobody but a person could have put either of them there.
            if !name.is_empty() && !is_instruction_file(name) {
                below.remove(name);
                listing.add(name.to_owned(), entry);
            }
        };
        let asked = self.client.list_objects_v2().bucket(&self.bucket).prefix(&prefix).delimiter("/");
        let mut pages = asked.into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| unreachable(&error))?;
            for found in page.common_prefixes() {
                add(found.prefix(), Entry::Folder);
            }
            for found in page.contents() {
                add(found.key(), Entry::File { bytes: bytes(found.size()) });
            }
        }
        if listing.total == 0
            && let Some(refusal) = refusal
        {
            let is_root = path.parts().is_empty();
            return Err(match refusal {
                FileError::Missing(_) if !is_root && self.length(&key).await?.is_some() => {
                    path.refused(NO_FOLDER)
                }
                FileError::Missing(_) if !is_root => path.missing(),
                other => other,
            });
        }
        for (name, entry) in below {
            listing.add(name, entry);
        }
        Ok(listing)
    }

    async fn write(
        &self,
        of: Workspace<'_>,
        path: &TargetPath,
        content: Vec<u8>,
        _mark: u64,
    ) -> Result<bool, FileError> {
        let key = key(of, path.as_path())?;
        let replaced = self.length(&key).await?.is_some() || self.length_below(of, path).await?.is_some();
        let put = self.client.put_object().bucket(&self.bucket).key(key).body(content.into());
        match put.send().await {
            Ok(_) => Ok(replaced),
            Err(error) => Err(unavailable(
                "your files cannot be reached right now; the file is the old one or the new one, try again",
                // To write it again changes nothing further.
                true,
                &error,
            )),
        }
    }

    async fn append(&self, of: Workspace<'_>, path: &TargetPath, content: Vec<u8>) -> Result<u64, FileError> {
        let key = key(of, path.as_path())?;
        for _ in 0..APPENDS_AT_ONCE {
            let (mut whole, tag) = self.whole(of, path, &key, content.len()).await?;
            whole.extend_from_slice(&content);
            let total = whole.len() as u64;
            let put = self.client.put_object().bucket(&self.bucket).key(&key).body(whole.into());
            let put = match tag {
                Some(tag) => put.if_match(tag),
                None => put.if_none_match("*"),
            };
            // Without the client's own tries: after one whose answer was lost, the next would be refused as overtaken – by
            // itself – and the content would be added twice.
            let once = Config::builder().retry_config(RetryConfig::disabled());
            match put.customize().config_override(once).send().await {
                Ok(_) => return Ok(total),
                Err(error) if is_overtaken(&error) => {}
                Err(error) => {
                    return Err(unavailable(
                        "your files cannot be reached right now; whether the text was added is not known: read the \
                         file before you try again",
                        false,
                        &error,
                    ));
                }
            }
        }
        Err(path.as_path().refused("is being written by many others; nothing was added, try again later"))
    }
}
