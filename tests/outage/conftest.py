"""A database that can go away, and processes that use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import postgres
from tests.rotator import Rotator


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.server() as one:
        yield one


@pytest.fixture
def stale(server: postgres.Server, rotator: Rotator, tmp_path: Path) -> Iterator[int]:
    """A connection with stale tokens, in a database of its own."""
    process = Process(server.url, rotator, tmp_path, answer=rotator.issue()[0])
    number = process.hear()["connection"]
    process.end()
    yield number
    server.run("DROP SCHEMA public CASCADE")
    server.run("CREATE SCHEMA public")


class Process:
    """One ``tests.outage.process``."""

    def __init__(
        self, url: str, rotator: Rotator, folder: Path, *, database: str = "postgres", **order: Any
    ) -> None:
        told = {
            "database": database,
            "settings": {
                "SIPGATE_TOKEN_URL": rotator.token_url,
                "SIPGATE_JOURNAL_DIR": str(folder),
            },
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.outage.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "SIPGATE_TEST_DATABASE_URL": url,
                "SIPGATE_WORKER": json.dumps(told),
                "DJANGO_SETTINGS_MODULE": "tests.worker_settings",
            },
        )
        self.say(json.dumps(order))

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        return dict(json.loads(self._process.stdout.readline()))

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=60)

    def end(self) -> None:
        self._process.communicate(timeout=60)
