//! What the vendor says when no answer is queued.

use super::{Answer, Options, Stream, Wire};
use serde_json::Value;

/// The answer to this request body.
pub(super) fn answer(wire: Wire, body: &Value, options: &Options) -> Answer {
    let stream = match &options.text {
        Some(text) => Stream::text(text),
        None => echo(wire, body),
    };
    stream.slowly(options.pause).into()
}

fn echo(wire: Wire, body: &Value) -> Stream {
    let no_messages = Vec::new();
    let messages = body["messages"].as_array().unwrap_or(&no_messages);
    let results: Vec<String> = match wire {
        Wire::OpenAi => messages
            .iter()
            .rev()
            .map_while(|message| (message["role"] == "tool").then(|| text_of(&message["content"])))
            .collect(),
        Wire::Anthropic => messages
            .last()
            .and_then(|message| message["content"].as_array())
            .into_iter()
            .flatten()
            .filter(|block| block["type"] == "tool_result")
            .map(|block| text_of(&block["content"]))
            .collect(),
    };
    if !results.is_empty() {
        return Stream::text(&format!("The tools said: {}", results.join("; ")));
    }
    let newest = messages.iter().rev().find(|message| message["role"] == "user");
    let said = newest.map(|message| text_of(&message["content"])).unwrap_or_default();
    let offered = |name: &str| {
        let tools = body["tools"].as_array();
        tools.into_iter().flatten().any(|tool| tool["name"] == name || tool["function"]["name"] == name)
    };
    let mut stream = Stream::new();
    let mut calls = 0;
    for line in said.lines() {
        let Some(call) = line.strip_prefix("/tool ") else { continue };
        let (name, arguments) = call.split_once(' ').unwrap_or((call, "{}"));
        if let (true, Ok(arguments)) = (offered(name), serde_json::from_str(arguments)) {
            stream = stream.then_call(&format!("call_{}_{calls}", messages.len()), name, &arguments);
            calls += 1;
        }
    }
    if calls > 0 { stream } else { Stream::text(&format!("You said: {said}")) }
}

/// The text of a message's content, which is a string or a list of blocks.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            blocks.iter().filter_map(|block| block["text"].as_str()).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}
