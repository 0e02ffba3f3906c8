"""Starts a sandbox as a process of its own and signs people in there, for tests. Needs no Django, only requests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from urllib.parse import urljoin

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
        self._folder = folder

    @property
    def oidc_url(self) -> str:
        return f"{self.url}/auth/realms/third-party/protocol/openid-connect"

    @property
    def discovery_url(self) -> str:
        return f"{self.url}/auth/realms/third-party/.well-known/openid-configuration"

    @property
    def api_url(self) -> str:
        return f"{self.url}/v2"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        if self.process.stdout:
            self.process.stdout.close()
        self._folder.cleanup()

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def launch(*arguments: str, port: int = 0, variables: Mapping[str, str] | None = None) -> Running:
    """Start a sandbox with a database of its own and wait until it answers.

    ``variables`` are added to its environment, for secrets: other users of the machine can see ``arguments``.
    Raises ``RuntimeError`` if it does not start.
    """
    folder = tempfile.TemporaryDirectory(prefix="sipgate-sandbox-")
    environment = {
        key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"
    }
    environment |= variables or {}
    database = str(Path(folder.name) / "sandbox.sqlite3")
    process = subprocess.Popen(  # noqa: S603  # our own module, no shell
        [
            sys.executable,
            "-m",
            "sipgate_sandbox",
            "serve",
            "--quiet",
            "--port",
            str(port),
            "--database",
            database,
            *arguments,
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parent.parent,
    )
    line = process.stdout.readline() if process.stdout else ""
    found = READY.search(line)
    if found is None:
        process.kill()
        raise RuntimeError("The sandbox did not start.")
    return Running(process, found[1], folder)


def sign_in(
    session: requests.Session, authorize_url: str, *, person: str = "1000000w0", allow: bool = True
) -> str:
    """Go through login and consent over HTTP as a browser would; return the address that leads back to the client."""
    response = session.get(authorize_url, allow_redirects=False)
    while True:
        location = response.headers.get("Location", "")
        if location and not _is_sandbox(urljoin(response.url, location), authorize_url):
            return location
        if location:
            response = session.get(urljoin(response.url, location), allow_redirects=False)
            continue
        fields = dict(
            re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', response.text)
        )
        if f'name="person" value="{person}"' in response.text:
            form = {**_plain(fields), "person": person}
        elif 'name="action"' in response.text:
            form = {**_plain(fields), "action": "grant" if allow else "deny"}
        elif 'name="restart"' in response.text:  # somebody else is signed in
            form = {**_plain(fields), "restart": "1"}
        else:
            raise RuntimeError(
                f"The sandbox shows a page that is no form (HTTP {response.status_code})."
            )
        response = session.post(
            response.url, data=form, allow_redirects=False, headers={"Referer": response.url}
        )


def _is_sandbox(url: str, authorize_url: str) -> bool:
    return url.split("/")[2] == authorize_url.split("/")[2]


def _plain(fields: dict[str, str]) -> dict[str, str]:
    from html import unescape

    return {key: unescape(value) for key, value in fields.items()}
