//! The hostile clients: a kind for each thing that was seen to do harm, each kind with an ordinary token and an address of
//! its own.

use crate::vendor::KINDS;
use crate::wire::{Answer, Sending, Wire};
use bytes::Bytes;
use harness::process::Site;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// Bytes of a body just below the limit of 20 MiB.
const LARGE: usize = 19_000_000;

/// Entries of a body of many messages.
const ENTRIES: usize = 650_000;

/// Pause of a client between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// Tries of one client, whatever happens.
const TRIES: usize = 1_000;

/// How long a connection that does nothing is held before the client makes a new one.
const HOLD: Duration = Duration::from_secs(20);

/// Largest answer to a request that was refused. Beyond it the answer repeats what the client sent.
const REFUSAL: usize = 4 * 1024;

/// What a hostile client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    LargeBody,
    LargeChunkedBody,
    SlowBody,
    SlowChunkedBody,
    ManyMessages,
    DeepNesting,
    NeverReads,
    Pipelines,
    SlowHead,
    Idle,
    FloodedByVendor,
    EndlessVendor,
    SilentVendor,
    SilentJobs,
    Listings,
    HugeField,
    BadToken,
    Leaves,
    SameKey,
}

/// How many there are of each: 200 in all.
const CROWD: [(Kind, usize); 19] = [
    (Kind::LargeBody, 20),
    (Kind::LargeChunkedBody, 15),
    (Kind::SlowBody, 10),
    (Kind::SlowChunkedBody, 5),
    (Kind::ManyMessages, 10),
    (Kind::DeepNesting, 10),
    (Kind::NeverReads, 10),
    (Kind::Pipelines, 25),
    (Kind::SlowHead, 20),
    (Kind::Idle, 20),
    (Kind::FloodedByVendor, 5),
    (Kind::EndlessVendor, 5),
    (Kind::SilentVendor, 5),
    (Kind::SilentJobs, 10),
    (Kind::Listings, 10),
    (Kind::HugeField, 5),
    (Kind::BadToken, 5),
    (Kind::Leaves, 5),
    (Kind::SameKey, 5),
];

/// How often which kind met what: a status, `cut` for a connection that ended without one, `held` for one that was kept.
type Met = BTreeMap<Kind, BTreeMap<String, usize>>;

/// What all hostile clients share: each large body is held once.
pub(crate) struct Crowd {
    server: SocketAddr,
    tokens: BTreeMap<Kind, String>,
    bodies: Bodies,
    met: Mutex<Met>,
}

struct Bodies {
    large: Bytes,
    entries: Bytes,
    deep: Vec<(&'static str, Bytes)>,
    huge: Bytes,
    pipeline: Bytes,
}

impl Bodies {
    fn new() -> Self {
        let text = json!([{"role": "user", "content": "x".repeat(LARGE - 200)}]);
        let entry = br#"{"role":"user","content":"x"}"#;
        let mut entries = Vec::with_capacity(ENTRIES * (entry.len() + 1) + 100);
        entries.extend_from_slice(br#"{"model":"openclaw/sink","messages":["#);
        for number in 0..ENTRIES {
            if number > 0 {
                entries.push(b',');
            }
            entries.extend_from_slice(entry);
        }
        entries.extend_from_slice(b"]}");
        let get = "GET /openapi.json HTTP/1.1\r\nhost: reef\r\n\r\n";
        Self {
            large: json!({"model": "openclaw/sink", "messages": text}).to_string().into(),
            entries: entries.into(),
            deep: deep(),
            huge: json!({"model": "openclaw/open", "temperature": "9".repeat(3_000_000),
                "messages": [{"role": "user", "content": "x"}]})
            .to_string()
            .into(),
            pipeline: get.repeat(400).into(),
        }
    }
}

/// Requests that are nested as deep as the parser takes, and around that.
fn deep() -> Vec<(&'static str, Bytes)> {
    let schema = |depth: usize| (0..depth).fold(json!({"type": "string"}), |inner, _| json!({"a": inner}));
    let mut requests = Vec::new();
    for depth in [20, 60, 120, 121, 122, 123, 124] {
        let named = |schema: &Value| json!({"type": "json_schema", "name": "s", "schema": schema});
        let schema = schema(depth);
        let tool = json!({"type": "function", "name": "f", "parameters": schema});
        let base = json!({"model": "openclaw/open", "input": "x", "background": true});
        let with = |field: &str, value: Value| {
            let mut body = base.clone();
            body[field] = value;
            Bytes::from(body.to_string())
        };
        requests.push(("/v1/responses", with("tools", Value::from(vec![tool]))));
        requests.push(("/v1/responses", with("text", json!({"format": named(&schema)}))));
        let format = json!({"type": "json_schema", "json_schema": {"name": "s", "schema": schema}});
        let chat = json!({"model": "openclaw/open", "messages": [{"role": "user", "content": "x"}],
            "response_format": format});
        requests.push(("/v1/chat/completions", chat.to_string().into()));
    }
    let brackets = |depth: usize| format!(r#"{{"messages":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    requests.push(("/v1/chat/completions", brackets(1_000_000).into()));
    requests
}

impl Crowd {
    /// Makes their tokens, as an operator would make them: with the settings' rate limit.
    pub(crate) async fn new(site: &Site, server: SocketAddr) -> Arc<Self> {
        let mut tokens = BTreeMap::new();
        for (kind, _) in CROWD {
            tokens.insert(kind, token(site, &format!("{kind:?}")).await);
        }
        Arc::new(Self { server, tokens, bodies: Bodies::new(), met: Mutex::default() })
    }

    /// Each client with its kind and its number in its kind.
    pub(crate) fn clients() -> impl Iterator<Item = (Kind, usize)> {
        CROWD.into_iter().flat_map(|(kind, count)| (0..count).map(move |number| (kind, number)))
    }

    /// How many kinds there are.
    pub(crate) const fn kinds() -> usize {
        CROWD.len()
    }

    /// What they met.
    pub(crate) fn met(&self) -> Met {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One client, until the time is over.
    pub(crate) async fn attack(self: Arc<Self>, kind: Kind, number: usize, until: Instant) {
        for round in 0..TRIES {
            let tried = timeout_at(until, self.once(kind, number, round)).await;
            let is_over = tried.is_err();
            let met = match tried {
                Ok(Ok(met)) => met,
                Ok(Err(_)) => "cut".to_owned(),
                Err(_) => "held".to_owned(),
            };
            self.note(kind, met);
            if is_over || timeout_at(until, sleep(PAUSE)).await.is_err() {
                return;
            }
        }
    }

    fn note(&self, kind: Kind, met: String) {
        let mut all = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        *all.entry(kind).or_default().entry(met).or_default() += 1;
    }

    fn address(kind: Kind) -> Ipv4Addr {
        let place = CROWD.iter().position(|(other, _)| *other == kind).and_then(|at| u8::try_from(at).ok());
        // All of 127/8 is this host; the honest clients are at 127.0.0.1.
        Ipv4Addr::new(127, 0, 10, 1 + place.expect("a short list"))
    }

    async fn connect(&self, kind: Kind, buffer: Option<u32>) -> io::Result<Wire> {
        Wire::connect(self.server, Self::address(kind), buffer).await
    }

    fn head(&self, kind: Kind, method: &str, path: &str) -> String {
        let token = &self.tokens[&kind];
        format!(
            "{method} {path} HTTP/1.1\r\nhost: reef\r\nconnection: close\r\ncontent-type: application/json\r\n\
             authorization: Bearer {token}\r\n"
        )
    }

    async fn post(&self, kind: Kind, path: &str, body: &Bytes, how: Sending) -> io::Result<String> {
        let answer = self.connect(kind, None).await?.ask(&self.head(kind, "POST", path), body, how).await?;
        Ok(name(&answer))
    }

    async fn once(&self, kind: Kind, number: usize, round: usize) -> io::Result<String> {
        const CHAT: &str = "/v1/chat/completions";
        let slow = Duration::from_millis(100);
        let chat = |agent: &str, stream: bool| -> Bytes {
            assert!(KINDS.contains(&agent), "{agent}");
            let messages = json!([{"role": "user", "content": "x"}]);
            json!({"model": format!("openclaw/{agent}"), "stream": stream, "messages": messages})
                .to_string()
                .into()
        };
        let large = &self.bodies.large;
        match kind {
            Kind::LargeBody => self.post(kind, CHAT, large, Sending::PLAIN).await,
            Kind::LargeChunkedBody => {
                self.post(kind, CHAT, large, Sending { chunked: true, ..Sending::PLAIN }).await
            }
            Kind::SlowBody => self.post(kind, CHAT, large, Sending { pause: slow, ..Sending::PLAIN }).await,
            Kind::SlowChunkedBody => {
                self.post(kind, CHAT, large, Sending { chunked: true, pause: slow }).await
            }
            Kind::ManyMessages => self.post(kind, CHAT, &self.bodies.entries, Sending::PLAIN).await,
            Kind::DeepNesting => {
                let (path, body) = &self.bodies.deep[(number + 10 * round) % self.bodies.deep.len()];
                self.post(kind, path, body, Sending::PLAIN).await
            }
            Kind::NeverReads => {
                let body = chat("endless", true);
                let head = self.head(kind, "POST", CHAT);
                let request =
                    [format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
                self.push_and_hold(kind, &request).await
            }
            Kind::Pipelines => self.push_and_hold(kind, &self.bodies.pipeline).await,
            Kind::SlowHead => {
                let mut wire = self.connect(kind, None).await?;
                wire.push(b"GET /healthz HTTP/1.1\r\nhost: ", HOLD).await?;
                for _ in 0..HOLD.as_secs() {
                    sleep(Duration::from_secs(1)).await;
                    wire.push(b"x", HOLD).await?;
                }
                Ok("held".to_owned())
            }
            Kind::Idle => {
                let mut wire = self.connect(kind, None).await?;
                wire.closed().await;
                Ok("cut".to_owned())
            }
            Kind::FloodedByVendor => {
                self.post(kind, CHAT, &chat("flood", number % 2 == 1), Sending::PLAIN).await
            }
            Kind::EndlessVendor => self.post(kind, CHAT, &chat("endless", false), Sending::PLAIN).await,
            Kind::SilentVendor => {
                let body = chat("silent", number % 2 == 1);
                let asking = self.post(kind, CHAT, &body, Sending::PLAIN);
                // It leaves; the turn stays.
                tokio::time::timeout(HOLD, asking).await.unwrap_or_else(|_| Ok("held".to_owned()))
            }
            Kind::SilentJobs => {
                let body = json!({"model": "openclaw/silent", "input": "x", "background": true}).to_string();
                self.post(kind, "/v1/responses", &body.into(), Sending::PLAIN).await
            }
            Kind::Listings => {
                let head = self.head(kind, "GET", "/v1/sessions?user=nobody&limit=100");
                let answer =
                    self.connect(kind, None).await?.ask(&head, &Bytes::new(), Sending::PLAIN).await?;
                Ok(name(&answer))
            }
            Kind::HugeField => self.post(kind, CHAT, &self.bodies.huge, Sending::PLAIN).await,
            Kind::BadToken => {
                let head = self.head(kind, "POST", CHAT).replace("Bearer reef_", "Bearer reef_0");
                let answer = self.connect(kind, None).await?.ask(&head, large, Sending::PLAIN).await?;
                Ok(name(&answer))
            }
            Kind::Leaves => {
                let body = chat("open", true);
                let head = self.head(kind, "POST", CHAT);
                let mut wire = self.connect(kind, None).await?;
                wire.push(format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes(), HOLD).await?;
                wire.push(&body, HOLD).await?;
                Ok("left".to_owned())
            }
            Kind::SameKey => {
                let head =
                    format!("{}idempotency-key: same-{}\r\n", self.head(kind, "POST", CHAT), round / 10);
                let body = chat("open", number % 2 == 1);
                let answer = self.connect(kind, None).await?.ask(&head, &body, Sending::PLAIN).await?;
                Ok(name(&answer))
            }
        }
    }

    /// Writes what the server takes, reads nothing, and stays.
    async fn push_and_hold(&self, kind: Kind, request: &[u8]) -> io::Result<String> {
        let mut wire = self.connect(kind, Some(4096)).await?;
        wire.push(request, HOLD).await?;
        sleep(HOLD).await;
        Ok("held".to_owned())
    }
}

fn name(answer: &Answer) -> String {
    match answer.status {
        0 => "cut".to_owned(),
        status @ 400.. if answer.bytes > REFUSAL => format!("{status} of {} bytes", answer.bytes),
        status => status.to_string(),
    }
}

/// Whether a client met a refusal that repeats what it sent.
pub(crate) fn is_long_refusal(met: &str) -> bool {
    met.contains(" of ")
}

/// A token as anybody is given it.
pub(crate) async fn token(site: &Site, name: &str) -> String {
    let arguments = ["token", "create", "--name", name, "--scopes", "chat,sessions,hooks", "--json"];
    site.json(&arguments).await["token"].as_str().expect("a token").to_owned()
}
