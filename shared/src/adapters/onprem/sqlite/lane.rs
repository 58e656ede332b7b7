//! A lane: one thread that owns one connection and runs all writes on it, many to a commit.
//!
//! What dominates a durable write is waiting for the disk. While the lane waits for one commit, further operations
//! queue up; the next commit takes them all. Nobody waits for company: a lone operation is committed at once.

use super::failed;
use super::place::{self, Place};
use super::tx::SqliteTx;
use super::upkeep::Upkeep;
use crate::adapters::onprem::sql::SqlError;
use crate::error::StoreError;
use crate::unreadable::Sightings;
use futures::channel::oneshot;
use rusqlite::Connection;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Most operations in one commit: bounds how long the first of them waits for the others' work (about 50 µs each).
const BATCH: usize = 128;

/// The thread's queue, and the thread.
#[derive(Debug)]
pub(super) struct Lane {
    queue: Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Message {
    Run(Box<dyn Operation>),
    /// Something was deleted: its bytes must not stay.
    Deleted,
    /// Everything handed in before is done; end, and say so.
    Close(oneshot::Sender<()>),
}

/// A queued write. It may run more than once, each time in a transaction of which nothing else remains.
trait Operation: Send {
    /// Runs it; `Err` if the transaction must be undone.
    fn run(&mut self, tx: &mut SqliteTx<'_>) -> Result<(), ()>;

    /// Tells the caller what the last run found: it is durable now, or will never be.
    fn answer(self: Box<Self>);

    /// Tells the caller that the transaction failed.
    fn fail(self: Box<Self>, error: StoreError);
}

struct Queued<A, O> {
    operation: O,
    found: Option<Result<A, SqlError>>,
    reply: oneshot::Sender<Result<A, StoreError>>,
}

impl<A: Send, O: FnMut(&mut SqliteTx<'_>) -> Result<A, SqlError> + Send> Operation for Queued<A, O> {
    fn run(&mut self, tx: &mut SqliteTx<'_>) -> Result<(), ()> {
        let found = (self.operation)(tx);
        let undo = matches!(found, Err(SqlError::Failed(_)));
        self.found = Some(found);
        if undo { Err(()) } else { Ok(()) }
    }

    fn answer(self: Box<Self>) {
        if let Some(found) = self.found {
            // A caller that has gone does not hear it. What was written stays written.
            let _ = self.reply.send(found.map_err(StoreError::from));
        }
    }

    fn fail(self: Box<Self>, error: StoreError) {
        let _ = self.reply.send(Err(error));
    }
}

impl Lane {
    /// Starts the thread. Where the file has a `place`, nothing is answered as written once that is lost.
    pub(super) fn start(
        name: &str,
        connection: Connection,
        sightings: Sightings,
        place: Option<Arc<Place>>,
    ) -> std::io::Result<Self> {
        let (queue, messages) = channel();
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || work(connection, &sightings, place.as_deref(), &messages))?;
        Ok(Self { queue, thread: Mutex::new(Some(thread)) })
    }

    /// Runs an operation and waits until it is committed.
    pub(super) async fn run<A, O>(&self, operation: O) -> Result<A, StoreError>
    where
        A: Send + 'static,
        O: FnMut(&mut SqliteTx<'_>) -> Result<A, SqlError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let queued = Queued { operation, found: None, reply };
        self.queue.send(Message::Run(Box::new(queued))).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Says that something was deleted, whose bytes must not stay in the write-ahead log.
    pub(super) fn deleted(&self) {
        // A lane that is closed empties its log at its end.
        let _ = self.queue.send(Message::Deleted);
    }

    /// Ends the thread after everything that was handed in before.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Message::Close(reply)).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())
    }
}

impl Drop for Lane {
    /// Waits for the thread: who opens the directory next finds every file closed.
    fn drop(&mut self) {
        let (reply, _) = oneshot::channel();
        let _ = self.queue.send(Message::Close(reply));
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".into())
}

fn work(
    mut connection: Connection,
    sightings: &Sightings,
    place: Option<&Place>,
    messages: &Receiver<Message>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut upkeep = Upkeep::default();
    loop {
        let message = match upkeep.wait() {
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(wait) => messages.recv_timeout(wait),
        };
        let close = match message {
            Ok(Message::Run(first)) => {
                upkeep.written();
                let close = commit_batch(
                    &mut connection,
                    sightings,
                    (place, &mut upkeep),
                    first,
                    messages,
                    &mut batch,
                );
                if upkeep.is_overdue() {
                    upkeep.step(&mut connection);
                }
                close
            }
            Ok(Message::Deleted) => {
                upkeep.deleted();
                None
            }
            Ok(Message::Close(reply)) => Some(reply),
            Err(RecvTimeoutError::Timeout) => {
                upkeep.step(&mut connection);
                None
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if let Some(reply) = close {
            // With other processes at work the log stays; they or the next start will put it away.
            let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            let _ = connection.close();
            let _ = reply.send(());
            return;
        }
    }
}

/// Runs `first` and what is queued by then in one transaction, and answers them. Returns who asked to close, if
/// somebody did meanwhile.
fn commit_batch(
    connection: &mut Connection,
    sightings: &Sightings,
    (place, upkeep): (Option<&Place>, &mut Upkeep),
    first: Box<dyn Operation>,
    messages: &Receiver<Message>,
    batch: &mut Vec<Box<dyn Operation>>,
) -> Option<oneshot::Sender<()>> {
    let begun = control(connection, "BEGIN IMMEDIATE");
    let mut close = None;
    let mut next = Some(first);
    let mut undo = false;
    while let Some(mut operation) = next.take() {
        if begun.is_ok() {
            undo = operation.run(&mut SqliteTx::new(connection, sightings)).is_err();
        }
        batch.push(operation);
        if undo || batch.len() == BATCH {
            break;
        }
        match messages.try_recv() {
            Ok(Message::Run(operation)) => next = Some(operation),
            Ok(Message::Deleted) => upkeep.deleted(),
            Ok(Message::Close(reply)) => close = Some(reply),
            Err(_) => {}
        }
    }
    let is_there = || place.is_none_or(Place::is_there);
    if let Err(error) = begun {
        // Nothing ran. Each caller hears the kind; the first one the cause, for the log.
        fail_all(batch.drain(..), error);
    } else if undo {
        // One bad operation must not harm the others: each is run again by itself, in the order of arrival.
        rollback(connection);
        let mut batch = batch.drain(..);
        while let Some(mut operation) = batch.next() {
            if let Err(error) = control(connection, "BEGIN IMMEDIATE") {
                // Whoever holds the lock was waited for once, not once for each.
                fail_all(std::iter::once(operation).chain(batch), error);
                break;
            }
            match run_alone(connection, sightings, operation.as_mut()) {
                Ok(()) if !is_there() => operation.fail(place::lost()),
                Ok(()) => operation.answer(),
                Err(error) => operation.fail(error.into()),
            }
        }
    } else {
        match control(connection, "COMMIT") {
            // What was written into a file that is in no folder any more is lost: nobody may take it for kept.
            Ok(()) if !is_there() => fail_all(batch.drain(..), SqlError::Refused(place::lost())),
            Ok(()) => batch.drain(..).for_each(Operation::answer),
            Err(error) => {
                // The disk is full or fails. Whether the log already holds the commit cannot be known here, so
                // nothing is run again: the callers may ask again, and idempotency gives them the truth.
                rollback(connection);
                fail_all(batch.drain(..), error);
            }
        }
    }
    close
}

/// Runs one operation in the transaction that was just begun, and ends that. `Err` if the transaction itself failed; what
/// the operation found is its own to tell.
fn run_alone(
    connection: &mut Connection,
    sightings: &Sightings,
    operation: &mut dyn Operation,
) -> Result<(), SqlError> {
    if operation.run(&mut SqliteTx::new(connection, sightings)).is_err() {
        rollback(connection);
        return Ok(());
    }
    control(connection, "COMMIT").inspect_err(|_| rollback(connection))
}

fn control(connection: &Connection, sql: &str) -> Result<(), SqlError> {
    connection.prepare_cached(sql).and_then(|mut statement| statement.raw_execute()).map_err(failed)?;
    Ok(())
}

fn rollback(connection: &Connection) {
    // SQLite has already rolled back by itself after some errors; then there is nothing left to do.
    let _ = control(connection, "ROLLBACK");
}

fn fail_all(batch: impl Iterator<Item = Box<dyn Operation>>, error: SqlError) {
    let mut cause = Some(StoreError::from(error));
    for operation in batch {
        let same = || StoreError::Unavailable("the transaction that this was part of failed".into());
        operation.fail(cause.take().unwrap_or_else(same));
    }
}
