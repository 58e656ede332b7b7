//! Adapters: technology + port. Each knows the concepts and its one technology, never HTTP and never another adapter.

#[cfg(feature = "aws")]
pub mod aws;
pub mod folder;
pub mod memory;
pub mod models;
#[cfg(feature = "onprem")]
pub mod onprem;
#[cfg(feature = "onprem")]
pub mod prometheus;
