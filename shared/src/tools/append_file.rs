//! `append`: more text at the end of a file of the workspace.

use super::write_file::{check_length, parameters};
use super::{arguments, spec, workspace};
use crate::files::{Files, TargetPath};
use crate::tool::{Effect, Tool, ToolContext, ToolError, ToolOutput, ToolSpec};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) const NAME: &str = "append";

pub(super) struct AppendFile {
    spec: ToolSpec,
    files: Arc<dyn Files>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    path: String,
    content: String,
}

impl AppendFile {
    pub(super) fn new(files: Arc<dyn Files>) -> Self {
        let spec = spec(
            NAME,
            "Adds text at the end of a file in your workspace, at most 1 MB at once; makes the file, with its folders, \
             if there is none. Adds nothing between: begin or end with a line feed where you want one.",
            parameters("What to add."),
            Effect::Once,
        );
        Self { spec, files }
    }
}

#[async_trait]
impl Tool for AppendFile {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, context: &ToolContext, given: &Value) -> Result<ToolOutput, ToolError> {
        let Arguments { path, content } = arguments(given)?;
        check_length(&content)?;
        let target = TargetPath::new(&path)?;
        let bytes = content.len();
        let total = self.files.append(workspace(context), &target, content.into_bytes()).await?;
        Ok(ToolOutput {
            content: format!("{bytes} bytes added to `{path}`, which has {total} now"),
            details: Some(json!({ "bytes": bytes, "total": total })),
        })
    }
}
