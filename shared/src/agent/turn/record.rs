//! What a turn writes, and the lease that lets it: steps, what is noted beside them, its end.

use super::{Halt, TurnRun};
use crate::error::StoreError;
use crate::message::{Message, MessageBody};
use crate::session::{Step, TurnOutcome};
use futures::FutureExt;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::time::Instant;

impl TurnRun {
    /// Adds an audit row to the next write.
    pub(super) fn note(&mut self, action: &str, detail: serde_json::Value) {
        let row = self.shared.audit(&self.principal, action, detail);
        self.audit.push(row);
    }

    /// Journals messages, and what was noted, in one atomic step.
    pub(super) async fn record(&mut self, messages: Vec<MessageBody>) -> Result<(), Halt> {
        let step = Step { messages, audit: std::mem::take(&mut self.audit) };
        let first = self.lease.seq + 1;
        if let Err(halt) = self.write(&step).await {
            // A turn that ends here still tells what it did.
            self.audit = step.audit;
            return Err(halt);
        }
        self.recorded += step.messages.iter().map(MessageBody::bytes).sum::<usize>();
        self.extend_transcript(first, step.messages);
        Ok(())
    }

    /// Adds what was recorded from position `first` on, without reading it back.
    pub(super) fn extend_transcript(&mut self, first: u64, messages: Vec<MessageBody>) {
        let (turn, at, epoch) = (self.lease.turn.clone(), self.shared.now(), self.lease.epoch);
        let recorded =
            (first..).zip(messages).map(|(seq, body)| Message { seq, epoch, turn: turn.clone(), at, body });
        self.transcript.extend(recorded);
    }

    /// Commits, and tries again while the store cannot be reached and the lease runs.
    pub(super) async fn commit(&self, last: &Step, outcome: &TurnOutcome) -> Result<(), StoreError> {
        loop {
            match self.shared.parts.sessions.commit(&self.lease, last, outcome, self.shared.now()).await {
                Err(StoreError::Unavailable(cause)) => {
                    if !self.pause_for_the_store().await {
                        return Err(StoreError::Unavailable(cause));
                    }
                }
                other => return other,
            }
        }
    }

    /// Appends, and tries again while the store cannot be reached and the lease runs.
    pub(super) async fn write(&mut self, step: &Step) -> Result<(), Halt> {
        let lease_time = self.shared.parts.config.turns.lease;
        loop {
            let now = self.shared.now();
            match self.shared.parts.sessions.append(&self.lease, step, now, now + lease_time).await {
                Ok(lease) => {
                    self.lease = lease;
                    self.renew_at = Instant::now() + lease_time / 3;
                    return Ok(());
                }
                Err(StoreError::Unavailable(cause)) => {
                    if !self.pause_for_the_store().await {
                        return Err(StoreError::Unavailable(cause).into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits a little for a store that cannot be reached; `false` when the lease has run out.
    async fn pause_for_the_store(&self) -> bool {
        if !self.lease.until.runs_at(self.shared.now(), self.shared.parts.config.turns.lease) {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
        true
    }

    /// Waits for `work` and renews the lease meanwhile, so that nobody takes the turn over while it is alive.
    pub(super) async fn while_holding<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Halt> {
        let mut work = pin!(work.fuse());
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                () = tokio::time::sleep_until(self.renew_at) => self.write(&Step::default()).await?,
            }
        }
    }
}
