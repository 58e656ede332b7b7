//! Keys of OpenClaw 2026.9.6 that Reef does not implement: accepted, so that a file serves both, and named together in
//! one warning. Each function adds an object's such keys to its schema.

use schemars::Schema;
use serde_json::{Value, json};

/// Marks a key in the schema as OpenClaw's own.
pub(super) const READ_OVER: &str = "x-readOver";

fn read_over(schema: &mut Schema, keys: &[&str]) {
    let properties = schema.ensure_object().entry("properties").or_insert_with(|| json!({}));
    if let Value::Object(properties) = properties {
        for key in keys {
            let note = json!({"description": "OpenClaw's; Reef reads over it.", READ_OVER: true});
            properties.insert((*key).to_owned(), note);
        }
    }
}

pub(super) fn top(schema: &mut Schema) {
    read_over(
        schema,
        &[
            "meta",
            "env",
            "wizard",
            "diagnostics",
            "logging",
            "update",
            "telemetry",
            "browser",
            "ui",
            "secrets",
            "auth",
            "accessGroups",
            "acp",
            "nodeHost",
            "worktreeRoot",
            "worktreeAcceleration",
            "security",
            "bindings",
            "broadcast",
            "attachments",
            "messages",
            "tts",
            "commands",
            "approvals",
            "session",
            "cron",
            "transcripts",
            "channels",
            "discovery",
            "talk",
            "cloudWorkers",
            "desktop",
            "memory",
            "mcp",
            "skills",
            "plugins",
            "surfaces",
            "proxy",
        ],
    );
}

pub(super) fn gateway(schema: &mut Schema) {
    read_over(
        schema,
        &[
            "mode",
            "publicOrigin",
            "auth",
            "roles",
            "allowRealIpFallback",
            "tools",
            "tailscale",
            "remote",
            "reload",
            "controlUi",
            "terminal",
            "push",
            "nodes",
            "portals",
            "cliAgents",
        ],
    );
}

pub(super) fn endpoint(schema: &mut Schema) {
    read_over(schema, &["maxBodyBytes", "maxUrlParts", "images", "files"]);
}

pub(super) fn agent_defaults(schema: &mut Schema) {
    read_over(
        schema,
        &[
            "models",
            "modelPolicy",
            "skipBootstrap",
            "bootstrapMaxChars",
            "bootstrapTotalMaxChars",
            "contextPruning",
            "compaction",
            "thinkingDefault",
            "mediaMaxMb",
            "maxConcurrent",
            "subagents",
            "heartbeat",
            "sandbox",
            "skills",
            "imageModel",
            "imageGenerationModel",
            "pdfModel",
            "verboseDefault",
            "elevatedDefault",
            "typingMode",
            "contextTokens",
            "memorySearch",
            "params",
            "timeFormat",
            "blockStreamingDefault",
            "humanDelay",
            "runtime",
            "repoRoot",
        ],
    );
}

pub(super) fn agent(schema: &mut Schema) {
    read_over(
        schema,
        &[
            "agentDir",
            "models",
            "thinkingDefault",
            "skills",
            "subagents",
            "identity",
            "groupChat",
            "sandbox",
            "params",
            "tts",
            "heartbeat",
            "runtime",
            "memory",
            "memorySearch",
            "humanDelay",
        ],
    );
}

pub(super) fn tools(schema: &mut Schema) {
    read_over(
        schema,
        &[
            "profile",
            "byProvider",
            "alsoAllow",
            "web",
            "media",
            "links",
            "message",
            "agentToAgent",
            "elevated",
            "exec",
            "fs",
            "loopDetection",
            "subagents",
            "sandbox",
            "sessions",
            "experimental",
            "codeMode",
        ],
    );
}

pub(super) fn models(schema: &mut Schema) {
    read_over(schema, &["mode", "pricing", "bedrockDiscovery"]);
}

pub(super) fn provider(schema: &mut Schema) {
    read_over(
        schema,
        &["auth", "authHeader", "request", "maxTokens", "region", "injectNumCtxForOpenAICompat"],
    );
}

pub(super) fn provider_model(schema: &mut Schema) {
    read_over(
        schema,
        &["name", "api", "reasoning", "input", "cost", "contextTokens", "compat", "headers", "params"],
    );
}

pub(super) fn hooks(schema: &mut Schema) {
    read_over(
        schema,
        &[
            "enabled",
            "path",
            "token",
            "defaultSessionKey",
            "maxBodyBytes",
            "presets",
            "transformsDir",
            "mappings",
            "gmail",
            "internal",
        ],
    );
}
