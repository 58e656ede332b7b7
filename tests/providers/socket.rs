//! Whole calls over a loopback socket: both protocols, failures, limits of time, and what must never leak.

use super::{config, events, request};
use futures::StreamExt;
use harness::vendor::{Answer, Gate, Recorded, Step, Stream, Vendor, Wire};
use serde_json::json;
use shared::adapters::models::{self, Providers, anthropic, openai};
use shared::config::{ModelInfo, ProviderApi, ProviderConfig};
use shared::model::{
    ModelError, ModelEvent, ModelFailure, ModelProvider, ModelRequest, StopReason, ToolChoice, Usage,
};
use shared::secret::Secret;
use shared::tool::{Effect, ToolSpec};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const BOTH: [(ProviderApi, Wire); 2] =
    [(ProviderApi::AnthropicMessages, Wire::Anthropic), (ProviderApi::OpenAiCompletions, Wire::OpenAi)];

const KEY: &str = "sk-very-secret-key";

fn build(config: ProviderConfig) -> Arc<dyn ModelProvider> {
    models::build(&BTreeMap::from([("vendor".to_owned(), config)])).unwrap().remove("vendor").unwrap()
}

fn text(text: &str) -> ModelEvent {
    ModelEvent::Text(text.to_owned())
}

/// The events but for the counts of tokens.
fn without_usage(events: Vec<ModelEvent>) -> Vec<ModelEvent> {
    events.into_iter().filter(|event| !matches!(event, ModelEvent::Usage(_))).collect()
}

fn hello() -> ModelRequest {
    request("vendor/model-1", "hello")
}

/// Everything that an error shows to anybody.
fn told(error: &ModelError) -> String {
    let mut all = format!("{error} | {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        all.push_str(&format!(" | {error} | {error:?}"));
        source = error.source();
    }
    all
}

#[tokio::test]
async fn a_call_carries_the_protocols_headers_and_body_and_gives_its_events() {
    for (api, wire) in BOTH {
        let vendor = Vendor::start().await;
        let usage = Usage { input_tokens: 12, cached_tokens: 4, output_tokens: 3, ..Usage::default() };
        vendor.answer(
            Stream::text("Hello there.")
                .then_call("call_1", "clock", &json!({"zone": "Zürich"}))
                .using(usage),
        );
        let mut request = hello();
        request.tools.push(ToolSpec {
            name: "clock".to_owned(),
            description: String::new(),
            parameters: json!({"type": "object"}),
            strict: None,
            effect: Effect::None,
        });
        request.tool_choice = ToolChoice::Required;
        let mut config = config(api, vendor.url());
        config.headers.insert("X-Team".to_owned(), Secret::new("blue"));
        let info = ModelInfo { context_window: 1_000, max_tokens: 77 };
        config.models.insert("model-1".to_owned(), info);

        let answer = events(&*build(config), &request).await.unwrap();

        let arguments: String = answer
            .iter()
            .filter_map(|event| match event {
                ModelEvent::ToolCallArguments { index: 0, delta } => Some(delta.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(arguments, r#"{"zone":"Zürich"}"#, "{wire:?}");
        let rest: Vec<_> = without_usage(answer.clone())
            .into_iter()
            .filter(|event| !matches!(event, ModelEvent::ToolCallArguments { .. }))
            .collect();
        let start = ModelEvent::ToolCallStart { index: 0, id: "call_1".to_owned(), name: "clock".to_owned() };
        let expected = [text("Hello "), text("there."), start, ModelEvent::Stop(StopReason::ToolCalls)];
        assert_eq!(rest, expected, "{wire:?}");
        let last_usage = answer.iter().rev().find(|event| matches!(event, ModelEvent::Usage(_)));
        assert_eq!(last_usage, Some(&ModelEvent::Usage(usage)), "{wire:?}");

        let [Recorded { wire: spoken, headers, body }] = &vendor.requests()[..] else {
            panic!("one request")
        };
        assert_eq!(*spoken, wire);
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("x-team"), Some("blue"));
        assert_eq!(header("content-type"), Some("application/json"));
        assert_eq!(header("accept"), Some("text/event-stream"));
        let (key, version, expected) = match wire {
            Wire::Anthropic => (
                header("x-api-key").map(str::to_owned),
                Some("2023-06-01"),
                serde_json::to_value(anthropic::request::body(&request, info)).unwrap(),
            ),
            Wire::OpenAi => (
                header("authorization").and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned),
                None,
                serde_json::to_value(openai::request::body(
                    &request,
                    Some(info),
                    openai::request::Dialect::Compatible,
                ))
                .unwrap(),
            ),
        };
        assert_eq!(key.as_deref(), Some(KEY));
        assert_eq!(header("anthropic-version"), version);
        assert_eq!(*body, expected);
    }
}

#[tokio::test]
async fn a_base_url_may_end_with_a_slash_or_the_version() {
    for (api, _) in BOTH {
        let vendor = Vendor::start().await;
        for end in ["", "/", "/v1", "/v1/"] {
            let mut config = config(api, format!("{}{end}", vendor.url()));
            config.api_key = None;
            let answer = without_usage(events(&*build(config), &hello()).await.unwrap());
            let expected = [text("You "), text("said: "), text("hello"), ModelEvent::Stop(StopReason::End)];
            assert_eq!(answer, expected, "{end:?}");
        }
        assert!(vendor.requests().iter().all(|request| !request.headers.contains_key("authorization")));
        assert!(vendor.requests().iter().all(|request| !request.headers.contains_key("x-api-key")));
    }
}

#[tokio::test]
async fn a_connection_is_used_again_by_the_next_call() {
    for (api, wire) in BOTH {
        let vendor = Vendor::start().await;
        let provider = build(config(api, vendor.url()));
        for _ in 0..3 {
            events(&*provider, &hello()).await.unwrap();
        }
        assert_eq!(vendor.connections(), 1, "{wire:?}");
    }
}

#[tokio::test]
async fn a_refusal_says_what_it_means_and_when_to_come_back() {
    let cases = [
        (Answer::error(401, "authentication_error", "invalid x-api-key"), ModelFailure::Credential, None),
        (Answer::error(404, "model_not_found", "no such model"), ModelFailure::UnknownModel, None),
        (Answer::error(400, "invalid_request_error", "temperature: too high"), ModelFailure::Refused, None),
        (
            Answer::error(429, "rate_limit_error", "slow down").with_header("retry-after", "30"),
            ModelFailure::RateLimited,
            Some(Duration::from_secs(30)),
        ),
        (
            Answer::error(529, "overloaded_error", "Overloaded")
                .with_header("date", "Fri, 20 Nov 2026 10:00:00 GMT")
                .with_header("retry-after", "Fri, 20 Nov 2026 10:02:00 GMT"),
            ModelFailure::Overloaded,
            Some(Duration::from_secs(120)),
        ),
        (Answer::error(302, "", "").with_header("location", "/v1/elsewhere"), ModelFailure::Protocol, None),
        (Answer::error(200, "", "a body that is no stream"), ModelFailure::Protocol, None),
    ];
    for (api, _) in BOTH {
        for (answer, failure, retry_after) in &cases {
            let vendor = Vendor::start().await;
            vendor.answer(answer.clone());
            let error = events(&*build(config(api, vendor.url())), &hello()).await.unwrap_err();
            assert_eq!((error.failure, error.retry_after), (*failure, *retry_after), "{api:?} {answer:?}");
            assert!(error.message.starts_with("vendor/model-1: "), "{}", error.message);
            assert_eq!(vendor.requests().len(), 1);
        }
    }
}

#[tokio::test]
async fn an_error_within_a_stream_and_a_cut_come_after_the_words_before_them() {
    for (api, wire) in BOTH {
        let vendor = Vendor::start().await;
        let provider = build(config(api, vendor.url()));
        let overloaded = match wire {
            Wire::Anthropic => {
                "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n"
            }
            Wire::OpenAi => "data: {\"error\":{\"type\":\"server_error\",\"message\":\"oops\"}}\n\n",
        };
        let cases = [
            (Step::Raw(overloaded.into()), ModelFailure::Overloaded),
            (Step::Raw("data: {\n\n".into()), ModelFailure::Protocol),
            (Step::Cut, ModelFailure::Network),
        ];
        for (step, failure) in cases {
            vendor.answer(Stream::text("so far").then(step));
            let mut stream = provider.stream(&hello()).await.unwrap();
            let mut words = Vec::new();
            let error = loop {
                match stream.next().await.expect("a failure at the end") {
                    Ok(ModelEvent::Usage(_)) => {}
                    Ok(event) => words.push(event),
                    Err(error) => break error,
                }
            };
            assert_eq!((words, error.failure), (vec![text("so "), text("far")], failure), "{wire:?}");
            assert!(stream.next().await.is_none(), "nothing comes after a failure");
        }
    }
}

/// What must end within a minute of the paused clock.
async fn in_time<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), call).await.expect("an end within a minute")
}

#[tokio::test(start_paused = true)]
async fn silence_before_and_within_an_answer_ends_at_the_limit() {
    for (api, wire) in BOTH {
        let vendor = Vendor::start().await;
        let provider = build(config(api, vendor.url()));
        let begun = Instant::now();

        vendor.answer(Answer::Silence(Gate::new()));
        let error = in_time(events(&*provider, &hello())).await.unwrap_err();
        assert_eq!((error.failure, begun.elapsed().as_secs()), (ModelFailure::Timeout, 10), "{wire:?}");

        // Silence is what counts, not the whole time.
        let pause = Step::Pause(Duration::from_secs(9));
        let slow = Stream::text("one").then(pause.clone()).then_text("two").then(pause).then_text("three");
        vendor.answer(slow.then(Step::Hold(Gate::new())).then_text("never"));
        let begun = Instant::now();
        let mut stream = provider.stream(&hello()).await.unwrap();
        let mut words = Vec::new();
        let error = loop {
            match in_time(stream.next()).await.unwrap() {
                Ok(ModelEvent::Text(word)) => words.push(word),
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(
            (words.concat().as_str(), error.failure),
            ("onetwothree", ModelFailure::Timeout),
            "{wire:?}"
        );
        assert_eq!(begun.elapsed().as_secs(), 28, "{wire:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_take_the_connection_is_given_up_at_the_limit() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    // Room for hardly anybody, and nobody is let in.
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let mut connect = Box::pin(tokio::net::TcpStream::connect(address));
        let _ = futures::poll!(&mut connect);
        waiting.push(connect);
    }
    let begun = Instant::now();
    let provider = build(config(ProviderApi::OpenAiCompletions, format!("http://{address}")));
    let error = events(&*provider, &hello()).await.unwrap_err();
    assert_eq!((error.failure, begun.elapsed().as_secs()), (ModelFailure::Timeout, 5));
}

#[tokio::test]
async fn a_closed_port_is_a_failure_of_the_network() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let provider = build(config(ProviderApi::AnthropicMessages, format!("http://{address}")));
    let error = events(&*provider, &hello()).await.unwrap_err();
    assert_eq!(error.failure, ModelFailure::Network);
    assert!(!told(&error).contains(KEY), "{}", told(&error));
}

#[tokio::test(start_paused = true)]
async fn a_busy_vendor_is_asked_again_when_it_said() {
    for (api, wire) in BOTH {
        let vendor = Vendor::start().await;
        vendor.answer(Answer::error(429, "rate_limit_error", "slow down").with_header("retry-after", "7"));
        vendor.answer(Stream::new().then(Step::Cut));
        let mut config = config(api, vendor.url());
        config.max_attempts = 3;
        let begun = Instant::now();
        let answer = events(&*build(config), &hello()).await.unwrap();
        assert_eq!(without_usage(answer).last(), Some(&ModelEvent::Stop(StopReason::End)), "{wire:?}");
        // 7 s as asked for, 1 s of our own after the second failure.
        assert_eq!((begun.elapsed().as_secs(), vendor.requests().len()), (8, 3), "{wire:?}");
    }
}

#[tokio::test]
async fn no_secret_is_in_any_error_or_debug_output() {
    for (api, wire) in BOTH {
        for status in [400, 401, 429, 500] {
            let vendor = Vendor::start().await;
            vendor.answer(Answer::error(
                status,
                "invalid_request_error",
                &format!("{KEY} and header-secret!"),
            ));
            let mut config = config(api, vendor.url());
            config.headers.insert("X-Extra".to_owned(), Secret::new("header-secret"));
            let error = events(&*build(config), &hello()).await.unwrap_err();
            for secret in [KEY, "header-secret"] {
                assert!(!told(&error).contains(secret), "{wire:?} {status}: {}", told(&error));
            }
        }
        let vendor = Vendor::start().await;
        let error =
            format!("data: {{\"type\":\"error\",\"error\":{{\"message\":\"{KEY}\",\"code\":400}}}}\n\n");
        vendor.answer(Stream::text("x").then(Step::Raw(error.into())));
        let error = events(&*build(config(api, vendor.url())), &hello()).await.unwrap_err();
        assert_eq!(error.failure, ModelFailure::Refused);
        assert!(!told(&error).contains(KEY), "{wire:?}: {}", told(&error));
    }
    let mut clients = models::wire::Clients::default();
    let config = config(ProviderApi::AnthropicMessages, "http://127.0.0.1:1".to_owned());
    let provider = anthropic::AnthropicMessages::new(&mut clients, &config).unwrap();
    assert!(
        !format!("{provider:?} {clients:?} {config:?}").contains("sk-very"),
        "{provider:?} {clients:?} {config:?}"
    );
}

fn error_of(config: ProviderConfig) -> String {
    let built = models::build(&BTreeMap::from([("mine".to_owned(), config)]));
    built.map(|providers: Providers| providers.len()).unwrap_err().to_string()
}

#[test]
fn a_setting_that_cannot_work_is_named_at_the_start_without_its_value() {
    let good = || config(ProviderApi::OpenAiCompletions, "http://127.0.0.1:1/v1".to_owned());
    let mut bad_key = good();
    bad_key.api_key = Some(Secret::new("a\nb"));
    assert_eq!(
        error_of(bad_key),
        "models.providers.mine.apiKey: holds a character that an HTTP header cannot carry"
    );
    let mut bad_header = good();
    bad_header.headers.insert("X Y".to_owned(), Secret::new("v"));
    assert_eq!(
        error_of(bad_header),
        "models.providers.mine.headers: `X Y` is not an HTTP header, or its value is not"
    );
    let expected =
        "models.providers.mine.baseUrl: holds a user or password; put it into `apiKey` or `headers`";
    assert_eq!(error_of(config(ProviderApi::AnthropicMessages, format!("http://user:{KEY}@host"))), expected);
    for url in ["", "api.openai.com/v1", "ftp://host/v1", "http://"] {
        let expected = "models.providers.mine.baseUrl: not an http or https address";
        assert_eq!(error_of(config(ProviderApi::AnthropicMessages, url.to_owned())), expected, "{url:?}");
    }
}

#[tokio::test]
async fn the_demo_provider_needs_nothing() {
    let provider = build(config(ProviderApi::Demo, String::new()));
    let answer = events(&*provider, &request("demo/echo", "hello")).await.unwrap();
    let expected = [text("You "), text("said: "), text("hello"), ModelEvent::Stop(StopReason::End)];
    assert_eq!(without_usage(answer), expected);
}
