//! The first admin's token: made by the first start on new data, since without one nobody can come in. A person at a
//! terminal reads it there, once. Where output goes to a journal, which keeps it for good, it is left in a file instead.

use crate::fault::Fault;
use crate::output;
use shared::app::App;
use shared::principal::NewToken;
use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The file in the data folder.
const FILE: &str = "first-admin-token";

/// Makes one if there is no token at all, and tells where it is. Of two processes that start at once one does.
pub(crate) async fn make(app: &App, data: &Path) -> Result<(), Fault> {
    let file = data.join(FILE);
    if !app.stores.tokens.list(&app.tenant).await?.is_empty() {
        if file.exists() {
            tracing::warn!(
                target: "operation",
                "the first admin's token still lies in {}: delete the file once you have put the token where it belongs",
                file.display()
            );
        }
        return Ok(());
    }
    let (token, text) =
        NewToken::admin("first admin").mint(app.tenant.clone(), app.ids.as_ref(), app.clock.now());
    if io::stdout().is_terminal() {
        if app.stores.tokens.insert_first(&token).await? {
            // If it cannot be shown, nobody can use it; `reef token create` makes another.
            let _ = output::line(&format!("first admin token (shown only this once): {}", text.expose()));
        }
        return Ok(());
    }
    // Written before the token is stored: one that nobody can read must not be the reason why no other is made. Under a
    // name of this process: another one that starts now may have been faster.
    let draft = data.join(format!(".reef-{FILE}-{}", std::process::id()));
    let unwritable =
        |error: &io::Error| Fault::because(&format!("{} cannot be written", file.display()), error);
    write(&draft, text.expose()).map_err(|error| unwritable(&error))?;
    if !app.stores.tokens.insert_first(&token).await? {
        // It says nothing that anybody could use.
        let _ = fs::remove_file(&draft);
        return Ok(());
    }
    fs::rename(&draft, &file).map_err(|error| unwritable(&error))?;
    // If nobody reads this line, the file is found in the data folder.
    let _ = output::line(&format!(
        "first admin token: in the file {}; delete it when you have read it",
        file.display()
    ));
    Ok(())
}

fn write(path: &Path, token: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{token}")?;
    file.sync_all()
}
