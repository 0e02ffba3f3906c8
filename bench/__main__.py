"""``python -m bench``: measure what the documents promise about speed, each beside a bare baseline.

    python -m bench                      on PostgreSQL, in about two minutes
    python -m bench --database sqlite    on SQLite
    python -m bench --quick              show that everything runs; the numbers mean little

Each case does the same work in two ways, in turns, with the sandbox on the same machine.
The exit status is 0 if everything was measured, whatever came out.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import django
from django.core.management import call_command

from sipgate_sandbox.launch import Running, launch
from tests import postgres

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("--quick", action="store_true", help="show that everything runs")
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sipgate-bench-"))
        sandbox = stack.enter_context(launch("--redirect-uri=http://localhost:8080/oauth"))
        url = f"sqlite:///{folder}/bench.sqlite3"
        if options.database == "postgresql":
            url = stack.enter_context(postgres.running())
        _set_up(sandbox, url, folder)
        from . import cases  # after the set-up

        for case in cases.ALL:
            print(f"\n{case.__doc__}")
            case(sandbox, 10 if options.quick else 300)


def _set_up(sandbox: Running, url: str, folder: str) -> None:
    """Set Django up as in production, with a journal, and without this machine's ``.env``."""
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    os.environ |= {
        **dict.fromkeys(re.findall(r"^([A-Z_]+)=", example, flags=re.MULTILINE), ""),
        "DJANGO_SETTINGS_MODULE": "sipgate_project.settings",
        "SECRET_KEY": "bench-only-" * 4,
        "SIPGATE_TOKEN_KEYS": "YmVuY2gtb25seS1iZW5jaC1vbmx5LWJlbmNoLW9ubHk=",
        "REDIRECT_URI": "http://localhost:8080/oauth",
        "SANDBOX_PORT": sandbox.url.rpartition(":")[2],
        "DATABASE_URL": url,
        "SIPGATE_JOURNAL_DIR": f"{folder}/journal",
        "OAUTH_SCOPE": "account:read",
        "LOG_LEVEL": "WARNING",
    }
    django.setup()
    call_command("migrate", verbosity=0)


if __name__ == "__main__":
    main(sys.argv[1:])
