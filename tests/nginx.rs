//! `infra/site/nginx.conf` in a real nginx, in front of two gateways on one data folder.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up fails")]

use futures::StreamExt;
use harness::dynamo::free_port;
use harness::process::{Process, Signal, Site};
use harness::vendor::{Gate, Step, Stream, Vendor};
use reqwest::tls::Version;
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, StatusCode, header, redirect};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What ships.
const BLOCK: &str = include_str!("../infra/site/nginx.conf");

const MODELS: &str = "/v1/models";
const CHAT: &str = "/v1/chat/completions";

/// Two gateways behind nginx.
struct Farm {
    site: Site,
    /// The one that is asked, and the one that takes over.
    gateways: [Process; 2],
    http: u16,
    https: u16,
    _nginx: Process,
    _folder: TempDir,
}

impl Farm {
    async fn start(settings: &Value) -> Self {
        let mut all = json!({
            "agents": [{"id": "one", "model": "demo/echo", "workspace": "one"}],
            // The line that the block asks for.
            "gateway": {"trustedProxies": ["127.0.0.1"]},
        });
        for (key, value) in settings.as_object().unwrap() {
            match value.as_object() {
                Some(inner) if all[key].is_object() => {
                    all[key].as_object_mut().unwrap().extend(inner.clone());
                }
                _ => all[key] = value.clone(),
            }
        }
        let site = Site::new(env!("CARGO_BIN_EXE_reef-under-test"), &all);
        let gateways = [site.serve(&[]), site.serve(&[])];
        let mut backends = Vec::new();
        for gateway in &gateways {
            backends.push(gateway.url().await.unwrap().strip_prefix("http://").unwrap().to_owned());
        }
        let folder = tempfile::tempdir().unwrap();
        let (http, https) = (free_port(), free_port());
        make_certificate(folder.path());
        std::fs::write(folder.path().join("nginx.conf"), settings_of(&backends, http, https)).unwrap();
        let nginx = nginx(folder.path());
        let serves = nginx.line(|line| line.contains("using the \"epoll\" event method")).await;
        assert!(serves.is_some(), "{}", nginx.output());
        Self { site, gateways, http, https, _nginx: nginx, _folder: folder }
    }

    fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.https)
    }

    async fn get(&self, path: &str, token: &str) -> Response {
        client().get(self.url(path)).bearer_auth(token).send().await.unwrap()
    }

    fn chat(&self, token: &str, body: &Value) -> RequestBuilder {
        client().post(self.url(CHAT)).bearer_auth(token).json(body)
    }
}

/// The block, with the ports and files of this test in their places, inside the least that nginx needs around it.
fn settings_of(backends: &[String], http: u16, https: u16) -> String {
    let mut block: String =
        BLOCK.lines().filter(|line| !line.contains("listen [::]:")).map(|line| format!("{line}\n")).collect();
    for (shipped, here) in [
        ("127.0.0.1:18789", backends[0].as_str()),
        ("127.0.0.1:18790", &backends[1]),
        ("listen 80;", &format!("listen 127.0.0.1:{http};")),
        ("listen 443 ssl;", &format!("listen 127.0.0.1:{https} ssl;")),
        ("/etc/ssl/reef/fullchain.pem", "certificate.pem"),
        ("/etc/ssl/reef/privkey.pem", "key.pem"),
    ] {
        // The comments name the addresses, too.
        assert!(block.contains(shipped), "{shipped} is not in the block");
        block = block.replace(shipped, here);
    }
    format!(
        "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr notice;\nevents {{ }}\nhttp {{\naccess_log off;\n\
         client_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\n\
         scgi_temp_path scgi;\n{block}}}\n"
    )
}

fn make_certificate(folder: &Path) {
    let made = Command::new("openssl")
        .current_dir(folder)
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=reef.example.com", "-keyout", "key.pem", "-out", "certificate.pem"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn nginx(folder: &Path) -> Process {
    // Where it is on Debian, also for a user whose PATH does not hold the system's own programs.
    let installed = Path::new("/usr/sbin/nginx");
    let program = if installed.exists() { installed } else { Path::new("nginx") };
    let mut command = tokio::process::Command::new(program);
    command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf")).args(["-e", "stderr"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Process::start(command)
}

fn builder() -> ClientBuilder {
    // The certificate is of this test's own making.
    Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).redirect(redirect::Policy::none())
}

fn client() -> Client {
    builder().build().unwrap()
}

/// Every header that the guide wants, as often as it comes.
fn security_headers(response: &Response) -> Vec<(&'static str, Vec<String>)> {
    let names = ["strict-transport-security", "x-frame-options", "x-content-type-options", "referrer-policy"];
    let values = |name| {
        let all = response.headers().get_all(name).iter();
        all.map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    names.map(|name| (name, values(name))).to_vec()
}

/// The error's `code`, and what is said.
async fn error(response: Response) -> (StatusCode, String, String) {
    let status = response.status();
    let body: Value = response.json().await.unwrap();
    let text = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
    (status, text("code"), text("message"))
}

#[tokio::test]
async fn every_answer_has_each_security_header_once_and_plain_http_leads_to_https() {
    let farm = Farm::start(&json!({})).await;
    let token = farm.site.token("chat").await;
    let once = |name, value: &str| (name, vec![value.to_owned()]);
    let expected = [
        once("strict-transport-security", "max-age=63072000"),
        once("x-frame-options", "DENY"),
        once("x-content-type-options", "nosniff"),
        once("referrer-policy", "no-referrer"),
    ];
    for (path, token, status) in [
        (MODELS, token.as_str(), 200),
        (MODELS, "reef_a_b", 401),
        ("/chat/completions", "", 404),
        (CHAT, "", 405),
    ] {
        let response = farm.get(path, token).await;
        assert_eq!(
            (response.status().as_u16(), &security_headers(&response)[..]),
            (status, &expected[..]),
            "{path}"
        );
    }
    let plain = client().get(format!("http://127.0.0.1:{}{MODELS}?a=b", farm.http)).send().await.unwrap();
    assert_eq!(plain.status(), 301);
    assert_eq!(plain.headers()[header::LOCATION], format!("https://127.0.0.1{MODELS}?a=b").as_str());
}

#[tokio::test]
async fn tls_is_1_2_or_1_3() {
    let farm = Farm::start(&json!({})).await;
    for version in [Version::TLS_1_2, Version::TLS_1_3] {
        let client = builder().tls_version_min(version).tls_version_max(version).build().unwrap();
        let response = client.get(farm.url("/health")).send().await.unwrap();
        assert_eq!(response.status(), 200, "{version:?}");
    }
    // The hello of a client that knows TLS 1.1 at most, with two cipher suites of its time.
    let mut hello = vec![0x16, 3, 1, 0, 47, 1, 0, 0, 43, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x0a, 0xc0, 0x14, 1, 0]);
    let mut stream = TcpStream::connect(("127.0.0.1", farm.https)).await.unwrap();
    stream.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    // An alert, fatal: protocol version.
    assert_eq!((answer.first(), answer.get(5..)), (Some(&0x15), Some(&[2, 70][..])), "{answer:?}");
}

#[tokio::test]
async fn refusals_of_the_gateways_pass_as_they_are_and_those_of_nginx_have_the_same_shape() {
    let farm = Farm::start(&json!({"gateway": {"maxBodyBytes": 2000}})).await;
    let limited = farm
        .site
        .json(&["token", "create", "--name", "slow", "--scopes", "chat", "--rate-limit", "0.1,0", "--json"])
        .await;
    let limited = limited["token"].as_str().unwrap();
    assert_eq!(farm.get(MODELS, limited).await.status(), 200);
    let response = farm.get(MODELS, limited).await;
    assert_eq!(response.headers()[header::RETRY_AFTER], "10");
    assert_eq!(
        error(response).await,
        (
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limited".to_owned(),
            "Too many requests. Try again after the time in `Retry-After`.".to_owned()
        )
    );
    let token = farm.site.token("chat").await;
    let large = json!({"messages": [{"role": "user", "content": "x".repeat(3000)}]});
    let refused = error(farm.chat(&token, &large).send().await.unwrap()).await;
    assert_eq!((refused.0, refused.1.as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large"));

    // Far more than one address may ask in that time: most are refused, by nginx.
    let client = client();
    let asked = futures::stream::iter(0..300).map(|_| client.get(farm.url("/health")).send());
    let answers: Vec<_> = asked.buffer_unordered(16).collect().await;
    let refused = answers.into_iter().map(Result::unwrap).find(|answer| answer.status() != 200).unwrap();
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    assert_eq!(security_headers(&refused)[0].1, ["max-age=63072000"]);
    let (status, code, message) = error(refused).await;
    assert_eq!((status, code.as_str()), (StatusCode::TOO_MANY_REQUESTS, "rate_limited"));
    assert!(message.starts_with("Too many requests from this address."), "{message}");
}

#[tokio::test]
async fn the_gateways_know_the_clients_own_address_and_no_other() {
    let farm = Farm::start(&json!({})).await;
    let made = farm
        .site
        .json(&["token", "create", "--name", "near", "--scopes", "chat", "--cidrs", "127.0.0.5", "--json"])
        .await;
    let token = made["token"].as_str().unwrap();
    for (from, forged, status) in [
        ("127.0.0.5", "", 200),
        ("127.0.0.5", "203.0.113.9", 200),
        ("127.0.0.6", "", 403),
        ("127.0.0.6", "127.0.0.5", 403),
    ] {
        let client = builder().local_address(from.parse::<IpAddr>().unwrap()).build().unwrap();
        let mut ask = client.get(farm.url(MODELS)).bearer_auth(token);
        if !forged.is_empty() {
            ask = ask.header("x-forwarded-for", forged).header("forwarded", format!("for={forged}"));
            ask = ask.header("x-real-ip", forged);
        }
        assert_eq!(ask.send().await.unwrap().status(), status, "{from} as {forged}");
    }
}

fn asking(vendor: &Vendor) -> Value {
    json!({
        "agents": [{"id": "one", "model": "mine/x", "workspace": "one"}],
        "models": {"providers": {"mine": {"baseUrl": format!("{}/v1", vendor.url()), "maxAttempts": 1}}},
        "turns": {"leaseSeconds": 1},
    })
}

fn streamed() -> Value {
    json!({"model": "openclaw", "user": "ann", "stream": true, "messages": [{"role": "user", "content": "x"}]})
}

/// Reads a stream until it has told this.
async fn told(response: &mut Response, text: &str) {
    let mut seen = String::new();
    while !seen.contains(text) {
        let frame = response.chunk().await.unwrap().unwrap();
        seen.push_str(std::str::from_utf8(&frame).unwrap());
    }
}

#[tokio::test]
async fn a_stream_comes_word_by_word() {
    let vendor = Vendor::start().await;
    let gate = Gate::new();
    vendor.answer(Stream::text("begun").then(Step::Hold(gate.clone())).then_text("ended"));
    let farm = Farm::start(&asking(&vendor)).await;
    let token = farm.site.token("chat").await;
    let mut response = farm.chat(&token, &streamed()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    // The rest is not made before this has arrived.
    told(&mut response, "begun").await;
    gate.open();
    let rest = response.text().await.unwrap();
    assert!(rest.contains("ended") && rest.contains("[DONE]"), "{rest}");
}

#[tokio::test]
async fn a_gateway_that_dies_breaks_its_streams_and_the_other_one_answers() {
    let vendor = Vendor::start().await;
    let gate = Gate::new();
    vendor.answer(Stream::text("begun").then(Step::Hold(gate.clone())).then_text("ended"));
    vendor.answer(Stream::text("other"));
    let farm = Farm::start(&asking(&vendor)).await;
    let token = farm.site.token("chat").await;
    let keyed = || farm.chat(&token, &streamed()).header("idempotency-key", "k-1");
    let mut response = keyed().send().await.unwrap();
    told(&mut response, "begun").await;
    farm.gateways[0].signal(Signal::KILL);
    farm.gateways[0].exit().await;
    // Not an end: what is missing is missing, and the client knows.
    let end = loop {
        match response.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    assert!(end.is_some(), "the stream ends as if it were whole");
    gate.open();
    // Connecting anew is no failure that anybody sees.
    assert_eq!(farm.get(MODELS, &token).await.status(), 200);
    // The turn goes on at the other gateway, when its lease has run out; the same key is the same turn.
    let answer = loop {
        let response = keyed().send().await.unwrap();
        let Some(wait) = response.headers().get(header::RETRY_AFTER) else { break response };
        let seconds = wait.to_str().unwrap().parse().unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(seconds)).await;
    };
    let text = answer.text().await.unwrap();
    assert!(text.contains("other") && text.contains("[DONE]"), "{text}");

    farm.gateways[1].signal(Signal::KILL);
    farm.gateways[1].exit().await;
    let response = farm.get(MODELS, &token).await;
    assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    assert_eq!(security_headers(&response)[0].1, ["max-age=63072000"]);
    let (status, code, message) = error(response).await;
    assert_eq!((status, code.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "unavailable"));
    assert!(message.starts_with("No gateway answers."), "{message}");
}
