//! Cases that take more than two requests.

use crate::ground::{Ask, Ground};
use futures::FutureExt;
use futures::future::BoxFuture;
use harness::client::Client;
use harness::process::Site;
use http::Method;
use serde_json::{Value, json};
use shared::bounds::{LOCK_WAIT, VENDOR_ERROR_BYTES};
use std::path::PathBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

type Checked<'a> = BoxFuture<'a, Result<(), String>>;

fn holds(fits: bool, said: impl FnOnce() -> String) -> Result<(), String> {
    if fits { Ok(()) } else { Err(said()) }
}

/// An id as long as one may be is kept; a longer one is not.
pub(crate) fn request_id(ground: &Ground, n: usize) -> Checked<'_> {
    async move {
        let [fits, long] = ["i".repeat(n), "i".repeat(n + 1)];
        let kept = ground.ask(Ask::get("/v1/models").header("x-request-id", fits.clone())).await;
        let other = ground.ask(Ask::get("/v1/models").header("x-request-id", long.clone())).await;
        holds(kept.id == fits && other.id != long && !other.id.is_empty(), || format!("{kept:?} {other:?}"))
    }
    .boxed()
}

/// A token without a limit of its own may send the burst and one more.
pub(crate) fn burst(ground: &Ground, n: usize) -> Checked<'_> {
    async move {
        let made =
            ground.site.json(&["token", "create", "--name", "plain", "--scopes", "admin", "--json"]).await;
        let token = made["token"].as_str().expect("a token");
        for number in 0..=n {
            let answer = ground.ask_with(token, Ask::get("/v1/models")).await;
            holds(answer.status == 200, || format!("the request {number}: {answer:?}"))?;
        }
        let answer = ground.ask_with(token, Ask::get("/v1/models")).await;
        holds(answer.status == 429 && answer.code() == "rate_limited", || format!("{answer:?}"))
    }
    .boxed()
}

/// A vendor that lists no models is asked for any name – here it is nowhere –, but for one that is too long.
pub(crate) fn model(ground: &Ground, n: usize) -> Checked<'_> {
    async move {
        for (bytes, status, code) in [(n, 502, "upstream"), (n + 1, 404, "not_found")] {
            let name = format!("nowhere/{}", "m".repeat(bytes - "nowhere/".len()));
            let answer = ground.ask(Ask::chat(json!({})).header("x-openclaw-model", name)).await;
            holds(answer.status == status && answer.code() == code, || format!("{bytes}: {answer:?}"))?;
        }
        Ok(())
    }
    .boxed()
}

fn workspace(ground: &Ground) -> PathBuf {
    let folder = ground.site.path("main");
    std::fs::create_dir_all(&folder).expect("a workspace");
    folder
}

async fn tool(ground: &Ground, name: &str, args: Value) -> Result<String, String> {
    let answer = ground.ask(Ask::tool(name, args)).await;
    holds(answer.status == 200, || format!("{answer:?}"))?;
    Ok(answer.json["result"]["content"][0]["text"].as_str().unwrap_or_default().to_owned())
}

/// `read` gives a file whole, or says where to read on.
pub(crate) fn read(ground: &Ground, n: usize) -> Checked<'_> {
    async move {
        for (bytes, cut) in [(n, false), (n + 1, true)] {
            std::fs::write(workspace(ground).join("r.txt"), "r".repeat(bytes)).expect("a file");
            let text = tool(ground, "read", json!({"path": "r.txt"})).await?;
            let rest = text.trim_start_matches('r');
            holds(rest.contains("[TRUNCATED]") == cut && text.len() - rest.len() == n, || rest.to_owned())?;
        }
        Ok(())
    }
    .boxed()
}

/// `ls` gives a folder whole, or says how much there is.
pub(crate) fn list(ground: &Ground, n: usize) -> Checked<'_> {
    async move {
        let folder = workspace(ground).join("full");
        std::fs::create_dir_all(&folder).expect("a folder");
        for number in 0..n {
            std::fs::write(folder.join(format!("{number:08}")), "").expect("a file");
        }
        let whole = tool(ground, "ls", json!({"path": "full"})).await?;
        holds(whole.lines().count() == n && !whole.contains("[TRUNCATED]"), || "not whole".to_owned())?;
        std::fs::write(folder.join("one-more"), "").expect("a file");
        let cut = tool(ground, "ls", json!({"path": "full"})).await?;
        let last = format!("[TRUNCATED] The first {n} of {} entries are shown.", n + 1);
        holds(cut.ends_with(&last), || "not cut".to_owned())
    }
    .boxed()
}

/// A file grows to its bound and no further.
pub(crate) fn grow(ground: &Ground, n: usize) -> Checked<'_> {
    async move {
        let path = workspace(ground).join("g.txt");
        let file = std::fs::File::create(&path).expect("a file");
        file.set_len(n as u64 - 1).expect("a long file");
        tool(ground, "append", json!({"path": "g.txt", "content": "1"})).await?;
        let answer = ground.ask(Ask::tool("append", json!({"path": "g.txt", "content": "2"}))).await;
        let length = file.metadata().expect("its length").len();
        holds(answer.status == 400 && answer.code() == "invalid" && length == n as u64, || {
            format!("{answer:?}")
        })
    }
    .boxed()
}

/// A name is quoted whole, or by its beginning.
pub(crate) fn quoted(ground: &Ground, n: usize) -> Checked<'_> {
    async move {
        for (chars, shown) in [(n, "q".repeat(n)), (n + 1, format!("{}…", "q".repeat(n)))] {
            let ask = Ask::chat(json!({})).header("x-openclaw-agent-id", "q".repeat(chars));
            let answer = ground.ask(ask).await;
            holds(answer.message().contains(&format!("'{shown}'")), || format!("{answer:?}"))?;
        }
        Ok(())
    }
    .boxed()
}

/// A path is logged whole, or by its beginning.
pub(crate) fn logged(ground: &Ground, n: usize) -> Checked<'_> {
    async move {
        for bytes in [n, n + 1] {
            let path = format!("/{}", "l".repeat(bytes - 1));
            ground.ask(Ask::get(path.as_str())).await;
            let shown = if bytes == n { path } else { format!("{}…", &path[..n - 3]) };
            let member = format!("\"path\":\"{shown}\"");
            let line = ground.server.line(|line| line.contains(&member)).await;
            holds(line.is_some(), || format!("{bytes} bytes are not logged so"))?;
        }
        Ok(())
    }
    .boxed()
}

async fn check(ground: &Ground, text: &str) -> (bool, String) {
    let file = ground.site.path("other.json");
    std::fs::write(&file, text).expect("a file");
    let output = ground.site.run(&["config", "check", file.to_str().expect("its name")]).await;
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Settings of this size are read, larger ones are refused with their size.
pub(crate) fn settings_file(ground: &Ground, n: usize) -> Checked<'_> {
    async move {
        let text = "{agents: [{id: \"a\", model: \"demo/echo\"}]}";
        let (ok, said) = check(ground, &format!("{text}{}", " ".repeat(n - text.len()))).await;
        holds(ok, || said)?;
        let (ok, said) = check(ground, &format!("{text}{}", " ".repeat(n + 1 - text.len()))).await;
        holds(!ok && said.contains(&format!("the file has {} bytes", n + 1)), || said)
    }
    .boxed()
}

/// So many problems are told, and further ones are counted.
pub(crate) fn settings_problems(ground: &Ground, n: usize) -> Checked<'_> {
    async move {
        let wrong = |count: usize| {
            let keys: String = (0..count).map(|number| format!("x{number}zzzzzz: 1, ")).collect();
            format!("{{{keys} agents: [{{id: \"a\", model: \"demo/echo\"}}]}}")
        };
        let (_, all) = check(ground, &wrong(n)).await;
        holds(all.contains(&format!("{n} problems")) && !all.contains(" more"), || all)?;
        let (_, cut) = check(ground, &wrong(n + 1)).await;
        holds(cut.contains(&format!("{} problems", n + 1)) && cut.trim_end().ends_with("and 1 more"), || cut)
    }
    .boxed()
}

#[tokio::test]
async fn of_a_vendors_error_no_more_is_read_than_its_bound() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("its address");
    // Promises a gigabyte, sends what is read of it, and is silent then.
    let tasks = TaskTracker::new();
    let vendor = tasks.spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a call");
        let head =
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 1000000000\r\n\r\n";
        socket.write_all(head.as_bytes()).await.expect("a head");
        socket.write_all(&vec![b'e'; VENDOR_ERROR_BYTES]).await.expect("a body");
        let mut rest = Vec::new();
        // Until the other side has enough.
        let _ = socket.read_to_end(&mut rest).await;
    });
    let site = Site::new(
        env!("CARGO_BIN_EXE_reef-under-test"),
        &json!({
            "agents": [{"id": "one", "model": "mine/x", "workspace": "one"}],
            "models": {"providers": {"mine": {"baseUrl": format!("http://{address}/v1"), "maxAttempts": 1}}},
        }),
    );
    let server = site.serve(&[]);
    let url = server.url().await.expect("a server that starts");
    let client = Client::new(&url, &site.token("admin").await);
    let body = json!({"messages": [{"role": "user", "content": "x"}]});
    let reply = client.send(Method::POST, "/v1/chat/completions", &[], Some(&body)).await.expect("an answer");
    assert!(reply.status.is_client_error() || reply.status.is_server_error(), "{}", reply.body);
    assert!(reply.body.len() < 1024, "{}", reply.body);
    vendor.await.expect("a vendor that was let go");
}

#[tokio::test]
async fn a_database_that_another_process_holds_is_waited_for_and_then_given_up() {
    let ground = Ground::new().await;
    let other = rusqlite::Connection::open(ground.site.path("data/reef.sqlite")).expect("the database");
    other.execute_batch("BEGIN IMMEDIATE").expect("the right to write");
    let begun = tokio::time::Instant::now();
    let refused = ground.ask(Ask::chat(json!({}))).await;
    assert_eq!((refused.status, refused.code()), (503, "unavailable"), "{refused:?}");
    assert!(begun.elapsed() >= LOCK_WAIT, "{:?}", begun.elapsed());
    other.execute_batch("ROLLBACK").expect("an end");
    let answer = ground.ask(Ask::chat(json!({}))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}
