"""The site under other servers, each of which ends in its own way: what was sent is stored."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from django.conf import settings as django_settings
from django.test import Client

from sipgate_provider import tokens
from tests.conftest import Connect
from tests.processes import environment
from tests.rotator import Rotator

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long, pytest.mark.timeout(180)]


UWSGI = (
    *("-c", "import pyuwsgi, sys; pyuwsgi.run(sys.argv[1:])"),
    *(
        "--module",
        "sipgate_project.wsgi",
        "--master",
        "--die-on-term",
        "--http-socket",
        "127.0.0.1:{port}",
    ),
)
"""uWSGI as a module, from its wheel: ``uwsgi`` itself needs a compiler and minutes."""
UVICORN = ("-m", "uvicorn", "sipgate_project.asgi:application", "--port", "{port}")
SERVERS = {
    "uwsgi": UWSGI,
    "uwsgi with threads": (*UWSGI, "--enable-threads"),
    "uwsgi with lazy apps": (*UWSGI, "--enable-threads", "--lazy-apps"),
    "uvicorn": UVICORN,
    "uvicorn with workers": (*UVICORN, "--workers", "2"),
}


@pytest.mark.parametrize(
    ("server", "how"),
    [(name, signal.SIGTERM) for name in SERVERS]
    + [(name, signal.SIGHUP if name.startswith("uwsgi") else signal.SIGINT) for name in SERVERS],
)
def test_what_was_sent_is_stored(
    connect: Connect,
    rotator: Rotator,
    settings: Any,
    folder: Path,
    server: str,
    how: signal.Signals,
) -> None:
    """A page has given up waiting for a refresh, and the server is told to stop.

    By SIGHUP, uWSGI reloads.
    """
    settings.SIPGATE_PAGE_WAIT_SECONDS = 0.1
    rotator.set(latency=3)
    connection = connect(age=400)
    person = Client()
    person.force_login(connection.user, backend="django.contrib.auth.backends.ModelBackend")
    name = django_settings.SESSION_COOKIE_NAME
    cookie = f"{name}={person.cookies[name].value}"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = [word.format(port=port) for word in SERVERS[server]]
    process = subprocess.Popen(
        [sys.executable, *words], env={**environment(), "PYTHONPATH": str(folder)}
    )

    def page() -> requests.Response:
        headers = {"Host": "localhost:8080", "Cookie": cookie}
        return requests.get(f"http://127.0.0.1:{port}/account.json", headers=headers, timeout=30)

    try:
        wait_for(lambda: is_open(port))
        page()
        wait_for(lambda: rotator.counts()["arrived"] == 1)
        process.send_signal(how)
        if how != signal.SIGHUP:
            process.wait(60)
        wait_for(lambda: tokens.load(connection.pk).number == 2)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    assert (rotator.counts()["rotated"], rotator.counts()["reuse"]) == (1, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the servers, which nothing else here needs."""
    made = tmp_path_factory.mktemp("servers")
    words = ["-m", "pip", "install", "--quiet", "--target", str(made), "pyuwsgi", "uvicorn"]
    subprocess.run([sys.executable, *words], check=True, timeout=120)
    return made


def wait_for(happened: Any) -> None:
    give_up = time.monotonic() + 15
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.05)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
