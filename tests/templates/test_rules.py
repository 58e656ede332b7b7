"""Every rule holds for our templates – and finds the fault in a template that breaks it."""

import unittest

import rules
from house import House

HOUSE = House()


def resource(name, key):
    return lambda house: house.templates[name]["Resources"][key]


def put(name, key, path, value):
    """Sets one property of a resource."""

    def change(house):
        place = house.properties(name, key)
        *way, last = path.split(".")
        for step in way:
            place = place[int(step) if isinstance(place, list) else step]
        place[int(last) if isinstance(place, list) else last] = value

    return change


def drop(name, key, path):
    def change(house):
        place = house.properties(name, key)
        *way, last = path.split(".")
        for step in way:
            place = place[int(step) if isinstance(place, list) else step]
        del place[int(last) if isinstance(place, list) else last]

    return change


def remove(name, key):
    return lambda house: house.templates[name]["Resources"].pop(key)


def action(statement, value):
    """Another action in the gateway's own policy."""
    return put("region", "GatewayRole", f"Policies.0.PolicyDocument.Statement.{statement}.Action", value)


def target(statement, value):
    return put("region", "GatewayRole", f"Policies.0.PolicyDocument.Statement.{statement}.Resource", value)


def reorder(house):
    template = house.templates["global"]
    template["Parameters"] = template.pop("Parameters")


def parameter(name, key, change):
    return lambda house: change(house.templates[name]["Parameters"][key])


def export(house):
    house.templates["region"]["Outputs"]["ApiUrl"]["Export"] = {"Name": "url"}


def buffered_route(house):
    house.properties("region", "GatewayFunction")["Events"]["Extra"] = {
        "Type": "Api",
        "Properties": {"RestApiId": {"Ref": "Api"}, "Path": "/extra", "Method": "GET"},
    }


def second_origin(house):
    config = house.properties("edge", "Distribution")["DistributionConfig"]
    config["OriginGroups"] = {"Quantity": 0}


def heading(old, new):
    def change(house):
        assert old in house.runbook
        house.runbook = house.runbook.replace(old, new)

    return change


def samconfig(section, key, value):
    def change(house):
        house.samconfig[section]["deploy"]["parameters"][key] = value

    return change


def globals_of(key, value):
    def change(house):
        house.templates["region"]["Globals"]["Function"][key] = value

    return change


def preference(key, value):
    def change(house):
        house.templates["region"]["Globals"]["Function"]["DeploymentPreference"][key] = value

    return change


def statement(key, sid):
    """A statement of a role or a policy, as it is written."""

    def find(house):
        properties = house.properties("region", key)
        documents = [one["PolicyDocument"] for one in properties.get("Policies", [properties])]
        (found,) = [one for document in documents for one in document["Statement"] if one["Sid"] == sid]
        return found

    return find


def change(of, **parts):
    """Sets parts of a statement; one that is None is left out."""

    def changed(house):
        for name, value in parts.items():
            of(house)[name] = value
            if value is None:
                del of(house)[name]

    return changed


def variables(house):
    return house.templates["region"]["Globals"]["Function"]["Environment"]["Variables"]


def metric_filter(house):
    house.templates["region"]["Resources"]["TurnsMetric"] = {
        "Type": "AWS::Logs::MetricFilter",
        "Properties": {"LogGroupName": {"Ref": "AgentInvokeLogs"}, "FilterPattern": "turn ended"},
    }


def remove_event(key, name):
    return lambda house: house.properties("region", key)["Events"].pop(name)


def no_policy(name, key):
    def change(house):
        del house.templates[name]["Resources"][key]["DeletionPolicy"]

    return change


def kept(name, key, policy):
    def change(house):
        house.templates[name]["Resources"][key]["DeletionPolicy"] = policy

    return change


BROKEN = {
    "sections_stand_in_one_order": [reorder],
    "a_parameter_has_description_default_and_constraint": [
        parameter("global", "Environment", lambda one: one.pop("Description")),
        parameter("region", "Dashboard", lambda one: one.pop("Default")),
        parameter("region", "Dashboard", lambda one: one.pop("AllowedValues")),
        parameter("edge", "DomainName", lambda one: one.update(Default="no domain")),
    ],
    "nothing_is_exported_or_imported": [export],
    "names_are_given_and_hold_the_environment": [
        drop("region", "JobQueue", "QueueName"),
        put("global", "CoreTable", "TableName", "core"),
    ],
    "roles_and_policies_of_two_regions_have_different_names": [
        put("region", "GatewayRole", "RoleName", "reef-dev-gateway")
    ],
    "every_route_streams": [
        put("region", "GatewayFunction", "Events.Everything.Properties.ResponseTransferMode", "STREAM"),
        drop("region", "GatewayFunction", "Events.Everything.Properties.ResponseTransferMode"),
        drop("region", "GatewayFunction", "Events.Root.Properties.TimeoutInMillis"),
        buffered_route,
    ],
    "the_edge_is_strict_and_never_chooses_a_region": [
        second_origin,
        put("edge", "Distribution", "DistributionConfig.ViewerCertificate.MinimumProtocolVersion", "TLSv1_2016"),
        put("edge", "Distribution", "DistributionConfig.DefaultCacheBehavior.Compress", True),
        put(
            "edge",
            "Headers",
            "ResponseHeadersPolicyConfig.SecurityHeadersConfig.StrictTransportSecurity.AccessControlMaxAgeSec",
            300,
        ),
        put(
            "edge",
            "Headers",
            "ResponseHeadersPolicyConfig.SecurityHeadersConfig.StrictTransportSecurity.IncludeSubdomains",
            True,
        ),
        put("edge", "Distribution", "DistributionConfig.Origins.0.CustomOriginConfig.OriginReadTimeout", 60),
    ],
    "the_region_answers_with_tls_1_2_under_its_domain": [
        put("region", "ApiDomain", "SecurityPolicy", "TLS_1_0"),
        drop("region", "ApiRecord", "HealthCheckId"),
        put("region", "ApiHealthCheck", "HealthCheckConfig.ResourcePath", "/live/health"),
    ],
    "no_policy_has_a_star_for_actions_or_resources": [
        action(0, "sqs:*"),
        action(0, ["sqs:SendMessage", "*"]),
        target(0, "*"),
        target(0, {"Fn::Sub": "arn:aws:sqs:*:${AWS::AccountId}:reef-${Environment}-jobs"}),
        change(statement("GatewayRole", "RunTurns"), Condition=None),
        put("region", "FilesPolicy", "PolicyDocument.Statement.0.Resource", {"Fn::Sub": "${FilesBucket.Arn}/*"}),
    ],
    "only_known_policies_of_aws_are_attached": [
        put("region", "DeploymentRole", "ManagedPolicyArns.0", "arn:aws:iam::aws:policy/AdministratorAccess")
    ],
    "every_function_has_a_role_of_its_own": [
        put("region", "GatewayFunction", "Role", {"Fn::GetAtt": ["QueueWorkerRole", "Arn"]}),
        drop("region", "GatewayFunction", "Role"),
    ],
    "a_function_may_do_what_its_code_does": [
        change(statement("StoresPolicy", "Items"), Action=["dynamodb:GetItem", "dynamodb:ConditionCheckItem"]),
        change(statement("GatewayRole", "CountRequests"), Action="dynamodb:GetItem"),
        change(statement("QueueWorkerRole", "WorkOnJobs"), Action=["sqs:ReceiveMessage", "sqs:ChangeMessageVisibility"]),
        change(statement("QueueWorkerRole", "FindWhatIsDue"), Resource={"Fn::GetAtt": ["LocalTable", "Arn"]}),
        put("region", "AgentInvokeRole", "Policies", []),
        put("region", "AgentInvokeRole", "ManagedPolicyArns", [{"Ref": "StoresPolicy"}]),
    ],
    "the_worker_calls_other_regions_only": [
        change(
            statement("QueueWorkerRole", "RunTurnsElsewhere"),
            Condition={"StringEquals": {"aws:RequestedRegion": {"Ref": "Regions"}}},
        ),
        change(
            statement("QueueWorkerRole", "RunTurnsElsewhere"),
            Condition={"StringNotEquals": {"aws:RequestedRegion": "us-east-1"}},
        ),
    ],
    "a_function_writes_no_tokens": [
        change(statement("StoresPolicy", "TokensAreOnlyRead"), Effect="Allow"),
        change(statement("StoresPolicy", "TokensAreOnlyRead"), Action=["dynamodb:PutItem"]),
        change(statement("StoresPolicy", "TokensAreOnlyRead"), Condition=None),
        change(
            statement("StoresPolicy", "TokensAreOnlyRead"),
            Condition={"ForAllValues:StringLike": {"dynamodb:LeadingKeys": "U#*"}},
        ),
        change(
            statement("StoresPolicy", "TokensAreOnlyRead"),
            Condition={"ForAnyValue:StringLike": {"dynamodb:LeadingKeys": "TOK#*"}},
        ),
        put("region", "AgentInvokeRole", "ManagedPolicyArns", [{"Ref": "FilesPolicy"}]),
    ],
    "a_role_serves_one_of_aws_principals": [
        put("region", "GatewayRole", "AssumeRolePolicyDocument.Statement.0.Principal", {"AWS": "*"})
    ],
    "the_functions_are_those_of_the_workspace": [
        remove("region", "GatewayFunction"),
        lambda house: house.templates["region"]["Resources"]["GatewayFunction"].pop("Metadata"),
        globals_of("Architectures", ["x86_64"]),
    ],
    "the_functions_are_told_what_their_settings_need": [
        lambda house: variables(house).pop("REEF_CORE_TABLE"),
        lambda house: variables(house).update(REEF_TABLE="core"),
        lambda house: variables(house).update(ANTHROPIC_API_KEY="key"),
        drop("region", "QueueWorkerFunction", "Environment"),
        drop("region", "GatewayFunction", "Environment"),
    ],
    "what_the_schedules_send_are_the_recorded_events": [
        put("region", "QueueWorkerFunction", "Events.Sweep.Properties.Input", '{"sweep": true}'),
        put("region", "GatewayFunction", "Events.Probe.Properties.Input", "{}"),
    ],
    "a_new_version_takes_over_in_steps_and_is_taken_back_by_alarms": [
        preference("Enabled", False),
        preference("Alarms", []),
        # A vendor's outage would take back what mends it.
        preference("Alarms", [{"Ref": f"{one[1:-1]}"} for one in [*rules.ROLL_BACK, "<TurnErrorsAlarm>"]]),
        preference("Hooks", {}),
        preference("Type", "AllAtOnce"),
    ],
    "what_changes_a_function_reaches_its_alias": [
        drop("region", "AgentsLayer", "PublishLambdaVersion"),
        drop("region", "GatewayFunction", "AutoPublishAliasAllProperties"),
        drop("region", "GatewayFunction", "VersionDescription"),
        # What one function's settings do not hold, its version must not name, and the reverse.
        put("region", "GatewayFunction", "VersionDescription.Fn::Join.1.0", {"Ref": "ProviderKeysVersion"}),
        drop("region", "QueueWorkerFunction", "VersionDescription.Fn::Join.1.5"),
        put("region", "QueueWorkerFunction", "VersionDescription.Fn::Join.1.2", 256),
        put("region", "AgentInvokeFunction", "VersionDescription.Fn::Join.0", "-" * 60),
        lambda house: house.templates["region"]["Resources"]["GatewayFunction"].pop("UpdateReplacePolicy"),
        globals_of("MemorySize", {"Ref": "WorkerConcurrency"}),
    ],
    "whoever_calls_a_function_calls_its_alias": [
        lambda house: house.templates["region"]["Globals"]["Function"].pop("AutoPublishAlias")
        and house.templates["region"]["Globals"]["Function"].pop("DeploymentPreference"),
        remove_event("QueueWorkerFunction", "Sweep"),
    ],
    "logs_are_kept_as_long_as_the_guide_asks": [
        parameter("region", "LogRetentionDays", lambda one: one["AllowedValues"].append(90)),
        drop("region", "GatewayLogs", "RetentionInDays"),
    ],
    "a_function_logs_json_to_a_group_of_the_stack": [
        drop("region", "AgentInvokeFunction", "LoggingConfig"),
        put("region", "AgentInvokeFunction", "LoggingConfig.LogFormat", "Text"),
    ],
    "no_line_with_a_metric_is_left_out": [
        put("region", "AgentInvokeFunction", "LoggingConfig.ApplicationLogLevel", "WARN"),
        metric_filter,
    ],
    "every_queue_has_a_dead_letter_queue": [
        drop("region", "JobQueue", "RedrivePolicy"),
        put("region", "DeadJobQueue", "MessageRetentionPeriod", 60),
    ],
    "a_message_stays_hidden_for_six_time_outs": [
        put("region", "JobQueue", "VisibilityTimeout", 900),
        drop("region", "QueueWorkerFunction", "Events.Jobs.Properties.FunctionResponseTypes"),
        drop("region", "QueueWorkerFunction", "Events.Jobs.Properties.ScalingConfig"),
    ],
    "every_alarm_has_a_heading_in_the_runbook_and_the_reverse": [
        heading("### QueueAge", "### QueueAges"),
        heading("## Alarms on AWS", "## Alarms"),
        heading("### QueueAge", "### Nothing\n\n### QueueAge"),
        heading("- **Users:** wait;", "- wait;"),
        put("global", "BackupAgeAlarm", "AlarmDescription", "No copies."),
        remove("region", "QueueAgeAlarm"),
    ],
    "the_guides_alarms_have_its_thresholds": [
        put("region", "HighErrorRateAlarm", "Threshold", 300),
        put("region", "HighResponseTimeAlarm", "ExtendedStatistic", "p50"),
        remove("region", "CoreThrottlesAlarm"),
        put("region", "GatewayDownAlarm", "EvaluationPeriods", 2),
        put("region", "GatewayDownAlarm", "Metrics.1.MetricStat.Period", 300),
        put("region", "HighErrorRateAlarm", "Metrics.Fn::If.1.0.Expression", "errors"),
        put("region", "HighErrorRateAlarm", "Metrics.Fn::If.1.1.MetricStat.Period", 60),
        put("region", "CoreThrottlesAlarm", "Metrics.2.MetricStat.Metric.MetricName", "WriteThrottleEvents"),
        drop("region", "LocalThrottlesAlarm", "Metrics.2"),
    ],
    "the_error_rate_is_watched_where_nothing_is_computed": [
        drop("region", "HighErrorRateAlarm", "Statistic"),
        put("region", "HighErrorRateAlarm", "Metrics", [{"Id": "one", "Expression": "1"}]),
    ],
    "an_api_logs_only_when_its_account_may": [
        lambda house: house.templates["region"]["Resources"]["ApiLogs"].pop("DependsOn")
    ],
    "every_alarm_tells_somebody": [
        drop("region", "QueueAgeAlarm", "AlarmActions"),
        remove("region", "RegionCompositeAlarm"),
        put("region", "GatewayDownAlarm", "AlarmActions", [{"Ref": "AlarmTopic"}]),
    ],
    "an_alarm_watches_what_the_stack_has": [
        put("region", "HighErrorRateAlarm", "Metrics.Fn::If.1.1.MetricStat.Metric.Dimensions.0.Value", "reef"),
        put("region", "HighErrorRateAlarm", "Metrics.Fn::If.1.2.MetricStat.Metric.MetricName", "Unready"),
        put("region", "TurnErrorsAlarm", "MetricName", "TurnError"),
        put("region", "TurnErrorsAlarm", "Namespace", "Reef"),
        put("region", "GatewayErrorsAlarm", "Dimensions.1.Value", "reef-dev-gateway:prod"),
    ],
    "a_dashboard_is_json": [put("region", "RegionDashboard", "DashboardBody", '{"widgets": []}')],
    "a_dashboard_shows_what_is_written": [
        lambda house: variables(house).update(REEF_METRICS_NAMESPACE="Reef"),
        put("region", "RegionDashboard", "DashboardBody", '{"widgets": []}'),
    ],
    "the_global_table_is_eventual_recoverable_and_protected": [
        put("global", "CoreTable", "MultiRegionConsistency", "STRONG"),
        put("global", "CoreTable", "Replicas.1.DeletionProtectionEnabled", False),
        drop("global", "CoreTable", "Replicas.2.PointInTimeRecoverySpecification"),
        drop("region", "LocalTable", "PointInTimeRecoverySpecification"),
        no_policy("global", "CoreTable"),
        no_policy("region", "FilesBucket"),
        kept("region", "FilesBucket", "Retain"),
        kept("region", "LocalTable", "RetainExceptOnCreate"),
        kept("region", "ApiLogsRole", "Retain"),
    ],
    "the_tables_are_those_of_the_stores": [
        put("global", "CoreTable", "KeySchema.0.AttributeName", "PK"),
        drop("global", "CoreTable", "GlobalSecondaryIndexes.2"),
        put("global", "CoreTable", "GlobalSecondaryIndexes.0.Projection", {"ProjectionType": "ALL"}),
        drop("region", "LocalTable", "TimeToLiveSpecification"),
        drop("region", "GatewayRole", "Policies.0.PolicyDocument.Statement.0.Resource.0"),
    ],
    "the_files_are_private_encrypted_and_can_be_brought_back": [
        put("region", "FilesBucket", "PublicAccessBlockConfiguration.BlockPublicPolicy", False),
        drop("region", "FilesBucket", "OwnershipControls"),
        drop("region", "FilesBucket", "BucketEncryption"),
        put("region", "FilesBucket", "VersioningConfiguration.Status", "Suspended"),
        drop("region", "FilesBucket", "LifecycleConfiguration.Rules.1"),
        put("region", "FilesBucket", "LifecycleConfiguration.Rules.0.ExpirationInDays", 30),
        put("region", "FilesBucketPolicy", "PolicyDocument.Statement.0.Effect", "Allow"),
        drop("region", "FilesBucketPolicy", "PolicyDocument.Statement.0.Resource.1"),
        put("region", "GatewayRole", "ManagedPolicyArns", [{"Ref": "StoresPolicy"}]),
    ],
    "copies_are_made_daily_and_monthly": [
        drop("global", "BackupPlan", "BackupPlan.BackupPlanRule.1"),
        put("global", "BackupSelection", "BackupSelection.Resources", ["*"]),
    ],
    "regions_are_the_same_everywhere": [
        drop("global", "CoreTable", "Replicas.2"),
        drop("global", "ProviderKeys", "ReplicaRegions.0"),
        lambda house: house.samconfig.pop("prod-eu-central-1"),
        samconfig("dev-eu-central-1", "region", "us-east-1"),
        samconfig("dev-us-east-1", "parameter_overrides", ["Environment=dev", "Regions=us-east-1"]),
        samconfig("prod-edge", "parameter_overrides", ["Environment=prod", "Region=us-east-1"]),
    ],
}


class Rules(unittest.TestCase):
    maxDiff = None

    def test_all_rules_hold(self):
        for rule in rules.RULES:
            with self.subTest(rule.__name__):
                self.assertEqual(list(rule(HOUSE)), [])

    def test_every_rule_finds_a_template_that_breaks_it(self):
        self.assertEqual([rule.__name__ for rule in rules.RULES], list(BROKEN))
        for rule in rules.RULES:
            for number, change in enumerate(BROKEN[rule.__name__]):
                with self.subTest(rule.__name__, number=number):
                    house = HOUSE.copy()
                    change(house)
                    self.assertNotEqual(list(rule(house)), [])


if __name__ == "__main__":
    unittest.main()
