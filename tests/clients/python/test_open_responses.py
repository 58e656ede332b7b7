"""The acceptance cases of the Open Responses specification, over plain HTTP: nothing that a client might smooth over
is lost, and every response and every event is checked against the specification's published types."""

import copy
import json

import openresponses_types as spec
import pytest
from conftest import CALL, IMAGE_URL, MODEL, TOOL
from openai.types.responses import Response

EVENTS = {
    "response.created": spec.ResponseCreatedStreamingEvent,
    "response.in_progress": spec.ResponseInProgressStreamingEvent,
    "response.output_item.added": spec.ResponseOutputItemAddedStreamingEvent,
    "response.output_item.done": spec.ResponseOutputItemDoneStreamingEvent,
    "response.content_part.added": spec.ResponseContentPartAddedStreamingEvent,
    "response.content_part.done": spec.ResponseContentPartDoneStreamingEvent,
    "response.output_text.delta": spec.ResponseOutputTextDeltaStreamingEvent,
    "response.output_text.done": spec.ResponseOutputTextDoneStreamingEvent,
    "response.function_call_arguments.delta": spec.ResponseFunctionCallArgumentsDeltaStreamingEvent,
    "response.function_call_arguments.done": spec.ResponseFunctionCallArgumentsDoneStreamingEvent,
    "response.completed": spec.ResponseCompletedStreamingEvent,
    "response.incomplete": spec.ResponseIncompleteStreamingEvent,
    "response.failed": spec.ResponseFailedStreamingEvent,
}


def message(role, content):
    return {"type": "message", "role": role, "content": content}


def check(body):
    """A response as the specification's type, strict about what the stock client wants too."""
    theirs = copy.deepcopy(body)
    if theirs["text"]["format"]["type"] == "json_schema":
        # The one place where the two contradict each other: the specification takes only null here, the client's type
        # only an object. (The client does not check; a body that it gets is never refused.)
        assert theirs["text"]["format"]["schema"] is None
        theirs["text"]["format"]["schema"] = {}
    Response.model_validate(theirs)
    return spec.ResponseResource.model_validate(body)


def ask(http, **body):
    answer = http.post("/v1/responses", json={"model": MODEL, **body})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    return check(answer.json())


def stream(http, **body):
    """The checked events, and the last response among them."""
    events = []
    with http.stream("POST", "/v1/responses", json={"model": MODEL, "stream": True, **body}) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        frames = [frame for frame in answer.read().decode().split("\n\n") if not frame.startswith(":")]
    assert frames[-2:] == ["data: [DONE]", ""]
    for sequence, frame in enumerate(frames[:-2]):
        name, data = frame.split("\n")
        data = json.loads(data.removeprefix("data: "))
        assert name == f"event: {data['type']}"
        assert data["sequence_number"] == sequence
        if "response" in data:
            check(data["response"])
        events.append(EVENTS[data["type"]].model_validate(data))
    return events, events[-1].response


def text_of(response):
    return "".join(part.text for item in response.output if item.type == "message" for part in item.content)


def test_basic(http):
    response = ask(http, input=[message("user", "Say hello in exactly 3 words.")])
    assert response.status == "completed"
    assert text_of(response) == "You said: Say hello in exactly 3 words."


def test_streaming(http):
    events, response = stream(http, input=[message("user", "Count from 1 to 5.")])
    assert response.status == "completed"
    assert text_of(response) == "You said: Count from 1 to 5."
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 1
    assert "".join(deltas) == text_of(response)


def test_system_prompt(http):
    hello = message("user", "Say hello.")
    without = ask(http, input=[hello])
    given = ask(http, input=[message("system", "You are a pirate. Always answer as one."), hello])
    assert given.status == "completed"
    assert given.usage.input_tokens > without.usage.input_tokens
    by_instructions = ask(http, input=[hello], instructions="You are a pirate. Always answer as one.")
    assert by_instructions.instructions == "You are a pirate. Always answer as one."
    assert by_instructions.usage.input_tokens == given.usage.input_tokens


def test_tool_calling(http):
    response = ask(http, input=[message("user", CALL)], tools=[TOOL])
    [call] = response.output
    assert (call.type, call.name) == ("function_call", "get_weather")
    assert json.loads(call.arguments) == {"location": "Oslo"}
    assert [tool.root.name for tool in response.tools] == ["get_weather"]


def test_streamed_tool_calling(http):
    events, response = stream(http, input=[message("user", CALL)], tools=[TOOL])
    assert [str(event.type) for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert events[2].item.type == events[5].item.type == "function_call"
    assert events[5].item.model_dump() == response.output[0].model_dump()


def test_image_input(http):
    parts = [{"type": "input_text", "text": "What do you see?"}, {"type": "input_image", "image_url": IMAGE_URL}]
    response = ask(http, input=[message("user", parts)])
    assert response.status == "completed"
    assert "[1 image, image/png]" in text_of(response)


def test_multi_turn(http):
    history = [message("user", "My name is Alice."), message("assistant", "Hello Alice! How can I help you?")]
    alone = ask(http, input=[message("user", "What is my name?")])
    response = ask(http, input=[*history, message("user", "What is my name?")])
    assert response.status == "completed"
    assert text_of(response) == "You said: What is my name?"
    assert response.usage.input_tokens > alone.usage.input_tokens


@pytest.mark.parametrize(
    ("body", "event"),
    [
        ({"input": "/words 50", "max_output_tokens": 16}, "response.incomplete"),
        ({"input": f"a\n{CALL}\n{CALL}", "tools": [TOOL], "tool_choice": "auto"}, "response.completed"),
        ({"input": "hi", "tools": [TOOL], "tool_choice": "none"}, "response.completed"),
        ({"input": "hi", "tools": [TOOL], "tool_choice": "required"}, "response.completed"),
        ({"input": "hi", "tools": [TOOL], "tool_choice": {"type": "function", "name": "get_weather"}}, "response.completed"),
        ({"input": "hi", "text": {"format": {"type": "json_object"}}}, "response.completed"),
        (
            {"input": "hi", "text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}}},
            "response.completed",
        ),
        ({"input": "hi", "temperature": 0, "top_p": 0.5, "user": "ada", "truncation": "auto"}, "response.completed"),
        ({"input": "hi", "metadata": {"a": "b"}, "store": False, "safety_identifier": "s"}, "response.completed"),
        ({"input": [{"type": "reasoning", "summary": []}, message("user", "hi")]}, "response.completed"),
    ],
)
def test_every_form_of_request_is_answered_by_the_published_types(http, body, event):
    events, streamed = stream(http, **body)
    assert events[-1].type == event
    plain = ask(http, **body)
    assert plain.status == streamed.status
    assert text_of(plain) == text_of(streamed)
    fetched = http.get(f"/v1/responses/{plain.id}")
    assert check(fetched.json()) == plain
