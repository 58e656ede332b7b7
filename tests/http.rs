//! The HTTP surfaces, route by route, over the real router and Runner.

#[path = "http/auth.rs"]
mod auth;
#[path = "http/budget.rs"]
mod budget;
#[path = "http/chat_completions.rs"]
mod chat_completions;
#[path = "http/edges.rs"]
mod edges;
#[path = "http/health.rs"]
mod health;
#[path = "http/hooks.rs"]
mod hooks;
#[path = "http/log.rs"]
mod log;
#[path = "http/models.rs"]
mod models;
#[path = "http/openapi.rs"]
mod openapi;
#[path = "http/responses.rs"]
mod responses;
#[path = "http/sessions.rs"]
mod sessions;
#[path = "http/tools_invoke.rs"]
mod tools_invoke;
