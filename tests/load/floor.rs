//! The floor: what a durable turn costs when nothing is asked of it but that.
//!
//! An axum server that, for each POST, passes the body on to the model as it came, reads the model's whole answer,
//! appends both to one SQLite table – WAL, `synchronous=FULL`, one writer thread that commits together whatever waits
//! – and answers with the model's bytes once the append is durable. No tokens, limits, sessions, audit, parsing or
//! logging; a turn of the product writes twice, this writes once.

use crate::{Result, process};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use bytes::Bytes;
use rusqlite::{Connection, params};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

/// What is appended, and who waits for it.
struct Entry {
    request: Bytes,
    answer: Bytes,
    durable: oneshot::Sender<()>,
}

struct Floor {
    client: reqwest::Client,
    model: String,
    writer: Sender<Entry>,
}

/// Serves until it is killed.
pub(crate) fn run(model: SocketAddr, file: &Path) -> Result<()> {
    let database = Connection::open(file)?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, request BLOB, answer BLOB)", [])?;
    let (writer, entries) = channel();
    std::thread::spawn(move || write(database, &entries));
    let floor = Arc::new(Floor {
        client: reqwest::Client::builder().no_proxy().build()?,
        model: format!("http://{model}/v1/chat/completions"),
        writer,
    });
    let routes = Router::new()
        .route("/healthz", get(|| std::future::ready("ok")))
        .route("/v1/chat/completions", post(pass_through))
        .with_state(floor);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(process::serve(routes))
}

async fn pass_through(
    State(floor): State<Arc<Floor>>,
    request: Bytes,
) -> std::result::Result<Bytes, StatusCode> {
    let asked =
        floor.client.post(&floor.model).header("content-type", "application/json").body(request.clone());
    let answered = asked.send().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let answer = answered.bytes().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let (durable, written) = oneshot::channel();
    let entry = Entry { request, answer: answer.clone(), durable };
    floor.writer.send(entry).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    written.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(answer)
}

/// Group commit: everything that waits goes into one transaction.
fn write(mut database: Connection, entries: &Receiver<Entry>) {
    while let Ok(first) = entries.recv() {
        let batch: Vec<Entry> = std::iter::once(first).chain(entries.try_iter()).collect();
        // Whoever waits for an append that failed gets an error when its sender is dropped.
        if append(&mut database, &batch).is_ok() {
            for entry in batch {
                let _ = entry.durable.send(());
            }
        }
    }
}

fn append(database: &mut Connection, batch: &[Entry]) -> rusqlite::Result<()> {
    let transaction = database.transaction()?;
    {
        let mut insert =
            transaction.prepare_cached("INSERT INTO entries (request, answer) VALUES (?1, ?2)")?;
        for entry in batch {
            insert.execute(params![entry.request.as_ref(), entry.answer.as_ref()])?;
        }
    }
    transaction.commit()
}
