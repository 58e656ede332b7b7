// Responses, through the stock OpenAI client.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import OpenAI from "openai";
import { CALL, IMAGE_URL, MODEL, TOOL, all, client } from "./client.js";

test("a question is answered, and the response can be fetched", async () => {
  const response = await client.responses.create({ model: MODEL, input: "good morning", metadata: { ticket: "7" } });
  assert.equal(response.status, "completed");
  assert.equal(response.output_text, "You said: good morning");
  assert.deepEqual(response.metadata, { ticket: "7" });
  assert.deepEqual(await client.responses.retrieve(response.id), response);
});

test("a stream ends with what a plain request answers", async () => {
  const stream = client.responses.stream({ model: MODEL, input: "one two three" });
  const events = await all(stream);
  assert.deepEqual(
    events.map((event) => event.sequence_number),
    events.map((_, index) => index),
  );
  const text = events.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta);
  assert.equal(text.join(""), "You said: one two three");
  assert.equal(events.at(-1).type, "response.completed");
  const final = await stream.finalResponse();
  assert.equal(final.output[0].content[0].text, "You said: one two three");
});

test("a previous response is gone on from", async () => {
  const first = await client.responses.create({ model: MODEL, input: "my name is Ada" });
  const second = await client.responses.create({
    model: MODEL,
    input: "what is it?",
    previous_response_id: first.id,
  });
  assert.equal(second.previous_response_id, first.id);
  assert.ok(second.usage.input_tokens > first.usage.input_tokens);
});

test("a tool is called and its result is answered", async () => {
  const first = await client.responses.create({ model: MODEL, input: CALL, tools: [TOOL] });
  const [call] = first.output;
  assert.equal(call.type, "function_call");
  assert.deepEqual(JSON.parse(call.arguments), { location: "Oslo" });
  const second = await client.responses.create({
    model: MODEL,
    input: [{ type: "function_call_output", call_id: call.call_id, output: "4 degrees, rain" }],
    tools: [TOOL],
    previous_response_id: first.id,
  });
  assert.match(second.output_text, /4 degrees, rain/);
});

test("a streamed tool call is put together by the client", async () => {
  const stream = client.responses.stream({ model: MODEL, input: CALL, tools: [TOOL] });
  const final = await stream.finalResponse();
  assert.deepEqual(
    final.output.map((item) => [item.type, item.name, JSON.parse(item.arguments)]),
    [["function_call", "get_weather", { location: "Oslo" }]],
  );
});

test("a picture reaches the model", async () => {
  const content = [
    { type: "input_text", text: "what is it?" },
    { type: "input_image", image_url: IMAGE_URL, detail: "auto" },
  ];
  const response = await client.responses.create({ model: MODEL, input: [{ role: "user", content }] });
  assert.match(response.output_text, /\[1 image, image\/png\]/);
});

test("the same key gets the same response and says so", async () => {
  const key = randomUUID();
  const ask = () =>
    client.responses
      .create({ model: MODEL, input: "once only" }, { headers: { "Idempotency-Key": key } })
      .withResponse();
  const first = await ask();
  const again = await ask();
  assert.equal(first.response.headers.get("idempotency-replayed"), null);
  assert.equal(again.response.headers.get("idempotency-replayed"), "true");
  assert.deepEqual(again.data, first.data);
});

test("each refusal is the client's own error", async () => {
  const missing = "resp_01HZZZZZZZZZZZZZZZZZZZZZZZ";
  await assert.rejects(
    client.responses.create({ model: MODEL, input: "hi", previous_response_id: missing }),
    (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError);
      assert.equal(error.code, "not_found");
      return true;
    },
  );
  await assert.rejects(client.responses.retrieve(missing), OpenAI.NotFoundError);
  await assert.rejects(
    client.responses.create({ model: MODEL, input: "hi", tools: [{ type: "web_search" }] }),
    OpenAI.BadRequestError,
  );
});
