"""The site under other servers, each of which ends in its own way: what was sent is stored."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sipgate_provider import tokens
from tests.conftest import session_of
from tests.journey import visitor
from tests.processes import site
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long, pytest.mark.timeout(180)]

# As a module, from its wheel: uwsgi itself needs a compiler and minutes.
UWSGI = ("-c", "import pyuwsgi, sys; pyuwsgi.run(sys.argv[1:])", "--die-on-term", "--master")
UWSGI += ("--module", "sipgate_project.wsgi", "--http-socket", "127.0.0.1:{port}")
UVICORN = ("-m", "uvicorn", "sipgate_project.asgi:application", "--port", "{port}")
SERVERS = {
    "uwsgi": UWSGI,
    "uwsgi with threads": (*UWSGI, "--enable-threads"),
    "uwsgi with lazy apps": (*UWSGI, "--enable-threads", "--lazy-apps"),
    "uvicorn": UVICORN,
    "uvicorn with workers": (*UVICORN, "--workers", "2"),
}
ENDS = [(name, signal.SIGTERM) for name in SERVERS]
ENDS += [(name, signal.SIGHUP if "uwsgi" in name else signal.SIGINT) for name in SERVERS]


@pytest.mark.parametrize(("server", "how"), ENDS)
def test_what_was_sent_is_stored(connect, rotator, settings, folder, server, how):
    """A page has given up waiting for a refresh, and the server is told to stop (by SIGHUP uWSGI reloads)."""
    settings.SIPGATE_PAGE_WAIT_SECONDS = 0.1
    rotator.set(latency=3)
    connection = connect(age=400)
    session = session_of(visitor(connection.user))
    with site(server=SERVERS[server], PYTHONPATH=str(folder)) as running:
        running.get("/account.json", session=session)
        wait_for(lambda: rotator.counts()["arrived"])
        running.process.send_signal(how)
        if how != signal.SIGHUP:
            running.process.wait(60)
        wait_for(lambda: tokens.load(connection.pk).number == 2)
    assert (rotator.counts()["rotated"], rotator.counts()["reuse"]) == (1, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the servers, which nothing else here needs."""
    made = tmp_path_factory.mktemp("servers")
    words = ["-m", "pip", "install", "--quiet", "--target", str(made), "pyuwsgi", "uvicorn"]
    subprocess.run([sys.executable, *words], check=True, timeout=120)
    return made
