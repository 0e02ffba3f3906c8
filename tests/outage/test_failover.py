"""The database is lost and its replica takes over: docs/operate.md says what that means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests import postgres
from tests.outage.conftest import Process
from tests.rotator import Rotator

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]


@pytest.mark.parametrize("commit", ["on", "remote_write"])
@pytest.mark.parametrize("journal", ["kept", "lost"])
def test_a_synchronous_replica_has_all_tokens(rotator, tmp_path, commit, journal):
    with pair(rotator, tmp_path / "kept") as (primary, replica, connection):
        primary.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.run(f"ALTER SYSTEM SET synchronous_commit = {commit}")
        primary.run("SELECT pg_reload_conf()")
        used = Process(both(primary, replica), rotator, tmp_path / "kept", use=connection)
        assert used.hear()["number"] == 2
        used.end()
        primary.stop()
        replica.promote()
        replica.run("ALTER SYSTEM RESET synchronous_standby_names")
        replica.run("SELECT pg_reload_conf()")
        after = Process(both(primary, replica), rotator, tmp_path / journal, use=connection)
        assert after.hear() == {"number": 2, "state": "active", "waiting": 0}
        after.end()
    assert rotator.counts()["reuse"] == 0


@pytest.mark.parametrize("journal", ["kept", "lost"])
def test_what_an_asynchronous_replica_lacks_is_in_the_journal(rotator, tmp_path, journal):
    with pair(rotator, tmp_path / "kept") as (primary, replica, connection):
        replica.stop()
        used = Process(both(primary, replica), rotator, tmp_path / "kept", use=connection)
        assert used.hear()["number"] == 2
        used.end()
        primary.stop()
        replica.start()
        replica.promote()
        after = Process(both(primary, replica), rotator, tmp_path / journal, use=connection)
        told = after.hear()
        after.end()
        if journal == "kept":
            assert (told["number"], told["state"]) == (2, "active")
        else:
            assert told["error"] == "NeedsSignIn"
    assert rotator.counts()["reuse"] == (0 if journal == "kept" else 1)


@contextmanager
def pair(rotator: Rotator, folder: Path) -> Iterator[tuple[postgres.Server, postgres.Server, int]]:
    """Yield a server, its replica, and a connection with stale tokens."""
    with postgres.server() as primary, postgres.server(copy_of=primary) as replica:
        first = Process(primary.url, rotator, folder, answer=rotator.issue()[0])
        connection = int(first.hear()["connection"])
        first.end()
        yield primary, replica, connection


def both(*servers: postgres.Server) -> str:
    """Return the address that names both and means the one that takes writes."""
    folders = ",".join(parse_qs(urlsplit(server.url).query)["host"][0] for server in servers)
    where = f"host={folders}&port=5432,5432&user=postgres"
    return f"postgresql:///postgres?{where}&target_session_attrs=read-write"
