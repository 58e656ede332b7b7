//! Checks a file against its schema: every wrong type, unknown key, impossible value and unset variable at once.
//!
//! Knows exactly the words of JSON Schema that our own types produce. What is wrong is noted and set aside, so that the
//! rest can still be read and checked for its meaning.

use super::Env;
use super::openclaw::READ_OVER;
use super::problems::Problems;
use serde_json::{Map, Value};

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
pub(super) fn check(schema: &Value, value: Value, env: Env<'_>) -> Checked {
    let mut checker = Checker {
        root: schema,
        env,
        read_over: Vec::new(),
        unset: Vec::new(),
        problems: Problems::default(),
    };
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
    root: &'a Value,
    env: Env<'a>,
    read_over: Vec<String>,
    unset: Vec<(String, String)>,
    problems: Problems,
}

impl<'a> Checker<'a> {
    /// The value as it may be read, or `None` to set it aside.
    fn value(&mut self, schema: &'a Value, value: Value, path: &str) -> Option<Value> {
        let value = match value {
            Value::Null => return None,
            Value::String(text) => self.text(schema, &text, path)?,
            other => other,
        };
        let Some(branch) = self.branch(schema, &value) else {
            let wanted = self.wanted(schema);
            self.problems.add(path, format!("must be {wanted}, not {}", describe(&value, path)));
            return None;
        };
        match value {
            Value::Object(members) => Some(self.object(branch, members, path)),
            Value::Array(items) => Some(self.array(branch, items, path)),
            Value::String(_) => self.choice(branch, value, path),
            Value::Number(_) => self.range(branch, value, path),
            other => Some(other),
        }
    }

    fn object(&mut self, schema: &'a Value, members: Map<String, Value>, path: &str) -> Value {
        let known = schema.get("properties").and_then(Value::as_object);
        let further = schema.get("additionalProperties").filter(|further| further.is_object());
        let mut kept = Map::new();
        for (key, member) in members {
            let path = join(path, &key);
            let member_schema = known.and_then(|known| known.get(&key)).or(further);
            match member_schema {
                Some(schema) if schema.get(READ_OVER).is_some() => self.read_over.push(path),
                Some(schema) => {
                    if let Some(member) = self.value(schema, member, &path) {
                        kept.insert(key, member);
                    }
                }
                None => self.unknown_key(&key, known, &path),
            }
        }
        for required in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
            if let Some(key) = required.as_str().filter(|key| !kept.contains_key(*key)) {
                let path = join(path, key);
                if !self.unset.iter().any(|(unset, _)| *unset == path) {
                    self.problems.add(path, "is missing");
                }
            }
        }
        Value::Object(kept)
    }

    fn unknown_key(&mut self, key: &str, known: Option<&'a Map<String, Value>>, path: &str) {
        let message = if key == "$include" {
            "is not supported; put everything into one file".to_owned()
        } else {
            match closest(key, known.into_iter().flatten().map(|(name, _)| name.as_str())) {
                Some(name) => format!("unknown key; did you mean `{name}`?"),
                None => {
                    let own =
                        known.into_iter().flatten().filter(|(_, schema)| schema.get(READ_OVER).is_none());
                    let names: Vec<&str> = own.map(|(name, _)| name.as_str()).collect();
                    format!("unknown key; known are {}", names.join(", "))
                }
            }
        };
        self.problems.add(path, message);
    }

    fn array(&mut self, schema: &'a Value, items: Vec<Value>, path: &str) -> Value {
        let Some(item_schema) = schema.get("items") else { return Value::Array(items) };
        let item_schema = self.resolve(item_schema);
        let mut kept = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            let was_null = item.is_null();
            match self.value(item_schema, item, &path) {
                Some(item) => kept.push(item),
                None => {
                    if was_null {
                        let wanted = self.wanted(item_schema);
                        self.problems.add(path, format!("must be {wanted}, not null"));
                    }
                    // An empty one in its place, so that those behind it keep their positions.
                    kept.push(match item_schema.get("type").and_then(Value::as_str) {
                        Some("object") => Value::Object(Map::new()),
                        _ => Value::String(String::new()),
                    });
                }
            }
        }
        Value::Array(kept)
    }

    fn choice(&mut self, schema: &'a Value, value: Value, path: &str) -> Option<Value> {
        let choices = choices(schema);
        let text = value.as_str().unwrap_or_default();
        if choices.is_empty() || choices.contains(&text) {
            return Some(value);
        }
        let known = choices.join(", ");
        let hint = match (text, closest(text, choices.iter().copied())) {
            ("tailnet", _) => "; use `custom` with `customBindHost`".to_owned(),
            (_, Some(name)) => format!("; did you mean `{name}`?"),
            (_, None) => String::new(),
        };
        self.problems.add(path, format!("must be one of {known}, not {}{hint}", describe(&value, path)));
        None
    }

    fn range(&mut self, schema: &'a Value, value: Value, path: &str) -> Option<Value> {
        let number = value.as_f64()?;
        let least = schema.get("minimum").filter(|least| least.as_f64().is_some_and(|least| number < least));
        let most = schema.get("maximum").filter(|most| most.as_f64().is_some_and(|most| number > most));
        if least.is_none() && most.is_none() {
            return Some(value);
        }
        let message = match (schema.get("minimum"), schema.get("maximum")) {
            (Some(least), Some(most)) => format!("must be from {least} to {most}, not {value}"),
            (Some(least), None) => format!("must be at least {least}, not {value}"),
            (_, most) => format!("must be at most {}, not {value}", most.unwrap_or(&Value::Null)),
        };
        self.problems.add(path, message);
        None
    }

    /// Fills in `${NAME}`; `$${NAME}` stands for `${NAME}` itself. A text made of a variable may be a number.
    fn text(&mut self, schema: &'a Value, text: &str, path: &str) -> Option<Value> {
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
        let types = self.types(schema);
        let is_number = types.iter().any(|name| matches!(*name, "integer" | "number"));
        if is_number
            && !types.contains(&"string")
            && let Ok(number) = serde_json::from_str::<serde_json::Number>(&out)
        {
            return Some(Value::Number(number));
        }
        Some(Value::String(out))
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let target = schema.get("$ref").and_then(Value::as_str).and_then(|target| target.strip_prefix('#'));
        match target.and_then(|target| self.root.pointer(target)) {
            Some(target) => self.resolve(target),
            None => schema,
        }
    }

    /// The alternatives of a schema: itself, if it has none. A list of constants counts as one.
    fn alternatives(&self, schema: &'a Value) -> Vec<&'a Value> {
        let schema = self.resolve(schema);
        let several = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array);
        match several {
            Some(several) if choices(schema).is_empty() => {
                several.iter().flat_map(|one| self.alternatives(one)).collect()
            }
            _ => vec![schema],
        }
    }

    fn types(&self, schema: &'a Value) -> Vec<&'a str> {
        let mut names = Vec::new();
        for one in self.alternatives(schema) {
            let found = match one.get("type") {
                Some(Value::String(name)) => vec![name.as_str()],
                Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
                _ if !choices(one).is_empty() => vec!["string"],
                _ => Vec::new(),
            };
            names.extend(found.into_iter().filter(|name| *name != "null"));
        }
        names
    }

    /// The alternative that fits the value's type.
    fn branch(&self, schema: &'a Value, value: &Value) -> Option<&'a Value> {
        self.alternatives(schema).into_iter().find(|one| {
            let types = self.types(one);
            types.is_empty() && one.get("type").is_none() || types.iter().any(|name| is_a(value, name))
        })
    }

    fn wanted(&self, schema: &'a Value) -> String {
        if let [one] = self.alternatives(schema).as_slice() {
            let choices = choices(one);
            if !choices.is_empty() {
                return format!("one of {}", choices.join(", "));
            }
        }
        let mut words: Vec<&str> = self.types(schema).into_iter().map(a_word).collect();
        words.dedup();
        match words.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
            None => "something else".to_owned(),
        }
    }
}

fn is_a(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => false,
    }
}

fn a_word(name: &str) -> &str {
    match name {
        "object" => "an object",
        "array" => "a list",
        "string" => "a text",
        "boolean" => "true or false",
        "number" => "a number",
        "integer" => "a whole number",
        other => other,
    }
}

/// The texts that a schema of constants allows.
fn choices(schema: &Value) -> Vec<&str> {
    let list = |key: &str| schema.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut found: Vec<&str> = list("enum").iter().filter_map(Value::as_str).collect();
    found.extend(schema.get("const").and_then(Value::as_str));
    for one in list("oneOf") {
        let nested = choices(one);
        if nested.is_empty() {
            return Vec::new();
        }
        found.extend(nested);
    }
    found
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

/// The known name that a typo most likely meant, if one is close.
pub(super) fn closest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
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
        check(&super::super::schema(), value, &env)
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
                "models.providers.x.api: must be one of anthropic-messages, openai-completions, ollama, \
                 openai-responses, google-generative-ai, bedrock-converse-stream, azure-openai-responses, not \
                 \"anthropic\"",
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
