"""One stale token, many threads in many processes: one refresh, and all get the new token."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from sipgate_provider import tokens
from sipgate_provider.models import State
from tests.conftest import make_stale
from tests.processes import Worker, environment, workers
from tests.rotator import Rotator
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(280)]

PROCESSES, THREADS = 8, 8


def test_eight_processes_with_eight_threads(connect, rotator):
    """Whatever sipgate's latency is."""
    with workers(PROCESSES) as crowd:
        for latency, rounds in ((0, 20), (0.05, 10), (1, 1)):
            rotator.reset()
            rotator.set(latency=latency)
            rotate(crowd, connect().pk, rotator, rounds)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_thousand_rotations(connect, rotator):
    with workers(PROCESSES) as crowd:
        rotate(crowd, connect().pk, rotator, 1_000)


def test_caller_in_the_mandatory_window_waits_no_longer_than_sipgate(connect, rotator):
    connection = connect(age=280).pk
    rotator.set(latency=0.3)
    with workers(1) as crowd:
        crowd[0].ask(connection=connect().pk)  # warm
        outcomes = crowd[0].ask(connection=connection, threads=64)
    slowest = max(outcome[2] for outcome in outcomes)
    assert {tuple(outcome[:2]) for outcome in outcomes} == {("ok", 2)}, (
        "the present token would have lived on"
    )
    assert slowest < 2, slowest


def test_terminated_worker_stores_what_it_asked_for(connect, rotator):
    connection = connect(age=400).pk
    rotator.set(latency=1)
    with workers(1) as crowd:
        crowd[0].tell(connection=connection, threads=2)
        wait_for(lambda: rotator.counts()["arrived"])
        crowd[0].process.terminate()
        crowd[0].process.join(20)
    assert tokens.load(connection).number == 2
    assert rotator.counts()["reuse"] == 0


def test_a_command_ends_when_its_refresh_is_stored(connect, rotator):
    connection = connect(age=240).pk
    rotator.set(latency=1)
    end_of_a_command(connection, rotator)
    assert (tokens.load(connection).number, tokens.load(connection).lease_holder) == (2, "")
    assert rotator.counts()["reuse"] == 0


def test_a_command_ends_though_sipgate_hangs(connect, rotator):
    connection = connect(age=240).pk
    rotator.set(fault="hang", times=1, hang=20)
    assert end_of_a_command(connection, rotator) < 15
    row = tokens.load(connection)
    assert (row.number, row.state, row.unanswered) == (1, State.FAILING, True)


def one_rotation(crowd: list[Worker], connection: int, version: int) -> None:
    """Let everybody ask for the stale token at once; check that all got the same new one."""
    make_stale()
    for worker in crowd:
        worker.tell(connection=connection, threads=THREADS)
    outcomes = [outcome for worker in crowd for outcome in worker.read()]
    assert {tuple(outcome[:2]) for outcome in outcomes} == {("ok", version)}
    assert len(outcomes) == THREADS * len(crowd)


def rotate(crowd: list[Worker], connection: int, rotator: Rotator, rounds: int) -> None:
    first = tokens.load(connection).number
    for number in range(rounds):
        one_rotation(crowd, connection, first + number + 1)
    counts = rotator.counts()
    assert (counts["refresh"], counts["rotated"], counts["reuse"]) == (rounds, rounds, 0)
    row = tokens.load(connection)
    assert (row.state, row.lease_holder) == (State.ACTIVE, "")
    assert row.refresh_count == first - 1 + rounds


COMMAND = """
from sipgate_provider import tokens
from sipgate_provider.remote import oauth
from tests.rotator import Rotator
oauth.ANSWER_SECONDS = 2
print(tokens.token({connection}).number)
while not Rotator("{url}").counts()["arrived"]:
    pass
"""


def end_of_a_command(connection: int, rotator: Rotator) -> float:
    """Run a command that ends when the refresh behind its token has been sent.

    Returns how many seconds it took.
    """
    code = COMMAND.format(connection=connection, url=rotator.url)
    started = time.monotonic()
    words = [sys.executable, "manage.py", "shell", "--verbosity", "0", "-c", code]
    done = subprocess.run(
        words, env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "1\n"
    return time.monotonic() - started
