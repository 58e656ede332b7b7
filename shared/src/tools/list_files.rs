//! `ls`: what a folder of the workspace holds.

use super::folder::{Folder, InnerPath, explain};
use super::{arguments, blocking, spec};
use crate::tool::{Effect, Tool, ToolContext, ToolError, ToolOutput, ToolSpec};
use async_trait::async_trait;
use cap_std::fs::Dir;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

pub(super) const NAME: &str = "ls";

/// Most entries in one answer: about 40 KB of text.
const MAX_ENTRIES: usize = 1_000;

pub(super) struct ListFiles(ToolSpec);

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
    pub(super) fn new() -> Self {
        Self(spec(
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
        ))
    }
}

#[async_trait]
impl Tool for ListFiles {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    async fn call(&self, context: &ToolContext, given: &Value) -> Result<ToolOutput, ToolError> {
        let Arguments { path } = arguments(given)?;
        let workspace = context.workspace.clone();
        blocking(move || list(&workspace, &path)).await
    }
}

fn list(workspace: &Path, path: &str) -> Result<ToolOutput, ToolError> {
    let inner = InnerPath::new(path)?;
    let dir = Folder::open(workspace)?.folder(&inner)?;
    let (entries, total) = first_entries(&dir).map_err(|error| explain(path, error))?;
    let mut content = String::new();
    let mut details = Vec::with_capacity(entries.len());
    for (name, entry) in &entries {
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
    if total == 0 {
        content.push_str("(empty)\n");
    } else if total > entries.len() {
        content.push_str(&format!("[TRUNCATED] The first {} of {total} entries are shown.\n", entries.len()));
    }
    content.pop();
    Ok(ToolOutput { content, details: Some(json!({ "entries": details, "total": total })) })
}

enum Entry {
    Folder,
    File { bytes: u64 },
    Other { kind: &'static str },
}

/// The first entries by name, and how many there are. Holds no more than it returns, however full the folder is.
fn first_entries(dir: &Dir) -> io::Result<(BTreeMap<String, Entry>, usize)> {
    let mut first = BTreeMap::new();
    let mut total = 0;
    for entry in dir.entries()? {
        let entry = entry?;
        total += 1;
        let name = entry.file_name().to_string_lossy().into_owned();
        if first.len() == MAX_ENTRIES && first.last_key_value().is_some_and(|(last, _)| *last < name) {
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
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    total -= 1;
                    continue;
                }
                Err(error) => return Err(error),
            }
        };
        first.insert(name, found);
        if first.len() > MAX_ENTRIES {
            first.pop_last();
        }
    }
    Ok((first, total))
}
