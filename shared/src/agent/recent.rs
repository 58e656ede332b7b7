//! Transcripts that this process wrote last: the next turn on their session need not read them back.
//!
//! A transcript only grows, and each turn makes it grow. So one that ends at the position and in the epoch that a new
//! lease names behind its input is the stored one, whoever else writes to the store; any other is forgotten.

use crate::bounds::{TRANSCRIPT_REMEMBERED_BYTES, TRANSCRIPTS_REMEMBERED_BYTES};
use crate::id::{SessionId, TenantId};
use crate::message::Message;
use crate::session::Lease;
use lru::LruCache;
use std::sync::{Mutex, PoisonError};

/// Keeps transcripts, from behind their summaries on; the one used longest ago makes room.
pub(super) struct Recent {
    kept: Mutex<Kept>,
}

struct Kept {
    transcripts: LruCache<(TenantId, SessionId), Transcript>,
    bytes: usize,
}

struct Transcript {
    epoch: u64,
    /// Position of its last message.
    seq: u64,
    summarised_through: u64,
    messages: Vec<Message>,
    bytes: usize,
}

impl Default for Recent {
    fn default() -> Self {
        Self { kept: Mutex::new(Kept { transcripts: LruCache::unbounded(), bytes: 0 }) }
    }
}

impl Recent {
    /// What stands before position `before` of the leased session, if that is at hand. It is not kept any longer: the
    /// turn gives it back, grown.
    pub(super) fn take(&self, lease: &Lease, before: u64) -> Option<Vec<Message>> {
        let key = (lease.tenant.clone(), lease.session_id.clone());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.transcripts.pop(&key)?;
        kept.bytes -= found.bytes;
        let same = found.epoch == lease.epoch
            && found.seq + 1 == before
            && found.summarised_through == lease.summarised_through;
        same.then_some(found.messages)
    }

    /// Keeps the transcript of a turn that ended with this lease, its last messages included.
    pub(super) fn keep(&self, lease: &Lease, messages: Vec<Message>) {
        let Some(seq) = messages.last().map(|message| message.seq) else { return };
        let bytes = messages.iter().map(|message| message.body.bytes()).sum();
        if bytes > TRANSCRIPT_REMEMBERED_BYTES {
            return;
        }
        let Lease { epoch, summarised_through, .. } = *lease;
        let key = (lease.tenant.clone(), lease.session_id.clone());
        let transcript = Transcript { epoch, seq, summarised_through, messages, bytes };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += bytes;
        if let Some(older) = kept.transcripts.put(key, transcript) {
            kept.bytes -= older.bytes;
        }
        while kept.bytes > TRANSCRIPTS_REMEMBERED_BYTES
            && let Some((_, oldest)) = kept.transcripts.pop_lru()
        {
            kept.bytes -= oldest.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::id::{SessionKey, TurnId};
    use crate::message::MessageBody;

    fn lease(session: &str) -> Lease {
        Lease {
            tenant: TenantId::single(),
            session: SessionKey::new(session),
            session_id: SessionId::new(session),
            turn: TurnId::new("t"),
            fence: 1,
            until: Timestamp::EPOCH,
            epoch: 0,
            seq: 3,
            summarised_through: 0,
        }
    }

    fn messages(length: usize) -> Vec<Message> {
        let message = |seq| Message {
            seq,
            epoch: 0,
            turn: TurnId::new("t"),
            at: Timestamp::EPOCH,
            body: MessageBody::user_text("x".repeat(length)),
        };
        [1, 2].map(message).into()
    }

    #[test]
    fn a_transcript_is_given_out_once_to_the_turn_that_goes_on_behind_it() {
        let recent = Recent::default();
        recent.keep(&lease("a"), messages(1));
        assert_eq!(recent.take(&lease("b"), 3), None);
        assert_eq!(recent.take(&lease("a"), 3), Some(messages(1)));
        assert_eq!(recent.take(&lease("a"), 3), None);
    }

    #[test]
    fn a_transcript_that_grew_elsewhere_is_forgotten() {
        let recent = Recent::default();
        let changed = [
            (Lease { epoch: 1, ..lease("a") }, 3),
            (Lease { summarised_through: 1, ..lease("a") }, 3),
            (lease("a"), 5),
            (lease("a"), 2),
        ];
        for (lease_now, before) in changed {
            recent.keep(&lease("a"), messages(1));
            assert_eq!(recent.take(&lease_now, before), None);
            assert_eq!(recent.take(&lease("a"), 3), None, "what is outdated once stays so");
        }
    }

    #[test]
    fn the_one_used_longest_ago_makes_room_and_one_that_is_too_long_is_not_kept() {
        let recent = Recent::default();
        let half = TRANSCRIPT_REMEMBERED_BYTES / 2 - MessageBody::user_text("").bytes();
        let fit = TRANSCRIPTS_REMEMBERED_BYTES / TRANSCRIPT_REMEMBERED_BYTES;
        for number in 0..=fit {
            recent.keep(&lease(&format!("{number}")), messages(half));
        }
        recent.keep(&lease("long"), messages(half + 1));
        assert!(recent.take(&lease("long"), 3).is_none());
        assert!(recent.take(&lease("0"), 3).is_none());
        for number in 1..=fit {
            assert!(recent.take(&lease(&format!("{number}")), 3).is_some(), "{number}");
        }
        assert_eq!(recent.kept.lock().unwrap().bytes, 0);
    }
}
