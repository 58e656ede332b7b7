"""A cloud on this machine: the emulator `ministack`, and our stacks deployed into it by `sam deploy`.

    .venv-sam/bin/python tests/templates/cloud.py --functions target/lambda --agents infra/agents --demo

deploys the global stack and a region's, with the functions built by `cargo lambda build --release`, and prints where the API
answers. Without `--demo` the vendors' keys are taken from the environment. It ends with Ctrl-C, and everything in it is gone.

What the emulator cannot create is switched off by the stacks' parameters (EMULATED). What it creates, but not whole, is
completed over AWS's API afterwards (`complete_*`): the reasons stand there.
"""

import argparse
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import zlib
from collections import deque
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
from botocore.config import Config
from samcli.yamlhelper import yaml_dump, yaml_parse

from expand import REGIONS, ROOT, source
from house import House, overrides

FUNCTIONS = {"GatewayFunction": "gateway", "AgentInvokeFunction": "agent-invoke", "QueueWorkerFunction": "queue-worker"}

# The parameters that an emulator needs.
EMULATED = {
    "global": {"Backups": "false"},
    "region": {
        "CanaryDeployment": "false",
        "HealthChecks": "false",
        "ComputedAlarms": "false",
        "Architecture": "x86_64",
    },
}


LOOPBACK = "127.0.0.1"


def free_port(host):
    with socket.socket() as listener:
        listener.bind((host, 0))
        return listener.getsockname()[1]


class Failed(Exception):
    """A command failed; its output."""


class Cloud:
    """A running emulator."""

    def __init__(self, endpoint, lambda_endpoint, folder, environment="dev"):
        self.endpoint = endpoint
        # Where our functions call each other.
        self.lambda_endpoint = lambda_endpoint
        self.folder = Path(folder)
        self.environment = environment
        # What the emulator says.
        self.log = deque(maxlen=2000)
        self.sections = House().environments()[environment]

    def variables(self, region=REGIONS[0]):
        """What a program needs to talk to it."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "SAM_CLI_TELEMETRY": "0",
        }

    def client(self, service, region=REGIONS[0]):
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}, read_timeout=120),
        )

    def deploy(self, name, template, given):
        """`sam deploy` with an environment of samconfig.toml; `given` parameters are added to its own."""
        parameters = {**overrides(self.sections[name]), **given}
        command = [
            str(Path(sys.executable).parent / "sam"),
            "deploy",
            *("--config-file", str(ROOT / "samconfig.toml")),
            *("--config-env", f"{self.environment}-{name}"),
            *("--template-file", str(template)),
            *("--parameter-overrides", *(f"{key}={value}" for key, value in parameters.items())),
        ]
        region = self.sections[name]["region"]
        done = subprocess.run(command, cwd=self.folder, env=self.variables(region), capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"{' '.join(command)}\n{done.stdout}{done.stderr}")

    def deploy_global(self, keys):
        self.deploy("global", ROOT / "infra/aws/global.yaml", EMULATED["global"])
        name = f"reef-{self.environment}-provider-keys"
        self.client("secretsmanager").put_secret_value(SecretId=name, SecretString=json.dumps(keys))
        self.complete_replicas()

    def deploy_region(self, region, functions, agents, demo=False):
        """`functions`: a folder with each function's program at `<name>/bootstrap`; `agents`: one with openclaw.json."""
        template = self.built(functions, agents, demo)
        given = {**EMULATED["region"], "SettingsPath": str(Path(agents).resolve() / "openclaw.json")}
        self.deploy(region, template, given)
        self.complete_routes(region)
        self.complete_queue(region)

    def built(self, functions, agents, demo):
        """What `sam build` makes: the template, with each function's program instead of its source. A stack has no parameter
        for the demo model: nobody shall deploy it by mistake."""
        folder = self.folder / "build"
        folder.mkdir(exist_ok=True)
        template = source("region")
        for key, name in FUNCTIONS.items():
            code = folder / name
            shutil.rmtree(code, ignore_errors=True)
            code.mkdir()
            shutil.copy(Path(functions) / name / "bootstrap", code / "bootstrap")
            template["Resources"][key]["Properties"]["CodeUri"] = str(code)
            template["Resources"][key].pop("Metadata")
        template["Resources"]["AgentsLayer"]["Properties"]["ContentUri"] = str(Path(agents).resolve())
        if demo:
            template["Globals"]["Function"]["Environment"]["Variables"]["REEF_DEMO"] = "1"
        (folder / "template.yaml").write_text(yaml_dump(template))
        return folder / "template.yaml"

    def beside(self, region, folder):
        """Writes what it takes to run a deployed function beside the cloud, on its tables and its queue: for `sam local
        invoke` a template, for `cargo lambda watch` the environment of each function."""
        folder.mkdir(parents=True, exist_ok=True)
        template = yaml_parse((self.folder / "build/template.yaml").read_text())
        template["Parameters"]["Architecture"]["Default"] = EMULATED["region"]["Architecture"]
        del template["Globals"]["Function"]["Environment"]
        addresses = {"AWS_ENDPOINT_URL": self.endpoint, "AWS_ENDPOINT_URL_LAMBDA": self.lambda_endpoint}
        for key, name in FUNCTIONS.items():
            known = self.client("lambda", region).get_function_configuration(
                FunctionName=f"reef-{self.environment}-{name}"
            )
            told = {**known["Environment"]["Variables"], **addresses}
            # In a container the layer is where it is on AWS.
            inside = {**told, "REEF_CONFIG": template["Parameters"]["SettingsPath"]["Default"]}
            template["Resources"][key]["Properties"]["Environment"] = {"Variables": inside}
            given = {**self.variables(region), **told}
            lines = [f"{one}={given[one]}" for one in sorted(given) if one.startswith(("AWS_", "REEF_"))]
            (folder / f"{name}.env").write_text("\n".join(lines) + "\n")
        (folder / "template.yaml").write_text(yaml_dump(template))

    def outputs(self, stack, region=REGIONS[0]):
        (found,) = self.client("cloudformation", region).describe_stacks(StackName=stack)["Stacks"]
        return found["StackStatus"], {one["OutputKey"]: one["OutputValue"] for one in found["Outputs"]}

    def api(self, region):
        """Where the region's API answers."""
        (found,) = [
            one
            for one in self.client("apigateway", region).get_rest_apis()["items"]
            if one["name"] == f"reef-{self.environment}"
        ]
        return found["id"], f"{self.endpoint}/_aws/execute-api/{found['id']}/live"

    def complete_replicas(self):
        """The emulator makes a global table in its first region only."""
        table = f"reef-{self.environment}-core"
        for region in REGIONS[1:]:
            self.client("dynamodb").update_table(
                TableName=table, ReplicaUpdates=[{"Create": {"RegionName": region}}]
            )

    def complete_routes(self, region):
        """The emulator reads an API's document, but not its routes for any method."""
        api, _ = self.api(region)
        client = self.client("apigateway", region)
        account = self.client("sts", region).get_caller_identity()["Account"]
        alias = f"arn:aws:lambda:{region}:{account}:function:reef-{self.environment}-gateway:live"
        root = next(one["id"] for one in client.get_resources(restApiId=api)["items"] if one["path"] == "/")
        known = {one["path"]: one["id"] for one in client.get_resources(restApiId=api)["items"]}
        for path in ("/", "/{proxy+}"):
            if path not in known:
                known[path] = client.create_resource(restApiId=api, parentId=root, pathPart=path[1:])["id"]
            client.put_method(restApiId=api, resourceId=known[path], httpMethod="ANY", authorizationType="NONE")
            client.put_integration(
                restApiId=api,
                resourceId=known[path],
                httpMethod="ANY",
                type="AWS_PROXY",
                integrationHttpMethod="POST",
                uri=f"arn:aws:apigateway:{region}:lambda:path/2015-03-31/functions/{alias}/invocations",
            )
        client.create_deployment(restApiId=api, stageName="live")

    def complete_queue(self, region):
        """The emulator keeps a number that comes from a parameter as text, and then cannot compare it."""
        client = self.client("lambda", region)
        for one in client.list_event_source_mappings()["EventSourceMappings"]:
            most = int(one["ScalingConfig"]["MaximumConcurrency"])
            client.update_event_source_mapping(UUID=one["UUID"], ScalingConfig={"MaximumConcurrency": most})


@contextmanager
def cloud(host=LOOPBACK):
    """Starts the emulator, and ends it with all that it started. `host`: the address where it listens."""
    program = ROOT / ".venv-emulators/bin/ministack"
    if not program.exists():
        raise Failed(f"{program} is missing: `tests/run tools` installs it")
    endpoint = f"http://{host}:{free_port(host)}"
    streams = serving(type("StreamsOf", (Streams,), {"endpoint": endpoint}), host)
    with tempfile.TemporaryDirectory() as folder, streams as lambda_endpoint:
        server = Cloud(endpoint, lambda_endpoint, folder)
        running = subprocess.Popen(
            [str(program)],
            cwd=folder,
            # Without its own address, the functions it starts would ask the real AWS.
            env={
                **server.variables(),
                "AWS_ENDPOINT_URL_LAMBDA": lambda_endpoint,
                # It unpacks the functions there, and leaves them.
                "TMPDIR": folder,
                "BIND_HOST": host,
                "GATEWAY_PORT": endpoint.rsplit(":", 1)[1],
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            if not any("Running on http" in line for line in running.stderr):
                raise Failed("the emulator did not start")
            # Whoever writes to a full pipe waits for ever.
            reader = threading.Thread(target=server.log.extend, args=(running.stderr,))
            reader.start()
            yield server
        finally:
            running.terminate()
            running.wait()
            if "reader" in locals():
                reader.join()
            running.stderr.close()


class Front(BaseHTTPRequestHandler):
    """HTTP in front of the emulator's API. A function that streams sends its answer's status and headers as JSON before
    the body; AWS reads them, the emulator hands them on as a part of the body."""

    api = ""

    def answer(self):
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length) if length else None
        request = urllib.request.Request(self.api + self.path, body, method=self.command)
        for name, value in self.headers.items():
            if name.lower() not in ("host", "connection", "content-length"):
                request.add_header(name, value)
        # As AWS's API says it: it takes HTTPS only.
        request.add_header("X-Forwarded-For", self.client_address[0])
        request.add_header("X-Forwarded-Proto", "https")
        try:
            with urllib.request.urlopen(request, timeout=900) as given:
                status, headers, said = given.status, dict(given.headers), given.read()
        except urllib.error.HTTPError as refused:
            status, headers, said = refused.code, dict(refused.headers), refused.read()
        head, end, rest = said.partition(b"\0" * 8)
        if end:
            head = json.loads(head)
            status, headers, said = head["statusCode"], head.get("headers", {}), rest
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = do_OPTIONS = answer

    def log_message(self, *_):
        pass


class Streams(BaseHTTPRequestHandler):
    """Lambda's API in front of the emulator's. The emulator takes a streamed answer for a text and hands it on as JSON, in
    quotes; this takes them off again."""

    endpoint = ""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        request = urllib.request.Request(self.endpoint + self.path, body, method="POST")
        for name in ("content-type", "authorization", "x-amz-date"):
            if name in self.headers:
                request.add_header(name, self.headers[name])
        try:
            with urllib.request.urlopen(request, timeout=900) as given:
                status, kind, said = given.status, given.headers["content-type"], b"".join(unquoted(given.read()))
        except urllib.error.HTTPError as refused:
            status, kind, said = refused.code, refused.headers["content-type"], refused.read()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_):
        pass


def unquoted(stream):
    """The messages of an event stream; a payload that is a JSON text becomes that text. A message is: its length, that of
    its headers, a checksum of both, headers, payload, a checksum of all."""
    while stream:
        length, headers = struct.unpack(">II", stream[:8])
        message, stream = stream[:length], stream[length:]
        head, payload = message[12 : 12 + headers], message[12 + headers : -4]
        if payload.startswith(b'"'):
            payload = json.loads(payload).encode()
        sizes = struct.pack(">II", 16 + headers + len(payload), headers)
        message = sizes + struct.pack(">I", zlib.crc32(sizes)) + head + payload
        yield message + struct.pack(">I", zlib.crc32(message))


@contextmanager
def serving(handler, host=LOOPBACK):
    """A server of this handler, while it is needed: its address."""
    with ThreadingHTTPServer((host, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{host}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def front(api):
    """Where an HTTP client reaches this API. Answers come whole: the emulator holds streams back."""
    return serving(type("FrontOf", (Front,), {"api": api}))


def main():
    parser = argparse.ArgumentParser(description="A cloud on this machine, emulated.")
    parser.add_argument("--functions", required=True, type=Path, help="folder with <function>/bootstrap")
    parser.add_argument("--agents", default=ROOT / "infra/agents", type=Path, help="folder with openclaw.json")
    parser.add_argument("--demo", action="store_true", help="every agent on the demo model, which needs no key")
    parser.add_argument("--beside", type=Path, metavar="FOLDER", help="write there what running a function by hand takes")
    parser.add_argument("--host", default=LOOPBACK, help="address of the emulated AWS; for containers Docker's bridge")
    parser.add_argument("--region", default=REGIONS[0], choices=REGIONS)
    given = parser.parse_args()
    keys = {name: os.environ.get(name, "") for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY")}
    if not given.demo and not any(keys.values()):
        parser.error("the agents' models need a key: set ANTHROPIC_API_KEY or OPENAI_API_KEY, or give --demo")
    try:
        with cloud(given.host) as here:
            print("deploying …", flush=True)
            here.deploy_global(keys)
            here.deploy_region(given.region, given.functions, given.agents, given.demo)
            if given.beside:
                here.beside(given.region, given.beside)
            with front(here.api(given.region)[1]) as url:
                print(f"{url}\nAWS_ENDPOINT_URL={here.endpoint}\nCtrl-C ends it", flush=True)
                sys.stdin.read()
    except KeyboardInterrupt:
        pass
    except Failed as failed:
        sys.exit(str(failed))


if __name__ == "__main__":
    main()
