"""Chat completions and models, through the stock OpenAI client."""

import json
import uuid

import openai
import pytest
from conftest import BASE_URL, CALL, CHAT_TOOL, IMAGE_URL, MODEL


def user(content):
    return {"role": "user", "content": content}


def test_a_question_is_answered(client):
    answer = client.chat.completions.create(model=MODEL, messages=[user("good morning")])
    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    assert [choice.finish_reason for choice in answer.choices] == ["stop"]
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == "You said: good morning"
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_streamed_answer_is_the_same_text_and_ends_with_its_usage(client):
    stream = client.chat.completions.create(
        model=MODEL, messages=[user("one two three")], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "You said: one two three"
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert [reason for reason in reasons if reason] == ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_tool_is_called_and_its_result_is_answered(client):
    messages = [user(CALL)]
    first = client.chat.completions.create(model=MODEL, messages=messages, tools=[CHAT_TOOL])
    assert first.choices[0].finish_reason == "tool_calls"
    [call] = first.choices[0].message.tool_calls
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert json.loads(call.function.arguments) == {"location": "Oslo"}

    messages.append(first.choices[0].message)
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "4 degrees, rain"})
    second = client.chat.completions.create(model=MODEL, messages=messages, tools=[CHAT_TOOL])
    assert second.choices[0].finish_reason == "stop"
    assert "4 degrees, rain" in second.choices[0].message.content


def test_a_streamed_tool_call_is_put_together_by_the_client(client):
    with client.chat.completions.stream(model=MODEL, messages=[user(CALL)], tools=[CHAT_TOOL]) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "tool_calls"
    [call] = final.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"location": "Oslo"}


def test_a_picture_reaches_the_model(client):
    parts = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": IMAGE_URL}}]
    answer = client.chat.completions.create(model=MODEL, messages=[user(parts)])
    assert "what is it?" in answer.choices[0].message.content
    assert "[1 image, image/png]" in answer.choices[0].message.content


def test_a_user_names_a_session_that_goes_on(client):
    name = f"user-{uuid.uuid4()}"
    first = client.chat.completions.create(model=MODEL, messages=[user("remember me")], user=name)
    second = client.chat.completions.create(model=MODEL, messages=[user("again")], user=name)
    assert second.choices[0].message.content == "You said: again"
    # The second prompt holds the first exchange.
    assert second.usage.prompt_tokens > first.usage.prompt_tokens


def test_a_resent_history_on_such_a_session_is_not_taken_twice(client):
    name = f"user-{uuid.uuid4()}"
    history = [user("remember me")]
    first = client.chat.completions.create(model=MODEL, messages=history, user=name)
    only_new = client.chat.completions.create(model=MODEL, messages=[user("again")], user=name)

    other = f"user-{uuid.uuid4()}"
    client.chat.completions.create(model=MODEL, messages=history, user=other)
    history += [{"role": "assistant", "content": first.choices[0].message.content}, user("again")]
    resent = client.chat.completions.create(model=MODEL, messages=history, user=other)
    assert resent.usage.prompt_tokens == only_new.usage.prompt_tokens


def test_the_same_key_gets_the_same_answer_and_says_so(client):
    ask = {"model": MODEL, "messages": [user("once only")], "extra_headers": {"Idempotency-Key": str(uuid.uuid4())}}
    first = client.chat.completions.with_raw_response.create(**ask)
    again = client.chat.completions.with_raw_response.create(**ask)
    assert first.headers.get("idempotency-replayed") is None
    assert again.headers.get("idempotency-replayed") == "true"
    assert again.parse() == first.parse()


def test_the_same_key_with_another_body_is_refused(client):
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    client.chat.completions.create(model=MODEL, messages=[user("this")], extra_headers=headers)
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.chat.completions.create(model=MODEL, messages=[user("that")], extra_headers=headers)
    assert caught.value.code == "idempotency_mismatch"


def test_models_are_the_agents(client):
    ids = [model.id for model in client.models.list()]
    assert ids[:2] == ["openclaw", "openclaw/default"]
    assert len(ids) > 2
    for model in ids:
        found = client.models.retrieve(model)
        assert (found.id, found.object) == (model, "model")
    answer = client.chat.completions.create(model=ids[-1], messages=[user("hello")])
    assert answer.model == ids[-1]


def test_each_refusal_is_the_clients_own_error(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=[user("hello")])
    assert caught.value.code == "invalid"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[user("hello")], temperature=3)
    assert (caught.value.code, caught.value.param) == ("invalid", "temperature")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("openclaw/nobody")
    stranger = openai.OpenAI(base_url=f"{BASE_URL}/v1", api_key="reef_no_body", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as caught:
        stranger.models.list()
    assert caught.value.code == "unauthenticated"
