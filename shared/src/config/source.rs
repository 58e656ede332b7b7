//! JSON5 text to JSON, with what a plain map forgets: keys given twice, and the order of `agents.entries`.

use super::problems::Problems;
use crate::bounds::SETTINGS_LEVELS;
use crate::nesting::too_deep;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// A file's content.
pub(super) struct Source {
    /// As JSON.
    pub value: Value,
    /// The keys of `agents.entries`, as the file orders them.
    pub entry_order: Vec<String>,
}

/// Reads JSON5. Of a key that is given twice the last value is kept, and the problem noted.
pub(super) fn parse(text: &str, problems: &mut Problems) -> Source {
    let mut source = Source { value: Value::Null, entry_order: Vec::new() };
    // The reader goes down by calling itself, and has no bound of its own.
    if too_deep(text.as_bytes(), SETTINGS_LEVELS).is_some() {
        let most =
            format!("the file is nested too deeply: at most {SETTINGS_LEVELS} levels of objects and lists");
        problems.add("", most);
        return source;
    }
    match json5::from_str::<Node>(text) {
        Ok(node) => source.value = node.into_value("", &mut source.entry_order, problems),
        Err(error) => problems.add("", format!("the file is not JSON5: {error}")),
    }
    source
}

enum Node {
    Leaf(Value),
    List(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    fn into_value(self, path: &str, entry_order: &mut Vec<String>, problems: &mut Problems) -> Value {
        match self {
            Self::Leaf(value) => value,
            Self::List(items) => {
                let items = items.into_iter().enumerate();
                items
                    .map(|(index, item)| item.into_value(&format!("{path}[{index}]"), entry_order, problems))
                    .collect()
            }
            Self::Object(members) => {
                let mut object = Map::new();
                for (key, member) in members {
                    let member_path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    let value = member.into_value(&member_path, entry_order, problems);
                    if path == "agents.entries" {
                        entry_order.push(key.clone());
                    }
                    if object.insert(key, value).is_some() {
                        problems.add(member_path, "is given twice");
                    }
                }
                Value::Object(object)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Leaf(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Leaf(Value::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Leaf(Value::from(value)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        // JSON5 knows NaN and Infinity, JSON does not: no setting takes them, so a text is refused in their place.
        let leaf = Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number);
        Ok(Node::Leaf(leaf))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Leaf(Value::String(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Leaf(Value::String(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Node::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn comments_trailing_commas_and_plain_keys_are_read() {
        let mut problems = Problems::default();
        let source = parse("{a: 1, /* b */ 'c': [0x10, -1.5, NaN,], d: null,}", &mut problems);
        assert_eq!(source.value, json!({"a": 1, "c": [16, -1.5, "NaN"], "d": null}));
        assert!(problems.is_empty());
    }

    #[test]
    fn entries_keep_the_order_of_the_file_and_a_key_given_twice_is_a_problem() {
        let mut problems = Problems::default();
        let source = parse("{agents: {entries: {zoe: {}, adam: {x: 1, x: 2}, zoe: {}}}}", &mut problems);
        assert_eq!(source.entry_order, ["zoe", "adam", "zoe"]);
        assert_eq!(
            problems.to_string(),
            "agents.entries.adam.x: is given twice\nagents.entries.zoe: is given twice"
        );
    }

    #[test]
    fn what_is_nested_too_deeply_is_a_problem_and_ends_no_process() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        for (levels, expected) in [
            (128, ""),
            (129, "the file is nested too deeply: at most 128 levels of objects and lists"),
            (200_000, "the file is nested too deeply: at most 128 levels of objects and lists"),
        ] {
            let mut problems = Problems::default();
            parse(&nested(levels), &mut problems);
            assert_eq!(problems.to_string(), expected);
        }
    }

    #[test]
    fn what_is_not_json5_is_told_with_its_line() {
        let mut problems = Problems::default();
        parse("{\n  a: ]\n}", &mut problems);
        assert!(problems.to_string().starts_with("the file is not JSON5: "), "{problems}");
        assert!(problems.to_string().contains("line 2"), "{problems}");
    }
}
