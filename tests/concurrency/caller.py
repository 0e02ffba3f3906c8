"""The process that concurrency tests start: uses tokens in many threads at a signal, and reports.

``SIPGATE_STOP_AT`` names a point of the gate at which the process shall kill itself, as ``kill -9`` would.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

import django

django.setup()

from django.db import connections, transaction  # noqa: E402  # after the set-up

from sipgate_provider import errors  # noqa: E402  # after the set-up
from sipgate_provider.keeper import gate  # noqa: E402  # after the set-up
from sipgate_provider.ops import keepalive  # noqa: E402  # after the set-up
from tests.concurrency import points  # noqa: E402  # after the set-up


def use(connection: int, wait: float | None, outcomes: list[Any], start: threading.Barrier) -> None:
    start.wait()
    began = time.monotonic()
    try:
        token = gate.usable(connection, wait=wait)
        outcomes.append(["ok", token.generation, time.monotonic() - began])
    except errors.SipgateError as error:
        outcomes.append([type(error).__name__, str(getattr(error, "reason", "")), time.monotonic() - began])
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
            token = gate.usable(order["connection"])
            raise RuntimeError("rolled back")
    except RuntimeError:
        return ["ok", token.generation]
    except errors.SipgateError as error:
        return [type(error).__name__, ""]


def main() -> None:
    if os.environ.get("SIPGATE_STOP_AT"):
        points.stop_at(os.environ["SIPGATE_STOP_AT"])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if order.get("upkeep"):
            answer: Any = keepalive.run(rate=0, threads=1).as_dict()  # one under way: others would be in the window
        else:
            answer = in_transaction(order) if order.get("roll_back") else round_of(order)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
