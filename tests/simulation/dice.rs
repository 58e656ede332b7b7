//! Randomness from a seed: the same seed gives the same history, on every machine.

use std::sync::Mutex;

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub struct Dice(Mutex<u64>);

impl Dice {
    /// Thrown the same way for the same seed.
    pub const fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    /// Any number.
    pub fn any(&self) -> u64 {
        let mut state = self.0.lock().expect("a throw does not panic");
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below `below`; 0 for 0.
    pub fn below(&self, below: u64) -> u64 {
        self.any() % below.max(1)
    }

    /// True in so many of a hundred throws.
    pub fn percent(&self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
