//! The schema of `openclaw.json`: made from the shape that is read, written down for editors, and, from there, as the
//! constants that a file is checked against. So a process that starts neither makes nor reads it.

use super::file::File;
use serde_json::{Value, json};

include!(concat!(env!("OUT_DIR"), "/schema.rs"));

/// What a value must be, as far as the check asks; made by the build script from the schema as it was last written down.
#[derive(Debug)]
pub(super) struct Schema {
    /// OpenClaw's own key, which Reef reads over.
    pub(super) is_read_over: bool,
    /// Its type; `None` for any, or if there are alternatives.
    pub(super) kind: Option<Kind>,
    /// The texts that are allowed; empty for all.
    pub(super) choices: &'static [&'static str],
    /// Alternatives; empty if the schema is the only one.
    pub(super) any_of: &'static [&'static Schema],
    /// The known keys of an object, by name.
    pub(super) properties: &'static [(&'static str, &'static Schema)],
    /// What stands under every other key; `None` if there may be none.
    pub(super) further: Option<&'static Schema>,
    /// Keys that may not be missing.
    pub(super) required: &'static [&'static str],
    /// What is in a list; `None` for anything.
    pub(super) items: Option<&'static Schema>,
    /// The smallest number.
    pub(super) minimum: Option<f64>,
    /// The largest number.
    pub(super) maximum: Option<f64>,
}

/// A type of JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An object.
    Object,
    /// An array.
    List,
    /// A string.
    Text,
    /// A boolean.
    Switch,
    /// Any number.
    Number,
    /// A number without a fraction.
    Whole,
}

impl Schema {
    /// Whatever it is.
    const ANY: Self = Self {
        is_read_over: false,
        kind: None,
        choices: &[],
        any_of: &[],
        properties: &[],
        further: None,
        required: &[],
        items: None,
        minimum: None,
        maximum: None,
    };

    /// Of the whole file.
    pub(super) const fn of_file() -> &'static Self {
        &ROOT
    }

    /// What stands under a known key.
    pub(super) fn property(&self, key: &str) -> Option<&'static Self> {
        self.properties.iter().find(|(name, _)| *name == key).map(|(_, schema)| *schema)
    }

    /// The schemas of which a value must fit one: itself, if it has no alternatives.
    pub(super) fn alternatives(&'static self) -> Vec<&'static Self> {
        if self.any_of.is_empty() {
            return vec![self];
        }
        self.any_of.iter().flat_map(|one| one.alternatives()).collect()
    }

    /// The types that a value may have.
    pub(super) fn kinds(&'static self) -> Vec<Kind> {
        self.alternatives().into_iter().filter_map(|one| one.kind).collect()
    }

    /// The alternative that fits the value's type.
    pub(super) fn branch(&'static self, value: &Value) -> Option<&'static Self> {
        self.alternatives().into_iter().find(|one| one.kind.is_none_or(|kind| kind.is_of(value)))
    }
}

impl Kind {
    /// Whether a value has the type.
    pub(super) fn is_of(self, value: &Value) -> bool {
        match self {
            Self::Object => value.is_object(),
            Self::List => value.is_array(),
            Self::Text => value.is_string(),
            Self::Switch => value.is_boolean(),
            Self::Number => value.is_number(),
            Self::Whole => value.is_i64() || value.is_u64(),
        }
    }
}

/// The JSON Schema of `openclaw.json`, made from the shape that is read. A test says when it is no longer what is written
/// down.
pub fn json_schema() -> Value {
    let mut schema = schemars::SchemaGenerator::default().into_root_schema_for::<File>().to_value();
    leave_out_null(&mut schema);
    schema
}

/// A key that may be left out may be null for the parser; in the schema that would only be noise.
fn leave_out_null(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.get("default").is_some_and(Value::is_null) {
                members.remove("default");
            }
            if let Some(Value::Array(types)) = members.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    members.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(several)) = members.get_mut("anyOf") {
                several.retain(|one| *one != json!({"type": "null"}));
                if let [Value::Object(only)] = several.as_slice() {
                    let only = only.clone();
                    members.remove("anyOf");
                    members.extend(only);
                }
            }
            members.values_mut().for_each(leave_out_null);
        }
        Value::Array(items) => items.iter_mut().for_each(leave_out_null),
        _ => {}
    }
}
