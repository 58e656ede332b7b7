//! Three regions in one process, on one thread, with a clock that only moves when everybody waits.
//!
//! In each region run the real router, `Runner`, worker, sweep and stores; simulated are the tables (see [`tables`]),
//! the links between regions, the model and the tools. A history is a list of [`op::Op`]s; [`run`] plays one and says
//! what it broke. Afterwards, if a region is lost, the others go on as if it never came back:
//!
//! - They come to rest, and each session takes a further turn, in whichever of them it is asked for.
//! - Every turn that one of them accepted has an outcome, which at least one of them shows. (For a turn that an old home
//!   accepts without knowing of its successor this holds only within 15 minutes after the session came to that home, see
//!   the README; hardly a history lasts longer.)
//!
//! Then everything is healed and left to settle, and holds, whatever happened:
//!
//! - Every accepted turn has exactly one visible outcome, the same in every region: by its id and by its key.
//! - No tool that may not run twice did, in one turn.
//! - No session is stuck: nothing is interrupted, and each takes a further turn.
//! - Every job is done, or dead with a reason.
//! - A transcript holds each input once, each result of a tool once, and is the same in every region. What a reset put away
//!   does not come back.
//! - The audit chains verify. What is replicated is the same everywhere.
//! - No request was answered with anything but a reply, or an error that says when to try again.
//!
//! Not a failure, because no installation whose regions do not wait for each other can promise it:
//!
//! - While a region is lost, the last things that it wrote are missing elsewhere, perhaps in one of the others only. They
//!   turn up when it returns.
//! - While two regions cannot see each other, two clients that ask with one key on both sides get two answers, and a
//!   tool may run for each. One of the answers stays. The same hook sent to both sides is two requests, too.
//! - A turn that goes on in another region may ask the model again for what it had been told.
//! - Such a turn is parked before a tool that may not run twice, though the tool never ran.

mod dice;
mod history;
#[cfg(test)]
mod late;
mod life;
mod model;
pub mod op;
mod regions;
mod settled;
mod shrink;
#[cfg(test)]
mod superseded;
mod tables;

pub use dice::Dice;
pub use history::{Report, run};
pub use regions::Stage;
pub use shrink::{Failure, shrunk, try_seed};
