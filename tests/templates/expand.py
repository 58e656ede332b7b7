"""Templates as CloudFormation sees them: SAM expanded, parameters filled in."""

import copy
import logging
import os
import re
from pathlib import Path

from samcli.yamlhelper import yaml_parse
from samtranslator.translator.transform import transform

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("global", "region", "edge")
REGIONS = ("us-east-1", "eu-central-1", "ap-northeast-1")

logging.getLogger("samtranslator").setLevel(logging.ERROR)


class NoManagedPolicies:
    """Our templates name no SAM policy templates by AWS's managed policies."""

    def load(self):
        return {}


def source(name):
    """The template as it is written, with intrinsic functions in their long form."""
    return yaml_parse((ROOT / f"infra/aws/{name}.yaml").read_text())


def parameters_of(template, given=None):
    """Every parameter's value: its default, unless another one is given."""
    values = {name: str(one.get("Default", "")) for name, one in template.get("Parameters", {}).items()}
    return {**values, **(given or {})}


def expand(template, given=None, region="us-east-1", layer="layer.zip"):
    """SAM's resources replaced by CloudFormation's, as AWS does it when a stack is deployed in `region`. `layer`: what the
    layer's content was uploaded as; `sam deploy` names uploads by what is in them."""
    if "Transform" not in template:
        return copy.deepcopy(template)
    template = copy.deepcopy(template)
    # What `sam deploy` uploads stands in a bucket by then.
    for one in template["Resources"].values():
        if one["Type"] == "AWS::Serverless::Function" and "CodeUri" in one["Properties"]:
            one["Properties"]["CodeUri"] = "s3://uploaded/function.zip"
        if one["Type"] == "AWS::Serverless::LayerVersion":
            one["Properties"]["ContentUri"] = f"s3://uploaded/{layer}"
    os.environ["AWS_DEFAULT_REGION"] = region
    return transform(template, parameters_of(template, given), NoManagedPolicies())


class Resolver:
    """Fills parameters into values. What only AWS knows becomes `<LogicalId>` or `<LogicalId.Attribute>`."""

    def __init__(self, template, given=None, region="us-east-1"):
        self.template = template
        self.values = {
            **parameters_of(template, given),
            "AWS::Region": region,
            "AWS::AccountId": "111122223333",
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::StackName": "stack",
            "AWS::NoValue": None,
        }

    def condition(self, name):
        return self._test(self.template["Conditions"][name])

    def _test(self, test):
        ((function, rest),) = test.items()
        if function == "Condition":
            return self.condition(rest)
        if function == "Fn::Equals":
            return self(rest[0]) == self(rest[1])
        if function == "Fn::Not":
            return not self._test(rest[0])
        if function == "Fn::And":
            return all(self._test(one) for one in rest)
        if function == "Fn::Or":
            return any(self._test(one) for one in rest)
        raise ValueError(f"a condition by {function}")

    def _ref(self, name):
        if name in self.values:
            value = self.values[name]
            listed = self.template.get("Parameters", {}).get(name, {}).get("Type") == "CommaDelimitedList"
            return value.split(",") if listed else value
        return f"<{name}>"

    def _sub(self, text, more=None):
        more = more or {}

        def fill(match):
            name = match.group(1)
            if name.startswith("!"):
                return "${" + name[1:] + "}"
            value = self(more[name]) if name in more else self._ref(name)
            return ",".join(value) if isinstance(value, list) else str(value)

        return re.sub(r"\$\{([^}]+)\}", fill, text)

    def __call__(self, value):
        if isinstance(value, list):
            return [one for one in map(self, value) if one is not None]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((function, rest),) = value.items()
            if function == "Ref":
                return self._ref(rest)
            if function == "Fn::GetAtt":
                return "<" + (rest if isinstance(rest, str) else ".".join(rest)) + ">"
            if function == "Fn::Sub":
                return self._sub(rest) if isinstance(rest, str) else self._sub(*rest)
            if function == "Fn::Join":
                return rest[0].join(map(str, self(rest[1])))
            if function == "Fn::If":
                return self(rest[1] if self.condition(rest[0]) else rest[2])
            if function.startswith("Fn::"):
                raise ValueError(f"{function} is not resolved")
        resolved = ((key, self(one)) for key, one in value.items())
        return {key: one for key, one in resolved if one is not None}

    def resources(self, *types):
        """What is deployed, by logical id, parameters filled in; only of these types, if any are named."""
        found = {}
        for name, one in self.template["Resources"].items():
            if types and one["Type"] not in types:
                continue
            if "Condition" in one and not self.condition(one["Condition"]):
                continue
            found[name] = self({key: part for key, part in one.items() if key != "Condition"})
        return found
