//! The request of each case for each provider, beside what it was made from.

use serde_json::{Value, json};
use shared::adapters::models::{anthropic, openai};
use shared::config::ModelInfo;
use shared::message::{MessageBody, Part, ToolCall};
use shared::model::{ModelRequest, Sampling, ToolChoice};
use shared::tool::{Effect, ToolSpec};

fn case() -> ModelRequest {
    super::request("vendor/model-1", "Good morning.")
}

fn tool(name: &str, parameters: Value) -> ToolSpec {
    let description = format!("What {name} does.");
    ToolSpec { name: name.to_owned(), description, parameters, strict: None, effect: Effect::None }
}

fn two_tools() -> Vec<ToolSpec> {
    let schema = json!({"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]});
    vec![
        tool("read_file", schema),
        ToolSpec { description: String::new(), strict: Some(true), ..tool("current_time", Value::Null) },
    ]
}

fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
    ToolCall { id: id.to_owned(), name: name.to_owned(), arguments: arguments.to_owned() }
}

fn result(id: &str, name: &str, content: &str, is_error: bool) -> MessageBody {
    MessageBody::ToolResult {
        call_id: id.to_owned(),
        name: name.to_owned(),
        content: content.to_owned(),
        is_error,
    }
}

fn picture(media_type: &str) -> Part {
    Part::Image { media_type: media_type.to_owned(), data: "iVBORw0KGgo=".to_owned() }
}

fn text(text: &str) -> Part {
    Part::Text { text: text.to_owned() }
}

/// Compares the body for both providers with what was approved, the case beside it.
fn check(name: &str, request: &ModelRequest) {
    let info = ModelInfo { context_window: 200_000, max_tokens: 4_096 };
    let as_json = |body: Result<Value, serde_json::Error>| body.unwrap();
    let bodies = [
        ("anthropic", as_json(serde_json::to_value(anthropic::request::body(request, info)))),
        (
            "openai",
            as_json(serde_json::to_value(openai::request::body(
                request,
                None,
                openai::request::Dialect::OpenAi,
            ))),
        ),
    ];
    let case = json!({
        "model": request.model,
        "system": request.system,
        "messages": request.messages,
        "tools": request.tools,
        "tool_choice": request.tool_choice,
        "sampling": request.sampling,
    });
    for (provider, body) in bodies {
        insta::with_settings!({prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_json_snapshot!(format!("{name}-{provider}"), json!({"case": case, "body": body}));
        });
    }
}

#[test]
fn a_plain_message() {
    check("plain", &case());
}

#[test]
fn a_system_prompt() {
    check("system", &ModelRequest { system: "You are brief.\nAnd kind.".to_owned(), ..case() });
}

#[test]
fn several_turns_of_which_one_reply_was_empty() {
    let messages = vec![
        MessageBody::user_text("One?"),
        MessageBody::assistant_text("Yes."),
        MessageBody::user_text("Two?"),
        MessageBody::assistant_text(""),
        MessageBody::user_text("Three? \"Really\"?\n"),
    ];
    check("turns", &ModelRequest { messages, ..case() });
}

#[test]
fn tools_offered() {
    check("tools-offered", &ModelRequest { tools: two_tools(), ..case() });
}

#[test]
fn a_tool_forced() {
    let tool_choice = ToolChoice::Tool("read_file".to_owned());
    check("tool-forced", &ModelRequest { tools: two_tools(), tool_choice, ..case() });
}

#[test]
fn any_tool_forced() {
    check("tool-required", &ModelRequest { tools: two_tools(), tool_choice: ToolChoice::Required, ..case() });
}

#[test]
fn tools_forbidden() {
    check("tools-forbidden", &ModelRequest { tools: two_tools(), tool_choice: ToolChoice::None, ..case() });
}

#[test]
fn a_tool_called_and_answered() {
    let messages = vec![
        MessageBody::user_text("What time is it?"),
        MessageBody::Assistant {
            text: "Let me look.".to_owned(),
            tool_calls: vec![call("c1", "current_time", "")],
        },
        result("c1", "current_time", "12:00", false),
    ];
    check("tool-result", &ModelRequest { messages, tools: two_tools(), ..case() });
}

#[test]
fn several_tools_called_at_once_one_fails_and_the_user_interrupts() {
    let calls = vec![
        call("c1", "read_file", r#"{"path": "a.txt"}"#),
        call("call.2/ä", "read_file", r#"{"path": "#),
        call("c3", "current_time", "[1]"),
    ];
    let messages = vec![
        MessageBody::user_text("Read."),
        MessageBody::Assistant { text: String::new(), tool_calls: calls },
        MessageBody::user_text("Hurry!"),
        result("c1", "read_file", "hello", false),
        result("call.2/ä", "", "the arguments are not JSON", true),
        result("c3", "current_time", "", false),
    ];
    check("tools-parallel", &ModelRequest { messages, tools: two_tools(), ..case() });
}

#[test]
fn tools_called_before_but_no_longer_offered() {
    let messages = vec![
        MessageBody::user_text("What time is it?"),
        MessageBody::Assistant { text: String::new(), tool_calls: vec![call("c1", "current_time", "{}")] },
        result("c1", "current_time", "12:00", false),
    ];
    check("tools-withdrawn", &ModelRequest { messages, ..case() });
}

#[test]
fn pictures() {
    let parts =
        vec![text("Compare:"), picture("image/png"), text(" "), picture("image/jpeg"), text("Which?")];
    check("images", &ModelRequest { messages: vec![MessageBody::User { parts }], ..case() });
}

#[test]
fn every_sampling_option_set() {
    let sampling = Sampling {
        max_tokens: Some(1_000_000),
        temperature: Some(1.5),
        top_p: Some(0.5),
        frequency_penalty: Some(-2.0),
        presence_penalty: Some(0.25),
        seed: Some(-7),
        stop: vec!["END".to_owned(), "\n\n".to_owned()],
        response_format: None,
    };
    check("sampling", &ModelRequest { sampling, ..case() });
}

#[test]
fn a_summary_before_the_newest_messages() {
    let messages = vec![
        MessageBody::Summary { text: "They said hello.".to_owned(), through: 12 },
        MessageBody::user_text("And now?"),
    ];
    check("summary", &ModelRequest { messages, ..case() });
}

#[test]
fn neighbours_of_one_role() {
    let messages = vec![
        MessageBody::user_text("One."),
        MessageBody::User { parts: vec![text("Two."), text("Three.")] },
        MessageBody::assistant_text("Four."),
        MessageBody::assistant_text("Five."),
        MessageBody::user_text("Six."),
    ];
    check("neighbours", &ModelRequest { messages, ..case() });
}

fn in_format(format: Value) -> ModelRequest {
    ModelRequest {
        system: "You are brief.".to_owned(),
        sampling: Sampling { response_format: Some(format), ..Sampling::default() },
        ..case()
    }
}

#[test]
fn a_reply_by_schema() {
    let schema =
        json!({"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": false});
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}});
    check("response-schema", &in_format(format));
}

#[test]
fn a_reply_in_json() {
    check("response-json", &in_format(json!({"type": "json_object"})));
}

#[test]
fn a_reply_in_text() {
    check("response-text", &in_format(json!({"type": "text"})));
}

#[test]
fn the_length_limit_has_the_name_that_the_host_knows_and_no_guess_is_sent() {
    let info = ModelInfo { context_window: 1_000, max_tokens: 700 };
    let limits = |max_tokens: Option<u32>, info: Option<ModelInfo>, dialect| {
        let sampling = Sampling { max_tokens, ..Sampling::default() };
        let body =
            serde_json::to_value(openai::request::body(&ModelRequest { sampling, ..case() }, info, dialect));
        let body = body.unwrap();
        (body.get("max_tokens").cloned(), body.get("max_completion_tokens").cloned())
    };
    use openai::request::Dialect::{Compatible, OpenAi};
    assert_eq!(limits(None, None, Compatible), (None, None));
    assert_eq!(limits(None, Some(info), Compatible), (Some(json!(700)), None));
    assert_eq!(limits(Some(5_000), Some(info), Compatible), (Some(json!(1_000)), None));
    assert_eq!(limits(Some(5_000), None, Compatible), (Some(json!(5_000)), None));
    assert_eq!(limits(Some(50), Some(info), OpenAi), (None, Some(json!(50))));
}
