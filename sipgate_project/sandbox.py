"""Starts the local sandbox as another process. Nothing of it is imported here."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests
from django.conf import settings
from django.core.management.base import CommandError

OURS = frozenset({"DJANGO_SETTINGS_MODULE", "RUN_MAIN", "SECRET_KEY", "DATABASE_URL"})
"""Variables that the sandbox must not take for its own."""


def start() -> subprocess.Popen[str]:
    """Start the sandbox, wait until it answers, return its process.

    It is fitted to this site: port, redirect URI, and a database for each port.

    Raises:
        CommandError: it ended at once, after printing its own message.
    """
    file = Path(settings.BASE_DIR) / "var" / f"sandbox-{settings.SANDBOX_PORT}.sqlite3"
    command = [sys.executable, "-m", "sipgate_sandbox", "serve", "--port"]
    command += [str(settings.SANDBOX_PORT), "--redirect-uri", settings.SIPGATE_REDIRECT_URI]
    process = subprocess.Popen(  # noqa: S603  # our own module, no shell
        [*command, "--database", str(file)],
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name not in OURS},
        cwd=settings.BASE_DIR,
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101  # narrows the type: PIPE was asked for
    line = process.stdout.readline()
    if not line:
        raise CommandError(
            f"The sandbox could not start on port {settings.SANDBOX_PORT}: see above, or set "
            "SANDBOX_PORT."
        )
    sys.stdout.write(line)
    return process


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()


def steer(lever: str, **order: Any) -> None:
    """Call the sandbox's control API.

    Raises:
        requests.RequestException: it rejects the order, or does not answer.
    """
    url = f"{settings.SANDBOX_URL}/_sandbox/{lever}"
    requests.post(url, json=order, timeout=5).raise_for_status()


def calm() -> None:
    """End all faults."""
    with suppress(requests.RequestException):  # somebody has stopped it
        steer("clear")
