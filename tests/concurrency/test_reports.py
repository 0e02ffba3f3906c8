"""What Sentry is sent of the deployed site: no code, state, token or client secret."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from sipgate_sandbox.launch import Running, sign_in
from tests.conftest import make_stale, session_of
from tests.journey import HOST
from tests.processes import Site, site
from tests.project.pages import ROOT, blocks
from tests.raw_server import RawServer, serving, whole
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long, pytest.mark.timeout(180)]


class TestWithEverythingOn:
    """Request bodies, the user's name and address, variables of frames, traces of requests."""

    def test_traces_of_a_sign_in(self, watch):
        with watch(EVERYTHING) as watched:
            assert watched.come_back() == 302
        watched.assert_silent(about='"/oauth"')

    def test_a_rejected_client(self, watch, sandbox):
        """Logged as an error, while the code is unredeemed."""
        with watch(EVERYTHING) as watched:
            callback = watched.callback()
            sandbox.control.fault("invalid-client", on="token")
            assert watched.ask("GET", callback).status_code == 401
        watched.assert_silent(about="A sign-in failed")

    @pytest.mark.parametrize("fault", ["BUG", "INTERRUPTION"])
    def test_a_callback_that_breaks_down(self, watch, fault):
        with watch(EVERYTHING + FAULTS[fault]) as watched:
            assert watched.come_back() == 500
        watched.assert_silent(about=fault)

    def test_an_interrupted_refresh(self, watch, browser):
        browser.sign_in()
        make_stale()
        with watch(EVERYTHING + FAULTS["INTERRUPTION"]) as watched:
            watched.site.get("/account", session=session_of(browser.site))
            wait_for(lambda: b"INTERRUPTION" in watched.sent)
        watched.assert_silent(about="INTERRUPTION")


def test_the_documents_sample(watch, sandbox):
    """An error arrives without the person, too; what psycopg's pool repeats does not."""
    [sample] = [
        block for block in blocks(ROOT / "docs" / "operate.md") if block.heading == "Error reports"
    ]
    with watch(f"{sample.text}\n{POOL_FAILS}\n") as watched:
        callback = watched.callback()
        sandbox.control.fault("invalid-client", on="token")
        assert watched.ask("GET", callback).status_code == 401
        for cookie in watched.browser.cookies:
            watched.secrets[cookie.name] = str(cookie.value)
    watched.secrets |= {"address": "REMOTE_ADDR", "pool": "error connecting in pool"}
    watched.assert_silent(about="A sign-in failed")


EVERYTHING = """
import os, sentry_sdk
from django.core.wsgi import get_wsgi_application
sentry_sdk.init(
    dsn=os.environ["SENTRY_DSN"], send_default_pii=True, include_local_variables=True,
    attach_stacktrace=True, max_request_body_size="always", traces_sample_rate=1.0,
    max_value_length=100_000,
)
application = get_wsgi_application()
"""
FAULTS = {
    "BUG": """
from allauth.socialaccount.signals import pre_social_login
def fail(**everything):
    raise RuntimeError("BUG")
pre_social_login.connect(fail)
""",
    # As Celery's time limit, while an answer is awaited: no error of the network.
    "INTERRUPTION": """
import http.client
getresponse = http.client.HTTPConnection.getresponse
def interrupt(connection):
    if f":{connection.port}/" in os.environ["SENTRY_DSN"]:
        return getresponse(connection)
    raise Exception("INTERRUPTION")
http.client.HTTPConnection.getresponse = interrupt
""",
}
POOL_FAILS = 'import logging; logging.getLogger("psycopg.pool").error("error connecting in pool")'


class Watched:
    """A deployed site, a browser that visits it, what Sentry was sent, and what must not be in it."""

    def __init__(self, running: Site, sentry: RawServer) -> None:
        self.site, self.sentry, self.browser = running, sentry, requests.Session()
        self.secrets = {"client secret": "sandbox-secret"}

    @property
    def sent(self) -> bytes:
        return b"".join(
            gzip.decompress(asked.body)
            if asked.headers.get("content-encoding") == "gzip"
            else asked.body
            for asked in self.sentry.asked
        )

    def ask(self, method: str, path: str, **form: str) -> requests.Response:
        address, host = f"{self.site.url}{path}", {"Host": HOST}
        return self.browser.request(
            method, address, data=form, headers=host, timeout=60, allow_redirects=False
        )

    def callback(self) -> str:
        """Press the button and allow it; return path and query of the callback."""
        button = "/accounts/sipgate/login/"
        self.ask("GET", button)
        token = self.browser.cookies["sipgate_csrf"]
        begun = self.ask("POST", button, csrfmiddlewaretoken=token)
        with requests.Session() as sipgate:
            back = urlsplit(sign_in(sipgate, begun.headers["Location"]))
        query = parse_qs(back.query)
        self.secrets |= {"code": query["code"][0], "state": query["state"][0]}
        return f"{back.path}?{back.query}"

    def come_back(self) -> int:
        """Press the button, allow it, come back; return the status of the site's answer."""
        return self.ask("GET", self.callback()).status_code

    def assert_silent(self, *, about: str) -> None:
        """``about`` is what the reports do show, lest this test sees nothing."""
        sent = self.sent
        assert about.encode() in sent
        assert not re.search(rb"eyJ[\w-]+\.eyJ[\w-]+", sent), "a token: the sandbox's are JWTs"
        for kind, value in self.secrets.items():
            where = sent.find(value[:40].encode())
            assert where < 0, f"{kind} in {sent[max(0, where - 300) : where]!r}"


Watch = Any


@pytest.fixture
def watch(sandbox: Running, transactional_db: None, tmp_path: Path) -> Watch:
    """Serve the site by a module with this text; when the site has stopped, all is sent."""

    @contextmanager
    def watching(text: str) -> Iterator[Watched]:
        (tmp_path / "watched.py").write_text(text)
        with serving(whole()) as sentry:
            address = f"http://key@127.0.0.1:{sentry.port}/1"
            variables = {"SENTRY_DSN": address, "PYTHONPATH": str(tmp_path)}
            with site(processes=1, threads=4, application="watched", **variables) as running:
                one = Watched(running, sentry)
                yield one
                one.browser.close()

    return watching
