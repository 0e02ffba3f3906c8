"""``python -m bench``: measure everything against one counterpart, in one run.

    python -m bench                      everything, on PostgreSQL and SQLite (about twenty minutes)
    python -m bench --quick              shows that everything runs, in less than a minute; its numbers mean little
    python -m bench --only bulk          one case (repeatable)
    python -m bench --database sqlite    one database
    python -m bench --peers FOLDER       use the peers' real packages from there (pip install --target FOLDER …)

A table goes to the terminal, everything to ``--output`` (JSON). The exit status is 0 if everything was measured, whether
or not the targets were reached: they are reported, and nothing is tuned to them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from tests import postgres

from . import counterpart
from .cases import CASES, Size
from .measure import Case, case_table, target_table
from .workers import Place, close_idle, workers

ON_ONE_DATABASE = {"hanging": "postgresql"}
"""What is about database connections, which SQLite has as many as anybody wants."""
QUICK_ON_SQLITE = ("gate",)
BUSY = 0.3
"""Load per processor at the start above which somebody else is measured, too."""


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    started = time.monotonic()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > BUSY * (os.cpu_count() or 1):
        print(f"The machine is not idle (load {load:.1f}): times, and p99 most of all, are those of a busy machine.\n")
    cases: list[Case] = []
    databases: dict[str, Any] = {}
    with counterpart.running() as server, tempfile.TemporaryDirectory(prefix="sipgate-bench-") as folder:
        for name in options.database:
            place_folder = Path(folder) / name
            place_folder.mkdir()
            with _database(name, place_folder) as url:
                place = Place(name, url, server, place_folder, peers=options.peers)
                try:
                    with workers(place) as (worker,):
                        databases[name] = worker.do("prepare")
                    for made in _measure(place, options):
                        cases += made
                        # After each case: an interrupted run is not lost.
                        _write(options, cases, databases, time.monotonic() - started, load)
                finally:
                    close_idle()
    seconds = time.monotonic() - started
    print(
        f"\n{'=' * 100}\nTargets{' (a quick run: the numbers mean little)' if options.quick else ''}\n{target_table(cases)}"
    )
    print(f"\nMeasured in {seconds:.0f} s; everything is in {options.output}. Next: make test.")
    return 0


def _measure(place: Place, options: argparse.Namespace) -> Iterator[list[Case]]:
    for name, work in CASES.items():
        if not _wanted(name, place.database, options):
            continue
        print(f"→ {name} on {place.database}: {(work.__doc__ or '').splitlines()[0]}", flush=True)
        made = work(place, Size(options.quick))
        for one in made:
            print(f"\n{case_table(one)}", flush=True)
        print(flush=True)
        yield made


def _wanted(name: str, database: str, options: argparse.Namespace) -> bool:
    if options.only:
        return name in options.only
    if len(options.database) == 1:
        return True
    if options.quick and database == "sqlite":
        return name in QUICK_ON_SQLITE
    return ON_ONE_DATABASE.get(name, database) == database


@contextmanager
def _database(name: str, folder: Path) -> Iterator[str]:
    if name == "sqlite":
        yield f"sqlite:///{folder / 'bench.sqlite3'}"
        return
    with postgres.running() as url:
        yield url


def _write(
    options: argparse.Namespace, cases: list[Case], databases: dict[str, Any], seconds: float, load: float
) -> None:
    output = Path(options.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    packages = ("Django", "django-allauth", "psycopg", "requests", "urllib3", "cryptography", "gunicorn")
    report = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": options.quick,
        "seconds": round(seconds, 1),
        "commit": _commit(),
        "machine": {
            "cpus": os.cpu_count(),
            "model": _cpu_model(),
            "system": f"{platform.system()} {platform.release()}",
            "load_before": load,
        },
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "databases": databases,
        "cases": [case.as_dict() for case in cases],
    }
    output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def _commit() -> str:
    try:
        found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return found.stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the performance promises.")
    parser.add_argument("--quick", action="store_true", help="a smoke run of less than a minute")
    parser.add_argument("--only", action="append", choices=sorted(CASES), help="one case; may be repeated")
    parser.add_argument("--database", action="append", choices=["postgresql", "sqlite"], help="one database")
    parser.add_argument("--output", default="artifacts/bench.json", help="where the JSON goes")
    parser.add_argument("--peers", default=os.environ.get("BENCH_PEERS", ""), help="a folder with the peers' packages")
    options = parser.parse_args(arguments)
    options.database = options.database or ["postgresql", "sqlite"]
    options.peers = str(Path(options.peers).resolve()) if options.peers else ""
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
