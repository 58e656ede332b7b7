//! Agents' files to test with, in folders.

use shared::adapters::folder::FolderFiles;
use shared::files::{Files, Workspace};
use shared::id::{AgentId, TenantId};
use shared::tool::Tool;
use shared::tools;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// The built-in tools, on agents' folders.
pub fn tools_on_folders() -> BTreeMap<String, Arc<dyn Tool>> {
    let files: Arc<dyn Files> = Arc::new(FolderFiles);
    tools::builtin(&files)
}

/// An agent, and where its folder is.
#[derive(Debug)]
pub struct Owner {
    tenant: TenantId,
    agent: AgentId,
    folder: PathBuf,
}

impl Owner {
    /// Its files.
    pub fn files(&self) -> Workspace<'_> {
        Workspace { tenant: &self.tenant, agent: &self.agent, folder: &self.folder }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Files, empty at first.
pub struct Place {
    /// The files.
    pub files: Arc<dyn Files>,
    folders: TempDir,
}

impl Place {
    /// In a folder for each agent.
    pub fn in_folders() -> Self {
        Self { files: Arc::new(FolderFiles), folders: tempfile::tempdir().expect("a folder") }
    }

    /// The files of this agent.
    pub fn of(&self, agent: &str) -> Owner {
        self.of_tenant(TenantId::single().as_str(), agent)
    }

    /// The files of an agent of this tenant.
    pub fn of_tenant(&self, tenant: &str, agent: &str) -> Owner {
        Owner {
            tenant: tenant.into(),
            agent: agent.into(),
            folder: self.folders.path().join(tenant).join(agent),
        }
    }
}
