//! Model providers, by wire protocol.
