//! What a transcript must look like, as `GET /v1/sessions/{key}/transcript` shows it.

use serde_json::Value;
use std::collections::BTreeSet;

/// How the last message of a parked turn begins.
pub const PARKED: &str = "[This turn stopped at a call";

/// Everything that is wrong with the order and the uniqueness of these messages, which are the whole transcript.
///
/// Legal is: a user's message (or results of calls that were the client's) – then answers, each call of one followed by
/// its result – then the turn's last answer. Positions have no holes, no call id comes twice, a call has one result.
/// `clients_tool` is the tool that the client runs itself; its result may come in the next turn.
pub fn problems(messages: &[Value], clients_tool: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut calls = BTreeSet::new();
    let mut open: Vec<String> = Vec::new();
    let mut asked_of_client: Vec<String> = Vec::new();
    let mut answered = true;
    let mut turn = "";
    let mut turns_seen = BTreeSet::new();
    for (at, message) in messages.iter().enumerate() {
        let mut wrong = |what: &str| problems.push(format!("message {}: {what}", at + 1));
        if message["id"].as_str().and_then(|id| id.parse().ok()) != Some(at + 1) {
            wrong("positions have a hole");
        }
        let of_turn = message["turn"].as_str().unwrap_or_default();
        if of_turn != turn {
            if !turns_seen.insert(of_turn) {
                wrong("a turn goes on behind another one");
            }
            if !open.is_empty() || !answered {
                wrong("the turn before has no end");
            }
            turn = of_turn;
            open.clear();
        }
        match message["role"].as_str().unwrap_or_default() {
            "summary" => {}
            "user" => {
                if !answered {
                    wrong("a user's message behind one that has no answer");
                }
                answered = false;
                asked_of_client.clear();
            }
            "assistant" => {
                // A parked turn ends without the calls behind the one whose effect is not known.
                let parked = message["content"].as_str().is_some_and(|text| text.starts_with(PARKED));
                if !open.is_empty() && !parked {
                    wrong("an answer before all results are there");
                }
                open.clear();
                for call in message["tool_calls"].as_array().into_iter().flatten() {
                    let id = call["id"].as_str().unwrap_or_default().to_owned();
                    if !calls.insert(id.clone()) {
                        wrong("a call id comes twice");
                    }
                    let list = if call["function"]["name"] == clients_tool {
                        &mut asked_of_client
                    } else {
                        &mut open
                    };
                    list.push(id);
                }
                answered = open.is_empty();
            }
            "tool" => {
                let id = message["tool_call_id"].as_str().unwrap_or_default();
                if let Some(place) = open.iter().position(|call| call == id) {
                    open.remove(place);
                } else if let Some(place) = asked_of_client.iter().position(|call| call == id) {
                    asked_of_client.remove(place);
                } else {
                    wrong("a result without its call, or its second one");
                }
                answered = false;
            }
            _ => wrong("an unknown role"),
        }
    }
    if !answered || !open.is_empty() {
        problems.push("the last turn has no end".to_owned());
    }
    problems
}

/// How many messages that came from outside (a user's, a tool's result) say this.
pub fn count(messages: &[Value], text: &str) -> usize {
    let from_outside = |message: &&Value| matches!(message["role"].as_str(), Some("user" | "tool"));
    messages
        .iter()
        .filter(from_outside)
        .filter(|message| message["content"].to_string().contains(text))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn transcript(messages: &[(&str, &str, Value)]) -> Vec<Value> {
        let whole = |(at, (turn, role, more)): (usize, &(&str, &str, Value))| {
            let mut message = json!({"id": (at + 1).to_string(), "turn": turn, "role": role, "content": "x"});
            message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            message
        };
        messages.iter().enumerate().map(whole).collect()
    }

    fn call(ids: &[&str]) -> Value {
        json!({"tool_calls": ids.iter().map(|id| json!({"id": id, "function": {"name": "x"}})).collect::<Vec<_>>()})
    }

    fn result(id: &str) -> Value {
        json!({"tool_call_id": id})
    }

    #[test]
    fn a_turn_with_calls_and_one_with_none_are_legal() {
        let legal = transcript(&[
            ("a", "user", json!({})),
            ("a", "assistant", call(&["1", "2"])),
            ("a", "tool", result("1")),
            ("a", "tool", result("2")),
            ("a", "assistant", json!({})),
            ("b", "user", json!({})),
            ("b", "summary", json!({})),
            ("b", "assistant", json!({})),
        ]);
        assert_eq!(problems(&legal, ""), Vec::<String>::new());
    }

    #[test]
    fn what_a_bad_resumption_would_leave_is_told() {
        let twice = transcript(&[
            ("a", "user", json!({})),
            ("a", "assistant", call(&["1"])),
            ("a", "tool", result("1")),
            ("a", "tool", result("1")),
            ("a", "assistant", call(&["1"])),
            ("a", "user", json!({})),
        ]);
        assert_eq!(
            problems(&twice, ""),
            [
                "message 4: a result without its call, or its second one",
                "message 5: a call id comes twice",
                "message 6: a user's message behind one that has no answer",
                "the last turn has no end",
            ]
        );
    }
}
