//! The demo model `demo/echo`: inside this process, no network, no intelligence. It says what it was told, and does
//! what a line of the user's newest message commands, so that every path of a turn can be driven without a vendor.
//!
//! | line | answer |
//! |---|---|
//! | `/tool NAME {…}` | calls the tool `NAME`, if it is offered, with the rest of the line as arguments, unchecked; nothing stands for `{}`. Several lines: several calls, in order |
//! | `/then` | the `/tool` lines below it wait until the results of those above are there: one more step |
//! | `/words N` | `N` words (at most 10,000) instead of the echo |
//!
//! Other lines come back as `You said: …`, pictures as `[1 image, image/png]`. When the newest messages are tool
//! results (and no `/then` is left) it quotes them. A forced tool is called with `{}`, whatever was said – also
//! after its results, as the real vendors do. A prompt whose system text begins with a line about a summary gets a
//! one-line summary. A token is a word here; `max_tokens` and `stop` are obeyed. Equal prompts get equal answers.

use crate::message::{MessageBody, Part};
use crate::model::{
    ModelError, ModelEvent, ModelFailure, ModelProvider, ModelRequest, ModelStream, StopReason, ToolChoice,
    Usage,
};
use crate::quote::quoted;
use async_trait::async_trait;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// The only model of this provider.
pub const MODEL: &str = "echo";

/// Most words that `/words` gives.
const MOST_WORDS: usize = 10_000;

/// Tokens that a picture counts for: a plausible figure, nothing more.
const TOKENS_OF_A_PICTURE: u64 = 256;

/// The demo model's provider. Needs nothing, keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct DemoModel;

#[async_trait]
impl ModelProvider for DemoModel {
    async fn stream(&self, request: &ModelRequest) -> Result<ModelStream, ModelError> {
        if request.model.model != MODEL {
            return Err(ModelError::new(
                ModelFailure::UnknownModel,
                format!("the demo provider has no model `{}`, only `{MODEL}`", quoted(&request.model.model)),
            ));
        }
        Ok(futures::stream::iter(events(request)).map(Ok).boxed())
    }
}

/// What is to be said and called.
#[derive(Debug, Default, PartialEq)]
struct Reply {
    text: String,
    /// Name and arguments.
    calls: Vec<(String, String)>,
}

fn events(request: &ModelRequest) -> Vec<ModelEvent> {
    let mut reply = reply(request);
    let mut stop = if reply.calls.is_empty() { StopReason::End } else { StopReason::ToolCalls };
    if let Some(at) = request.sampling.stop.iter().filter_map(|stop| reply.text.find(stop)).min() {
        reply.text.truncate(at);
    }
    let mut words: Vec<&str> = reply.text.split_inclusive(char::is_whitespace).collect();
    let most =
        request.sampling.max_tokens.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    if words.len() > most {
        words.truncate(most);
        reply.calls.clear();
        stop = StopReason::Length;
    }
    let mut output_tokens = words.len();
    let mut out: Vec<ModelEvent> = words.into_iter().map(|word| ModelEvent::Text(word.to_owned())).collect();
    let prefix = if reply.calls.is_empty() { String::new() } else { call_prefix(request) };
    for (index, (name, arguments)) in reply.calls.into_iter().enumerate() {
        output_tokens += 1 + arguments.split_whitespace().count();
        out.push(ModelEvent::ToolCallStart { index, id: format!("{prefix}_{index}"), name });
        // In two slices, so that whoever reads must put them together.
        let middle = arguments.char_indices().nth(arguments.chars().count() / 2).map_or(0, |(at, _)| at);
        let (first, second) = arguments.split_at(middle);
        for slice in [first, second].into_iter().filter(|slice| !slice.is_empty()) {
            out.push(ModelEvent::ToolCallArguments { index, delta: slice.to_owned() });
        }
    }
    out.push(ModelEvent::Usage(Usage {
        input_tokens: input_tokens(request),
        output_tokens: u64::try_from(output_tokens).unwrap_or(u64::MAX),
        ..Usage::default()
    }));
    out.push(ModelEvent::Stop(stop));
    out
}

fn reply(request: &ModelRequest) -> Reply {
    if asks_for_a_summary(request) {
        return Reply { text: format!("Summary of {} messages.", request.messages.len()), calls: Vec::new() };
    }
    let forced = match &request.tool_choice {
        ToolChoice::Required => request.tools.first().map(|tool| tool.name.clone()),
        ToolChoice::Tool(name) => Some(name.clone()),
        ToolChoice::Auto | ToolChoice::None => None,
    };
    let script = Script::of(request);
    let step = script.steps.get(script.results_given);
    if let Some(name) = forced {
        let asked: Vec<_> = step.into_iter().flatten().filter(|(asked, _)| *asked == name).cloned().collect();
        let calls = if asked.is_empty() { vec![(name, "{}".to_owned())] } else { asked };
        return Reply { text: String::new(), calls };
    }
    let may_call = request.tool_choice != ToolChoice::None;
    let (offered, missing): (Vec<_>, Vec<_>) = step
        .into_iter()
        .flatten()
        .cloned()
        .partition(|(name, _)| may_call && request.tools.iter().any(|tool| tool.name == *name));
    let mut text = if script.results_given > 0 { quoted_results(request) } else { script.text };
    if !offered.is_empty() && script.results_given > 0 {
        text.clear();
    }
    for (name, _) in missing {
        let line_break = if text.is_empty() { "" } else { "\n" };
        // Writing to a String does not fail.
        let _ = write!(text, "{line_break}I have no tool `{}`.", quoted(&name));
    }
    if text.is_empty() && offered.is_empty() {
        text.push_str("You said nothing.");
    }
    Reply { text, calls: offered }
}

/// Whether this is a compaction's prompt: no tools wanted, and the system text's first line speaks of a summary.
fn asks_for_a_summary(request: &ModelRequest) -> bool {
    let first_line = request.system.lines().next().unwrap_or_default().to_lowercase();
    let no_tools = request.tools.is_empty() && request.tool_choice == ToolChoice::None;
    no_tools && (first_line.contains("summary") || first_line.contains("summari"))
}

/// The user's newest message, read as commands.
struct Script {
    /// The echo, or the words asked for; empty when the message held only calls.
    text: String,
    /// The calls of each step.
    steps: Vec<Vec<(String, String)>>,
    /// Steps whose results are there.
    results_given: usize,
}

impl Script {
    fn of(request: &ModelRequest) -> Self {
        let newest = request.messages.iter().rposition(|message| matches!(message, MessageBody::User { .. }));
        let parts: &[Part] = match newest.map(|at| &request.messages[at]) {
            Some(MessageBody::User { parts }) => parts,
            _ => &[],
        };
        let since = newest.map_or(&request.messages[..], |at| &request.messages[at..]);
        let results_given = since
            .windows(2)
            .filter(|pair| {
                !matches!(pair[0], MessageBody::ToolResult { .. })
                    && matches!(pair[1], MessageBody::ToolResult { .. })
            })
            .count();

        let mut steps = vec![Vec::new()];
        let mut said = Vec::new();
        let mut words: Option<usize> = None;
        let mut pictures = Vec::new();
        for part in parts {
            let text = match part {
                Part::Text { text } => text,
                Part::Image { media_type, .. } => {
                    pictures.push(media_type.as_str());
                    continue;
                }
            };
            for line in text.lines() {
                let (command, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
                match (command, rest.trim()) {
                    ("/tool", rest) if !rest.is_empty() => {
                        let (name, arguments) = rest.split_once(' ').unwrap_or((rest, ""));
                        let arguments = if arguments.trim().is_empty() { "{}" } else { arguments.trim() };
                        if let Some(step) = steps.last_mut() {
                            step.push((name.to_owned(), arguments.to_owned()));
                        }
                    }
                    ("/then", "") => steps.push(Vec::new()),
                    ("/words", number) if number.parse::<usize>().is_ok() => {
                        words = words.or_else(|| number.parse().ok());
                    }
                    _ => said.push(line),
                }
            }
        }
        let mut text = said.join("\n").trim().to_owned();
        if let Some(words) = words {
            text = (1..=words.min(MOST_WORDS)).map(|n| format!("word{n}")).collect::<Vec<_>>().join(" ");
        } else if !text.is_empty() || !pictures.is_empty() {
            text.insert_str(0, "You said: ");
        }
        if !pictures.is_empty() {
            let plural = if pictures.len() == 1 { "" } else { "s" };
            let space = if text.ends_with(' ') { "" } else { " " };
            let _ = write!(text, "{space}[{} image{plural}, {}]", pictures.len(), pictures.join(", "));
        }
        Self { text, steps, results_given }
    }
}

/// The tool results at the end of the prompt, one line each.
fn quoted_results(request: &ModelRequest) -> String {
    let results = request.messages.iter().rev().map_while(|message| match message {
        MessageBody::ToolResult { call_id, name, content, is_error } => {
            let name = if name.is_empty() { call_id } else { name };
            let verb = if *is_error { "failed" } else { "answered" };
            Some(format!("{name} {verb}: {content}"))
        }
        _ => None,
    });
    let mut lines: Vec<String> = results.collect();
    lines.reverse();
    lines.join("\n")
}

/// The beginning of the ids of this answer's calls: the same for the same prompt, another one for any other.
fn call_prefix(request: &ModelRequest) -> String {
    let mut digest = Sha256::new();
    for message in &request.messages {
        // A message is plain data: it always has its JSON.
        digest.update(serde_json::to_vec(message).unwrap_or_default());
    }
    digest.finalize().iter().take(8).fold("call_demo_".to_owned(), |mut id, byte| {
        let _ = write!(id, "{byte:02x}");
        id
    })
}

fn input_tokens(request: &ModelRequest) -> u64 {
    let words = |text: &str| u64::try_from(text.split_whitespace().count()).unwrap_or(u64::MAX);
    let of_message = |message: &MessageBody| match message {
        MessageBody::User { parts } => parts
            .iter()
            .map(|part| match part {
                Part::Text { text } => words(text),
                Part::Image { .. } => TOKENS_OF_A_PICTURE,
            })
            .sum(),
        MessageBody::Assistant { text, tool_calls } => {
            words(text) + tool_calls.iter().map(|call| 1 + words(&call.arguments)).sum::<u64>()
        }
        MessageBody::ToolResult { content, .. } => words(content),
        MessageBody::Summary { text, .. } => words(text),
    };
    words(&request.system) + request.messages.iter().map(of_message).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::ToolCall;
    use crate::model::Sampling;
    use crate::tool::{Effect, ToolSpec};

    fn tool(name: &str) -> ToolSpec {
        ToolSpec {
            name: name.to_owned(),
            description: String::new(),
            parameters: serde_json::json!({"type": "object"}),
            strict: None,
            effect: Effect::None,
        }
    }

    fn request(messages: Vec<MessageBody>) -> ModelRequest {
        ModelRequest {
            model: "demo/echo".parse().unwrap(),
            system: "Be kind.".to_owned(),
            messages,
            tools: vec![tool("clock"), tool("read")],
            tool_choice: ToolChoice::Auto,
            sampling: Sampling::default(),
        }
    }

    fn said(text: &str) -> ModelRequest {
        request(vec![MessageBody::user_text(text)])
    }

    fn called(request: &ModelRequest) -> Reply {
        reply(request)
    }

    fn calls(calls: &[(&str, &str)]) -> Vec<(String, String)> {
        calls.iter().map(|(name, arguments)| ((*name).to_owned(), (*arguments).to_owned())).collect()
    }

    #[test]
    fn words_come_back_one_delta_each_with_usage_and_stop() {
        assert_eq!(
            events(&said("hello  you")),
            [
                ModelEvent::Text("You ".to_owned()),
                ModelEvent::Text("said: ".to_owned()),
                ModelEvent::Text("hello ".to_owned()),
                ModelEvent::Text(" ".to_owned()),
                ModelEvent::Text("you".to_owned()),
                ModelEvent::Usage(Usage { input_tokens: 4, output_tokens: 5, ..Usage::default() }),
                ModelEvent::Stop(StopReason::End),
            ]
        );
    }

    #[test]
    fn tool_lines_become_calls_in_their_order_and_other_lines_words() {
        assert_eq!(
            called(&said("look\n/tool read {\"path\": \"a b\"}\n/tool clock")),
            Reply {
                text: "You said: look".to_owned(),
                calls: calls(&[("read", r#"{"path": "a b"}"#), ("clock", "{}")])
            }
        );
    }

    #[test]
    fn call_ids_are_the_same_for_the_same_prompt_only() {
        let ids = |request: &ModelRequest| {
            let ids = events(request).into_iter().filter_map(|event| match event {
                ModelEvent::ToolCallStart { id, .. } => Some(id),
                _ => None,
            });
            ids.collect::<Vec<_>>()
        };
        let once = ids(&said("/tool clock\n/tool clock"));
        assert_eq!(once.len(), 2);
        assert_ne!(once[0], once[1]);
        assert_eq!(once, ids(&said("/tool clock\n/tool clock")));
        let again = request(vec![
            MessageBody::user_text("/tool clock"),
            MessageBody::assistant_text("so"),
            MessageBody::user_text("/tool clock\n/tool clock"),
        ]);
        assert_ne!(once, ids(&again));
    }

    #[test]
    fn a_tool_that_is_not_offered_is_named_instead_of_called() {
        assert_eq!(
            called(&said("/tool rm {}")),
            Reply { text: "I have no tool `rm`.".to_owned(), calls: Vec::new() }
        );
    }

    #[test]
    fn results_are_quoted_or_followed_by_the_next_step() {
        let mut messages = vec![
            MessageBody::user_text("/tool clock\n/then\n/tool read {}"),
            MessageBody::Assistant {
                text: String::new(),
                tool_calls: vec![ToolCall { id: "1".into(), name: "clock".into(), arguments: "{}".into() }],
            },
            MessageBody::ToolResult {
                call_id: "1".into(),
                name: "clock".into(),
                content: "noon".into(),
                is_error: false,
            },
        ];
        assert_eq!(
            called(&request(messages.clone())),
            Reply { text: String::new(), calls: calls(&[("read", "{}")]) }
        );
        messages.push(MessageBody::Assistant {
            text: String::new(),
            tool_calls: vec![ToolCall { id: "2".into(), name: "read".into(), arguments: "{}".into() }],
        });
        messages.push(MessageBody::ToolResult {
            call_id: "2".into(),
            name: String::new(),
            content: "no such file".into(),
            is_error: true,
        });
        assert_eq!(
            called(&request(messages)),
            Reply { text: "2 failed: no such file".to_owned(), calls: Vec::new() }
        );
    }

    #[test]
    fn a_forced_tool_is_called_with_no_arguments() {
        let mut request = said("hello");
        request.tool_choice = ToolChoice::Required;
        assert_eq!(called(&request).calls, calls(&[("clock", "{}")]));
        request.tool_choice = ToolChoice::Tool("read".to_owned());
        assert_eq!(called(&request).calls, calls(&[("read", "{}")]));
    }

    #[test]
    fn no_tool_is_called_when_none_may_be() {
        let mut request = said("/tool clock");
        request.tool_choice = ToolChoice::None;
        assert_eq!(called(&request).calls, []);
    }

    #[test]
    fn pictures_are_named() {
        let picture = |kind: &str| Part::Image { media_type: kind.to_owned(), data: "AAAA".to_owned() };
        let parts = vec![Part::Text { text: "see".to_owned() }, picture("image/png"), picture("image/gif")];
        assert_eq!(
            called(&request(vec![MessageBody::User { parts }])).text,
            "You said: see [2 images, image/png, image/gif]"
        );
        let parts = vec![picture("image/png")];
        assert_eq!(
            called(&request(vec![MessageBody::User { parts }])).text,
            "You said: [1 image, image/png]"
        );
    }

    #[test]
    fn words_are_as_many_as_asked_for_up_to_the_limits() {
        let mut request = said("/words 3");
        assert_eq!(called(&request).text, "word1 word2 word3");
        request.sampling.max_tokens = Some(2);
        let cut = events(&request);
        assert_eq!(cut[..2], [ModelEvent::Text("word1 ".into()), ModelEvent::Text("word2 ".into())]);
        assert_eq!(cut.last(), Some(&ModelEvent::Stop(StopReason::Length)));
        assert_eq!(called(&said("/words 99999999")).text.split(' ').count(), MOST_WORDS);
    }

    #[test]
    fn a_stop_sequence_ends_the_text() {
        let mut request = said("one two three");
        request.sampling.stop = vec!["three".to_owned(), "two".to_owned()];
        let text: String = events(&request)
            .into_iter()
            .filter_map(|event| if let ModelEvent::Text(text) = event { Some(text) } else { None })
            .collect();
        assert_eq!(text, "You said: one ");
    }

    #[test]
    fn a_compaction_gets_a_summary() {
        let mut request = said("/words 50");
        request.tools.clear();
        request.tool_choice = ToolChoice::None;
        request.system = "Summarise the session so far.\nBe short.".to_owned();
        assert_eq!(called(&request).text, "Summary of 1 messages.");
    }

    #[tokio::test]
    async fn another_model_of_the_demo_provider_is_unknown() {
        let mut request = said("hello");
        request.model = "demo/other".parse().unwrap();
        let error = DemoModel.stream(&request).await.err().unwrap();
        assert_eq!(error.failure, ModelFailure::UnknownModel);
    }
}
