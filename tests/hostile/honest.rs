//! The honest clients: a chat in one piece, a streamed one, a hook whose turn is looked at until it has ended.
//!
//! They do what the README asks of a client: a key for each request, and the same request again after the answer's
//! `Retry-After`. The time that this takes is theirs, so it counts.

use crate::vendor::MARK;
use harness::client::{Client, Lost, Reply};
use http::Method;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Pause between two requests of a client, and between two looks at a hook's turn: with both a client stays below the
/// settings' ten requests a second.
const PAUSE: Duration = Duration::from_millis(250);

/// Longest that a client waits for an answer; far beyond what is asked of the product.
const PATIENCE: Duration = Duration::from_secs(20);

/// Requests of one client, whatever happens.
const MOST: usize = 10_000;

/// What an honest client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Chat,
    Stream,
    Hook,
}

/// What an honest client saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Each input that was accepted and answered, and how long its answer took.
    pub(crate) answered: Vec<(String, Duration)>,
    /// Answers that said to come again.
    pub(crate) put_off: usize,
    /// What was not as it must be.
    pub(crate) problems: Vec<String>,
}

/// An honest client.
pub(crate) struct Honest {
    way: Way,
    number: usize,
    client: Client,
}

impl Honest {
    /// The client of this number, with a token of its own.
    pub(crate) fn new(number: usize, url: &str, token: &str) -> Self {
        let way = match number % 10 {
            0..4 => Way::Chat,
            4..7 => Way::Stream,
            _ => Way::Hook,
        };
        let http = reqwest::Client::builder().no_proxy().local_address(Some(Ipv4Addr::LOCALHOST.into()));
        let http = http.timeout(PATIENCE).build().expect("a client");
        Self { way, number, client: Client::over(http, url, token) }
    }

    /// What it does.
    pub(crate) const fn way(&self) -> Way {
        self.way
    }

    /// Its session, if it has one.
    pub(crate) fn session(&self) -> String {
        format!("agent:honest:of-{}", self.number)
    }

    /// The texts of its session's transcript, page by page.
    pub(crate) async fn transcript(&self) -> Result<Vec<String>, String> {
        let mut texts = Vec::new();
        let mut before = String::new();
        for _ in 0..MOST {
            let path = format!("/v1/sessions/{}/transcript?limit=500{before}", self.session());
            let reply = self.client.get(&path).await.map_err(|Lost| "connection lost".to_owned())?;
            if let Some(after) = again(&reply) {
                sleep(after).await;
                continue;
            }
            let page = reply.json();
            let messages = page["data"].as_array().ok_or_else(|| reply.body.clone())?;
            texts.extend(messages.iter().map(|message| match &message["content"] {
                Value::String(text) => text.clone(),
                parts => parts[0]["text"].as_str().unwrap_or_default().to_owned(),
            }));
            if page["has_more"] != true {
                break;
            }
            before = format!("&before={}", page["first_id"].as_str().unwrap_or_default());
        }
        Ok(texts)
    }

    /// Asks until the time is over, and ends with an answer.
    pub(crate) async fn work(&self, until: Instant) -> Seen {
        let mut seen = Seen::default();
        for round in 0..MOST {
            if Instant::now() >= until {
                break;
            }
            let mark = format!("{MARK}{}-{round}", self.number);
            let began = Instant::now();
            match self.ask(&mark, &mut seen).await {
                Ok(()) => seen.answered.push((mark, began.elapsed())),
                Err(problem) => seen.problems.push(format!("{mark}: {problem}")),
            }
            sleep(PAUSE).await;
        }
        seen
    }

    /// One request up to its answer.
    async fn ask(&self, mark: &str, seen: &mut Seen) -> Result<(), String> {
        let heard = format!("Heard: {mark}");
        let session = self.session();
        let headers = [("idempotency-key", mark), ("x-openclaw-session-key", session.as_str())];
        let messages = json!([{"role": "user", "content": mark}]);
        let chat = |stream: bool| json!({"model": "openclaw/honest", "stream": stream, "messages": messages});
        match self.way {
            Way::Chat => {
                let reply = self.post("/v1/chat/completions", &headers, &chat(false), seen).await?;
                let text = reply.json()["choices"][0]["message"]["content"].clone();
                (text == heard.as_str()).then_some(()).ok_or_else(|| format!("answered with {}", reply.body))
            }
            Way::Stream => {
                let reply = self.post("/v1/chat/completions", &headers, &chat(true), seen).await?;
                let is_whole = reply.body.contains(&heard) && reply.body.ends_with("data: [DONE]\n\n");
                is_whole.then_some(()).ok_or_else(|| format!("streamed {}", reply.body))
            }
            Way::Hook => {
                let hook = json!({"message": mark, "agentId": "honest"});
                let accepted = self.post("/hooks/agent", &headers[..1], &hook, seen).await?.json();
                let (key, turn) = (&accepted["sessionKey"], &accepted["runId"]);
                let (Some(key), Some(turn)) = (key.as_str(), turn.as_str()) else {
                    return Err(format!("accepted with {accepted}"));
                };
                self.wait_for(&format!("/v1/sessions/{key}/turns/{turn}"), &heard).await
            }
        }
    }

    /// Looks at a turn until it has ended.
    async fn wait_for(&self, path: &str, heard: &str) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let waits = match self.client.get(path).await {
                Ok(reply) if reply.status == 200 => {
                    let turn = reply.json();
                    match turn["status"].as_str() {
                        Some("done") if turn["reply"]["text"] == heard => return Ok(()),
                        Some("queued" | "running") => turn.to_string(),
                        _ => return Err(format!("ended as {turn}")),
                    }
                }
                Ok(reply) if again(&reply).is_some() => reply.body,
                Ok(reply) => return Err(format!("{}: {}", reply.status, reply.body)),
                Err(Lost) => "connection lost".to_owned(),
            };
            if began.elapsed() > PATIENCE {
                return Err(format!("not ended within {PATIENCE:?}: {waits}"));
            }
            sleep(PAUSE / 2).await;
        }
    }

    /// Asks, and asks again when told to.
    async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
        seen: &mut Seen,
    ) -> Result<Reply, String> {
        let began = Instant::now();
        loop {
            let met = match self.client.send(Method::POST, path, headers, Some(body)).await {
                Ok(reply) if reply.status == 200 => return Ok(reply),
                Ok(reply) => match again(&reply) {
                    Some(after) => {
                        seen.put_off += 1;
                        sleep(after).await;
                        reply.body
                    }
                    None => return Err(format!("{}: {}", reply.status, reply.body)),
                },
                Err(Lost) => return Err("connection lost".to_owned()),
            };
            if began.elapsed() > PATIENCE {
                return Err(format!("put off for {PATIENCE:?}: {met}"));
            }
        }
    }
}

/// When a refused request may come again.
fn again(reply: &Reply) -> Option<Duration> {
    let seconds = reply.headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}
