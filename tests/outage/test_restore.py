"""Yesterday's database is restored: what becomes of connections that were refreshed since."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests import postgres, tools
from tests.outage.conftest import NEWEST, connect, use
from tests.rotator import Rotator

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]


@pytest.mark.parametrize("journal", ["kept", "copied", "lost"])
def test_the_newest_tokens_come_from_the_journal_or_the_person_signs_in_again(
    server, rotator, tmp_path, stale, journal
):
    where, dump = f"--dbname={server.url}", str(tmp_path / "sipgate.dump")
    run(postgres.program("pg_dump"), "--format=custom", f"--file={dump}", where)
    assert use(server.url, tmp_path / "kept", stale) == NEWEST
    run(postgres.program("pg_restore"), "--clean", "--if-exists", "--no-owner", where, dump)
    check_restored(server.url, tmp_path, journal, stale, rotator)


@pytest.mark.parametrize("journal", ["kept", "lost"])
@pytest.mark.parametrize("command", [".backup '{}'", "VACUUM INTO '{}'"])
def test_a_backup_of_sqlite(rotator, tmp_path, command, journal):
    """It is made while the database is open and its last changes are in the log beside it (WAL)."""
    program = tools.needed("sqlite3", package="sqlite3")
    database, backup = tmp_path / "db.sqlite3", tmp_path / "backup.sqlite3"
    url = f"sqlite:///{database}"
    with closing(sqlite3.connect(database)) as beside:
        connection = connect(url, rotator)
        beside.execute("SELECT 1 FROM sipgate_provider_sipgatetoken").fetchone()
        run(program, str(database), command.format(backup))
        assert use(url, tmp_path / "kept", connection) == NEWEST
    for file in tmp_path.glob("db.sqlite3*"):
        file.unlink()
    shutil.copy(backup, database)
    check_restored(url, tmp_path, journal, connection, rotator)


def run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=60, capture_output=True)


def check_restored(url: str, folder: Path, journal: str, connection: int, rotator: Rotator) -> None:
    """Use a connection that was refreshed since, with a journal that was kept, copied or lost."""
    if journal == "copied":
        shutil.copytree(folder / "kept", folder / "copied")
    is_lost = journal == "lost"
    for _ in range(2):  # a spent token is not sent for ever
        assert use(url, folder / journal, connection) == ("NeedsSignIn" if is_lost else NEWEST)
    assert rotator.counts()["reuse"] == is_lost
