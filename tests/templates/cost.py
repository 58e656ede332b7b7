"""What Reef costs on AWS: a month in which nothing happens, and 1,000 turns. Reads the templates.

    .venv-sam/bin/python tests/templates/cost.py --regions us-east-1,eu-central-1

Prices are in prices.toml; what is assumed about use is in ASSUMED. The model vendors' bills are not in it.
"""

import argparse
import re
import tomllib
from collections import Counter
from pathlib import Path

from expand import NAMES, REGIONS, Resolver, expand, source
from house import reported

PRICES = tomllib.loads((Path(__file__).parent / "prices.toml").read_text())

MINUTES = 730 * 60

# Measured on our functions and stores where that is possible, and otherwise cautious.
ASSUMED = {
    "probe_seconds": 0.01,
    "sweep_seconds": 0.1,
    # Each sweep looks for interrupted turns and due jobs, and writes a sign of life to all regions.
    "sweep_read_units": 10,
    "sweep_write_units": 2,
    # Lambda asks an empty queue with five pollers that each wait 20 s.
    "queue_asks_per_minute": 15,
    # Three places with two checkers each, every 30 s.
    "health_asks_per_minute": 12,
    # One turn: 20 s, most of it waiting for the model, in two functions; tests/dynamodb.rs measures what it writes.
    "turn_seconds": 20,
    "turn_core_write_units": 15,
    "turn_local_write_units": 1,
    "turn_read_units": 12,
    "turn_log_bytes": 4_500,
}

# Costs nothing by being there. Anything that is in neither list has no price yet, and is refused.
FREE = {
    "AWS::ApiGateway::Account",
    "AWS::ApiGateway::BasePathMapping",
    "AWS::ApiGateway::Deployment",
    "AWS::ApiGateway::DomainName",
    "AWS::ApiGateway::RestApi",
    "AWS::ApiGateway::Stage",
    "AWS::Backup::BackupPlan",
    "AWS::Backup::BackupSelection",
    "AWS::Backup::BackupVault",
    "AWS::CertificateManager::Certificate",
    "AWS::CloudFront::Distribution",
    "AWS::CloudFront::ResponseHeadersPolicy",
    "AWS::CodeDeploy::Application",
    "AWS::CodeDeploy::DeploymentGroup",
    "AWS::DynamoDB::GlobalTable",
    "AWS::DynamoDB::Table",
    "AWS::IAM::ManagedPolicy",
    "AWS::IAM::Role",
    "AWS::Lambda::Alias",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::Function",
    "AWS::Lambda::LayerVersion",
    "AWS::Lambda::Permission",
    "AWS::Lambda::Version",
    "AWS::Logs::LogGroup",
    "AWS::Route53::RecordSet",
    "AWS::S3::Bucket",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::Subscription",
    "AWS::SNS::Topic",
    "AWS::SQS::Queue",
}


class Bill:
    """Amounts by line, and the quantities that the free allowances apply to."""

    def __init__(self, regions):
        self.regions = regions
        self.lines = Counter()
        self.quantities = Counter()

    def add(self, line, quantity, price, allowance=None):
        self.lines[line] += quantity * price
        if allowance:
            self.quantities[line, allowance, price] += quantity

    def total(self):
        return sum(self.lines.values())

    def allowances(self):
        """What the free allowances take off: where a region's price is lowest first, so that we do not promise too much."""
        off, left = Counter(), dict(PRICES["free"])
        for (line, allowance, price), quantity in sorted(self.quantities.items(), key=lambda one: one[0][2]):
            free = min(quantity, left[allowance])
            left[allowance] -= free
            off[line] += free * price
        return off

    def after_allowances(self):
        return self.total() - sum(self.allowances().values())


def alarm_metrics(alarm, regions):
    """How many metrics an alarm is billed for. A query is billed for each metric it finds: here, one per other region."""
    metrics = alarm.get("Metrics")
    if metrics is None:
        return 1
    queries = [one for one in metrics if one.get("Expression", "").startswith("SELECT ")]
    return sum("MetricStat" in one for one in metrics) + len(queries) * (len(regions) - 1)


def idle(parameters, regions, edge=False):
    """A month without any request."""
    bill = Bill(regions)
    everywhere = PRICES["everywhere"]
    stacks = [("global", regions[0])] + [("region", region) for region in regions] + [("edge", regions[0])] * edge
    for name, region in stacks:
        given = parameters.get(name, {})
        resolver = Resolver(expand(source(name), given, region), given, region)
        for key, resource in resolver.resources().items():
            price(bill, everywhere, PRICES[region], region, key, resource, resolver)
    return bill


def price(bill, everywhere, here, region, key, resource, resolver):
    kind, properties = resource["Type"], resource["Properties"]
    if kind == "AWS::CloudWatch::Alarm":
        count = alarm_metrics(properties, bill.regions)
        bill.add("alarms", count, everywhere["alarm_metric"], "alarm_metrics")
    elif kind == "AWS::CloudWatch::CompositeAlarm":
        bill.add("composite alarms", 1, everywhere["composite_alarm"])
    elif kind == "AWS::CloudWatch::Dashboard":
        bill.add("dashboards", 1, everywhere["dashboard"], "dashboards")
    elif kind == "AWS::SecretsManager::Secret":
        copies = [one["Region"] for one in properties["ReplicaRegions"] if one["Region"] in bill.regions]
        bill.add("secrets", 1 + len(copies), everywhere["secret"])
    elif kind == "AWS::Route53::HealthCheck":
        asks = ASSUMED["health_asks_per_minute"] * MINUTES
        bill.add("health checks", 1, everywhere["health_check"] + everywhere["health_check_https"])
        bill.add("health checks' requests", asks, here["api_request"])
        calls(bill, here, "health checks' requests", asks, ASSUMED["probe_seconds"], resolver)
        bill.add("health checks' requests", asks, here["dynamodb_read_unit"])
    elif kind == "AWS::WAFv2::WebACL":
        bill.add("firewall", 1, everywhere["web_acl"])
        bill.add("firewall", len(properties["Rules"]), everywhere["web_acl_rule"])
    elif kind == "AWS::Scheduler::Schedule":
        if properties["ScheduleExpression"] != "rate(1 minute)":
            raise ValueError(f"{key}: {properties['ScheduleExpression']} has no price yet")
        bill.add("schedules", MINUTES, here["schedule_call"], "schedule_calls")
        sweep = "Sweep" in key
        calls(bill, here, "probe and sweep", MINUTES, ASSUMED["sweep_seconds" if sweep else "probe_seconds"], resolver)
        if sweep:
            bill.add("probe and sweep", MINUTES * ASSUMED["sweep_read_units"], here["dynamodb_read_unit"])
            for replica in bill.regions:
                written = MINUTES * ASSUMED["sweep_write_units"]
                bill.add("probe and sweep", written, PRICES[replica]["dynamodb_write_unit"])
    elif kind == "AWS::Lambda::EventSourceMapping":
        asks = ASSUMED["queue_asks_per_minute"] * MINUTES
        bill.add("asking the empty queue", asks, here["sqs_request"], "sqs_requests")
    elif kind not in FREE:
        raise ValueError(f"{key}: {kind} has no price yet")


def calls(bill, here, line, count, seconds, resolver):
    """Calls of one function."""
    memory = int(resolver.values["FunctionMemoryMb"]) / 1024
    bill.add(line, count, here["lambda_request"], "lambda_requests")
    second = here[f"lambda_gb_second_{resolver.values['Architecture']}"]
    bill.add(line, count * seconds * memory, second, "lambda_gb_seconds")


def turns(parameters, region, regions, count=1000):
    """So many plain turns in one region, at list prices: allowances are long used up."""
    here = PRICES[region]
    given = parameters.get("region", {})
    resolver = Resolver(expand(source("region"), given, region), given, region)
    bill = Bill(regions)
    bill.add("API", count, here["api_request"])
    # The gateway streams what agent-invoke does: both run for the whole turn.
    for _ in ("gateway", "agent-invoke"):
        calls(bill, here, "functions", count, ASSUMED["turn_seconds"], resolver)
    for replica in regions:
        bill.add("table", count * ASSUMED["turn_core_write_units"], PRICES[replica]["dynamodb_write_unit"])
    bill.add("table", count * ASSUMED["turn_local_write_units"], here["dynamodb_write_unit"])
    bill.add("table", count * ASSUMED["turn_read_units"], here["dynamodb_read_unit"])
    bill.add("logs", count * ASSUMED["turn_log_bytes"] / 1e9, here["log_gb"] + 12 * here["log_gb_month"])
    return bill


def report(parameters, regions, edge):
    bill = idle(parameters, regions, edge)
    off = bill.allowances()
    yield f"A month without requests, {' and '.join(regions)}, US dollars:"
    yield f"  {'':28} {'list':>7} {'free':>7} {'to pay':>7}"
    for line, amount in bill.lines.most_common():
        yield f"  {line:28} {amount:7.2f} {off[line]:7.2f} {max(amount - off[line], 0):7.2f}"
    free = bill.total() - bill.after_allowances()
    yield f"  {'together':28} {bill.total():7.2f} {free:7.2f} {bill.after_allowances():7.2f}"
    yield ""
    yield "1,000 plain turns, list prices, without the model vendor's bill:"
    for region in regions:
        of_turns = turns(parameters, region, regions)
        parts = ", ".join(f"{line} {amount:.3f}" for line, amount in of_turns.lines.most_common())
        yield f"  {region:16} {of_turns.total():6.3f}  ({parts})"
    metrics = len(reported()) * len(regions)
    price = PRICES["everywhere"]["custom_metric"]
    yield f"In months with requests also up to {metrics} metrics of our own: {metrics * price:.2f} (ten are free in an account)."


def main():
    parser = argparse.ArgumentParser(description="What Reef costs on AWS.")
    parser.add_argument("--regions", default=",".join(REGIONS), help="with commas between; default: all")
    parser.add_argument("--parameter", action="append", default=[], metavar="STACK.NAME=VALUE",
                        help="a stack's parameter, e.g. region.Architecture=x86_64")
    parser.add_argument("--edge", action="store_true", help="with the edge stack")
    given = parser.parse_args()
    regions = given.regions.split(",")
    unknown = [region for region in regions if region not in PRICES]
    if unknown:
        parser.error(f"no prices for {', '.join(unknown)}; there are: {', '.join(REGIONS)}")
    parameters = {}
    for one in given.parameter:
        known = re.fullmatch(r"(\w+)\.(\w+)=(.*)", one)
        if not known or known[1] not in NAMES or known[2] not in source(known[1])["Parameters"]:
            parser.error(f"{one}: there is no such parameter; write e.g. region.Architecture=x86_64")
        parameters.setdefault(known[1], {})[known[2]] = known[3]
    print("\n".join(report(parameters, regions, given.edge)))


if __name__ == "__main__":
    main()
