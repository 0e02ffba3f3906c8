"""The output of the commands: a progress line on a terminal, one summary line, or JSON.

A library for progress bars would be a dependency of every site that installs the app.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError, OutputWrapper
from django.core.serializers.json import DjangoJSONEncoder

WIDTH = 30
EVERY = 0.1
"""Seconds between two drawings, so that the terminal does not slow the command down."""


class Progress:
    """A bar on a terminal, nothing elsewhere."""

    def __init__(self, stream: OutputWrapper, total: int) -> None:
        self._stream = stream
        self._total = max(total, 1)
        self._shown = stream.isatty()
        self._drawn_at = 0.0
        self._lock = threading.Lock()

    def show(self, done: int, text: str) -> None:
        if not self._shown or time.monotonic() - self._drawn_at < EVERY:
            return
        with self._lock:
            self._drawn_at = time.monotonic()
            filled = min(round(WIDTH * done / self._total), WIDTH)
            self._stream.write(
                f"\r[{'█' * filled}{'·' * (WIDTH - filled)}] {done}/{self._total}  {text}\x1b[K",
                ending="",
            )
            self._stream.flush()

    def clear(self) -> None:
        if self._shown and self._drawn_at:
            self._stream.write("\r\x1b[K", ending="")


def as_json(data: Any) -> str:
    """Return one line of JSON."""
    return json.dumps(data, cls=DjangoJSONEncoder, ensure_ascii=False)


def command_error(text: str) -> CommandError:
    """Return the error that ends a command."""
    return CommandError(text)


@contextmanager
def stopping_cleanly() -> Iterator[threading.Event]:
    """Inside this block, SIGTERM and Ctrl-C set the event, and do not end the process before its work is finished."""
    stop = threading.Event()

    def ask(_signal: int, _frame: object) -> None:
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
