"""Starts the local sandbox as a separate process, without importing it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from django.conf import settings
from django.core.management.base import CommandError


@contextmanager
def running() -> Iterator[None]:
    """Run the sandbox until the block ends, with this site's port, redirect URI and database.

    Raises:
        CommandError: it ended at once, after printing its own message.
    """
    sys.stdout.write(
        "CLIENT_ID and CLIENT_SECRET are not set: the site starts the local sandbox, and users "
        "sign in there.\n"
    )
    file = settings.VAR / f"sandbox-{settings.SANDBOX_PORT}.sqlite3"
    command = [sys.executable, "-m", "sipgate_sandbox", "serve", "--port"]
    command += [str(settings.SANDBOX_PORT), "--redirect-uri", settings.SIPGATE_REDIRECT_URI]
    process = subprocess.Popen(  # noqa: S603  # our own module, no shell
        [*command, "--database", str(file)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=settings.BASE_DIR,
        start_new_session=True,
    )
    try:  # stopping the site while the sandbox starts stops both
        assert process.stdout is not None  # noqa: S101  # narrows the type: PIPE was asked for
        line = process.stdout.readline()
        if not line:
            raise CommandError(
                f"The sandbox could not start on port {settings.SANDBOX_PORT}: see above, or set "
                "SANDBOX_PORT."
            )
        sys.stdout.write(line)
        yield
    finally:
        process.terminate()
        process.wait()


def steer(order: str, **arguments: Any) -> None:
    """Call the sandbox's control API.

    Raises:
        requests.RequestException: the sandbox rejects the order, or does not answer.
    """
    url = f"{settings.SANDBOX_URL}/_sandbox/{order}"
    requests.post(url, json=arguments, timeout=5).raise_for_status()
