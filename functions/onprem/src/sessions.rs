//! `reef sessions list|show|export`.

use crate::data::Data;
use crate::fault::Fault;
use crate::host::HostArgs;
use crate::output::{self, Output, OutputArgs, rfc3339};
use crate::site;
use clap::Subcommand;
use serde_json::{Value, json};
use shared::id::{AgentId, SessionKey, TenantId};
use shared::message::{Message, MessageBody};
use shared::session::{Session, SessionFilter, SessionIndex, SessionStore, Window};
use std::io::{self, Write};

/// Messages that are read at once when a whole transcript is asked for.
const PAGE: usize = 500;

/// `reef sessions …`
#[derive(Debug, Subcommand)]
pub(crate) enum SessionsCommand {
    /// List sessions, last changed first
    List {
        /// Only of this agent
        #[arg(long)]
        agent: Option<String>,
        /// Only of this end user
        #[arg(long)]
        user: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = output::limit)]
        limit: usize,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show a session and its newest messages
    Show {
        /// Its key, e.g. agent:email-manager:main
        key: String,
        /// At most so many messages
        #[arg(long, default_value_t = 20, value_parser = output::limit)]
        limit: usize,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print a session's whole transcript as JSON lines, oldest first
    Export {
        /// Its key, e.g. agent:email-manager:main
        key: String,
    },
}

pub(crate) fn run(command: SessionsCommand, host: &HostArgs) -> Result<(), Fault> {
    site::block_on(async {
        let data = Data::existing(host).await?;
        let (index, sessions) = (data.stores.index.as_ref(), data.stores.sessions.as_ref());
        match command {
            SessionsCommand::List { agent, user, limit, output } => {
                let agents = agent.map(|id| vec![AgentId::new(id)]);
                let filter = SessionFilter { agents, user, updated_before: None, limit };
                list(index, filter, &Output::new(output, host)).await?;
            }
            SessionsCommand::Show { key, limit, output } => {
                show(sessions, key, limit, &Output::new(output, host)).await?;
            }
            SessionsCommand::Export { key } => export(sessions, key).await?,
        }
        data.close().await
    })?
}

async fn list(store: &dyn SessionIndex, filter: SessionFilter, output: &Output) -> Result<(), Fault> {
    let limit = filter.limit;
    // One more than is shown tells whether there are more.
    let filter = SessionFilter { limit: limit.saturating_add(1), ..filter };
    let mut sessions = store.list(&TenantId::single(), &filter).await?;
    let more = output::cut(&mut sessions, limit, "sessions");
    if output.json {
        output::json(&sessions.iter().map(shown).collect())?;
        return Ok(output.more(more)?);
    }
    let rows = sessions.iter().map(|session| {
        [
            session.key.to_string(),
            session.agent.to_string(),
            session.user.clone().unwrap_or_else(|| "-".to_owned()),
            session.channel.clone(),
            session.seq.to_string(),
            output.time(session.updated_at),
            if session.holder.is_some() { "at work" } else { "idle" }.to_owned(),
        ]
    });
    let header = ["KEY", "AGENT", "USER", "CHANNEL", "MESSAGES", "CHANGED", "STATE"];
    output::table(header, rows.collect(), "no sessions")?;
    Ok(output.more(more)?)
}

async fn show(store: &dyn SessionStore, key: String, limit: usize, output: &Output) -> Result<(), Fault> {
    let session = load(store, key).await?;
    let messages = store.transcript(&session.tenant, &session.key, Window::newest(limit)).await?;
    if output.json {
        let mut out = shown(&session);
        out["transcript"] = messages.iter().map(message).collect();
        output::json(&out)?;
        return Ok(());
    }
    let user = session.user.as_deref().map(|user| format!(", user {user}")).unwrap_or_default();
    let state =
        session.holder.as_ref().map(|holder| format!(", turn {} at work", holder.turn)).unwrap_or_default();
    let head = format!("{} (agent {}, {}{user}{state})", session.key, session.agent, session.channel);
    output::line(&output::clean(&head))?;
    output::line(&format!(
        "begun {}, changed {}",
        output.time(session.created_at),
        output.time(session.updated_at)
    ))?;
    let first = messages.first().map_or(session.seq + 1, |message| message.seq);
    if first > 1 {
        output::line(&format!("… {} earlier messages; see --limit, or `reef sessions export`", first - 1))?;
    }
    for message in &messages {
        let told = told(&message.body);
        output::line(&format!(
            "\n[{}] {} {}\n{}",
            message.seq,
            message.body.role(),
            output.time(message.at),
            output::clean(&told)
        ))?;
    }
    Ok(())
}

async fn export(store: &dyn SessionStore, key: String) -> Result<(), Fault> {
    let session = load(store, key).await?;
    let mut after = 0;
    loop {
        // Positions have no holes, so this window is the oldest page that is left.
        let before = Some(after + PAGE as u64 + 1);
        let window = Window { newest: PAGE, after, before };
        let page = store.transcript(&session.tenant, &session.key, window).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.seq;
        let mut out = io::BufWriter::new(io::stdout().lock());
        for entry in &page {
            serde_json::to_writer(&mut out, &message(entry)).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        out.flush()?;
    }
}

async fn load(store: &dyn SessionStore, key: String) -> Result<Session, Fault> {
    let key = SessionKey::new(key);
    let session = store.load(&TenantId::single(), &key).await?;
    let unknown = || {
        Fault::new(format!("there is no session {}; see `reef sessions list`", output::clean(key.as_str())))
    };
    session.ok_or_else(unknown)
}

fn told(body: &MessageBody) -> String {
    let mut text = body.text();
    if let MessageBody::Assistant { tool_calls, .. } = body {
        for call in tool_calls {
            let line_break = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{line_break}calls {} {}", call.name, call.arguments));
        }
    }
    text
}

fn shown(session: &Session) -> Value {
    json!({
        "key": session.key,
        "id": session.id,
        "agent": session.agent,
        "user": session.user,
        "channel": session.channel,
        "messages": session.seq,
        "created_at": rfc3339(session.created_at),
        "updated_at": rfc3339(session.updated_at),
        "turn": session.holder.as_ref().map(|holder| &holder.turn),
    })
}

fn message(message: &Message) -> Value {
    let mut out = json!(message.body);
    out["seq"] = json!(message.seq);
    out["turn"] = json!(message.turn);
    out["at"] = json!(rfc3339(message.at));
    out
}
