//! `reef audit list|verify`.

use crate::data::Data;
use crate::fault::Fault;
use crate::host::HostArgs;
use crate::output::{self, Output, OutputArgs, rfc3339};
use crate::site;
use clap::Subcommand;
use serde_json::{Value, json};
use shared::audit::{AuditFilter, AuditLog, AuditRow};
use shared::clock::Timestamp;
use shared::id::{SessionKey, TenantId};

/// `reef audit …`
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// List what was done, by whom, oldest first
    List {
        /// Only in this session
        #[arg(long, value_name = "KEY")]
        session: Option<String>,
        /// Only from this time on, e.g. 2026-11-01T00:00:00Z
        #[arg(long, value_parser = time, value_name = "TIME")]
        since: Option<Timestamp>,
        /// Only before this time
        #[arg(long, value_parser = time, value_name = "TIME")]
        until: Option<Timestamp>,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Recompute every hash and every link; fails if a row was changed or removed
    Verify {
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub(crate) fn run(command: AuditCommand, host: &HostArgs) -> Result<(), Fault> {
    site::block_on(async {
        let data = Data::existing(host).await?;
        let audit = data.stores.audit.as_ref();
        let done = match command {
            AuditCommand::List { session, since, until, limit, output } => {
                let filter = AuditFilter { session: session.map(SessionKey::new), since, until, limit };
                list(audit, &filter, &Output::new(output, host)).await
            }
            AuditCommand::Verify { output } => verify(audit, output).await,
        };
        data.close().await?;
        done
    })?
}

async fn list(store: &dyn AuditLog, filter: &AuditFilter, output: &Output) -> Result<(), Fault> {
    let rows = store.list(&TenantId::single(), filter).await?;
    if output.json {
        output::json(&rows.iter().map(shown).collect())?;
        return Ok(());
    }
    let rows = rows.iter().map(|row| {
        [
            output.time(row.entry.at),
            row.entry.action.clone(),
            row.entry.principal.to_string(),
            row.session.to_string(),
            row.turn.to_string(),
            row.entry.detail.to_string(),
        ]
    });
    output::table(["TIME", "ACTION", "BY", "SESSION", "TURN", "DETAIL"], rows.collect(), "nothing was done")?;
    Ok(())
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
