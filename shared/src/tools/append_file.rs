//! `append`: more text at the end of a file of the workspace.

use super::folder::{Folder, InnerPath};
use super::write_file::{check_length, parameters};
use super::{arguments, blocking, spec};
use crate::tool::{Effect, Tool, ToolContext, ToolError, ToolOutput, ToolSpec};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

pub(super) const NAME: &str = "append";

/// A file grows no longer than this, so that an agent in a loop fills no disk with one.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

pub(super) struct AppendFile(ToolSpec);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    path: String,
    content: String,
}

impl AppendFile {
    pub(super) fn new() -> Self {
        Self(spec(
            NAME,
            "Adds text at the end of a file in your workspace, at most 1 MB at once; makes the file, with its folders, \
             if there is none. Adds nothing between: begin or end with a line feed where you want one.",
            parameters("What to add."),
            Effect::Once,
        ))
    }
}

#[async_trait]
impl Tool for AppendFile {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    async fn call(&self, context: &ToolContext, given: &Value) -> Result<ToolOutput, ToolError> {
        let Arguments { path, content } = arguments(given)?;
        check_length(&content)?;
        let workspace = context.workspace.clone();
        blocking(move || append(&workspace, &path, &content)).await
    }
}

fn append(workspace: &Path, path: &str, content: &str) -> Result<ToolOutput, ToolError> {
    let inner = InnerPath::new(path)?;
    let place = Folder::open_or_make(workspace)?.place(&inner)?;
    let made = place.existing()?.is_none();
    let (mut file, found) = place.open_to_append()?;
    let total = found.len() + content.len() as u64;
    if total > MAX_FILE_BYTES {
        return Err(ToolError::Refused(format!("`{path}` would grow beyond {MAX_FILE_BYTES} bytes")));
    }
    file.write_all(content.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|error| place.explain(error))?;
    if made {
        place.sync()?;
    }
    let bytes = content.len();
    Ok(ToolOutput {
        content: format!("{bytes} bytes added to `{path}`, which has {total} now"),
        details: Some(json!({ "bytes": bytes, "total": total })),
    })
}
