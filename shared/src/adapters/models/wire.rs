//! HTTP to a model vendor, the same for each protocol: one POST, answered by a stream of server-sent events.
//!
//! HTTP/1.1 only: a call waits for minutes, and the client would queue calls behind the one HTTP/2 connection's limit
//! of streams. Nothing is retried here. Redirects are not followed: they would carry the key away.

use super::fault::{Fault, VendorError};
use super::sse::{SseEvent, SseReader};
use crate::bounds::{ANSWER_WIRE_BYTES, VENDOR_ERROR_BYTES};
use crate::config::ProviderConfig;
use crate::model::{ModelError, ModelEvent, ModelRef, ModelStream, StopReason};
use crate::secret::Secret;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// How long the end of a body is awaited once the answer is complete. It normally is there already; reading it is
/// what lets the connection be used again.
const LINGER: Duration = Duration::from_millis(50);

/// How one protocol's stream is read: its events in, the model's events out. Pure, so that a recorded stream can be
/// replayed.
pub trait Protocol: Send + Unpin + 'static {
    /// Reads one event.
    ///
    /// # Errors
    /// The vendor reports an error, or breaks its protocol. Nothing is read afterwards.
    fn read(&mut self, event: &SseEvent, out: &mut VecDeque<ModelEvent>) -> Result<(), Fault>;

    /// The stream ended. Called only when no [`ModelEvent::Stop`] has come out.
    ///
    /// # Errors
    /// It ended too early.
    fn end(&mut self, out: &mut VecDeque<ModelEvent>) -> Result<(), Fault>;
}

/// The HTTP clients of a process: one for all providers that want the same of it.
#[derive(Debug, Default)]
pub struct Clients(BTreeMap<Wants, Arc<LazyClient>>);

/// What a provider wants of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wants {
    connect_timeout: Duration,
    read_timeout: Duration,
    tls: bool,
    /// The address is this host's own. A proxy named by the environment is for the outside world.
    local: bool,
}

impl Clients {
    fn get(&mut self, config: &ProviderConfig, url: &reqwest::Url) -> Arc<LazyClient> {
        let local = url.host_str().is_some_and(|host| {
            let host = host.trim_matches(['[', ']']);
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        });
        let ProviderConfig { connect_timeout, read_timeout, .. } = *config;
        let wants = Wants { connect_timeout, read_timeout, tls: url.scheme() == "https", local };
        self.0
            .entry(wants)
            .or_insert_with(|| Arc::new(LazyClient { wants, client: Mutex::default() }))
            .clone()
    }
}

/// A client that is made by the first call: with TLS it reads the host's certificate authorities, which costs more
/// time than all the rest of a start.
#[derive(Debug)]
struct LazyClient {
    wants: Wants,
    client: Mutex<Option<reqwest::Client>>,
}

impl LazyClient {
    fn get(&self) -> Result<reqwest::Client, Fault> {
        let mut made = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*made {
            return Ok(client.clone());
        }
        let client = self.wants.client().map_err(Fault::of_host)?;
        Ok(made.insert(client).clone())
    }
}

impl Wants {
    /// The authorities are the host's: a company's own proxy or model server has its certificate from the company.
    fn client(self) -> Result<reqwest::Client, reqwest::Error> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("reef/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout)
            .read_timeout(self.read_timeout)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false);
        if self.local {
            builder = builder.no_proxy();
        }
        if !self.tls {
            // No authorities to load: a local model must work on a host that has none.
            builder = builder.tls_certs_only([]);
        }
        builder.build()
    }
}

/// Where a provider's calls go, and with which headers.
pub struct Endpoint {
    client: Arc<LazyClient>,
    url: reqwest::Url,
    headers: HeaderMap,
    secrets: Vec<Secret>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

/// A setting that no call can be made with: its key, and what is wrong with it.
pub type Setting = (&'static str, String);

impl Endpoint {
    /// The endpoint of a provider; `path` is put behind its base URL, `headers` are the protocol's own, which the
    /// configuration may override.
    ///
    /// # Errors
    /// See [`Setting`].
    pub fn new(
        clients: &mut Clients,
        config: &ProviderConfig,
        path: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Self, Setting> {
        let base = config.base_url.trim_end_matches('/');
        let web = |url: &reqwest::Url| matches!(url.scheme(), "http" | "https");
        let named = reqwest::Url::parse(base).ok().filter(web).filter(|url| url.has_host());
        let named = named.ok_or_else(|| ("baseUrl", "not an http or https address".to_owned()))?;
        if !named.username().is_empty() || named.password().is_some() {
            // Addresses are printed; secrets have places of their own.
            return Err((
                "baseUrl",
                "holds a user or password; put it into `apiKey` or `headers`".to_owned(),
            ));
        }
        let url = reqwest::Url::parse(&format!("{base}{path}"));
        let url = url.map_err(|error| ("baseUrl", error.to_string()))?;
        let mut all = HeaderMap::new();
        all.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        all.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        for (name, value) in headers {
            let value = HeaderValue::from_str(value);
            let mut value = value
                .map_err(|_| ("apiKey", "holds a character that an HTTP header cannot carry".to_owned()))?;
            value.set_sensitive(true);
            all.insert(HeaderName::from_static(name), value);
        }
        for (name, value) in &config.headers {
            let header =
                HeaderName::from_bytes(name.as_bytes()).ok().zip(value.expose().parse::<HeaderValue>().ok());
            let (name, mut value) = header
                .ok_or_else(|| ("headers", format!("`{name}` is not an HTTP header, or its value is not")))?;
            value.set_sensitive(true);
            all.insert(name, value);
        }
        let client = clients.get(config, &url);
        let secrets = config.api_key.iter().chain(config.headers.values()).cloned().collect();
        Ok(Self { client, url, headers: all, secrets })
    }

    /// The host that calls go to.
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// Makes one call.
    ///
    /// # Errors
    /// Anything before the first event. Later failures come out of the stream.
    pub async fn call(
        &self,
        model: &ModelRef,
        body: &(impl Serialize + Sync),
        protocol: impl Protocol,
    ) -> Result<ModelStream, ModelError> {
        match self.send(body).await {
            Ok(response) => {
                let bytes = response.bytes_stream().map(|bytes| bytes.map_err(Fault::of_client)).boxed();
                let (model, secrets) = (model.clone(), self.secrets.clone());
                let events = events(bytes, protocol);
                Ok(events.map(move |event| event.map_err(|fault| fault.told(&model, &secrets))).boxed())
            }
            Err(fault) => Err(fault.told(model, &self.secrets)),
        }
    }

    async fn send(&self, body: &impl Serialize) -> Result<reqwest::Response, Fault> {
        let body = serde_json::to_vec(body).map_err(|error| Fault::protocol(error.to_string()))?;
        let request = self.client.get()?.post(self.url.clone()).headers(self.headers.clone()).body(body);
        let mut response = request.send().await.map_err(Fault::of_client)?;
        let kind =
            response.headers().get(header::CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
        let status = response.status();
        if status.is_success() && kind.is_some_and(|kind| kind.starts_with(b"text/event-stream")) {
            return Ok(response);
        }
        let mut body = Vec::new();
        while let Some(bytes) = response.chunk().await.map_err(Fault::of_client)? {
            let room = VENDOR_ERROR_BYTES - body.len();
            body.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if body.len() == VENDOR_ERROR_BYTES {
                break;
            }
        }
        if status.is_success() {
            return Err(Fault::protocol(format!("status {status}, but no event stream")));
        }
        let error = VendorError::from_body(&body);
        Err(Fault::of_vendor(Some(status.as_u16()), Some(response.headers()), &error))
    }
}

/// The model's events in a stream of bytes. Ends after the stop event, or an error.
pub fn events<P: Protocol>(
    bytes: BoxStream<'static, Result<Bytes, Fault>>,
    protocol: P,
) -> impl Stream<Item = Result<ModelEvent, Fault>> + Send + 'static {
    Events {
        bytes: Some(bytes),
        read: 0,
        reader: SseReader::default(),
        frames: Vec::new(),
        protocol,
        ready: VecDeque::new(),
        failed: None,
        linger: None,
    }
}

struct Events<P> {
    /// `None` once nothing more is to be read.
    bytes: Option<BoxStream<'static, Result<Bytes, Fault>>>,
    /// Bytes so far.
    read: usize,
    reader: SseReader,
    /// Empty between polls; kept for its memory.
    frames: Vec<SseEvent>,
    protocol: P,
    /// To be given out, in this order, …
    ready: VecDeque<ModelEvent>,
    /// … then this.
    failed: Option<Fault>,
    linger: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<P: Protocol> Events<P> {
    fn take_in(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.read = self.read.saturating_add(bytes.len());
        if self.read > ANSWER_WIRE_BYTES {
            // Whatever it says, it is more than any model has to say: what came counts as cut at its length.
            self.bytes = None;
            self.ready.push_back(ModelEvent::Stop(StopReason::Length));
            return Ok(());
        }
        let verdict = self.reader.push(bytes, &mut self.frames);
        for frame in self.frames.drain(..) {
            self.protocol.read(&frame, &mut self.ready)?;
            if matches!(self.ready.back(), Some(ModelEvent::Stop(_))) {
                return Ok(());
            }
        }
        verdict.map_err(|error| Fault::protocol(error.to_string()))
    }

    fn fail(&mut self, fault: Fault) {
        self.bytes = None;
        self.failed = Some(fault);
    }

    /// Reads what is left behind a complete answer.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(bytes) = &mut self.bytes else { return Poll::Ready(()) };
        loop {
            match bytes.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        let linger = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        linger.as_mut().poll(cx)
    }
}

impl<P: Protocol> Stream for Events<P> {
    type Item = Result<ModelEvent, Fault>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if matches!(this.ready.front(), Some(ModelEvent::Stop(_))) {
                ready!(this.poll_rest(cx));
                this.bytes = None;
            }
            if let Some(event) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if let Some(fault) = this.failed.take() {
                return Poll::Ready(Some(Err(fault)));
            }
            let Some(bytes) = &mut this.bytes else { return Poll::Ready(None) };
            let verdict = match ready!(bytes.poll_next_unpin(cx)) {
                Some(Ok(bytes)) => this.take_in(&bytes),
                Some(Err(fault)) => Err(fault),
                None => {
                    this.bytes = None;
                    this.protocol.end(&mut this.ready)
                }
            };
            if let Err(fault) = verdict {
                this.fail(fault);
            }
        }
    }
}
