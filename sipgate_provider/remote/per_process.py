"""Holds a value that every process has for itself: it is made at first use, and a forked child makes its own.

Sockets and threads must not cross a fork. Two processes that share a socket read each other's answers, and the threads
of a parent do not exist in its child.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class PerProcess(Generic[Value]):
    """Hold what ``make`` returns, once per process."""

    def __init__(self, make: Callable[[], Value]) -> None:
        self._make = make
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        # The parent may have held the lock at the moment of the fork, so the child gets a new one.
        self._lock = threading.Lock()
        self._value: Value | None = None

    def get(self) -> Value:
        """Return this process's value; the first caller makes it."""
        if self._value is None:
            with self._lock:
                if self._value is None:
                    self._value = self._make()
        return self._value
