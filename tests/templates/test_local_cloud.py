"""A chat turn and a job through the deployed stack, with the real functions, all in an emulated AWS.

`tests/templates.rs` names the programs: REEF_TEST_GATEWAY, REEF_TEST_AGENT_INVOKE, REEF_TEST_QUEUE_WORKER, and REEF_TEST_REEF
for the operator's commands.
"""

import json
import os
import subprocess
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from samcli.yamlhelper import yaml_parse

from cloud import FUNCTIONS, cloud, front
from expand import ROOT

AGENTS = ROOT / "infra/agents"
REGION = "us-east-1"


class LocalCloud(unittest.TestCase):
    maxDiff = None

    def reef(self, *arguments):
        """A command of the operator on the environment's data."""
        done = subprocess.run(
            [os.environ["REEF_TEST_REEF"], "--aws", "dev", *arguments, "--json"],
            env=self.here.variables(REGION),
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, f"{arguments}: {done.stderr}")
        return json.loads(done.stdout)

    def ask(self, path, body):
        request = urllib.request.Request(
            self.url + path,
            json.dumps(body).encode(),
            {"authorization": f"Bearer {self.token}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            self.fail(f"{path}: {refused.code} {refused.read()}\n" + "".join(list(self.here.log)[-40:]))

    def ready(self):
        """The status of /readyz."""
        try:
            with urllib.request.urlopen(self.url + "/readyz", timeout=60) as answer:
                return answer.status
        except urllib.error.HTTPError as refused:
            return refused.code

    def test_a_chat_turn_and_a_job_run_through_the_deployed_stack(self):
        with tempfile.TemporaryDirectory() as folder, cloud() as self.here:
            folder = Path(folder)
            for name in FUNCTIONS.values():
                (folder / name).mkdir()
                program = os.environ["REEF_TEST_" + name.upper().replace("-", "_")]
                subprocess.run(["strip", "-o", folder / name / "bootstrap", program], check=True)
            # As the README shows it: no keys, and the example agents on the demo model.
            self.here.deploy_global({"ANTHROPIC_API_KEY": "", "OPENAI_API_KEY": ""})
            self.here.deploy_region(REGION, folder, AGENTS, demo=True)

            self.url = self.enterContext(front(self.here.api(REGION)[1]))

            made = self.reef("token", "create", "--name", "test", "--scopes", "admin")
            self.token = made["token"]
            self.assertEqual([one["name"] for one in self.reef("token", "list")], ["test"])

            # A chat turn: gateway, agent-invoke, tables.
            question = {"role": "user", "content": "hello cloud"}
            answer = self.ask("/v1/chat/completions", {"model": "openclaw", "user": "ann", "messages": [question]})
            self.assertEqual(answer["choices"][0]["finish_reason"], "stop", answer)
            self.assertIn("hello cloud", answer["choices"][0]["message"]["content"])
            (session,) = self.reef("sessions", "list")
            self.assertEqual(session["agent"], "email-manager")

            # A job: gateway, queue, queue-worker, tables.
            admitted = self.ask("/hooks/agent", {"message": "from a hook", "agentId": "data-analyst"})
            self.assertEqual(admitted["ok"], True)
            end = time.monotonic() + 120
            while [job["state"] for job in self.reef("jobs", "list")["jobs"]] != ["done"]:
                self.assertLess(time.monotonic(), end, self.reef("jobs", "list"))
            self.assertEqual(len(self.reef("sessions", "list")), 2)
            self.assertTrue(self.reef("audit", "verify")["ok"])

            # A tool writes a file: gateway, bucket.
            call = {"tool": "write", "args": {"path": "notes/a.txt", "content": "a note"}}
            self.assertEqual(self.ask("/tools/invoke", call)["ok"], True)
            bucket = self.here.outputs("reef-dev-region")[1]["FilesBucketName"]
            written = self.here.client("s3").get_object(Bucket=bucket, Key="agents/main/email-manager/notes/a.txt")
            self.assertEqual(written["Body"].read(), b"a note")

            # The schedule's event is a sign of life; whoever is evacuated is not ready.
            sweep = (ROOT / "events/queue-worker-schedule.json").read_bytes()
            self.here.client("lambda").invoke(FunctionName="reef-dev-queue-worker:live", Payload=sweep)
            (state,) = [one for one in self.reef("region", "status") if one["region"] == REGION]
            self.assertEqual((state["in_service"], state["beat_at"] is None), (True, False))
            self.assertEqual(self.ready(), 200)
            self.assertEqual(self.reef("region", "evacuate", REGION)["in_service"], False)
            self.assertEqual(self.ready(), 503)
            self.assertEqual(self.reef("region", "restore", REGION)["in_service"], True)
            self.assertEqual(self.ready(), 200)

            # A function that is run by hand meets the same tables and the same queue.
            self.here.beside(REGION, folder / "beside")
            for name in FUNCTIONS.values():
                lines = (folder / f"beside/{name}.env").read_text().splitlines()
                told = dict(line.split("=", 1) for line in lines)
                self.assertEqual(told["AWS_ENDPOINT_URL"], self.here.endpoint)
                self.assertEqual((told["REEF_CORE_TABLE"], told["REEF_LOCAL_TABLE"]), ("reef-dev-core", "reef-dev-local"))
                self.assertTrue(told["REEF_QUEUE_URL"].endswith("/reef-dev-jobs"), told)
                self.assertEqual((told["REEF_CONFIG"], told["REEF_DEMO"]), (str(AGENTS / "openclaw.json"), "1"))
            made = yaml_parse((folder / "beside/template.yaml").read_text())
            for key in FUNCTIONS:
                told = made["Resources"][key]["Properties"]["Environment"]["Variables"]
                self.assertEqual((told["AWS_ENDPOINT_URL"], told["REEF_CONFIG"]), (self.here.endpoint, "/opt/openclaw.json"))


if __name__ == "__main__":
    unittest.main()
