//! The measured processes: starting them, and what the kernel says of them.

use crate::Result;
use axum::Router;
use harness::usage;
use serde_json::Value;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

/// Longest time that a process may take to answer, or to end when asked to.
const PATIENCE: Duration = Duration::from_secs(30);

/// Builds `reef` in the profile of this program. Returns where it is.
pub(crate) fn build() -> Result<PathBuf> {
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--bin", "reef"]);
    cargo.args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../functions/onprem/Cargo.toml")]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let built = cargo.stdout(Stdio::null()).status()?;
    if !built.success() {
        return Err("reef could not be built".into());
    }
    Ok(std::env::current_exe()?.with_file_name("reef"))
}

/// In a part of this program: serves on a free port, and says on which in the first line of its output.
pub(crate) async fn serve(routes: Router) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    writeln!(std::io::stdout(), "{address}")?;
    Ok(axum::serve(listener, routes).await?)
}

/// A running process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pid: u32,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts this program as one of its parts.
    pub(crate) async fn part(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args(arguments).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let output = child.stdout.take().ok_or("a part without an output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).await?;
        let pid = child.id().ok_or("a part ended at once")?;
        Ok(Self { child, pid, address: line.trim().parse()? })
    }

    /// CPU time that it has used, user and system.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        usage::cpu(self.pid)
    }

    /// Resident memory in MiB.
    pub(crate) fn rss(&self) -> Result<f64> {
        usage::rss_mib(self.pid)
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(rustix::process::Pid::from_raw).ok_or("a pid")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        tokio::time::timeout(PATIENCE, self.child.wait()).await??;
        Ok(())
    }
}

/// A count as a number to reckon with.
pub(crate) fn to_f64(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
    let number = count as f64;
    number
}

/// A `reef` to measure: its program, settings and data.
pub(crate) struct Reef {
    program: PathBuf,
    folder: PathBuf,
}

impl Reef {
    /// In a new folder, with one agent on the model at this address.
    pub(crate) fn new(program: &Path, folder: &Path, model: SocketAddr) -> Result<Self> {
        let config = serde_json::json!({
            "agents": [{"id": "main", "model": "mock/small", "workspace": {"root": "./main"}}],
            "models": {"providers": {"mock": {"baseUrl": format!("http://{model}/v1")}}},
        });
        std::fs::create_dir_all(folder.join("main"))?;
        std::fs::write(folder.join("main/AGENTS.md"), "# Main\n\nYou answer briefly and to the point.\n")?;
        std::fs::write(folder.join("openclaw.json"), config.to_string())?;
        Ok(Self { program: program.to_owned(), folder: folder.to_owned() })
    }

    fn command(&self, data: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("REEF_DATA", self.folder.join(data))
            .env("REEF_CONFIG", self.folder.join("openclaw.json"));
        command.kill_on_drop(true);
        command
    }

    /// A token that is in nobody's way.
    pub(crate) async fn token(&self, data: &str) -> Result<String> {
        let mut command = self.command(data);
        command.args(["token", "create", "--name", "load", "--scopes", "chat", "--json"]);
        command.args(["--rate-limit", "1000000,1000000"]);
        let output = command.output().await?;
        if !output.status.success() {
            return Err(format!("no token: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let token: Value = serde_json::from_slice(&output.stdout)?;
        Ok(token["token"].as_str().ok_or("no token")?.to_owned())
    }

    /// Starts it. Returns it with the time to its first healthy answer.
    pub(crate) async fn serve(&self, data: &str) -> Result<(Process, Duration)> {
        // Free at this moment; nobody else is expected to take it in the next.
        let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        let log = std::fs::File::create(self.folder.join(format!("{data}.log")))?;
        let mut command = self.command(data);
        command.args(["serve", "--listen", &address.to_string()]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = Instant::now();
        let mut child = command.spawn()?;
        let pid = child.id().ok_or("reef ended at once")?;
        while !is_healthy(address).await {
            if child.try_wait()?.is_some() || started.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(self.folder.join(format!("{data}.log")))?;
                return Err(format!("reef did not start: {log}").into());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok((Process { child, pid, address }, started.elapsed()))
    }
}

async fn is_healthy(address: SocketAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: reef\r\nconnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer.starts_with(b"HTTP/1.1 200"))
    };
    asked.await.unwrap_or(false)
}
