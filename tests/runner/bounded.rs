//! What one model, one tool or one listener may take of a process.

use futures::StreamExt;
use harness::lab::Lab;
use harness::vendor::{Gate, Step, Stream};
use serde_json::json;
use shared::agent::runner::{Runner, RunnerParts};
use shared::agent::{AgentInvoker, TurnEvent};
use shared::bounds::{ANSWER_CALLS, ANSWER_LEAST_BYTES, LISTENER_BYTES, TURN_BYTES};
use shared::budget::Budget;
use shared::message::MessageBody;
use shared::model::StopReason;
use shared::session::TurnOutcome;

/// A vendor that has said `bytes` of text and would go on if anybody read it.
fn endless(bytes: usize) -> Stream {
    let piece = "ä".repeat(500);
    let said =
        (0..bytes / piece.len() + 1).fold(Stream::new(), |said, _| said.then(Step::Text(piece.clone())));
    said.then(Step::Hold(Gate::new()))
}

#[tokio::test]
async fn an_answer_longer_than_its_model_may_write_ends_as_length_on_record_and_is_not_asked_for_again() {
    let lab = Lab::new().await;
    lab.vendor.answer(endless(ANSWER_LEAST_BYTES));
    let reply = lab.reply(lab.keyed("k", "go on")).await;
    assert_eq!((reply.stop, reply.text.len()), (StopReason::Length, ANSWER_LEAST_BYTES));
    assert_eq!(lab.transcript().await[1], MessageBody::assistant_text(reply.text.as_str()));
    assert_eq!(lab.reply(lab.keyed("k", "go on")).await, reply, "it is stored");
    assert_eq!(lab.vendor.requests().len(), 1);
}

#[tokio::test]
async fn an_answer_may_be_as_long_as_the_tokens_that_its_request_asks_for() {
    let lab = Lab::new().await;
    let mut request = lab.request("go on");
    request.options.sampling.max_tokens = Some(10_000);
    lab.vendor.answer(endless(200_000));
    let reply = lab.reply(request).await;
    assert_eq!((reply.stop, reply.text.len()), (StopReason::Length, 160_000));
}

#[tokio::test]
async fn a_tool_call_that_is_cut_for_its_length_is_not_run() {
    let lab = Lab::new().await;
    let content = "x".repeat(ANSWER_LEAST_BYTES);
    lab.vendor.answer(Stream::text("I write. ").then_call(
        "c1",
        "write",
        &json!({"path": "a.txt", "content": content}),
    ));
    let reply = lab.reply(lab.request("write much")).await;
    assert_eq!((reply.stop, reply.text.as_str()), (StopReason::Length, "I write. "));
    assert_eq!(lab.transcript().await[1], MessageBody::assistant_text("I write. "));
    assert!(!lab.workspace.path().join("a.txt").exists());
}

#[tokio::test]
async fn a_tool_call_that_the_vendor_cut_at_its_limit_is_not_run() {
    let lab = Lab::new().await;
    let cut = Step::ToolCall {
        id: "c1".into(),
        name: "write".into(),
        arguments: vec!["{\"path\": \"a.txt\", \"content\": \"half".into()],
    };
    lab.vendor.answer(Stream::text("I write. ").then(cut).stopping(StopReason::Length));
    let reply = lab.reply(lab.request("write much")).await;
    assert_eq!((reply.stop, reply.text.as_str()), (StopReason::Length, "I write. "));
    assert_eq!(lab.vendor.requests().len(), 1);
}

#[tokio::test]
async fn an_answer_of_too_many_calls_runs_none_of_them() {
    let lab = Lab::new().await;
    let calls = (0..=ANSWER_CALLS).fold(Stream::new(), |answer, number| {
        answer.then_call(&format!("c{number}"), "write", &json!({"path": "a.txt", "content": "x"}))
    });
    lab.vendor.answer(calls);
    let reply = lab.reply(lab.request("write often")).await;
    assert_eq!((reply.stop, reply.tool_calls.len()), (StopReason::Length, 0));
    assert!(!lab.workspace.path().join("a.txt").exists());
}

#[tokio::test]
async fn a_turn_whose_tools_answer_more_than_may_be_stops_there() {
    let lab = Lab::new().await;
    std::fs::write(lab.workspace.path().join("large.txt"), "x".repeat(256 * 1024)).unwrap();
    let most = TURN_BYTES / (256 * 1024);
    let calls = (0..most + 5).fold(Stream::new(), |answer, number| {
        answer.then_call(&format!("c{number}"), "read", &json!({"path": "large.txt"}))
    });
    lab.vendor.answer(calls);
    let reply = lab.reply(lab.request("read it often")).await;
    assert_eq!(reply.stop, StopReason::Length);
    assert!(reply.text.starts_with("[Stopped: the limit of 16777216 bytes"), "{}", reply.text);
    let transcript = lab.transcript().await;
    let run = |body: &&MessageBody| matches!(body, MessageBody::ToolResult { is_error: false, .. });
    assert!((most..=most + 1).contains(&transcript.iter().filter(run).count()));
    assert_eq!(lab.vendor.requests().len(), 1);
}

#[tokio::test]
async fn a_listener_that_never_reads_holds_little_and_hears_all_when_it_does() {
    let lab = Lab::with(|config| {
        let provider = config.providers.get_mut("vendor").unwrap();
        provider.models.get_mut("small").unwrap().max_tokens = 100_000;
    })
    .await;
    let budget = Budget::of(1 << 30);
    let runner = Runner::new(RunnerParts { budget: budget.clone(), ..lab.parts() });
    let piece = "word ".repeat(200);
    let pieces = 4 * LISTENER_BYTES / piece.len();
    let said = (0..pieces).fold(Stream::new(), |said, _| said.then(Step::Text(piece.clone())));
    lab.vendor.answer(said);
    let events = runner.invoke(lab.request("go on")).await.unwrap();
    lab.turns.close();
    lab.turns.wait().await;
    let whole = piece.repeat(pieces);
    assert!(budget.drawn() <= LISTENER_BYTES + whole.len(), "{}", budget.drawn());
    let events: Vec<_> = events.map(Result::unwrap).collect().await;
    let texts = events.iter().filter_map(|event| match event {
        TurnEvent::Text { delta } => Some(delta.as_str()),
        _ => None,
    });
    assert!(texts.collect::<String>() == whole);
    let Some(TurnEvent::Ended { outcome: TurnOutcome::Done(reply) }) = events.last() else { panic!() };
    assert!(reply.text == whole);
    assert_eq!(budget.drawn(), 0);
}
