//! `read`: a text file of the workspace.

use super::{arguments, spec, workspace};
use crate::bounds::READ_BYTES;
use crate::files::{FilePart, FilePath, Files};
use crate::quote::quoted;
use crate::tool::{Effect, Tool, ToolContext, ToolError, ToolOutput, ToolSpec};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) const NAME: &str = "read";

pub(super) struct ReadFile {
    spec: ToolSpec,
    files: Arc<dyn Files>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    path: String,
    #[serde(default)]
    offset: u64,
}

impl ReadFile {
    pub(super) fn new(files: Arc<dyn Files>) -> Self {
        let spec = spec(
            NAME,
            "Reads a text file (UTF-8) of your workspace: at most 256 KB at once. A note at the end of a longer file's \
             part says from which offset to read on.",
            json!({
                "type": "object",
                "properties": {
                    "path": { "type": "string", "description": "The file, relative to your workspace." },
                    "offset": {
                        "type": "integer",
                        "minimum": 0,
                        "description": "The byte to begin at; the beginning if left out."
                    }
                },
                "required": ["path"],
                "additionalProperties": false
            }),
            Effect::None,
        );
        Self { spec, files }
    }
}

#[async_trait]
impl Tool for ReadFile {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, context: &ToolContext, given: &Value) -> Result<ToolOutput, ToolError> {
        let Arguments { path, offset } = arguments(given)?;
        let read = self.files.read(workspace(context), &FilePath::new(&path)?, offset, READ_BYTES).await?;
        shown(&path, offset, read)
    }
}

/// A part of a file as text.
fn shown(path: &str, offset: u64, FilePart { bytes, total }: FilePart) -> Result<ToolOutput, ToolError> {
    if offset > total {
        return Err(ToolError::Arguments(format!("`offset`: `{}` has only {total} bytes", quoted(path))));
    }
    let full = bytes.len() as u64 == READ_BYTES;
    let mut content = match String::from_utf8(bytes) {
        Ok(content) => content,
        Err(error) => {
            let valid = error.utf8_error();
            // Ending within a character is the cut's fault if there is a cut, and the file's if there is none.
            if !(full && valid.error_len().is_none()) {
                let hint = if offset > 0 && valid.valid_up_to() == 0 { " at this offset" } else { "" };
                return Err(ToolError::Refused(format!("`{}` is no text in UTF-8{hint}", quoted(path))));
            }
            let mut bytes = error.into_bytes();
            bytes.truncate(valid.valid_up_to());
            String::from_utf8(bytes).unwrap_or_default()
        }
    };
    let end = offset + content.len() as u64;
    let more = full && end < total;
    let details = json!({ "bytes": total, "offset": offset, "nextOffset": more.then_some(end) });
    if more {
        content.push_str(&format!(
            "\n[TRUNCATED] Bytes {offset} to {end} of {total} are shown; read on with `offset` {end}."
        ));
    }
    Ok(ToolOutput { content, details: Some(details) })
}
