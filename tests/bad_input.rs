//! Bad input: each case with its exact status and error code, and random input that must never be our failure.

#[path = "bad_input/absurd.rs"]
mod absurd;
#[path = "bad_input/cases.rs"]
mod cases;
#[path = "bad_input/random.rs"]
mod random;
