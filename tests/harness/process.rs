//! The real binary on a real disk: a [`Site`] is a folder with settings, data and workspaces, a [`Process`] a program
//! at work on it.
//!
//! Nothing here waits for time to pass: it waits for lines of output, for answers, and for the end of a process. A
//! limit, far above what anything takes, turns a hang into a failure that shows the process' output.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

pub use rustix::process::Signal;

/// Nothing that a test waits for takes so long.
const LIMIT: Duration = Duration::from_secs(120);

/// A folder in which the product is at home: `openclaw.json`, `data/`, and the workspaces that the settings name.
#[derive(Debug)]
pub struct Site {
    program: PathBuf,
    folder: TempDir,
}

impl Site {
    /// A new one for this program, with these settings.
    pub fn new(program: &str, settings: &Value) -> Self {
        let site = Self { program: program.into(), folder: tempfile::tempdir().expect("a folder") };
        std::fs::write(site.path("openclaw.json"), settings.to_string()).expect("a settings file");
        site
    }

    /// Another one that begins as a copy of this. No process may be at work on this one.
    #[must_use]
    pub fn copy(&self) -> Self {
        let copy = Self { program: self.program.clone(), folder: tempfile::tempdir().expect("a folder") };
        copy_folder(self.folder.path(), copy.folder.path()).expect("a copied folder");
        copy
    }

    /// A file of this site.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env_clear()
            .env("REEF_DATA", self.path("data"))
            .env("REEF_CONFIG", self.path("openclaw.json"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a command of the operator to its end.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let running = self.command(arguments).output();
        timeout(LIMIT, running).await.expect("a command that ends").expect("a command that starts")
    }

    /// Runs a command of the operator that must succeed, and reads the JSON it prints.
    pub async fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
    }

    /// A new token with these scopes (`a,b`) and practically no rate limit.
    pub async fn token(&self, scopes: &str) -> String {
        let arguments = [
            "token",
            "create",
            "--name",
            "test",
            "--scopes",
            scopes,
            "--rate-limit",
            "100000,100000",
            "--json",
        ];
        self.json(&arguments).await["token"].as_str().expect("a token").to_owned()
    }

    /// The jobs and the parked turns, as `reef jobs list --json` prints them.
    pub async fn jobs(&self) -> Value {
        self.json(&["jobs", "list", "--json"]).await
    }

    /// What is wrong with the audit trail.
    pub async fn audit_problem(&self) -> Option<String> {
        let audit = self.run(&["audit", "verify", "--json"]).await;
        (!audit.status.success()).then(|| String::from_utf8_lossy(&audit.stdout).into_owned())
    }

    /// Starts serving on a port of its own choice, with these environment variables.
    pub fn serve(&self, environment: &[(&str, &str)]) -> Process {
        self.start(&["serve", "--listen", "127.0.0.1:0"], environment)
    }

    /// Starts the program, with these environment variables.
    pub fn start(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Process {
        let mut command = self.command(arguments);
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Process::start(command)
    }
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A process of the product; killed when dropped.
#[derive(Debug)]
pub struct Process {
    id: Option<rustix::process::Pid>,
    ended: watch::Receiver<Option<ExitStatus>>,
    lines: watch::Receiver<Vec<String>>,
    /// Owns the process, and kills it when it is aborted.
    keeper: JoinHandle<()>,
}

impl Process {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("a process that starts");
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        let (said, lines) = watch::channel(Vec::new());
        let (end, ended) = watch::channel(None);
        let said = Arc::new(said);
        let tasks = TaskTracker::new();
        tasks.spawn(read(child.stdout.take().expect("its standard output"), Arc::clone(&said)));
        tasks.spawn(read(child.stderr.take().expect("its standard error"), said));
        let keeper = tasks.spawn(async move {
            let status = child.wait().await.expect("a child of ours");
            end.send_replace(Some(status));
        });
        Self { id, ended, lines, keeper }
    }

    /// The first line of its output, from the `from`-th on, that fits, and sets `from` behind it; `None` when it ended
    /// without one.
    pub async fn line_from(&self, from: &mut usize, fits: impl Fn(&str) -> bool) -> Option<String> {
        let mut lines = self.lines.clone();
        let search = async {
            loop {
                let found = {
                    let said = lines.borrow_and_update();
                    let found = said.iter().skip(*from).position(|line| fits(line));
                    let line = found.map(|at| said[*from + at].clone());
                    *from = found.map_or(said.len(), |at| *from + at + 1);
                    line
                };
                if found.is_some() || lines.changed().await.is_err() {
                    return found;
                }
            }
        };
        match timeout(LIMIT, search).await {
            Ok(line) => line,
            Err(_) => panic!("the process does not say it; it said:\n{}", self.output()),
        }
    }

    /// The first line of its output that fits; `None` when it ended without one.
    pub async fn line(&self, fits: impl Fn(&str) -> bool) -> Option<String> {
        self.line_from(&mut 0, fits).await
    }

    /// Waits until it serves, and returns its base URL; `None` when it died before.
    pub async fn url(&self) -> Option<String> {
        const SERVES: &str = "listening on ";
        let line = self.line(|line| line.starts_with(SERVES)).await?;
        line.strip_prefix(SERVES).map(str::to_owned)
    }

    /// The most memory that it has had resident so far, in bytes; it must be there.
    pub fn peak_memory(&self) -> u64 {
        let id = self.id.expect("a process").as_raw_nonzero();
        let told = std::fs::read_to_string(format!("/proc/{id}/status")).expect("a process that is there");
        let peak = told.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        let kilobytes: u64 = peak.trim().trim_end_matches("kB").trim().parse().expect("a number");
        kilobytes * 1024
    }

    /// Sends it a signal, if it is still there.
    pub fn signal(&self, signal: Signal) {
        if let Some(id) = self.id.filter(|_| self.ended.borrow().is_none()) {
            // It may have ended this very moment.
            let _ = rustix::process::kill_process(id, signal);
        }
    }

    /// Waits for its end.
    pub async fn exit(&self) -> ExitStatus {
        let mut ended = self.ended.clone();
        match timeout(LIMIT, ended.wait_for(Option::is_some)).await {
            Ok(status) => status.expect("its keeper").expect("a status"),
            Err(_) => panic!("the process does not end; it said:\n{}", self.output()),
        }
    }

    /// All that it said so far.
    pub fn output(&self) -> String {
        self.lines.borrow().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

async fn read(pipe: impl AsyncRead + Unpin, said: Arc<watch::Sender<Vec<String>>>) {
    let mut pipe = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = pipe.next_line().await {
        said.send_modify(|lines| lines.push(line));
    }
}
