//! [`relay`]: answers what another process asks, line by line, for as long as anything of it is at work here.

use super::TurnEvent;
use super::hop::{Ask, Check, Line};
use crate::app::App;
use crate::error::{Error, ErrorKind};
use crate::session::Failure;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// The lines that answer `ask`. After `heartbeat` without one comes an empty line. They end only when all of `work` is
/// done, so that a process which is put to sleep behind its answer has nothing left to do.
pub fn relay(app: App, ask: Ask, work: TaskTracker, heartbeat: Duration) -> BoxStream<'static, Vec<u8>> {
    let over = async move {
        // A closed tracker still takes work; closed, it can be waited for.
        work.close();
        work.wait().await;
        stream::empty().boxed()
    };
    let lines = answer(app, ask).flatten_stream().chain(over.flatten_stream()).boxed();
    let beating = move |mut lines: BoxStream<'static, Line>| async move {
        match timeout(heartbeat, lines.next()).await {
            Ok(line) => line.map(|line| (line.to_bytes(), lines)),
            Err(_) => Some((b"\n".to_vec(), lines)),
        }
    };
    stream::unfold(lines, beating).boxed()
}

async fn answer(app: App, ask: Ask) -> BoxStream<'static, Line> {
    let said = match ask {
        Ask::Run(request) => match app.agents.invoke(*request).await {
            Ok(events) => return events.map(line).boxed(),
            Err(error) => line(Err(error)),
        },
        Ask::Resume { tenant, turn } => {
            line(app.agents.resume(&tenant, &turn).await.map(|outcome| TurnEvent::Ended { outcome }))
        }
        // Whoever asks takes this region for the home; `app.agents` sends nothing on.
        Ask::Change(change) => match app.change(&change).await {
            Ok(session) => Line::Session { session: Box::new(session) },
            Err(error) => line(Err(error)),
        },
        Ask::Check(Check::Ready) => Line::Ready { ready: app.store_answers().await },
    };
    stream::iter([said]).boxed()
}

fn line(event: Result<TurnEvent, Error>) -> Line {
    match event {
        Ok(event) => Line::Event(event),
        Err(error) => {
            // The cause does not travel: this is the edge that can log it.
            if matches!(error.kind, ErrorKind::Internal | ErrorKind::Unavailable | ErrorKind::Upstream) {
                tracing::error!(target: "error", { error.kind = error.kind.code(),
                    error = %error,
                    cause = error.cause() }, "what was asked could not be done");
            }
            Line::Error { error: Failure::from(&error) }
        }
    }
}
