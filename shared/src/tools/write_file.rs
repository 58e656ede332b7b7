//! `write`: a whole file of the workspace, at once or not at all.

use super::{arguments, spec, workspace};
use crate::bounds::WRITE_BYTES;
use crate::files::{Files, TargetPath};
use crate::tool::{Effect, Tool, ToolContext, ToolError, ToolOutput, ToolSpec};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

pub(super) const NAME: &str = "write";

pub(super) struct WriteFile {
    spec: ToolSpec,
    files: Arc<dyn Files>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    path: String,
    content: String,
}

impl WriteFile {
    pub(super) fn new(files: Arc<dyn Files>) -> Self {
        let spec = spec(
            NAME,
            "Writes a text file in your workspace, at most 1 MB: makes it, with its folders, or replaces it as a whole.",
            parameters("The whole content."),
            Effect::Idempotent,
        );
        Self { spec, files }
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
    if content.len() > WRITE_BYTES {
        return Err(ToolError::Arguments(format!(
            "`content`: {} bytes are more than the {WRITE_BYTES} of one call",
            content.len()
        )));
    }
    Ok(())
}

#[async_trait]
impl Tool for WriteFile {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, context: &ToolContext, given: &Value) -> Result<ToolOutput, ToolError> {
        let Arguments { path, content } = arguments(given)?;
        check_length(&content)?;
        let target = TargetPath::new(&path)?;
        // The same call has the same name again after a crash, and so replaces what the crash left.
        let call = Sha256::digest(format!("{}\n{}", context.turn, context.call_id));
        let mark = u64::from_be_bytes(std::array::from_fn(|at| call[at]));
        let bytes = content.len();
        let replaced = self.files.write(workspace(context), &target, content.into_bytes(), mark).await?;
        let done = if replaced { "replaced" } else { "made" };
        Ok(ToolOutput {
            content: format!("`{path}` {done}: {bytes} bytes"),
            details: Some(json!({ "bytes": bytes, "replaced": replaced })),
        })
    }
}
