//! Model providers, one module per wire protocol: [`demo`] (`demo/echo`, inside this process).

pub mod demo;

use crate::config::{ProviderApi, ProviderConfig};
use crate::model::ModelProvider;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The providers of a process, by their ids in the configuration.
pub type Providers = BTreeMap<String, Arc<dyn ModelProvider>>;

/// A provider that cannot be made from its configuration.
#[derive(Debug, thiserror::Error)]
#[error("models.providers.{id}.{key}: {reason}")]
pub struct ProvidersError {
    /// The provider's id.
    pub id: String,
    /// Which of its settings.
    pub key: &'static str,
    /// What is wrong, and what to do.
    pub reason: String,
}

/// Makes every provider of the configuration. Opens no connection.
///
/// # Errors
/// The first setting that no call could be made with.
pub fn build(providers: &BTreeMap<String, ProviderConfig>) -> Result<Providers, ProvidersError> {
    let mut out = Providers::new();
    for (id, config) in providers {
        let provider: Arc<dyn ModelProvider> = match config.api {
            ProviderApi::Demo => Arc::new(demo::DemoModel),
            ProviderApi::AnthropicMessages | ProviderApi::OpenAiCompletions => {
                return Err(ProvidersError {
                    id: id.clone(),
                    key: "api",
                    reason: "this build speaks only `demo`".to_owned(),
                });
            }
        };
        out.insert(id.clone(), provider);
    }
    Ok(out)
}
