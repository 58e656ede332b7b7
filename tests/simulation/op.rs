//! What happens in a history. Every operation picks what it is about by index, modulo what there is, so that any part of
//! a list is a list, and a failing one shrinks to the few operations that matter.

use super::dice::Dice;

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// A client asks in a region for a turn on a session; with a key, the key says session and text.
    Chat { region: u8, session: u8, key: Option<u8>, kind: u8 },
    /// A hook comes in.
    EnqueueJob { region: u8, session: u8, key: Option<u8>, kind: u8 },
    /// A client asks a region to put a session's transcript away and to begin a new one.
    Reset { region: u8, session: u8 },
    /// A region's worker does what is due.
    RunWorker { region: u8 },
    /// A region looks for interrupted turns and late writes.
    Sweep { region: u8 },
    /// Time passes; every region gives its signs of life.
    Advance { time: u8 },
    /// Part of what is being replicated arrives, in any order.
    Replicate { percent: u8 },
    /// A region is gone, with what it had not sent yet.
    LoseRegion { region: u8 },
    /// Lost regions are back.
    ReturnRegions,
    /// Two regions do not see each other.
    Partition { one: u8, other: u8 },
    /// They do.
    Heal,
    /// An operator takes a region out of service, from another one.
    Evacuate { from: u8, region: u8 },
    /// An operator puts it back.
    Restore { from: u8, region: u8 },
    /// A region's process dies at a write to come: before it is done, or after it was.
    Crash { region: u8, write: u8 },
    /// A region's process hears nothing of a write to come, which is not done, or is.
    LoseAnswer { region: u8, write: u8 },
    /// A region's process stops where it is, as if its machine slept; another one starts.
    Freeze { region: u8 },
    /// Processes that stopped go on.
    Thaw,
    /// Of every few writes of a region's process one is done whose answer is lost.
    LoseAnswers { region: u8, every: u8 },
}

/// How long [`Op::Advance`] lasts, in seconds.
pub const TIMES: [u64; 6] = [1, 5, 20, 70, 100, 200];

/// What a turn does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Replies at once.
    Plain,
    /// Thinks for a while.
    Slow,
    /// Calls a tool that may run twice, then replies.
    Look,
    /// Calls a tool that may not run twice, then replies.
    Pay,
}

impl Kind {
    /// By index.
    pub const fn of(index: u8) -> Self {
        match index % 6 {
            0 | 1 => Self::Plain,
            2 => Self::Slow,
            3 => Self::Look,
            _ => Self::Pay,
        }
    }

    /// As the model reads it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Slow => "slow",
            Self::Look => "look",
            Self::Pay => "pay",
        }
    }
}

/// A random history.
pub fn history(dice: &Dice) -> Vec<Op> {
    let length = 6 + dice.below(15);
    (0..length).map(|_| op(dice)).collect()
}

fn op(dice: &Dice) -> Op {
    let byte = |below: u64| u8::try_from(dice.below(below)).expect("below 256");
    let key = || dice.percent(50).then(|| byte(4));
    match dice.below(100) {
        0..27 => Op::Chat { region: byte(3), session: byte(3), key: key(), kind: byte(6) },
        27..30 => Op::Reset { region: byte(3), session: byte(3) },
        30..32 => Op::LoseAnswer { region: byte(3), write: byte(12) },
        32..40 => Op::EnqueueJob { region: byte(3), session: byte(3), key: key(), kind: byte(6) },
        40..48 => Op::RunWorker { region: byte(3) },
        48..56 => Op::Sweep { region: byte(3) },
        56..70 => Op::Advance { time: byte(6) },
        70..74 => Op::Replicate { percent: byte(101) },
        74..77 => Op::LoseRegion { region: byte(3) },
        77..80 => Op::ReturnRegions,
        80..85 => Op::Partition { one: byte(3), other: byte(3) },
        85..88 => Op::Heal,
        88..90 => Op::Evacuate { from: byte(3), region: byte(3) },
        90..92 => Op::Restore { from: byte(3), region: byte(3) },
        92..95 => Op::LoseAnswers { region: byte(3), every: byte(6) },
        95 => Op::Freeze { region: byte(3) },
        96 => Op::Thaw,
        _ => Op::Crash { region: byte(3), write: byte(12) },
    }
}
