//! From transcript to model request: pure functions over messages.

use crate::message::{Message, MessageBody, Part, ToolCall};
use crate::model::{ModelRef, ModelRequest, Sampling, ToolChoice};

/// What a model is told in place of a tool result that never came.
const NO_RESULT: &str = "[No result of this call was given.]";

/// Tokens per picture in [`estimated_tokens`]: Anthropic documents about width × height / 750, at most some 1,600.
const IMAGE_TOKENS: u64 = 1_600;

/// The system prompt: the agent's own instructions, then what the client adds.
pub fn system(own: &str, time_zone: &str, client: Option<&str>) -> String {
    let mut text = String::with_capacity(own.len() + client.map_or(0, str::len) + 128);
    text.push_str(own.trim_end());
    if !text.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str("## Time\n\nThe time zone here is ");
    text.push_str(time_zone);
    text.push('.');
    if let Some(client) = client.map(str::trim).filter(|client| !client.is_empty()) {
        text.push_str("\n\n## Context from the client\n\n");
        text.push_str(client);
    }
    text
}

/// The messages of a prompt: the newest summary first, then what it does not cover, in an order that every vendor
/// accepts – each tool call directly followed by its result, no result without its call.
pub fn messages(transcript: &[Message]) -> Vec<MessageBody> {
    let summary = transcript.iter().rev().find_map(|message| match &message.body {
        MessageBody::Summary { through, .. } => Some((*through, &message.body)),
        _ => None,
    });
    let through = summary.map_or(0, |(through, _)| through);
    let kept = transcript
        .iter()
        .filter(|message| message.seq > through && !matches!(message.body, MessageBody::Summary { .. }))
        .map(|message| &message.body);
    let mut paired = Pairing { out: Vec::with_capacity(transcript.len() + 1), open: Vec::new() };
    paired.out.extend(summary.map(|(_, body)| body.clone()));
    kept.for_each(|body| paired.push(body));
    paired.close();
    paired.out
}

/// Puts tool results behind their calls.
struct Pairing {
    out: Vec<MessageBody>,
    /// Calls of the newest assistant message that have no result yet.
    open: Vec<ToolCall>,
}

impl Pairing {
    fn push(&mut self, body: &MessageBody) {
        match body {
            MessageBody::ToolResult { call_id, content, .. } => {
                if let Some(at) = self.open.iter().position(|call| call.id == *call_id) {
                    self.open.remove(at);
                    self.out.push(body.clone());
                } else {
                    // Its call was cut off, or a client made it up: still worth telling, but only as text.
                    self.close();
                    self.out
                        .push(MessageBody::user_text(format!("[Result of tool call {call_id}] {content}")));
                }
            }
            MessageBody::Assistant { text, tool_calls } => {
                self.close();
                // A vendor refuses an empty message.
                if !text.is_empty() || !tool_calls.is_empty() {
                    self.open.clone_from(tool_calls);
                    self.out.push(body.clone());
                }
            }
            MessageBody::User { .. } | MessageBody::Summary { .. } => {
                self.close();
                self.out.push(body.clone());
            }
        }
    }

    /// Answers what is still open: the client went on without a result, or the turn failed before it.
    fn close(&mut self) {
        for call in self.open.drain(..) {
            self.out.push(MessageBody::ToolResult {
                call_id: call.id,
                name: call.name,
                content: NO_RESULT.to_owned(),
                is_error: true,
            });
        }
    }
}

/// What the model is asked for in a compaction.
const SUMMARISE: &str = "You summarise the earlier part of a session for the agent that goes on with it. Keep: who the \
    user is and wants, decisions and their reasons, facts, names, numbers, dates, file names, open points and promises. \
    Leave out greetings and repetition. Write in the language of the session, at most 500 words, only the summary.";

/// The request for a summary of everything up to position `through`, of at most about `room` tokens: where that is not
/// enough, the oldest messages are left out.
pub fn summary_request(model: ModelRef, transcript: &[Message], through: u64, room: u64) -> ModelRequest {
    let mut lines = Vec::new();
    let mut tokens = 0;
    let covered = transcript
        .iter()
        .filter(|message| message.seq <= through || matches!(message.body, MessageBody::Summary { .. }));
    for message in covered.rev() {
        tokens += estimated_tokens(&message.body);
        if tokens > room && !lines.is_empty() {
            break;
        }
        lines.push(format!("{}: {}", message.body.role(), message.body.text()));
    }
    lines.reverse();
    ModelRequest {
        model,
        system: SUMMARISE.to_owned(),
        messages: vec![MessageBody::user_text(lines.join("\n\n"))],
        tools: Vec::new(),
        tool_choice: ToolChoice::None,
        sampling: Sampling::default(),
    }
}

/// A rough count of a message's tokens, on the high side: a token for four ASCII characters or for one of any other
/// script (Japanese text has about one token per character with the vendors' tokenizers).
pub fn estimated_tokens(body: &MessageBody) -> u64 {
    let text = |text: &str| {
        let ascii = text.bytes().filter(u8::is_ascii).count() as u64;
        let other = text.chars().filter(|char| !char.is_ascii()).count() as u64;
        ascii.div_ceil(4) + other
    };
    let content = match body {
        MessageBody::User { parts } => parts
            .iter()
            .map(|part| match part {
                Part::Text { text: part } => text(part),
                Part::Image { .. } => IMAGE_TOKENS,
            })
            .sum(),
        MessageBody::Assistant { text: said, tool_calls } => {
            let calls = tool_calls.iter().map(|call| text(&call.name) + text(&call.arguments));
            text(said) + calls.sum::<u64>()
        }
        MessageBody::ToolResult { content, .. } => text(content),
        MessageBody::Summary { text: summary, .. } => text(summary),
    };
    // Role and framing.
    content + 4
}

/// How many of the newest messages have at most about `room` tokens together.
pub fn newest_that_fit(transcript: &[Message], room: u64) -> usize {
    let mut tokens = 0;
    let fits = |message: &&Message| {
        tokens += estimated_tokens(&message.body);
        tokens <= room
    };
    transcript.iter().rev().take_while(fits).count()
}

/// Where a compaction that keeps about `keep` messages may cut: the position of the last message that it covers. Only
/// in front of a user's message, so that no call is parted from its result: rather more messages are kept, and fewer
/// where that is not possible. `None` if there is no such place.
pub fn cut(transcript: &[Message], keep: usize) -> Option<u64> {
    let live: Vec<&Message> =
        transcript.iter().filter(|message| !matches!(message.body, MessageBody::Summary { .. })).collect();
    let latest = live.len().checked_sub(keep.max(1))?;
    let before = (1..=latest).rev();
    let behind = latest + 1..live.len();
    let at = before.chain(behind).find(|at| matches!(live[*at].body, MessageBody::User { .. }))?;
    Some(live[at - 1].seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::TurnId;

    fn transcript(bodies: Vec<MessageBody>) -> Vec<Message> {
        let number = |(at, body): (usize, MessageBody)| Message {
            seq: at as u64 + 1,
            epoch: 0,
            turn: TurnId::new("t"),
            at: Timestamp::EPOCH,
            body,
        };
        bodies.into_iter().enumerate().map(number).collect()
    }

    fn calling(ids: &[&str]) -> MessageBody {
        let call = |id: &&str| ToolCall { id: (*id).into(), name: "read".into(), arguments: "{}".into() };
        MessageBody::Assistant { text: String::new(), tool_calls: ids.iter().map(call).collect() }
    }

    fn result(id: &str, content: &str, is_error: bool) -> MessageBody {
        MessageBody::ToolResult { call_id: id.into(), name: "read".into(), content: content.into(), is_error }
    }

    #[test]
    fn a_call_without_a_result_is_closed_before_the_next_message() {
        let bodies = vec![
            MessageBody::user_text("a"),
            calling(&["1", "2"]),
            result("2", "two", false),
            MessageBody::user_text("b"),
        ];
        let expected = vec![
            MessageBody::user_text("a"),
            calling(&["1", "2"]),
            result("2", "two", false),
            result("1", NO_RESULT, true),
            MessageBody::user_text("b"),
        ];
        assert_eq!(messages(&transcript(bodies)), expected);
    }

    #[test]
    fn a_result_without_its_call_becomes_text() {
        let bodies = vec![result("9", "nine", false)];
        assert_eq!(messages(&transcript(bodies)), [MessageBody::user_text("[Result of tool call 9] nine")]);
    }

    #[test]
    fn the_newest_summary_stands_for_what_it_covers() {
        let summary = |text: &str, through| MessageBody::Summary { text: text.into(), through };
        let bodies = vec![
            MessageBody::user_text("1"),
            MessageBody::assistant_text("2"),
            summary("old", 1),
            MessageBody::user_text("4"),
            summary("new", 2),
            MessageBody::assistant_text("6"),
        ];
        let expected = [summary("new", 2), MessageBody::user_text("4"), MessageBody::assistant_text("6")];
        assert_eq!(messages(&transcript(bodies)), expected);
    }

    #[test]
    fn a_cut_falls_only_in_front_of_a_users_message() {
        let bodies = vec![
            MessageBody::user_text("1"),
            MessageBody::assistant_text("2"),
            MessageBody::user_text("3"),
            calling(&["x"]),
            result("x", "5", false),
            MessageBody::assistant_text("6"),
        ];
        assert_eq!(cut(&transcript(bodies.clone()), 2), Some(2));
        assert_eq!(cut(&transcript(bodies.clone()), 4), Some(2));
        assert_eq!(cut(&transcript(bodies.clone()), 5), Some(2), "rather fewer than none");
        assert_eq!(cut(&transcript(bodies), 60), None);
    }

    #[test]
    fn japanese_counts_a_token_per_character_and_english_one_per_four() {
        assert_eq!(estimated_tokens(&MessageBody::user_text("会議の予定")), 5 + 4);
        assert_eq!(estimated_tokens(&MessageBody::user_text("meetings")), 2 + 4);
    }

    #[test]
    fn the_system_prompt_holds_both_sides() {
        assert_eq!(
            system("Be brief.\n", "Asia/Tokyo", Some(" Speak Japanese. ")),
            "Be brief.\n\n## Time\n\nThe time zone here is Asia/Tokyo.\n\n## Context from the client\n\nSpeak Japanese."
        );
    }
}
