"""What Reef costs on AWS, by the estimator, and that the estimator misses nothing."""

import unittest
from unittest import mock

import cost
from expand import REGIONS

TWO = list(REGIONS[:2])
DOMAIN = {"region": {"DomainName": "origin.reef.example.com", "HostedZoneId": "Z0000000EXAMPLE"}}


class Cost(unittest.TestCase):
    def test_two_idle_regions_cost_at_most_five_dollars_a_month(self):
        bill = cost.idle({}, TWO)
        self.assertLessEqual(bill.after_allowances(), 5)
        # Also without any allowance but that for dashboards, so that it does not hang on the rest of the account.
        self.assertLessEqual(bill.total() - bill.lines["dashboards"], 7)

    def test_alarms_are_billed_by_the_metrics_they_read(self):
        bill = cost.idle({}, TWO)
        # 18 in each region, of which one for the other region's replication, and one for the copies.
        self.assertEqual(sum(bill.quantities[one] for one in bill.quantities if one[0] == "alarms"), 37)
        self.assertAlmostEqual(bill.lines["alarms"], 3.70)
        self.assertAlmostEqual(bill.allowances()["alarms"], 1.00)

    def test_a_third_region_costs_as_much_as_its_parts(self):
        two, three = cost.idle({}, TWO), cost.idle({}, list(REGIONS))
        self.assertAlmostEqual(three.lines["secrets"] - two.lines["secrets"], 0.40)
        self.assertAlmostEqual(three.lines["composite alarms"] - two.lines["composite alarms"], 0.50)
        # 19 of its own, and one more in each of the two others.
        self.assertAlmostEqual(three.lines["alarms"] - two.lines["alarms"], 2.10)

    def test_what_is_optional_has_its_price(self):
        plain = cost.idle({}, TWO)
        checked = cost.idle(DOMAIN, TWO)
        self.assertAlmostEqual(checked.lines["health checks"], 3.00)
        self.assertGreater(checked.lines["health checks' requests"], 3)
        unchecked = cost.idle({"region": {**DOMAIN["region"], "HealthChecks": "false"}}, TWO)
        self.assertAlmostEqual(unchecked.total(), plain.total())
        self.assertAlmostEqual(cost.idle({"edge": {"Waf": "true"}}, TWO, edge=True).lines["firewall"], 7.00)
        self.assertAlmostEqual(cost.idle({}, TWO, edge=True).total(), plain.total())
        self.assertEqual(cost.idle({"region": {"Dashboard": "false"}}, TWO).lines["dashboards"], 0)

    def test_a_thousand_turns_cost_what_the_waiting_functions_cost(self):
        bill = cost.turns({}, "us-east-1", TWO)
        # Two functions, 20 s, a quarter of a GB: 10,000 GB-seconds, and 2,000 calls.
        self.assertAlmostEqual(bill.lines["functions"], 10_000 * 13.3334e-6 + 2_000 * 0.2e-6)
        # 16,000 units here and in the other region.
        # `core` here and there, `local` here, reads.
        self.assertAlmostEqual(bill.lines["table"], 0.009375 + 0.011445 + 0.000625 + 0.0015)
        self.assertLess(bill.total(), 0.20)
        x86 = cost.turns({"region": {"Architecture": "x86_64"}}, "us-east-1", TWO)
        self.assertGreater(x86.total(), bill.total())

    def test_a_resource_without_a_price_is_refused(self):
        with mock.patch.object(cost, "FREE", cost.FREE - {"AWS::SQS::Queue"}):
            with self.assertRaisesRegex(ValueError, "AWS::SQS::Queue has no price yet"):
                cost.idle({}, TWO)

    def test_all_prices_are_known_in_all_regions(self):
        names = [set(cost.PRICES[region]) for region in REGIONS]
        self.assertEqual(names[0], names[1])
        self.assertEqual(names[0], names[2])

    def test_metrics_of_our_own_cost_nothing_in_two_regions(self):
        # They have no dimensions: a metric for each name and region.
        always = {"FirstByte", "Turns", "TurnErrors", "DeadJobs", "NotReady"}
        # Billed only in months in which it is written: where nothing is damaged it never is.
        self.assertEqual(cost.reported(), always | {"UnreadableRows"})
        self.assertLessEqual(len(always) * len(TWO), cost.PRICES["free"]["custom_metrics"])

    def test_the_report_adds_up(self):
        lines = list(cost.report({}, TWO, edge=False))
        self.assertEqual(lines[0], "A month without requests, us-east-1 and eu-central-1, US dollars:")
        parts = [float(line.split()[-1]) for line in lines[2:] if line.startswith("  ") and "(" not in line]
        self.assertAlmostEqual(sum(parts[:-1]), parts[-1], delta=0.05)


if __name__ == "__main__":
    unittest.main()
