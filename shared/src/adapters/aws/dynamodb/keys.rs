//! The stores' keys. Parts stand behind each other with `#` between; what a caller gave is escaped, so that no two lists
//! of parts give the same key.

use super::table::Key;
use crate::clock::Timestamp;
use crate::id::{AgentId, JobId, PrincipalId, SessionId, SessionKey, TenantId, TurnId};

/// The sort key of items that are alone in their partition.
const ALONE: &str = "-";

/// The sort key of a session's own item, before the heads of its epochs.
pub(super) const META: &str = "H";

/// The sort key of what a deletion still has to clear.
pub(super) const CLEARING: &str = "H!";

/// How many partitions of an index share what all sessions of a tenant write: a power of two.
pub(super) const SHARDS: u64 = 4;

/// Positions in keys have twelve digits.
const LAST_POSITION: u64 = 999_999_999_999;

/// Stands for `#`.
const HASH: char = '\u{1}';

/// Stands before a control character, which is then [`PRINTED`].
const CONTROL: char = '\u{2}';

/// What a control character differs by from the one that is written for it.
const PRINTED: u8 = 0x40;

/// `text` without the character that keys are built with. As long as the text, so that whatever may be the name of a
/// session fits into a key; only control characters, which callers may not use in names, take two.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '#' => escaped.push(HASH),
            '\u{0}'..='\u{1f}' | '\u{7f}' => {
                escaped.push(CONTROL);
                escaped.extend(u8::try_from(character).map(|code| char::from(code ^ PRINTED)));
            }
            plain => escaped.push(plain),
        }
    }
    escaped
}

/// What [`escape`] was given; `None` for what it never returns.
pub(super) fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            HASH => '#',
            CONTROL => char::from(u8::try_from(characters.next()?).ok()? ^ PRINTED),
            plain => plain,
        });
    }
    Some(plain)
}

/// Just behind every key that begins with `prefix`, which ends with `#`.
pub(super) fn behind(prefix: &str) -> String {
    format!("{}$", prefix.strip_suffix('#').unwrap_or(prefix))
}

/// A text that sorts as the time does.
pub(super) fn in_order(time: Timestamp) -> String {
    format!("{:016x}", time.as_millis().cast_unsigned() ^ (1 << 63))
}

fn position(seq: u64) -> u64 {
    seq.min(LAST_POSITION)
}

fn alone(partition: String) -> Key {
    Key { partition, sort: ALONE.to_owned() }
}

/// Where something of a session is.
pub(super) fn of_session(tenant: &TenantId, session: &SessionKey, sort: impl Into<String>) -> Key {
    Key { partition: session_partition(tenant, session), sort: sort.into() }
}

/// A session's partition.
pub(super) fn session_partition(tenant: &TenantId, session: &SessionKey) -> String {
    format!("S#{}#{}", escape(tenant.as_str()), escape(session.as_str()))
}

/// The tenant and the session of a partition.
pub(super) fn session_of(partition: &str) -> Option<(TenantId, SessionKey)> {
    let (tenant, session) = partition.strip_prefix("S#")?.split_once('#')?;
    Some((TenantId::new(unescape(tenant)?), SessionKey::new(unescape(session)?)))
}

/// The head of an epoch.
pub(super) fn head(epoch: u64) -> String {
    format!("H#{epoch:010}")
}

/// All heads begin so.
pub(super) const HEADS: &str = "H#";

/// A transcript that was put away under this epoch.
pub(super) fn past(id: &SessionId, epoch: u64) -> String {
    format!("P#{}#{epoch:010}", escape(id.as_str()))
}

/// The transcript and the epoch of such a key.
pub(super) fn past_of(sort: &str) -> Option<(SessionId, u64)> {
    let (id, epoch) = sort.strip_prefix(PAST)?.split_once('#')?;
    Some((SessionId::new(unescape(id)?), epoch.parse().ok()?))
}

/// All transcripts that were put away begin so.
pub(super) const PAST: &str = "P#";

/// All steps of a transcript begin so.
pub(super) fn steps(id: &SessionId) -> String {
    format!("M#{}#", escape(id.as_str()))
}

/// All steps of a session begin so.
pub(super) const STEPS: &str = "M#";

/// Steps of one epoch from this position on.
pub(super) fn steps_from(id: &SessionId, epoch: u64, first: u64) -> String {
    format!("{}{epoch:010}#{:012}#", steps(id), position(first))
}

/// Behind the steps of one epoch up to this position.
pub(super) fn steps_through(id: &SessionId, epoch: u64, first: u64) -> String {
    behind(&steps_from(id, epoch, first))
}

/// A step; `part` above 0 for what goes on in further items.
pub(super) fn step(id: &SessionId, at: StepAt, part: usize) -> String {
    let sort = format!("{}{:010}", steps_from(id, at.epoch, at.first), at.n);
    if part == 0 { sort } else { format!("{sort}#{part:03}") }
}

/// Where a step stands in its transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StepAt {
    /// Under which change of home it was written.
    pub(super) epoch: u64,
    /// Position of its first message, or of the next one if it has none.
    pub(super) first: u64,
    /// Which write of the session's head.
    pub(super) n: u64,
}

/// The transcript and place of a step, and its part, from its sort key.
pub(super) fn step_of(sort: &str) -> Option<(SessionId, StepAt, usize)> {
    let mut parts = sort.strip_prefix(STEPS)?.split('#');
    let id = SessionId::new(unescape(parts.next()?)?);
    let mut number = || parts.next()?.parse::<u64>().ok();
    let at = StepAt { epoch: number()?, first: number()?, n: number()? };
    let part = match parts.next() {
        Some(part) => part.parse().ok()?,
        None => 0,
    };
    Some((id, at, part))
}

/// Where a turn begins that was begun under this epoch: no two regions write the same.
pub(super) fn turn(tenant: &TenantId, turn: &TurnId, epoch: u64) -> Key {
    Key { partition: turn_partition(tenant, turn), sort: format!("{epoch:010}") }
}

/// All beginnings of a turn.
pub(super) fn turn_partition(tenant: &TenantId, turn: &TurnId) -> String {
    format!("T#{}#{}", escape(tenant.as_str()), escape(turn.as_str()))
}

/// An idempotency record.
pub(super) fn idempotency(tenant: &TenantId, principal: &PrincipalId, key: &str) -> Key {
    let (tenant, principal) = (escape(tenant.as_str()), escape(principal.as_str()));
    alone(format!("I#{tenant}#{principal}#{}", escape(key)))
}

/// A parked turn in its tenant's list.
pub(super) fn parked(tenant: &TenantId, ended_at: Timestamp, turn: &TurnId) -> Key {
    Key { partition: parked_of(tenant), sort: format!("{}#{}", in_order(ended_at), escape(turn.as_str())) }
}

/// The tenant's list of parked turns.
pub(super) fn parked_of(tenant: &TenantId) -> String {
    format!("K#{}", escape(tenant.as_str()))
}

/// The tenant's list of agents that have sessions.
pub(super) fn agents_of(tenant: &TenantId) -> String {
    format!("G#{}", escape(tenant.as_str()))
}

/// An agent in that list.
pub(super) fn agent(tenant: &TenantId, agent: &AgentId) -> Key {
    Key { partition: agents_of(tenant), sort: format!("G#{}", escape(agent.as_str())) }
}

/// The agent of such a key.
pub(super) fn agent_of(sort: &str) -> Option<AgentId> {
    Some(AgentId::new(unescape(sort.strip_prefix("G#")?)?))
}

/// A job.
pub(super) fn job(tenant: &TenantId, id: &JobId) -> Key {
    alone(format!("J#{}#{}", escape(tenant.as_str()), escape(id.as_str())))
}

/// What says, in a session's partition, that this job is for it: the beginning of all of them, then one.
pub(super) const JOBS: &str = "J#";

/// As above.
pub(super) fn job_of_session(tenant: &TenantId, session: &SessionKey, id: &JobId) -> Key {
    of_session(tenant, session, format!("{JOBS}{}", escape(id.as_str())))
}

/// The job that such an item names.
pub(super) fn named_job(sort: &str) -> Option<JobId> {
    unescape(sort.strip_prefix(JOBS)?).map(JobId::new)
}

/// The tenant and the job of a partition.
pub(super) fn job_of(partition: &str) -> Option<(TenantId, JobId)> {
    let (tenant, id) = partition.strip_prefix("J#")?.split_once('#')?;
    Some((TenantId::new(unescape(tenant)?), JobId::new(unescape(id)?)))
}

/// A token.
pub(super) fn token(id: &PrincipalId) -> Key {
    alone(format!("U#{}", escape(id.as_str())))
}

/// The mark of a tenant's first token.
pub(super) fn first_token(tenant: &TenantId) -> Key {
    alone(format!("UF#{}", escape(tenant.as_str())))
}

/// A rate limit's subject.
pub(super) fn subject(subject: &str) -> Key {
    alone(format!("R#{}", escape(subject)))
}

/// One of [`SHARDS`], the same for the same text.
pub(super) fn shard(text: &str) -> u64 {
    // FNV-1a: the same in every process and version.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // Few bits of it depend on the last characters, in which names differ most. Multiplied by 2^64 divided by the golden
    // ratio (Fibonacci hashing), the highest bits depend on all of it.
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SHARDS.ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_steps_key_leads_back_to_it() {
        let id = SessionId::new("odd # id % 日本語\0");
        let at = StepAt { epoch: 17, first: 3, n: 12 };
        assert_eq!(step_of(&step(&id, at, 0)), Some((id.clone(), at, 0)));
        assert_eq!(step_of(&step(&id, at, 2)), Some((id, at, 2)));
    }

    #[test]
    fn names_that_differ_only_at_their_end_spread_over_the_shards() {
        let mut counts = BTreeMap::from_iter((0..SHARDS).map(|shard| (shard, 0)));
        for number in 0..1_000 {
            *counts.entry(shard(&format!("agent:main:user-{number}"))).or_default() += 1;
        }
        assert!(counts.len() == 4 && counts.values().all(|count| (200..=300).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn an_escaped_text_comes_back_and_holds_no_separator(text: String) {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains('#'));
            let controls = text.chars().filter(char::is_ascii_control).count();
            prop_assert_eq!(escaped.len(), text.len() + controls);
            prop_assert_eq!(unescape(&escaped), Some(text));
        }

        #[test]
        fn times_sort_as_their_texts(a: i64, b: i64) {
            let text = |millis| in_order(Timestamp::from_millis(millis));
            prop_assert_eq!(a.cmp(&b), text(a).cmp(&text(b)));
        }
    }
}
