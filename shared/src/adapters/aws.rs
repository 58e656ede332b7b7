//! Adapters for AWS.

pub mod dynamodb;
pub mod lambda;
pub mod s3;
pub mod sqs;
pub mod start;
