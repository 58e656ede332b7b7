//! The simulated outside: a model that does what the input's last word says, and tools that count.

use super::dice::Dice;
use super::life::Life;
use async_trait::async_trait;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use shared::id::TurnId;
use shared::message::MessageBody;
use shared::model::{ModelError, ModelEvent, ModelProvider, ModelRequest, ModelStream, StopReason, Usage};
use shared::tool::{Effect, Tool, ToolContext, ToolError, ToolOutput, ToolSpec};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A model within one process.
pub(super) struct SimulatedModel {
    pub(super) life: Arc<Life>,
    pub(super) dice: Arc<Dice>,
}

/// The words between `[` and `]` of an input: its name, and what it wants.
pub(super) fn marked(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.split_once('[')?;
    let (inner, _) = rest.split_once(']')?;
    inner.split_once(' ')
}

#[async_trait]
impl ModelProvider for SimulatedModel {
    async fn stream(&self, request: &ModelRequest) -> Result<ModelStream, ModelError> {
        self.life.goes_on().await;
        let said = request.messages.iter().rposition(|body| matches!(body, MessageBody::User { .. }));
        let said = said.unwrap_or_default();
        let text = request.messages[said].text();
        let (name, word) = marked(&text).unwrap_or(("nothing", "plain"));
        let called =
            request.messages[said..].iter().any(|body| matches!(body, MessageBody::ToolResult { .. }));
        let seconds = if word == "slow" { 5 + self.dice.below(120) } else { self.dice.below(3) };
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        self.life.goes_on().await;
        let mut events = Vec::new();
        if !called && (word == "look" || word == "pay") {
            let (id, name) = (format!("call-{name}"), word.to_owned());
            events.push(ModelEvent::ToolCallStart { index: 0, id, name });
            events.push(ModelEvent::ToolCallArguments { index: 0, delta: "{}".to_owned() });
            events.push(ModelEvent::Stop(StopReason::ToolCalls));
        } else {
            events.push(ModelEvent::Text(format!("reply to {name}")));
            events.push(ModelEvent::Usage(Usage { input_tokens: 1, output_tokens: 1, ..Usage::default() }));
            events.push(ModelEvent::Stop(StopReason::End));
        }
        Ok(stream::iter(events).map(Ok).boxed())
    }
}

/// How often the tool that may not run twice ran, by turn.
pub(super) type Effects = Mutex<BTreeMap<TurnId, u32>>;

/// A tool within one process.
struct CountingTool {
    spec: ToolSpec,
    life: Arc<Life>,
    dice: Arc<Dice>,
    effects: Arc<Effects>,
}

#[async_trait]
impl Tool for CountingTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    async fn call(&self, context: &ToolContext, _: &Value) -> Result<ToolOutput, ToolError> {
        self.life.goes_on().await;
        if self.spec.effect == Effect::Once {
            let mut effects = self.effects.lock().expect("counting does not panic");
            *effects.entry(context.turn.clone()).or_default() += 1;
        }
        tokio::time::sleep(Duration::from_millis(self.dice.below(3_000))).await;
        self.life.goes_on().await;
        Ok(ToolOutput::text("fine"))
    }
}

/// The tools `look` and `pay`.
pub(super) fn tools(
    life: &Arc<Life>,
    dice: &Arc<Dice>,
    effects: &Arc<Effects>,
) -> BTreeMap<String, Arc<dyn Tool>> {
    let tool = |name: &str, effect| {
        let parameters = json!({"type": "object", "properties": {}});
        let spec =
            ToolSpec { name: name.to_owned(), description: String::new(), parameters, strict: None, effect };
        let tool = CountingTool { spec, life: life.clone(), dice: dice.clone(), effects: effects.clone() };
        (name.to_owned(), Arc::new(tool) as Arc<dyn Tool>)
    };
    BTreeMap::from([tool("look", Effect::Idempotent), tool("pay", Effect::Once)])
}
