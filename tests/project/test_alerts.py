"""Each rule of docs/alerts.yml fires when it should and is silent otherwise; promtool, Prometheus' own tool, judges."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests import tools
from tests.project.test_metrics_docs import ALERTS, rules

ROOT = Path(__file__).resolve().parents[2]
HOURS = 12
"""How long the series below last; a value holds for one minute."""

Series = dict[str, str]
QUIET = f"0x{HOURS * 60}"
UP = {'up{job="sipgate",instance="a"}': f"1x{HOURS * 60}"}
RUNS = {'sipgate_keepalive_runs_total{outcome="finished"}': f"0+1x{HOURS * 60}"}
WELL: Series = {
    **UP,
    **RUNS,
    "sipgate_client_paused": QUIET,
    'sipgate_refreshes_total{outcome="misconfigured"}': QUIET,
    'sipgate_refreshes_total{outcome="unavailable"}': QUIET,
    'sipgate_refreshes_total{outcome="refreshed"}': f"0+60x{HOURS * 60}",
    'sipgate_connections{state="active"}': f"1000x{HOURS * 60}",
    'sipgate_connections{state="needs_sign_in"}': f"10x{HOURS * 60}",
    'sipgate_api_requests_total{status="200"}': f"0+60x{HOURS * 60}",
    'sipgate_api_requests_total{status="503"}': QUIET,
    "sipgate_connections_ending": QUIET,
    "sipgate_connections_overdue": QUIET,
    "sipgate_journal_entries": QUIET,
    "sipgate_journal_writable": f"1x{HOURS * 60}",
    "sipgate_revocations_oldest_seconds": QUIET,
    'sipgate_gate_wait_seconds_bucket{result="refreshed",le="1.0"}': f"0+60x{HOURS * 60}",
    'sipgate_gate_wait_seconds_bucket{result="refreshed",le="10.0"}': f"0+60x{HOURS * 60}",
    'sipgate_gate_wait_seconds_bucket{result="refreshed",le="+Inf"}': f"0+60x{HOURS * 60}",
    "sipgate_statistics_up": f"1x{HOURS * 60}",
}
"""A site on which nothing is wrong, and where now and then somebody signs in and out."""

TROUBLES: dict[str, list[Series]] = {
    "SipgateRefusesTheClient": [
        {"sipgate_client_paused": "0x600 1x119"},
        {'sipgate_refreshes_total{outcome="misconfigured"}': "0x710 1x9"},
    ],
    "SipgateManyNeedSignIn": [{'sipgate_connections{state="needs_sign_in"}': "10x680 70x39"}],
    "SipgateRefreshesFail": [{'sipgate_refreshes_total{outcome="unavailable"}': "0x600 0+30x119"}],
    "SipgateApiFails": [{'sipgate_api_requests_total{status="503"}': "0x600 0+30x119"}],
    "SipgateConnectionsEndSoon": [{"sipgate_connections_ending": "0x300 3x419"}],
    "SipgateKeepaliveIsLate": [{"sipgate_connections_overdue": "0x600 3x119"}],
    "SipgateJournalWaits": [{"sipgate_journal_entries": "0x600 1x119"}],
    "SipgateSessionsDoNotEnd": [{"sipgate_revocations_oldest_seconds": "0+60x719"}],
    "SipgateGateIsSlow": [
        {'sipgate_gate_wait_seconds_bucket{result="refreshed",le="1.0"}': f"0+30x{HOURS * 60}"}
    ],
    "SipgateIsNotCounted": [{"sipgate_statistics_up": "1x700 0x19"}],
    "SipgateSiteIsDown": [{next(iter(UP)): "1x700 0x19"}, {next(iter(UP)): "1x700 stale _x18"}],
    "SipgateKeepaliveDoesNotRun": [{next(iter(RUNS)): "0+1x600 600x119"}],
    "SipgateJournalCannotWrite": [{"sipgate_journal_writable": "1x700 0x19"}],
}
"""What has to change on that site for a rule to fire at the end."""

BRIEF: dict[str, Series] = {
    "SipgateManyNeedSignIn": {
        'sipgate_connections{state="needs_sign_in"}': "10x680 30x39"
    },  # a few of a thousand
    "SipgateRefreshesFail": {'sipgate_refreshes_total{outcome="unavailable"}': "0x712 0+30x7"},
    "SipgateApiFails": {'sipgate_api_requests_total{status="503"}': "0x712 0+30x7"},
    "SipgateConnectionsEndSoon": {"sipgate_connections_ending": "0x600 3x119"},
    "SipgateKeepaliveIsLate": {"sipgate_connections_overdue": "0x700 3x19"},
    "SipgateJournalWaits": {"sipgate_journal_entries": "0x715 1x4"},
    "SipgateSessionsDoNotEnd": {"sipgate_revocations_oldest_seconds": "0x600 0+60x119"},
    "SipgateIsNotCounted": {"sipgate_statistics_up": "1x716 0x3"},
    "SipgateSiteIsDown": {next(iter(UP)): "1x716 0x3"},
    "SipgateKeepaliveDoesNotRun": {next(iter(RUNS)): "0+1x690 690x29"},
    "SipgateJournalCannotWrite": {"sipgate_journal_writable": "1x716 0x3"},
}
"""The same for too short a time, or too few, to wake anybody."""


def expected(alert: str, series: Series) -> dict[str, dict[str, str]]:
    rule = next(rule for rule in rules() if rule["alert"] == alert)
    labels = {"severity": rule["severity"]}
    if alert == "SipgateSiteIsDown":
        labels |= {"job": "sipgate"} | (
            {"instance": "a"} if "stale" not in series[next(iter(UP))] else {}
        )
    return {
        "exp_labels": labels,
        "exp_annotations": {key: rule[key] for key in ("summary", "action")},
    }


def judged(
    folder: Path, series: Series, *, firing: Iterable[str] = (), silent: Iterable[str] = ()
) -> None:
    fires = [{"alertname": alert, "exp_alerts": [expected(alert, series)]} for alert in firing]
    is_silent = [{"alertname": alert, "exp_alerts": []} for alert in silent]
    test = {
        "rule_files": ["alerts.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": values} for name, values in series.items()
                ],
                "alert_rule_test": [
                    {"eval_time": f"{HOURS}h", **asked} for asked in [*fires, *is_silent]
                ],
            }
        ],
    }
    (folder / "alerts.yml").write_text(ALERTS)
    (folder / "test.yml").write_text(json.dumps(test))  # JSON is YAML
    done = subprocess.run(
        [tools.needed("promtool", package="prometheus"), "test", "rules", "test.yml"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("alert", "change"),
    [(alert, change) for alert, changes in TROUBLES.items() for change in changes],
)
def test_it_fires(tmp_path: Path, alert: str, change: Series) -> None:
    assert set(change) <= set(WELL)
    judged(tmp_path, {**WELL, **change}, firing=[alert])


@pytest.mark.long
def test_all_are_silent_when_all_is_well(tmp_path: Path) -> None:
    judged(tmp_path, WELL, silent=TROUBLES)


@pytest.mark.long
@pytest.mark.parametrize("alert", BRIEF)
def test_it_is_silent_about_what_passes(tmp_path: Path, alert: str) -> None:
    judged(tmp_path, {**WELL, **BRIEF[alert]}, silent=[alert])


def test_every_rule_is_tried() -> None:
    assert set(TROUBLES) == {rule["alert"] for rule in rules()}
