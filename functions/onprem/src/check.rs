//! `reef data check`.

use crate::fault::Fault;
use crate::host::HostArgs;
use crate::output::{self, OutputArgs};
use crate::site;
use clap::Subcommand;
use serde_json::json;
use shared::adapters::onprem::Checked;
use shared::unreadable::Unreadable;

/// `reef data …`
#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Look at every page and read every row; fails if something is damaged. Works beside a running server
    Check {
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub(crate) fn run(command: &DataCommand, host: &HostArgs) -> Result<(), Fault> {
    #[cfg(feature = "aws")]
    if host.aws.is_some() {
        return Err(Fault::new(
            "data check looks at a server's folder; on AWS the metric UnreadableRows counts what cannot be read, and the functions' error logs name it",
        ));
    }
    let DataCommand::Check { output } = *command;
    site::block_on(async {
        let store = site::existing_store(&host.data, "")?;
        let checked = store.check().await?;
        store.close().await?;
        tell(&checked, output)
    })?
}

/// What a person can do about a row of this table.
fn advice(table: &str) -> &'static str {
    match table {
        "sessions" => "reset or delete the session: POST /v1/sessions/{key}/reset, DELETE /v1/sessions/{key}",
        "messages" => "nothing need be done: a note stands in its place; or reset the session",
        "turns" => "nothing need be done: the turn ends, or has ended, as failed; ask again under a new key",
        "jobs" => {
            "nothing need be done: the job is dead, or, if not even its name can be read, stepped over; send again what it was to do"
        }
        "tokens" => "make a new token and revoke this one",
        "idempotency" => "nothing need be done: its key is answered so until it is forgotten",
        "audit" => "find out who changed it: a row is never written so",
        _ => "restore the backup if it is missed",
    }
}

fn tell(checked: &Checked, output: OutputArgs) -> Result<(), Fault> {
    if output.json {
        let row = |Unreadable { table, id, why }: &Unreadable| json!({"table": table, "id": id, "why": why, "do": advice(table)});
        let unreadable: Vec<_> = checked.unreadable.iter().map(row).collect();
        output::json(&json!({
            "ok": checked.is_sound(),
            "rows": checked.rows,
            "pages": checked.pages,
            "unreadable": unreadable,
            "further": checked.further,
        }))?;
        return if checked.is_sound() { Ok(()) } else { Err(Fault::Shown) };
    }
    if checked.is_sound() {
        output::line(&format!("{} rows, all of them readable; every page is sound", checked.rows))?;
        return Ok(());
    }
    for page in &checked.pages {
        output::line(&output::clean(&format!("damaged: {page}")))?;
    }
    if !checked.pages.is_empty() {
        output::line(
            "a damaged page costs what lies on it: stop the server and restore the newest backup, or delete the sessions named below",
        )?;
    }
    let rows = checked.unreadable.iter();
    let rows = rows.map(|Unreadable { table, id, why }| {
        [(*table).to_owned(), id.clone(), why.clone(), advice(table).to_owned()]
    });
    output::table(["TABLE", "ROW", "WHY", "WHAT TO DO"], rows.collect(), "every row can be read")?;
    let count = checked.unreadable.len() as u64 + checked.further;
    Err(Fault::new(format!(
        "{count} of {} rows cannot be read, and {} things are wrong with the database's pages",
        checked.rows,
        checked.pages.len()
    )))
}
