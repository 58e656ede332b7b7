//! `reef deploy`: an environment of `samconfig.toml` onto AWS, one stack after the other, each looked after before the next
//! one. The work is done by the SAM CLI and the AWS CLI: what is run is printed, and can be run by hand.

mod plan;
mod samconfig;

use crate::fault::Fault;
use crate::output;
use clap::Args;
use plan::{Command, Plan, Probe, Requirement, Stack};
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
    let plan = Plan::new(&args.environment, &sections, &args.samconfig).map_err(|problems| {
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
    // Templates and folders in samconfig.toml begin at its own folder.
    let file = std::path::absolute(&args.samconfig)?;
    Deployment { folder: file.parent().unwrap_or(Path::new("/")), live: Vec::new() }.run(&plan)
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
}

impl<'a> Deployment<'a> {
    fn run(mut self, plan: &'a Plan) -> Result<(), Fault> {
        self.prerequisites(&plan.requirements)?;
        for (place, stack) in plan.stacks.iter().enumerate() {
            output::line(&format!("== {}", stack.title()))?;
            let deployed = self.stack(stack)?;
            match deployed {
                Ok(address) => self.live.push(Live { stack, address }),
                Err(problem) => return Err(self.stopped(&plan.stacks[place..], &problem)),
            }
        }
        output::line("== all of them once more")?;
        for live in &self.live {
            for probe in &live.stack.probes {
                if let Err(problem) = self.probe(probe, live.address.as_deref())? {
                    return Err(self.stopped(&[], &problem));
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
            shown(&requirement.command)?;
            match self.captured(&requirement.command)? {
                Ok(said) => missing.extend(requirement.problem_with(&said)),
                Err(problem) => missing.push(format!("{}: {problem}", requirement.remedy)),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let list = missing.join("\n  ");
        Err(Fault::new(format!("prerequisites are missing; nothing was changed\n  {list}")))
    }

    /// Deploys a stack and asks whether it works. The inner error is a command that failed.
    fn stack(&self, stack: &Stack) -> Result<Result<Option<String>, String>, Fault> {
        for command in &stack.commands {
            shown(command)?;
            if let Err(problem) = self.watched(command)? {
                return Ok(Err(problem));
            }
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
        let command = probe.command.at(address);
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
    fn stopped(&self, rest: &[Stack], problem: &str) -> Fault {
        let mut message = format!("stopped: {problem}");
        if self.live.is_empty() {
            message.push_str("\nnothing is live that was not before");
        } else {
            message.push_str(&format!("\nlive:\n{}", self.told()));
        }
        if let Some((failed, later)) = rest.split_first() {
            message.push_str(&format!("\nfailed, and as it was before or broken:\n  {}", failed.title()));
            if !later.is_empty() {
                let titles = later.iter().map(|stack| format!("  {}", stack.title())).collect::<Vec<_>>();
                message.push_str(&format!("\nnot touched:\n{}", titles.join("\n")));
            }
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
