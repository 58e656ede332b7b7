//! Reef on a company's own servers: `reef serve` and the operator's commands.
//!
//! One file per command. [`site::open`] wires what runs turns from the settings, the store on disk and the model vendors;
//! every command that reads or runs something begins there. Commands work while a server runs on the same data: several
//! processes on one store are safe.

mod agents;
mod audit;
mod chat;
mod check;
mod completions;
mod config;
mod data;
mod deploy;
mod descriptors;
mod examples;
mod fault;
mod first_token;
mod folder;
mod host;
mod jobs;
mod listen;
mod logs;
mod memory;
mod note;
mod output;
mod private;
#[cfg(feature = "aws")]
mod region;
mod serve;
mod sessions;
pub mod site;
mod token;
mod workspaces;

use clap::{Parser, Subcommand};
use fault::Fault;
use host::HostArgs;
use shared::bounds::ERROR_BYTES;
use shared::quote::shortened;
use site::Wrap;
use std::io::{self, Write};
use std::process::ExitCode;
use tikv_jemallocator::Jemalloc;

/// A turn is some hundreds of small allocations: with this allocator it takes a third less CPU time than with glibc's, in
/// about the same memory. Here and not in the binary, so that every binary made of this library has it.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Durable AI agent turns on your own servers.
#[derive(Debug, Parser)]
#[command(name = "reef", version, arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    host: HostArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the agents over HTTP until a signal ends it.
    Serve(serve::ServeArgs),
    /// Talk to an agent in the terminal.
    Chat(chat::ChatArgs),
    /// Make, list and revoke tokens.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// List the agents.
    #[command(subcommand)]
    Agents(agents::AgentsCommand),
    /// List, show and export sessions.
    #[command(subcommand)]
    Sessions(sessions::SessionsCommand),
    /// List jobs and deliver dead ones again.
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// Read and verify the audit trail.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Check the data for damage.
    #[command(subcommand)]
    Data(check::DataCommand),
    /// Check and show the settings.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Deploy an environment onto AWS: the global stack, the regions one at a time, the edge.
    Deploy(deploy::DeployArgs),
    /// List an environment's regions on AWS, take one out of service and put it back.
    #[cfg(feature = "aws")]
    #[command(subcommand)]
    Region(region::RegionCommand),
    /// Only with AWS: said instead of a guess at another command.
    #[cfg(not(feature = "aws"))]
    #[command(hide = true)]
    Region {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _words: Vec<String>,
    },
    /// Print a completion script for a shell.
    Completions(completions::CompletionsArgs),
}

/// Says what is wrong with the command line, and ends the process. A long value is not printed back.
fn wrong_usage(error: &clap::Error) -> ! {
    let told = error.render().to_string();
    if error.use_stderr() && told.len() > ERROR_BYTES {
        // If standard error is closed, the exit code has to say it all.
        let _ = writeln!(io::stderr().lock(), "{}", shortened(told, ERROR_BYTES));
        std::process::exit(error.exit_code());
    }
    error.exit()
}

/// Runs the command line of this process. `wrap` may put something around what turns meet outside the process: the
/// identity for the product, fault points for the crash suite.
pub fn main(wrap: Wrap) -> ExitCode {
    private::nothing_for_others();
    let Cli { host, command } = Cli::try_parse().unwrap_or_else(|error| wrong_usage(&error));
    #[cfg(not(feature = "aws"))]
    if host.aws.is_some() {
        return host::without_aws("--aws and REEF_AWS").report();
    }
    let done = match command {
        Command::Serve(args) => serve::run(&args, &host, wrap),
        Command::Chat(args) => chat::run(&args, &host, wrap),
        Command::Token(command) => token::run(command, &host),
        Command::Agents(command) => agents::run(&command, &host),
        Command::Sessions(command) => sessions::run(command, &host),
        Command::Jobs(command) => jobs::run(command, &host),
        Command::Audit(command) => audit::run(command, &host),
        Command::Data(command) => check::run(&command, &host),
        Command::Config(command) => config::run(command, &host),
        Command::Deploy(args) => deploy::run(&args),
        #[cfg(feature = "aws")]
        Command::Region(command) => region::run(command, &host),
        #[cfg(not(feature = "aws"))]
        Command::Region { .. } => Err(host::without_aws("reef region")),
        Command::Completions(args) => completions::run(&args),
    };
    done.map_or_else(Fault::report, |()| ExitCode::SUCCESS)
}
