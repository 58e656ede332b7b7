//! `write`: a whole file of the workspace, at once or not at all.

use super::folder::{Folder, InnerPath, Place};
use super::{arguments, blocking, spec};
use crate::tool::{Effect, Tool, ToolContext, ToolError, ToolOutput, ToolSpec};
use async_trait::async_trait;
use cap_fs_ext::{FollowSymlinks, OpenOptionsFollowExt};
use cap_std::fs::{OpenOptions, Permissions};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::{self, Write};
use std::path::Path;

pub(super) const NAME: &str = "write";

/// Most bytes of one call, of `append` too.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

pub(super) struct WriteFile(ToolSpec);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    path: String,
    content: String,
}

impl WriteFile {
    pub(super) fn new() -> Self {
        Self(spec(
            NAME,
            "Writes a text file in your workspace, at most 1 MB: makes it, with its folders, or replaces it as a whole.",
            parameters("The whole content."),
            Effect::Idempotent,
        ))
    }
}

/// The arguments' schema, of `append` too.
pub(super) fn parameters(content: &str) -> Value {
    json!({
        "type": "object",
        "properties": {
            "path": { "type": "string", "description": "The file, relative to your workspace." },
            "content": { "type": "string", "description": content }
        },
        "required": ["path", "content"],
        "additionalProperties": false
    })
}

/// Refuses what is too long.
pub(super) fn check_length(content: &str) -> Result<(), ToolError> {
    if content.len() > MAX_BYTES {
        return Err(ToolError::Arguments(format!(
            "`content`: {} bytes are more than the {MAX_BYTES} of one call",
            content.len()
        )));
    }
    Ok(())
}

#[async_trait]
impl Tool for WriteFile {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    async fn call(&self, context: &ToolContext, given: &Value) -> Result<ToolOutput, ToolError> {
        let Arguments { path, content } = arguments(given)?;
        check_length(&content)?;
        let workspace = context.workspace.clone();
        // The same call has the same name again after a crash, and so replaces what the crash left.
        let call = Sha256::digest(format!("{}\n{}", context.turn, context.call_id));
        let mark = u64::from_be_bytes(std::array::from_fn(|at| call[at]));
        blocking(move || write(&workspace, &path, &content, mark)).await
    }
}

fn write(workspace: &Path, path: &str, content: &str, mark: u64) -> Result<ToolOutput, ToolError> {
    let inner = InnerPath::new(path)?;
    let place = Folder::open_or_make(workspace)?.place(&inner)?;
    let before = place.existing()?;
    let draft = format!(".reef-{mark:016x}.tmp");
    let permissions = before.as_ref().map(cap_std::fs::Metadata::permissions);
    let written = write_draft(&place, &draft, content, permissions)
        .and_then(|()| place.dir.rename(&draft, &place.dir, place.name));
    if let Err(error) = written {
        // Nothing was replaced; the draft is of no use to anybody, and may not even be there.
        let _ = place.dir.remove_file(&draft);
        return Err(place.explain(error));
    }
    place.sync()?;
    let bytes = content.len();
    let done = if before.is_some() { "replaced" } else { "made" };
    Ok(ToolOutput {
        content: format!("`{path}` {done}: {bytes} bytes"),
        details: Some(json!({ "bytes": bytes, "replaced": before.is_some() })),
    })
}

/// Writes the content beside its place, durable, with the permissions of what it will replace.
fn write_draft(place: &Place<'_>, draft: &str, content: &str, like: Option<Permissions>) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).follow(FollowSymlinks::No);
    let mut file = place.dir.open_with(draft, &options)?;
    file.write_all(content.as_bytes())?;
    if let Some(permissions) = like {
        file.set_permissions(permissions)?;
    }
    file.sync_all()
}
