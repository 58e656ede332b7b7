//! A [`Message`]: one entry of a transcript. Append-only, in the order in which things happened.

use crate::clock::Timestamp;
use crate::id::TurnId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// About what a message, or a call of one, takes beside its texts, in bytes.
const OVERHEAD: usize = 192;

/// One entry of a transcript.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Position in the transcript, from 1, without holes within an epoch.
    pub seq: u64,
    /// Which change of home the entry was written under; 0 until the first.
    pub epoch: u64,
    /// The turn it belongs to.
    pub turn: TurnId,
    /// When it was recorded.
    pub at: Timestamp,
    /// What was said.
    pub body: MessageBody,
}

/// What was said, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum MessageBody {
    /// The person's or program's input.
    User {
        /// In order; never empty.
        parts: Vec<Part>,
    },
    /// The model's words, and the tools it asks for.
    Assistant {
        /// May be empty when tools are called.
        text: String,
        /// Empty for a plain reply.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<ToolCall>,
    },
    /// What a tool answered.
    ToolResult {
        /// [`ToolCall::id`] of the call it answers.
        call_id: String,
        /// The tool's name; empty when a client's tool result did not repeat it.
        name: String,
        /// Text for the model.
        content: String,
        /// The tool failed; `content` says how.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
    /// A compaction: stands in the prompt for every message up to and including `through`.
    Summary {
        /// The summary, for the model.
        text: String,
        /// Last position that it covers.
        through: u64,
    },
}

/// A piece of a user's message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Plain text.
    Text {
        /// The text.
        text: String,
    },
    /// A picture.
    Image {
        /// E.g. `image/png`.
        media_type: String,
        /// The bytes, in standard base64 with padding.
        data: String,
    },
}

impl Part {
    /// Bytes of its text or picture.
    const fn bytes(&self) -> usize {
        match self {
            Self::Text { text } => text.len(),
            Self::Image { data, .. } => data.len(),
        }
    }
}

/// A model's request to run a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Unique within the session; given to the tool as its idempotency token.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// Arguments as the model wrote them: meant to be a JSON object, but not yet checked.
    pub arguments: String,
}

impl ToolCall {
    /// The arguments as JSON; an empty string counts as `{}`.
    ///
    /// # Errors
    /// The model's text is not JSON.
    pub fn parsed_arguments(&self) -> Result<Value, serde_json::Error> {
        let text = self.arguments.trim();
        serde_json::from_str(if text.is_empty() { "{}" } else { text })
    }
}

impl Message {
    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        /// About what a message, or a call in it, takes beside its texts.
        const BESIDE: usize = 192;
        let part = |part: &Part| match part {
            Part::Text { text } => text.len(),
            Part::Image { data, .. } => data.len(),
        };
        let texts = match &self.body {
            MessageBody::User { parts } => parts.iter().map(part).sum(),
            MessageBody::Assistant { text, tool_calls } => {
                let calls = tool_calls.iter().map(|call| call.name.len() + call.arguments.len() + BESIDE);
                text.len() + calls.sum::<usize>()
            }
            MessageBody::ToolResult { content, .. } => content.len(),
            MessageBody::Summary { text, .. } => text.len(),
        };
        BESIDE + texts
    }
}

impl MessageBody {
    /// Stands in a transcript for a message that cannot be read any more.
    pub fn unreadable() -> Self {
        Self::user_text("[This message cannot be read any more.]")
    }

    /// A user's message of one text.
    pub fn user_text(text: impl Into<String>) -> Self {
        Self::User { parts: vec![Part::Text { text: text.into() }] }
    }

    /// A model's reply of one text.
    pub fn assistant_text(text: impl Into<String>) -> Self {
        Self::Assistant { text: text.into(), tool_calls: Vec::new() }
    }

    /// `user`, `assistant`, `tool` or `summary`: the role as clients of the transcript see it.
    pub const fn role(&self) -> &'static str {
        match self {
            Self::User { .. } => "user",
            Self::Assistant { .. } => "assistant",
            Self::ToolResult { .. } => "tool",
            Self::Summary { .. } => "summary",
        }
    }

    /// About how many bytes it takes in memory.
    pub fn bytes(&self) -> usize {
        let texts = match self {
            Self::User { parts } => parts.iter().map(Part::bytes).sum(),
            Self::Assistant { text, tool_calls } => {
                let calls = tool_calls.iter().map(|call| call.name.len() + call.arguments.len() + OVERHEAD);
                text.len() + calls.sum::<usize>()
            }
            Self::ToolResult { content, .. } => content.len(),
            Self::Summary { text, .. } => text.len(),
        };
        OVERHEAD + texts
    }

    /// All text of the message, parts joined by line feeds; pictures are left out.
    pub fn text(&self) -> String {
        match self {
            Self::User { parts } => {
                let texts = parts.iter().filter_map(|part| match part {
                    Part::Text { text } => Some(text.as_str()),
                    Part::Image { .. } => None,
                });
                texts.collect::<Vec<_>>().join("\n")
            }
            Self::Assistant { text, .. } | Self::Summary { text, .. } => text.clone(),
            Self::ToolResult { content, .. } => content.clone(),
        }
    }
}
