//! Checks a file against its schema: every wrong type, unknown key, impossible value and unset variable at once.
//!
//! What is wrong is noted and set aside, so that the
//! rest can still be read and checked for its meaning.

use super::Env;
use super::problems::Problems;
use super::providers::UNSPOKEN;
use super::schema::{Kind, Schema};
use crate::bounds::QUOTED_CHARS;
use serde_json::{Map, Value};
use std::net::IpAddr;

/// What a check found.
pub(super) struct Checked {
    /// The file without what was wrong or read over, variables filled in. Always an object.
    pub value: Value,
    /// Keys of OpenClaw that Reef does not implement, by path.
    pub read_over: Vec<String>,
    /// Texts that name an environment variable that is not set: path and name. They were set aside.
    pub unset: Vec<(String, String)>,
    /// What is wrong.
    pub problems: Problems,
}

/// Checks `value` against `schema`.
pub(super) fn check(schema: &'static Schema, value: Value, env: Env<'_>) -> Checked {
    let mut checker =
        Checker { env, read_over: Vec::new(), unset: Vec::new(), problems: Problems::default() };
    let value = match value {
        Value::Object(_) => checker.value(schema, value, ""),
        other => {
            checker.problems.add("", format!("the file must hold an object, not {}", describe(&other, "")));
            None
        }
    };
    let value = value.unwrap_or_else(|| Value::Object(Map::new()));
    Checked { value, read_over: checker.read_over, unset: checker.unset, problems: checker.problems }
}

struct Checker<'a> {
    env: Env<'a>,
    read_over: Vec<String>,
    unset: Vec<(String, String)>,
    problems: Problems,
}

impl Checker<'_> {
    /// The value as it may be read, or `None` to set it aside.
    fn value(&mut self, schema: &'static Schema, value: Value, path: &str) -> Option<Value> {
        let value = match value {
            Value::Null => return None,
            Value::String(text) => self.text(schema, &text, path)?,
            other => other,
        };
        let Some(branch) = schema.branch(&value) else {
            let wanted = wanted(schema);
            self.problems.add(path, format!("must be {wanted}, not {}", describe(&value, path)));
            return None;
        };
        match value {
            Value::Object(members) => self.object(branch, members, path),
            Value::Array(items) => Some(self.array(branch, items, path)),
            Value::String(_) => self.choice(branch, value, path),
            Value::Number(_) => self.range(branch, value, path),
            other => Some(other),
        }
    }

    /// The object as it may be read. One that lacks what it must have cannot be read at all, and is set aside whole: what
    /// is wrong with it has been told by then.
    fn object(&mut self, schema: &'static Schema, members: Map<String, Value>, path: &str) -> Option<Value> {
        let mut kept = Map::new();
        let given: Vec<&str> =
            schema.required.iter().copied().filter(|key| members.contains_key(*key)).collect();
        for (key, member) in members {
            let path = join(path, &key);
            match schema.property(&key).or(schema.further) {
                Some(schema) if schema.is_read_over => self.read_over.push(path),
                Some(schema) => {
                    if let Some(member) = self.value(schema, member, &path) {
                        kept.insert(key, member);
                    }
                }
                None => self.unknown_key(&key, schema, &path),
            }
        }
        let mut is_whole = true;
        for key in schema.required.iter().filter(|key| !kept.contains_key(**key)) {
            is_whole = false;
            if !given.contains(key) {
                self.problems.add(join(path, key), "is missing");
            }
        }
        is_whole.then_some(Value::Object(kept))
    }

    fn unknown_key(&mut self, key: &str, schema: &'static Schema, path: &str) {
        let message = if key == "$include" {
            "is not supported; put everything into one file".to_owned()
        } else {
            match closest(key, schema.properties.iter().map(|(name, _)| *name)) {
                Some(name) => format!("unknown key; did you mean `{name}`?"),
                None => {
                    let own = schema.properties.iter().filter(|(_, schema)| !schema.is_read_over);
                    let names: Vec<&str> = own.map(|(name, _)| *name).collect();
                    format!("unknown key; known are {}", names.join(", "))
                }
            }
        };
        self.problems.add(path, message);
    }

    fn array(&mut self, schema: &'static Schema, items: Vec<Value>, path: &str) -> Value {
        let Some(item_schema) = schema.items else { return Value::Array(items) };
        let mut kept = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            let was_null = item.is_null();
            match self.value(item_schema, item, &path) {
                Some(item) => kept.push(item),
                None => {
                    if was_null {
                        let wanted = wanted(item_schema);
                        self.problems.add(path, format!("must be {wanted}, not null"));
                    }
                    // An empty one in its place, so that those behind it keep their positions.
                    kept.push(match item_schema.kind {
                        Some(Kind::Object) => Value::Object(Map::new()),
                        _ => Value::String(String::new()),
                    });
                }
            }
        }
        Value::Array(kept)
    }

    fn choice(&mut self, schema: &'static Schema, value: Value, path: &str) -> Option<Value> {
        let choices = schema.choices;
        let text = value.as_str().unwrap_or_default();
        if choices.is_empty() || choices.contains(&text) {
            return Some(value);
        }
        // A file of OpenClaw's may hold what Reef does not speak; nobody is advised to write it.
        let choices: Vec<&str> =
            choices.iter().copied().filter(|choice| !UNSPOKEN.contains(choice)).collect();
        let known = choices.join(", ");
        let mut begun = choices.iter().copied().filter(|choice| choice.starts_with(text) && !text.is_empty());
        let only = begun.next().filter(|_| begun.next().is_none());
        let hint = match (text, only.or_else(|| closest(text, choices.iter().copied()))) {
            ("tailnet", _) => "; use `custom` with `customBindHost`".to_owned(),
            (address, _) if address.parse::<IpAddr>().is_ok() => {
                format!("; use `custom` with `customBindHost: {address:?}`")
            }
            (_, Some(name)) => format!("; did you mean `{name}`?"),
            (_, None) => String::new(),
        };
        self.problems.add(path, format!("must be one of {known}, not {}{hint}", describe(&value, path)));
        None
    }

    fn range(&mut self, schema: &'static Schema, value: Value, path: &str) -> Option<Value> {
        let number = value.as_f64()?;
        let (least, most) = (schema.minimum, schema.maximum);
        if least.is_none_or(|least| least <= number) && most.is_none_or(|most| number <= most) {
            return Some(value);
        }
        let bounds = match (least, most) {
            (Some(least), Some(most)) => format!("from {least} to {most}"),
            (Some(bound), None) => format!("at least {bound}"),
            (None, bound) => format!("at most {}", bound.unwrap_or(number)),
        };
        self.problems.add(path, format!("must be {bounds}, not {value}"));
        None
    }

    /// Fills in `${NAME}`; `$${NAME}` stands for `${NAME}` itself. A text made of a variable may be a number.
    fn text(&mut self, schema: &'static Schema, text: &str, path: &str) -> Option<Value> {
        if !text.contains("${") {
            return Some(Value::String(text.to_owned()));
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut missing = false;
        while let Some(start) = rest.find("${") {
            let (before, from) = rest.split_at(start);
            let Some(end) = from.find('}') else { break };
            let name = &from[2..end];
            rest = &from[end + 1..];
            if let Some(before) = before.strip_suffix('$') {
                out.push_str(before);
                out.push_str(&from[..=end]);
                continue;
            }
            out.push_str(before);
            match (self.env)(name) {
                Some(value) => out.push_str(value.trim()),
                None => {
                    missing = true;
                    self.unset.push((path.to_owned(), name.to_owned()));
                }
            }
        }
        out.push_str(rest);
        if missing {
            return None;
        }
        let kinds = schema.kinds();
        let is_number = kinds.iter().any(|kind| matches!(kind, Kind::Whole | Kind::Number));
        if is_number
            && !kinds.contains(&Kind::Text)
            && let Ok(number) = serde_json::from_str::<serde_json::Number>(&out)
        {
            return Some(Value::Number(number));
        }
        Some(Value::String(out))
    }
}

/// What a value should have been, for a person.
fn wanted(schema: &'static Schema) -> String {
    if !schema.choices.is_empty() {
        return format!("one of {}", schema.choices.join(", "));
    }
    let mut words: Vec<&str> = schema.kinds().into_iter().map(a_word).collect();
    words.dedup();
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => "something else".to_owned(),
    }
}

const fn a_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Object => "an object",
        Kind::List => "a list",
        Kind::Text => "a text",
        Kind::Switch => "true or false",
        Kind::Number => "a number",
        Kind::Whole => "a whole number",
    }
}

/// A value for a person: never a secret, never more than a line.
fn describe(value: &Value, path: &str) -> String {
    let secret = [".apiKey", ".headers"].iter().any(|part| path.contains(part));
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) if secret => "what it is".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) if text.chars().count() <= 60 => format!("{text:?}"),
        Value::String(_) => "this text".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The known name that a typo most likely meant, if one is close. None is close to what cannot even be quoted.
pub(super) fn closest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    if name.len() > QUOTED_CHARS {
        return None;
    }
    let lower = name.to_lowercase();
    let scored =
        known.map(|known| (strsim::normalized_damerau_levenshtein(&lower, &known.to_lowercase()), known));
    let best = scored.max_by(|one, other| one.0.total_cmp(&other.0))?;
    (best.0 >= 0.6).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn checked(value: Value) -> Checked {
        let env = |name: &str| (name == "PORT").then(|| "8080".to_owned());
        check(Schema::of_file(), value, &env)
    }

    fn problems(value: Value) -> Vec<String> {
        checked(value).problems.all().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_wrong_type_range_and_key_is_named_at_once() {
        let value = json!({
            "gatway": {},
            "gateway": {"port": 70000, "bind": "everywhere", "http": [], "trustedProxies": ["10.0.0.0/8", 7], "tls": {}},
            "agents": [{"id": 3, "model": 4, "limits": {"steps": -1, "seconds": "long"}}, "x", null],
            "turns": {"leaseSeconds": 0, "windowMessages": 5.5},
            "models": {"providers": {"x": {"apiKey": 99, "api": "anthropic"}}},
        });
        assert_eq!(
            problems(value),
            [
                "agents[0].id: must be a text, not 3",
                "agents[0].limits.seconds: must be a number, not \"long\"",
                "agents[0].limits.steps: must be from 1 to 10000, not -1",
                "agents[0].model: must be a text or an object, not 4",
                "agents[1]: must be an object, not \"x\"",
                "agents[2]: must be an object, not null",
                "gateway.bind: must be one of all, lan, loopback, auto, custom, not \"everywhere\"",
                "gateway.http: must be an object, not a list",
                "gateway.port: must be from 0 to 65535, not 70000",
                "gateway.tls: must be one of none, inFront, not an object",
                "gateway.trustedProxies[1]: must be a text, not 7",
                "gatway: unknown key; did you mean `gateway`?",
                "models.providers.x.api: must be one of anthropic-messages, openai-completions, ollama, not \
                 \"anthropic\"; did you mean `anthropic-messages`?",
                "models.providers.x.apiKey: must be a text or an object, not what it is",
                "turns.leaseSeconds: must be from 0.05 to 86400, not 0",
                "turns.windowMessages: must be a whole number, not 5.5",
            ]
        );
    }

    #[test]
    fn variables_are_filled_in_and_an_unset_one_is_noted() {
        let checked = checked(json!({
            "gateway": {"port": "${PORT}", "customBindHost": "a${PORT}b$${PORT}", "bind": "${NOTHING}"},
        }));
        assert_eq!(checked.value, json!({"gateway": {"port": 8080, "customBindHost": "a8080b${PORT}"}}));
        assert_eq!(checked.unset, [("gateway.bind".to_owned(), "NOTHING".to_owned())]);
        assert!(checked.problems.is_empty());
    }

    #[test]
    fn keys_of_openclaw_are_set_aside_and_named() {
        let checked =
            checked(json!({"cron": {"enabled": true}, "gateway": {"auth": {"token": "x"}, "port": 1}}));
        assert_eq!(checked.value, json!({"gateway": {"port": 1}}));
        assert_eq!(checked.read_over, ["cron", "gateway.auth"]);
        assert!(checked.problems.is_empty());
    }
}
