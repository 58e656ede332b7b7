// Chat completions and models, through the stock OpenAI client.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import OpenAI from "openai";
import { CALL, CHAT_TOOL, IMAGE_URL, MODEL, all, client, slow, stranger } from "./client.js";

const user = (content) => ({ role: "user", content });

test("a question is answered", async () => {
  const answer = await client.chat.completions.create({ model: MODEL, messages: [user("good morning")] });
  assert.equal(answer.object, "chat.completion");
  assert.equal(answer.model, MODEL);
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.equal(answer.choices[0].message.content, "You said: good morning");
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
});

test("a streamed answer is the same text and ends with its usage", async () => {
  const chunks = await all(
    await client.chat.completions.create({
      model: MODEL,
      messages: [user("one two three")],
      stream: true,
      stream_options: { include_usage: true },
    }),
  );
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
  assert.equal(text, "You said: one two three");
  assert.deepEqual(chunks.map((chunk) => chunk.choices[0]?.finish_reason).filter(Boolean), ["stop"]);
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.ok(chunks.at(-1).usage.total_tokens > 0);
});

test("a tool that the client runs is called, and its result answered", async () => {
  const seen = [];
  const runner = client.chat.completions.runTools({
    model: MODEL,
    messages: [user(CALL)],
    tools: [
      {
        type: "function",
        function: {
          ...CHAT_TOOL.function,
          parse: JSON.parse,
          function: (input) => {
            seen.push(input);
            return "4 degrees, rain";
          },
        },
      },
    ],
  });
  assert.match(await runner.finalContent(), /4 degrees, rain/);
  assert.deepEqual(seen, [{ location: "Oslo" }]);
});

test("a streamed tool call is put together by the client", async () => {
  const stream = client.chat.completions.stream({ model: MODEL, messages: [user(CALL)], tools: [CHAT_TOOL] });
  const answer = await stream.finalChatCompletion();
  assert.equal(answer.choices[0].finish_reason, "tool_calls");
  const [call] = answer.choices[0].message.tool_calls;
  assert.equal(call.function.name, "get_weather");
  assert.deepEqual(JSON.parse(call.function.arguments), { location: "Oslo" });
});

test("a picture reaches the model", async () => {
  const content = [
    { type: "text", text: "what is it?" },
    { type: "image_url", image_url: { url: IMAGE_URL } },
  ];
  const answer = await client.chat.completions.create({ model: MODEL, messages: [user(content)] });
  assert.match(answer.choices[0].message.content, /\[1 image, image\/png\]/);
});

test("the same key gets the same answer and says so", async () => {
  const ask = () =>
    client.chat.completions
      .create({ model: MODEL, messages: [user("once only")] }, { headers: { "Idempotency-Key": key } })
      .withResponse();
  const key = randomUUID();
  const first = await ask();
  const again = await ask();
  assert.equal(first.response.headers.get("idempotency-replayed"), null);
  assert.equal(again.response.headers.get("idempotency-replayed"), "true");
  assert.deepEqual(again.data, first.data);
});

test("models are the agents", async () => {
  const models = await all(client.models.list());
  assert.deepEqual(models.slice(0, 2).map((model) => model.id), ["openclaw", "openclaw/default"]);
  const last = models.at(-1);
  assert.deepEqual(await client.models.retrieve(last.id), last);
});

test("each refusal is the client's own error", async () => {
  const messages = [user("hello")];
  await assert.rejects(client.chat.completions.create({ model: "gpt-4o", messages }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.code, "invalid");
    return true;
  });
  await assert.rejects(client.models.retrieve("openclaw/nobody"), OpenAI.NotFoundError);
  await assert.rejects(stranger.models.list(), (error) => {
    assert.ok(error instanceof OpenAI.AuthenticationError);
    assert.equal(error.code, "unauthenticated");
    return true;
  });
  // A token with one request a second and no burst beyond it.
  await slow.models.list();
  await assert.rejects(all(slow.models.list()), (error) => {
    assert.ok(error instanceof OpenAI.RateLimitError);
    assert.equal(error.code, "rate_limited");
    return true;
  });
});
