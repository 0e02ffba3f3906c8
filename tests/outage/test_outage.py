"""PostgreSQL goes away between sipgate's answer and our write: the tokens are stored."""

from __future__ import annotations

import pytest

from tests.concurrency.points import PAUSE
from tests.outage.conftest import NEWEST, found, use
from tests.processes import workers
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("ending", ["waits", pytest.param("is killed", marks=pytest.mark.long)])
def test_new_tokens_are_stored_when_the_database_is_back(server, rotator, tmp_path, stale, ending):
    """By the process that has them, or by the next one."""
    with workers(1, url=server.url, SIPGATE_JOURNAL_DIR=str(tmp_path)) as [worker]:
        worker.tell(
            found,
            connection=stale,
            stop_at=["before the tokens are stored", "not stored"],
            how=PAUSE,
        )
        wait_for(lambda: worker.is_stopped)
        server.stop()
        worker.resume()
        wait_for(lambda: worker.is_stopped)
        if ending == "is killed":
            worker.process.kill()
        server.start()
        worker.resume()
        answer = worker.read() or use(server.url, tmp_path, stale)
    assert answer == NEWEST
    assert (rotator.counts()["rotated"], rotator.counts()["reuse"]) == (1, 0)
