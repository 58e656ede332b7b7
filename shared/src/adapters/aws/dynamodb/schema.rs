//! What the tables are made of: the truth that templates and tests are checked against.
//!
//! Two tables of one form: `core`, which is replicated to every region, and `local`, which is not. Both have the text
//! keys [`PARTITION`](super::table::PARTITION) and [`SORT`](super::table::SORT); each index projects keys only.
//!
//! | partition | sort | item |
//! |---|---|---|
//! | `S#tenant#session` | `H` | the session: home, epoch, agent, user |
//! | | `H!` | the transcripts of a deleted session that are still to be cleared |
//! | | `H#epoch` | the head of one epoch: fence, holder, positions, chain's end |
//! | | `M#transcript#epoch#seq#n` | a step: its messages, its audit rows, a turn's beginning or end |
//! | | `M#transcript#epoch#seq#n#part` | what a large step goes on in |
//! | | `P#transcript#epoch` | a transcript that a reset put away |
//! | `T#tenant#turn` | `epoch` | where a turn begins |
//! | `I#tenant#principal#key` | `-` | an idempotency record |
//! | | `B#region#n` | a piece of its answer, if that is over 4 KB; `region` wrote it |
//! | `K#tenant` | `time#turn` | a parked turn |
//! | `G#tenant` | `G#agent` | an agent that has sessions |
//! | `J#tenant#job` | `-` | a job |
//! | | `B#region#n` | a piece of its work, if that is over 4 KB; `region` wrote it |
//! | `U#token` | `-` | a token |
//! | `R#subject` | `-` | a rate limit's state, in `local` |
//! | `REGION` | `region#beat`, `region#flag` | a region's sign of life; whether it is in service |
//! | `W#region` | a session's partition | a session that another region may have written to, too |
//! | `SIGHT` | `-` | when a region was last out of sight from here, in `local` |
//! | | `beat#region` | a region's sign of life that lies ahead of the clock here, and since when it has been known, in `local` |
//! | `LOOK` | `-` | where the next look at `W#` of this region begins, in `local` |
//!
//! Index [`LISTED`]: sessions by agent (`SA#`), audit rows by time (`A#`), jobs by state (`JS#`), tokens by tenant (`UT#`).
//! Index [`DUE`]: sessions at work (`HELD#`), a region's pending jobs (`DUE#`). Index [`USER`]: sessions by end user (`SU#`).

use super::table::Index;

/// Sessions, audit rows, jobs and tokens as they are listed.
pub const LISTED: Index = Index { name: "listed", partition: "lp", sort: "ls" };

/// What somebody must look at in time: sessions at work, pending jobs.
pub const DUE: Index = Index { name: "due", partition: "dp", sort: "ds" };

/// Sessions of end users.
pub const USER: Index = Index { name: "user", partition: "up", sort: "us" };

/// Indexes of the table `core`.
pub const CORE_INDEXES: [Index; 3] = [LISTED, DUE, USER];

/// Indexes of the table `local`.
pub const LOCAL_INDEXES: [Index; 0] = [];

/// The attribute by which both tables forget items: seconds since the Unix epoch. In `core` idempotency records and jobs that
/// are done have it, with the items that they go on in. DynamoDB removes an item up to two days late, so whoever reads or
/// writes one takes it for absent from this time on.
pub const EXPIRES: &str = "ttl";
