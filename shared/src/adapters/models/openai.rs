//! OpenAI's chat completions, streaming: `POST {baseUrl}/chat/completions`. Also what Ollama, vLLM, LM Studio and
//! many others speak, each with liberties of its own; see [`answer`].

pub mod answer;
pub mod request;

use super::wire::{Clients, Endpoint, Setting};
use crate::config::{ModelInfo, ProviderConfig};
use crate::model::{ModelError, ModelProvider, ModelRequest, ModelStream};
use crate::secret::Secret;
use async_trait::async_trait;
use std::collections::BTreeMap;

/// A vendor that speaks chat completions.
#[derive(Debug)]
pub struct OpenAiCompletions {
    endpoint: Endpoint,
    dialect: request::Dialect,
    models: BTreeMap<String, ModelInfo>,
}

impl OpenAiCompletions {
    /// From its configuration. A base URL carries the version, as in `https://api.openai.com/v1`; one without any
    /// path gets `/v1`.
    ///
    /// # Errors
    /// See [`Setting`].
    pub fn new(clients: &mut Clients, config: &ProviderConfig) -> Result<Self, Setting> {
        let base = config.base_url.trim_end_matches('/');
        let has_path = base.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        let path = if has_path { "/chat/completions" } else { "/v1/chat/completions" };
        let key =
            config.api_key.as_ref().map(|key| ("authorization", format!("Bearer {}", Secret::expose(key))));
        let endpoint = Endpoint::new(clients, config, path, key.as_slice())?;
        let dialect = request::Dialect::of_host(endpoint.host());
        Ok(Self { endpoint, dialect, models: config.models.clone() })
    }
}

#[async_trait]
impl ModelProvider for OpenAiCompletions {
    async fn stream(&self, request: &ModelRequest) -> Result<ModelStream, ModelError> {
        let info = self.models.get(&request.model.model).copied();
        let body = request::body(request, info, self.dialect);
        self.endpoint.call(&request.model, &body, answer::Answer::default()).await
    }
}
