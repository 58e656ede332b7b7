//! Model providers, one module per wire protocol: [`anthropic`] (Messages), [`openai`] (chat completions, also for
//! Ollama, vLLM, LM Studio and the like), [`demo`] (`demo/echo`, inside this process).
//!
//! In each protocol the request is a pure function and the answer a pure state machine; [`wire`] carries both over
//! HTTP, [`sse`] cuts bytes into events, [`fault`] says what a failure means, [`retry`] tries again.

pub mod anthropic;
pub mod demo;
pub mod fault;
pub mod openai;
pub mod retry;
pub mod sse;
pub mod wire;

use crate::config::{ProviderApi, ProviderConfig};
use crate::model::ModelProvider;
use serde_json::value::RawValue;
use std::borrow::Cow;
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
    /// What is wrong, and what to do. Holds no secret.
    pub reason: String,
}

/// Makes every provider of the configuration. Opens no connection.
///
/// # Errors
/// The first setting that no call could be made with.
pub fn build(providers: &BTreeMap<String, ProviderConfig>) -> Result<Providers, ProvidersError> {
    let mut clients = wire::Clients::default();
    let mut out = Providers::new();
    for (id, config) in providers {
        let provider = one(&mut clients, config).map_err(|(key, reason)| ProvidersError {
            id: id.clone(),
            key,
            reason,
        })?;
        out.insert(id.clone(), provider);
    }
    Ok(out)
}

fn one(
    clients: &mut wire::Clients,
    config: &ProviderConfig,
) -> Result<Arc<dyn ModelProvider>, wire::Setting> {
    let attempts = config.max_attempts;
    Ok(match config.api {
        ProviderApi::AnthropicMessages => {
            Arc::new(retry::Retried::new(anthropic::AnthropicMessages::new(clients, config)?, attempts))
        }
        ProviderApi::OpenAiCompletions => {
            Arc::new(retry::Retried::new(openai::OpenAiCompletions::new(clients, config)?, attempts))
        }
        ProviderApi::Demo => Arc::new(demo::DemoModel),
    })
}

/// How a compaction is introduced to a model: as words of the user, since no vendor has a role for it.
const SUMMARY_OF: &str = "Summary of the earlier messages: ";

/// The arguments of a call as a JSON object, which the vendors want to see again with the call. What a model wrote
/// instead of one is wrapped into one, so that it can see its mistake.
fn arguments(text: &str) -> Cow<'_, RawValue> {
    let text = text.trim();
    if let Some(object) = serde_json::from_str::<&RawValue>(text).ok().filter(|_| text.starts_with('{')) {
        return Cow::Borrowed(object);
    }
    let wrapped = if text.is_empty() {
        serde_json::json!({})
    } else {
        serde_json::json!({ "not_a_json_object": text })
    };
    // A value always has its JSON; `null` stands for the case that does not exist.
    Cow::Owned(serde_json::value::to_raw_value(&wrapped).unwrap_or_else(|_| RawValue::NULL.to_owned()))
}
