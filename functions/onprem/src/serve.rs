//! `reef serve`: the gateway, the agents and the queue's worker in one process.

use crate::descriptors;
use crate::examples;
use crate::fault::Fault;
use crate::folder;
use crate::host::{HostArgs, Purpose, Settings};
use crate::listen::{Places, Server};
use crate::note::Note;
use crate::site::{self, Site, Wrap};
use crate::{first_token, listen, logs, output, private, workspaces};
use clap::Args;
use shared::bounds::{BODY_WEIGHT, THREADS};
use shared::config::Config;
use shared::logs::LocalZone;
use shared::{http, worker};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// File descriptors below which the operator is warned: two for each of a thousand waiting turns, and some.
const MIN_DESCRIPTORS: u64 = 2_100;

/// How long the process waits at its end for threads that are stuck in a system call.
const STUCK: Duration = Duration::from_secs(1);

/// Options of `reef serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where to listen; default: the settings' `gateway.bind` and `gateway.port`, else 127.0.0.1:18789
    #[arg(long, env = "REEF_LISTEN", value_name = "ADDR:PORT", value_parser = listen::address)]
    listen: Option<SocketAddr>,
}

pub(crate) fn run(args: &ServeArgs, host: &HostArgs, wrap: Wrap) -> Result<(), Fault> {
    host.needs_a_site("serve")?;
    let mut settings = host.settings()?;
    if let Settings::Noted { demo, .. } = &mut settings {
        // Nothing falls back to the demo model because it was tried once: that is said anew at each start.
        *demo = host.demo;
    }
    let mut config = settings.load(&host.data, Purpose::Run)?;
    if let Some(listen) = args.listen {
        config.gateway.listen = listen;
    }
    tell(&settings, host, &mut config)?;
    let logs = logs::start(LocalZone::named(&config.time_zone))?;
    warn(&config);
    let descriptors = descriptors::raise(Places::descriptors(config.gateway.max_connections));
    let places = Places::new(&config.gateway, descriptors);
    for told in private::close(&host.data) {
        tracing::warn!(target: "operation", "{told}");
    }
    if let Some(limit) = descriptors.filter(|limit| *limit < MIN_DESCRIPTORS) {
        tracing::warn!(
            target: "operation",
            "only {limit} file descriptors are allowed, enough for {} connections with a waiting turn each; raise \
             `ulimit -n`",
            places.most()
        );
    }
    let runtime = runtime()?;
    let served = runtime.block_on(Box::pin(serve(host, &settings, config, places, wrap)));
    runtime.shutdown_timeout(STUCK);
    drop(logs);
    served
}

fn runtime() -> Result<runtime::Runtime, Fault> {
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(THREADS));
    let built = runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    built.map_err(|error| Fault::because("no threads can be started", &error))
}

/// Adds to the warnings what the operator should know of the choice of settings and of the agents' folders; unpacks the
/// example agents if they are meant.
fn tell(settings: &Settings, host: &HostArgs, config: &mut Config) -> Result<(), Fault> {
    let (file, demo) = match settings {
        Settings::Examples => return examples::write_workspaces(&host.data),
        Settings::Named { file, demo } => (file, *demo),
        Settings::Noted { file, demo } => {
            config.warnings.push(format!(
                "no settings are named: serving with those that the data was served with before, {}; name others with \
                 --config or REEF_CONFIG",
                file.display()
            ));
            (file, *demo)
        }
    };
    if demo {
        config
            .warnings
            .push("--demo: every agent is on the demo model demo/echo, which only echoes".to_owned());
    }
    let of_workspaces = workspaces::warnings(config, &folder::absolute(file));
    config.warnings.extend(of_workspaces);
    Ok(())
}

/// Leaves a note of the settings in the data folder, for the operator's commands, and warns if another server has left
/// another one.
fn leave_note(settings: &Settings, data: &Path) {
    let note = settings.note();
    if let Some(known) = Note::read(data).ok().flatten().filter(|known| *known != note) {
        tracing::warn!(
            target: "operation",
            "the data in {} was served with other settings until now: {}; now it is with {}. If that server still runs, stop one \
             of them: both go on with the same sessions and jobs, with different agents",
            folder::absolute(data).display(),
            known.shown(),
            note.shown()
        );
    }
    if let Err(error) = note.leave(data) {
        let cause = error.to_string();
        tracing::warn!(
            target: "operation",
            { cause },
            "which settings are served cannot be noted in the data folder: give the operator's commands --config"
        );
    }
}

/// Says how many tokens there are: whoever has lost the first one learns how to make another.
async fn tell_tokens(site: &Site) -> Result<(), Fault> {
    let app = &site.app;
    let now = app.clock.now();
    let tokens = app.stores.tokens.list(&app.tenant).await?;
    let live = tokens.iter().filter(|token| token.is_live(now)).count();
    if live > 0 {
        tracing::info!(target: "operation", { tokens = live }, "tokens that are live; `reef token create` makes another");
    } else if !tokens.is_empty() {
        tracing::warn!(
            target: "operation",
            "no token is live, so nobody can come in; `reef token create --name NAME --scopes admin` makes one"
        );
    }
    Ok(())
}

/// Tells what the operator should know of the settings.
fn warn(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!(target: "operation", "{warning}");
    }
    let gateway = &config.gateway;
    // Of `tls: "inFront"` without such a proxy the settings warn themselves.
    if !gateway.listen.ip().is_loopback() && gateway.trusted_proxies.is_empty() && !gateway.tls_in_front {
        tracing::warn!(
            target: "operation",
            "listening on {} without TLS: tokens from other machines are refused; end TLS in a proxy in front and put its \
             address into gateway.trustedProxies",
            gateway.listen
        );
    }
}

/// Tells if this process has too little memory for bodies that the settings allow.
fn warn_of_little_memory(site: &Site) {
    let budget = &site.app.budget;
    let (largest, most) = (budget.largest() / BODY_WEIGHT, site.app.config.gateway.max_body_bytes);
    if largest < most {
        tracing::warn!(
            target: "operation",
            "requests of more than {largest} bytes are refused, though gateway.maxBodyBytes allows {most}: work may use {} \
             bytes of memory; give the process more, or set gateway.memoryBudget",
            budget.total()
        );
    }
}

async fn serve(
    host: &HostArgs,
    settings: &Settings,
    config: Config,
    places: Places,
    wrap: Wrap,
) -> Result<(), Fault> {
    // Before anything is started: a signal that comes early is not lost.
    let mut signals = Signals::new().map_err(|error| Fault::because("signals cannot be received", &error))?;
    let address = config.gateway.listen;
    let drain = config.gateway.drain;
    let write_timeout = config.gateway.write_timeout;
    let site = site::open(&host.data, config, wrap)?;
    let listener = listen::bind(address).map_err(|error| {
        Fault::because(&format!("cannot listen on {address}; choose with --listen ADDR:PORT"), &error)
    })?;
    let bound = listener.local_addr()?;
    leave_note(settings, &host.data);
    tell_tokens(&site).await?;
    warn_of_little_memory(&site);
    first_token::make(&site.app, &host.data).await?;

    let stop = CancellationToken::new();
    let Site { app, tasks, .. } = &site;
    tasks.spawn(Box::pin(worker::sweep::run(app.clone(), tasks.clone(), stop.clone())));
    tasks.spawn(Box::pin(worker::run(app.clone(), tasks.clone(), stop.clone())));
    let server = Server {
        router: http::router(app.clone()),
        metrics: app.metrics.clone(),
        places: Arc::new(places),
        write_timeout,
        tasks: tasks.clone(),
        stop: stop.clone(),
    };
    tasks.spawn(Box::pin(server.accept(listener)));
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
