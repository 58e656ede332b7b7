//! Whom a request is for: which agent, on which session, over which model.

use super::Gateway;
use super::auth::Caller;
use super::error::ApiError;
use crate::agent::Agent;
use crate::bounds::{AGENT_ID_BYTES, CHANNEL_BYTES, MODEL_BYTES, SESSION_KEY_BYTES, USER_BYTES};
use crate::config::Config;
use crate::error::ErrorKind;
use crate::id::{AgentId, SessionKey};
use crate::model::ModelRef;
use crate::principal::Scope;
use crate::quote::quoted;
use axum::http::HeaderMap;

const SESSION_KEY: &str = "x-openclaw-session-key";
const MODEL: &str = "x-openclaw-model";
const CHANNEL: &str = "x-openclaw-message-channel";

/// Sessions that other parts of an installation keep for themselves, behind `agent:<id>:`.
const RESERVED: [&str; 3] = ["subagent:", "cron:", "acp:"];

/// Whom a request is for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    /// The agent.
    pub(super) agent: AgentId,
    /// Its session.
    pub(super) session: SessionKey,
    /// Other requests are meant to meet on this session.
    pub(super) sticky: bool,
    /// Instead of the agent's model.
    pub(super) model: Option<ModelRef>,
    /// Where the session is held.
    pub(super) channel: String,
}

/// Reads it from the request's `model` and `user` fields and its headers. `prefix` is the surface's word in the names
/// of sessions: `openai` or `openresponses`.
///
/// Sessions belong to the tenant: two callers of one tenant that name the same session or user meet on it.
///
/// # Errors
/// 400 for what cannot be read or is not there, 403 for an agent or a model that the caller may not use.
pub(super) fn choose(
    gateway: &Gateway,
    caller: &Caller,
    headers: &HeaderMap,
    model: Option<&str>,
    user: Option<&str>,
    prefix: &str,
) -> Result<Target, ApiError> {
    let app = &gateway.app;
    let agent = &agent(&app.config, caller, headers, model)?.id;
    let user = user.filter(|user| !user.is_empty());
    let (session, sticky) = if let Some(session) = session_key_of(headers, agent)? {
        (session, true)
    } else if let Some(user) = user {
        check_name(user, "user", USER_BYTES)?;
        (SessionKey::new(format!("agent:{agent}:{prefix}-user:{user}")), true)
    } else {
        let fresh = app.ids.ulid(app.clock.now());
        (SessionKey::new(format!("agent:{agent}:{prefix}:{fresh}")), false)
    };
    Ok(Target {
        agent: agent.clone(),
        session,
        sticky,
        model: backend(&app.config, caller, headers)?,
        channel: channel(headers)?,
    })
}

/// The session that a header names, if one does.
///
/// # Errors
/// As [`session_key`].
pub(super) fn session_key_of(headers: &HeaderMap, agent: &AgentId) -> Result<Option<SessionKey>, ApiError> {
    text(headers, SESSION_KEY)?.map(|key| session_key(agent, key, SESSION_KEY)).transpose()
}

/// The agent that the request's `model` field or header names; a header wins.
///
/// # Errors
/// 400 for a name that is none or that no agent has, 403 for an agent that the caller may not use.
pub(super) fn agent<'a>(
    config: &'a Config,
    caller: &Caller,
    headers: &HeaderMap,
    model: Option<&str>,
) -> Result<&'a Agent, ApiError> {
    let by_model = match model.map(str::trim).filter(|model| !model.is_empty()) {
        None => Named::Default,
        Some(model) => named(config, model).ok_or_else(|| {
            ApiError::invalid_at("model", "Invalid `model`. Use `openclaw` or `openclaw/<agentId>`.")
        })?,
    };
    let by_header = match text(headers, "x-openclaw-agent-id")? {
        Some(id) => Some(id),
        None => text(headers, "x-openclaw-agent")?,
    };
    let agent = match (by_header, by_model) {
        (Some(id), _) => known(config, id)?,
        (None, Named::Agent(id)) => known(config, id)?,
        (None, Named::Default) => config.default_agent(),
    };
    allowed(caller, agent)?;
    Ok(agent)
}

/// What a `model` names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named<'a> {
    /// No agent in particular.
    Default,
    /// The agent of this id, which may not exist.
    Agent(&'a str),
}

/// Reads `openclaw`, `openclaw/<id>`, `openclaw:<id>`, `agent:<id>`, or the bare id of an agent there is; `None` for
/// anything else.
pub(super) fn named<'a>(config: &Config, model: &'a str) -> Option<Named<'a>> {
    if model.eq_ignore_ascii_case("openclaw") || model.eq_ignore_ascii_case("openclaw/default") {
        return Some(Named::Default);
    }
    let prefixed = ["openclaw/", "openclaw:", "agent:"].iter().find_map(|prefix| {
        let head = model.get(..prefix.len())?;
        head.eq_ignore_ascii_case(prefix).then(|| &model[prefix.len()..])
    });
    match prefixed {
        Some(id) => is_agent_id(id).then_some(Named::Agent(id)),
        None => known(config, model).ok().map(|_| Named::Agent(model)),
    }
}

/// The agent with this id, in any case of letters.
///
/// # Errors
/// 400 when there is none.
pub(super) fn known<'a>(config: &'a Config, id: &str) -> Result<&'a Agent, ApiError> {
    let found = config.agents.iter().find(|agent| agent.id.as_str().eq_ignore_ascii_case(id));
    found.ok_or_else(|| ApiError::invalid_at("model", format!("Unknown agent '{}'.", quoted(id))))
}

/// Goes on only if the caller's token may use the agent.
///
/// # Errors
/// 403.
pub(super) fn allowed(caller: &Caller, agent: &Agent) -> Result<(), ApiError> {
    if caller.may_use(&agent.id) {
        return Ok(());
    }
    let message = format!("this token may not use the agent '{}'", agent.id);
    Err(ApiError::new(ErrorKind::Forbidden, message))
}

/// `[a-z0-9][a-z0-9_-]{0,63}` in any case.
fn is_agent_id(text: &str) -> bool {
    (1..=AGENT_ID_BYTES).contains(&text.len())
        && text.as_bytes()[0].is_ascii_alphanumeric()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// A session of `agent` that a caller names: in full (`agent:<id>:…`) or by its last part.
///
/// # Errors
/// 400: too long, unreadable, another agent's, or in a reserved namespace.
pub(super) fn session_key(agent: &AgentId, key: &str, param: &str) -> Result<SessionKey, ApiError> {
    check_name(key, param, SESSION_KEY_BYTES)?;
    let mut rest = key;
    if let Some(in_full) = strip_word(key, "agent:") {
        let other = || {
            let message = format!("`{param}` names a session of another agent than '{agent}'.");
            ApiError::invalid_at(param, message)
        };
        let (owner, name) = in_full.split_once(':').ok_or_else(other)?;
        if !owner.eq_ignore_ascii_case(agent.as_str()) || name.is_empty() {
            return Err(other());
        }
        rest = name;
    }
    if RESERVED.iter().any(|reserved| strip_word(rest.trim_start(), reserved).is_some()) {
        let message = format!("`{param}` cannot use reserved internal session namespaces.");
        return Err(ApiError::invalid_at(param, message));
    }
    Ok(SessionKey::new(format!("agent:{agent}:{rest}")))
}

fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let head = text.get(..word.len())?;
    head.eq_ignore_ascii_case(word).then(|| &text[word.len()..])
}

/// A name that can be part of a key and of a log line.
fn check_name(text: &str, param: &str, longest: usize) -> Result<(), ApiError> {
    if text.is_empty() || text.len() > longest || text.chars().any(char::is_control) {
        let message = format!("`{param}` must be 1 to {longest} bytes without control characters.");
        return Err(ApiError::invalid_at(param, message));
    }
    Ok(())
}

fn backend(config: &Config, caller: &Caller, headers: &HeaderMap) -> Result<Option<ModelRef>, ApiError> {
    text(headers, MODEL)?.map(|name| other_model(config, caller, name)).transpose()
}

/// Another model than the agent's, for callers with the scope `admin`.
///
/// # Errors
/// 403 without the scope, 404 for a model that is not known or whose name is longer than [`MODEL_BYTES`].
pub(super) fn other_model(config: &Config, caller: &Caller, name: &str) -> Result<ModelRef, ApiError> {
    caller.needs(Scope::Admin)?;
    match name.parse::<ModelRef>() {
        Ok(model) if name.len() <= MODEL_BYTES && is_known(config, &model) => Ok(model),
        _ => {
            let error = ApiError::not_found(format!("Unknown model: {}", quoted(name)));
            Err(error.with_type("invalid_request_error"))
        }
    }
}

/// A model that an agent uses or that its provider lists; any, of a provider that lists none.
fn is_known(config: &Config, model: &ModelRef) -> bool {
    let used = config.agents.iter().any(|agent| agent.model == *model || agent.fallbacks.contains(model));
    let listed =
        |models: &std::collections::BTreeMap<_, _>| models.is_empty() || models.contains_key(&model.model);
    used || config.providers.get(&model.provider).is_some_and(|provider| listed(&provider.models))
}

fn channel(headers: &HeaderMap) -> Result<String, ApiError> {
    text(headers, CHANNEL)?.map_or(Ok("webchat".to_owned()), |name| channel_named(name, CHANNEL))
}

/// A channel that a caller names.
///
/// # Errors
/// 400.
pub(super) fn channel_named(name: &str, param: &str) -> Result<String, ApiError> {
    let plain = |text: &str| {
        (1..=CHANNEL_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte))
    };
    if plain(name) {
        return Ok(name.to_ascii_lowercase());
    }
    let message = format!("`{param}` must be 1 to 64 letters, digits, `_`, `-`, `.` or `:`.");
    Err(ApiError::invalid_at(param, message))
}

/// A header's text without blanks at its ends; `None` if it is absent or empty.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, ApiError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes())
        .map_err(|_| ApiError::invalid_at(name, format!("`{name}` is not valid UTF-8.")))?;
    Ok(Some(text.trim()).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Result<String, String> {
        let agent = AgentId::new("main");
        let key = session_key(&agent, text, "k").map(|key| key.to_string());
        key.map_err(|error| error.to_value()["message"].as_str().unwrap_or_default().to_owned())
    }

    #[test]
    fn a_session_is_named_in_full_or_by_its_last_part() {
        assert_eq!(key("agent:main:orders"), Ok("agent:main:orders".to_owned()));
        assert_eq!(key("orders"), Ok("agent:main:orders".to_owned()));
        assert_eq!(key("Agent:MAIN:orders:7"), Ok("agent:main:orders:7".to_owned()));
    }

    #[test]
    fn a_session_of_another_agent_or_of_a_reserved_namespace_is_refused() {
        let reserved = Err("`k` cannot use reserved internal session namespaces.".to_owned());
        for name in ["subagent:x", "cron:x", "acp:", "agent:main:subagent:x", "AGENT:main:Cron:x"] {
            assert_eq!(key(name), reserved, "{name}");
        }
        let other = Err("`k` names a session of another agent than 'main'.".to_owned());
        for name in ["agent:other:main", "agent:main", "agent:main:", "agent:"] {
            assert_eq!(key(name), other, "{name}");
        }
        assert_eq!(key("a\u{0}b"), Err("`k` must be 1 to 512 bytes without control characters.".to_owned()));
    }
}
