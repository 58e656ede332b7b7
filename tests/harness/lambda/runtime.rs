//! One instance of a function: its process, and the Runtime API that this process asks for events.

use super::{Function, Part, Record, Shared, lock, serve};
use crate::process::Signal;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use shared::clock::{Clock, SystemClock};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const ERROR_TYPE: &str = "lambda-runtime-function-error-type";
const ERROR_BODY: &str = "lambda-runtime-function-error-body";

/// An event on its way to an instance.
pub(super) struct Work {
    pub(super) id: String,
    pub(super) event: Bytes,
    pub(super) timeout: Duration,
    pub(super) parts: mpsc::UnboundedSender<Part>,
}

/// The event at work: its id, and who hears the answer.
type Current = Option<(String, mpsc::UnboundedSender<Part>)>;

pub(super) struct Instance {
    name: String,
    shared: Arc<Shared>,
    inbox: mpsc::UnboundedSender<Work>,
    waiting: tokio::sync::Mutex<mpsc::UnboundedReceiver<Work>>,
    current: Mutex<Current>,
    process: u32,
    started: Instant,
    inits: Arc<Mutex<Vec<Duration>>>,
    deaths: Arc<Mutex<Vec<Instant>>>,
    asked_before: AtomicBool,
    ended: AtomicBool,
    keepers: Mutex<Vec<JoinHandle<()>>>,
}

impl Instance {
    /// Starts a process; it takes events from now on, and works on them when it asks for them.
    pub(super) async fn start(
        shared: Arc<Shared>,
        name: &str,
        function: &Function,
        record: Record,
    ) -> Arc<Self> {
        // The API must be there before the process is, and it must know the instance.
        let cell: Arc<std::sync::OnceLock<Arc<Self>>> = Arc::default();
        let (url, server) = serve(&shared.tasks, router(Arc::clone(&cell))).await;
        let mut command = Command::new(&function.program);
        command
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", url.trim_start_matches("http://"))
            .env("AWS_LAMBDA_FUNCTION_NAME", name)
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
            .env("AWS_REGION", "eu-central-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .envs(function.next_environment())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let started = Instant::now();
        let mut child = command.spawn().expect("a function that starts");
        let process = child.id().expect("a running process");
        let mut keepers = vec![server];
        let Record { logs, inits, deaths, readers } = record;
        keepers.push(readers.spawn(keep(child.stdout.take().expect("its output"), Arc::clone(&logs))));
        keepers.push(readers.spawn(keep(child.stderr.take().expect("its output"), logs)));
        let (inbox, waiting) = mpsc::unbounded_channel();
        let instance = Arc::new(Self {
            name: name.to_owned(),
            shared: Arc::clone(&shared),
            inbox,
            waiting: tokio::sync::Mutex::new(waiting),
            current: Mutex::new(None),
            process,
            started,
            inits,
            deaths,
            asked_before: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            keepers: Mutex::default(),
        });
        let _ = cell.set(Arc::clone(&instance));
        let ending = Arc::clone(&instance);
        keepers.push(shared.tasks.spawn(async move {
            let status = child.wait().await.expect("a child of ours");
            ending.has_exited(&format!("RequestId Error: Runtime exited: {status}")).await;
        }));
        lock(&instance.keepers).extend(keepers);
        instance
    }

    pub(super) fn process(&self) -> u32 {
        self.process
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn give(&self, work: Work) {
        // It may have ended this very moment; then nobody hears it, and the caller is told.
        if let Err(lost) = self.inbox.send(work) {
            exited(&lost.0.parts, "the instance has ended");
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id.filter(|_| !self.has_ended()) {
            // It may have ended this very moment.
            let _ = rustix::process::kill_process(id, signal);
        }
    }

    /// Ends everything of it.
    pub(super) fn end(&self) {
        self.signal(Signal::KILL);
        // Its last question may still be on its way, and make it wait for an event.
        self.ended.store(true, Ordering::Release);
        lock(&self.keepers).drain(..).for_each(|keeper| keeper.abort());
    }

    async fn has_exited(self: &Arc<Self>, how: &str) {
        self.ended.store(true, Ordering::Release);
        lock(&self.deaths).push(Instant::now());
        self.shared.has_ended(&self.name, self);
        if let Some((_, parts)) = lock(&self.current).take() {
            exited(&parts, how);
        }
        // Its `next` may still stand at the inbox: the API must go first.
        if let Some(server) = lock(&self.keepers).first() {
            server.abort();
        }
        let mut waiting = self.waiting.lock().await;
        waiting.close();
        while let Ok(work) = waiting.try_recv() {
            exited(&work.parts, how);
        }
    }

    /// Ends the event at work, if it is this one.
    fn close(&self, id: &str, part: Part) {
        let mut current = lock(&self.current);
        if current.as_ref().is_some_and(|(at_work, _)| at_work == id)
            && let Some((_, parts)) = current.take()
        {
            // Whoever asked may have left.
            let _ = parts.send(part);
            self.shared.answered.send_modify(|count| *count += 1);
        }
    }
}

fn exited(parts: &mpsc::UnboundedSender<Part>, how: &str) {
    let _ = parts.send(Part::Error { code: "Runtime.ExitError".to_owned(), details: how.to_owned() });
}

async fn keep(pipe: impl AsyncRead + Unpin, logs: Arc<Mutex<Vec<String>>>) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        lock(&logs).push(line);
    }
}

type Cell = State<Arc<std::sync::OnceLock<Arc<Instance>>>>;

fn router(instance: Arc<std::sync::OnceLock<Arc<Instance>>>) -> Router {
    Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
        .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
        .layer(DefaultBodyLimit::disable())
        .with_state(instance)
}

fn instance(State(cell): &Cell) -> Arc<Instance> {
    // Set before the process can have asked: the spawn returns first, and no await lies between.
    loop {
        if let Some(instance) = cell.get() {
            return Arc::clone(instance);
        }
        std::thread::yield_now();
    }
}

async fn next(cell: Cell) -> Response {
    let instance = instance(&cell);
    if !instance.asked_before.swap(true, Ordering::AcqRel) {
        lock(&instance.inits).push(instance.started.elapsed());
    } else {
        instance.shared.is_idle(&instance.name, &instance);
    }
    let mut waiting = instance.waiting.lock().await;
    let work = match waiting.try_recv() {
        Ok(work) => Some(work),
        Err(_) => {
            instance.signal(Signal::STOP);
            waiting.recv().await
        }
    };
    let Some(work) = work else { return StatusCode::GONE.into_response() };
    let Work { id, event, timeout, parts } = work;
    *lock(&instance.current) = Some((id.clone(), parts));
    let late = Arc::clone(&instance);
    let late_id = id.clone();
    instance.shared.tasks.spawn(async move {
        tokio::time::sleep(timeout).await;
        let is_at_work = lock(&late.current).as_ref().is_some_and(|(at_work, _)| *at_work == late_id);
        if is_at_work {
            let details = format!("Task timed out after {:.2} seconds", timeout.as_secs_f64());
            late.close(&late_id, Part::Error { code: "Sandbox.Timedout".to_owned(), details });
            late.signal(Signal::KILL);
        }
    });
    instance.signal(Signal::CONT);
    let deadline = SystemClock.now() + timeout;
    let arn = format!("arn:aws:lambda:eu-central-1:000000000000:function:{}", instance.name);
    let headers = [
        ("lambda-runtime-aws-request-id", id),
        ("lambda-runtime-deadline-ms", deadline.to_string()),
        ("lambda-runtime-invoked-function-arn", arn),
        ("content-type", "application/json".to_owned()),
    ];
    (headers, event).into_response()
}

/// A whole answer, or one that comes in pieces.
async fn response(cell: Cell, Path(id): Path<String>, mut body: Body) -> Response {
    let instance = instance(&cell);
    let parts = lock(&instance.current)
        .as_ref()
        .filter(|(at_work, _)| *at_work == id)
        .map(|(_, parts)| parts.clone());
    let Some(parts) = parts else { return StatusCode::NOT_FOUND.into_response() };
    let mut end = Part::End;
    while !body.is_end_stream() {
        match body.frame().await {
            Some(Ok(frame)) if frame.is_data() => {
                let _ = parts.send(Part::Data(frame.into_data().unwrap_or_default()));
            }
            Some(Ok(frame)) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                if let Some(code) = text(&trailers, ERROR_TYPE) {
                    end = Part::Error { code, details: text(&trailers, ERROR_BODY).unwrap_or_default() };
                }
            }
            Some(Err(cause)) => {
                end =
                    Part::Error { code: "Runtime.TruncatedResponse".to_owned(), details: cause.to_string() };
                break;
            }
            None => break,
        }
    }
    drop(parts);
    instance.close(&id, end);
    StatusCode::ACCEPTED.into_response()
}

async fn error(cell: Cell, Path(id): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let code = text(&headers, ERROR_TYPE).unwrap_or_else(|| "Unhandled".to_owned());
    let details = String::from_utf8_lossy(&body).into_owned();
    instance(&cell).close(&id, Part::Error { code, details });
    StatusCode::ACCEPTED.into_response()
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}
