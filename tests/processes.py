"""Starts processes that use the same database and counterpart as the test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import connections

PASSED_ON = (
    "SIPGATE_TOKEN_URL", "SIPGATE_AUTH_URL", "SIPGATE_API_URL", "SIPGATE_TOKEN_KEYS", "SIPGATE_LEASE_SECONDS",
    "SIPGATE_JOURNAL_DIR", "SIPGATE_WAIT_SECONDS", "SIPGATE_LOGOUT_URL",
)  # fmt: skip


def environment(**told: Any) -> dict[str, str]:
    """Return the environment of a process that shall see what the test sees."""
    values = {name: getattr(settings, name) for name in PASSED_ON if hasattr(settings, name)}
    values |= told.pop("settings", {})
    order = {"database": str(connections["default"].settings_dict["NAME"]), "settings": values, **told}
    return {
        **os.environ,
        "SIPGATE_WORKER": json.dumps(order, default=str),
        "DJANGO_SETTINGS_MODULE": "tests.worker_settings",
        "PYTHONUNBUFFERED": "1",
    }


class Worker:
    """One process of ``tests.concurrency.caller``: is told what to do by lines of JSON, answers by lines of JSON."""

    def __init__(self, **told: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.concurrency.caller"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(**told),
        )  # fmt: skip
        assert self.read() == {"ready": True}

    def tell(self, **order: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def ask(self, **order: Any) -> Any:
        self.tell(**order)
        return self.read()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@contextmanager
def workers(number: int, **told: Any) -> Iterator[list[Worker]]:
    started = [Worker(**told) for _ in range(number)]
    try:
        yield started
    finally:
        for worker in started:
            worker.close()
