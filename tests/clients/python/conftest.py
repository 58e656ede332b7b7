"""What every client test shares: where the server is, and who calls."""

import os

import httpx
import openai
import pytest

BASE_URL = os.environ.get("REEF_TEST_URL", "")
TOKEN = os.environ.get("REEF_TEST_TOKEN", "")
MODEL = "openclaw"

# A red square of 8 × 8 pixels.
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR42mP4z8CAFTEMLQkAKP8/"
    "wc53yE8AAAAASUVORK5CYII="
)
IMAGE_URL = f"data:image/png;base64,{PNG}"

PARAMETERS = {
    "type": "object",
    "properties": {"location": {"type": "string", "description": "City and country."}},
    "required": ["location"],
}
CHAT_TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather of a place.", "parameters": PARAMETERS},
}
TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a place.",
    "parameters": PARAMETERS,
    "strict": False,
}
# The demo model calls the tool that such a line names.
CALL = '/tool get_weather {"location":"Oslo"}'


def pytest_configure(config):
    if not BASE_URL or not TOKEN:
        raise pytest.UsageError("set REEF_TEST_URL and REEF_TEST_TOKEN; `cargo nextest run -p tests --test clients` does")


@pytest.fixture
def client():
    with openai.OpenAI(base_url=f"{BASE_URL}/v1", api_key=TOKEN, max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture
def http():
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=BASE_URL, headers=headers, timeout=30) as client:
        yield client
