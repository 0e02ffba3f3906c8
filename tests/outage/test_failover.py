"""The database is lost and its replica takes over: docs/operate.md says what that means."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import pytest

from tests import postgres
from tests.outage.conftest import NEWEST, connect, use
from tests.rotator import Rotator

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]


@pytest.mark.parametrize("commit", ["on", "remote_write"])
def test_a_synchronous_replica_has_all_tokens(rotator, tmp_path, commit):
    """So a lost journal does no harm."""
    with pair(rotator) as (primary, replica, connection):
        primary.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.run(f"ALTER SYSTEM SET synchronous_commit = {commit}")
        primary.run("SELECT pg_reload_conf()")
        assert use(both(primary, replica), tmp_path / "kept", connection) == NEWEST
        primary.stop()
        replica.promote()
        replica.run("ALTER SYSTEM RESET synchronous_standby_names")
        replica.run("SELECT pg_reload_conf()")
        assert use(both(primary, replica), tmp_path / "lost", connection) == NEWEST
    assert rotator.counts()["reuse"] == 0


@pytest.mark.parametrize("journal", ["kept", "lost"])
def test_what_an_asynchronous_replica_lacks_is_in_the_journal(rotator, tmp_path, journal):
    is_lost = journal == "lost"
    with pair(rotator) as (primary, replica, connection):
        replica.stop()
        assert use(both(primary, replica), tmp_path / "kept", connection) == NEWEST
        primary.stop()
        replica.start()
        replica.promote()
        told = use(both(primary, replica), tmp_path / journal, connection)
    assert told == ("NeedsSignIn" if is_lost else NEWEST)
    assert rotator.counts()["reuse"] == is_lost


@contextmanager
def pair(rotator: Rotator) -> Iterator[tuple[postgres.Server, postgres.Server, int]]:
    """Yield a server, its replica, and a connection with stale tokens."""
    with postgres.server() as primary, postgres.server(copy_of=primary) as replica:
        yield primary, replica, connect(primary.url, rotator)


def both(*servers: postgres.Server) -> str:
    """Return the address that names both and means the one that takes writes."""
    folders = ",".join(parse_qs(urlsplit(server.url).query)["host"][0] for server in servers)
    where = f"host={folders}&port=5432,5432&user=postgres"
    return f"postgresql:///postgres?{where}&target_session_attrs=read-write"
