"""What a worker of ``tests.processes`` does: uses tokens in many threads at a signal, and reports.

An order may name a point of a refresh (``stop_at``) at which the process kills itself, or stops
until it is continued (``how``).
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any
from unittest import mock

from django.conf import settings
from django.db import connections, transaction

from sipgate_provider import errors, tokens
from sipgate_provider.ops import keepalive
from sipgate_provider.tokens import access
from tests.concurrency import points


def use(connection: int, wait: float | None, outcomes: list[Any], start: threading.Barrier) -> None:
    start.wait()
    began = time.monotonic()
    try:
        token = tokens.token(connection, wait=wait)
        outcomes.append(["ok", token.number, time.monotonic() - began])
    except errors.SipgateError as error:
        outcomes.append(
            [type(error).__name__, str(getattr(error, "reason", "")), time.monotonic() - began]
        )
    finally:
        connections.close_all()


def round_of(order: dict[str, Any]) -> list[Any]:
    outcomes: list[Any] = []
    number = order.get("threads", 1)
    start = threading.Barrier(number)
    arguments = (order["connection"], order.get("wait"), outcomes, start)
    threads = [threading.Thread(target=use, args=arguments) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def in_transaction(order: dict[str, Any]) -> list[Any]:
    """Use a token inside a transaction that is rolled back."""
    try:
        with transaction.atomic():
            token = tokens.token(order["connection"])
            raise RuntimeError("rolled back")
    except RuntimeError:
        return ["ok", token.number]
    except errors.SipgateError as error:
        return [type(error).__name__, ""]


def answer(order: dict[str, Any]) -> Any:
    if order.get("keepalive"):
        with mock.patch.object(keepalive, "THREADS", order.get("threads", keepalive.THREADS)):
            return keepalive.run().as_dict()
    if order.get("reseal"):
        return asdict(tokens.reseal())
    return in_transaction(order) if order.get("roll_back") else round_of(order)


def serve(line: Connection, told: dict[str, Any]) -> None:
    """Obey the orders that come on a line, with the test's database and settings."""
    connections.settings["default"]["NAME"] = told["database"]
    for name, value in told["settings"].items():
        setattr(settings, name, value)
    access.recover_at_start()  # now: later it would hide what a refresh has to find by itself
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        try:
            order = line.recv()
        except EOFError:
            return
        point, how = order.get("stop_at"), order.get("how", points.KILL)
        with points.stopping(point, how) if point else contextlib.nullcontext():
            found = answer(order)
        line.send(found)
