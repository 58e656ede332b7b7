//! What the contract tests share: the parts around the product, never a copy of the product.

#![expect(clippy::expect_used, clippy::panic, reason = "a harness that cannot set itself up fails the test")]

pub mod agents;
pub mod app;
pub mod client;
pub mod clients;
pub mod cloud;
pub mod crash_points;
pub mod dynamo;
pub mod files;
pub mod lab;
pub mod lambda;
pub mod process;
#[path = "../simulation/simulation.rs"]
pub mod simulation;
pub mod sqs;
pub mod stores;
pub mod time;
pub mod transcript;
pub mod usage;
pub mod vendor;
