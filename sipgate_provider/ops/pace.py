"""Decides how fast a run may go, and when it ends early."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

LEAST_RATE = 0.5


class Halt:
    """Why a run ends early: the caller asked for it (``asked``), or the run gave up by itself (``set``). The two differ
    because a loop goes on after an outage.
    """

    SLICE = 0.25
    """Seconds after which a waiting thread looks for the other event, and the main thread for a signal that another
    thread received."""

    def __init__(self, asked: threading.Event | None) -> None:
        self._asked = asked or threading.Event()
        self._gave_up = threading.Event()

    def set(self) -> None:
        self._gave_up.set()

    def is_set(self) -> bool:
        return self._asked.is_set() or self._gave_up.is_set()

    def wait(self, seconds: float) -> bool:
        """Return ``is_set()`` as soon as it is true, or after ``seconds``."""
        until = time.monotonic() + seconds
        while not self.is_set() and (left := until - time.monotonic()) > 0:
            self._asked.wait(min(left, self.SLICE))
        return self.is_set()


@dataclass(slots=True, kw_only=True)
class Pace:
    """Lets ``rate`` requests start per second. Halves that after 429 and 503; recovers slowly. ``rate`` 0: no limit."""

    rate: float
    _next: float = 0.0
    _wanted: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._wanted = self.rate

    def wait(self, stop: Halt) -> None:
        if not self.rate:
            return
        with self._lock:
            now = time.monotonic()
            start = max(self._next, now)
            self._next = start + 1 / self.rate
        stop.wait(max(start - now, 0))

    def slow_down(self, retry_after: float | None) -> None:
        with self._lock:
            self.rate = max((self.rate or 200.0) / 2, LEAST_RATE)
            self._next = max(self._next, time.monotonic() + min(retry_after or 0.0, 60.0))

    def speed_up(self) -> None:
        if self.rate and self.rate < self._wanted:
            self.rate = min(self.rate * 1.02, self._wanted)
