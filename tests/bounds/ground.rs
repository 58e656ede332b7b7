//! The real binary with everything that the cases need.

use harness::process::{Process, Site};
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An agent whose id is as long as one may be.
pub(crate) fn long_agent() -> String {
    "a".repeat(shared::bounds::AGENT_ID_BYTES)
}

/// A server at work, with a token that may do everything.
pub(crate) struct Ground {
    pub(crate) site: Site,
    pub(crate) server: Process,
    url: String,
    token: String,
}

/// A request.
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The beginning of its body.
    pub(crate) text: String,
    /// The request's id.
    pub(crate) id: String,
    pub(crate) json: Value,
}

impl Answer {
    /// The error's code; empty without one.
    pub(crate) fn code(&self) -> &str {
        self.json["error"]["code"].as_str().unwrap_or_default()
    }

    /// The error's sentence; empty without one.
    pub(crate) fn message(&self) -> &str {
        self.json["error"]["message"].as_str().unwrap_or_default()
    }
}

/// Status and code with which a row's text begins: `413 payload_too_large, on …`; without a code, `431, and …`.
pub(crate) fn stated(beyond: &str) -> Option<(u16, &str)> {
    let mut words = beyond.split(' ');
    let first = words.next()?;
    let status = first.trim_end_matches(',').parse().ok()?;
    let code = words.next().filter(|_| !first.ends_with(',')).unwrap_or_default();
    Some((status, code.trim_end_matches([',', ':', ';'])))
}

impl Ground {
    pub(crate) async fn new() -> Self {
        let settings = json!({
            "agents": [
                {"id": "main", "model": "demo/echo", "workspace": {"root": "./main"}},
                {"id": long_agent(), "model": "demo/echo", "workspace": {"root": "./long"}},
            ],
            "models": {"providers": {"nowhere": {"baseUrl": "http://127.0.0.1:1/v1", "maxAttempts": 1}}},
            // All pictures that a request may have must fit.
            "gateway": {"maxBodyBytes": 30 * 1024 * 1024, "rateLimit": {"perSecond": 0.05, "burst": 3}},
        });
        let site = Site::new(env!("CARGO_BIN_EXE_reef-under-test"), &settings);
        let server = site.serve(&[]);
        let url = server.url().await.expect("a server that starts");
        let token = site.token("admin").await;
        let ground = Self { site, server, url, token };
        // What the cases of lists look at.
        let said = ground.ask(Ask::chat(json!({})).header("x-openclaw-session-key", "page".to_owned())).await;
        assert_eq!(said.status, 200, "{}", said.text);
        ground
    }

    /// The rows with the values in force here.
    pub(crate) async fn rows(&self) -> Vec<Value> {
        let rows = self.site.json(&["config", "show", "--limits", "--json"]).await;
        rows.as_array().expect("a list of limits").clone()
    }

    pub(crate) async fn ask(&self, ask: Ask) -> Answer {
        self.ask_with(&self.token, ask).await
    }

    pub(crate) async fn ask_with(&self, token: &str, ask: Ask) -> Answer {
        let Ask { method, path, headers, body } = ask;
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        text.push_str(&format!("Authorization: Bearer {token}\r\nContent-Length: {}\r\n", body.len()));
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        self.exchange(&[text.as_bytes(), b"\r\n", &body].concat()).await
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.url.trim_start_matches("http://")).await.expect("a connection")
    }

    /// Sends this text as it is.
    pub(crate) async fn raw(&self, text: &str) -> Answer {
        self.exchange(text.as_bytes()).await
    }

    /// Sends these bytes and reads until the connection is closed. A server that refuses a body need not read it: then
    /// sending fails, and the answer is there all the same.
    async fn exchange(&self, bytes: &[u8]) -> Answer {
        let mut socket = self.connect().await;
        let (mut from, mut to) = socket.split();
        let mut answer = Vec::new();
        let _ = tokio::join!(to.write_all(bytes), from.read_to_end(&mut answer));
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap_or_default();
        let json = serde_json::from_str(body).unwrap_or_default();
        Answer { status, text: answer.chars().take(600).collect(), id: id.to_owned(), json }
    }
}

impl Ask {
    pub(crate) fn post(path: &str, body: &Value) -> Self {
        Self {
            method: Method::POST,
            path: path.to_owned(),
            headers: Vec::new(),
            body: body.to_string().into_bytes(),
        }
    }

    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// A turn of the default agent, with these fields besides.
    pub(crate) fn chat(fields: Value) -> Self {
        Self::with("/v1/chat/completions", json!({"messages": [{"role": "user", "content": "x"}]}), fields)
    }

    pub(crate) fn response(fields: Value) -> Self {
        Self::with("/v1/responses", json!({"model": "openclaw", "input": "x"}), fields)
    }

    pub(crate) fn hook(fields: Value) -> Self {
        Self::with("/hooks/agent", json!({"message": "x"}), fields)
    }

    pub(crate) fn tool(name: &str, args: Value) -> Self {
        let args = [("args".to_owned(), args)].into_iter().collect();
        Self::with("/tools/invoke", json!({"tool": name}), Value::Object(args))
    }

    fn with(path: &str, mut body: Value, fields: Value) -> Self {
        if let (Value::Object(body), Value::Object(fields)) = (&mut body, fields) {
            body.extend(fields);
        }
        Self::post(path, &body)
    }

    #[must_use]
    pub(crate) fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Makes the body exactly so many bytes long, by a field that is ignored.
    #[must_use]
    pub(crate) fn padded(mut self, bytes: usize) -> Self {
        assert_eq!(self.body.pop(), Some(b'}'));
        self.body.extend_from_slice(b",\"ignored\":\"");
        let room = bytes.checked_sub(self.body.len() + 2).expect("room for the field");
        self.body.resize(self.body.len() + room, b'x');
        self.body.extend_from_slice(b"\"}");
        self
    }
}
