//! Every HTTP surface.
