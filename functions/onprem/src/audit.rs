//! `reef audit list|verify`.

use crate::data::Data;
use crate::fault::Fault;
use crate::host::HostArgs;
use crate::output::{self, Output, OutputArgs, rfc3339};
use crate::site;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use shared::audit::{AuditFilter, AuditLog, AuditRow};
use shared::bounds::AUDIT_COUNTED;
use shared::clock::Timestamp;
use shared::id::{AgentId, PrincipalId, SessionKey, TenantId};

/// `reef audit …`
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List what was done, by whom, newest first
    List(ListArgs),
    /// Recompute every hash and every link; fails if a row was changed or removed
    Verify {
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// Options of `reef audit list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Only in this session
    #[arg(long, value_name = "KEY")]
    session: Option<String>,
    /// Only of this agent
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Only what this caller did: a token's id, or `operator`
    #[arg(long, value_name = "ID")]
    by: Option<String>,
    /// Only this action, e.g. turn.accepted, turn.committed, tool.called, model.fallback
    #[arg(long)]
    action: Option<String>,
    /// Only from this time on, e.g. 2026-11-01T00:00:00Z
    #[arg(long, value_parser = time, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Only before this time
    #[arg(long, value_parser = time, value_name = "TIME")]
    until: Option<Timestamp>,
    /// At most so many, the newest
    #[arg(long, default_value_t = 100, value_parser = output::limit)]
    limit: usize,
    #[command(flatten)]
    output: OutputArgs,
}

impl ListArgs {
    fn filter(&self) -> AuditFilter {
        AuditFilter {
            session: self.session.as_deref().map(SessionKey::new),
            since: self.since,
            until: self.until,
            agent: self.agent.as_deref().map(AgentId::new),
            principal: self.by.as_deref().map(PrincipalId::new),
            action: self.action.clone(),
            limit: self.limit,
        }
    }
}

pub(crate) fn run(command: AuditCommand, host: &HostArgs) -> Result<(), Fault> {
    site::block_on(async {
        let data = Data::existing(host).await?;
        let audit = data.stores.audit.as_ref();
        let done = match command {
            AuditCommand::List(args) => list(audit, &args.filter(), &Output::new(args.output, host)).await,
            AuditCommand::Verify { output } => verify(audit, output).await,
        };
        data.close().await?;
        done
    })?
}

async fn list(store: &dyn AuditLog, filter: &AuditFilter, output: &Output) -> Result<(), Fault> {
    let tenant = TenantId::single();
    let rows = store.list(&tenant, filter).await?;
    let more = if rows.len() < filter.limit { None } else { more(store, &tenant, filter).await? };
    if output.json {
        output::json(&rows.iter().map(shown).collect())?;
        return Ok(output.more(more)?);
    }
    let rows = rows.iter().map(|row| {
        [
            output.time(row.entry.at),
            row.entry.action.clone(),
            row.entry.principal.to_string(),
            row.agent.to_string(),
            row.session.to_string(),
            row.turn.to_string(),
            row.entry.detail.to_string(),
        ]
    });
    output::table(
        ["TIME", "ACTION", "BY", "AGENT", "SESSION", "TURN", "DETAIL"],
        rows.collect(),
        "nothing was done",
    )?;
    Ok(output.more(more)?)
}

/// What there is beyond the rows that are shown, for a person; `None` if that is nothing.
async fn more(
    store: &dyn AuditLog,
    tenant: &TenantId,
    filter: &AuditFilter,
) -> Result<Option<String>, Fault> {
    let most = filter.limit.saturating_add(1).max(AUDIT_COUNTED + 1);
    let count = store.count(tenant, &AuditFilter { limit: most, ..filter.clone() }).await?;
    let shown = filter.limit as u64;
    if count <= shown {
        return Ok(None);
    }
    let all = if count == most as u64 { format!("more than {}", most - 1) } else { count.to_string() };
    Ok(Some(format!(
        "{all} rows fit, the newest {shown} are shown; see --limit, --since and --until, and --agent, --by and --action"
    )))
}

async fn verify(store: &dyn AuditLog, output: OutputArgs) -> Result<(), Fault> {
    let verdict = store.verify(&TenantId::single()).await?;
    if output.json {
        output::json(
            &json!({"ok": verdict.broken.is_empty(), "rows": verdict.rows, "broken": verdict.broken}),
        )?;
        return if verdict.broken.is_empty() { Ok(()) } else { Err(Fault::Shown) };
    }
    if verdict.broken.is_empty() {
        output::line(&format!("{} rows, all as they were written", verdict.rows))?;
        return Ok(());
    }
    let broken = verdict.broken.join("\n  ");
    let count = verdict.broken.len();
    Err(Fault::new(format!(
        "{count} of {} audit rows were changed, or the row before them is gone:\n  {broken}",
        verdict.rows
    )))
}

fn shown(row: &AuditRow) -> Value {
    json!({
        "id": row.entry.id,
        "at": rfc3339(row.entry.at),
        "action": row.entry.action,
        "principal": row.entry.principal,
        "agent": row.agent,
        "session": row.session,
        "turn": row.turn,
        "detail": row.entry.detail,
        "hash": row.hash,
    })
}

fn time(text: &str) -> Result<Timestamp, String> {
    let time = text.parse::<jiff::Timestamp>();
    time.map(|time| Timestamp::from_millis(time.as_millisecond()))
        .map_err(|_| "write a time with its zone, e.g. 2026-11-01T00:00:00Z".to_owned())
}
