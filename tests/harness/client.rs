//! A client of a running server: asks again where a client should, and tells apart an answer from a lost connection.

use http::{HeaderMap, Method, StatusCode};
use reqwest::header::RETRY_AFTER;
use serde_json::Value;
use std::time::Duration;

/// The connection was lost before the answer was complete: whether the request was accepted is not known.
#[derive(Debug)]
pub struct Lost;

/// A client with a token.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    token: String,
}

/// An answer, read to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: String,
}

impl Reply {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The error body's `code`; empty if there is none.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The answer was given before.
    pub fn is_replayed(&self) -> bool {
        self.headers.get("idempotency-replayed").is_some_and(|value| value == "true")
    }
}

impl Client {
    /// A client of the server at this base URL.
    pub fn new(url: &str, token: &str) -> Self {
        // A new connection for each request: none is left over from a server that died.
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).no_proxy().build().expect("a client");
        Self::over(http, url, token)
    }

    /// A client that uses one connection for all of its requests, one after the other.
    pub fn on_one_connection(url: &str, token: &str) -> Self {
        let http = reqwest::Client::builder().pool_max_idle_per_host(1).no_proxy().build().expect("a client");
        Self::over(http, url, token)
    }

    /// A client that shares its connections with others.
    pub fn over(http: reqwest::Client, url: &str, token: &str) -> Self {
        Self { http, url: url.to_owned(), token: token.to_owned() }
    }

    /// Asks once.
    ///
    /// # Errors
    /// The connection was lost.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Reply, Lost> {
        let mut request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|_| Lost)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.text().await.map_err(|_| Lost)?;
        Ok(Reply { status, headers, body })
    }

    /// Gets something.
    ///
    /// # Errors
    /// The connection was lost.
    pub async fn get(&self, path: &str) -> Result<Reply, Lost> {
        self.send(Method::GET, path, &[], None).await
    }

    /// Posts something, and as often as the answer says when to ask again, does so then.
    ///
    /// # Errors
    /// The connection was lost.
    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Result<Reply, Lost> {
        loop {
            let reply = self.send(Method::POST, path, headers, Some(body)).await?;
            let wait = reply.headers.get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse().ok());
            let Some(seconds) = wait else { return Ok(reply) };
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
    }
}
