//! A client that sends its whole history with every request, on a session that has its own transcript: what it
//! repeats is recognised and left out, so that nothing stands in the transcript twice.

use crate::message::{Message, MessageBody, Part};

/// Said for the model at the end of a turn that failed; no client ever saw it.
pub(super) const FAILED_NOTE: &str = "[This turn ended with an error before it was answered.]";

/// How many messages of the transcript are looked at for `input`: a turn may have many that the client never saw.
pub fn look_back(input: &[MessageBody]) -> usize {
    (input.len() * 4).clamp(32, 1_000)
}

/// Of `input` (oldest first, the new message last), what the transcript does not hold yet.
///
/// An empty transcript takes everything. Otherwise the longest beginning of `input` that ends where the transcript
/// ends is left out. If nothing is recognised, the client's earlier messages are put into the new message as text,
/// for context: they did not happen on this session.
pub fn unknown_part(transcript: &[Message], input: Vec<MessageBody>) -> Vec<MessageBody> {
    let seen = as_the_client_saw_it(transcript);
    if seen.is_empty() || input.len() < 2 {
        return input;
    }
    let ends_alike = |known: &usize| {
        let overlap = seen.len().min(*known);
        let (ours, theirs) = (&seen[seen.len() - overlap..], &input[known - overlap..*known]);
        ours.iter().zip(theirs).all(|(ours, theirs)| same(ours, theirs))
    };
    match (1..input.len()).rev().find(ends_alike) {
        Some(known) => input.into_iter().skip(known).collect(),
        None => with_context(input),
    }
}

/// Each turn's input, then one message with all its text: tool steps on our side are not shown to clients.
fn as_the_client_saw_it(transcript: &[Message]) -> Vec<MessageBody> {
    let mut seen: Vec<MessageBody> = Vec::new();
    let mut own_calls: Vec<&str> = Vec::new();
    let mut replying_to = None;
    for message in transcript {
        if replying_to != Some(&message.turn) {
            own_calls.clear();
        }
        match &message.body {
            MessageBody::Assistant { text, .. } if text == FAILED_NOTE => {}
            MessageBody::Assistant { text, tool_calls } => {
                own_calls.extend(tool_calls.iter().map(|call| call.id.as_str()));
                match seen.last_mut() {
                    Some(MessageBody::Assistant { text: said, tool_calls: called })
                        if replying_to == Some(&message.turn) =>
                    {
                        join(said, text);
                        called.clone_from(tool_calls);
                    }
                    _ => seen.push(message.body.clone()),
                }
                replying_to = Some(&message.turn);
            }
            MessageBody::ToolResult { call_id, .. } if own_calls.contains(&call_id.as_str()) => {}
            MessageBody::Summary { .. } => {}
            MessageBody::User { .. } | MessageBody::ToolResult { .. } => seen.push(message.body.clone()),
        }
    }
    seen
}

/// Adds a step's text to a turn's text, as it is streamed: an empty line between steps.
pub(super) fn join(so_far: &mut String, text: &str) {
    if !so_far.is_empty() && !text.is_empty() {
        so_far.push_str("\n\n");
    }
    so_far.push_str(text);
}

/// Whether the client means this message of ours: by role and text, white space at the ends aside. Calls are not
/// compared (clients rewrite their arguments); results by the call that they answer.
fn same(ours: &MessageBody, theirs: &MessageBody) -> bool {
    match (ours, theirs) {
        (MessageBody::User { parts: ours }, MessageBody::User { parts: theirs }) => {
            texts(ours) == texts(theirs)
        }
        (MessageBody::Assistant { text: ours, .. }, MessageBody::Assistant { text: theirs, .. }) => {
            ours.trim() == theirs.trim()
        }
        (MessageBody::ToolResult { call_id: ours, .. }, MessageBody::ToolResult { call_id: theirs, .. }) => {
            ours == theirs
        }
        _ => false,
    }
}

fn texts(parts: &[Part]) -> String {
    let text = |part: &Part| match part {
        Part::Text { text } => Some(text.trim().to_owned()),
        Part::Image { .. } => None,
    };
    parts.iter().filter_map(text).collect::<Vec<_>>().join("\n")
}

fn with_context(mut input: Vec<MessageBody>) -> Vec<MessageBody> {
    let Some(MessageBody::User { mut parts }) = input.pop_if(|last| matches!(last, MessageBody::User { .. }))
    else {
        // Tool results at the end: only they are new, text around them would part them from their calls.
        let results =
            input.iter().rev().take_while(|body| matches!(body, MessageBody::ToolResult { .. })).count();
        return input.split_off(input.len() - results);
    };
    let mut context = String::from("[Earlier messages that the client sent along, for context]\n");
    for body in &input {
        let who = match body {
            MessageBody::User { .. } => "User",
            MessageBody::Assistant { .. } | MessageBody::Summary { .. } => "Assistant",
            MessageBody::ToolResult { .. } => "Tool",
        };
        context.push_str(&format!("{who}: {}\n", body.text()));
    }
    context.push_str("\n[The current message – answer this one]\n");
    parts.insert(0, Part::Text { text: context });
    vec![MessageBody::User { parts }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::TurnId;
    use crate::message::ToolCall;

    fn user(text: &str) -> MessageBody {
        MessageBody::user_text(text)
    }

    fn assistant(text: &str) -> MessageBody {
        MessageBody::assistant_text(text)
    }

    fn calling(text: &str, id: &str) -> MessageBody {
        let call = ToolCall { id: id.into(), name: "x".into(), arguments: "{}".into() };
        MessageBody::Assistant { text: text.into(), tool_calls: vec![call] }
    }

    fn result(id: &str) -> MessageBody {
        MessageBody::ToolResult { call_id: id.into(), name: "x".into(), content: "r".into(), is_error: false }
    }

    fn transcript(turns: Vec<Vec<MessageBody>>) -> Vec<Message> {
        let mut seq = 0;
        let mut out = Vec::new();
        for (number, turn) in turns.into_iter().enumerate() {
            for body in turn {
                seq += 1;
                let turn = TurnId::new(format!("t{number}"));
                out.push(Message { seq, epoch: 0, turn, at: Timestamp::EPOCH, body });
            }
        }
        out
    }

    #[test]
    fn a_resent_history_is_left_out() {
        let ours = transcript(vec![vec![user("1"), assistant("a ")], vec![user("2"), assistant("b")]]);
        let input = vec![user("1"), assistant("a"), user("2"), assistant("b"), user("3")];
        assert_eq!(unknown_part(&ours, input), [user("3")]);
    }

    #[test]
    fn a_history_that_the_client_shortened_is_left_out_too() {
        let ours = transcript(vec![vec![user("1"), assistant("a")], vec![user("2"), assistant("b")]]);
        assert_eq!(unknown_part(&ours, vec![user("2"), assistant("b"), user("3")]), [user("3")]);
    }

    #[test]
    fn tool_steps_on_our_side_do_not_hide_the_history() {
        let turn = vec![user("1"), calling("let me see", "c"), result("c"), assistant("done")];
        let input = vec![user("1"), assistant("let me see\n\ndone"), user("2")];
        assert_eq!(unknown_part(&transcript(vec![turn]), input), [user("2")]);
    }

    #[test]
    fn a_clients_tool_result_is_new() {
        let ours = transcript(vec![vec![user("1"), calling("", "c")]]);
        let input = vec![user("1"), calling("", "c"), result("c")];
        assert_eq!(unknown_part(&ours, input), [result("c")]);
    }

    #[test]
    fn a_fresh_session_takes_the_whole_history() {
        let input = vec![user("1"), assistant("a"), user("2")];
        assert_eq!(unknown_part(&[], input.clone()), input);
    }

    #[test]
    fn a_turn_that_failed_does_not_hide_the_history() {
        let ours = transcript(vec![vec![user("1"), assistant("a")], vec![user("2"), assistant(FAILED_NOTE)]]);
        let input = vec![user("1"), assistant("a"), user("2"), user("3")];
        assert_eq!(unknown_part(&ours, input), [user("3")]);
    }

    #[test]
    fn a_history_of_another_session_is_given_as_context() {
        let ours = transcript(vec![vec![user("1"), assistant("a")]]);
        let out = unknown_part(&ours, vec![user("x"), assistant("y"), user("3")]);
        let expected = "[Earlier messages that the client sent along, for context]\nUser: x\nAssistant: y\n\n\
                        [The current message – answer this one]\n";
        let parts = vec![Part::Text { text: expected.into() }, Part::Text { text: "3".into() }];
        assert_eq!(out, [MessageBody::User { parts }]);
    }
}
