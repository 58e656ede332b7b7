//! Anthropic's Messages protocol, streaming: `POST {baseUrl}/v1/messages`, version 2023-06-01.

pub mod answer;
pub mod request;

use super::wire::{Clients, Endpoint, Setting};
use crate::config::{ModelInfo, ProviderConfig};
use crate::model::{ModelError, ModelProvider, ModelRequest, ModelStream};
use crate::secret::Secret;
use async_trait::async_trait;
use std::collections::BTreeMap;

/// The version of the protocol that requests name.
const VERSION: &str = "2023-06-01";

/// A vendor that speaks Anthropic Messages.
#[derive(Debug)]
pub struct AnthropicMessages {
    endpoint: Endpoint,
    models: BTreeMap<String, ModelInfo>,
}

impl AnthropicMessages {
    /// From its configuration; a base URL may, but need not, end with `/v1`.
    ///
    /// # Errors
    /// See [`Setting`].
    pub fn new(clients: &mut Clients, config: &ProviderConfig) -> Result<Self, Setting> {
        let path =
            if config.base_url.trim_end_matches('/').ends_with("/v1") { "/messages" } else { "/v1/messages" };
        let mut headers = vec![("anthropic-version", VERSION.to_owned())];
        headers.extend(config.api_key.as_ref().map(|key| ("x-api-key", Secret::expose(key).to_owned())));
        let endpoint = Endpoint::new(clients, config, path, &headers)?;
        Ok(Self { endpoint, models: config.models.clone() })
    }
}

#[async_trait]
impl ModelProvider for AnthropicMessages {
    async fn stream(&self, request: &ModelRequest) -> Result<ModelStream, ModelError> {
        let info = self.models.get(&request.model.model).copied().unwrap_or_default();
        let body = request::body(request, info);
        self.endpoint.call(&request.model, &body, answer::Answer::default()).await
    }
}
