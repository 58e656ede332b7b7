//! What the contract tests share: the parts around the product, never a copy of the product.

#![expect(clippy::expect_used, clippy::panic, reason = "a harness that cannot set itself up fails the test")]

pub mod app;
pub mod lab;
pub mod time;
pub mod vendor;
