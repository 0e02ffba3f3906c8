"""For tests: starts a sandbox in a separate process, and signs people in there.

Needs requests, but not Django.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests

from .control import SandboxControl

READY = re.compile(r"ready at (http://\S+)")


class Running:
    """A running sandbox."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url
        self.control = SandboxControl(url)
        self.oidc_url = f"{url}/auth/realms/third-party/protocol/openid-connect"
        self.api_url = f"{url}/v2"


@contextmanager
def launch(*arguments: str, variables: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Run a sandbox on a free port, with a new database, until the block ends.

    ``arguments`` are those of ``python -m sipgate_sandbox serve``; its environment has
    ``variables`` as well. Raises ``RuntimeError`` if the sandbox does not start.
    """
    command = [sys.executable, "-m", "sipgate_sandbox", "serve", "--port=0"]
    with (
        tempfile.TemporaryDirectory(prefix="sipgate-sandbox-") as folder,
        subprocess.Popen(  # noqa: S603  # our own module, no shell
            [*command, f"--database={folder}/sandbox.sqlite3", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | (variables or {}),
            cwd=Path(__file__).parent.parent,
        ) as process,
    ):
        try:
            found = READY.search(process.stdout.readline() if process.stdout else "")
            if found is None:
                raise RuntimeError("The sandbox did not start.")
            yield Running(process, found[1])
        finally:
            process.terminate()


def sign_in(
    session: requests.Session, authorize_url: str, *, person: str = "1000000w0", allow: bool = True
) -> str:
    """Sign in and answer the consent page as in a browser; return the address of the callback."""
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
                f"The sandbox shows a page without a form (HTTP {response.status_code})."
            )
        response = session.post(response.url, data=form, allow_redirects=False)
