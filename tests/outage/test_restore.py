"""Yesterday's database is restored: what becomes of connections that were refreshed since."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import postgres, tools
from tests.outage.conftest import Process
from tests.rotator import Rotator

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

Started = Callable[[Path], Process]


@pytest.mark.parametrize("journal", ["kept", "copied", "lost"])
def test_the_newest_tokens_come_from_the_journal_or_the_person_signs_in_again(
    server, rotator, tmp_path, stale, journal
):
    def use(folder):
        return Process(server.url, rotator, folder, use=stale)

    dump = tmp_path / "sipgate.dump"
    run(postgres.program("pg_dump"), "--format=custom", f"--file={dump}", f"--dbname={server.url}")

    def restore():
        options = ("--clean", "--if-exists", "--no-owner", f"--dbname={server.url}")
        run(postgres.program("pg_restore"), *options, str(dump))

    check_restore(rotator, tmp_path / "journal", journal, use, restore)


@pytest.mark.parametrize("journal", ["kept", "lost"])
@pytest.mark.parametrize("command", [".backup '{}'", "VACUUM INTO '{}'"])
def test_a_backup_of_sqlite(rotator, tmp_path, command, journal):
    """It is made while the database is open and its last changes are in the log beside it (WAL)."""
    tools.needed("sqlite3", package="sqlite3")
    database, backup = tmp_path / "db.sqlite3", tmp_path / "backup.sqlite3"

    def process(folder, **order):
        return Process("", rotator, folder, database=str(database), **order)

    first = process(tmp_path / "journal", answer=rotator.issue()[0])
    connection = first.hear()["connection"]
    open_beside = subprocess.Popen(["sqlite3", str(database)], stdin=subprocess.PIPE, text=True)
    assert open_beside.stdin is not None
    open_beside.stdin.write("PRAGMA user_version;\n")
    open_beside.stdin.flush()
    first.end()
    run("sqlite3", str(database), command.format(backup))

    def restore():
        open_beside.communicate(timeout=20)
        for file in tmp_path.glob("db.sqlite3*"):
            file.unlink()
        shutil.copy(backup, database)

    check_restore(
        rotator,
        tmp_path / "journal",
        journal,
        lambda folder: process(folder, use=connection),
        restore,
    )


def run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=60, capture_output=True)


def check_restore(
    rotator: Rotator, folder: Path, journal: str, use: Started, restore: Callable[[], None]
) -> None:
    """Refresh after the backup, restore it, and use the connection.

    The journal is ``kept``, ``copied`` or ``lost``.
    """
    since = use(folder)
    assert since.hear()["number"] == 2
    since.end()
    restore()
    if journal != "kept":
        another = folder.with_name("another")
        if journal == "copied":
            shutil.copytree(folder, another)
        folder = another
    for _ in range(2):
        restored = use(folder)
        told = restored.hear()
        restored.end()
        if journal == "lost":
            assert told["error"] == "NeedsSignIn"
        else:
            assert (told["number"], told["state"]) == (2, "active")
    assert rotator.counts()["reuse"] == (1 if journal == "lost" else 0), (
        "a spent token is not sent for ever"
    )
