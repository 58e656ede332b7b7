//! The built-in tools: few and safe.
//!
//! Tools that touch files see the agent's workspace and nothing else ([`files`](crate::files) says how), and none can change
//! the agent's own instructions.

mod append_file;
mod current_time;
mod list_files;
mod read_file;
mod write_file;

use crate::files::{Files, Workspace};
use crate::quote::{quoted, reason};
use crate::tool::{Effect, Tool, ToolContext, ToolError, ToolSpec};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The names of all built-in tools, sorted; what an agent's list of tools may hold.
pub const NAMES: [&str; 5] =
    [append_file::NAME, current_time::NAME, list_files::NAME, read_file::NAME, write_file::NAME];

/// All built-in tools by name; these are the files that they work with.
pub fn builtin(files: &Arc<dyn Files>) -> BTreeMap<String, Arc<dyn Tool>> {
    let tools: [Arc<dyn Tool>; 5] = [
        Arc::new(append_file::AppendFile::new(Arc::clone(files))),
        Arc::new(current_time::CurrentTime::new()),
        Arc::new(list_files::ListFiles::new(Arc::clone(files))),
        Arc::new(read_file::ReadFile::new(Arc::clone(files))),
        Arc::new(write_file::WriteFile::new(Arc::clone(files))),
    ];
    tools.into_iter().map(|tool| (tool.spec().name.clone(), tool)).collect()
}

/// A built-in tool's spec.
fn spec(name: &str, description: &str, parameters: Value, effect: Effect) -> ToolSpec {
    ToolSpec { name: name.to_owned(), description: description.to_owned(), parameters, strict: None, effect }
}

/// The arguments as the tool's own struct.
///
/// # Errors
/// [`ToolError::Arguments`], naming the argument that is wrong.
fn arguments<T: DeserializeOwned>(arguments: &Value) -> Result<T, ToolError> {
    if !arguments.is_object() {
        return Err(ToolError::Arguments("the arguments must be a JSON object".to_owned()));
    }
    serde_path_to_error::deserialize(arguments).map_err(|error| {
        let path = error.path().to_string();
        let why = reason(&error.into_inner().to_string());
        // Missing and unknown arguments are named in the sentence; their path is the whole object's, a dot.
        ToolError::Arguments(if path == "." { why } else { format!("`{}`: {why}", quoted(&path)) })
    })
}

/// The files of the agent that calls.
fn workspace(context: &ToolContext) -> Workspace<'_> {
    Workspace { tenant: &context.tenant, agent: &context.agent, folder: &context.workspace }
}

#[cfg(test)]
mod tests;
