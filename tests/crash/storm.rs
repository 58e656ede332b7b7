//! Kills from outside while many turns are at work: what no labelled point can show, a process that dies in the midst
//! of a transaction that several turns share.

use harness::client::Client;
use harness::process::{Process, Signal, Site};
use harness::transcript;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};

/// Sessions, each with two clients that ask at the same time.
const SESSIONS: usize = 12;
/// Turns that one client asks for, one after the other.
const TURNS: usize = 16;
/// Answers between two kills.
const BETWEEN: u32 = 24;

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Storm {
    pub(crate) turns: usize,
    pub(crate) kills: usize,
    pub(crate) parked: usize,
    pub(crate) problems: Vec<String>,
}

/// What one client asks for: its text, and the line that it has appended to a file, if it has.
struct Wish {
    session: String,
    mark: String,
    append: Option<String>,
}

impl Wish {
    fn new(session: usize, client: usize, turn: usize) -> Self {
        let mark = format!("mark-{session}-{client}-{turn}-");
        let append = turn.is_multiple_of(4).then(|| format!("{mark}\n"));
        Self { session: format!("agent:main:storm-{session}"), mark, append }
    }

    fn text(&self, turn: usize) -> String {
        let call = match (&self.append, turn % 4) {
            (Some(line), _) => format!("\n/tool append {}", json!({"path": "lines.txt", "content": line})),
            (None, 1) => format!(
                "\n/tool write {}",
                json!({"path": format!("{}.txt", self.mark), "content": self.mark})
            ),
            (None, _) => String::new(),
        };
        format!("{}{call}", self.mark)
    }
}

/// How a wish ended.
enum Ended {
    Done,
    Parked,
    Wrong(String),
}

/// Asks until there is an answer, of whichever process serves by then.
async fn ask(
    http: &reqwest::Client,
    token: &str,
    mut url: watch::Receiver<String>,
    wish: &Wish,
    turn: usize,
) -> Ended {
    let body = json!({"model": "openclaw", "messages": [{"role": "user", "content": wish.text(turn)}]});
    let headers =
        [("idempotency-key", wish.mark.as_str()), ("x-openclaw-session-key", wish.session.as_str())];
    loop {
        let asked = url.borrow_and_update().clone();
        let client = Client::over(http.clone(), &asked, token);
        let Ok(reply) = client.post("/v1/chat/completions", &headers, &body).await else {
            if url.changed().await.is_err() {
                return Ended::Wrong("the last server was lost".to_owned());
            }
            continue;
        };
        return match (reply.status.as_u16(), reply.code().as_str()) {
            (200, _) => Ended::Done,
            (409, "parked") if wish.append.is_some() => Ended::Parked,
            _ => Ended::Wrong(format!("answer: {}: {} {}", wish.mark, reply.status, reply.body)),
        };
    }
}

async fn serve(site: &Site) -> (Process, String) {
    let process = site.serve(&[("REEF_LOG", "error")]);
    let url = process.url().await.expect("a server");
    (process, url)
}

/// Lets it blow.
pub(crate) async fn run(program: &str) -> Storm {
    let site = Site::new(
        program,
        &json!({
            "agents": [{"id": "main", "model": "demo/echo", "workspace": "./main"}],
            "turns": {"leaseSeconds": 1},
        }),
    );
    let token = site.token("chat,sessions").await;
    let http = reqwest::Client::builder().pool_max_idle_per_host(0).no_proxy().build().expect("a client");
    let (mut process, first) = serve(&site).await;
    let (next, url) = watch::channel(first);
    let answers = Arc::new(Semaphore::new(0));
    let client = |at: usize| {
        let (session, client) = (at / 2, at % 2);
        let (http, token, url, answers) = (&http, &token, url.clone(), Arc::clone(&answers));
        async move {
            let mut ended = Vec::new();
            for turn in 0..TURNS {
                let wish = Wish::new(session, client, turn);
                let end = ask(http, token, url.clone(), &wish, turn).await;
                answers.add_permits(1);
                ended.push((wish, end));
            }
            ended
        }
    };
    let mut kills = 0;
    let killing = async {
        loop {
            answers.acquire_many(BETWEEN).await.expect("never closed").forget();
            process.signal(Signal::KILL);
            process.exit().await;
            kills += 1;
            let (started, at) = serve(&site).await;
            process = started;
            next.send_replace(at);
        }
    };
    let asking = futures::future::join_all((0..2 * SESSIONS).map(client));
    let ended = tokio::select! {
        ended = asking => ended,
        () = killing => unreachable!("it goes on for ever"),
    };
    // The last kill may have been under way.
    process.signal(Signal::KILL);
    process.exit().await;
    let mut storm = Storm { kills, ..Storm::default() };
    storm.judge(&site, &token, ended.into_iter().flatten().collect()).await;
    storm
}

impl Storm {
    async fn judge(&mut self, site: &Site, token: &str, ended: Vec<(Wish, Ended)>) {
        let (process, url) = serve(site).await;
        let client = Client::new(&url, token);
        let mut transcripts = Vec::new();
        for session in 0..SESSIONS {
            let path = format!("/v1/sessions/agent:main:storm-{session}/transcript?limit=500");
            let page = client.get(&path).await.expect("an answer").json();
            let messages: Vec<Value> = page["data"].as_array().cloned().unwrap_or_default();
            let order = transcript::problems(&messages, "");
            self.problems.extend(order.into_iter().map(|problem| format!("transcript {session}: {problem}")));
            transcripts.push((format!("agent:main:storm-{session}"), messages));
        }
        let file = std::fs::read_to_string(site.path("main/lines.txt")).unwrap_or_default();
        self.turns = ended.len();
        for (wish, end) in ended {
            let messages = transcripts.iter().find(|(session, _)| *session == wish.session);
            let times = messages.map_or(0, |(_, messages)| said(messages, &wish.mark));
            if times != 1 {
                self.problems.push(format!("transcript: {} is there {times} times", wish.mark));
            }
            let appended = wish.append.as_ref().map(|line| file.matches(line.as_str()).count());
            let is_parked = matches!(end, Ended::Parked);
            match (end, appended) {
                (Ended::Wrong(what), _) => self.problems.push(what),
                (Ended::Done, None | Some(1)) | (Ended::Parked, Some(0 | 1)) => {}
                (_, times) => {
                    self.problems.push(format!("effect: {} was appended {times:?} times", wish.mark));
                }
            }
            self.parked += usize::from(is_parked);
        }
        process.signal(Signal::TERM);
        let status = process.exit().await;
        let listed = site.json(&["jobs", "list", "--limit", "1000", "--json"]).await["parked"]
            .as_array()
            .map(Vec::len);
        if listed != Some(self.parked) {
            self.problems.push(format!("parked: {} are, {listed:?} are listed", self.parked));
        }
        let audit = site.run(&["audit", "verify", "--json"]).await;
        if !status.success() || !audit.status.success() {
            self.problems.push(format!("stop: {status}; audit: {}", String::from_utf8_lossy(&audit.stdout)));
        }
    }
}

/// How many user's messages begin with this.
fn said(messages: &[Value], mark: &str) -> usize {
    let begins = |message: &&Value| {
        message["role"] == "user"
            && message["content"][0]["text"].as_str().is_some_and(|text| text.starts_with(mark))
    };
    messages.iter().filter(begins).count()
}
