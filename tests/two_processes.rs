//! Two `reef serve` on one data directory: whichever of them a request reaches, it is the same product.

#![expect(clippy::print_stdout, reason = "the summary is for people")]

use futures::stream;
use futures::{FutureExt, StreamExt, future};
use harness::client::{Client, Reply};
use harness::process::{Process, Signal, Site};
use harness::transcript;
use harness::vendor::{Gate, Step, Stream, Vendor};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::pin::pin;
use tokio::time::Instant;

/// Turns, over so many sessions, so many of them at once.
const TURNS: usize = 2_000;
const SESSIONS: usize = 50;
const AT_ONCE: usize = 64;

/// A turn, and how it is asked for.
struct Wish {
    session: String,
    mark: String,
    body: Value,
    /// Appended to a file once, if it is a turn with a tool.
    line: Option<String>,
    /// Asked for at both processes at the same time; else at one.
    at_both: bool,
}

impl Wish {
    fn new(number: usize) -> Self {
        let mark = format!("turn-{number}-");
        let line = number.is_multiple_of(8).then(|| format!("{mark}\n"));
        let call = line
            .as_ref()
            .map(|line| format!("\n/tool append {}", json!({"path": "lines.txt", "content": line})));
        let text = format!("{mark}{}", call.unwrap_or_default());
        Self {
            session: format!("agent:main:shared-{}", number % SESSIONS),
            mark,
            body: json!({"model": "openclaw", "messages": [{"role": "user", "content": text}]}),
            line,
            at_both: (number / SESSIONS).is_multiple_of(2),
        }
    }

    async fn ask(&self, client: &Client) -> Reply {
        let headers =
            [("idempotency-key", self.mark.as_str()), ("x-openclaw-session-key", self.session.as_str())];
        client.post("/v1/chat/completions", &headers, &self.body).await.expect("an answer")
    }

    /// Asks, and says what is wrong with the answer.
    async fn get(&self, number: usize, clients: &[Client; 2]) -> Vec<String> {
        let replies = if self.at_both {
            let (one, other) = future::join(self.ask(&clients[0]), self.ask(&clients[1])).await;
            vec![one, other]
        } else {
            vec![self.ask(&clients[number / 3 % 2]).await]
        };
        let mut problems = Vec::new();
        for reply in &replies {
            let text =
                reply.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned();
            if reply.status != 200 || (self.line.is_none() && !text.contains(&self.mark)) {
                problems.push(format!("answer: {}: {} {}", self.mark, reply.status, reply.body));
            }
            if reply.body != replies[0].body {
                problems.push(format!("answer: {}: {} and {}", self.mark, replies[0].body, reply.body));
            }
        }
        let new = replies.iter().filter(|reply| !reply.is_replayed()).count();
        if new != 1 {
            problems.push(format!("answer: {} was answered anew {new} times", self.mark));
        }
        problems
    }
}

async fn serve(site: &Site, token: &str) -> (Process, Client) {
    let process = site.serve(&[("REEF_LOG", "error")]);
    let client = Client::new(&process.url().await.expect("a server"), token);
    (process, client)
}

/// A site whose agent asks this vendor.
fn site_asking(vendor: &Vendor) -> Site {
    Site::new(
        env!("CARGO_BIN_EXE_reef-under-test"),
        &json!({
            "agents": [{"id": "main", "model": "slow/echo", "workspace": "./main"}],
            "models": {"providers": {"slow": {"baseUrl": format!("{}/v1", vendor.url()), "api": "openai-completions"}}},
            "turns": {"leaseSeconds": 1},
        }),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_one_store_are_one_product() {
    let site = Site::new(
        env!("CARGO_BIN_EXE_reef-under-test"),
        &json!({"agents": [{"id": "main", "model": "demo/echo", "workspace": "./main"}], "turns": {"maxWaiting": 1000}}),
    );
    let token = site.token("chat,sessions").await;
    let (one, other) = (serve(&site, &token).await, serve(&site, &token).await);
    let clients = [one.1, other.1];
    let wishes: Vec<Wish> = (0..TURNS).map(Wish::new).collect();

    let began = Instant::now();
    let asked = stream::iter(wishes.iter().enumerate()).map(|(number, wish)| wish.get(number, &clients));
    let mut problems: Vec<String> = asked.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await.concat();
    let took = began.elapsed();

    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for session in 0..SESSIONS {
        let path = format!("/v1/sessions/agent:main:shared-{session}/transcript?limit=500");
        // What one process wrote, the other one knows.
        let pages = future::join(clients[0].get(&path), clients[1].get(&path)).await;
        let (page, same) = (pages.0.expect("an answer"), pages.1.expect("an answer"));
        if page.body != same.body {
            problems.push(format!("transcript {session}: the processes do not agree"));
        }
        let messages = page.json()["data"].as_array().cloned().unwrap_or_default();
        let order = transcript::problems(&messages, "");
        problems.extend(order.into_iter().map(|problem| format!("transcript {session}: {problem}")));
        for message in messages.iter().filter(|message| message["role"] == "user") {
            let text = message["content"][0]["text"].as_str().unwrap_or_default();
            *times.entry(text.lines().next().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    let file = std::fs::read_to_string(site.path("main/lines.txt")).unwrap_or_default();
    for wish in &wishes {
        if times.get(&wish.mark) != Some(&1) {
            problems.push(format!("transcript: {} is there {:?} times", wish.mark, times.get(&wish.mark)));
        }
        if let Some(line) = &wish.line
            && file.matches(line.as_str()).count() != 1
        {
            problems.push(format!(
                "effect: {} was appended {} times",
                wish.mark,
                file.matches(line.as_str()).count()
            ));
        }
    }
    for process in [one.0, other.0] {
        process.signal(Signal::TERM);
        let status = process.exit().await;
        if !status.success() || !process.output().lines().all(|line| line.starts_with("listening on ")) {
            problems.push(format!("stop: {status}: {}", process.output()));
        }
    }
    let audit = site.run(&["audit", "verify", "--json"]).await;
    if !audit.status.success() {
        problems.push(format!("audit: {}", String::from_utf8_lossy(&audit.stdout)));
    }
    let doubled = wishes.iter().filter(|wish| wish.at_both).count();
    println!("{TURNS} turns, {doubled} of them asked for twice, over {SESSIONS} sessions in {took:?}");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_slept_through_its_lease_writes_nothing_more() {
    let vendor = Vendor::start().await;
    let site = site_asking(&vendor);
    let token = site.token("chat,sessions").await;
    let (sleeper, first) = serve(&site, &token).await;
    let (gate, second_gate) = (Gate::new(), Gate::new());
    vendor
        .answer(Stream::text("so far ").then(Step::Hold(gate.clone())).then_text("from the one that slept"));
    vendor
        .answer(Stream::new().then(Step::Hold(second_gate.clone())).then_text("from the one that took over"));
    let wish = Wish::new(1);
    let slept = wish.ask(&first).boxed_local().shared();
    let asleep = async {
        gate.reached().await;
        sleeper.signal(Signal::STOP);
        serve(&site, &token).await
    };
    let future::Either::Right(((other, second), _)) = future::select(slept.clone(), pin!(asleep)).await
    else {
        panic!("it sleeps, and answers");
    };
    let wake_up = async {
        // The other one is at work on the turn now, under a lease of its own.
        second_gate.reached().await;
        gate.open();
        sleeper.signal(Signal::CONT);
        let told = pin!(sleeper.line(|line| line.contains("another process took this turn over")));
        future::select(told, slept.clone()).await;
        second_gate.open();
    };
    let both = future::join(wish.ask(&second), wake_up);
    let (slept, (reply, ())) = future::join(slept.clone(), both).await;
    assert_eq!(reply.json()["choices"][0]["message"]["content"], "from the one that took over");
    // It lost its turn, says so, and gives the stored answer when it is asked again.
    assert_eq!((slept.status.as_u16(), slept.body.as_str()), (200, reply.body.as_str()));
    assert!(slept.is_replayed());

    let page =
        second.get(&format!("/v1/sessions/{}/transcript", wish.session)).await.expect("an answer").json();
    let messages = page["data"].as_array().cloned().unwrap_or_default();
    let said: Vec<_> = messages.iter().map(|message| (&message["role"], &message["content"])).collect();
    let asked = json!([{"type": "text", "text": wish.mark}]);
    assert_eq!(
        said,
        [(&json!("user"), &asked), (&json!("assistant"), &json!("from the one that took over"))]
    );
    for process in [sleeper, other] {
        process.signal(Signal::TERM);
        assert!(process.exit().await.success(), "{}", process.output());
    }
    assert!(site.run(&["audit", "verify"]).await.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_sees_what_the_other_process_wrote() {
    let vendor = Vendor::start().await;
    let site = site_asking(&vendor);
    let token = site.token("chat").await;
    let (one, other) = (serve(&site, &token).await, serve(&site, &token).await);
    // Each process comes back to the session after the other one; the last two turns are neighbours in one process.
    for (number, client) in [&one.1, &other.1, &one.1, &other.1, &other.1, &one.1].into_iter().enumerate() {
        let session = [("x-openclaw-session-key", "agent:main:shared")];
        let body =
            json!({"model": "openclaw", "messages": [{"role": "user", "content": format!("turn {number}")}]});
        let reply = client.post("/v1/chat/completions", &session, &body).await.expect("an answer");
        assert_eq!(reply.json()["choices"][0]["message"]["content"], format!("You said: turn {number}"));
        let before = (0..number).flat_map(|n| [format!("turn {n}"), format!("You said: turn {n}")]);
        let expected: Vec<String> = before.chain([format!("turn {number}")]).collect();
        let request = vendor.requests().pop().expect("a request").body;
        let messages = request["messages"].as_array().into_iter().flatten();
        let shown: Vec<_> = messages.filter(|message| message["role"] != "system").map(content).collect();
        assert_eq!(shown, expected);
    }
}

/// A message's text, in either of OpenAI's forms.
fn content(message: &Value) -> String {
    let text = message["content"].as_str().or_else(|| message["content"][0]["text"].as_str());
    text.unwrap_or_default().to_owned()
}
