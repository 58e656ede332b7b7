//! `current_time`: the time in the agent's time zone, beside UTC.

use super::{arguments, spec};
use crate::quote::quoted;
use crate::tool::{Effect, Tool, ToolContext, ToolError, ToolOutput, ToolSpec};
use async_trait::async_trait;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) const NAME: &str = "current_time";

pub(super) struct CurrentTime(ToolSpec);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    time_zone: Option<String>,
}

impl CurrentTime {
    pub(super) fn new() -> Self {
        Self(spec(
            NAME,
            "The present date and time in your time zone, with the day of the week, and in UTC.",
            json!({
                "type": "object",
                "properties": {
                    "time_zone": {
                        "type": "string",
                        "description": "Another time zone instead of yours, by its IANA name, e.g. America/New_York."
                    }
                },
                "additionalProperties": false
            }),
            Effect::None,
        ))
    }
}

#[async_trait]
impl Tool for CurrentTime {
    fn spec(&self) -> &ToolSpec {
        &self.0
    }

    async fn call(&self, context: &ToolContext, given: &Value) -> Result<ToolOutput, ToolError> {
        let Arguments { time_zone } = arguments(given)?;
        let name = time_zone.as_deref().unwrap_or(&context.time_zone);
        let zone = TimeZone::get(name).map_err(|_| {
            ToolError::Arguments(format!(
                "`time_zone`: `{}` is no IANA time zone, such as Asia/Tokyo",
                quoted(name)
            ))
        })?;
        let now = jiff::Timestamp::from_millisecond(context.now.as_millis()).map_err(|error| {
            ToolError::Failed { message: "there is no time".to_owned(), source: error.into() }
        })?;
        let there = now.to_zoned(zone);
        let local = there.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        let utc = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let day = there.strftime("%A").to_string();
        Ok(ToolOutput {
            content: format!("{local} ({name}, {day})\n{utc} (UTC)"),
            details: Some(json!({ "local": local, "utc": utc, "timeZone": name, "weekday": day })),
        })
    }
}
