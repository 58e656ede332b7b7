//! A stop waits for turns and for nothing else: not for connections that say nothing, that say it slowly, or that do not
//! listen.

use crate::wire::Wire;
use crate::{address, crowd, product, raise_descriptors};
use futures::future::join_all;
use harness::client::Client;
use harness::process::{Process, Signal, Site};
use harness::vendor::{Gate, Step, Stream, Vendor};
use http::Method;
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Connections of each kind.
const IDLE: usize = 1_000;
const SLOW_HEADS: usize = 100;
const NEVER_READ: usize = 100;

/// Connections from one address.
const PER_ADDRESS: usize = 50;

/// A stop that waits for no turn takes at most this long.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Within this time a connection that never reads has been sent all that the buffers between take.
const FULL: Duration = Duration::from_millis(500);

/// A site whose agent asks this vendor, with a server and a client of it.
struct Stage {
    site: Site,
    process: Process,
    server: SocketAddr,
    client: Client,
}

impl Stage {
    async fn new(vendor: &Vendor) -> Self {
        raise_descriptors();
        let site = Site::new(
            &product().0,
            &json!({
                "agents": [{"id": "main", "model": "slow/echo", "workspace": "./main"}],
                "models": {"providers": {"slow": {"baseUrl": format!("{}/v1", vendor.url()), "api": "openai-completions"}}},
            }),
        );
        let process = site.serve(&[("REEF_LOG", "error,access=off")]);
        let url = process.url().await.expect("a server");
        let token = crowd::token(&site, "stop").await;
        let (server, client) = (address(&url), Client::new(&url, &token));
        Self { site, process, server, client }
    }

    /// Connections of all kinds that are in no turn, each in its state when this returns.
    async fn connections(&self) -> Vec<Wire> {
        let connect = async |number: usize, sent: &[u8], buffer| {
            let host = u8::try_from(number / PER_ADDRESS).expect("few addresses");
            let mut wire = Wire::connect(self.server, Ipv4Addr::new(127, 0, 20, 1 + host), buffer).await?;
            wire.push(sent, FULL).await?;
            std::io::Result::Ok(wire)
        };
        let never_read = "GET /openapi.json HTTP/1.1\r\nhost: reef\r\n\r\n".repeat(400);
        let mut all = Vec::new();
        for number in 0..IDLE {
            all.push(connect(number, b"", None).await.expect("an idle connection"));
        }
        for number in IDLE..IDLE + SLOW_HEADS {
            let head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: re";
            all.push(connect(number, head, None).await.expect("a slow connection"));
        }
        let places = IDLE + SLOW_HEADS..IDLE + SLOW_HEADS + NEVER_READ;
        let never = places.map(|number| connect(number, never_read.as_bytes(), Some(4096)));
        all.extend(
            join_all(never).await.into_iter().map(|wire| wire.expect("a connection that never reads")),
        );
        // Served behind all of those: they were accepted.
        assert_eq!(self.client.get("/healthz").await.expect("an answer").status, 200);
        all
    }

    async fn ends_within(&self, limit: Duration) {
        let began = Instant::now();
        let status = self.process.exit().await;
        let took = began.elapsed();
        assert!(status.success(), "{status}: {}", self.process.output());
        assert!(took <= limit, "the stop took {took:?}: {}", self.process.output());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_no_connection_that_is_in_no_turn() {
    let vendor = Vendor::start().await;
    let stage = Stage::new(&vendor).await;
    let connections = stage.connections().await;
    stage.process.signal(Signal::TERM);
    stage.ends_within(AT_ONCE).await;
    assert_eq!(connections.len(), IDLE + SLOW_HEADS + NEVER_READ);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_a_turn_end_and_cuts_the_connections_beside_it() {
    let vendor = Vendor::start().await;
    let gate = Gate::new();
    vendor.answer(Stream::text("so far ").then(Step::Hold(gate.clone())).then_text("so good"));
    let stage = Stage::new(&vendor).await;
    let connections = stage.connections().await;
    let body = json!({"model": "openclaw", "messages": [{"role": "user", "content": "x"}]});
    let asking = stage.client.send(Method::POST, "/v1/chat/completions", &[], Some(&body));
    let stopping = async {
        gate.reached().await;
        stage.process.signal(Signal::TERM);
        // All of them are cut while the turn is still at work.
        let cut = join_all(connections.into_iter().map(async |mut wire| wire.closed().await));
        let cut = timeout(AT_ONCE * 5, cut).await.map(|read| read.len());
        let alive = stage.process.is_alive();
        gate.open();
        (cut, alive)
    };
    let (reply, (cut, alive)) = futures::join!(asking, stopping);
    let reply = reply.expect("an answer while the process stops");
    assert_eq!(reply.json()["choices"][0]["message"]["content"], "so far so good");
    assert_eq!((cut, alive), (Ok(IDLE + SLOW_HEADS + NEVER_READ), true));
    stage.ends_within(AT_ONCE).await;
    assert_eq!(stage.site.audit_problem().await, None);
}
