"""What Sentry sends of the deployed site, with everything switched on: no code, state, verifier, token or secret."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.conf import settings as django_settings
from django.utils import timezone

from sipgate_provider.models import SipgateToken
from sipgate_sandbox.launch import Running
from tests.concurrency.test_callback import Person
from tests.journey import Browser
from tests.processes import Site, site
from tests.project.pages import ROOT, blocks

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long, pytest.mark.timeout(180)]


@contextmanager
def sentry() -> Iterator[tuple[str, list[bytes]]]:
    """A server that takes what Sentry's client sends: its address, and what has arrived."""
    arrived: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            arrived.append(
                gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            )
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://key@127.0.0.1:{server.server_port}/1", arrived
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.usefixtures("transactional_db")
def test_the_documents_sample(
    sandbox: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error arrives, without secrets and without the person; what psycopg's pool repeats does not."""
    [sample] = [
        block
        for block in blocks(ROOT / "docs" / "monitoring.md")
        if block.heading == "Error reports"
    ]
    assert sample.name == "watched.py"
    pool_fails = (
        'import logging; logging.getLogger("psycopg.pool").error("error connecting in pool")'
    )
    (tmp_path / "watched.py").write_text(f"{sample.text}\n{pool_fails}\n")
    with sentry() as (address, arrived):
        monkeypatch.setenv("SENTRY_DSN", address)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        with site(processes=1, threads=4, application="watched") as running:
            person = Person(running.url, sandbox)
            callback = person.allow(person.press())
            sandbox.control.fault("invalid-client", on="token")
            assert person.follow(callback)[0] == 401
            cookies = [str(cookie.value) for cookie in person.site.cookies]
            person.close()
        sent = b"".join(arrived).decode()
    assert "A sign-in failed" in sent
    query = parse_qs(urlsplit(callback).query)
    for secret in [query["code"][0], query["state"][0], "sandbox-secret", "REMOTE_ADDR", *cookies]:
        assert secret not in sent
    assert "error connecting in pool" not in sent


class Watched:
    def __init__(self, running: Site, sandbox: Running, folder: Path) -> None:
        self.site, self.person, self.folder = running, Person(running.url, sandbox), folder
        self.secrets: dict[str, str] = {}

    def callback(self) -> str:
        callback = self.person.allow(self.person.press())
        query = parse_qs(urlsplit(callback).query)
        self.secrets |= {"code": query["code"][0], "state": query["state"][0]}
        return callback

    def assert_silent(self, *, about: str) -> None:
        """Stop the site, so that all is sent. ``about`` is what the envelopes show, lest this test sees nothing."""
        self.site.stop()
        sent = (self.folder / "envelopes").read_bytes()
        assert about.encode() in sent
        learnt = self.folder / "secrets"
        found = (
            [json.loads(line) for line in learnt.read_text().splitlines()]
            if learnt.exists()
            else []
        )
        for kind, value in [*self.secrets.items(), *found]:
            # A JWT's beginning is the same in all of them.
            needle = (value.split(".")[1][-40:] if value.count(".") == 2 else value[:40]).encode()
            where = sent.find(needle)
            assert where < 0, f"{kind} in {sent[max(0, where - 300) : where]!r}"


@pytest.fixture
def watched(
    sandbox: Running, transactional_db: None, tmp_path: Path, monkeypatch: Any, request: Any
) -> Iterator[Watched]:
    monkeypatch.setenv("SIPGATE_WATCHED", str(tmp_path))
    monkeypatch.setenv("SIPGATE_FAULT", getattr(request, "param", ""))
    with site(processes=1, threads=4, application="tests.concurrency.watched") as running:
        one = Watched(running, sandbox, tmp_path)
        yield one
        one.person.close()


def test_traces_of_a_sign_in(watched: Watched) -> None:
    assert watched.person.follow(watched.callback()) == (200, "/account")
    watched.assert_silent(about='"/oauth"')


def test_a_client_that_sipgate_refuses(watched: Watched, sandbox: Running) -> None:
    """Logged as an error, while the code is unredeemed."""
    callback = watched.callback()
    sandbox.control.fault("invalid-client", on="token")
    assert watched.person.follow(callback)[0] == 401
    watched.assert_silent(about="A sign-in failed")


@pytest.mark.parametrize("watched", ["bug"], indirect=True)
def test_a_bug_in_the_callback(watched: Watched) -> None:
    assert watched.person.follow(watched.callback())[0] == 500
    watched.assert_silent(about="a bug")


@pytest.mark.parametrize("watched", ["interrupted"], indirect=True)
def test_an_interrupted_exchange(watched: Watched) -> None:
    assert watched.person.follow(watched.callback())[0] == 500
    watched.assert_silent(about="time is over")


@pytest.mark.parametrize("watched", ["interrupted"], indirect=True)
def test_an_interrupted_refresh(watched: Watched, browser: Browser) -> None:
    browser.sign_in()
    moment = timezone.now() - timedelta(seconds=400)
    SipgateToken.objects.update(issued_at=moment, expires_at=moment + timedelta(seconds=300))
    session = str(browser.site.cookies[django_settings.SESSION_COOKIE_NAME].value)
    watched.site.get("/account", session=session)
    give_up = time.monotonic() + 10
    while (
        b"time is over" not in (watched.folder / "envelopes").read_bytes()
        and time.monotonic() < give_up
    ):
        time.sleep(0.1)
    watched.secrets |= {"client": "sandbox-secret"}
    watched.assert_silent(about="time is over")
