"""Keepalive on several machines at once, while people use the site: no token is sent twice."""

import pytest

from sipgate_provider.models import SipgateToken
from tests.concurrency import caller
from tests.processes import workers

pytestmark = [pytest.mark.django_db(transaction=True)]

ROWS = 60


def test_machines_share_the_work(connect, rotator):
    pks = [connect(age=0.6 * 2_592_000).pk for _ in range(ROWS)]
    rotator.set(latency=0.02)
    with workers(4) as [visitors, *machines]:
        for machine in machines:
            machine.tell(caller.keep_alive, threads=16)
        for pk in pks[:20]:
            assert {outcome[0] for outcome in visitors.ask(connection=pk, threads=4)} == {"ok"}
        reports = [machine.read() for machine in machines]
    counts = rotator.counts()
    assert (counts["rotated"], counts["reuse"], counts["rejected"]) == (ROWS, 0, 0)
    assert sum(report.refreshed for report in reports) >= ROWS - 20
    assert sum(report.failed + report.needs_sign_in for report in reports) == 0
    assert set(SipgateToken.objects.values_list("number", "lease_holder")) == {(2, "")}
