#!/usr/bin/env bash
# Anthropic's SDK for Python warns of a model's end of life – but not of most ways in which a program meets it.
#
# Package:  anthropic[bedrock,vertex] 2.14.0 (PyPI), read and run on 2026-11-29.
# Guess:    A program on this SDK hears of an ending model wherever it names one: the package carries dates (DEPRECATED_MODELS,
#           in _data/deprecated_models.py) and warns "deprecated and will reach end-of-life on …".
# Seen:     1. Only `messages.create` and its streams look at the list. `messages.count_tokens` and `messages.batches.create`
#              with the same model say nothing: a nightly batch fails first and is warned never.
#           2. The list knows Anthropic's own spelling only. The same model through AnthropicBedrock (`anthropic.…-v1:0`, with or
#              without a region's prefix) or AnthropicVertex (`…@20250929`) passes the same code without a word.
#           3. Models that ended before the release are taken off the list: one retired long ago is as silent as a current one.
#           4. The warning is a DeprecationWarning of the caller's frame: Python shows it only if that is `__main__`. Called from
#              any module of an application, nothing is printed.
# Source:   resources/messages/messages.py (the look-up before the request), resources/messages/batches.py (none).
# Matters:  "The SDK would have warned" is no reason to go without a dated list of one's own. Reef keeps one, which is asked at
#           the start and by `reef config check`, for models that ended as well.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'anthropic[bedrock,vertex]==2.14.0'

cat >"$folder/application.py" <<'PY'
"""A module of an application: not `__main__`."""


def ask(client, model):
    client.messages.create(model=model, max_tokens=8, messages=[{"role": "user", "content": "hello"}])
PY

cat >"$folder/probe.py" <<'PY'
import json
import subprocess
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer

import anthropic

ANSWERS = {
    "count_tokens": {"input_tokens": 3},
    "batches": {
        "id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress", "created_at": "2026-11-29T00:00:00Z",
        "expires_at": "2026-11-30T00:00:00Z", "ended_at": None, "archived_at": None, "cancel_initiated_at": None,
        "results_url": None, "request_counts": {"processing": 1, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0},
    },
    "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "hello"}],
        "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1},
    },
}


class Vendor(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        name = next((name for name in ANSWERS if self.path.endswith(name)), "message")
        body = json.dumps(ANSWERS[name]).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def told(call):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        call()
    return any("end-of-life" in str(warning.message) for warning in heard)


server = HTTPServer(("127.0.0.1", 0), Vendor)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
if sys.argv[1:]:
    # As an application runs: with Python's own filter, from a module.
    import application

    application.ask(anthropic.Anthropic(api_key="k", base_url=sys.argv[1]), "claude-sonnet-4-5")
    sys.exit()

own = anthropic.Anthropic(api_key="k", base_url=url)
bedrock = anthropic.AnthropicBedrock(aws_access_key="a", aws_secret_key="b", aws_region="eu-central-1", base_url=url)
vertex = anthropic.AnthropicVertex(region="global", project_id="p", access_token="t", base_url=url)
words = [{"role": "user", "content": "hello"}]
ends = "claude-sonnet-4-5"


def create(client, model):
    return lambda: client.messages.create(model=model, max_tokens=8, messages=words)


batch = [{"custom_id": "1", "params": {"model": ends, "max_tokens": 8, "messages": words}}]
seen = {
    "create": told(create(own, ends)),
    "count_tokens": told(lambda: own.messages.count_tokens(model=ends, messages=words)),
    "batches": told(lambda: own.messages.batches.create(requests=batch)),
    "bedrock": told(create(bedrock, "anthropic.claude-sonnet-4-5-20250929-v1:0")),
    "bedrock, a region": told(create(bedrock, "eu.anthropic.claude-sonnet-4-5-20250929-v1:0")),
    "vertex": told(create(vertex, "claude-sonnet-4-5@20250929")),
    "ended before": told(create(own, "claude-3-5-sonnet-20241022")),
}
module = subprocess.run([sys.executable, sys.argv[0], url], capture_output=True, text=True, check=True)
seen["from a module, printed"] = "end-of-life" in module.stderr
print(anthropic.__version__, seen)
assert seen == {name: name == "create" for name in seen}, "this has changed"
PY
"$folder/venv/bin/python" "$folder/probe.py"
