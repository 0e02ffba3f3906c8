"""PostgreSQL goes away between sipgate's answer and our write: the tokens are stored."""

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

pytestmark = pytest.mark.timeout(120)


def test_the_process_waits_and_stores(
    server: postgres.Server, rotator: Rotator, tmp_path: Path, stale: int
) -> None:
    process = Process(server.url, rotator, tmp_path, use=stale, points=True)
    refresh_while_the_database_is_away(process, server)
    server.start()
    assert process.hear() == {"number": 2, "state": "active", "waiting": 0}
    process.end()
    assert (rotator.counts()["rotated"], rotator.counts()["reuse"]) == (1, 0)


@pytest.mark.long
def test_what_it_cannot_store_the_next_process_does(
    server: postgres.Server, rotator: Rotator, tmp_path: Path, stale: int
) -> None:
    process = Process(server.url, rotator, tmp_path, use=stale, points=True)
    refresh_while_the_database_is_away(process, server)
    process.kill()
    [file] = tmp_path.glob("*/*.sealed")
    assert b"at-" not in file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0
    server.start()
    following = Process(server.url, rotator, tmp_path, use=stale)
    assert following.hear() == {"number": 2, "state": "active", "waiting": 0}
    following.end()
    assert (rotator.counts()["rotated"], rotator.counts()["reuse"]) == (1, 0)


@pytest.mark.long
def test_without_a_journal_it_waits_as_well(
    server: postgres.Server, rotator: Rotator, tmp_path: Path, stale: int
) -> None:
    (tmp_path / "file").write_text("in the way of a journal")
    folder = tmp_path / "file" / "journal"
    process = Process(server.url, rotator, folder, use=stale, points=True)
    assert process.hear() == {"at": "store"}
    server.stop()
    process.say("go on")
    server.start()
    assert process.hear() == {"number": 2, "state": "active", "waiting": 0}
    process.end()
    assert (rotator.counts()["rotated"], rotator.counts()["reuse"]) == (1, 0)


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.server() as one:
        yield one


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


@pytest.fixture
def stale(server: postgres.Server, rotator: Rotator, tmp_path: Path) -> Iterator[int]:
    """A connection with stale tokens, in a database of its own."""
    process = Process(server.url, rotator, tmp_path, answer=rotator.issue()[0])
    number = process.hear()["connection"]
    process.end()
    yield number
    server.run("DROP SCHEMA public CASCADE")
    server.run("CREATE SCHEMA public")


def refresh_while_the_database_is_away(process: Process, server: postgres.Server) -> None:
    assert process.hear() == {"at": "store"}
    server.stop()
    process.say("go on")
    assert process.hear() == {"at": "synced"}
