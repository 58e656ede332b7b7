"""What AWS's own checkers and a security checker say about our templates."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from expand import NAMES, REGIONS, ROOT
from house import House

TEMPLATES = [f"infra/aws/{name}.yaml" for name in NAMES]
KEY = "a key of our own costs a dollar a month and region and more per request; AWS's keys encrypt it at rest"

# Checks of checkov that fail, and why that is right here.
EXCEPTIONS = {
    "CKV_AWS_18": "the functions log each call of a tool; S3's own log would need a second bucket that nobody reads",
    "CKV_AWS_26": "alarms say nothing about users, and CloudWatch cannot publish to a topic with AWS's own key",
    "CKV_AWS_27": "checkov knows KMS only; the queues are encrypted by SQS, which a rule of ours checks",
    "CKV_AWS_73": "X-Ray would need a permission on all resources; the logs have ids that connect",
    "CKV_AWS_76": "there is an access log; checkov does not see through the condition",
    "CKV_AWS_86": "each request is in the API's and the gateway's access logs already",
    "CKV_AWS_115": "reserving takes from everybody else in the account, and new accounts have ten; the worker is bounded",
    "CKV_AWS_116": "asynchronous calls come from a schedule that calls again in a minute",
    "CKV_AWS_117": "the functions talk to AWS and model vendors only; a network of our own costs 32 dollars a month and zone",
    "CKV_AWS_119": KEY,
    "CKV_AWS_120": "answers are never the same, and streams cannot be cached",
    "CKV_AWS_149": KEY,
    "CKV_AWS_158": KEY,
    "CKV_AWS_166": KEY,
    "CKV_AWS_173": KEY,
}


def run(*command):
    """Ends of both outputs and the exit code, without this host's own settings."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": tempfile.gettempdir(),
        "AWS_DEFAULT_REGION": REGIONS[0],
        "SAM_CLI_TELEMETRY": "0",
        "LC_ALL": "C.UTF-8",
    }
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


class Linters(unittest.TestCase):
    def command(self, name):
        return str(Path(sys.executable).parent / name)

    def test_cfn_lint_is_content_in_all_regions(self):
        done = run(self.command("cfn-lint"), "--regions", *REGIONS, "--template", *TEMPLATES)
        self.assertEqual((done.returncode, done.stdout), (0, ""), done.stderr)

    def test_cfn_lint_finds_a_fault(self):
        with tempfile.TemporaryDirectory() as folder:
            broken = Path(folder) / "broken.yaml"
            text = (ROOT / TEMPLATES[0]).read_text()
            broken.write_text(text.replace("BillingMode: PAY_PER_REQUEST", "BillingMode: FREE"))
            done = run(self.command("cfn-lint"), "--regions", *REGIONS, "--template", str(broken))
        self.assertIn("'FREE' is not one of", done.stdout)

    def test_sam_validates_every_template(self):
        for template in TEMPLATES:
            with self.subTest(template):
                done = run(self.command("sam"), "validate", "--lint", "--template", template)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_checkov_finds_only_what_is_explained(self):
        house = House()
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for name in NAMES:
                files.append(Path(folder) / f"{name}.json")
                files[-1].write_text(json.dumps(house.expanded(name)))
            done = run(
                str(ROOT / ".venv-checkov/bin/checkov"),
                *("--framework", "cloudformation", "--output", "json", "--quiet", "--skip-download"),
                *("--file", *map(str, files)),
            )
        said = json.loads(done.stdout)
        failed = {one["check_id"]: one["check_name"] for one in said["results"]["failed_checks"]}
        self.assertEqual(said["summary"]["parsing_errors"], 0)
        self.assertEqual({check: failed[check] for check in failed if check not in EXCEPTIONS}, {})
        self.assertEqual([check for check in EXCEPTIONS if check not in failed], [], "exceptions nobody needs")


if __name__ == "__main__":
    unittest.main()
