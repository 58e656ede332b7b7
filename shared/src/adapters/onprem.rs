//! Adapters for a company's own servers.
