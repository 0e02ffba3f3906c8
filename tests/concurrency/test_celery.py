"""Celery's workers, real ones: however a child or a worker ends, no token is lost."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from celery.result import AsyncResult

from sipgate_provider import tokens
from sipgate_provider.models import SipgateToken, State
from tests.concurrency.celery_app import celery
from tests.processes import environment
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]


Start = Callable[..., contextlib.AbstractContextManager["Worker"]]


def test_children_that_end_while_they_refresh(start, connect, rotator):
    """Each task gets the present token; its process ends while a refresh is under way or begins.

    The main process has used threads and connections of its own before it forked.
    """
    rotator.set(latency=1)
    first = connect(age=400).pk
    with start(
        "-P", "prefork", "-c", "2", "--max-tasks-per-child", "1", SIPGATE_FIRST=str(first)
    ) as worker:
        results = [worker.use(connect(age=240).pk) for _ in range(4)]
        answers = [result.get(timeout=60) for result in results]
        assert [version for version, _ in answers] == [1] * 4
        assert len({process for _, process in answers}) == 4, "each had a process of its own"
    assert rotator.counts()["rotated"] > 1, "some were asked for"
    assert {
        tokens.refresh(pk).state for pk in SipgateToken.objects.values_list("pk", flat=True)
    } == {State.ACTIVE}
    assert (rotator.counts()["reuse"], rotator.counts()["rejected"]) == (0, 0)


@pytest.mark.long
def test_a_soft_time_limit_inside_a_refresh(start, connect, rotator):
    """And the process ends with that task."""
    rotator.set(latency=3)
    connection = connect(age=400).pk
    with start("-P", "prefork", "-c", "1", "--max-tasks-per-child", "1") as worker:
        with pytest.raises(SoftTimeLimitExceeded):
            worker.use(connection, soft_time_limit=1).get(timeout=60)
        assert versions() == {1}, "it is still being refreshed"
        assert worker.use(connection).get(timeout=60)[0] == 2
    assert (rotator.counts()["rotated"], rotator.counts()["reuse"]) == (1, 0)
    assert tokens.load(connection).lease_holder == ""


@pytest.mark.long
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_that_is_told_to_stop(start, connect, rotator, pool):
    rotator.set(latency=1)
    with start("-P", pool, "-c", "4") as worker:
        results = [worker.use(connect(age=240).pk) for _ in range(4)]
        assert [result.get(timeout=60)[0] for result in results] == [1] * 4
        stale = connect(age=400).pk
        waiting = [worker.use(stale) for _ in range(3)]
        wait_for(lambda: rotator.counts()["arrived"] == 5, worker.log.read_text)
        worker.stop()
        assert {result.get(timeout=10)[0] for result in waiting} == {2}, (
            "a task that runs is finished"
        )
    assert worker.process.returncode == 0
    assert versions() == {2}
    assert (rotator.counts()["rotated"], rotator.counts()["reuse"]) == (5, 0)


class Worker:
    """``celery worker`` as a site starts it, and somebody who gives it tasks."""

    def __init__(self, folder: Path, words: tuple[str, ...], **variables: str) -> None:
        self.client, self.log = celery(folder), folder / "log"
        for name in ("messages", "control", "results"):
            (folder / name).mkdir()
        command = [sys.executable, "-m", "celery", "-A", "tests.concurrency.celery_app", "worker"]
        # There is no other worker to talk to.
        command += ["-l", "info", "--without-mingle", "--without-gossip", *words]
        variables |= {"SIPGATE_MESSAGES": str(folder)}
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                command, env={**environment(), **variables}, stdout=file, stderr=file
            )
        wait_for(lambda: " ready." in self.log.read_text(), self.log.read_text)

    def use(self, connection: int, **options: Any) -> AsyncResult:
        return self.client.send_task("tests.concurrency.celery_app.use", [connection], **options)

    def stop(self) -> None:
        """Stop as a process manager does: SIGTERM to the main process, which finishes its tasks."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., contextlib.AbstractContextManager[Worker]]:
    @contextmanager
    def started(*words: str, **variables: str) -> Iterator[Worker]:
        worker = Worker(tmp_path, words, **variables)
        try:
            yield worker
        finally:
            if worker.process.poll() is None:
                worker.stop()
            worker.client.close()

    return started


def versions() -> set[int]:
    return set(SipgateToken.objects.values_list("number", flat=True))
