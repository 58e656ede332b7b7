//! `reef chat`: an agent in the terminal, in this process, on the same data as the server.

use crate::examples;
use crate::fault::Fault;
use crate::host::{HostArgs, Purpose};
use crate::output::{self, OutputArgs};
use crate::site::{self, Site, Wrap};
use clap::Args;
use futures::StreamExt;
use serde_json::{Value, json};
use shared::agent::{Agent, RunOptions, RunRequest, TurnEvent};
use shared::id::{AgentId, PrincipalId, SessionKey, TurnId};
use shared::message::MessageBody;
use shared::quote::quoted;
use shared::session::TurnOutcome;
use std::io::{self, BufRead, IsTerminal, Read, Write};

/// The name under which the local operator acts.
const OPERATOR: &str = "operator";

/// Options of `reef chat`.
#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// Which agent; default: the first one
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Which session; default: `agent:<ID>:main`
    #[arg(long, value_name = "KEY")]
    session: Option<String>,
    /// Say this, print the answer and end; without it standard input is read
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &ChatArgs, host: &HostArgs, wrap: Wrap) -> Result<(), Fault> {
    host.needs_a_site("chat")?;
    let config = host.config(Purpose::Run)?;
    if host.config.is_none() {
        examples::write_workspaces(&host.data)?;
    }
    let agent = match &args.agent {
        None => config.default_agent().clone(),
        Some(id) => config
            .agent(&AgentId::new(id.as_str()))
            .cloned()
            .ok_or_else(|| Fault::new(format!("there is no agent {}; see `reef agents list`", quoted(id))))?,
    };
    let key = args.session.clone().unwrap_or_else(|| format!("agent:{}:main", agent.id));
    let site = site::open(&host.data, config, wrap)?;
    let chat = Chat { site: &site, agent: &agent, key: SessionKey::new(key), json: args.output.json };
    site::block_on(async {
        let done = chat.run(args.message.as_deref()).await;
        site.tasks.close();
        site.tasks.wait().await;
        let closed = site.store.close().await.map_err(Fault::from);
        done.and(closed)
    })?
}

struct Chat<'a> {
    site: &'a Site,
    agent: &'a Agent,
    key: SessionKey,
    json: bool,
}

impl Chat<'_> {
    async fn run(&self, message: Option<&str>) -> Result<(), Fault> {
        if let Some(message) = message {
            return self.turn(message).await;
        }
        if !io::stdin().is_terminal() {
            let mut message = String::new();
            io::stdin()
                .lock()
                .read_to_string(&mut message)
                .map_err(|error| Fault::because("standard input cannot be read", &error))?;
            return self.turn(message.trim_end()).await;
        }
        output::line(&format!(
            "{} ({}), session {}; end with Ctrl-D",
            self.agent.name, self.agent.model, self.key
        ))?;
        loop {
            prompt()?;
            let mut message = String::new();
            let read = io::stdin().lock().read_line(&mut message);
            if read.map_err(|error| Fault::because("standard input cannot be read", &error))? == 0 {
                output::line("")?;
                return Ok(());
            }
            if message.trim().is_empty() {
                continue;
            }
            // A failed turn does not end the talk.
            if let Err(Fault::Told(problem)) = self.turn(message.trim_end()).await {
                writeln!(io::stderr().lock(), "reef: {problem}")?;
            }
        }
    }

    /// Says one message, and prints the answer as it comes.
    async fn turn(&self, message: &str) -> Result<(), Fault> {
        if message.is_empty() {
            return Err(Fault::new("there is nothing to say; give --message, or text on standard input"));
        }
        let mut events = self.site.app.agents.invoke(self.request(message)).await?;
        while let Some(event) = events.next().await {
            match event? {
                TurnEvent::Text { delta } if !self.json => print(&output::clean(&delta))?,
                TurnEvent::ToolStarted { call } if !self.json => {
                    // Beside the answer, not in it.
                    writeln!(
                        io::stderr().lock(),
                        "[{} {}]",
                        output::clean(&call.name),
                        output::clean(&call.arguments)
                    )?;
                }
                TurnEvent::Ended { outcome } => return self.ended(outcome),
                _ => {}
            }
        }
        Err(Fault::new("the turn was left unfinished; a running server goes on with it"))
    }

    fn ended(&self, outcome: TurnOutcome) -> Result<(), Fault> {
        if self.json {
            let failed = !matches!(outcome, TurnOutcome::Done(_));
            output::json(&shown(&self.key, &outcome))?;
            return if failed { Err(Fault::Shown) } else { Ok(()) };
        }
        match outcome {
            TurnOutcome::Done(_) => Ok(output::line("")?),
            TurnOutcome::Failed(failure) => Err(Fault::new(failure.message)),
            TurnOutcome::Parked(parked) => Err(Fault::new(format!(
                "the turn is parked: whether its call of {} took effect is not known; see `reef jobs list`",
                output::clean(&parked.call.name)
            ))),
        }
    }

    fn request(&self, message: &str) -> RunRequest {
        let app = &self.site.app;
        RunRequest {
            turn: TurnId::new(app.ids.ulid(app.clock.now())),
            tenant: app.tenant.clone(),
            principal: PrincipalId::new(OPERATOR),
            agent: self.agent.id.clone(),
            session: self.key.clone(),
            sticky: true,
            idempotency: None,
            input: vec![MessageBody::user_text(message)],
            options: RunOptions {
                channel: "cli".to_owned(),
                trigger: "cli".to_owned(),
                ..RunOptions::default()
            },
        }
    }
}

fn shown(key: &SessionKey, outcome: &TurnOutcome) -> Value {
    match outcome {
        TurnOutcome::Done(reply) => json!({
            "status": "done",
            "session": key,
            "text": reply.text,
            "model": reply.model,
            "usage": reply.usage,
        }),
        TurnOutcome::Failed(failure) => json!({
            "status": "failed",
            "session": key,
            "code": failure.kind.code(),
            "message": failure.message,
        }),
        TurnOutcome::Parked(parked) => json!({"status": "parked", "session": key, "call": parked.call}),
    }
}

fn prompt() -> io::Result<()> {
    print("> ")
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
