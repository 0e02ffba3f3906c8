"""The project as a stranger runs it: ``manage.py runserver`` with its sandbox, on free ports."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sipgate_sandbox.control import SandboxControl
from tests.ports import free_port
from tests.waiting import wait_until_served

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse battery staple"


PREPARE = """
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("createsuperuser", interactive=False, username="olga", email="olga@example.org")
"""


@dataclass(frozen=True, slots=True)
class Stand:
    url: str
    control: SandboxControl


@contextmanager
def stand(**variables: str) -> Iterator[Stand]:
    """Yield a running project with the superuser *olga*; it and its sandbox are gone afterwards."""
    port, sandbox_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="sipgate-stand-") as folder:
        environment = {
            **os.environ,
            "CLIENT_ID": "",
            "CLIENT_SECRET": "",
            "OAUTH_SCOPE": "",
            "PORT": str(port),
            "SANDBOX_PORT": str(sandbox_port),
            "REDIRECT_URI": f"http://localhost:{port}/oauth",
            "DATABASE_URL": f"sqlite:///{folder}/site.sqlite3",
            "SIPGATE_JOURNAL_DIR": f"{folder}/journal",
            "SECRET_KEY": "stand-" * 6,
            "EMAIL_URL": f"file:///{folder}/mails",
            "SIPGATE_TOKEN_KEYS": "c3RhbmQtc3RhbmQtc3RhbmQtc3RhbmQtc3RhbmQtMTI=",
            "DJANGO_SETTINGS_MODULE": "sipgate_project.settings",
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
            "DEBUG": "off",
            "TIME_ZONE": "Europe/Berlin",
            **variables,
        }

        def manage(*words: str) -> None:
            command = [sys.executable, "manage.py", *words]
            subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)

        manage("shell", "--verbosity", "0", "--command", PREPARE)
        with (Path(folder) / "site.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "runserver", "--noreload"],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        url = f"http://localhost:{port}"
        try:
            wait_until_served(process, f"{url}/readyz", (Path(folder) / "site.log").read_text)
            yield Stand(url, SandboxControl(f"http://localhost:{sandbox_port}"))
        finally:
            process.terminate()  # not SIGINT, which a shell lets its background jobs ignore
            process.wait(60)
