"""Everything that the rules look at, in one value, so that a test can break a part of it."""

import copy
import functools
import re
import tomllib
from dataclasses import dataclass, field

from expand import NAMES, REGIONS, ROOT, Resolver, expand, source

# What the stacks are tested with beside their defaults: everything that can be there is there.
EVERYTHING = {
    "global": {"AlarmEmail": "ops@example.com"},
    "region": {
        "AlarmEmail": "ops@example.com",
        "DomainName": "origin.reef.example.com",
        "HostedZoneId": "Z0000000EXAMPLE",
        "CanaryDeployment": "true",
    },
    "edge": {"Waf": "true"},
}

SCHEMA = ROOT / "shared/src/adapters/aws/dynamodb/schema.rs"


@dataclass(eq=False)
class House:
    """The sources. The rest is made from them when it is asked for."""

    templates: dict = field(default_factory=lambda: {name: source(name) for name in NAMES})
    samconfig: dict = field(default_factory=lambda: tomllib.loads((ROOT / "samconfig.toml").read_text()))
    runbook: str = field(default_factory=lambda: (ROOT / "infra/RUNBOOK.md").read_text())

    def copy(self):
        """To be changed before anything is read from it."""
        return House(copy.deepcopy(self.templates), copy.deepcopy(self.samconfig), self.runbook)

    @functools.cache
    def expanded(self, name, region=REGIONS[0]):
        return expand(self.templates[name], EVERYTHING[name], region)

    @functools.cache
    def resources(self, name, *types, region=REGIONS[0]):
        return Resolver(self.expanded(name, region), EVERYTHING[name], region).resources(*types)

    def everywhere(self, *types):
        """(template, logical id, resource) of all templates."""
        return [(name, key, one) for name in NAMES for key, one in self.resources(name, *types).items()]

    def properties(self, name, key):
        """The properties of one resource as they are written; a test may change them."""
        return self.templates[name]["Resources"][key]["Properties"]

    def environments(self):
        """samconfig's sections: {environment: {name: parameters of its deployment}}."""
        found = {}
        for section, commands in self.samconfig.items():
            if section != "version":
                environment, name = section.split("-", 1)
                found.setdefault(environment, {})[name] = commands["deploy"]["parameters"]
        return found


def overrides(parameters):
    """`parameter_overrides` of samconfig as a dictionary."""
    return dict(one.split("=", 1) for one in parameters["parameter_overrides"])


def statements(resource):
    """The statements of a role's or a policy's own policies."""
    properties = resource["Properties"]
    documents = [one["PolicyDocument"] for one in properties.get("Policies", [])]
    documents += [properties["PolicyDocument"]] if "PolicyDocument" in properties else []
    return [statement for document in documents for statement in listed(document["Statement"])]


def listed(value):
    return value if isinstance(value, list) else [value]


def alarm_dimensions(alarm):
    """(namespace, metric, dimensions) of everything that an alarm reads by name."""
    properties = alarm["Properties"]
    metrics = [one["MetricStat"]["Metric"] for one in properties.get("Metrics", []) if "MetricStat" in one]
    metrics += [properties] if "MetricName" in properties else []
    return [
        (one["Namespace"], one["MetricName"], {each["Name"]: each["Value"] for each in one.get("Dimensions", [])})
        for one in metrics
    ]


def reported():
    """Names of the metrics that the functions write."""
    text = (ROOT / "shared/src/cloud/emf.rs").read_text()
    return set(re.findall(r'\("(\w+)", "(?:Count|Milliseconds)", ', text))


# The right that a store's write to an item takes, also as a part of a transaction.
RIGHT_OF_WRITE = {"Put": "PutItem", "Delete": "DeleteItem", "Add": "UpdateItem"}


def written(*files):
    """The rights that the writes take which these files of the stores make, or, if none is named, all but rate limits."""
    # These only hand writes on.
    passing = ("table", "dynamo_table")
    names = files or [one.stem for one in SCHEMA.parent.glob("*.rs") if one.stem not in ("limits", *passing)]
    text = "".join((SCHEMA.parent / f"{name}.rs").read_text() for name in names)
    return {f"dynamodb:{right}" for kind, right in RIGHT_OF_WRITE.items() if re.search(rf"Write::{kind}\b", text)}


def schema():
    """Keys, indexes and expiry of the tables as the stores know them."""
    text = SCHEMA.read_text()
    index = re.compile(
        r'pub const (\w+): Index\s*=\s*Index \{ name: "([\w-]+)", partition: "(\w+)", sort: "(\w+)" \};'
    )
    indexes = {const: (name, partition, sort) for const, name, partition, sort in index.findall(text)}
    of_table = dict(re.findall(r"pub const (CORE|LOCAL)_INDEXES: \[Index; \d+\] = \[(.*?)\];", text, re.S))
    expires = re.search(r'pub const EXPIRES: &str = "(\w+)";', text).group(1)
    table = (SCHEMA.parent / "table.rs").read_text()
    keys = [re.search(rf'pub const {one}: &str = "(\w+)";', table).group(1) for one in ("PARTITION", "SORT")]
    return {
        name.lower(): {
            "keys": keys,
            "expires": expires,
            "indexes": {
                indexes[const][0]: list(indexes[const][1:]) for const in re.findall(r"\w+", consts)
            },
        }
        for name, consts in of_table.items()
    }
