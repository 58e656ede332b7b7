//! From transcript to model request.
