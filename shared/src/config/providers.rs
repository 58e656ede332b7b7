//! Model vendors: the built-in ones, what the file says of them, and where their keys are.

use super::file::{self, Api, ApiKey};
use super::load::{Reader, seconds};
use super::{ModelInfo, ProviderApi, ProviderConfig};
use crate::secret::Secret;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

struct BuiltIn {
    id: &'static str,
    api: ProviderApi,
    base_url: &'static str,
    /// Environment variable of the address.
    url_variable: &'static str,
    /// Environment variable of the key, for vendors that need one.
    key_variable: Option<&'static str>,
}

/// Addresses: the vendors' API references; the local servers' default ports.
const BUILT_IN: [BuiltIn; 5] = [
    BuiltIn {
        id: "anthropic",
        api: ProviderApi::AnthropicMessages,
        base_url: "https://api.anthropic.com",
        url_variable: "ANTHROPIC_BASE_URL",
        key_variable: Some("ANTHROPIC_API_KEY"),
    },
    BuiltIn {
        id: "lmstudio",
        api: ProviderApi::OpenAiCompletions,
        base_url: "http://127.0.0.1:1234/v1",
        url_variable: "LMSTUDIO_BASE_URL",
        key_variable: None,
    },
    BuiltIn {
        id: "ollama",
        api: ProviderApi::OpenAiCompletions,
        base_url: "http://127.0.0.1:11434/v1",
        url_variable: "OLLAMA_BASE_URL",
        key_variable: None,
    },
    BuiltIn {
        id: "openai",
        api: ProviderApi::OpenAiCompletions,
        base_url: "https://api.openai.com/v1",
        url_variable: "OPENAI_BASE_URL",
        key_variable: Some("OPENAI_API_KEY"),
    },
    BuiltIn {
        id: "vllm",
        api: ProviderApi::OpenAiCompletions,
        base_url: "http://127.0.0.1:8000/v1",
        url_variable: "VLLM_BASE_URL",
        key_variable: None,
    },
];

/// Protocols of OpenClaw's that a file may name, of providers that no agent uses, although Reef does not speak them.
pub(super) const UNSPOKEN: [&str; 4] =
    ["openai-responses", "google-generative-ai", "bedrock-converse-stream", "azure-openai-responses"];

/// Id of the provider that lives in this process.
pub(super) const DEMO: &str = "demo";

/// Every id that an agent's model may begin with, sorted.
pub(super) fn known(file: &file::Models) -> BTreeSet<String> {
    let built_in = BUILT_IN.iter().map(|one| one.id.to_owned()).chain([DEMO.to_owned()]);
    built_in.chain(file.providers.keys().cloned()).collect()
}

/// The demo model.
pub(super) fn demo() -> ProviderConfig {
    ProviderConfig {
        api: ProviderApi::Demo,
        base_url: String::new(),
        api_key: None,
        headers: BTreeMap::new(),
        connect_timeout: CONNECT_TIMEOUT,
        read_timeout: READ_TIMEOUT,
        max_attempts: 1,
        models: BTreeMap::new(),
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The cluster guide's read timeout.
const READ_TIMEOUT: Duration = Duration::from_secs(300);
const MAX_ATTEMPTS: u32 = 3;

impl Reader<'_> {
    /// The providers that agents use, and those that the file names. `used` holds the path of the first use.
    pub(super) fn providers(
        &mut self,
        mut file: file::Models,
        used: &BTreeMap<String, String>,
    ) -> BTreeMap<String, ProviderConfig> {
        let mut out = BTreeMap::new();
        let named: BTreeSet<String> = file.providers.keys().chain(used.keys()).cloned().collect();
        for id in named {
            let path = format!("models.providers.{id}");
            let settings = file.providers.remove(&id);
            if id == DEMO {
                if settings.is_some() {
                    self.problems.add(path, "is the name of the built-in demo model; choose another one");
                }
                if used.contains_key(&id) {
                    out.insert(id, demo());
                }
            } else if let Some(provider) =
                self.provider(&id, &path, settings.unwrap_or_default(), used.get(&id).map(String::as_str))
            {
                out.insert(id, provider);
            }
        }
        out
    }

    fn provider(
        &mut self,
        id: &str,
        path: &str,
        settings: file::Provider,
        used_at: Option<&str>,
    ) -> Option<ProviderConfig> {
        let built_in = BUILT_IN.iter().find(|one| one.id == id);
        let api = self.api(path, settings.api, built_in, used_at.is_some())?;
        let base_url = self.base_url(path, settings.base_url, settings.api, built_in, used_at.is_some());
        let api_key = self.api_key(path, settings.api_key, built_in, used_at);
        let headers = self.headers(path, settings.headers);
        let models = self.models(path, settings.models);
        let base_url = base_url?;
        if (api_key.is_some() || !headers.is_empty())
            && base_url.starts_with("http://")
            && !is_local(&base_url)
        {
            self.warnings.push(format!(
                "{path}.baseUrl: plain HTTP to another machine; the key and every prompt can be read on the way"
            ));
        }
        Some(ProviderConfig {
            api,
            base_url,
            api_key,
            headers,
            connect_timeout: seconds(settings.connect_timeout_seconds, CONNECT_TIMEOUT),
            read_timeout: seconds(settings.timeout_seconds, READ_TIMEOUT),
            max_attempts: settings.max_attempts.unwrap_or(MAX_ATTEMPTS),
            models,
        })
    }

    fn api(
        &mut self,
        path: &str,
        api: Option<Api>,
        built_in: Option<&BuiltIn>,
        used: bool,
    ) -> Option<ProviderApi> {
        match api {
            Some(Api::AnthropicMessages) => Some(ProviderApi::AnthropicMessages),
            Some(Api::OpenaiCompletions | Api::Ollama) => Some(ProviderApi::OpenAiCompletions),
            None => Some(built_in.map_or(ProviderApi::OpenAiCompletions, |one| one.api)),
            Some(_) => {
                let message =
                    "Reef does not speak this protocol; it speaks anthropic-messages and openai-completions";
                if used {
                    self.problems.add(format!("{path}.api"), message);
                } else {
                    self.warnings.push(format!("{path}.api: {message}; no agent uses the provider"));
                }
                None
            }
        }
    }

    fn base_url(
        &mut self,
        path: &str,
        from_file: Option<String>,
        api: Option<Api>,
        built_in: Option<&BuiltIn>,
        used: bool,
    ) -> Option<String> {
        let at = format!("{path}.baseUrl");
        if from_file.is_none() && self.is_unset(&at) {
            return None;
        }
        let from_env = || built_in.and_then(|one| self.variable(one.url_variable));
        let url = from_file.or_else(from_env).or_else(|| built_in.map(|one| one.base_url.to_owned()));
        let Some(url) = url else {
            if used {
                self.problems
                    .add(at, "is missing; write where the provider is, e.g. \"http://127.0.0.1:8000/v1\"");
            }
            return None;
        };
        let url = url.trim().trim_end_matches('/');
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        if !host
            .is_some_and(|host| host.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '['))
            || url.contains(char::is_whitespace)
        {
            let source = built_in.map(|one| format!(" (or {})", one.url_variable)).unwrap_or_default();
            self.problems.add(at, format!("must be an address that begins with http:// or https://{source}"));
            return None;
        }
        // Both are written in the field; our adapters put the rest of the path behind the form without and with `/v1`.
        let url = match api {
            Some(Api::Ollama) if !url.ends_with("/v1") => format!("{url}/v1"),
            Some(Api::AnthropicMessages) => url.trim_end_matches("/v1").to_owned(),
            None if built_in.is_some_and(|one| one.api == ProviderApi::AnthropicMessages) => {
                url.trim_end_matches("/v1").to_owned()
            }
            _ => url.to_owned(),
        };
        Some(url)
    }

    fn api_key(
        &mut self,
        path: &str,
        key: Option<ApiKey>,
        built_in: Option<&BuiltIn>,
        used_at: Option<&str>,
    ) -> Option<Secret> {
        let at = format!("{path}.apiKey");
        let key = match key {
            Some(ApiKey::Text(key)) => Some(key),
            Some(ApiKey::Reference(reference)) => {
                let value = self.variable(&reference.id);
                if value.is_none() {
                    self.unset.push((at.clone(), reference.id));
                }
                value
            }
            // A variable that the file names is meant: no other one takes its place.
            None if self.is_unset(&at) => None,
            None => built_in.and_then(|one| one.key_variable).and_then(|name| self.variable(name)),
        };
        let key = key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
        // What is wrong with it has been told, and it was set aside.
        let is_told = self.problems.all().iter().any(|problem| problem.path.starts_with(&at));
        if let Some(key) = &key {
            if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
                self.problems
                    .add(at, "holds characters that no key has: only visible ASCII without spaces is sent");
                return None;
            }
        } else if let (Some(used_at), Some(variable)) = (used_at, built_in.and_then(|one| one.key_variable))
            && self.needs_keys()
            && !self.is_unset(&at)
            && !is_told
        {
            self.problems.add(
                at,
                format!(
                    "is missing, and {used_at} needs it; set {variable} in the environment or this key in the file, \
                     or try Reef without a vendor by `--demo`"
                ),
            );
        }
        key.map(Secret::new)
    }

    fn headers(&mut self, path: &str, headers: BTreeMap<String, String>) -> BTreeMap<String, Secret> {
        let mut out = BTreeMap::new();
        for (name, value) in headers {
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let at = format!("{path}.headers.{name}");
            if name.is_empty() || !name.bytes().all(is_token) {
                self.problems.add(at, "is not a name that a header can have");
            } else if !value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
                self.problems.add(at, "holds characters that a header cannot carry");
            } else {
                out.insert(name, Secret::new(value));
            }
        }
        out
    }

    fn models(&mut self, path: &str, models: Vec<file::ProviderModel>) -> BTreeMap<String, ModelInfo> {
        let mut out = BTreeMap::new();
        for (index, model) in models.into_iter().enumerate() {
            let at = format!("{path}.models[{index}].id");
            let Some(id) = model.id.filter(|id| !id.is_empty()) else {
                self.problems.add(at, "is missing");
                continue;
            };
            let default = ModelInfo::default();
            let context_window = model.context_window.unwrap_or(default.context_window);
            let max_tokens = model.max_tokens.unwrap_or(default.max_tokens.min(context_window));
            if out.insert(id, ModelInfo { context_window, max_tokens }).is_some() {
                self.problems.add(at, "is given twice");
            }
        }
        out
    }
}

fn is_local(url: &str) -> bool {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    ["127.", "localhost", "[::1]"].iter().any(|local| host.starts_with(local))
}
