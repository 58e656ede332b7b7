"""A token with a rate limit of its own: the stock client names the refusal, and waits when it may."""

import os

import openai
import pytest
from conftest import BASE_URL

# Made with one request a second and no burst beyond it.
SLOW_TOKEN = os.environ["REEF_TEST_SLOW_TOKEN"]


def test_too_many_requests_are_named_and_retried_after_the_wait():
    with openai.OpenAI(base_url=f"{BASE_URL}/v1", api_key=SLOW_TOKEN, max_retries=0) as client:
        client.models.list()
        with pytest.raises(openai.RateLimitError) as caught:
            client.models.list()
        assert caught.value.code == "rate_limited"
        assert int(caught.value.response.headers["retry-after"]) >= 1
        # With its usual retries the client reads the header, waits and gets its answer.
        assert client.with_options(max_retries=2).models.list().data
