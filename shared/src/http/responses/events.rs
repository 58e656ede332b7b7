//! A turn's events as the events of a streamed response: a state machine without input or output.

use super::super::error::ApiError;
use super::super::{run, sse};
use super::resource::{Content, Item, Response, Status, message_id};
use crate::agent::TurnEvent;
use crate::model::ToolChoice;
use crate::session::Reply;
use axum::body::Bytes;
use serde::Serialize;

/// A response on its way to a client.
#[derive(Debug)]
pub(super) struct Progress {
    response: Response,
    /// The text so far, once its message has begun.
    said: Option<String>,
    /// What the client demands of the reply.
    tool_choice: ToolChoice,
    out: Out,
}

impl Progress {
    /// Begins: `response.created` and `response.in_progress` wait in [`Progress::drain`].
    pub(super) fn new(response: Response, tool_choice: ToolChoice) -> Self {
        let mut out = Out::default();
        out.push("response.created", &Whole { response: &response });
        out.push("response.in_progress", &Whole { response: &response });
        Self { response, said: None, tool_choice, out }
    }

    /// The frames since the last call.
    pub(super) fn drain(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.out.frames)
    }

    /// Nothing more will come.
    pub(super) fn is_over(&self) -> bool {
        self.response.is_over()
    }

    /// Takes the turn's next event.
    pub(super) fn take(&mut self, event: TurnEvent) {
        match event {
            TurnEvent::Text { delta } => self.say(&delta),
            TurnEvent::Ended { outcome } => match run::reply_as_chosen(outcome, &self.tool_choice) {
                Ok(reply) => self.complete(reply),
                Err(error) => self.fail(&error),
            },
            // Tools that run on our side are no items of the output: the client has nothing to do for them.
            TurnEvent::Accepted { .. } | TurnEvent::ToolStarted { .. } | TurnEvent::ToolFinished { .. } => {}
        }
    }

    /// Ends the response with an error; a text that had begun stays in it as incomplete.
    pub(super) fn fail(&mut self, error: &ApiError) {
        self.response.fail(error, self.said.take());
        self.finish();
    }

    fn complete(&mut self, reply: Reply) {
        // A resumed turn comes without the text of before the interruption, then nothing fits what was said.
        let unsaid = match &self.said {
            None => reply.text.as_str(),
            Some(said) => reply.text.strip_prefix(said.as_str()).unwrap_or_default(),
        };
        if !unsaid.is_empty() {
            self.say(unsaid);
        } else if reply.text.is_empty() && reply.tool_calls.is_empty() {
            self.say(run::NO_TEXT);
        }
        self.response.complete(reply);
        self.finish();
    }

    fn say(&mut self, delta: &str) {
        let turn = self.response.turn();
        let id = message_id(turn);
        if self.said.is_none() {
            let item = Item::Message {
                id: id.clone(),
                status: Status::InProgress,
                role: "assistant",
                content: Vec::new(),
                phase: None,
            };
            self.out.push("response.output_item.added", &OfItem { output_index: 0, item: &item });
            let body = OfText { part: Some(Content::text("")), ..OfText::at(&id) };
            self.out.push("response.content_part.added", &body);
        }
        self.said.get_or_insert_default().push_str(delta);
        if !delta.is_empty() {
            let body = OfText { delta: Some(delta), logprobs: Some([]), ..OfText::at(&id) };
            self.out.push("response.output_text.delta", &body);
        }
    }

    /// The last events of each item, then that of the whole; texts are those of the response.
    fn finish(&mut self) {
        let out = &mut self.out;
        for (output_index, item) in self.response.output().iter().enumerate() {
            match item {
                Item::Message { id, content, .. } => {
                    for part in content {
                        let Content::OutputText { text, .. } = part;
                        let body = OfText { text: Some(text), logprobs: Some([]), ..OfText::at(id) };
                        out.push("response.output_text.done", &body);
                        let body = OfText { part: Some(part.clone()), ..OfText::at(id) };
                        out.push("response.content_part.done", &body);
                    }
                }
                Item::FunctionCall { id, call_id, name, arguments, .. } => {
                    let begun = Item::FunctionCall {
                        id: id.clone(),
                        call_id: call_id.clone(),
                        name: name.clone(),
                        arguments: String::new(),
                        status: Status::InProgress,
                    };
                    out.push("response.output_item.added", &OfItem { output_index, item: &begun });
                    let at =
                        OfArguments { item_id: id, output_index, delta: None, name: None, arguments: None };
                    let body = OfArguments { delta: Some(arguments), ..at };
                    out.push("response.function_call_arguments.delta", &body);
                    let body = OfArguments { name: Some(name), arguments: Some(arguments), ..at };
                    out.push("response.function_call_arguments.done", &body);
                }
            }
            out.push("response.output_item.done", &OfItem { output_index, item });
        }
        let name = match self.response.status() {
            Status::Completed => "response.completed",
            Status::Incomplete => "response.incomplete",
            Status::Queued | Status::InProgress | Status::Failed => "response.failed",
        };
        out.push(name, &Whole { response: &self.response });
        out.frames.push(sse::DONE);
    }
}

/// The frames of a stream that never began.
pub(super) fn refusal(error: &ApiError) -> Vec<Bytes> {
    let mut out = Out::default();
    out.push("error", &Refused { error: error.to_value() });
    out.frames.push(sse::DONE);
    out.frames
}

/// Numbers the events.
#[derive(Debug, Default)]
struct Out {
    sequence: u64,
    frames: Vec<Bytes>,
}

impl Out {
    fn push(&mut self, name: &'static str, body: &impl Serialize) {
        let event = Event { r#type: name, sequence_number: self.sequence, body };
        self.frames.push(sse::event(name, &event));
        self.sequence += 1;
    }
}

#[derive(Serialize)]
struct Event<'a, T> {
    r#type: &'static str,
    sequence_number: u64,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Serialize)]
struct Whole<'a> {
    response: &'a Response,
}

#[derive(Serialize)]
struct Refused {
    error: serde_json::Value,
}

#[derive(Serialize)]
struct OfItem<'a> {
    output_index: usize,
    item: &'a Item,
}

/// What happens to the text of the message. The message is always the first item, its text its only part.
#[derive(Serialize)]
struct OfText<'a> {
    item_id: &'a str,
    output_index: usize,
    content_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<Content>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<[(); 0]>,
}

impl<'a> OfText<'a> {
    const fn at(item_id: &'a str) -> Self {
        Self {
            item_id,
            output_index: 0,
            content_index: 0,
            part: None,
            delta: None,
            text: None,
            logprobs: None,
        }
    }
}

/// What happens to the arguments of a call.
#[derive(Clone, Copy, Serialize)]
struct OfArguments<'a> {
    item_id: &'a str,
    output_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<&'a str>,
}
