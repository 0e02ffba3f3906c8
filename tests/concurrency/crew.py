"""Two processes that refresh one connection, each paused or killed at a named point."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from django.utils import timezone

from sipgate_provider.models import SipgateToken
from tests.processes import Worker

BLOCKED = 0.3
"""Seconds after which a process that neither answers nor stops seems to wait for the other."""
PATIENCE = 20.0


class Crew:
    """Two workers at a time; a dead one is replaced by one that was started in time."""

    def __init__(self, **settings: Any) -> None:
        """Start three, with the test's settings and these."""
        self._settings = settings
        self.first, self.second, self._spare = self._worker(), self._worker(), self._worker()

    def _worker(self) -> Worker:
        return Worker(**self._settings)

    def _replace_the_dead(self) -> None:
        for name in ("first", "second"):
            if getattr(self, name).has_died:
                getattr(self, name).check_killed()
                getattr(self, name).close()
                setattr(self, name, self._spare)
                self._spare = self._worker()

    def go_on(self) -> None:
        """Read what they answered, so that they can be told the next thing."""
        for worker in (self.first, self.second):
            if not worker.has_died:
                worker.read()
        self._replace_the_dead()

    def close(self) -> None:
        for worker in (self.first, self.second, self._spare):
            worker.close()


def let_run(workers: list[Worker], seconds: float) -> bool:
    """Let workers finish, and continue whoever stops; return whether they did in time."""
    give_up = time.monotonic() + seconds
    while unfinished := [worker for worker in workers if not worker.is_finished]:
        if time.monotonic() > give_up:
            return False
        for worker in unfinished:
            if worker.is_stopped:
                worker.resume()
        end_leases()
        time.sleep(0.01)
    return True


def until_it_stops(worker: Worker) -> None:
    give_up = time.monotonic() + BLOCKED
    while not (worker.is_stopped or worker.is_finished) and time.monotonic() < give_up:
        time.sleep(0.002)


def end_leases() -> None:
    """Make each lease look long over, whether its holder is paused, dead or at work."""
    SipgateToken.objects.exclude(lease_holder="").update(
        lease_until=timezone.now() - timedelta(hours=1)
    )


def meet(crew: Crew, connection: int, first: tuple[str, str], second: tuple[str, str]) -> None:
    """Let the first one run until its point, then the second one until its own.

    Then the second one runs to its end, unless it waits for the first one, which then goes on.
    """
    for worker, (point, how) in ((crew.first, first), (crew.second, second)):
        worker.tell(connection=connection, wait=10, stop_at=[point], how=how)
        until_it_stops(worker)
        end_leases()
    let_run([crew.second], BLOCKED)  # it may have to wait for the first one
    assert let_run([crew.first, crew.second], PATIENCE), "somebody waits for ever"
