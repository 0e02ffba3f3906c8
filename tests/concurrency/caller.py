"""What a worker of ``tests.processes`` does: obeys orders, each of which is a call of a function.

An order may name points of a refresh (``stop_at``) at which the process kills itself, or stops until
it is continued (``how``).
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

from django.conf import settings
from django.db import connections

from sipgate_project.database import settings_from
from sipgate_provider import errors, tokens
from sipgate_provider.ops import keepalive
from sipgate_provider.tokens import access
from tests.concurrency import points


def use(connection: int, *, threads: int = 1, wait: float | None = None) -> list[Any]:
    """Use a token in many threads at a signal; return what each got, and in how many seconds."""
    outcomes: list[Any] = []
    start = threading.Barrier(threads)

    def use_once() -> None:
        start.wait()
        began = time.monotonic()
        try:
            found = ["ok", tokens.token(connection, wait=wait).number]
        except errors.SipgateError as error:
            found = [type(error).__name__, str(getattr(error, "reason", ""))]
        finally:
            connections.close_all()
        outcomes.append([*found, time.monotonic() - began])

    crowd = [threading.Thread(target=use_once) for _ in range(threads)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    return outcomes


def keep_alive(threads: int = keepalive.THREADS) -> keepalive.Report:
    with mock.patch.object(keepalive, "THREADS", threads):
        return keepalive.run()


def serve(line: Connection, told: dict[str, Any]) -> None:
    """Obey the orders that come on a line, with the test's settings, and its database or another."""
    database = connections.settings["default"]
    if told["url"]:
        del connections["default"]  # made by the server that forked this process
        database |= settings_from(told["url"], pool_size=8)
    else:
        database["NAME"] = told["database"]
    for name, value in told["settings"].items():
        setattr(settings, name, value)
    access.recover_at_start()  # now: later it would hide what a refresh has to find by itself
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        try:
            do, order, stop_at, how = line.recv()
        except EOFError:
            return
        with contextlib.ExitStack() as stack:
            for point in stop_at:
                stack.enter_context(points.stopping(point, how))
            found = do(**order)
        line.send(found)
