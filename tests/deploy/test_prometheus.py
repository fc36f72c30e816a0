"""The rules are valid, read what servers export, fire on the fault they are for, and are silent beside it."""

from __future__ import annotations

import subprocess

import pytest
import yaml
from support.promql import ROOT, RULES, rules, unknown

FOLDER = ROOT / "deploy" / "prometheus"
TESTS = sorted((FOLDER / "tests").glob("*.yaml"))
ALERTS = [rule for rule in rules() if "alert" in rule]
RECORDED = [rule for rule in rules() if "record" in rule]


def promtool(*arguments):
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_rules_and_configuration_are_valid():
    for checked in (
        promtool("check", "rules", "--lint-fatal", *RULES.glob("*.yaml")),
        promtool("check", "config", "--lint-fatal", FOLDER / "prometheus.yaml"),
    ):
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_rules_pass_their_unit_tests():
    tested = promtool("test", "rules", *TESTS)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_wrong_expectation_fails_the_unit_tests(tmp_path):
    text = (FOLDER / "tests" / "alerts.yaml").read_text().replace("../rules", str(RULES))
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text.replace('"0+19x30"', '"0+1999x30"'))
    assert "HopeAdaptsFailing" in promtool("test", "rules", wrong).stderr


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_reads_what_servers_export(rule):
    assert unknown(rule["expr"]) == []


def test_a_metric_label_or_value_that_nobody_exports_is_found():
    assert unknown("rate(hope_adapts_total[5m])") == ["there is no metric hope_adapts_total"]
    assert unknown('hope_adapt_total{result="failed"}') == ["hope_adapt_total has no label result"]
    assert unknown('sum(hope_adapt_total{outcome="lost"})') == ["hope_adapt_total is never recorded with outcome lost"]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_is_seen_to_fire_and_to_stay_silent(alert):
    cases = [
        case for test in _cases() for case in test.get("alert_rule_test", ()) if case["alertname"] == alert["alert"]
    ]
    assert {bool(case.get("exp_alerts")) for case in cases} == {True, False}


def test_every_recording_rule_is_computed_in_a_test():
    asked = " ".join(case["expr"] for test in _cases() for case in test.get("promql_expr_test", ()))
    assert [rule["record"] for rule in RECORDED if rule["record"] not in asked] == []


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_how_urgent_it_is_and_where_its_runbook_stands(alert):
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert alert["annotations"]["runbook"] == f"deploy/README.md#{alert['alert'].lower()}"


def _cases():
    return [test for path in TESTS for test in yaml.safe_load(path.read_text())["tests"]]
