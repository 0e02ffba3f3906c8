"""What ``make run`` starts: four lines at its end, nothing left behind, a second one beside it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from sipgate_sandbox.launch import sign_in
from tests.ports import free_port


def test_two_instances_of_a_checkout(checkout):
    """Each ends its start with four lines, and signs people in; SIGTERM leaves nothing behind."""
    ports = [free_port() for _ in range(4)]
    with requests.Session() as browser, run(checkout, *ports[:2]) as first:
        names = [line.split()[0] for line in first.lines[-4:]]
        assert names == ["Site", "Sandbox", "Administrator", "Tutorial"]
        assert f"{first.url}/" in first.lines[-4]
        assert first.sign_in(browser) == "/account"
        with run(checkout, *ports[2:]) as second:
            assert second.sign_in(browser) == "/account"
            assert second.is_signed_in(browser)
            assert first.is_signed_in(browser), "the same browser is still signed in at the first"
        with requests.Session() as another:
            wrong = first.post(another, "/accounts/login/", login="erika", password="wrong")
            assert (wrong.status_code, "not correct" in wrong.text) == (200, True), "it is counted"
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)


def test_stopped_while_the_sandbox_starts(checkout):
    ports = [free_port(), free_port()]
    process = start(checkout, *ports)
    database = checkout / "var" / f"sandbox-{ports[1]}.sqlite3"
    while process.poll() is None and not database.exists():
        pass
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert "Traceback" not in output, "the sandbox ends with it, and not at its first line"


class Site:
    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.port, self.url = port, f"http://localhost:{port}"
        assert process.stdout is not None
        self.lines: list[str] = []
        for line in process.stdout:
            self.lines.append(line.strip())
            if line.strip().startswith("Tutorial"):
                break

    def post(self, browser: requests.Session, path: str, **form: str) -> requests.Response:
        browser.get(f"{self.url}/accounts/login/", timeout=30)
        form["csrfmiddlewaretoken"] = browser.cookies[f"sipgate_csrf_{self.port}"]
        return browser.post(f"{self.url}{path}", form, allow_redirects=False, timeout=30)

    def sign_in(self, browser: requests.Session) -> str:
        """Sign in as Rosa with this site's sandbox; return where the site sends her."""
        begun = self.post(browser, "/accounts/sipgate/login/?process=login")
        back = sign_in(browser, begun.headers["Location"])
        return browser.get(back, allow_redirects=False, timeout=30).headers["Location"]

    def is_signed_in(self, browser: requests.Session) -> bool:
        page = browser.get(f"{self.url}/account", allow_redirects=False, timeout=30)
        return page.status_code == 200 and "Rosenduft" in page.text


@contextmanager
def run(checkout: Path, port: int, sandbox_port: int) -> Iterator[Site]:
    process = start(checkout, port, sandbox_port)
    try:
        yield Site(process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def start(checkout: Path, port: int, sandbox_port: int) -> subprocess.Popen[str]:
    """Start ``make run``'s two commands on these ports."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    numbers = {"PORT": str(port), "SANDBOX_PORT": str(sandbox_port)}
    environment = kept | numbers | {"PYTHONUNBUFFERED": "1"}
    manage = [sys.executable, "manage.py"]
    migrate = [*manage, "migrate", "--verbosity", "0"]
    subprocess.run(migrate, cwd=checkout, env=environment, check=True, timeout=60)
    return subprocess.Popen(
        [*manage, "runserver"],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
