//! A [`Config`] as a file would say it, complete and without secrets.

use super::{Config, GatewayConfig, Hsts, ProviderApi, ProviderConfig};
use crate::agent::Agent;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// What stands for a secret.
const REDACTED: &str = "[redacted]";

/// See [`Config::show`].
pub(super) fn show(config: &Config) -> Value {
    let providers: Map<String, Value> = config
        .providers
        .iter()
        .filter(|(_, provider)| provider.api != ProviderApi::Demo)
        .map(|(id, provider)| (id.clone(), show_provider(provider)))
        .collect();
    json!({
        "gateway": gateway(&config.gateway),
        "agents": config.agents.iter().map(|one| agent(one, one.id == config.default_agent().id)).collect::<Vec<_>>(),
        "models": {"providers": providers},
        "turns": {
            "leaseSeconds": seconds(config.turns.lease),
            "maxWaiting": config.turns.max_waiting,
            "waitSeconds": seconds(config.turns.max_wait),
            "windowMessages": config.turns.window_messages,
            "keepMessages": config.turns.keep_messages,
            "workerConcurrency": config.turns.worker_concurrency,
            "jobMaxAttempts": config.turns.job_max_attempts,
        },
        "hooks": {
            "allowRequestSessionKey": config.hooks.allow_request_session_key,
            "allowedSessionKeyPrefixes": config.hooks.allowed_session_key_prefixes,
            "allowedAgentIds": config.hooks.allowed_agents.as_ref().map_or_else(|| json!(["*"]), |ids| json!(ids)),
        },
        "timeZone": config.time_zone,
    })
}

fn gateway(gateway: &GatewayConfig) -> Value {
    let hsts = match &gateway.hsts {
        Hsts::WithTls => json!(true),
        Hsts::Never => json!(false),
        Hsts::Always(value) => json!(value),
    };
    let mut out = json!({
        "port": gateway.listen.port(),
        "bind": "custom",
        "customBindHost": gateway.listen.ip(),
        "rateLimit": {
            "perSecond": gateway.limit.per_second,
            "burst": gateway.limit.burst,
            "bytesPerRequest": gateway.bytes_per_request,
        },
        "maxBodyBytes": gateway.max_body_bytes,
        "maxConnections": gateway.max_connections,
        "maxConnectionsPerAddress": gateway.max_connections_per_address,
        "writeTimeoutSeconds": seconds(gateway.write_timeout),
        "trustedProxies": gateway.trusted_proxies,
        "tls": if gateway.tls_in_front { "inFront" } else { "none" },
        "http": {"securityHeaders": {"strictTransportSecurity": hsts}},
        "heartbeatSeconds": seconds(gateway.heartbeat),
        "drainSeconds": seconds(gateway.drain),
    });
    if let Some(bytes) = gateway.memory_budget {
        out["memoryBudget"] = json!(bytes);
    }
    out
}

fn agent(agent: &Agent, is_default: bool) -> Value {
    let mut out = json!({
        "id": agent.id,
        "default": is_default,
        "name": agent.name,
        "model": {"primary": agent.model, "fallbacks": agent.fallbacks},
        "workspace": {"root": agent.workspace},
        "tools": agent.tools,
        "timeZone": agent.time_zone,
        "limits": {
            "steps": agent.limits.steps,
            "seconds": seconds(agent.limits.wall),
            "tokens": agent.limits.tokens,
        },
        "resources": {},
    });
    if let Some(description) = &agent.description {
        out["description"] = json!(description);
    }
    if let Some(memory) = agent.resources.memory {
        out["resources"]["memory"] = json!(memory);
    }
    if let Some(cpu) = agent.resources.cpu {
        out["resources"]["cpu"] = json!(cpu);
    }
    out
}

fn show_provider(provider: &ProviderConfig) -> Value {
    let api = match provider.api {
        ProviderApi::AnthropicMessages => "anthropic-messages",
        ProviderApi::OpenAiCompletions => "openai-completions",
        ProviderApi::Demo => "demo",
    };
    let headers: Map<String, Value> =
        provider.headers.keys().map(|name| (name.clone(), Value::from(REDACTED))).collect();
    let model = |(id, info): (&String, &super::ModelInfo)| json!({"id": id, "contextWindow": info.context_window, "maxTokens": info.max_tokens});
    let mut out = json!({
        "api": api,
        "baseUrl": without_user_info(&provider.base_url),
        "headers": headers,
        "timeoutSeconds": seconds(provider.read_timeout),
        "connectTimeoutSeconds": seconds(provider.connect_timeout),
        "maxAttempts": provider.max_attempts,
        "models": provider.models.iter().map(model).collect::<Vec<_>>(),
    });
    if provider.api_key.is_some() {
        out["apiKey"] = json!(REDACTED);
    }
    out
}

/// An address may carry a name and password before its host.
fn without_user_info(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            match authority.rsplit_once('@') {
                Some((_, host)) => format!("{scheme}://{REDACTED}@{host}{path}"),
                None => url.to_owned(),
            }
        }
        None => url.to_owned(),
    }
}

/// Whole seconds without a fraction, others with one.
fn seconds(duration: Duration) -> Value {
    if duration.subsec_nanos() == 0 { json!(duration.as_secs()) } else { json!(duration.as_secs_f64()) }
}
