//! `reef chat`: an agent in the terminal, in this process, on the same data as the server.

use crate::examples;
use crate::fault::Fault;
use crate::folder;
use crate::host::{HostArgs, Purpose, Settings};
use crate::note::Note;
use crate::output::{self, OutputArgs};
use crate::site::{self, Site, Wrap};
use crate::workspaces;
use clap::Args;
use futures::StreamExt;
use serde_json::{Value, json};
use shared::agent::{Agent, RunOptions, RunRequest, TurnEvent};
use shared::config::Config;
use shared::id::{AgentId, PrincipalId, SessionKey, TurnId};
use shared::message::MessageBody;
use shared::session::TurnOutcome;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::Path;

/// The name under which the local operator acts.
const OPERATOR: &str = "operator";

/// Options of `reef chat`.
#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// Which agent; default: the session's, else the one that answers requests that name none
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
    let settings = prepare(host)?;
    let config = host.config(Purpose::Run)?;
    let agent = agent(args, &config)?;
    let key = args.session.clone().unwrap_or_else(|| format!("agent:{}:main", agent.id));
    if let Settings::Named { file, .. } | Settings::Noted { file, .. } = &settings
        && let Some(warning) =
            workspaces::warning(&agent, folder::absolute(file).parent().unwrap_or(Path::new("/")))
    {
        say(&warning);
    }
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

/// Settles which settings are meant, and makes what a first chat needs. Says on standard error what the person may not have
/// meant: that a folder is new, that the settings are others than the server's.
fn prepare(host: &HostArgs) -> Result<Settings, Fault> {
    let settings = host.settings()?;
    let data = folder::absolute(&host.data);
    let is_new = !folder::holds_data(&host.data)?;
    let known = Note::read(&host.data)?;
    if settings == Settings::Examples && known.is_none() {
        if !is_new {
            return Err(Fault::new(format!(
                "there is data in {}, but with which settings it is served is not known, and the four example agents have no \
                 business there; name the settings with --config or REEF_CONFIG, or other data with --data",
                data.display()
            )));
        }
        examples::write_workspaces(&host.data)?;
        // They are this folder's agents from now on: the next chat needs no settings either.
        if let Err(error) = settings.note().leave(&host.data) {
            return Err(folder::unusable(&host.data, &error));
        }
    } else if settings == Settings::Examples {
        examples::write_workspaces(&host.data)?;
    }
    if is_new {
        say(&format!("there was no data in {}: it is made there now", data.display()));
    } else {
        host.told_settings()?;
    }
    Ok(settings)
}

/// The agent that is meant: the named one, else the one whose name the session's key holds, else the default one.
fn agent(args: &ChatArgs, config: &Config) -> Result<Agent, Fault> {
    let of_key = args.session.as_deref().and_then(agent_of);
    let Some(id) = args.agent.as_deref().or(of_key) else { return Ok(config.default_agent().clone()) };
    if let (Some(of_key), Some(key)) = (of_key.filter(|of_key| *of_key != id), &args.session) {
        return Err(another_agents(key, of_key, id));
    }
    config
        .agent(&AgentId::new(id))
        .cloned()
        .ok_or_else(|| Fault::new(format!("there is no agent {}; see `reef agents list`", output::clean(id))))
}

/// The agent in a key of the form `agent:ID:…`.
fn agent_of(key: &str) -> Option<&str> {
    key.strip_prefix("agent:")?.split_once(':').map(|(id, _)| id)
}

fn another_agents(key: &str, owner: &str, asked: &str) -> Fault {
    let (key, owner, asked) = (output::clean(key), output::clean(owner), output::clean(asked));
    Fault::new(format!(
        "the session {key} belongs to the agent {owner}, not to {asked}; say --agent {owner}, or name another session"
    ))
}

/// Beside the answer, not in it. If nobody can hear it, the chat goes on.
fn say(note: &str) {
    let _ = writeln!(io::stderr().lock(), "reef: {note}");
}

struct Chat<'a> {
    site: &'a Site,
    agent: &'a Agent,
    key: SessionKey,
    json: bool,
}

impl Chat<'_> {
    async fn run(&self, message: Option<&str>) -> Result<(), Fault> {
        let app = &self.site.app;
        let session = app.stores.sessions.load(&app.tenant, &self.key).await?;
        if let Some(session) = session.filter(|session| session.agent != self.agent.id) {
            return Err(another_agents(self.key.as_str(), session.agent.as_str(), self.agent.id.as_str()));
        }
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
