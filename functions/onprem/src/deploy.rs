//! `reef deploy`: an environment of `samconfig.toml` onto AWS, one stack after the other, each checked before the next
//! one. The work is done by the SAM CLI and the AWS CLI: what is run is printed, and can be run by hand.

mod command;
mod keys;
mod plan;
mod requirement;
mod samconfig;
mod stack;
mod template;

use crate::fault::Fault;
use crate::output;
use clap::Args;
use command::{ADDRESS, Command, VERSION};
use keys::Keys;
use plan::Plan;
use requirement::Requirement;
use shared::secret::Secret;
use stack::{Probe, Stack};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};

/// Options of `reef deploy`.
#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    /// Which environment of samconfig.toml, e.g. dev
    environment: String,
    /// Print the commands and run none of them
    #[arg(long)]
    dry_run: bool,
    /// The SAM CLI's settings, at the top of the repository
    #[arg(long, value_name = "FILE", default_value = "samconfig.toml")]
    samconfig: PathBuf,
}

pub(crate) fn run(args: &DeployArgs) -> Result<(), Fault> {
    let sections = samconfig::read(&args.samconfig)?;
    // Templates and folders in samconfig.toml begin at its own folder.
    let file = std::path::absolute(&args.samconfig)?;
    let plan = Plan::new(&args.environment, &sections, &file).map_err(|problems| {
        let file = args.samconfig.display();
        let word = if problems.len() == 1 { "problem" } else { "problems" };
        Fault::new(format!("{file}: {} {word}\n  {}", problems.len(), problems.join("\n  ")))
    })?;
    if args.dry_run {
        for line in plan.script() {
            output::line(&line)?;
        }
        return Ok(());
    }
    Deployment { folder: file.parent().unwrap_or(Path::new("/")), live: Vec::new(), keys: None }.run(&plan)
}

/// A stack that is deployed and answers, and where.
struct Live<'a> {
    stack: &'a Stack,
    address: Option<String>,
}

/// A deployment on its way.
struct Deployment<'a> {
    folder: &'a Path,
    live: Vec<Live<'a>>,
    /// The vendors' keys, as the last region's secret held them.
    keys: Option<Secret>,
}

/// Why a deployment stopped at a stack.
struct Stop {
    problem: String,
    /// Whether the stack may have been changed.
    is_touched: bool,
}

impl<'a> Deployment<'a> {
    fn run(mut self, plan: &'a Plan) -> Result<(), Fault> {
        for warning in &plan.warnings {
            output::line(&format!("warning: {warning}"))?;
        }
        self.prerequisites(&plan.requirements)?;
        for (place, stack) in plan.stacks.iter().enumerate() {
            output::line(&format!("== {}", stack.title()))?;
            match self.stack(plan, stack)? {
                Ok(address) => self.live.push(Live { stack, address }),
                Err(stop) => return Err(self.stopped(&plan.stacks[place..], &stop)),
            }
        }
        output::line("== all of them once more")?;
        for live in &self.live {
            for probe in &live.stack.probes {
                if let Err(problem) = self.probe(probe, live.address.as_deref())? {
                    return Err(self.stopped(&[], &Stop { problem, is_touched: true }));
                }
            }
        }
        output::line(&format!("deployed:\n{}", self.told()))?;
        Ok(())
    }

    /// All that is missing is told at once, before anything is changed.
    fn prerequisites(&self, requirements: &[Requirement]) -> Result<(), Fault> {
        output::line("== prerequisites")?;
        let mut missing = Vec::new();
        for requirement in requirements {
            let found = match self.first_that_works(&requirement.commands)? {
                Ok(said) => requirement.problem_with(&said),
                Err(problem) => Some(format!("{}: {problem}", requirement.remedy)),
            };
            match found {
                Some(problem) if requirement.is_advice => output::line(&format!("warning: {problem}"))?,
                found => missing.extend(found),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let list = missing.join("\n  ");
        Err(Fault::new(format!("prerequisites are missing; nothing was changed\n  {list}")))
    }

    /// What the first command says that works, or why the last one does not.
    fn first_that_works(&self, commands: &[Command]) -> Result<Result<String, String>, Fault> {
        let mut answer = Err("nothing to ask".to_owned());
        for command in commands {
            shown(command)?;
            answer = self.captured(command)?;
            if answer.is_ok() {
                break;
            }
        }
        Ok(answer)
    }

    /// Deploys a stack and asks whether it works. The inner error is what a person has to mend.
    fn stack(&mut self, plan: &Plan, stack: &Stack) -> Result<Result<Option<String>, Stop>, Fault> {
        let stop = |is_touched| move |problem| Stop { problem, is_touched };
        Ok(match self.prepared(plan, stack)? {
            Ok(deploy) => self.deployed(stack, &deploy)?.map_err(stop(true)),
            Err(problem) => Err(stop(false)(problem)),
        })
    }

    /// The command that deploys a stack, with all that only AWS knows. Changes nothing there.
    fn prepared(&mut self, plan: &Plan, stack: &Stack) -> Result<Result<Command, String>, Fault> {
        let state = stack.state();
        shown(&state)?;
        let mut deploy = match stack.deploy_from(self.captured(&state)?) {
            Ok(deploy) => deploy,
            Err(problem) => return Ok(Err(problem)),
        };
        if let Some(keys) = plan.keys.as_ref().filter(|_| stack.takes_keys) {
            match self.version(keys, &stack.region)? {
                Ok(version) => deploy = deploy.with(VERSION, &version),
                Err(problem) => return Ok(Err(problem)),
            }
        }
        if let Some(build) = &stack.build {
            shown(build)?;
            if let Err(problem) = self.watched(build)? {
                return Ok(Err(problem));
            }
        }
        Ok(Ok(deploy))
    }

    /// The version of the secret in a region, if it holds the keys that the functions need.
    fn version(&mut self, keys: &Keys, region: &str) -> Result<Result<String, String>, Fault> {
        let ask = keys.version_in(region);
        shown(&ask)?;
        let version = match self.captured(&ask)? {
            Ok(said) => said.trim().to_owned(),
            Err(problem) => return Ok(Err(problem)),
        };
        let ask = keys.value_in(region).with(VERSION, &version);
        shown(&ask)?;
        let held = match self.captured(&ask)? {
            Ok(held) => held,
            Err(problem) => return Ok(Err(problem)),
        };
        if let Some(problem) = keys.problem_with(&held, region) {
            return Ok(Err(problem));
        }
        let held = Secret::new(held);
        if self.keys.as_ref().is_some_and(|before| *before != held) {
            return Ok(Err(keys.lags_in(region)));
        }
        self.keys = Some(held);
        Ok(Ok(version))
    }

    /// Deploys a stack and asks whether it works.
    fn deployed(&self, stack: &Stack, deploy: &Command) -> Result<Result<Option<String>, String>, Fault> {
        shown(deploy)?;
        if let Err(problem) = self.watched(deploy)? {
            return Ok(Err(problem));
        }
        let address = match &stack.address {
            None => None,
            Some(command) => {
                shown(command)?;
                match self.captured(command)? {
                    Ok(said) if said.trim().starts_with("https://") => Some(said.trim().to_owned()),
                    Ok(said) => {
                        return Ok(Err(format!("the stack does not say where it answers: {}", said.trim())));
                    }
                    Err(problem) => return Ok(Err(problem)),
                }
            }
        };
        for probe in &stack.probes {
            if let Err(problem) = self.probe(probe, address.as_deref())? {
                return Ok(Err(problem));
            }
        }
        Ok(Ok(address))
    }

    fn probe(&self, probe: &Probe, address: Option<&str>) -> Result<Result<(), String>, Fault> {
        let command = address.map_or_else(|| probe.command.clone(), |url| probe.command.with(ADDRESS, url));
        shown(&command)?;
        Ok(match self.captured(&command)? {
            Ok(said) if probe.is_content(&said) => Ok(()),
            Ok(said) => Err(format!("`{}` answered: {}", command.line(), output::clean(said.trim()))),
            Err(problem) => Err(problem),
        })
    }

    /// Runs a command whose output people watch.
    fn watched(&self, command: &Command) -> Result<Result<(), String>, Fault> {
        let status = match self.process(command).status() {
            Ok(status) => status,
            Err(error) => return failed_to_start(command, &error).map(Err),
        };
        Ok(if status.success() { Ok(()) } else { Err(format!("`{}` ended with {status}", command.line())) })
    }

    /// Runs a command for what it says.
    fn captured(&self, command: &Command) -> Result<Result<String, String>, Fault> {
        let ended = match self.process(command).stdin(Stdio::null()).output() {
            Ok(ended) => ended,
            Err(error) => return failed_to_start(command, &error).map(Err),
        };
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        if ended.status.success() {
            return Ok(Ok(said));
        }
        let why = String::from_utf8_lossy(&ended.stderr);
        let why = output::clean(why.trim());
        Ok(Err(format!("`{}` ended with {}: {why}", command.line(), ended.status)))
    }

    fn process(&self, command: &Command) -> process::Command {
        let mut process = process::Command::new(&command.program);
        process.args(&command.arguments).current_dir(self.folder);
        process
    }

    fn told(&self) -> String {
        let lines = self.live.iter().map(|live| {
            let address = live.address.as_deref().map(|address| format!(", {address}")).unwrap_or_default();
            format!("  {}{address}", live.stack.title())
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// What failed, what is live, what is not, and what to do.
    fn stopped(&self, rest: &[Stack], stop: &Stop) -> Fault {
        let mut message = format!("stopped: {}", stop.problem);
        if self.live.is_empty() {
            message.push_str("\nnothing is live that was not before");
        } else {
            message.push_str(&format!("\nlive:\n{}", self.told()));
        }
        let (failed, later) = rest.split_at(usize::from(stop.is_touched).min(rest.len()));
        if let Some(failed) = failed.first() {
            message.push_str(&format!("\nfailed, and as it was before or broken:\n  {}", failed.title()));
        }
        if !later.is_empty() {
            let titles = later.iter().map(|stack| format!("  {}", stack.title())).collect::<Vec<_>>();
            message.push_str(&format!("\nnot touched:\n{}", titles.join("\n")));
        }
        message.push_str("\nMend it and run the same command again: what is up to date is left as it is.");
        Fault::new(message)
    }
}

fn shown(command: &Command) -> io::Result<()> {
    output::line(&format!("$ {}", command.line()))
}

/// A program that is not there is the operator's to mend; anything else is ours to tell.
fn failed_to_start(command: &Command, error: &io::Error) -> Result<String, Fault> {
    if error.kind() == io::ErrorKind::NotFound {
        return Ok(format!("`{}` is not installed, or not on the PATH", command.program));
    }
    Err(Fault::because(&format!("{} cannot be started", command.program), error))
}
