//! The real program's memory under what one caller, one listener or one vendor may do to it.

use super::{client, turn, vendor_site};
use harness::process::{Process, Site};
use harness::vendor::{Step, Stream, Vendor};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use shared::bounds::ANSWER_BYTES;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MIB: u64 = 1024 * 1024;

/// What the guide's smallest machine leaves for the program's work: two fifths of 700 MB.
const BUDGET: &str = "280MB";

fn limited() -> Value {
    json!({"gateway": {"memoryBudget": BUDGET}})
}

/// An answer of 40 MB.
fn endless() -> Stream {
    let chunk = json!({"id": "x", "created": 1, "choices": [{"delta": {"content": "word ".repeat(1_600)}}]});
    let piece = format!("data: {chunk}\n\n").repeat(128);
    let piece = bytes::Bytes::from(piece);
    (0..40).fold(Stream::new(), |said, _| said.then(Step::Raw(piece.clone())))
}

async fn ended(server: &Process, turns: usize) {
    let mut from = 0;
    for _ in 0..turns {
        server.line_from(&mut from, |line| line.contains("\"turn ended\"")).await.unwrap();
    }
}

async fn token_and_address(site: &Site, server: &Process) -> (String, String) {
    let address = server.url().await.unwrap().trim_start_matches("http://").to_owned();
    (site.token("admin").await, address)
}

#[tokio::test]
async fn vendors_that_do_not_stop_cost_an_answer_each_and_not_the_process() {
    let vendor = Vendor::start().await;
    let site = vendor_site(&vendor, &limited());
    let server = site.serve(&[]);
    let client = client(&site, &server).await;
    (0..5).for_each(|_| vendor.answer(endless()));
    let before = server.peak_memory();
    let ask = |number: usize| {
        let client = client.clone();
        async move {
            let body = json!({"messages": [{"role": "user", "content": format!("go on {number}")}]});
            client.send(Method::POST, "/v1/chat/completions", &[], Some(&body)).await.unwrap()
        }
    };
    for reply in futures::future::join_all((0..5).map(ask)).await {
        let choice = &reply.json()["choices"][0];
        assert_eq!(choice["finish_reason"], "length", "{}", reply.status);
        assert_eq!(choice["message"]["content"].as_str().unwrap().len(), ANSWER_BYTES);
    }
    assert!(server.peak_memory() - before < 100 * MIB, "{} MiB", (server.peak_memory() - before) / MIB);
    assert_eq!(client.post("/v1/chat/completions", &[], &turn("x")).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn clients_that_never_read_hold_little_and_find_the_whole_reply_when_they_do() {
    const CLIENTS: usize = 4;
    let vendor = Vendor::start().await;
    let site = vendor_site(&vendor, &limited());
    let server = site.serve(&[]);
    let (token, address) = token_and_address(&site, &server).await;
    let before = server.peak_memory();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        vendor.answer(endless());
        let body = json!({"messages": [{"role": "user", "content": format!("{number}")}], "stream": true})
            .to_string();
        let mut socket = TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        clients.push(socket);
    }
    ended(&server, CLIENTS).await;
    assert!(server.peak_memory() - before < 100 * MIB, "{} MiB", (server.peak_memory() - before) / MIB);
    for mut client in clients {
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        let heard = String::from_utf8(heard).unwrap();
        let data = heard.lines().filter_map(|line| line.strip_prefix("data: "));
        let chunks: Vec<Value> = data.filter_map(|data| serde_json::from_str(data).ok()).collect();
        let text = |chunk: &Value| chunk["choices"][0]["delta"]["content"].as_str().map_or(0, str::len);
        assert_eq!(chunks.iter().map(text).sum::<usize>(), ANSWER_BYTES);
        assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "length");
        assert!(heard.contains("data: [DONE]"));
    }
}

#[tokio::test]
async fn many_large_bodies_at_once_are_taken_or_refused_and_the_process_stays_small() {
    // Without a budget these take 350 MB.
    const BODIES: usize = 8;
    const BYTES: usize = 8 * 1024 * 1024;
    let vendor = Vendor::start().await;
    let site = vendor_site(&vendor, &json!({"gateway": {"memoryBudget": "80MB"}}));
    let server = site.serve(&[]);
    let client = client(&site, &server).await;
    let before = server.peak_memory();
    (0..=BODIES).for_each(|_| vendor.answer(Stream::text("heard")));
    let text = "x".repeat(BYTES);
    let large = json!({"messages": [{"role": "user", "content": text}]});
    let ask = |_| client.send(Method::POST, "/v1/chat/completions", &[], Some(&large));
    let replies: Vec<_> =
        futures::future::join_all((0..BODIES).map(ask)).await.into_iter().map(Result::unwrap).collect();
    let taken = replies.iter().filter(|reply| reply.status == StatusCode::OK).count();
    let refused = replies.iter().filter(|reply| reply.code() == "unavailable").count();
    assert_eq!(taken + refused, BODIES, "{:?}", replies.iter().map(|reply| reply.status).collect::<Vec<_>>());
    assert!(taken > 0, "{taken} {refused}");
    assert!(server.peak_memory() - before < 150 * MIB, "{} MiB", (server.peak_memory() - before) / MIB);
    assert_eq!(client.post("/v1/chat/completions", &[], &turn("x")).await.unwrap().status, StatusCode::OK);
    let scraped = client.get("/metrics").await.unwrap().body;
    // One that never was refused is not counted.
    let counted = format!("reef_memory_refusals_total {refused}");
    assert_eq!(scraped.contains(&counted), refused > 0, "{scraped}");
    assert!(scraped.contains("reef_memory_budget_drawn_bytes 0"), "{scraped}");
}

#[tokio::test]
async fn bodies_of_very_many_entries_are_refused_without_being_read() {
    let site = super::demo_site();
    let server = site.serve(&[]);
    let client = client(&site, &server).await;
    let before = server.peak_memory();
    let tiny = json!({"messages": vec![json!({"role": "user", "content": ""}); 500_000]});
    let refused = client.send(Method::POST, "/v1/chat/completions", &[], Some(&tiny)).await.unwrap();
    assert_eq!((refused.status, refused.code()), (StatusCode::BAD_REQUEST, "invalid".to_owned()));
    assert_eq!(refused.json()["error"]["param"], "messages");
    assert!(server.peak_memory() - before < 60 * MIB, "{} MiB", (server.peak_memory() - before) / MIB);
}

#[tokio::test]
async fn a_process_with_too_little_memory_for_the_bodies_that_it_allows_says_so() {
    const WARNING: &str =
        "requests of more than 1048576 bytes are refused, though gateway.maxBodyBytes allows 20971520";
    for (budget, warned) in [("8MB", true), (BUDGET, false)] {
        let settings = json!({
            "agents": [{"id": "one", "model": "demo/echo", "workspace": "one"}],
            "gateway": {"memoryBudget": budget},
        });
        let site = Site::new(super::REEF, &settings);
        let server = site.serve(&[]);
        server.url().await.unwrap();
        server.signal(harness::process::Signal::TERM);
        server.exit().await;
        assert_eq!(server.output().contains(WARNING), warned, "{budget}: {}", server.output());
    }
}
