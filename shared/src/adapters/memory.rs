//! Every storage port in memory: the reference semantics.
