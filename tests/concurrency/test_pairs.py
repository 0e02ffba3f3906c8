"""Two processes refresh one connection; each is killed, or paused, at each named point: never two sends of one token.

The model of the protocol (``tests/protocol``) tries every order of its steps; this tries the real code at each pair of
its points. While somebody is paused, the lease in the row is made to look long over: on one machine the lock alone
counts.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from django.utils import timezone

from sipgate_provider import errors
from sipgate_provider.keeper import gate, journal, store
from sipgate_provider.models import Reason, SipgateToken, State
from tests.concurrency.points import KILL, LOST, PAUSE, POINTS
from tests.conftest import Connect
from tests.processes import Worker
from tests.strict import Strict

pytestmark = [pytest.mark.django_db(transaction=True)]

BLOCKED = 0.3
"""Seconds after which a process that neither answers nor stops is taken to wait for the other one."""
PATIENCE = 20.0


class Crew:
    """Two workers at a time; a dead one is replaced by one that was started in time."""

    def __init__(self) -> None:
        self.first, self.second, self._spare = Worker(), Worker(), Worker()

    def replace_the_dead(self) -> None:
        for name in ("first", "second"):
            if getattr(self, name).has_died:
                getattr(self, name).close()
                setattr(self, name, self._spare)
                self._spare = Worker()

    def close(self) -> None:
        for worker in (self.first, self.second, self._spare):
            worker.close()


@pytest.fixture
def crew(settings: Any, strict: Strict, tmp_path: Path) -> Iterator[Crew]:
    settings.SIPGATE_JOURNAL_DIR = str(tmp_path / "journal")
    one = Crew()
    yield one
    one.close()


def let_run(workers: list[Worker], seconds: float) -> bool:
    """Let workers finish, and continue whoever stops; return whether they did within so many seconds."""
    give_up = time.monotonic() + seconds
    while unfinished := [worker for worker in workers if not worker.is_finished]:
        if time.monotonic() > give_up:
            return False
        for worker in unfinished:
            if worker.is_stopped:
                worker.process.send_signal(signal.SIGCONT)
        time.sleep(0.005)
    return True


def until_it_stops(worker: Worker) -> None:
    give_up = time.monotonic() + BLOCKED
    while not (worker.is_stopped or worker.is_finished) and time.monotonic() < give_up:
        time.sleep(0.002)


def meet(crew: Crew, connection: int, first: tuple[str, str], second: tuple[str, str]) -> None:
    """Let the first one run until its point, then the second one until its own and to its end, then the first one."""
    for worker, (point, how) in ((crew.first, first), (crew.second, second)):
        worker.tell(connection=connection, wait=10, stop_at=point, how=how)
        until_it_stops(worker)
        SipgateToken.objects.exclude(lease_owner="").update(lease_until=timezone.now() - timedelta(hours=1))
    let_run([crew.second], BLOCKED)  # it may have to wait for the first one
    assert let_run([crew.first, crew.second], PATIENCE), "somebody waits for ever"


def check(connection: int, strict: Strict, *, may_be_lost: bool) -> None:
    """Nothing was lost, unless somebody was killed in the window that stays; then the row says so."""
    try:
        token = gate.usable(connection)
    except errors.NeedsSignIn:
        row = store.load(connection)
        assert may_be_lost, "a pair was lost"
        assert (row.state, row.reason) == (State.NEEDS_SIGN_IN, Reason.LOST_ROTATION)
        return
    assert (strict.counts()["reuse"], strict.counts()["rotated"]) == (0, 1), "a token was sent twice"
    assert (token.generation, store.load(connection).lease_owner) == (2, "")
    answer = requests.get(f"{strict.api_url}/account", headers={"Authorization": f"Bearer {token.value}"}, timeout=10)
    assert answer.status_code == 200, "the newest pair is dead"
    journal.recover_all()
    assert (store.load(connection).generation, journal.waiting()) == (2, 0)


def try_pairs(
    pairs: list[tuple[str, str]], hows: tuple[str, str], crew: Crew, connect: Connect, strict: Strict
) -> None:
    for points in pairs:
        strict.reset()
        first, second = zip(points, hows, strict=True)
        connection = connect(age=400).pk
        try:
            meet(crew, connection, first, second)
            check(connection, strict, may_be_lost=any(point in LOST and how == KILL for point, how in (first, second)))
        except AssertionError as error:
            raise AssertionError(f"{error}: the first one {first}, the second one {second}") from error
        for worker in (crew.first, crew.second):
            if not worker.has_died:
                worker.read()
        crew.replace_the_dead()


NAMES = list(POINTS)
HOWS = [(PAUSE, PAUSE), (PAUSE, KILL), (KILL, PAUSE), (KILL, KILL)]


@pytest.mark.parametrize("hows", HOWS, ids="-".join)
def test_some_pairs_of_points(hows: tuple[str, str], crew: Crew, connect: Connect, strict: Strict) -> None:
    """Each point once as the first one's and once as the second one's, over the four tests."""
    start = HOWS.index(hows)
    pairs = [(name, NAMES[(number * 7 + 3) % len(NAMES)]) for number, name in enumerate(NAMES)]
    try_pairs(pairs[start::4], hows, crew, connect, strict)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("hows", HOWS, ids="-".join)
def test_all_pairs_of_points(hows: tuple[str, str], crew: Crew, connect: Connect, strict: Strict) -> None:
    try_pairs([(first, second) for first in NAMES for second in NAMES], hows, crew, connect, strict)
