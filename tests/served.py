"""The site behind gunicorn as it is deployed, asked by address."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.ports import free_port
from tests.waiting import wait_until_served

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "a-token-of-the-tests-only"
KEYS = "dGVzdHMtb25seS10ZXN0cy1vbmx5LXRlc3RzLW9ubHk="


class Served:
    """One gunicorn with one worker. ``environment`` is what a command beside it needs."""

    def __init__(self, folder: Path, database: str, *, application: str, **variables: str) -> None:
        self.port = free_port()
        self.environment = {
            "PATH": os.environ["PATH"],
            "SECRET_KEY": "tests-only-" * 4,
            "SIPGATE_TOKEN_KEYS": KEYS,
            "CLIENT_ID": "1234567-1-abc:third-party",
            "CLIENT_SECRET": "tests-only",
            "REDIRECT_URI": "https://crm.example.org/oauth",
            "SIPGATE_JOURNAL_DIR": str(folder / "journal"),
            "STATIC_ROOT": str(folder / "static"),
            "METRICS_TOKEN": TOKEN,
            "DATABASE_URL": database,
            **variables,
        }
        self.log = folder / "log"
        command = [sys.executable, "-m", "gunicorn", application, "--workers", "1"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--bind", f"127.0.0.1:{self.port}"],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def get(self, path: str, **headers: str) -> requests.Response:
        if path == "/metrics":
            headers["Authorization"] = f"Bearer {TOKEN}"
        address = f"http://127.0.0.1:{self.port}{path}"
        return requests.get(address, headers=headers, timeout=60, allow_redirects=False)


@contextmanager
def served(
    folder: Path, database: str, *, application: str = "sipgate_project.wsgi", **variables: str
) -> Iterator[Served]:
    site = Served(folder, database, application=application, **variables)
    try:
        url = f"http://127.0.0.1:{site.port}/livez"
        wait_until_served(site.process, url, site.log.read_text)
        yield site
    finally:
        if site.process.poll() is None:
            site.process.send_signal(signal.SIGTERM)
            site.process.wait(80)
