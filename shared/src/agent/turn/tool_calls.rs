//! The tools' part of a turn: which ones it has, and how they are called.

use super::{Halt, TurnRun};
use crate::agent::TurnEvent;
use crate::bounds::TURN_BYTES;
use crate::message::{MessageBody, ToolCall};
use crate::quote::quoted;
use crate::tool::{Effect, Tool, ToolContext, ToolSpec};
use serde_json::json;
use std::sync::Arc;
use tokio::time::Instant;

impl TurnRun {
    /// Runs our own tools, one after the other, each result on record before the next begins.
    pub(super) async fn call_tools(&mut self, calls: Vec<ToolCall>) -> Result<(), Halt> {
        for call in calls {
            if self.may_have_run && self.runs_once(&call.name) {
                return Err(Halt::Parked(call));
            }
            self.tell(Ok(TurnEvent::ToolStarted { call: call.clone() }));
            let (content, is_error) = self.call_tool(&call).await?;
            self.note("tool.called", json!({"tool": call.name, "call": call.id, "error": is_error}));
            let result = MessageBody::ToolResult {
                call_id: call.id.clone(),
                name: call.name.clone(),
                content,
                is_error,
            };
            self.record(vec![result]).await?;
            self.under_way = None;
            self.tell(Ok(TurnEvent::ToolFinished { call_id: call.id, is_error }));
        }
        Ok(())
    }

    async fn call_tool(&mut self, call: &ToolCall) -> Result<(String, bool), Halt> {
        if self.recorded > TURN_BYTES {
            return Ok((format!("Not run: the turn has reached its limit of {TURN_BYTES} bytes."), true));
        }
        let Some(tool) = self.tool(&call.name) else {
            return Ok((format!("Tool not available: {}", quoted(&call.name)), true));
        };
        let arguments = match call.parsed_arguments() {
            Ok(arguments) => arguments,
            Err(error) => return Ok((format!("The arguments are not JSON: {error}"), true)),
        };
        let context = ToolContext {
            tenant: self.lease.tenant.clone(),
            agent: self.agent.id.clone(),
            session: Some(self.lease.session.clone()),
            turn: self.lease.turn.clone(),
            call_id: call.id.clone(),
            now: self.shared.now(),
            time_zone: self.agent.time_zone.clone(),
            workspace: self.agent.workspace.clone(),
        };
        if tool.spec().effect == Effect::Once {
            self.under_way = Some(call.clone());
        }
        let started = Instant::now();
        let called = self.while_holding(tool.call(&context, &arguments)).await?;
        let word = if called.is_ok() { "completed" } else { "error" };
        self.shared.parts.metrics.tool_execution(&call.name, word);
        tracing::info!(target: "operation", { turn.id = %self.lease.turn,
            session.key = %self.lease.session,
            tool.name = %call.name,
            outcome = word,
            duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX) }, "tool called");
        Ok(match called {
            Ok(output) => (output.content, false),
            Err(error) => {
                if let Some(cause) = error.cause() {
                    tracing::error!(target: "error", { tool.name = %call.name, cause = %cause }, "a tool failed");
                }
                (error.to_string(), true)
            }
        })
    }

    /// The agent's own tools that no tool of the client hides.
    pub(super) fn own_tools(&self) -> impl Iterator<Item = ToolSpec> {
        let names = self.agent.tools.iter().filter(|name| !self.is_clients(name));
        names.filter_map(|name| self.shared.parts.tools.get(name)).map(|tool| tool.spec().clone())
    }

    fn tool(&self, name: &str) -> Option<Arc<dyn Tool>> {
        let allowed = self.agent.tools.iter().any(|tool| tool == name);
        allowed.then(|| self.shared.parts.tools.get(name).map(Arc::clone)).flatten()
    }

    /// Whether it is a tool of ours that must not run twice.
    pub(super) fn runs_once(&self, name: &str) -> bool {
        self.tool(name).is_some_and(|tool| tool.spec().effect == Effect::Once)
    }

    pub(super) fn is_clients(&self, name: &str) -> bool {
        self.options.client_tools.iter().any(|tool| tool.name == name)
    }
}
