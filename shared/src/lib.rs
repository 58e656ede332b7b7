//! Reef: durable agent turns.
//!
//! An accepted turn is stored before any model is called, journaled step by step, and answered once – through
//! crashes, restarts and two processes on one store.
//!
//! # Where to find what
//!
//! *Concepts*, each with its types and then its port:
//! [`message`] (one entry of a transcript) · [`session`] (sessions, turns, leases) · [`agent`] (what is asked, what is
//! answered) · [`model`] (model vendors) · [`tool`] (what an agent can do) · [`files`] (what it works with) · [`job`] (work that runs later) ·
//! [`limit`] (rate limits) · [`principal`] (tokens and scopes) · [`region`] (homes of sessions) · [`answer`] (idempotency of requests that are no
//! turns) · [`audit`] (who did what) · [`metrics`] (what operators watch) · [`bounds`] (how much of what is taken) · [`nesting`] (how deep a text is nested) · [`budget`] (memory lent to work) · [`readiness`] (whether work may come) ·
//! [`unreadable`] (rows that cannot be read) · [`clock`], [`id`] (time and names,
//! injected) · [`secret`] (what is never shown) · [`quote`] (what others wrote, in sentences of ours) · [`error`] (what a failure means).
//!
//! *What runs on them*: [`agent::runner`] (the turn's loop) · [`agent::prompt`] (transcript to model request) ·
//! [`tools`] (the built-in tools) · [`worker`] (the queue's worker) · [`http`] (every HTTP surface) · [`app`] (one
//! struct that holds it all) · [`config`] (`openclaw.json` and the environment) · `logs` (lines of JSON) · `cloud` (what the
//! functions are wired from).
//!
//! *Adapters*, technology + port: [`adapters`].
//!
//! The dependency rule – adapters know concepts, HTTP knows concepts, neither knows the other – is a test:
//! `tests/architecture.rs`.

pub mod adapters;
pub mod agent;
pub mod answer;
pub mod app;
pub mod audit;
pub mod bounds;
pub mod budget;
pub mod clock;
#[cfg(feature = "aws")]
pub mod cloud;
pub mod config;
pub mod error;
pub mod files;
pub mod http;
pub mod id;
pub mod job;
pub mod limit;
#[cfg(any(feature = "aws", feature = "onprem"))]
pub mod logs;
pub mod message;
pub mod metrics;
pub mod model;
pub mod nesting;
pub mod principal;
pub mod quote;
pub mod readiness;
pub mod region;
pub mod secret;
pub mod session;
pub mod tool;
pub mod tools;
pub mod unreadable;
pub mod worker;
