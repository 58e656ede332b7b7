//! Adapters for AWS.

pub mod dynamodb;
pub mod sqs;
