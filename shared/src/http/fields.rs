//! Fields that more than one surface has, and what each may be.

use super::error::ApiError;
use crate::bounds::{ANSWER_CALLS, MESSAGE_PARTS, REQUEST_MESSAGES, REQUEST_TOOLS, TOOL_NAME_BYTES};
use crate::model::ToolChoice;
use crate::tool::{Effect, ToolSpec};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// A field of the request is wrong.
pub(super) fn wrong(param: &str, rule: &str) -> ApiError {
    ApiError::invalid_at(param, format!("`{param}` {rule}."))
}

/// Checks how many entries the list of messages or items has.
///
/// # Errors
/// 400, naming `param`: too many.
pub(super) fn entries(count: usize, param: &str) -> Result<(), ApiError> {
    within(count, REQUEST_MESSAGES, param)
}

/// Checks how many parts a message has.
///
/// # Errors
/// 400, naming `param`: too many.
pub(super) fn parts(count: usize, param: &str) -> Result<(), ApiError> {
    within(count, MESSAGE_PARTS, param)
}

/// Checks how many calls a message of the assistant has.
///
/// # Errors
/// 400, naming `param`: too many.
pub(super) fn calls(count: usize, param: &str) -> Result<(), ApiError> {
    within(count, ANSWER_CALLS, param)
}

fn within(count: usize, most: usize, param: &str) -> Result<(), ApiError> {
    if count > most {
        return Err(wrong(param, &format!("has {count} entries; at most {most} are taken")));
    }
    Ok(())
}

/// A number within bounds; `None` if absent or null.
pub(super) fn number(
    value: Option<&Value>,
    param: &str,
    least: f64,
    most: f64,
) -> Result<Option<f64>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    match value.as_f64() {
        Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
        _ => Err(wrong(param, &format!("must be between {least} and {most}"))),
    }
}

/// A count of tokens; one beyond what any model can write is cut to the largest that fits.
pub(super) fn tokens(value: Option<&Value>, param: &str) -> Result<Option<u32>, ApiError> {
    /// The largest whole number that JavaScript holds exactly.
    const SAFE: u64 = (1 << 53) - 1;
    let Some(value) = value else { return Ok(None) };
    match whole(value).and_then(|number| u64::try_from(number).ok()) {
        Some(number @ 1..=SAFE) => Ok(Some(u32::try_from(number).unwrap_or(u32::MAX))),
        _ => Err(wrong(param, "must be a positive integer")),
    }
}

/// A whole number; JSON has no integers, so `7.0` is one.
pub(super) fn whole(value: &Value) -> Option<i64> {
    let from_float = || {
        let number = value.as_f64()?;
        // 2^53: beyond, a float does not say which whole number was meant.
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and within 2^53")]
        (number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0).then_some(number as i64)
    };
    value.as_i64().or_else(from_float)
}

/// A function that the client runs itself.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(expecting = "an object")]
pub(super) struct Function {
    name: String,
    description: Option<String>,
    #[schema(value_type = Option<Object>)]
    parameters: Option<Value>,
    strict: Option<bool>,
}

/// The tools of one request, each checked as it is added.
pub(super) struct Tools {
    names: BTreeSet<String>,
    specs: Vec<ToolSpec>,
}

impl Tools {
    /// Room for `count` tools.
    ///
    /// # Errors
    /// 400: too many.
    pub(super) fn of(count: usize) -> Result<Self, ApiError> {
        if count > REQUEST_TOOLS {
            return Err(wrong("tools", &format!("must have at most {REQUEST_TOOLS} entries")));
        }
        Ok(Self { names: BTreeSet::new(), specs: Vec::with_capacity(count) })
    }

    /// Adds the function that stands at `at`.
    ///
    /// # Errors
    /// 400: a bad or repeated name, parameters that are no object.
    pub(super) fn add(&mut self, function: Function, at: &str) -> Result<(), ApiError> {
        if !is_tool_name(&function.name) {
            return Err(wrong(&format!("{at}.name"), "must be 1 to 64 letters, digits, `_` or `-`"));
        }
        if !self.names.insert(function.name.clone()) {
            return Err(wrong(&format!("{at}.name"), "is the name of another tool, too"));
        }
        let parameters = function.parameters.unwrap_or_else(|| json!({"type": "object", "properties": {}}));
        if !parameters.is_object() {
            return Err(wrong(&format!("{at}.parameters"), "must be a JSON Schema object"));
        }
        self.specs.push(ToolSpec {
            name: function.name,
            description: function.description.unwrap_or_default(),
            parameters,
            strict: function.strict,
            effect: Effect::Once,
        });
        Ok(())
    }

    /// All that were added.
    pub(super) fn checked(self) -> Vec<ToolSpec> {
        self.specs
    }
}

fn is_tool_name(name: &str) -> bool {
    (1..=TOOL_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Reads `tool_choice`; `chosen` finds the name in an object of type `function`, where the surfaces differ.
///
/// # Errors
/// 400: an unknown form, or a choice among tools that are not there.
pub(super) fn tool_choice(
    value: Option<&Value>,
    tools: &[ToolSpec],
    chosen: fn(&Map<String, Value>) -> Option<&str>,
) -> Result<ToolChoice, ApiError> {
    let choice = match value {
        None => return Ok(ToolChoice::Auto),
        Some(Value::String(word)) if word == "auto" => return Ok(ToolChoice::Auto),
        Some(Value::String(word)) if word == "none" => return Ok(ToolChoice::None),
        Some(Value::String(word)) if word == "required" => ToolChoice::Required,
        Some(Value::Object(object)) if object.get("type").is_some_and(|kind| kind == "function") => {
            let known = chosen(object).filter(|name| tools.iter().any(|tool| tool.name == *name));
            let name = known.ok_or_else(|| wrong("tool_choice", "must name one of `tools`"))?;
            ToolChoice::Tool(name.to_owned())
        }
        Some(_) => {
            return Err(wrong("tool_choice", "must be `auto`, `none`, `required` or name a function"));
        }
    };
    if tools.is_empty() {
        return Err(wrong("tool_choice", "needs `tools` to choose from"));
    }
    Ok(choice)
}
