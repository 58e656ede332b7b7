"""The check before traffic, as it stands in the template."""

import io
import json
import os
import unittest
from unittest import mock

from expand import ROOT
from house import House
from rules import FUNCTIONS

PROPERTIES = House().properties("region", "PreTrafficCheckFunction")
VERSIONS = {"GATEWAY": "gateway:7", "AGENT_INVOKE": "agent-invoke:7", "QUEUE_WORKER": "queue-worker:7"}
EVENT = {"DeploymentId": "d-1", "LifecycleEventHookExecutionId": "x-1"}


class Functions:
    """Stands in for Lambda: each version's answer, an error if it is one."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = {}

    def invoke(self, FunctionName, Payload):
        self.asked[FunctionName] = json.loads(Payload)
        answer = self.answers[FunctionName]
        if isinstance(answer, Exception):
            raise answer
        return {"Payload": io.BytesIO(answer.encode()), **({"FunctionError": "Unhandled"} if "errorType" in answer else {})}


def run(answers):
    """What CodeDeploy is told, and what the functions were asked."""
    module = {"__name__": "index"}
    with mock.patch.dict("sys.modules", {"boto3": mock.Mock()}), mock.patch.dict(os.environ, VERSIONS):
        exec(PROPERTIES["Code"]["ZipFile"], module)
        functions, deployments = Functions(answers), mock.Mock()
        with mock.patch("builtins.print"):
            module["handler"](EVENT, None, functions, deployments)
    (told,) = deployments.put_lifecycle_event_hook_execution_status.call_args_list
    return told.kwargs, functions.asked


READY = {
    VERSIONS["GATEWAY"]: '{"statusCode":200}\0\0\0\0\0\0\0\0{"ok": true, "status": "started"}',
    VERSIONS["AGENT_INVOKE"]: '{"ready": true}',
    VERSIONS["QUEUE_WORKER"]: '{"ready": true}',
}


class PreTraffic(unittest.TestCase):
    def test_traffic_may_come_when_all_versions_are_ready(self):
        told, asked = run(READY)
        self.assertEqual(
            told,
            {"deploymentId": "d-1", "lifecycleEventHookExecutionId": "x-1", "status": "Succeeded"},
        )
        self.assertEqual(list(asked), list(VERSIONS.values()))
        recorded = [json.loads((ROOT / f"events/{name}-check.json").read_text()) for name in FUNCTIONS]
        self.assertEqual(list(asked.values()), recorded)

    def test_one_version_that_is_not_ready_stops_the_deployment(self):
        for version in VERSIONS.values():
            crashed = '{"errorType":"Runtime.ExitError","ready":true,"status":"started"}'
            for answer in ('{"ready":false,"status":"draining"}', crashed, ValueError("no such")):
                with self.subTest(version, answer=answer):
                    self.assertEqual(run({**READY, version: answer})[0]["status"], "Failed")

    def test_it_is_told_of_all_three_versions(self):
        variables = PROPERTIES["Environment"]["Variables"]
        wanted = {"GATEWAY": "GatewayFunction", "AGENT_INVOKE": "AgentInvokeFunction", "QUEUE_WORKER": "QueueWorkerFunction"}
        self.assertEqual(variables, {name: {"Ref": f"{key}.Version"} for name, key in wanted.items()})

    def test_it_fits_into_a_template(self):
        self.assertLess(len(PROPERTIES["Code"]["ZipFile"]), 4096)


if __name__ == "__main__":
    unittest.main()
