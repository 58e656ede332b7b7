//! What the functions cost: `cargo run --release -p tests --bin functions-bench`.
//!
//! The real binaries run on the emulated Lambda of `harness::lambda`, over emulated stores, beside a function that does
//! nothing (`hello`): start to first question for an event, a cold and a warm request, memory, size. Times hold the
//! emulators' work, too; what is compared with `hello` holds the same. The machine is not Lambda's: compare, do not quote.
//!
//! Without `--functions` the binaries are built first. With it they are taken from what `cargo lambda build --release
//! --output-format zip` left, and the zips' sizes are measured along.

use bytes::Bytes;
use clap::Parser;
use harness::cloud::{AGENT_INVOKE, Deployment, GATEWAY, Programs, QUEUE_WORKER};
use harness::lambda::Function;
use harness::usage;
use serde_json::{Value, json};
use std::error::Error;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const HELLO: &str = "hello";

/// Measures the functions against one that does nothing.
#[derive(Parser)]
struct Options {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// A few events: whether it works, not how fast it is
    #[arg(long)]
    smoke: bool,
    /// Where `cargo lambda build` left the functions, e.g. target/lambda
    #[arg(long)]
    functions: Option<PathBuf>,
    /// A program that runs them, for another processor's, e.g. qemu-aarch64-static
    #[arg(long, requires = "functions")]
    through: Option<String>,
}

/// A function's binary, and its zip if there is one.
struct Built {
    name: &'static str,
    /// What is started.
    program: PathBuf,
    binary: PathBuf,
    zip: Option<PathBuf>,
}

#[derive(Default)]
struct Figures {
    name: String,
    init_ms: f64,
    init_max_ms: f64,
    warm_us: f64,
    warm_p99_us: f64,
    /// Processor time of the function itself: the emulator's waiting is not in it.
    cpu_us: f64,
    rss_mib: f64,
    binary_mb: f64,
    zip_mb: Option<f64>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(measure(&options)));
    if let Err(error) = ended {
        let _ = writeln!(std::io::stderr(), "functions-bench: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn measure(options: &Options) -> Result<()> {
    let built = match &options.functions {
        Some(folder) => found(folder, options.through.as_deref())?,
        None => build()?,
    };
    let (starts, cold, warm) = if options.smoke { (2, 2, 20) } else { (200, 20, 500) };
    let programs = Programs {
        gateway: text(&built[1].program)?,
        agent_invoke: text(&built[2].program)?,
        queue_worker: text(&built[3].program)?,
    };
    let agent = json!({"id": "main", "model": "demo/echo", "workspace": "main"});
    let deployment = Deployment::start(programs, &json!({"agents": [agent]})).await;
    deployment.platform.deploy(HELLO, Function::new(text(&built[0].program)?));
    // In turn, so that a slow moment of the machine is every function's.
    let mut inits = vec![Vec::new(); built.len()];
    for _ in 0..starts {
        for (built, inits) in built.iter().zip(&mut inits) {
            inits.extend(start(&deployment, built).await?);
        }
    }
    let mut rows = Vec::new();
    for (built, inits) in built.iter().zip(&inits) {
        rows.push(one(&deployment, built, inits, warm).await?);
    }
    let chat = chat(&deployment, cold, warm).await?;
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(
            out,
            "{}",
            json!({"functions": rows.iter().map(Figures::json).collect::<Vec<_>>(), "chat": chat})
        )?;
        return Ok(());
    }
    writeln!(
        out,
        "{:<14}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>11}{:>9}",
        "function", "init p50", "max", "warm p50", "p99", "warm CPU", "RSS", "binary", "zip"
    )?;
    for row in &rows {
        let zip = row.zip_mb.map_or_else(String::new, |zip| format!("{zip:.2} MB"));
        writeln!(
            out,
            "{:<14}{:>7.1} ms{:>7.1} ms{:>7.0} µs{:>7.0} µs{:>7.0} µs{:>6.1} MiB{:>8.2} MB{zip:>9}",
            row.name,
            row.init_ms,
            row.init_max_ms,
            row.warm_us,
            row.warm_p99_us,
            row.cpu_us,
            row.rss_mib,
            row.binary_mb
        )?;
    }
    let beside_hello = |told: &dyn Fn(&Figures) -> String| {
        rows[1..].iter().map(|row| format!("{} {}", row.name, told(row))).collect::<Vec<_>>().join(", ")
    };
    let init = beside_hello(&|row| format!("{:.2} x", row.init_ms / rows[0].init_ms));
    let warm = beside_hello(&|row| format!("{:+.2} ms", (row.warm_us - rows[0].warm_us) / 1000.0));
    writeln!(out, "beside hello, which holds the emulator's part: init {init}; a warm invocation {warm}")?;
    writeln!(out, "a streamed chat turn through both functions, emulated stores included: {chat}")?;
    Ok(())
}

impl Figures {
    fn json(&self) -> Value {
        json!({
            "function": self.name, "init_ms": self.init_ms, "init_max_ms": self.init_max_ms, "warm_us": self.warm_us,
            "warm_p99_us": self.warm_p99_us, "cpu_us": self.cpu_us, "rss_mib": self.rss_mib, "binary_mb": self.binary_mb, "zip_mb": self.zip_mb,
        })
    }
}

fn text(path: &Path) -> Result<&'static str> {
    // For the length of the process: it measures once and ends.
    Ok(Box::leak(path.to_str().ok_or("a path that is no text")?.to_owned().into_boxed_str()))
}

fn build() -> Result<Vec<Built>> {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    cargo.args(["build", "--profile", profile, "--package", "gateway", "--package", "agent-invoke"]);
    cargo.args(["--package", "queue-worker", "--package", HELLO]);
    if !cargo.stdout(Stdio::null()).status()?.success() {
        return Err("the functions could not be built".into());
    }
    let folder = std::env::current_exe()?.with_file_name("");
    let one = |name: &'static str| {
        let program = folder.join(name);
        Built { name, binary: program.clone(), program, zip: None }
    };
    Ok([HELLO, GATEWAY, AGENT_INVOKE, QUEUE_WORKER].map(one).into())
}

/// `<name>/bootstrap.zip`, and beside it the binary that was put into it, or what runs that.
fn found(folder: &Path, through: Option<&str>) -> Result<Vec<Built>> {
    let one = |name: &'static str| -> Result<Built> {
        let zip = folder.join(name).join("bootstrap.zip");
        let unpacked = folder.join(name).join("unpacked");
        let unzip = "import sys,zipfile; zipfile.ZipFile(sys.argv[1]).extractall(sys.argv[2])";
        let status = Command::new("python3").args(["-c", unzip]).arg(&zip).arg(&unpacked).status()?;
        let program = unpacked.join("bootstrap");
        if !status.success() {
            return Err(format!("{} cannot be unpacked", zip.display()).into());
        }
        let runnable = |path: &Path| std::fs::set_permissions(path, PermissionsExt::from_mode(0o755));
        runnable(&program)?;
        let binary = std::path::absolute(program)?;
        let program = match through {
            None => binary.clone(),
            Some(through) => {
                let script = binary.with_file_name("run");
                std::fs::write(&script, format!("#!/bin/sh\nexec {through} '{}'\n", binary.display()))?;
                runnable(&script)?;
                script
            }
        };
        Ok(Built { name, program, binary, zip: Some(zip) })
    };
    [HELLO, GATEWAY, AGENT_INVOKE, QUEUE_WORKER].into_iter().map(one).collect()
}

/// An event that a function answers without a store.
fn event(name: &str) -> Value {
    match name {
        GATEWAY => json!({
            "resource": "/{proxy+}", "path": "/health", "httpMethod": "GET", "headers": {}, "multiValueHeaders": {},
            "requestContext": {"httpMethod": "GET", "path": "/live/health", "stage": "live", "identity": {}},
            "isBase64Encoded": false,
        }),
        // Refused before anything is stored.
        AGENT_INVOKE => json!({"run": {
            "turn": "t", "tenant": "main", "principal": "p", "agent": "nobody", "session": "s", "sticky": false,
            "idempotency": null, "input": [], "options": {},
        }}),
        QUEUE_WORKER => json!({"Records": []}),
        _ => json!({}),
    }
}

/// Asks the function for an answer to such an event.
async fn ask(deployment: &Deployment, name: &str, event: &Bytes) -> Result<()> {
    let answer = deployment.platform.answer(name, event.clone()).await;
    answer.map(drop).map_err(|(code, told)| format!("{name} answers {code}: {told}").into())
}

/// Starts the function and lets it answer; from its process's start to its first question for an event.
async fn start(deployment: &Deployment, built: &Built) -> Result<Vec<Duration>> {
    // Deployed anew: no instance is left.
    if built.name == HELLO {
        deployment.platform.deploy(HELLO, Function::new(text(&built.program)?));
    } else {
        deployment.change(built.name, |function| function);
    }
    ask(deployment, built.name, &event(built.name).to_string().into()).await?;
    Ok(deployment.platform.inits(built.name))
}

/// What the function costs that started last, and how long its starts took.
async fn one(deployment: &Deployment, built: &Built, inits: &[Duration], warm: usize) -> Result<Figures> {
    let platform = &deployment.platform;
    let event: Bytes = event(built.name).to_string().into();
    let mut inits = millis(inits);
    let mut times = Vec::new();
    let process = *platform.processes(built.name).first().ok_or("no instance")?;
    let before = usage::cpu(process)?;
    for _ in 0..warm {
        let started = Instant::now();
        ask(deployment, built.name, &event).await?;
        times.push(started.elapsed());
    }
    let used = usage::cpu(process)?.saturating_sub(before);
    let mut times = millis(&times);
    let mut memory = Vec::new();
    for process in platform.processes(built.name) {
        memory.push(usage::rss_mib(process)?);
    }
    let size = |path: &Path| -> Result<f64> { Ok(mega(std::fs::metadata(path)?.len())) };
    Ok(Figures {
        name: built.name.to_owned(),
        init_ms: at(&mut inits, 50),
        init_max_ms: at(&mut inits, 100),
        warm_us: at(&mut times, 50) * 1000.0,
        warm_p99_us: at(&mut times, 99) * 1000.0,
        cpu_us: used.as_secs_f64() * 1e6 / f64::from(u32::try_from(warm)?),
        rss_mib: at(&mut memory, 100),
        binary_mb: size(&built.binary)?,
        zip_mb: built.zip.as_deref().map(size).transpose()?,
    })
}

/// First byte and last of a streamed chat turn, cold and warm.
async fn chat(deployment: &Deployment, cold: usize, warm: usize) -> Result<Value> {
    let token = deployment.admin().await;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let ask = async || -> Result<(Duration, Duration)> {
        let body =
            json!({"model": "openclaw", "stream": true, "messages": [{"role": "user", "content": "hello"}]});
        let started = Instant::now();
        let url = format!("{}/v1/chat/completions", deployment.front.url());
        let mut answer = client.post(url).bearer_auth(&token).json(&body).send().await?.error_for_status()?;
        answer.chunk().await?.ok_or("an empty answer")?;
        let first = started.elapsed();
        while answer.chunk().await?.is_some() {}
        Ok((first, started.elapsed()))
    };
    let (mut cold_first, mut first, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..cold {
        // Deployed anew: no instance is left.
        deployment.change(GATEWAY, |function| function);
        deployment.change(AGENT_INVOKE, |function| function);
        cold_first.push(ask().await?.0);
    }
    for _ in 0..warm / 5 {
        let times = ask().await?;
        first.push(times.0);
        whole.push(times.1);
    }
    let p50 = |times: &[Duration]| (at(&mut millis(times), 50) * 100.0).round() / 100.0;
    Ok(
        json!({"cold_first_byte_ms": p50(&cold_first), "warm_first_byte_ms": p50(&first), "warm_whole_ms": p50(&whole)}),
    )
}

fn millis(times: &[Duration]) -> Vec<f64> {
    times.iter().map(|time| time.as_secs_f64() * 1000.0).collect()
}

/// The value at this percentile.
fn at(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get(last * percent / 100).copied().unwrap_or(f64::NAN)
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
