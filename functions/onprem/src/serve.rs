//! `reef serve`: the gateway, the agents and the queue's worker in one process.

use crate::descriptors;
use crate::examples;
use crate::fault::Fault;
use crate::host::{HostArgs, Purpose};
use crate::site::{self, Site, Wrap};
use crate::{first_token, listen, logs, output, private};
use clap::Args;
use shared::config::Config;
use shared::{http, worker};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Threads that run turns, at most: a turn waits much and computes little.
const MAX_THREADS: usize = 4;

/// File descriptors below which the operator is warned: two for each of a thousand waiting turns, and some.
const MIN_DESCRIPTORS: u64 = 2_100;

/// How long the process waits at its end for threads that are stuck in a system call.
const STUCK: Duration = Duration::from_secs(1);

/// Options of `reef serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where to listen; default: the settings' `gateway.bind` and `gateway.port`, else 127.0.0.1:18789
    #[arg(long, env = "REEF_LISTEN", value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
}

pub(crate) fn run(args: &ServeArgs, host: &HostArgs, wrap: Wrap) -> Result<(), Fault> {
    host.needs_a_site("serve")?;
    let mut config = host.config(Purpose::Run)?;
    if let Some(listen) = args.listen {
        config.gateway.listen = listen;
    }
    if host.config.is_none() {
        examples::write_workspaces(&host.data)?;
    } else if host.demo {
        config
            .warnings
            .push("--demo: every agent is on the demo model demo/echo, which only echoes".to_owned());
    }
    let logs = logs::start()?;
    warn(&config);
    for told in private::close(&host.data) {
        tracing::warn!(target: "operation", "{told}");
    }
    if let Some(limit) = descriptors::raise().filter(|limit| *limit < MIN_DESCRIPTORS) {
        tracing::warn!(
            target: "operation",
            "only {limit} file descriptors are allowed, enough for about {} waiting turns; raise `ulimit -n`",
            limit / 2
        );
    }
    let runtime = runtime()?;
    let served = runtime.block_on(Box::pin(serve(host, config, wrap)));
    runtime.shutdown_timeout(STUCK);
    drop(logs);
    served
}

fn runtime() -> Result<runtime::Runtime, Fault> {
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(MAX_THREADS));
    let built = runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    built.map_err(|error| Fault::because("no threads can be started", &error))
}

/// Tells what the operator should know of the settings.
fn warn(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!(target: "operation", "{warning}");
    }
    let gateway = &config.gateway;
    if !gateway.listen.ip().is_loopback() && !gateway.tls_in_front {
        tracing::warn!(
            target: "operation",
            "listening on {} without TLS: tokens from other machines are refused; end TLS in a proxy in front and set \
             gateway.tls to \"inFront\"",
            gateway.listen
        );
    }
}

async fn serve(host: &HostArgs, config: Config, wrap: Wrap) -> Result<(), Fault> {
    // Before anything is started: a signal that comes early is not lost.
    let mut signals = Signals::new().map_err(|error| Fault::because("signals cannot be received", &error))?;
    let address = config.gateway.listen;
    let drain = config.gateway.drain;
    let site = site::open(&host.data, config, wrap)?;
    let listener = listen::bind(address).map_err(|error| {
        Fault::because(&format!("cannot listen on {address}; choose with --listen ADDR:PORT"), &error)
    })?;
    let bound = listener.local_addr()?;
    first_token::make(&site.app, &host.data).await?;

    let stop = CancellationToken::new();
    let Site { app, tasks, .. } = &site;
    tasks.spawn(Box::pin(worker::sweep::run(app.clone(), tasks.clone(), stop.clone())));
    tasks.spawn(Box::pin(worker::run(app.clone(), tasks.clone(), stop.clone())));
    let router = http::router(app.clone());
    tasks.spawn(Box::pin(listen::accept(listener, router, tasks.clone(), stop.clone())));
    // Programs wait for this line. If nobody reads it, the server still serves.
    let _ = output::line(&format!("listening on http://{bound}"));
    tracing::info!(target: "operation", { listen = %bound, agents = app.config.agents.len(), time_zone = app.config.time_zone }, "started");

    let name = signals.next().await;
    tracing::info!(target: "operation", { signal = name, drain_ms = millis(drain) }, "stopping: no new work");
    app.lifecycle.drain();
    stop.cancel();
    tasks.close();
    tokio::select! {
        () = tasks.wait() => tracing::info!(target: "operation", "stopped: everything is finished"),
        () = tokio::time::sleep(drain) => tracing::warn!(
            target: "operation",
            { unfinished = tasks.len() },
            "stopped before everything was finished: interrupted turns go on at the next start"
        ),
        name = signals.next() => {
            // What is stored is stored; the next start goes on with the rest.
            tracing::warn!(target: "operation", { signal = name }, "stopped at once by a second signal");
            return Err(Fault::new("stopped at once by a second signal; interrupted turns go on at the next start"));
        }
    }
    Ok(site.store.close().await?)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The signals that end a server.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for one, and says which.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
