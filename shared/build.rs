//! Makes what `config::check` reads of the settings' schema: `openclaw.schema.json` as constants, so that a process has it
//! without reading it when it starts.
//!
//! Only words that the check knows may be in the schema; any other ends the build.

use serde_json::{Map, Value};
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

const WRITTEN: &str = "openclaw.schema.json";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={WRITTEN}");
    println!("cargo::rerun-if-changed=build.rs");
    let root: Map<String, Value> = serde_json::from_slice(&std::fs::read(WRITTEN)?)?;
    let mut code = format!("static ROOT: Schema = {};\n", constant(&root)?);
    for (name, definition) in definitions(&root) {
        let definition = definition.as_object().ok_or_else(|| format!("{name} is no object"))?;
        writeln!(code, "static {}: Schema = {};", static_name(name), constant(definition)?)?;
    }
    let to = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&to).join("schema.rs"), code)?;
    Ok(())
}

fn definitions(root: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    root.get("$defs").and_then(Value::as_object).into_iter().flatten()
}

/// `SecretReference` as `DEF_SECRETREFERENCE`.
fn static_name(definition: &str) -> String {
    format!("DEF_{}", definition.to_ascii_uppercase())
}

/// A reference to a schema.
fn reference(schema: &Value) -> Result<String, Box<dyn Error>> {
    let schema = schema.as_object().ok_or_else(|| format!("{schema} is no schema"))?;
    // A reference is all that its schema says.
    let beside = |word: &String| !matches!(word.as_str(), "$ref" | "description" | "default");
    if schema.contains_key("$ref") && schema.keys().any(beside) {
        return Err(format!("{schema:?} says more than the definition that it refers to").into());
    }
    match schema.get("$ref").map(|to| to.as_str().and_then(|to| to.strip_prefix("#/$defs/"))) {
        Some(Some(name)) => Ok(format!("&{}", static_name(name))),
        Some(None) => Err(format!("{schema:?} refers to something else than a definition").into()),
        None => Ok(format!("&{}", constant(schema)?)),
    }
}

/// The value of a schema that is no reference.
fn constant(schema: &Map<String, Value>) -> Result<String, Box<dyn Error>> {
    let mut fields = String::new();
    for (word, value) in schema {
        let unknown = || format!("the check of settings does not know {word}: {value}");
        let field = match (word.as_str(), value) {
            // For people and editors.
            ("$schema" | "$defs" | "title" | "description" | "default" | "format", _) => continue,
            // What a schema does not name is unknown to the check.
            ("additionalProperties", Value::Bool(false)) => continue,
            ("additionalProperties", further) => format!("further: Some({})", reference(further)?),
            ("x-readOver", Value::Bool(true)) => "is_read_over: true".to_owned(),
            ("type", Value::String(name)) => format!("kind: Some({})", kind(name).ok_or_else(unknown)?),
            ("enum", Value::Array(choices)) => format!("choices: &{}", texts(choices).ok_or_else(unknown)?),
            ("required", Value::Array(keys)) => format!("required: &{}", texts(keys).ok_or_else(unknown)?),
            ("items", items) => format!("items: Some({})", reference(items)?),
            ("minimum" | "maximum", Value::Number(bound)) => {
                format!("{word}: Some({:?})", bound.as_f64().ok_or_else(unknown)?)
            }
            ("anyOf", Value::Array(several)) => {
                let several: Vec<String> = several.iter().map(reference).collect::<Result<_, _>>()?;
                format!("any_of: &[{}]", several.join(", "))
            }
            ("properties", Value::Object(properties)) => {
                let member = |(key, member)| Ok(format!("({key:?}, {})", reference(member)?));
                let members: Vec<String> =
                    properties.iter().map(member).collect::<Result<_, Box<dyn Error>>>()?;
                format!("properties: &[{}]", members.join(", "))
            }
            _ => return Err(unknown().into()),
        };
        write!(fields, "{field}, ")?;
    }
    Ok(format!("Schema {{ {fields}..Schema::ANY }}"))
}

fn kind(name: &str) -> Option<&'static str> {
    Some(match name {
        "object" => "Kind::Object",
        "array" => "Kind::List",
        "string" => "Kind::Text",
        "boolean" => "Kind::Switch",
        "number" => "Kind::Number",
        "integer" => "Kind::Whole",
        _ => return None,
    })
}

/// A list of texts, all of them.
fn texts(values: &[Value]) -> Option<String> {
    let texts: Option<Vec<&str>> = values.iter().map(Value::as_str).collect();
    Some(format!("{:?}", texts?))
}
