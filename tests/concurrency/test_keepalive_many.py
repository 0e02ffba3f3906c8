"""Keepalive on several machines at once, while people use the site: no token is sent twice."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from sipgate_provider.models import SipgateToken
from tests.conftest import Connect
from tests.processes import environment, workers
from tests.rotating_server import Strict

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

ROWS = 200


def run_keepalive() -> dict[str, int]:
    done = subprocess.run(
        [
            sys.executable,
            "manage.py",
            "sipgate_keepalive",
            "--json",
            "--rate",
            "0",
            "--threads",
            "16",
        ],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def test_four_machines_share_the_work(connect: Connect, strict: Strict) -> None:
    pks = [connect(age=0.6 * 2_592_000).pk for _ in range(ROWS)]
    strict.set(latency=0.02)
    with workers(1) as [visitors], ThreadPoolExecutor(4) as machines:
        running = [machines.submit(run_keepalive) for _ in range(4)]
        for pk in pks[:20]:
            assert {outcome[0] for outcome in visitors.ask(connection=pk, threads=4)} == {"ok"}
        reports = [future.result() for future in running]
    counts = strict.counts()
    assert (counts["rotated"], counts["reuse"], counts["refused"]) == (ROWS, 0, 0)
    assert sum(report["refreshed"] for report in reports) >= ROWS - 20
    assert sum(report["failed"] + report["needs_sign_in"] for report in reports) == 0
    assert set(SipgateToken.objects.values_list("generation", "lease_owner")) == {(2, "")}
