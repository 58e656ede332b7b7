//! Adapters for AWS.

pub mod dynamodb;
pub mod lambda;
pub mod sqs;
