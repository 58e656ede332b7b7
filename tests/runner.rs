//! The turn's contract: accepted once, journaled, answered once, whatever happens on the way.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "runner/bounded.rs"]
mod bounded;
#[path = "runner/unfinished.rs"]
mod unfinished;

use futures::StreamExt;
use harness::lab::{Lab, ended};
use harness::vendor::{Answer, Gate, Step, Stream};
use serde_json::{Value, json};
use shared::agent::{AgentInvoker, RunOptions, RunRequest, TurnEvent};
use shared::audit::{AuditFilter, AuditLog};
use shared::clock::Clock;
use shared::error::ErrorKind;
use shared::id::{PrincipalId, SessionId, SessionKey, TenantId, TurnId};
use shared::message::{MessageBody, ToolCall};
use shared::model::{StopReason, ToolChoice};
use shared::session::{Begun, Lease, NewTurn, SessionIndex, SessionStore, Step as Journal, TurnOutcome};
use shared::tool::{Effect, ToolSpec};
use std::time::Duration;

fn call(id: &str, name: &str, arguments: &Value) -> ToolCall {
    ToolCall { id: id.into(), name: name.into(), arguments: arguments.to_string() }
}

fn calling(calls: Vec<ToolCall>) -> MessageBody {
    MessageBody::Assistant { text: String::new(), tool_calls: calls }
}

fn result(id: &str, name: &str, content: &str) -> MessageBody {
    MessageBody::ToolResult {
        call_id: id.into(),
        name: name.into(),
        content: content.into(),
        is_error: false,
    }
}

fn client_tool(name: &str) -> ToolSpec {
    ToolSpec {
        name: name.into(),
        description: String::new(),
        parameters: json!({"type": "object"}),
        strict: None,
        effect: Effect::Once,
    }
}

async fn actions(lab: &Lab) -> Vec<String> {
    let filter = AuditFilter { limit: 1_000, ..AuditFilter::default() };
    let rows = AuditLog::list(&lab.memory, &TenantId::single(), &filter).await.unwrap();
    rows.into_iter().rev().map(|row| row.entry.action).collect()
}

/// What a process that died had stored: the input, and then these steps.
async fn interrupted(lab: &Lab, text: &str, steps: Vec<MessageBody>) -> (TurnId, Lease) {
    let request = lab.request(text);
    let new = NewTurn {
        turn: request.turn.clone(),
        tenant: request.tenant.clone(),
        session: request.session.clone(),
        new_session_id: SessionId::new("s-of-the-dead"),
        agent: request.agent.clone(),
        principal: request.principal.clone(),
        user: None,
        channel: "webchat".into(),
        idempotency: None,
        input: request.input.clone(),
        options: serde_json::to_value(&request.options).unwrap(),
        audit: shared::audit::NewAudit {
            id: "audit-of-the-dead".into(),
            at: lab.clock.now(),
            principal: PrincipalId::new("p"),
            action: "turn.accepted".into(),
            detail: json!({}),
        },
    };
    let (now, until) = (lab.clock.now(), lab.clock.now() + Duration::from_secs(90));
    let Begun::Started(mut lease) = lab.memory.begin(&new, now, until).await.unwrap() else { panic!() };
    for step in steps {
        let step = Journal { messages: vec![step], audit: Vec::new() };
        lease = lab.memory.append(&lease, &step, now, until).await.unwrap();
    }
    (request.turn, lease)
}

#[tokio::test]
async fn a_plain_turn_is_an_input_and_a_reply() {
    let lab = Lab::new().await;
    lab.vendor.answer(Stream::text("Good morning."));
    let reply = lab.reply(lab.request("Hello")).await;
    assert_eq!(
        (reply.text.as_str(), reply.stop, reply.model.as_str()),
        ("Good morning.", StopReason::End, "vendor/small")
    );
    assert_eq!((reply.usage.input_tokens, reply.usage.output_tokens), (10, 5));
    let expected = [MessageBody::user_text("Hello"), MessageBody::assistant_text("Good morning.")];
    assert_eq!(lab.transcript().await, expected);
    assert_eq!(actions(&lab).await, ["turn.accepted", "turn.committed"]);
}

#[tokio::test]
async fn events_come_in_order_and_the_text_of_two_steps_is_parted_as_it_is_stored() {
    let lab = Lab::new().await;
    lab.vendor.answer(Stream::text("One").then_call("c1", "ls", &json!({})));
    lab.vendor.answer(Stream::text("Two"));
    let events: Vec<_> =
        lab.runner.invoke(lab.request("go")).await.unwrap().map(Result::unwrap).collect().await;
    let mut text = String::new();
    let mut words = Vec::new();
    for event in &events {
        match event {
            TurnEvent::Accepted { replayed: false, .. } => words.push("accepted"),
            TurnEvent::Text { delta } => text.push_str(delta),
            TurnEvent::ToolStarted { .. } => words.push("started"),
            TurnEvent::ToolFinished { is_error: false, .. } => words.push("finished"),
            TurnEvent::Ended { outcome: TurnOutcome::Done(reply) } => {
                assert_eq!(reply.text, text);
                words.push("ended");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(words, ["accepted", "started", "finished", "ended"]);
    assert_eq!(text, "One\n\nTwo");
}

#[tokio::test]
async fn a_tool_is_run_and_its_result_is_the_next_prompts_last_message() {
    let lab = Lab::new().await;
    let write = json!({"path": "note.txt", "content": "milk"});
    lab.vendor.answer(Stream::new().then_call("c1", "write", &write));
    lab.vendor.answer(Stream::text("Noted."));
    lab.reply(lab.request("note milk")).await;
    assert_eq!(std::fs::read_to_string(lab.workspace.path().join("note.txt")).unwrap(), "milk");
    let transcript = lab.transcript().await;
    assert_eq!(transcript.len(), 4);
    assert_eq!(transcript[1], calling(vec![call("c1", "write", &write)]));
    assert_eq!(lab.prompt(1).last().unwrap()["tool_call_id"], "c1");
    assert_eq!(actions(&lab).await, ["turn.accepted", "tool.called", "turn.committed"]);
}

#[tokio::test]
async fn a_tool_that_is_not_offered_is_refused_to_the_model_not_to_the_client() {
    let lab = Lab::with(|config| config.agents[0].tools = vec!["ls".into()]).await;
    lab.vendor.answer(Stream::new().then_call("c1", "write", &json!({"path": "x", "content": "y"})));
    lab.vendor.answer(Stream::text("I cannot write."));
    assert_eq!(lab.reply(lab.request("write")).await.text, "I cannot write.");
    assert_eq!(lab.prompt(1).last().unwrap()["content"], "Error: Tool not available: write");
    assert!(!lab.workspace.path().join("x").exists());
}

#[tokio::test]
async fn a_clients_tool_ends_the_turn_and_its_result_starts_the_next() {
    let lab = Lab::new().await;
    let options = RunOptions { client_tools: vec![client_tool("weather")], ..RunOptions::default() };
    lab.vendor.answer(Stream::new().then_call("w1", "weather", &json!({"city": "Kyoto"})));
    let reply = lab.reply(RunRequest { options: options.clone(), ..lab.request("Kyoto?") }).await;
    assert_eq!(reply.tool_calls, [call("w1", "weather", &json!({"city": "Kyoto"}))]);
    assert_eq!(reply.stop, StopReason::ToolCalls);
    lab.vendor.answer(Stream::text("Sunny."));
    let input = vec![result("w1", "weather", "sun")];
    assert_eq!(lab.reply(RunRequest { options, input, ..lab.request("") }).await.text, "Sunny.");
    let roles: Vec<_> = lab.prompt(1).iter().map(|message| message["role"].clone()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool"]);
}

#[tokio::test]
async fn own_calls_beside_a_clients_are_run_before_the_client_is_asked() {
    let lab = Lab::new().await;
    let options = RunOptions { client_tools: vec![client_tool("weather")], ..RunOptions::default() };
    let both = Stream::new().then_call("c1", "ls", &json!({})).then_call("w1", "weather", &json!({}));
    lab.vendor.answer(both);
    let reply = lab.reply(RunRequest { options, ..lab.request("go") }).await;
    assert_eq!(reply.tool_calls, [call("w1", "weather", &json!({}))]);
    let transcript = lab.transcript().await;
    assert!(matches!(&transcript[2], MessageBody::ToolResult { call_id, .. } if call_id == "c1"));
    assert_eq!(transcript.len(), 3);
}

#[tokio::test]
async fn a_forced_tool_is_forced_once() {
    let lab = Lab::new().await;
    lab.vendor.answer(Stream::new().then_call("c1", "ls", &json!({})));
    lab.vendor.answer(Stream::text("Empty."));
    let options = RunOptions { tool_choice: ToolChoice::Required, ..RunOptions::default() };
    assert_eq!(lab.reply(RunRequest { options, ..lab.request("look") }).await.text, "Empty.");
    let choices: Vec<_> =
        lab.vendor.requests().iter().map(|request| request.body["tool_choice"].clone()).collect();
    assert_eq!(choices[0], "required");
    assert_ne!(choices[1], "required");
}

#[tokio::test]
async fn the_same_key_gets_the_same_answer_and_asks_the_model_once() {
    let lab = Lab::new().await;
    lab.vendor.answer(Stream::text("Once."));
    let first = lab.reply(lab.keyed("k", "Hello")).await;
    let again = lab.reply(lab.keyed("k", "Hello")).await;
    assert_eq!(first, again);
    assert_eq!(lab.vendor.requests().len(), 1);
    assert_eq!(lab.transcript().await.len(), 2);
}

#[tokio::test]
async fn the_same_key_with_another_request_is_a_mismatch() {
    let lab = Lab::new().await;
    lab.vendor.answer(Stream::text("Once."));
    lab.reply(lab.keyed("k", "Hello")).await;
    let refused = lab.outcome(lab.keyed("k", "Goodbye")).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Mismatch);
}

#[tokio::test]
async fn a_failure_that_can_pass_may_be_tried_again_under_its_key_and_one_that_cannot_is_kept() {
    let lab = Lab::new().await;
    lab.vendor.answer(Answer::error(529, "overloaded_error", "busy"));
    let TurnOutcome::Failed(failure) = lab.outcome(lab.keyed("k", "Hello")).await.unwrap() else { panic!() };
    assert_eq!(failure.kind, ErrorKind::Upstream);
    lab.vendor.answer(Stream::text("Now."));
    assert_eq!(lab.reply(lab.keyed("k", "Hello")).await.text, "Now.");
    lab.vendor.answer(Answer::error(400, "invalid_request_error", "no"));
    let TurnOutcome::Failed(kept) = lab.outcome(lab.keyed("k2", "Bad")).await.unwrap() else { panic!() };
    assert_eq!(kept.kind, ErrorKind::Invalid);
    assert_eq!(lab.outcome(lab.keyed("k2", "Bad")).await.unwrap(), TurnOutcome::Failed(kept));
    assert_eq!(lab.vendor.requests().len(), 3);
}

#[tokio::test]
async fn a_turn_whose_client_left_is_finished_and_can_be_fetched() {
    let lab = Lab::new().await;
    let gate = Gate::new();
    lab.vendor.answer(Stream::text("Slow ").then(Step::Hold(gate.clone())).then_text("answer."));
    let request = lab.request("Hello");
    let stream = lab.runner.invoke(request.clone()).await.unwrap();
    gate.reached().await;
    drop(stream);
    gate.open();
    lab.turns.close();
    lab.turns.wait().await;
    let turn = lab.memory.turn(&request.tenant, &request.turn).await.unwrap().unwrap();
    let Some(TurnOutcome::Done(reply)) = turn.outcome else { panic!("{turn:?}") };
    assert_eq!(reply.text, "Slow answer.");
}

#[tokio::test]
async fn requests_for_a_busy_session_wait_in_order_and_one_too_many_is_refused() {
    let lab = Lab::with(|config| config.turns.max_waiting = 1).await;
    let gate = Gate::new();
    lab.vendor.answer(Stream::new().then(Step::Hold(gate.clone())).then_text("first"));
    lab.vendor.answer(Stream::text("second"));
    let first = lab.runner.invoke(lab.request("1")).await.unwrap();
    gate.reached().await;
    let mut second = Box::pin(lab.outcome(lab.request("2")));
    assert!(futures::future::poll_immediate(&mut second).await.is_none());
    let refused = lab.outcome(lab.request("3")).await.unwrap_err();
    assert_eq!((refused.kind, refused.retry_after.is_some()), (ErrorKind::Conflict, true));
    gate.open();
    let TurnOutcome::Done(reply) = second.await.unwrap() else { panic!() };
    assert_eq!(reply.text, "second");
    drop(first);
    let texts: Vec<_> = lab.transcript().await.iter().map(MessageBody::text).collect();
    assert_eq!(texts, ["1", "first", "2", "second"]);
}

#[tokio::test]
async fn an_interrupted_turn_goes_on_behind_its_recorded_steps() {
    let lab = Lab::new().await;
    let steps = vec![
        calling(vec![call("c1", "write", &json!({"path": "a", "content": "1"}))]),
        result("c1", "write", "Wrote 1 byte."),
    ];
    let (turn, _) = interrupted(&lab, "write 1 to a", steps).await;
    lab.clock.advance(Duration::from_secs(91));
    lab.vendor.answer(Stream::text("Done."));
    let outcome = lab.runner.resume(&TenantId::single(), &turn).await.unwrap();
    let TurnOutcome::Done(reply) = outcome else { panic!("{outcome:?}") };
    assert_eq!(reply.text, "Done.");
    assert!(!lab.workspace.path().join("a").exists(), "a recorded call is not run again");
    assert_eq!(lab.vendor.requests().len(), 1, "the recorded model call is not repeated");
    assert_eq!(lab.transcript().await.len(), 4);
    assert_eq!(actions(&lab).await, ["turn.accepted", "turn.resumed", "turn.committed"]);
}

#[tokio::test]
async fn a_turn_whose_lease_runs_is_not_taken_over() {
    let lab = Lab::new().await;
    let (turn, _) = interrupted(&lab, "hello", Vec::new()).await;
    lab.clock.advance(Duration::from_secs(89));
    let refused = lab.runner.resume(&TenantId::single(), &turn).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict);
}

#[tokio::test]
async fn an_interrupted_call_that_may_run_twice_is_run_again() {
    let lab = Lab::new().await;
    let steps = vec![calling(vec![call("c1", "write", &json!({"path": "a", "content": "1"}))])];
    let (turn, _) = interrupted(&lab, "write 1 to a", steps).await;
    lab.clock.advance(Duration::from_secs(91));
    lab.vendor.answer(Stream::text("Done."));
    lab.runner.resume(&TenantId::single(), &turn).await.unwrap();
    assert_eq!(std::fs::read_to_string(lab.workspace.path().join("a")).unwrap(), "1");
}

#[tokio::test]
async fn an_interrupted_call_that_must_not_run_twice_is_parked_and_listed() {
    let lab = Lab::new().await;
    let append = call("c1", "append", &json!({"path": "a", "content": "1"}));
    let (turn, _) = interrupted(&lab, "append 1 to a", vec![calling(vec![append.clone()])]).await;
    lab.clock.advance(Duration::from_secs(91));
    let outcome = lab.runner.resume(&TenantId::single(), &turn).await.unwrap();
    let TurnOutcome::Parked(parked) = outcome else { panic!("{outcome:?}") };
    assert_eq!(parked.call, append);
    assert!(!lab.workspace.path().join("a").exists());
    assert_eq!(lab.vendor.requests().len(), 0);
    let listed: Vec<_> = lab.memory.parked(&TenantId::single(), 10).await.unwrap();
    assert_eq!(listed.iter().map(|turn| turn.id.clone()).collect::<Vec<_>>(), [turn]);
    lab.vendor.answer(Stream::text("Fine."));
    assert_eq!(lab.reply(lab.request("It did.")).await.text, "Fine.", "the session goes on");
}

#[tokio::test]
async fn only_the_first_open_call_can_have_been_under_way() {
    let lab = Lab::new().await;
    let calls = vec![
        call("c1", "write", &json!({"path": "a", "content": "1"})),
        call("c2", "append", &json!({"path": "b", "content": "2"})),
    ];
    let (turn, _) = interrupted(&lab, "both", vec![calling(calls)]).await;
    lab.clock.advance(Duration::from_secs(91));
    lab.vendor.answer(Stream::text("Done."));
    let outcome = lab.runner.resume(&TenantId::single(), &turn).await.unwrap();
    assert!(matches!(outcome, TurnOutcome::Done(_)), "{outcome:?}");
    assert_eq!(std::fs::read_to_string(lab.workspace.path().join("b")).unwrap(), "2");
}

#[tokio::test]
async fn a_new_turn_first_finishes_the_one_that_was_interrupted_on_its_session() {
    let lab = Lab::new().await;
    interrupted(&lab, "1", Vec::new()).await;
    lab.clock.advance(Duration::from_secs(91));
    lab.vendor.answer(Stream::text("first"));
    lab.vendor.answer(Stream::text("second"));
    assert_eq!(lab.reply(lab.request("2")).await.text, "second");
    let texts: Vec<_> = lab.transcript().await.iter().map(MessageBody::text).collect();
    assert_eq!(texts, ["1", "first", "2", "second"]);
}

#[tokio::test]
async fn a_turn_of_an_agent_that_is_gone_ends_and_frees_its_session() {
    let lab = Lab::with(|config| config.agents[0].id = "b".into()).await;
    let (turn, _) = interrupted(&lab, "hello", Vec::new()).await;
    lab.clock.advance(Duration::from_secs(91));
    let TurnOutcome::Failed(failure) = lab.runner.resume(&TenantId::single(), &turn).await.unwrap() else {
        panic!()
    };
    assert_eq!(failure.kind, ErrorKind::NotFound);
    let session =
        lab.memory.load(&TenantId::single(), &SessionKey::new("agent:a:main")).await.unwrap().unwrap();
    assert_eq!(session.holder, None);
}

#[tokio::test]
async fn a_late_process_writes_nothing_after_its_turn_was_taken_over() {
    let lab = Lab::new().await;
    let gate = Gate::new();
    lab.vendor.answer(Stream::new().then(Step::Hold(gate.clone())).then_text("late"));
    lab.vendor.answer(Stream::text("in time"));
    let request = lab.keyed("k", "Hello");
    let late = lab.runner.invoke(request.clone()).await.unwrap();
    gate.reached().await;
    lab.clock.advance(Duration::from_secs(91));
    let TurnOutcome::Done(reply) = ended(&lab.another_runner(), request).await.unwrap() else { panic!() };
    assert_eq!(reply.text, "in time");
    gate.open();
    let events: Vec<_> = late.collect().await;
    assert_eq!(events.last().unwrap().as_ref().unwrap_err().kind, ErrorKind::Conflict);
    let texts: Vec<_> = lab.transcript().await.iter().map(MessageBody::text).collect();
    assert_eq!(texts, ["Hello", "in time"]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_while_the_model_thinks() {
    let lab = Lab::new().await;
    let gate = Gate::new();
    lab.vendor.answer(Stream::new().then(Step::Hold(gate.clone())).then_text("thought"));
    let request = lab.request("think");
    let stream = lab.runner.invoke(request.clone()).await.unwrap();
    gate.reached().await;
    lab.clock.advance(Duration::from_secs(60));
    tokio::time::advance(Duration::from_secs(31)).await;
    let session = || lab.memory.load(&request.tenant, &request.session);
    while session().await.unwrap().unwrap().holder.unwrap().until < lab.clock.now() + Duration::from_secs(90)
    {
        tokio::task::yield_now().await;
    }
    gate.open();
    drop(stream);
}

#[tokio::test]
async fn a_fallback_answers_when_the_model_does_not_and_is_audited() {
    let lab = Lab::with(|config| config.agents[0].fallbacks = vec!["vendor/large".parse().unwrap()]).await;
    lab.vendor.answer(Answer::error(529, "overloaded_error", "busy"));
    lab.vendor.answer(Stream::text("From the large one."));
    let reply = lab.reply(lab.request("Hello")).await;
    assert_eq!((reply.text.as_str(), reply.model.as_str()), ("From the large one.", "vendor/large"));
    assert_eq!(actions(&lab).await, ["turn.accepted", "model.fallback", "turn.committed"]);
    let filter = AuditFilter { limit: 10, ..AuditFilter::default() };
    let rows = AuditLog::list(&lab.memory, &TenantId::single(), &filter).await.unwrap();
    let expected = json!({"from": "vendor/small", "to": "vendor/large", "reason": "overloaded"});
    assert_eq!(rows[1].entry.detail, expected);
}

#[tokio::test]
async fn there_is_no_fallback_after_the_first_token_nor_for_a_refused_request_nor_for_a_named_model() {
    let lab = Lab::with(|config| config.agents[0].fallbacks = vec!["vendor/large".parse().unwrap()]).await;
    lab.vendor.answer(Stream::text("Half an ").then(Step::Cut));
    let TurnOutcome::Failed(failure) = lab.outcome(lab.request("1")).await.unwrap() else { panic!() };
    assert_eq!(failure.kind, ErrorKind::Upstream);
    lab.vendor.answer(Answer::error(400, "invalid_request_error", "no"));
    let TurnOutcome::Failed(failure) = lab.outcome(lab.request("2")).await.unwrap() else { panic!() };
    assert_eq!(failure.kind, ErrorKind::Invalid);
    lab.vendor.answer(Answer::error(529, "overloaded_error", "busy"));
    let options = RunOptions { model: Some("vendor/other".parse().unwrap()), ..RunOptions::default() };
    let TurnOutcome::Failed(failure) = lab.outcome(RunRequest { options, ..lab.request("3") }).await.unwrap()
    else {
        panic!()
    };
    assert_eq!(failure.kind, ErrorKind::Upstream);
    assert_eq!(lab.vendor.requests().len(), 3);
}

#[tokio::test]
async fn a_turn_stops_at_its_limit_of_model_calls_with_what_it_has() {
    let lab = Lab::with(|config| config.agents[0].limits.steps = 2).await;
    for id in ["c1", "c2"] {
        lab.vendor.answer(Stream::text("More.").then_call(id, "ls", &json!({})));
    }
    let reply = lab.reply(lab.request("go")).await;
    assert_eq!(reply.stop, StopReason::Length);
    assert_eq!(reply.text, "More.\n\nMore.\n\n[Stopped: the agent's limit of 2 model calls per turn.]");
    assert_eq!(lab.vendor.requests().len(), 2);
}

#[tokio::test]
async fn a_turn_stops_at_its_limit_of_tokens() {
    let lab = Lab::with(|config| config.agents[0].limits.tokens = 14).await;
    lab.vendor.answer(Stream::new().then_call("c1", "ls", &json!({})));
    let reply = lab.reply(lab.request("go")).await;
    assert_eq!(reply.text, "[Stopped: the agent's limit of 14 tokens per turn.]");
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_takes_too_long_fails_and_frees_its_session() {
    let lab = Lab::new().await;
    lab.vendor.answer(Answer::Silence(Gate::new()));
    let TurnOutcome::Failed(failure) = lab.outcome(lab.request("hello")).await.unwrap() else { panic!() };
    assert_eq!(failure.kind, ErrorKind::Upstream);
    assert_eq!(failure.message, "the turn was stopped: it took longer than the agent's limit of 600 s");
    let session =
        lab.memory.load(&TenantId::single(), &SessionKey::new("agent:a:main")).await.unwrap().unwrap();
    assert_eq!(session.holder, None);
}

#[tokio::test]
async fn a_long_session_is_summarised_and_the_prompt_starts_with_the_summary() {
    let lab = Lab::with(|config| (config.turns.window_messages, config.turns.keep_messages) = (4, 2)).await;
    for number in 1..=2 {
        lab.vendor.answer(Stream::text("yes"));
        lab.reply(lab.request(&format!("question {number}"))).await;
    }
    lab.vendor.answer(Stream::text("They asked twice."));
    lab.vendor.answer(Stream::text("third"));
    lab.reply(lab.request("question 3")).await;
    let contents = |nth: usize| -> Vec<Value> {
        lab.prompt(nth).iter().skip(1).map(|message| message["content"].clone()).collect()
    };
    let first = "Summary of the earlier messages: They asked twice.";
    assert_eq!(contents(3), [first, "question 2", "yes", "question 3"]);
    let summary = MessageBody::Summary { text: "They asked twice.".into(), through: 2 };
    assert_eq!(lab.transcript().await[5], summary);
    lab.vendor.answer(Stream::text("They asked thrice."));
    lab.vendor.answer(Stream::text("fourth"));
    lab.reply(lab.request("question 4")).await;
    let second = "Summary of the earlier messages: They asked thrice.";
    assert_eq!(contents(5), [second, "question 3", "third", "question 4"]);
    assert!(
        contents(4)[0].as_str().unwrap().contains("They asked twice."),
        "the old summary is summarised, too"
    );
}

#[tokio::test]
async fn a_prompt_near_the_models_context_is_summarised_before_it_is_sent() {
    let lab = Lab::new().await;
    lab.vendor.answer(Stream::text("long"));
    lab.reply(lab.request(&"word ".repeat(2_300))).await;
    lab.vendor.answer(Stream::text("Many words."));
    lab.vendor.answer(Stream::text("short"));
    lab.reply(RunRequest { sticky: true, ..lab.request("and now?") }).await;
    let contents: Vec<_> = lab.prompt(2).iter().skip(1).map(|message| message["content"].clone()).collect();
    assert_eq!(contents.len(), 2, "{contents:?}");
    assert_eq!(contents[1], "and now?");
}

#[tokio::test]
async fn an_overlong_prompt_is_summarised_and_sent_again() {
    let lab = Lab::new().await;
    lab.vendor.answer(Stream::text("1"));
    lab.reply(lab.request("first")).await;
    lab.vendor.answer(Answer::error(400, "context_length_exceeded", "too long"));
    lab.vendor.answer(Stream::text("They said first."));
    lab.vendor.answer(Stream::text("2"));
    assert_eq!(lab.reply(lab.request("second")).await.text, "2");
    assert_eq!(lab.vendor.requests().len(), 4);
}

#[tokio::test]
async fn a_client_that_resends_its_history_does_not_double_it() {
    let lab = Lab::new().await;
    lab.vendor.answer(Stream::text("a"));
    lab.reply(lab.request("1")).await;
    lab.vendor.answer(Stream::text("b"));
    let input =
        vec![MessageBody::user_text("1"), MessageBody::assistant_text("a"), MessageBody::user_text("2")];
    lab.reply(RunRequest { input, ..lab.request("") }).await;
    let texts: Vec<_> = lab.transcript().await.iter().map(MessageBody::text).collect();
    assert_eq!(texts, ["1", "a", "2", "b"]);
}

#[tokio::test]
async fn each_of_two_processes_sees_what_the_other_one_wrote_in_between() {
    let lab = Lab::new().await;
    let other = lab.another_runner();
    let texts = ["one", "two", "three", "four"];
    for text in texts {
        ended(&lab.runner, lab.request(&format!("{text} here"))).await.unwrap();
        ended(&other, lab.request(&format!("{text} there"))).await.unwrap();
    }
    let said = lab.prompt(7).into_iter().filter(|message| message["role"] == "user");
    let said: Vec<String> = said.map(|message| message["content"].as_str().unwrap().to_owned()).collect();
    let expected: Vec<_> =
        texts.iter().flat_map(|text| [format!("{text} here"), format!("{text} there")]).collect();
    assert_eq!(said, expected);
}

#[tokio::test]
async fn a_session_that_was_reset_starts_from_nothing() {
    let lab = Lab::new().await;
    lab.reply(lab.request("before")).await;
    let (tenant, key) = (TenantId::single(), SessionKey::new("agent:a:main"));
    let from = lab.memory.load(&tenant, &key).await.unwrap().unwrap().id;
    lab.memory.reset(&tenant, &key, &from, &SessionId::new("fresh"), lab.clock.now()).await.unwrap();
    lab.reply(lab.request("after")).await;
    let said = lab.prompt(1).into_iter().filter(|message| message["role"] == "user");
    assert_eq!(said.map(|message| message["content"].clone()).collect::<Vec<_>>(), [json!("after")]);
}

#[tokio::test]
async fn an_unknown_agent_or_model_is_refused_before_anything_is_stored() {
    let lab = Lab::new().await;
    let refused = lab.outcome(RunRequest { agent: "nobody".into(), ..lab.request("x") }).await.unwrap_err();
    assert_eq!((refused.kind, refused.message.as_str()), (ErrorKind::Invalid, "Unknown agent 'nobody'."));
    let options = RunOptions { model: Some("nowhere/x".parse().unwrap()), ..RunOptions::default() };
    let refused = lab.outcome(RunRequest { options, ..lab.request("x") }).await.unwrap_err();
    assert_eq!((refused.kind, refused.message.as_str()), (ErrorKind::NotFound, "Unknown model: nowhere/x"));
    assert_eq!(lab.transcript().await, []);
}
