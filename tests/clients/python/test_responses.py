"""Responses, through the stock OpenAI client."""

import json
import uuid

import openai
import pytest
from conftest import CALL, IMAGE_URL, MODEL, TOOL


def test_a_question_is_answered(client):
    response = client.responses.create(model=MODEL, input="good morning", metadata={"ticket": "7"})
    assert (response.object, response.status, response.model) == ("response", "completed", MODEL)
    assert response.output_text == "You said: good morning"
    [message] = response.output
    assert (message.type, message.role, message.status) == ("message", "assistant", "completed")
    assert response.metadata == {"ticket": "7"}
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens


def test_a_finished_response_can_be_fetched(client):
    response = client.responses.create(model=MODEL, input="keep this", instructions="Be brief.", temperature=0.5)
    assert client.responses.retrieve(response.id) == response


def test_a_stream_ends_with_what_a_plain_request_answers(client):
    with client.responses.stream(model=MODEL, input="one two three") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert "".join(event.delta for event in events[4:-4]) == "You said: one two three"
    assert final.output_text == "You said: one two three"
    assert client.responses.retrieve(final.id).output_text == final.output_text


def test_a_previous_response_is_gone_on_from(client):
    first = client.responses.create(model=MODEL, input="my name is Ada")
    second = client.responses.create(model=MODEL, input="what is it?", previous_response_id=first.id)
    third = client.responses.create(model=MODEL, input="sure?", previous_response_id=second.id)
    assert second.previous_response_id == first.id
    assert first.usage.input_tokens < second.usage.input_tokens < third.usage.input_tokens


def test_a_tool_is_called_and_its_result_is_answered(client):
    first = client.responses.create(model=MODEL, input=CALL, tools=[TOOL])
    assert first.status == "completed"
    [call] = first.output
    assert (call.type, call.name, call.status) == ("function_call", "get_weather", "completed")
    assert json.loads(call.arguments) == {"location": "Oslo"}
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "4 degrees, rain"}
    second = client.responses.create(model=MODEL, input=[result], tools=[TOOL], previous_response_id=first.id)
    assert "4 degrees, rain" in second.output_text


def test_a_tool_round_trip_works_without_a_previous_response_too(client):
    items = [{"role": "user", "content": CALL}]
    first = client.responses.create(model=MODEL, input=items, tools=[TOOL])
    [call] = first.output
    items += first.output
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": "4 degrees, rain"})
    second = client.responses.create(model=MODEL, input=items, tools=[TOOL])
    assert "4 degrees, rain" in second.output_text


def test_a_streamed_tool_call_follows_the_text(client):
    with client.responses.stream(model=MODEL, input=f"look it up\n{CALL}", tools=[TOOL]) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [item.type for item in final.output] == ["message", "function_call"]
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert [json.loads(event.arguments) for event in done] == [{"location": "Oslo"}]
    deltas = [event for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(event.delta for event in deltas) == done[0].arguments


def test_a_forced_tool_is_called(client):
    choice = {"type": "function", "name": "get_weather"}
    response = client.responses.create(model=MODEL, input="hello", tools=[TOOL], tool_choice=choice)
    assert [item.type for item in response.output] == ["function_call"]
    assert response.tool_choice.name == "get_weather"


def test_a_picture_reaches_the_model(client):
    parts = [{"type": "input_text", "text": "what is it?"}, {"type": "input_image", "image_url": IMAGE_URL}]
    response = client.responses.create(model=MODEL, input=[{"role": "user", "content": parts}])
    assert "what is it?" in response.output_text
    assert "[1 image, image/png]" in response.output_text


def test_an_answer_that_is_cut_off_says_so(client):
    response = client.responses.create(model=MODEL, input="/words 100", max_output_tokens=16)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert len(response.output_text.split()) == 16


def test_background_work_is_queued_and_can_be_fetched(client):
    response = client.responses.create(model=MODEL, input="later", background=True)
    assert (response.status, response.background, response.output) == ("queued", True, [])
    # Bounded by the client's own number of tries: each fetch is a round trip, and the worker needs a few.
    for _ in range(2000):
        fetched = client.responses.retrieve(response.id)
        if fetched.status not in ("queued", "in_progress"):
            break
    assert (fetched.id, fetched.status) == (response.id, "completed")
    assert fetched.output_text == "You said: later"


def test_the_same_key_gets_the_same_response_and_says_so(client):
    ask = {"model": MODEL, "input": "once only", "extra_headers": {"Idempotency-Key": str(uuid.uuid4())}}
    first = client.responses.with_raw_response.create(**ask)
    again = client.responses.with_raw_response.create(**ask)
    assert first.headers.get("idempotency-replayed") is None
    assert again.headers.get("idempotency-replayed") == "true"
    assert again.parse() == first.parse()


def test_each_refusal_is_the_clients_own_error(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model=MODEL, input="hi", previous_response_id="resp_01HZZZZZZZZZZZZZZZZZZZZZZZ")
    assert (caught.value.code, caught.value.param) == ("not_found", "previous_response_id")
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.retrieve("resp_01HZZZZZZZZZZZZZZZZZZZZZZZ")
    assert caught.value.code == "not_found"
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=MODEL, input="hi", tools=[{"type": "web_search"}])
    assert (caught.value.code, caught.value.param) == ("invalid", "tools[0].type")
