"""The monitoring page and the alert rules name the metrics and log fields that the code has."""

from __future__ import annotations

import re

from sipgate_provider import errors, exposition, metrics
from sipgate_provider.ops import keepalive
from sipgate_provider.remote import rest
from tests.project.pages import ROOT

MONITORING = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
ALERTS = (ROOT / "docs/alerts.yml").read_text(encoding="utf-8")


def test_the_table_has_every_metric() -> None:
    assert {keepalive.RUNS, rest.REQUESTS} <= {*metrics.INSTRUMENTS}
    documented = set(re.findall(r"^\| `(sipgate_\w+)` \| (?:c|h|g)", MONITORING, re.MULTILINE))
    counted = {one.name for one in metrics.INSTRUMENTS}
    text = (ROOT / "sipgate_provider" / "exposition.py").read_text(encoding="utf-8")
    assert documented == counted | set(re.findall(r'"(sipgate_\w+)"', text))
    assert exposition.GAUGES


def test_rules_ask_for_what_is_documented() -> None:
    asked = set(re.findall(r"sipgate_\w+", "\n".join(re.findall(r"expr: (.*)", ALERTS))))
    assert len(asked) >= 3
    for name in asked:
        assert f"| `{name}` |" in MONITORING, name
    for outcome in re.findall(r'outcome=~?"([^"]+)"', ALERTS)[0].split("|"):
        assert f"`{outcome}`" in MONITORING, outcome


def test_the_table_has_every_log_field() -> None:
    section = MONITORING.partition("\n## Log fields\n")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert documented == [*errors.LogFields.__annotations__]
