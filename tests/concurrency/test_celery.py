"""Celery's workers, real ones with a real Redis: however a child or a worker ends, no pair is lost."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded
from celery.result import AsyncResult

from sipgate_provider.models import SipgateToken, State
from sipgate_provider.tokens import gate, store
from tests import tools
from tests.conftest import Connect
from tests.processes import environment
from tests.rotating_server import Strict

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = tools.needed("redis-server", package="redis-server")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(20)


class Worker:
    """``celery worker`` as a site starts it, and somebody who gives it tasks."""

    def __init__(self, broker: str, log: Path, words: tuple[str, ...], **variables: str) -> None:
        self.client, self.log = Celery("client", broker=broker, backend=broker), log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [
                    *(
                        sys.executable,
                        "-m",
                        "celery",
                        "-A",
                        "tests.concurrency.celery_app",
                        "worker",
                        "-l",
                        "info",
                    ),
                    *(
                        "--without-mingle",
                        "--without-gossip",
                    ),  # there is no other worker to talk to
                    *words,
                ],
                env={**environment(), "CELERY_BROKER_URL": broker, **variables},
                stdout=file,
                stderr=file,
            )
        wait_for(lambda: " ready." in log.read_text(), self)

    def use(self, connection: int, **options: Any) -> AsyncResult:
        return self.client.send_task("tests.concurrency.celery_app.use", [connection], **options)

    def stop(self) -> None:
        """Stop it as a process manager does: SIGTERM to the main process, and its tasks are finished."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


@pytest.fixture
def start(broker: str, tmp_path: Path) -> Callable[..., contextlib.AbstractContextManager[Worker]]:
    @contextmanager
    def started(*words: str, **variables: str) -> Iterator[Worker]:
        worker = Worker(broker, tmp_path / "log", words, **variables)
        try:
            yield worker
        finally:
            if worker.process.poll() is None:
                worker.stop()
            worker.client.control.purge()
            worker.client.close()

    return started


Start = Callable[..., contextlib.AbstractContextManager[Worker]]


def wait_for(happened: Callable[[], Any], worker: Worker) -> None:
    give_up = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < give_up, worker.log.read_text()[-3000:]
        assert worker.process.poll() is None, worker.log.read_text()[-3000:]
        time.sleep(0.05)


def generations() -> set[int]:
    return set(SipgateToken.objects.values_list("generation", flat=True))


def test_children_that_end_while_they_refresh(
    start: Start, connect: Connect, strict: Strict
) -> None:
    """Each task gets the present token, and its process ends while a new one is on its way, or about to be asked for.
    The main process has used threads and connections of its own before it forked."""
    strict.set(latency=1)
    first = connect(age=400).pk
    with start(
        "-P", "prefork", "-c", "2", "--max-tasks-per-child", "1", SIPGATE_FIRST=str(first)
    ) as worker:
        results = [worker.use(connect(age=240).pk) for _ in range(4)]
        answers = [result.get(timeout=60) for result in results]
        assert [generation for generation, _ in answers] == [1] * 4
        assert len({process for _, process in answers}) == 4, "each had a process of its own"
    assert strict.counts()["rotated"] > 1, "some were asked for"
    assert {gate.refresh(pk).state for pk in SipgateToken.objects.values_list("pk", flat=True)} == {
        State.ACTIVE
    }
    assert (strict.counts()["reuse"], strict.counts()["refused"]) == (0, 0)


def test_a_soft_time_limit_inside_a_refresh(start: Start, connect: Connect, strict: Strict) -> None:
    """And the process ends with that task."""
    strict.set(latency=3)
    connection = connect(age=400).pk
    with start("-P", "prefork", "-c", "1", "--max-tasks-per-child", "1") as worker:
        with pytest.raises(SoftTimeLimitExceeded):
            worker.use(connection, soft_time_limit=1).get(timeout=60)
        assert generations() == {1}, "it is still being refreshed"
        assert worker.use(connection).get(timeout=60)[0] == 2
    assert (strict.counts()["rotated"], strict.counts()["reuse"]) == (1, 0)
    assert store.load(connection).lease_owner == ""


@pytest.mark.long
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_that_is_told_to_stop(
    start: Start, connect: Connect, strict: Strict, pool: str
) -> None:
    strict.set(latency=1)
    with start("-P", pool, "-c", "4") as worker:
        results = [worker.use(connect(age=240).pk) for _ in range(4)]
        assert [result.get(timeout=60)[0] for result in results] == [1] * 4
        stale = connect(age=400).pk
        waiting = [worker.use(stale) for _ in range(3)]
        wait_for(lambda: strict.counts()["arrived"] == 5, worker)
        worker.stop()
        assert {result.get(timeout=10)[0] for result in waiting} == {2}, (
            "a task that runs is finished"
        )
    assert worker.process.returncode == 0
    assert generations() == {2}
    assert (strict.counts()["rotated"], strict.counts()["reuse"]) == (5, 0)


@pytest.mark.long
def test_beat_starts_the_keepalive(
    start: Start, connect: Connect, strict: Strict, tmp_path: Path
) -> None:
    connect(age=0.7 * 2_592_000)
    with start("-P", "prefork", "-c", "1", "-B", "-s", str(tmp_path / "beat")) as worker:
        wait_for(lambda: generations() == {2}, worker)
        wait_for(lambda: "succeeded" in worker.log.read_text(), worker)
    assert (strict.counts()["rotated"], strict.counts()["reuse"]) == (1, 0)
