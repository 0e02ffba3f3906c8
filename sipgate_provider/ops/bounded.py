"""Runs a function that may hang, and returns in time even if it does.

Must not know: what is asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Bounded(Generic[T]):
    """Runs a function in a thread of its own. Callers that come meanwhile wait for the same result, each with a limit.
    The thread is a daemon, so that a database that never answers does not keep the process from ending.
    """

    def __init__(self, question: Callable[[], T]) -> None:
        self._question = question
        self._lock = threading.Lock()
        self._running: Future[T] | None = None

    def ask(self, patience: float) -> T:
        """Return the answer.

        Raises:
            TimeoutError: there was none within ``patience`` seconds. The function goes on, for the next caller.
            Exception: what the function raised.
        """
        with self._lock:
            if self._running is None or self._running.done():
                self._running = Future()
                threading.Thread(
                    target=self._answer, args=(self._running,), name="sipgate-bounded", daemon=True
                ).start()
            running = self._running
        return running.result(patience)

    def _answer(self, running: Future[T]) -> None:
        try:
            running.set_result(self._question())
        except Exception as error:  # the caller's to judge
            running.set_exception(error)
