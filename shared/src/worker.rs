//! The queue worker: runs one delivery and says how it ended.
