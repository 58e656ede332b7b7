// What every client test shares: where the server is, and who calls.

import OpenAI from "openai";

const url = process.env.REEF_TEST_URL;
const token = process.env.REEF_TEST_TOKEN;
if (!url || !token) {
  throw new Error("set REEF_TEST_URL and REEF_TEST_TOKEN; `cargo nextest run -p tests --test clients` does");
}

export const MODEL = "openclaw";

export const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: token, maxRetries: 0, timeout: 30_000 });
export const stranger = new OpenAI({ baseURL: `${url}/v1`, apiKey: "reef_no_body", maxRetries: 0 });
export const slow = new OpenAI({ baseURL: `${url}/v1`, apiKey: process.env.REEF_TEST_SLOW_TOKEN, maxRetries: 0 });

// A red square of 8 × 8 pixels.
export const IMAGE_URL =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR42mP4z8CAFTEMLQkAKP8/" +
  "wc53yE8AAAAASUVORK5CYII=";

const parameters = {
  type: "object",
  properties: { location: { type: "string", description: "City and country." } },
  required: ["location"],
};
const named = { name: "get_weather", description: "The weather of a place.", parameters };
export const CHAT_TOOL = { type: "function", function: named };
export const TOOL = { type: "function", ...named, strict: false };
// The demo model calls the tool that such a line names.
export const CALL = '/tool get_weather {"location":"Oslo"}';

export async function all(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}
