"""Runs the tests: everything on SQLite, which is quicker, then some of it on PostgreSQL.

Arguments are handed to pytest; paths choose a part. ``--only=sqlite`` and ``--only=postgresql`` run
on one database, ``--long`` runs the long proofs instead of the usual tests.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests import postgres

ALSO_ON_POSTGRESQL = (
    "tests/concurrency/test_once.py",
    "tests/concurrency/test_pairs.py",
    "tests/concurrency/test_plans.py",
    "tests/flows/test_journal.py",
    "tests/flows/test_keepalive.py",
    "tests/flows/test_queues.py",
    "tests/flows/test_refresh.py",
    "tests/flows/test_sign_in.py",
    "tests/flows/test_token.py",
)
"""What a database decides: locks, statements, connections, and one journey."""

TWO_AT_ONCE = ("-n", "2", "--dist", "worksteal")
"""Each has a database and servers for itself. Much of the time goes into waiting for others."""


def pytest(arguments: list[str], database: str = "") -> int:
    environment = {**os.environ, "SIPGATE_TEST_DATABASE_URL": database}
    # The tests start dozens of processes: each would compile the project again.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, env=environment, check=False).returncode


def on_postgresql(chosen: list[str]) -> list[str]:
    """Return what a database decides, of the chosen paths; all of it, if none is chosen."""
    return [
        max(path, part, key=len)
        for path in ALSO_ON_POSTGRESQL
        for part in chosen or [""]
        if path.startswith(part) or part.startswith(path)
    ]


def main(arguments: list[str]) -> int:
    only = [word.removeprefix("--only=") for word in arguments if word.startswith("--only=")]
    chosen = [word for word in arguments if word.startswith("tests")]
    options = [
        word
        for word in arguments
        if word not in chosen and not word.startswith(("--only", "--long"))
    ]
    # The long proofs one after the other: they measure, and use all there is.
    options += ["-m", "long"] if "--long" in arguments else TWO_AT_ONCE
    code = 0
    if only != ["postgresql"]:
        print("→ tests on SQLite", flush=True)
        code = pytest([*options, *chosen])
    again = chosen if only and chosen else on_postgresql(chosen)
    if code == 0 and only != ["sqlite"] and again:
        print("→ what a database decides, on PostgreSQL", flush=True)
        with postgres.running() as url:
            code = pytest([*options, *again], url)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
