"""`sam deploy` of the global stack and of all regions' stacks, into an emulated AWS."""

import json
import socket
import tempfile
import unittest
import urllib.request
from pathlib import Path

from cloud import FUNCTIONS, cloud
from expand import REGIONS

# Stands in for a function: says what it was called with and what its environment is, and tells the test of messages.
STANDIN = """#!/usr/bin/env python3
import json, os, socket, urllib.request
runtime = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2018-06-01/runtime/invocation/"
while True:
    with urllib.request.urlopen(runtime + "next") as call:
        event, id = json.load(call), call.headers["Lambda-Runtime-Aws-Request-Id"]
    for record in event.get("Records", []):
        with socket.create_connection(("127.0.0.1", %d)) as test:
            test.sendall(record["body"].encode())
    body = {"path": event.get("path"), "environment": dict(os.environ)}
    answer = {"statusCode": 200, "body": json.dumps(body), "batchItemFailures": []}
    urllib.request.urlopen(urllib.request.Request(runtime + id + "/response", json.dumps(answer).encode())).read()
"""


class Deploy(unittest.TestCase):
    def test_every_stack_is_deployed_and_works_with_stand_ins_for_the_functions(self):
        with tempfile.TemporaryDirectory() as folder, cloud() as here, socket.create_server(("127.0.0.1", 0)) as seen:
            seen.settimeout(120)
            folder = Path(folder)
            for name in FUNCTIONS.values():
                (folder / name).mkdir()
                (folder / name / "bootstrap").write_text(STANDIN % seen.getsockname()[1])
                (folder / name / "bootstrap").chmod(0o755)
            (folder / "agents").mkdir()
            (folder / "agents/openclaw.json").write_text("{}")

            here.deploy_global({"ANTHROPIC_API_KEY": "key-a", "OPENAI_API_KEY": "key-o"})
            self.assertEqual(here.outputs("reef-dev-global")[0], "CREATE_COMPLETE")
            for region in REGIONS:
                with self.subTest(region):
                    here.deploy_region(region, folder, folder / "agents")
                    self.region(here, region, folder, seen)

    def region(self, here, region, folder, seen):
        status, outputs = here.outputs("reef-dev-region", region)
        self.assertEqual(status, "CREATE_COMPLETE")

        # A request through the API comes to the gateway, which knows where it is, and no key.
        with urllib.request.urlopen(here.api(region)[1] + "/v1/models", timeout=60) as answer:
            said = json.load(answer)
        self.assertIn(said["path"], ("/v1/models", "/live/v1/models"))
        environment = said["environment"]
        ours = {name: value for name, value in environment.items() if name.startswith("REEF_") or name.endswith("_KEY")}
        ours.pop("AWS_SECRET_ACCESS_KEY", None)
        self.assertEqual(
            ours,
            {
                "REEF_CONFIG": str(folder / "agents/openclaw.json"),
                "REEF_REGION": region,
                "REEF_REGIONS": ",".join(REGIONS),
                "REEF_CORE_TABLE": "reef-dev-core",
                "REEF_LOCAL_TABLE": "reef-dev-local",
                "REEF_QUEUE_URL": outputs["JobQueueUrl"],
                "REEF_FILES_BUCKET": outputs["FilesBucketName"],
                "REEF_AGENT_FUNCTION": "reef-dev-agent-invoke:live",
                "REEF_METRICS_NAMESPACE": "Reef/dev",
            },
        )

        # The function that runs turns is called by its alias, and has the keys.
        call = here.client("lambda", region).invoke(FunctionName="reef-dev-agent-invoke:live", Payload=b"{}")
        environment = json.loads(json.load(call["Payload"])["body"])["environment"]
        self.assertEqual((environment["ANTHROPIC_API_KEY"], environment["OPENAI_API_KEY"]), ("key-a", "key-o"))

        # The tables are there.
        table = here.client("dynamodb", region).describe_table(TableName="reef-dev-core")["Table"]
        self.assertEqual(sorted(one["IndexName"] for one in table["GlobalSecondaryIndexes"]), ["due", "listed", "user"])
        here.client("dynamodb", region).describe_table(TableName="reef-dev-local")

        # The bucket is there, and keeps what is overwritten.
        versions = here.client("s3", region).get_bucket_versioning(Bucket=outputs["FilesBucketName"])
        self.assertEqual(versions["Status"], "Enabled")

        # A message comes to the worker.
        here.client("sqs", region).send_message(QueueUrl=outputs["JobQueueUrl"], MessageBody=f"to {region}")
        call, _ = seen.accept()
        with call:
            self.assertEqual(call.recv(1000).decode(), f"to {region}")


if __name__ == "__main__":
    unittest.main()
