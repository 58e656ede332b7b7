//! The HTTP surfaces, route by route, over the real router and Runner.

#[path = "http/chat_completions.rs"]
mod chat_completions;

#[path = "http/responses.rs"]
mod responses;
