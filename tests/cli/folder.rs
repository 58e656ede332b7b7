//! The data folder: the first token that is left in it, who may read what is there, and that it is missed when it is gone.

use super::{REEF, client, demo_site, turn};
use harness::client::Client;
use harness::process::Signal;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

#[tokio::test]
async fn the_first_start_leaves_an_admin_token_in_a_file_and_no_later_one_does() {
    let site = demo_site();
    let server = site.serve(&[]);
    let url = server.url().await.unwrap();
    let file = site.path("data/first-admin-token");
    let text = std::fs::read_to_string(&file).unwrap();
    let token = text.trim_end();
    let output = server.output();
    assert!(output.contains(&format!("first admin token: in the file {}", file.display())), "{output}");
    assert!(!output.contains(token), "a journal would keep it: {output}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let reply = Client::new(&url, token).get("/v1/sessions").await.unwrap();
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    server.signal(Signal::TERM);
    assert_eq!(server.exit().await.code(), Some(0));

    let server = site.serve(&[]);
    server.url().await.unwrap();
    // Who forgot the file is reminded.
    assert!(server.line(|line| line.contains("still lies in")).await.is_some(), "{}", server.output());
    assert!(!server.output().contains("first admin token"), "{}", server.output());
    server.signal(Signal::INT);
    assert_eq!(server.exit().await.code(), Some(0));
    assert_eq!(site.json(&["token", "list", "--json"]).await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn two_servers_that_start_at_once_on_new_data_make_one_first_token() {
    let site = demo_site();
    let servers = [site.serve(&[]), site.serve(&[])];
    let mut urls = Vec::new();
    for server in &servers {
        urls.push(server.url().await.unwrap());
    }
    let told =
        servers.iter().filter(|server| server.output().contains("first admin token: in the file")).count();
    assert_eq!(told, 1);
    assert_eq!(site.json(&["token", "list", "--json"]).await.as_array().unwrap().len(), 1);
    let token = std::fs::read_to_string(site.path("data/first-admin-token")).unwrap();
    for url in urls {
        let reply = Client::new(&url, token.trim_end()).get("/v1/sessions").await.unwrap();
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    }
    let left: Vec<_> =
        std::fs::read_dir(site.path("data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".reef")), "{left:?}");
}

#[tokio::test]
async fn a_server_whose_output_nobody_reads_serves_and_leaves_its_token_in_the_file() {
    let site = demo_site();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut server = Command::new(REEF)
        .args(["serve", "--listen", "127.0.0.1:0"])
        .env("REEF_DATA", site.path("data"))
        .env("REEF_CONFIG", site.path("openclaw.json"))
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(server.stderr.take().unwrap()));
    let started = lines.next().unwrap().unwrap();
    assert!(started.contains("\"started\""), "{started}");
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(site.json(&["token", "list", "--json"]).await.as_array().unwrap().len(), 1);
    assert!(std::fs::read_to_string(site.path("data/first-admin-token")).unwrap().starts_with("reef_"));
}

/// Every file and folder below this one that anybody but its owner may use.
fn open_to_others(folder: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let found = std::fs::symlink_metadata(&path).unwrap();
        if found.permissions().mode() & 0o077 != 0 {
            into.push(format!("{} {:o}", path.display(), found.permissions().mode()));
        }
        if found.is_dir() {
            open_to_others(&path, into);
        }
    }
}

#[tokio::test]
async fn whatever_the_mask_says_nobody_but_the_owner_reads_what_is_kept() {
    // Without settings, so that the examples are unpacked, too.
    let folder = tempfile::tempdir().unwrap();
    let run = |command: &str| {
        let script = format!("umask 000; exec \"$0\" {command}");
        let done =
            Command::new("sh").args(["-c", &script, REEF]).env_clear().current_dir(folder.path()).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    run(r#"chat --agent email-manager --message '/tool write {"path": "notes/a.txt", "content": "x"}'"#);
    run(r#"chat --agent email-manager --message '/tool append {"path": "log.txt", "content": "x"}'"#);
    let mut open = Vec::new();
    open_to_others(folder.path(), &mut open);
    assert_eq!(open, [""; 0]);
    assert!(folder.path().join("data/workspaces/email-manager/notes/a.txt").is_file(), "the tool wrote");
}

#[tokio::test]
async fn a_data_folder_that_was_left_open_is_closed_at_the_start() {
    let site = demo_site();
    site.token("admin").await;
    let open = |path: &str, mode| {
        std::fs::set_permissions(site.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open("data", 0o755);
    open("data/reef.sqlite", 0o644);
    let server = site.serve(&[]);
    server.url().await.unwrap();
    let told = server.line(|line| line.contains("was open to other users")).await;
    assert!(told.is_some(), "{}", server.output());
    let mut found = Vec::new();
    open_to_others(&site.path("data"), &mut found);
    assert_eq!(found, [""; 0]);
    assert_eq!(std::fs::metadata(site.path("data")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_server_whose_data_folder_was_removed_is_not_ready_and_takes_nothing() {
    let site = demo_site();
    let server = site.serve(&[]);
    let client = client(&site, &server).await;
    let answered = client.post("/v1/chat/completions", &[], &turn("hello")).await.unwrap();
    assert_eq!(answered.status, StatusCode::OK, "{}", answered.body);
    let ready: Value = serde_json::from_str(&client.get("/readyz").await.unwrap().body).unwrap();
    assert_eq!((&ready["ready"], &ready["failing"]), (&json!(true), &json!([])));
    std::fs::remove_dir_all(site.path("data")).unwrap();
    let body = turn("hello");
    let refused = client.send(Method::POST, "/v1/chat/completions", &[], Some(&body)).await.unwrap();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.body);
    let ready = client.get("/readyz").await.unwrap();
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    let ready: Value = serde_json::from_str(&ready.body).unwrap();
    assert!(ready["failing"].as_array().unwrap().contains(&json!("folder")), "{ready}");
}
