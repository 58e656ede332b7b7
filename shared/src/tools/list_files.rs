//! `ls`: what a folder of the workspace holds.

use super::{arguments, spec};
use crate::bounds::LISTED_ENTRIES;
use crate::files::{Entry, FilePath, Files, Listing};
use crate::tool::{Effect, Tool, ToolContext, ToolError, ToolOutput, ToolSpec};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) const NAME: &str = "ls";

pub(super) struct ListFiles {
    spec: ToolSpec,
    files: Arc<dyn Files>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    #[serde(default = "workspace")]
    path: String,
}

fn workspace() -> String {
    ".".to_owned()
}

impl ListFiles {
    pub(super) fn new(files: Arc<dyn Files>) -> Self {
        let spec = spec(
            NAME,
            "Lists a folder of your workspace, sorted by name: one entry per line, folders with a trailing slash, \
             files with their size in bytes.",
            json!({
                "type": "object",
                "properties": {
                    "path": {
                        "type": "string",
                        "description": "The folder, relative to your workspace; the workspace itself if left out."
                    }
                },
                "additionalProperties": false
            }),
            Effect::None,
        );
        Self { spec, files }
    }
}

#[async_trait]
impl Tool for ListFiles {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, context: &ToolContext, given: &Value) -> Result<ToolOutput, ToolError> {
        let Arguments { path } = arguments(given)?;
        let path = FilePath::new(&path)?;
        Ok(shown(&self.files.list(super::workspace(context), &path, LISTED_ENTRIES).await?))
    }
}

/// A folder's entries as text.
fn shown(listing: &Listing) -> ToolOutput {
    let Listing { entries, total, .. } = listing;
    let mut content = String::new();
    let mut details = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        // A name with a line feed must not look like two entries.
        content.push_str(&name.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'"));
        match entry {
            Entry::Folder => content.push('/'),
            Entry::File { bytes } => content.push_str(&format!("  {bytes}")),
            Entry::Other { kind } => content.push_str(&format!("  ({kind})")),
        }
        content.push('\n');
        details.push(match entry {
            Entry::Folder => json!({ "name": name, "kind": "folder" }),
            Entry::File { bytes } => json!({ "name": name, "kind": "file", "bytes": bytes }),
            Entry::Other { kind } => json!({ "name": name, "kind": kind }),
        });
    }
    if *total == 0 {
        content.push_str("(empty)\n");
    } else if *total > entries.len() {
        content.push_str(&format!("[TRUNCATED] The first {} of {total} entries are shown.\n", entries.len()));
    }
    content.pop();
    ToolOutput { content, details: Some(json!({ "entries": details, "total": total })) }
}
