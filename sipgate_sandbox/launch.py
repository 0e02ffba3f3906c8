"""Starts a sandbox as a process of its own and signs people in there, for tests.

Needs no Django, only requests.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urljoin, urlsplit

import requests

from .control import SandboxControl

READY = re.compile(r"ready at (http://\S+)")


class Running:
    """A running sandbox; ends with the ``with`` block."""

    def __init__(
        self, process: subprocess.Popen[str], url: str, folder: tempfile.TemporaryDirectory[str]
    ) -> None:
        self.process = process
        self.url = url
        self.control = SandboxControl(url)
        self.issuer = f"{url}/auth/realms/third-party"
        self.oidc_url = f"{self.issuer}/protocol/openid-connect"
        self.api_url = f"{url}/v2"
        self._folder = folder

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        if self.process.stdout:
            self.process.stdout.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def launch(*arguments: str, variables: Mapping[str, str] | None = None) -> Running:
    """Start a sandbox on a free port, with a database of its own, and wait until it answers.

    ``arguments`` are those of ``python -m sipgate_sandbox serve``, ``variables`` are added to its
    environment. Raises ``RuntimeError`` if it does not start.
    """
    folder = tempfile.TemporaryDirectory(prefix="sipgate-sandbox-")
    database = str(Path(folder.name) / "sandbox.sqlite3")
    command = [sys.executable, "-m", "sipgate_sandbox", "serve", "--port=0"]
    process = subprocess.Popen(  # noqa: S603  # our own module, no shell
        [*command, "--database", database, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | (variables or {}),
        cwd=Path(__file__).parent.parent,
    )
    found = READY.search(process.stdout.readline() if process.stdout else "")
    if found is None:
        process.kill()
        raise RuntimeError("The sandbox did not start.")
    return Running(process, found[1], folder)


def sign_in(
    session: requests.Session, authorize_url: str, *, person: str = "1000000w0", allow: bool = True
) -> str:
    """Sign in and answer the consent as a browser would; return the address that leads back."""
    response = session.get(authorize_url, allow_redirects=False)
    while True:
        if location := response.headers.get("Location"):
            target = urljoin(response.url, location)
            if urlsplit(target).netloc != urlsplit(authorize_url).netloc:
                return location
            response = session.get(target, allow_redirects=False)
            continue
        if f'name="person" value="{person}"' in response.text:
            form = {"person": person}
        elif 'name="action"' in response.text:
            form = {"action": "grant" if allow else "deny"}
        elif 'name="restart"' in response.text:  # somebody else is signed in
            form = {"restart": "1"}
        else:
            raise RuntimeError(
                f"The sandbox shows a page that is no form (HTTP {response.status_code})."
            )
        response = session.post(response.url, data=form, allow_redirects=False)
