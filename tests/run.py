"""Runs the tests: everything on SQLite, then what concerns the database again on PostgreSQL.

Arguments are handed to pytest. ``--only=sqlite`` or ``--only=postgresql`` runs one half, ``--long``
the long proofs instead of the usual ones.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests import postgres

ON_POSTGRESQL = [
    "tests/concurrency",
    *(
        f"tests/flows/test_{name}.py"
        for name in (
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


ONLY_ON_POSTGRESQL = ["--ignore=tests/concurrency/test_celery.py"]
"""Celery's worker processes take half a minute, and share a database server wherever there are several."""


def pytest(arguments: list[str], **environment: str) -> int:
    return subprocess.run(
        [sys.executable, "-m", "pytest", *PROCESSES, *arguments],
        env={**os.environ, **environment},
        check=False,
    ).returncode


def main(arguments: list[str]) -> int:
    only = next(
        (word.removeprefix("--only=") for word in arguments if word.startswith("--only=")), ""
    )
    arguments = [word for word in arguments if not word.startswith("--only=")]
    if "--long" in arguments:
        # One after the other: they measure, and use all there is.
        arguments = [word for word in arguments if word != "--long"] + ["-m", "long", "-n", "0"]
    chosen = [word for word in arguments if word.startswith("tests")]
    code = 0
    if only != "postgresql":
        print("→ tests on SQLite", flush=True)
        code = pytest(arguments if chosen else [*arguments, *ONLY_ON_POSTGRESQL])
    again = [
        path
        for path in chosen
        if path.startswith(("tests/flows", "tests/concurrency", "tests/unit"))
    ]
    again = again if chosen else ON_POSTGRESQL
    if code == 0 and only != "sqlite" and again:
        print("→ tests that concern the database, on PostgreSQL", flush=True)
        with postgres.running() as url:
            options = [word for word in arguments if word not in chosen]
            code = pytest([*options, *again], SIPGATE_TEST_DATABASE_URL=url)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
