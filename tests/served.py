"""The site as an operator deploys it, with an environment and a database of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import Site, site

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "a-token-of-the-tests-only"


def deployment(folder: Path, database: str, **variables: str) -> dict[str, str]:
    """Return the environment of a site behind a proxy."""
    return {
        "PATH": os.environ["PATH"],
        "SECRET_KEY": "tests-only-" * 5,
        "SIPGATE_TOKEN_KEYS": "dGVzdHMtb25seS10ZXN0cy1vbmx5LXRlc3RzLW9ubHk=",
        "CLIENT_ID": "1234567-1-abc:third-party",
        "CLIENT_SECRET": "tests-only",
        "REDIRECT_URI": "https://crm.example.org/oauth",
        "BEHIND_PROXY": "on",
        "SIPGATE_JOURNAL_DIR": str(folder / "journal"),
        "STATIC_ROOT": str(folder / "static"),
        "METRICS_TOKEN": TOKEN,
        "DATABASE_URL": database,
        **variables,
    }


@contextmanager
def served(
    folder: Path, database: str, *, application: str = "sipgate_project.wsgi", **variables: str
) -> Iterator[Site]:
    """Serve it by gunicorn with one worker. ``folder`` has its log."""
    env = deployment(folder, database, **variables)
    with site(processes=1, application=application, env=env, log=folder / "log") as running:
        yield running
