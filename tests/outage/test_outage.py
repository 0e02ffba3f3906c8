"""PostgreSQL goes away between sipgate's answer and our write: the tokens are stored."""

from __future__ import annotations

import pytest

from tests import postgres
from tests.outage.conftest import Process

pytestmark = pytest.mark.timeout(120)


def test_the_process_waits_and_stores(server, rotator, tmp_path, stale):
    process = Process(server.url, rotator, tmp_path, use=stale, points=True)
    refresh_while_the_database_is_away(process, server)
    server.start()
    assert process.hear() == {"number": 2, "state": "active", "waiting": 0}
    process.end()
    assert (rotator.counts()["rotated"], rotator.counts()["reuse"]) == (1, 0)


@pytest.mark.long
def test_what_it_cannot_store_the_next_process_does(server, rotator, tmp_path, stale):
    process = Process(server.url, rotator, tmp_path, use=stale, points=True)
    refresh_while_the_database_is_away(process, server)
    process.kill()
    [file] = tmp_path.glob("*/*.sealed")
    assert b"access_token" not in file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0
    server.start()
    following = Process(server.url, rotator, tmp_path, use=stale)
    assert following.hear() == {"number": 2, "state": "active", "waiting": 0}
    following.end()
    assert (rotator.counts()["rotated"], rotator.counts()["reuse"]) == (1, 0)


@pytest.mark.long
def test_without_a_journal_it_waits_as_well(server, rotator, tmp_path, stale):
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


def refresh_while_the_database_is_away(process: Process, server: postgres.Server) -> None:
    assert process.hear() == {"at": "store"}
    server.stop()
    process.say("go on")
    assert process.hear() == {"at": "synced"}
