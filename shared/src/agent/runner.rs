//! The turn's loop.
