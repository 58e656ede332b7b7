//! Connections of the real binary: who holds one without using it, how many there may be, and what becomes of them when the
//! process stops.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use harness::client::Client;
use harness::process::{Process, Signal, Site};
use harness::vendor::{Gate, Step, Stream, Vendor};
use serde_json::{Value, json};
use shared::bounds::HEAD_BYTES;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const REEF: &str = env!("CARGO_BIN_EXE_reef");

/// Asked for without a token, and some 100 KB.
const LARGE: &[u8] = b"GET /openapi.json HTTP/1.1\r\nhost: reef\r\n\r\n";

fn site(gateway: &Value) -> Site {
    let agents = json!([{"id": "one", "model": "demo/echo", "workspace": "one"}]);
    Site::new(REEF, &json!({"agents": agents, "gateway": gateway}))
}

async fn address(server: &Process) -> String {
    server.url().await.unwrap().strip_prefix("http://").unwrap().to_owned()
}

/// A connection on which this was sent.
async fn connected(address: &str, sent: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent).await.unwrap();
    stream
}

/// Everything that comes until the end; an end by reset is one, too.
async fn rest(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    String::from_utf8(all).unwrap()
}

/// Asks for more and more and never reads, until the connection is closed.
async fn never_reads(mut stream: TcpStream) {
    while stream.write_all(LARGE).await.is_ok() {}
}

/// The value of a line of the metrics.
async fn metric(client: &Client, name: &str) -> f64 {
    let text = client.get("/metrics").await.unwrap().body;
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn connections_that_pipeline_and_never_read_take_little_memory_and_are_closed() {
    const CONNECTIONS: u64 = 500;
    const EACH: u64 = 64 * 1024;
    let site = site(&json!({"writeTimeoutSeconds": 1}));
    let server = site.serve(&[("REEF_LOG", "error")]);
    let address = address(&server).await;
    // The document is there from now on, as it would be in any process that is not new.
    let first =
        connected(&address, b"GET /openapi.json HTTP/1.1\r\nhost: reef\r\nconnection: close\r\n\r\n").await;
    assert!(rest(first).await.starts_with("HTTP/1.1 200"));
    let before = server.peak_memory();
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(connected(&address, &LARGE.repeat(400)).await);
    }
    futures::future::join_all(clients.into_iter().map(never_reads)).await;
    let taken = server.peak_memory() - before;
    assert!(taken < CONNECTIONS * EACH, "{} bytes each", taken / CONNECTIONS);
    let client = Client::new(&format!("http://{address}"), "");
    let closed = metric(&client, "reef_connections_closed_total{reason=\"write_timeout\"}").await;
    assert!((closed - 500.0).abs() < f64::EPSILON, "{closed}");
}

#[tokio::test]
async fn who_reads_slowly_gets_the_whole_answer() {
    let site = site(&json!({"writeTimeoutSeconds": 1}));
    let server = site.serve(&[]);
    let address = address(&server).await;
    let request = b"GET /openapi.json HTTP/1.1\r\nhost: reef\r\n\r\n";
    let last = b"GET /health HTTP/1.1\r\nhost: reef\r\nconnection: close\r\n\r\n";
    let mut stream = connected(&address, &[&request.repeat(40)[..], last].concat()).await;
    let mut all = Vec::new();
    // Piece by piece, with the other side blocked again and again.
    while stream.read_buf(&mut all).await.unwrap() > 0 {
        tokio::task::yield_now().await;
    }
    let text = String::from_utf8(all).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 41);
    assert!(text.ends_with("{\"ok\":true,\"status\":\"live\"}"), "{}", &text[text.len() - 100..]);
}

#[tokio::test]
async fn a_head_beyond_its_bound_is_refused_and_one_below_is_taken() {
    let site = site(&json!({}));
    let server = site.serve(&[]);
    let address = address(&server).await;
    for (length, status) in [(HEAD_BYTES, "200 OK"), (HEAD_BYTES + 1, "431 Request Header Fields Too Large")]
    {
        let head = "GET /health HTTP/1.1\r\nhost: reef\r\nconnection: close\r\nx: \r\n\r\n";
        let head = head.replace("x: ", &format!("x: {}", "x".repeat(length - head.len())));
        let answer = rest(connected(&address, head.as_bytes()).await).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{length}: {answer}");
    }
}

#[tokio::test]
async fn a_connection_beyond_the_most_is_refused_with_a_word_and_counted() {
    let site = site(&json!({"maxConnections": 3}));
    let server = site.serve(&[]);
    let address = address(&server).await;
    let kept = Client::on_one_connection(&format!("http://{address}"), "");
    // Its connection stays open.
    assert!((metric(&kept, "reef_connections").await - 1.0).abs() < f64::EPSILON);
    let others = [connected(&address, b"").await, connected(&address, b"").await];
    let refused = rest(connected(&address, b"GET /health HTTP/1.1\r\nhost: reef\r\n\r\n").await).await;
    let (head, body) = refused.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: 1"), "{head}");
    assert!(head.contains("connection: close"), "{head}");
    let error: Value = serde_json::from_str(body).unwrap();
    assert_eq!(error["error"]["code"], "unavailable");
    assert!((metric(&kept, "reef_connections").await - 3.0).abs() < f64::EPSILON);
    let counted = metric(&kept, "reef_connections_refused_total{reason=\"all\"}").await;
    assert!((counted - 1.0).abs() < f64::EPSILON, "{counted}");
    assert!(server.output().contains("gateway.maxConnections"), "{}", server.output());
    drop(others);
    // The server sees them go in its own time; each look is an answer of its.
    let mut open = 3.0;
    for _ in 0..1000 {
        if open > 1.5 {
            open = metric(&kept, "reef_connections").await;
        }
    }
    assert!(open < 1.5, "{open} are open");
    let answered =
        connected(&address, b"GET /health HTTP/1.1\r\nhost: reef\r\nconnection: close\r\n\r\n").await;
    assert!(rest(answered).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_stop_waits_for_the_turn_and_for_no_connection_without_one() {
    const HEAD: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\nhost: reef\r\n";
    let vendor = Vendor::start().await;
    let mut settings = json!({
        "agents": [{"id": "one", "model": "mine/x", "workspace": "one"}],
        "models": {"providers": {"mine": {"baseUrl": format!("{}/v1", vendor.url()), "maxAttempts": 1}}},
    });
    settings["gateway"] = json!({"drainSeconds": 100, "writeTimeoutSeconds": 100});
    let site = Site::new(REEF, &settings);
    let token = site.token("chat").await;
    let server = site.serve(&[("REEF_LOG", "info,access=off")]);
    let address = address(&server).await;
    let gate = Gate::new();
    vendor.answer(Stream::text("begun").then(Step::Hold(gate.clone())).then_text("ended"));
    let client = Client::new(&format!("http://{address}"), &token);
    let ask = json!({"model": "openclaw", "stream": true, "messages": [{"role": "user", "content": "x"}]});
    let body = format!("{}authorization: Bearer {token}\r\ncontent-length: 10\r\n\r\n{{", str(HEAD));
    let idle_again = b"GET /health HTTP/1.1\r\nhost: reef\r\n\r\n";
    let mut held = Vec::new();
    for sent in [&b""[..], idle_again, HEAD, body.as_bytes()] {
        for _ in 0..50 {
            held.push(connected(&address, sent).await);
        }
    }
    let mut deaf = Vec::new();
    for _ in 0..50 {
        deaf.push(connected(&address, &LARGE.repeat(40)).await);
    }
    let asking = async {
        let reply = client.post("/v1/chat/completions", &[], &ask).await.unwrap();
        (reply, Instant::now())
    };
    let stopping = async {
        gate.reached().await;
        let stopped_at = Instant::now();
        server.signal(Signal::TERM);
        // All of them go while the turn is at work.
        futures::future::join_all(held.into_iter().map(rest)).await;
        futures::future::join_all(deaf.into_iter().map(never_reads)).await;
        let cut_after = stopped_at.elapsed();
        gate.open();
        cut_after
    };
    let ((reply, answered_at), cut_after) = futures::join!(asking, stopping);
    assert!(reply.body.contains("ended") && reply.body.contains("[DONE]"), "{}", reply.body);
    assert_eq!(server.exit().await.code(), Some(0));
    assert!(server.output().contains("stopped: everything is finished"), "{}", server.output());
    // A quarter of a second, and what a busy machine adds to it; far below the time-outs of 30, 60 and 100 seconds.
    let limit = Duration::from_secs(10);
    assert!(cut_after < limit && answered_at.elapsed() < limit, "{cut_after:?}");
}

fn str(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
