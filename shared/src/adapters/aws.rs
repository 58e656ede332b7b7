//! Adapters for AWS.

pub mod dynamodb;
