"""Starts the local sandbox as a process of its own. Nothing of it is imported here."""

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

STOP_WITHIN = 5.0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "sipgate_sandbox", *arguments]


def serve_arguments() -> list[str]:
    """Return the arguments that fit the sandbox to this site: port, redirect URI, and a database for each port."""
    return [
        "serve",
        "--port",
        str(settings.SANDBOX_PORT),
        "--redirect-uri",
        settings.SIPGATE_REDIRECT_URI,
        "--database",
        str(Path(settings.BASE_DIR) / "var" / f"sandbox-{settings.SANDBOX_PORT}.sqlite3"),
    ]


def environment() -> dict[str, str]:
    """Return the environment without the site's own variables, since the sandbox has settings of its own."""
    mine = {
        "DJANGO_SETTINGS_MODULE",
        "RUN_MAIN",
        "SECRET_KEY",
        "DATABASE_URL",
        "SIPGATE_TOKEN_KEYS",
        "CLIENT_SECRET",
    }
    return {key: value for key, value in os.environ.items() if key not in mine}


def start() -> subprocess.Popen[str]:
    """Start the sandbox, wait until it answers, return its process.

    Raises:
        CommandError: it ended at once, after printing its own message.
    """
    process = subprocess.Popen(  # noqa: S603  # our own module, no shell
        command(*serve_arguments()),
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=Path(settings.BASE_DIR),
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101  # narrows the type: PIPE was asked for
    line = process.stdout.readline()
    if not line:
        raise CommandError(
            f"The sandbox could not start on port {settings.SANDBOX_PORT}: see above, or set SANDBOX_PORT."
        )
    sys.stdout.write(line)
    return process


def steer(lever: str, **order: Any) -> None:
    """Call the sandbox's control API. Raises ``requests.RequestException`` if it refuses or does not answer."""
    requests.post(
        f"{settings.SANDBOX_URL}/_sandbox/{lever}", json=order, timeout=5
    ).raise_for_status()


def calm() -> None:
    """End all faults."""
    with suppress(requests.RequestException):  # it was stopped meanwhile
        steer("clear")


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
