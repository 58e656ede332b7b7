//! What the model providers send and understand: golden requests, replayed streams, failures, retries – all without
//! a vendor, over a loopback socket where a socket matters.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[path = "providers/golden.rs"]
mod golden;
#[path = "providers/replay.rs"]
mod replay;
#[path = "providers/retries.rs"]
mod retries;
#[path = "providers/socket.rs"]
mod socket;

use futures::StreamExt;
use shared::config::{ProviderApi, ProviderConfig};
use shared::message::MessageBody;
use shared::model::{ModelError, ModelEvent, ModelProvider, ModelRequest, Sampling, ToolChoice};
use shared::secret::Secret;
use std::collections::BTreeMap;
use std::time::Duration;

/// A request of one user message.
fn request(model: &str, text: &str) -> ModelRequest {
    ModelRequest {
        model: model.parse().unwrap(),
        system: String::new(),
        messages: vec![MessageBody::user_text(text)],
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        sampling: Sampling::default(),
    }
}

/// A provider without a key's worth of patience: one attempt, ten seconds.
fn config(api: ProviderApi, base_url: String) -> ProviderConfig {
    ProviderConfig {
        api,
        base_url,
        api_key: Some(Secret::new("sk-very-secret-key")),
        headers: BTreeMap::new(),
        connect_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_secs(10),
        max_attempts: 1,
        models: BTreeMap::new(),
    }
}

/// All events of a call, or its failure: before the first event or later.
async fn events(provider: &dyn ModelProvider, request: &ModelRequest) -> Result<Vec<ModelEvent>, ModelError> {
    let mut stream = provider.stream(request).await?;
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event?);
    }
    Ok(events)
}
