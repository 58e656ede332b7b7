//! Agents' files to test with: in folders, and in a bucket of S3 (emulated by the server of [`crate::sqs`]) over folders.

use crate::sqs::Sqs;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::primitives::ByteStream;
use shared::adapters::aws::s3::S3Files;
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
    _server: Option<Sqs>,
}

impl Place {
    /// In a folder for each agent.
    pub fn in_folders() -> Self {
        Self { files: Arc::new(FolderFiles), folders: folders(), _server: None }
    }

    /// In a bucket, over a folder for each agent. The bucket is for tests that look behind the port.
    pub async fn in_bucket() -> (Self, Bucket) {
        let server = Sqs::start();
        let bucket = Bucket::make(server.endpoint(), "files").await;
        (Self { files: bucket.files(), folders: folders(), _server: Some(server) }, bucket)
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

fn folders() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// A bucket of an emulated S3.
#[derive(Debug, Clone)]
pub struct Bucket {
    client: Client,
    name: String,
}

impl Bucket {
    /// A new one of this name.
    pub async fn make(endpoint: &str, name: &str) -> Self {
        let bucket = Self::at(endpoint, name);
        let created = bucket.client.create_bucket().bucket(name);
        // As every bucket outside the oldest region says where it is.
        let place = aws_sdk_s3::types::CreateBucketConfiguration::builder();
        let place =
            place.location_constraint(aws_sdk_s3::types::BucketLocationConstraint::EuCentral1).build();
        created.create_bucket_configuration(place).send().await.expect("a new bucket");
        bucket
    }

    /// The one of this name, wherever that is.
    pub fn at(endpoint: &str, name: &str) -> Self {
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(Credentials::new("test", "test", None, None, "tests"))
            .endpoint_url(endpoint)
            // An emulator has no host of the bucket's name.
            .force_path_style(true)
            .build();
        Self { client: Client::from_conf(config), name: name.to_owned() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Agents' files in it, over folders.
    pub fn files(&self) -> Arc<dyn Files> {
        Arc::new(S3Files::new(self.client.config().clone(), self.name.as_str(), Arc::new(FolderFiles)))
    }

    /// Puts an object there.
    pub async fn put(&self, key: &str, content: &str) {
        let body = ByteStream::from(content.as_bytes().to_vec());
        let put = self.client.put_object().bucket(&self.name).key(key).body(body);
        put.send().await.expect("a stored object");
    }

    /// All that is in it: contents by key.
    pub async fn objects(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut pages = self.client.list_objects_v2().bucket(&self.name).into_paginator().send();
        while let Some(page) = pages.next().await {
            for object in page.expect("a page of the bucket").contents.unwrap_or_default() {
                let key = object.key.expect("a key");
                let got = self.client.get_object().bucket(&self.name).key(&key).send().await;
                let bytes = got.expect("the object").body.collect().await.expect("its content").into_bytes();
                found.insert(key, String::from_utf8(bytes.to_vec()).expect("a text"));
            }
        }
        found
    }
}
