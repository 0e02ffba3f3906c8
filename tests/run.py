"""Runs the tests: everything on SQLite and, beside it, what concerns the database again on PostgreSQL.

Arguments are handed to pytest. ``--only=sqlite`` or ``--only=postgresql`` runs one half, ``--long``
the long proofs instead of the usual ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests import postgres

ON_POSTGRESQL = [
    "tests/concurrency",
    *(
        f"tests/flows/test_{name}.py"
        for name in (
            "import_social_tokens",
            "admin",
            "budget",
            "client",
            "fence",
            "failures",
            "gate",
            "interleavings",
            "keepalive",
            "key_change",
            "leaks",
            "mark_lost",
            "model",
            "notices",
            "operations",
            "queues",
            "former_scopes",
            "repeated_callback",
            "revocation",
            "sign_in",
            "statements",
            "store",
        )
    ),
]
"""What depends on the database: promises of the gate, statements, plans. Words, pages and HTTP do not."""

PROCESSES = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
"""Two at once, each with a database and counterparts of its own: much of the time goes into waiting for others."""


def command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", *PROCESSES, *arguments]


def on_sqlite(arguments: list[str]) -> int:
    print("→ tests on SQLite", flush=True)
    return subprocess.run(command(arguments), check=False).returncode


def on_postgresql(arguments: list[str]) -> int:
    """Run the tests, and write at the end what they said: the other half may be writing meanwhile."""
    with postgres.running() as url:
        environment = {**os.environ, "SIPGATE_TEST_DATABASE_URL": url}
        done = subprocess.run(
            command(arguments), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
    print("→ tests that concern the database, on PostgreSQL", flush=True)
    sys.stdout.buffer.write(done.stdout)
    sys.stdout.flush()
    return done.returncode


def main(arguments: list[str]) -> int:
    only = next((word.removeprefix("--only=") for word in arguments if word.startswith("--only=")), "")
    arguments = [word for word in arguments if not word.startswith("--only=")]
    side_by_side = 2
    if "--long" in arguments:
        # One after the other: they measure, and use all there is.
        arguments = [word for word in arguments if word != "--long"] + ["-m", "long", "-n", "0"]
        side_by_side = 1
    chosen = [word for word in arguments if word.startswith("tests")]
    again = [path for path in chosen if path.startswith(("tests/flows", "tests/concurrency", "tests/unit"))]
    again = again if chosen else ON_POSTGRESQL
    halves: list[Callable[[], int]] = []
    if only != "postgresql":
        halves.append(partial(on_sqlite, arguments))
    if only != "sqlite" and again:
        halves.append(partial(on_postgresql, [*(word for word in arguments if word not in chosen), *again]))
    with ThreadPoolExecutor(side_by_side) as threads:
        return max(threads.map(lambda half: half(), halves), default=0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
