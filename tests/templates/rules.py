"""The rules. Each takes a `House` and gives the problems it finds, as sentences."""

import copy
import json
import re

from expand import NAMES, REGIONS, ROOT, Resolver, expand
from house import EVERYTHING, SCHEMA, House, alarm_dimensions, listed, overrides, reported, schema, statements, written

RULES = []

SECTIONS = (
    "AWSTemplateFormatVersion",
    "Transform",
    "Description",
    "Parameters",
    "Rules",
    "Conditions",
    "Globals",
    "Resources",
    "Outputs",
)

# Policies of AWS that we attach, because what they allow is AWS's business and changes with it.
MANAGED_POLICIES = {
    "AWSBackupServiceRolePolicyForBackup": "AWS Backup's own role for making copies",
    "AWSCodeDeployRoleForLambdaLimited": "CodeDeploy's own role for moving aliases; the narrower of two",
    "AmazonAPIGatewayPushToCloudWatchLogs": "API Gateway's one logging role of the account; its log groups cannot be named",
}

# Where a resource of a policy may end in `*`, and why there is no narrower way.
OPEN_ENDED = {
    r":function:reef-\w+-(gateway|agent-invoke|queue-worker):\*$": "versions get their numbers when they are published",
    r"^<FilesBucket\.Arn>/agents/\*$": "files get their names from agents",
    r":deploymentgroup:stack-ServerlessDeploymentApplication-\*/\*$": "SAM's application has no name that could be given",
}

# Names that AWS would otherwise make up.
NAMED = {
    "AWS::DynamoDB::GlobalTable": "TableName",
    "AWS::DynamoDB::Table": "TableName",
    "AWS::S3::Bucket": "BucketName",
    "AWS::SQS::Queue": "QueueName",
    "AWS::SNS::Topic": "TopicName",
    "AWS::Lambda::Function": "FunctionName",
    "AWS::Lambda::LayerVersion": "LayerName",
    "AWS::IAM::Role": "RoleName",
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::CloudWatch::Alarm": "AlarmName",
    "AWS::CloudWatch::CompositeAlarm": "AlarmName",
    "AWS::CloudWatch::Dashboard": "DashboardName",
    "AWS::SecretsManager::Secret": "Name",
    "AWS::Scheduler::Schedule": "Name",
    "AWS::ApiGateway::RestApi": "Name",
    "AWS::WAFv2::WebACL": "Name",
    "AWS::Backup::BackupVault": "BackupVaultName",
}

# The guide's shortest times in days; one log group holds operation, error and access logs.
SHORTEST_RETENTION = max(90, 30, 180)

# Settings that people choose for a process; a stack does not.
CHOSEN_BY_PEOPLE = {"REEF_DEMO", "REEF_LOG"}

# The secret's keys; only functions that ask models hold them.
VENDORS_KEYS = {"ANTHROPIC_API_KEY", "OPENAI_API_KEY"}

# Alarms that take a new version back.
ROLL_BACK = [
    "<GatewayErrorsAlarm>",
    "<AgentInvokeErrorsAlarm>",
    "<QueueWorkerErrorsAlarm>",
    "<HighErrorRateAlarm>",
]

FUNCTIONS = ("gateway", "agent-invoke", "queue-worker")

# Another value than the one in EVERYTHING for each of region.yaml's parameters that does not list its values.
OTHER_VALUES = {
    "Environment": "test",
    "Regions": "us-east-1,eu-central-1",
    "FunctionMemoryMb": "512",
    "SettingsPath": "/opt/other.json",
    "WorkerConcurrency": "3",
    "ProviderKeysVersion": "0123abcd-0123-0123-0123-0123456789ab",
    "DomainName": "other.example.com",
    "HostedZoneId": "Z1111111EXAMPLE",
    "AlarmEmail": "others@example.com",
}

# The most characters that Lambda takes for a version's description.
LONGEST_DESCRIPTION = 256


def rule(function):
    RULES.append(function)
    return function


def functions(house):
    """Our functions by name: (logical id, properties)."""
    found = house.resources("region", "AWS::Lambda::Function")
    return {
        one["Properties"]["FunctionName"].removeprefix("reef-dev-"): (key, one["Properties"])
        for key, one in found.items()
        if one["Properties"]["Runtime"].startswith("provided")
    }


# --- Form ------------------------------------------------------------------------------------------------------------


@rule
def sections_stand_in_one_order(house):
    for name in NAMES:
        found = list(house.templates[name])
        if found != [one for one in SECTIONS if one in found]:
            yield f"{name}: sections are {found}"


@rule
def a_parameter_has_description_default_and_constraint(house):
    for name in NAMES:
        for key, one in house.templates[name]["Parameters"].items():
            for needed in ("Description", "Default"):
                if needed not in one:
                    yield f"{name}: {key} has no {needed}"
            if not {"AllowedValues", "AllowedPattern", "MinValue"} & set(one):
                yield f"{name}: {key} takes anything"
            if "AllowedPattern" in one and "ConstraintDescription" not in one:
                yield f"{name}: {key} does not say what it takes"
            if "AllowedPattern" in one:
                values = str(one["Default"]).split(",") if one["Type"] == "CommaDelimitedList" else [one["Default"]]
                if not all(re.fullmatch(one["AllowedPattern"], value) for value in values):
                    yield f"{name}: {key}'s default is not what it takes"


@rule
def nothing_is_exported_or_imported(house):
    for name in NAMES:
        text = json.dumps(house.templates[name])
        for word in ("Export", "Fn::ImportValue"):
            if f'"{word}"' in text:
                yield f"{name}: {word}"


@rule
def names_are_given_and_hold_the_environment(house):
    for name, key, one in house.everywhere(*NAMED):
        given = one["Properties"].get(NAMED[one["Type"]])
        if not given or "dev" not in str(given):
            yield f"{name}: {key} is named {given}"


@rule
def roles_and_policies_of_two_regions_have_different_names(house):
    here, there = (
        {
            key: one["Properties"][NAMED[one["Type"]]]
            for key, one in house.resources("region", "AWS::IAM::Role", "AWS::IAM::ManagedPolicy", region=region).items()
        }
        for region in REGIONS[:2]
    )
    for key in here:
        if here[key] == there[key]:
            yield f"{key} is named {here[key]} in both regions, but names of roles count for the whole account"


# --- API -------------------------------------------------------------------------------------------------------------


@rule
def every_route_streams(house):
    apis = house.resources("region", "AWS::ApiGateway::RestApi")
    if len(apis) != 1:
        yield f"{len(apis)} REST APIs"
    for api in apis.values():
        paths = api["Properties"]["Body"]["paths"]
        if set(paths) != {"/", "/{proxy+}"}:
            yield f"routes are {sorted(paths)}"
        for path, methods in paths.items():
            for method, operation in methods.items():
                integration = operation["x-amazon-apigateway-integration"]
                if integration.get("responseTransferMode") != "STREAM":
                    yield f"{method} {path} is buffered"
                if "/2021-11-15/functions/" not in integration["uri"]:
                    yield f"{method} {path} calls {integration['uri']}"
                if not integration["uri"].endswith("/response-streaming-invocations"):
                    yield f"{method} {path} calls {integration['uri']}"
                if "GatewayFunctionAlias" not in integration["uri"]:
                    yield f"{method} {path} does not call the gateway's alias"
                if integration.get("timeoutInMillis") != 900_000:
                    yield f"{method} {path} is cut off after {integration.get('timeoutInMillis')} ms"


@rule
def the_edge_is_strict_and_never_chooses_a_region(house):
    (distribution,) = house.resources("edge", "AWS::CloudFront::Distribution").values()
    config = distribution["Properties"]["DistributionConfig"]
    behaviour = config["DefaultCacheBehavior"]
    wanted = {
        "TLS": (config["ViewerCertificate"]["MinimumProtocolVersion"], "TLSv1.2_2021"),
        "origin groups": ("OriginGroups" in config, False),
        "origins": (len(config["Origins"]), 1),
        "origin protocol": (config["Origins"][0]["CustomOriginConfig"]["OriginProtocolPolicy"], "https-only"),
        "plain HTTP": (behaviour["ViewerProtocolPolicy"], "redirect-to-https"),
        "cache policy": (behaviour["CachePolicyId"], "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"),
        "compression": (behaviour["Compress"], False),
        "methods": ("POST" in behaviour["AllowedMethods"], True),
        "more behaviours": ("CacheBehaviors" in config, False),
    }
    (headers,) = house.resources("edge", "AWS::CloudFront::ResponseHeadersPolicy").values()
    headers = headers["Properties"]["ResponseHeadersPolicyConfig"]["SecurityHeadersConfig"]
    security = headers["StrictTransportSecurity"]
    wanted["HSTS"] = (security["AccessControlMaxAgeSec"], 63_072_000)
    wanted["HSTS of other names"] = (security["IncludeSubdomains"], False)
    wanted["waiting for the origin"] = (config["Origins"][0]["CustomOriginConfig"]["OriginReadTimeout"], 120)
    wanted["frames"] = (headers["FrameOptions"]["FrameOption"], "DENY")
    wanted["sniffing"] = ("ContentTypeOptions" in headers, True)
    for what, (found, right) in wanted.items():
        if found != right:
            yield f"{what}: {found}, not {right}"


@rule
def the_region_answers_with_tls_1_2_under_its_domain(house):
    for key, one in house.resources("region", "AWS::ApiGateway::DomainName").items():
        if one["Properties"].get("SecurityPolicy") != "TLS_1_2":
            yield f"{key}: {one['Properties'].get('SecurityPolicy')}"
    (record,) = house.resources("region", "AWS::Route53::RecordSet").values()
    if not {"Region", "SetIdentifier", "HealthCheckId"} <= set(record["Properties"]):
        yield "the record is no latency record with a health check"
    (check,) = house.resources("region", "AWS::Route53::HealthCheck").values()
    if not check["Properties"]["HealthCheckConfig"]["ResourcePath"].endswith("/readyz"):
        yield "the health check does not ask /readyz, which knows the region's flag"


# --- Rights ----------------------------------------------------------------------------------------------------------


@rule
def no_policy_has_a_star_for_actions_or_resources(house):
    for name, key, one in house.everywhere("AWS::IAM::Role", "AWS::IAM::ManagedPolicy", "AWS::SNS::TopicPolicy"):
        for statement in statements(one):
            where = f"{name}: {key}, {statement.get('Sid')}"
            if "NotAction" in statement or "NotResource" in statement:
                yield f"{where}: says what is not allowed"
            for action in listed(statement["Action"]):
                if "*" in action:
                    yield f"{where}: action {action}"
            for resource in listed(statement["Resource"]):
                if "*" not in resource:
                    continue
                if any(re.search(pattern, resource) for pattern in OPEN_ENDED):
                    continue
                # Any region, but only those of the environment.
                condition = statement.get("Condition", {}).get("StringEquals", {}).get("aws:RequestedRegion")
                one_region = re.fullmatch(r"arn:aws:lambda:\*:[^*]+", resource)
                if one_region and living(condition or []) == list(REGIONS):
                    continue
                yield f"{where}: resource {resource}"


@rule
def only_known_policies_of_aws_are_attached(house):
    for name, key, one in house.everywhere("AWS::IAM::Role"):
        for policy in one["Properties"].get("ManagedPolicyArns", []):
            if policy.startswith("arn:aws:iam::aws:") and policy.split("/")[-1] not in MANAGED_POLICIES:
                yield f"{name}: {key} has {policy}"


@rule
def every_function_has_a_role_of_its_own(house):
    roles = [one["Properties"]["Role"] for one in house.resources("region", "AWS::Lambda::Function").values()]
    for role in roles:
        if roles.count(role) > 1:
            yield f"{role} is shared"
    for key in house.resources("region", "AWS::IAM::Role"):
        if key.endswith("FunctionRole"):
            yield f"{key} was made up by SAM"


def short(resource):
    """A right's resource without what is the same for all."""
    known = re.sub(r"^arn:aws:\w+:[\w*-]*:\d+:(table/|function:)reef-dev-", "", resource).replace("/index/", "/")
    return known.replace("<LocalTable.Arn>", "local")


def rights(house, function):
    """{resource: what the function may do with it}, by its role's own statements and those of our policies."""
    resources = house.resources("region")
    role = resources[functions(house)[function][1]["Role"].strip("<>").removesuffix(".Arn")]
    ours = [resources[one.strip("<>")] for one in role["Properties"]["ManagedPolicyArns"] if one.strip("<>") in resources]
    found = {}
    for statement in (one for policy in [role, *ours] for one in statements(policy) if one["Effect"] == "Allow"):
        for resource in listed(statement["Resource"]):
            found.setdefault(short(resource), set()).update(listed(statement["Action"]))
    return found


@rule
def a_function_may_do_what_its_code_does(house):
    items = {"dynamodb:GetItem", "dynamodb:Query", *written()}
    files = {
        "<FilesBucket.Arn>": {"s3:ListBucket"},
        "<FilesBucket.Arn>/agents/*": {"s3:GetObject", "s3:PutObject"},
    }
    log = {"logs:CreateLogStream", "logs:PutLogEvents"}
    counting = {"dynamodb:GetItem", *written("limits")}
    receiving = {f"sqs:{one}" for one in ("DeleteMessage", "GetQueueAttributes", "ReceiveMessage", "SendMessage")}
    wanted = {
        "gateway": {
            "core": items | {"dynamodb:BatchGetItem"},
            "core/listed": {"dynamodb:Query"},
            "core/user": {"dynamodb:Query"},
            "local": counting,
            "<JobQueue.Arn>": {"sqs:SendMessage"},
            "agent-invoke:live": {"lambda:InvokeFunction"},
            "<GatewayLogs.Arn>": log,
            **files,
        },
        "agent-invoke": {"core": items, "<AgentInvokeLogs.Arn>": log, **files},
        "queue-worker": {
            "core": items | {"dynamodb:BatchGetItem"},
            "core/due": {"dynamodb:Query"},
            "local": {"dynamodb:GetItem", "dynamodb:PutItem"},
            "<JobQueue.Arn>": receiving,
            "agent-invoke:live": {"lambda:InvokeFunction"},
            "<QueueWorkerLogs.Arn>": log,
            **files,
        },
    }
    for function in functions(house):
        found = rights(house, function)
        for resource in sorted({*found, *wanted[function]}):
            may, needs = found.get(resource, set()), wanted[function].get(resource, set())
            if may != needs:
                yield f"{function} may do {sorted(may)} with {resource}, and does {sorted(needs)}"


@rule
def the_worker_calls_other_regions_only(house):
    for region in REGIONS:
        for one in statements(house.resources("region", "AWS::IAM::Role", region=region)["QueueWorkerRole"]):
            if one["Action"] == "lambda:InvokeFunction":
                left_out = one["Condition"].get("StringNotEquals", {})
                if left_out != {"aws:RequestedRegion": region}:
                    yield f"the worker in {region} may call its own region: all but {left_out}"


@rule
def a_function_writes_no_tokens(house):
    text = (SCHEMA.parent / "keys.rs").read_text()
    prefix = re.search(r'fn token\(.*?format!\("(\w+#)', text, re.S).group(1)
    writing = {f"dynamodb:{one}" for one in ("BatchWriteItem", "DeleteItem", "PutItem", "UpdateItem")}
    policy = house.resources("region", "AWS::IAM::ManagedPolicy")["StoresPolicy"]
    denied = [one for one in statements(policy) if one["Effect"] == "Deny"]
    condition = {"ForAnyValue:StringLike": {"dynamodb:LeadingKeys": f"{prefix}*"}}
    if not any(
        set(listed(one["Action"])) == writing
        and short(listed(one["Resource"])[0]) == "core"
        and one.get("Condition") == condition
        for one in denied
    ):
        yield f"functions may write the rows {prefix}*: denied is {denied}"
    for function, (_, properties) in functions(house).items():
        role = house.resources("region", "AWS::IAM::Role")[properties["Role"].strip("<>").removesuffix(".Arn")]
        if "<StoresPolicy>" not in role["Properties"]["ManagedPolicyArns"]:
            yield f"{function} is denied nothing"


@rule
def a_role_serves_one_of_aws_principals(house):
    for name, key, one in house.everywhere("AWS::IAM::Role"):
        for statement in one["Properties"]["AssumeRolePolicyDocument"]["Statement"]:
            if list(statement["Principal"]) != ["Service"]:
                yield f"{name}: {key} may be taken by {statement['Principal']}"


# --- Functions -------------------------------------------------------------------------------------------------------


@rule
def the_functions_are_those_of_the_workspace(house):
    found = functions(house)
    if set(found) != set(FUNCTIONS):
        yield f"functions are {sorted(found)}"
    for name in found:
        resource = house.templates["region"]["Resources"][found[name][0]]
        metadata, code = resource.get("Metadata", {}), resource["Properties"].get("CodeUri")
        build = {key: metadata.get(key) for key in ("BuildMethod", "BuildProperties")}
        if build != {"BuildMethod": "rust-cargolambda", "BuildProperties": {"Binary": name}}:
            yield f"{name} is built by {build}"
        # Its own folder: at the top Cargo builds `reef`, and at other settings.
        if code != f"../../functions/{name}":
            yield f"{name} is built in {code}"
        if not (ROOT / f"functions/{name}/Cargo.toml").exists():
            yield f"there is no functions/{name}"
        if found[name][1]["Architectures"] != ["arm64"]:
            yield f"{name} runs on {found[name][1]['Architectures']}"


@rule
def the_functions_are_told_what_their_settings_need(house):
    text = (ROOT / "shared/src/config/cloud.rs").read_text()
    block = re.search(r"pub const VARIABLES: \[&str; \d+\] = \[(.*?)\];", text, re.S).group(1)
    known = set(re.findall(r'"(\w+)"', block))
    for name, (_, properties) in functions(house).items():
        variables = set(properties["Environment"]["Variables"])
        ours = {one for one in variables if one.startswith("REEF_")}
        for missing in sorted(known - ours - CHOSEN_BY_PEOPLE):
            yield f"{name} is not told {missing}"
        for unknown in sorted(ours - known):
            yield f"{name} is told {unknown}, which it does not read"
        keys = {one for one in variables if one.endswith("_API_KEY")}
        if keys != (set() if name == "gateway" else VENDORS_KEYS):
            yield f"{name} holds the keys {sorted(keys)}"
        if name == "gateway" and "AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH" not in variables:
            yield "the gateway takes the stage for a part of its paths"


@rule
def what_the_schedules_send_are_the_recorded_events(house):
    def event(name):
        return json.loads((ROOT / f"events/{name}.json").read_text())

    wanted = {
        "GatewayFunctionProbe": event("gateway-probe"),
        "QueueWorkerFunctionSweep": event("queue-worker-schedule"),
    }
    for key, one in house.resources("region", "AWS::Scheduler::Schedule").items():
        if json.loads(one["Properties"]["Target"]["Input"]) != wanted.get(key):
            yield f"{key} sends {one['Properties']['Target']['Input']}"


@rule
def a_new_version_takes_over_in_steps_and_is_taken_back_by_alarms(house):
    aliases = house.resources("region", "AWS::Lambda::Alias")
    groups = house.resources("region", "AWS::CodeDeploy::DeploymentGroup")
    for name, (key, _) in functions(house).items():
        alias = aliases.get(f"{key}Aliaslive")
        update = (alias or {}).get("UpdatePolicy", {}).get("CodeDeployLambdaAliasUpdate", {})
        if update.get("BeforeAllowTrafficHook") != "<PreTrafficCheckFunction>":
            yield f"{name} gets traffic unchecked"
        group = groups.get(f"{key}DeploymentGroup", {}).get("Properties", {})
        alarms = [one["Name"] for one in group.get("AlarmConfiguration", {}).get("Alarms", [])]
        if alarms != ROLL_BACK:
            yield f"{name} is taken back by {alarms}"
        if "DEPLOYMENT_STOP_ON_ALARM" not in group.get("AutoRollbackConfiguration", {}).get("Events", []):
            yield f"{name} is not taken back by an alarm"
        if "Canary10Percent5Minutes" not in str(group.get("DeploymentConfigName")):
            yield f"{name} takes over by {group.get('DeploymentConfigName')}"


def published(house, given=None, layer="layer.zip"):
    """{function: (its settings, its version)} as a deployment with these parameters and this layer makes them."""
    given = {**EVERYTHING["region"], **(given or {})}
    found = Resolver(expand(house.templates["region"], given, layer=layer), given).resources()
    versions = {
        one["Properties"]["FunctionName"].strip("<>"): (key, one)
        for key, one in found.items()
        if one["Type"] == "AWS::Lambda::Version"
    }
    return {key: (found[key]["Properties"], versions[key]) for key in versions}


@rule
def what_changes_a_function_reaches_its_alias(house):
    before = published(house)
    if len(before) != len(FUNCTIONS):
        yield f"there are versions of {sorted(before)}"
    for function, (_, (key, version)) in before.items():
        if {version.get("DeletionPolicy"), version.get("UpdateReplacePolicy")} != {"Retain"}:
            yield f"{key} goes when there is a new one, and nobody can go back to it"
        if len(version["Properties"].get("Description", "")) > LONGEST_DESCRIPTION:
            yield f"{key} has a description that is too long"
    changes = {"the layer's content": published(house, layer="changed.zip")}
    mine = [house.templates["region"]["Globals"], *(house.templates["region"]["Resources"][key] for key in [*before, "AgentsLayer"])]
    named = set(re.findall(r"\w+", json.dumps(mine)))
    for key, one in house.templates["region"]["Parameters"].items():
        here = str(EVERYTHING["region"].get(key, one["Default"]))
        others = [str(value) for value in one.get("AllowedValues", [OTHER_VALUES.get(key)])]
        # What no function and no version names needs no expansion.
        if key in named:
            changes[key] = published(house, {key: next(value for value in others if value != here)})
    changed = House(copy.deepcopy(house.templates))
    changed.templates["region"]["Globals"]["Function"]["Timeout"] -= 1
    changes["the time-out"] = published(changed)
    for what, after in changes.items():
        for function in before:
            (settings, version), (new_settings, new_version) = before[function], after[function]
            if settings != new_settings and version == new_version:
                yield f"{what}: a new value does not reach {function}'s alias"
            # Lambda refuses to publish what it has published already.
            if settings == new_settings and version != new_version:
                yield f"{what}: a new value publishes {function} again, which did not change"


@rule
def whoever_calls_a_function_calls_its_alias(house):
    for key, one in house.resources("region", "AWS::Lambda::EventSourceMapping").items():
        if "Alias" not in one["Properties"]["FunctionName"]:
            yield f"{key} calls {one['Properties']['FunctionName']}"
    schedules = house.resources("region", "AWS::Scheduler::Schedule")
    if len(schedules) != 2:
        yield f"{len(schedules)} schedules"
    for key, one in schedules.items():
        if "Alias" not in one["Properties"]["Target"]["Arn"]:
            yield f"{key} calls {one['Properties']['Target']['Arn']}"


# --- Logs ------------------------------------------------------------------------------------------------------------


@rule
def logs_are_kept_as_long_as_the_guide_asks(house):
    for name in NAMES:
        template = house.expanded(name)
        allowed = template["Parameters"].get("LogRetentionDays", {}).get("AllowedValues", [None])
        for value in allowed:
            given = {**EVERYTHING[name], **({"LogRetentionDays": value} if value else {})}
            for key, one in Resolver(template, given).resources("AWS::Logs::LogGroup").items():
                kept = one["Properties"].get("RetentionInDays")
                if kept is None or int(kept) < SHORTEST_RETENTION:
                    yield f"{name}: {key} is kept for {kept} days"


@rule
def a_function_logs_json_to_a_group_of_the_stack(house):
    groups = house.resources("region", "AWS::Logs::LogGroup")
    for key, one in house.resources("region", "AWS::Lambda::Function").items():
        logging = one["Properties"].get("LoggingConfig", {})
        if logging.get("LogGroup", "").strip("<>") not in groups or logging.get("LogFormat") != "JSON":
            yield f"{key} logs to {logging}"


@rule
def no_line_with_a_metric_is_left_out(house):
    for key, one in house.resources("region", "AWS::Lambda::Function").items():
        level = one["Properties"].get("LoggingConfig", {}).get("ApplicationLogLevel", "INFO")
        if level not in ("TRACE", "DEBUG", "INFO"):
            yield f"{key} logs from {level} on, but its metrics are lines of the level INFO"
    for key in house.resources("region", "AWS::Logs::MetricFilter"):
        yield f"{key} counts lines, but the functions write their metrics themselves"


# --- Queues ----------------------------------------------------------------------------------------------------------


@rule
def every_queue_has_a_dead_letter_queue(house):
    queues = {key: one["Properties"] for _, key, one in house.everywhere("AWS::SQS::Queue")}
    dead = {
        one["RedrivePolicy"]["deadLetterTargetArn"].strip("<>").removesuffix(".Arn")
        for one in queues.values()
        if "RedrivePolicy" in one
    }
    for key, one in queues.items():
        if key in dead:
            if one.get("MessageRetentionPeriod") != 14 * 86400:
                yield f"{key} keeps what is dead for {one.get('MessageRetentionPeriod')} s"
        elif "RedrivePolicy" not in one:
            yield f"{key} has no dead-letter queue"
        if not one.get("SqsManagedSseEnabled"):
            yield f"{key} is not encrypted"


@rule
def a_message_stays_hidden_for_six_time_outs(house):
    resources = house.resources("region")
    for key, one in house.resources("region", "AWS::Lambda::EventSourceMapping").items():
        mapping = one["Properties"]
        queue = resources[mapping["EventSourceArn"].strip("<>").removesuffix(".Arn")]["Properties"]
        function = resources[mapping["FunctionName"].strip("<>").removesuffix("Aliaslive")]["Properties"]
        if queue["VisibilityTimeout"] < 6 * function["Timeout"]:
            yield f"{key}: hidden for {queue['VisibilityTimeout']} s, the function has {function['Timeout']} s"
        if mapping.get("FunctionResponseTypes") != ["ReportBatchItemFailures"]:
            yield f"{key}: one bad message brings back its whole batch"
        if "MaximumConcurrency" not in mapping.get("ScalingConfig", {}):
            yield f"{key}: may take all of the account's concurrency"


# --- Alarms ----------------------------------------------------------------------------------------------------------


@rule
def every_alarm_has_a_heading_in_the_runbook_and_the_reverse(house):
    chapter = re.search(r"^## Alarms on AWS$(.*?)(?=^## |\Z)", house.runbook, re.S | re.M)
    headings = re.findall(r"^### (\w+)$", chapter.group(1) if chapter else "", re.M)
    parts = re.split(r"^### \w+$", chapter.group(1), flags=re.M)[1:] if chapter else []
    for heading, part in zip(headings, parts):
        for needed in ("**Trigger:**", "**Users:**", "**Usually:**", "**First:**"):
            if needed not in part:
                yield f"{heading} does not say {needed}"
    alarms = house.everywhere("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm")
    for name, key, one in alarms:
        last = one["Properties"]["AlarmName"].removeprefix("reef-dev-")
        if not key.startswith(last) or not key.endswith("Alarm"):
            yield f"{name}: {key} is named {last}"
        if last not in headings:
            yield f"{name}: {key} has no heading"
        link = f"Runbook: infra/RUNBOOK.md#{last.lower()}"
        if not one["Properties"]["AlarmDescription"].endswith(link):
            yield f"{name}: {key} does not link its heading"
    known = [one["Properties"]["AlarmName"].removeprefix("reef-dev-") for _, _, one in alarms]
    for heading in headings:
        if heading not in known:
            yield f"there is no alarm {heading}"


@rule
def the_guides_alarms_have_its_thresholds(house):
    alarms = {
        one["Properties"]["AlarmName"].removeprefix("reef-dev-"): one["Properties"]
        for one in house.resources("region", "AWS::CloudWatch::Alarm").values()
    }
    wanted = {
        "GatewayDown": {
            "EvaluationPeriods": 1,
            "Threshold": 1,
            "ComparisonOperator": "LessThanThreshold",
            "TreatMissingData": "breaching",
        },
        "HighResponseTime": {"ExtendedStatistic": "p95", "Threshold": 5000, "Period": 60, "EvaluationPeriods": 2},
        "HighErrorRate": {"EvaluationPeriods": 1, "Threshold": 30, "ComparisonOperator": "GreaterThanThreshold"},
        "DeadJobs": {"Threshold": 0, "ComparisonOperator": "GreaterThanThreshold"},
        "TurnErrors": {},
        "QueueAge": {},
        "DeadMessages": {"Threshold": 0, "ComparisonOperator": "GreaterThanThreshold"},
        "FunctionThrottles": {},
        "CoreThrottles": {},
        "LocalThrottles": {},
        "ReplicationLatency": {},
        "GatewayErrors": {},
        "AgentInvokeErrors": {},
        "QueueWorkerErrors": {},
    }
    for name, right in wanted.items():
        if name not in alarms:
            yield f"{name} is missing"
        for key, value in right.items():
            if alarms.get(name, {}).get(key) != value:
                yield f"{name}: {key} is {alarms.get(name, {}).get(key)}"
    computed = {
        "GatewayDown": ("FILL(invocations, 0) - FILL(errors, 0)", 60, ["Invocations", "Errors"]),
        "HighErrorRate": ("errors - FILL(notready, 0)", 300, ["5XXError", "NotReady"]),
        "CoreThrottles": ("FILL(writes, 0) + FILL(reads, 0)", 60, ["WriteThrottleEvents", "ReadThrottleEvents"]),
        "LocalThrottles": ("FILL(writes, 0) + FILL(reads, 0)", 60, ["WriteThrottleEvents", "ReadThrottleEvents"]),
    }
    for name, (expression, period, metrics) in computed.items():
        parts = alarms.get(name, {}).get("Metrics", [{}])
        read = [(one["MetricStat"]["Metric"]["MetricName"], one["MetricStat"]["Period"]) for one in parts[1:]]
        if parts[0].get("Expression") != expression or read != [(metric, period) for metric in metrics]:
            yield f"{name} computes {parts[0].get('Expression')} of {read}"


@rule
def the_error_rate_is_watched_where_nothing_is_computed(house):
    given = {**EVERYTHING["region"], "ComputedAlarms": "false"}
    found = Resolver(house.expanded("region"), given).resources("AWS::CloudWatch::Alarm")["HighErrorRateAlarm"]
    wanted = {"MetricName": "5XXError", "Statistic": "Sum", "Period": 300, "Threshold": 30}
    plain = {name: found["Properties"].get(name) for name in wanted}
    if plain != wanted or "Metrics" in found["Properties"]:
        yield f"HighErrorRate without computing is {found['Properties']}"


@rule
def an_api_logs_only_when_its_account_may(house):
    (stage,) = house.resources("region", "AWS::ApiGateway::Stage").values()
    group = stage["Properties"]["AccessLogSetting"]["DestinationArn"].strip("<>").removesuffix(".Arn")
    (account,) = house.resources("region", "AWS::ApiGateway::Account")
    if account not in listed(house.resources("region")[group].get("DependsOn", [])):
        yield f"{group} may be there before {account}, and the stage is refused its log"


@rule
def every_alarm_tells_somebody(house):
    composites = house.everywhere("AWS::CloudWatch::CompositeAlarm")
    for name, key, one in house.everywhere("AWS::CloudWatch::Alarm", "AWS::CloudWatch::CompositeAlarm"):
        summed_up = any(
            f"<{key}>" in two["Properties"]["AlarmRule"] and there == name for there, _, two in composites
        )
        if bool(one["Properties"].get("AlarmActions")) == summed_up:
            yield f"{name}: {key} tells {'twice' if summed_up else 'nobody'}"


def own_metrics(house):
    """(namespace, name) of the metrics that every function would write."""
    told = {one["Environment"]["Variables"].get("REEF_METRICS_NAMESPACE") for _, one in functions(house).values()}
    return {(namespace, name) for namespace in told for name in reported()} if len(told) == 1 else set()


@rule
def an_alarm_watches_what_the_stack_has(house):
    names = set()
    for name in NAMES:
        for key, one in house.resources(name).items():
            names |= {f"<{key}>", one["Properties"].get(NAMED.get(one["Type"]))}
            names |= {f"<{key}.{attribute}>" for attribute in ("QueueName", "TopicName")}
            if one["Type"] == "AWS::Lambda::Alias":
                function = house.resources(name)[one["Properties"]["FunctionName"].strip("<>")]
                names.add(f"{function['Properties']['FunctionName']}:{one['Properties']['Name']}")
            if one["Type"] == "AWS::ApiGateway::Stage":
                names.add(one["Properties"]["StageName"])
    ours = own_metrics(house)
    for name, key, one in house.everywhere("AWS::CloudWatch::Alarm"):
        for namespace, metric, dimensions in alarm_dimensions(one):
            for dimension, value in dimensions.items():
                if value not in names:
                    yield f"{name}: {key} watches {dimension} {value}"
            if not namespace.startswith("AWS/") and (namespace, metric) not in ours:
                yield f"{name}: {key} watches {namespace} {metric}, which nobody writes"


@rule
def a_dashboard_is_json(house):
    for _, key, one in house.everywhere("AWS::CloudWatch::Dashboard"):
        if len(json.loads(one["Properties"]["DashboardBody"])["widgets"]) != 6:
            yield f"{key} has lost a part"


@rule
def a_dashboard_shows_what_is_written(house):
    ours = own_metrics(house)
    for _, key, one in house.everywhere("AWS::CloudWatch::Dashboard"):
        widgets = json.loads(one["Properties"]["DashboardBody"])["widgets"]
        shown = [metric[:2] for widget in widgets for metric in widget["properties"]["metrics"]]
        shown = {tuple(one) for one in shown if isinstance(one[0], str) and not one[0].startswith("AWS/")}
        for missing in sorted(ours - shown):
            yield f"{key} does not show {missing}"
        for unknown in sorted(shown - ours):
            yield f"{key} shows {unknown}, which nobody writes"


# --- Data and regions ------------------------------------------------------------------------------------------------


def replicas(house):
    (table,) = house.resources("global", "AWS::DynamoDB::GlobalTable").values()
    return table["Properties"]["Replicas"]


@rule
def the_global_table_is_eventual_recoverable_and_protected(house):
    (table,) = house.resources("global", "AWS::DynamoDB::GlobalTable").values()
    if table["Properties"].get("MultiRegionConsistency") != "EVENTUAL":
        yield f"consistency is {table['Properties'].get('MultiRegionConsistency')}"
    for replica in replicas(house):
        if not replica.get("DeletionProtectionEnabled"):
            yield f"{replica['Region']} may be deleted"
        if not replica.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled"):
            yield f"{replica['Region']} cannot be recovered"
    (local,) = house.resources("region", "AWS::DynamoDB::Table").values()
    if not local["Properties"].get("DeletionProtectionEnabled"):
        yield "the local table may be deleted"
    if not local["Properties"].get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled"):
        yield "the local table cannot be recovered"
    for name, key, one in house.everywhere(
        "AWS::DynamoDB::GlobalTable",
        "AWS::DynamoDB::Table",
        "AWS::S3::Bucket",
        "AWS::S3::BucketPolicy",
        "AWS::SecretsManager::Secret",
        "AWS::Backup::BackupVault",
    ):
        # Protected tables cannot be deleted when a stack's creation fails; of all else nothing may then be left.
        kept = "Retain" if one["Type"].startswith("AWS::DynamoDB::") else "RetainExceptOnCreate"
        if (one.get("DeletionPolicy"), one.get("UpdateReplacePolicy")) != (kept, "Retain"):
            yield f"{name}: {key} is kept by {one.get('DeletionPolicy')}, {one.get('UpdateReplacePolicy')}"
    for name, key, one in house.everywhere():
        named = NAMED.get(one["Type"])
        if named and one.get("DeletionPolicy") == "Retain" and not one["Type"].startswith("AWS::DynamoDB::"):
            yield f"{name}: {key} stays when the stack's creation fails, and its name is taken"


@rule
def the_tables_are_those_of_the_stores(house):
    tables = {
        "core": house.resources("global", "AWS::DynamoDB::GlobalTable"),
        "local": house.resources("region", "AWS::DynamoDB::Table"),
    }
    for name, wanted in schema().items():
        ((_, table),) = tables[name].items()
        table = table["Properties"]

        def keys(of):
            return [one["AttributeName"] for one in of["KeySchema"]]

        indexes = {one["IndexName"]: keys(one) for one in table.get("GlobalSecondaryIndexes", [])}
        found = {
            "keys": keys(table),
            "expires": table.get("TimeToLiveSpecification", {}).get("AttributeName"),
            "indexes": indexes,
        }
        if found != wanted:
            yield f"{name} is {found}, the stores have {wanted}"
        for one in table.get("GlobalSecondaryIndexes", []):
            if one["Projection"] != {"ProjectionType": "KEYS_ONLY"}:
                yield f"{name}: index {one['IndexName']} holds more than keys"
        allowed = {resource for function in functions(house) for resource in rights(house, function)}
        here = {one.removeprefix(f"{name}/") for one in allowed if one.startswith(f"{name}/")}
        if here != set(wanted["indexes"]):
            yield f"{name}: the functions may read the indexes {sorted(here)}"


@rule
def the_files_are_private_encrypted_and_can_be_brought_back(house):
    ((key, bucket),) = house.resources("region", "AWS::S3::Bucket").items()
    bucket = bucket["Properties"]
    blocked = bucket.get("PublicAccessBlockConfiguration", {})
    for what in ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"):
        if blocked.get(what) is not True:
            yield f"{key} does not say {what}"
    if bucket.get("OwnershipControls", {}).get("Rules") != [{"ObjectOwnership": "BucketOwnerEnforced"}]:
        yield f"{key} may hold what is not the account's"
    if not bucket.get("BucketEncryption", {}).get("ServerSideEncryptionConfiguration"):
        yield f"{key} is not encrypted"
    if bucket.get("VersioningConfiguration") != {"Status": "Enabled"}:
        yield f"{key} forgets what was overwritten"
    lives = {}
    for one in bucket.get("LifecycleConfiguration", {}).get("Rules", []):
        # A rule for a part of the bucket is none for all of it; one that ends files themselves would lose them.
        if one["Status"] == "Enabled" and "Prefix" not in one:
            lives |= {name: value for name, value in one.items() if name not in ("Id", "Status")}
    if lives != {
        "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }:
        yield f"{key} tidies up by {lives}"
    (policy,) = house.resources("region", "AWS::S3::BucketPolicy").values()
    wanted = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"<{key}.Arn>", f"<{key}.Arn>/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    found = [{name: value for name, value in one.items() if name != "Sid"} for one in statements(policy)]
    if policy["Properties"]["Bucket"] != f"<{key}>" or found != [wanted]:
        yield f"{key} may be asked without TLS, or by others: {found}"
    for name, (_, properties) in functions(house).items():
        role = house.resources("region", "AWS::IAM::Role")[properties["Role"].strip("<>").removesuffix(".Arn")]
        if "<FilesPolicy>" not in role["Properties"]["ManagedPolicyArns"]:
            yield f"{name} runs tools and may not touch files"


@rule
def copies_are_made_daily_and_monthly(house):
    (plan,) = house.resources("global", "AWS::Backup::BackupPlan").values()
    kept = {
        one["RuleName"]: one["Lifecycle"]["DeleteAfterDays"]
        for one in plan["Properties"]["BackupPlan"]["BackupPlanRule"]
    }
    if kept != {"daily": 7, "monthly": 366}:
        yield f"copies are kept for {kept} days"
    (selection,) = house.resources("global", "AWS::Backup::BackupSelection").values()
    if not selection["Properties"]["BackupSelection"]["Resources"][0].endswith("table/<CoreTable>"):
        yield "something else is copied"


def living(regions):
    """The list without the places of regions that were closed."""
    return [region for region in regions if region != "closed"]


@rule
def regions_are_the_same_everywhere(house):
    regions = [one["Region"] for one in replicas(house)]
    (secret,) = house.resources("global", "AWS::SecretsManager::Secret").values()
    secrets = [one["Region"] for one in secret["Properties"]["ReplicaRegions"]]
    if secrets != regions[1:]:
        yield f"the secret is in {secrets}, the table in {regions}"
    default = house.templates["region"]["Parameters"]["Regions"]["Default"].split(",")
    if living(default) != regions:
        yield f"region.yaml is for {default}"
    environments = house.environments()
    if set(environments) != {"dev", "prod"}:
        yield f"environments are {sorted(environments)}"
    for environment, sections in environments.items():
        if list(sections) != ["global", *regions, "edge"]:
            yield f"{environment} has {list(sections)}"
        for name, section in sections.items():
            where = f"{environment}-{name}"
            home = name if name in regions else regions[0]
            stack = "region" if name in regions else name
            if section["region"] != home:
                yield f"{where} goes to {section['region']}"
            if section["stack_name"] != f"reef-{environment}-{stack}":
                yield f"{where} is the stack {section['stack_name']}"
            given = overrides(section)
            if given["Environment"] != environment:
                yield f"{where} is for {given['Environment']}"
            if stack == "region" and given["Regions"].split(",") != default:
                yield f"{where} is told of {given['Regions']}"
            if stack not in house.templates:
                continue
            parameters = house.templates[stack]["Parameters"]
            for key, value in given.items():
                if key not in parameters:
                    yield f"{where} gives {key}, which {stack}.yaml does not take"
                elif "AllowedValues" in parameters[key] and value not in map(str, parameters[key]["AllowedValues"]):
                    yield f"{where} gives {key} {value}"
