"""The whole journey over HTTP.

Django's client is the browser at the site, ``requests`` the browser at the sandbox, and at a
deployed site.
"""

from __future__ import annotations

import re
import threading
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
from django.db import connections
from django.test import Client

from sipgate_sandbox.launch import Running, sign_in

HOST = "localhost:8080"
PASSWORDS = "django.contrib.auth.backends.ModelBackend"


class Browser:
    """One person's browser: cookies at the site and at the sandbox."""

    def __init__(self, sandbox: Running) -> None:
        self.site = Client(headers={"host": HOST})
        self.sipgate = requests.Session()
        self.sandbox = sandbox

    def start(self, *, process: str = "login", next_url: str = "", query: str = "") -> str:
        """Press the button; return sipgate's address."""
        response = self.site.post(
            f"/accounts/sipgate/login/?process={process}&next={next_url}{query}"
        )
        assert response.status_code == 302, response.content[:500]
        return str(response.headers["Location"])

    def consent(self, authorize_url: str, *, person: str = "1000000w0", allow: bool = True) -> str:
        """Sign in at the sandbox; return path and query of the callback."""
        back = urlsplit(sign_in(self.sipgate, authorize_url, person=person, allow=allow))
        assert back.netloc == HOST
        return f"{back.path}?{back.query}"

    def sign_in(
        self, *, person: str = "1000000w0", process: str = "login", next_url: str = ""
    ) -> Any:
        """Go the whole way; return the site's answer to the callback."""
        return self.site.get(
            self.consent(self.start(process=process, next_url=next_url), person=person)
        )

    def log_in(self, user: Any) -> None:
        """Sign in at the site without sipgate, as with a password."""
        self.site.force_login(user, backend=PASSWORDS)

    def asked(self, name: str) -> int:
        """Return how often the sandbox was asked: for ``token``, or ``GET v2/account``."""
        return int(self.sandbox.control.state().get(name, 0))

    def follow_in_thread(self, path: str) -> threading.Thread:
        """Open a page in a thread, which closes its database connections at the end."""

        def follow() -> None:
            try:
                self.site.get(path)
            finally:
                connections.close_all()

        thread = threading.Thread(target=follow)
        thread.start()
        return thread

    def close(self) -> None:
        self.sipgate.close()


def visitor(user: Any) -> Client:
    """Return the browser of somebody who is signed in at the site, and never goes to sipgate."""
    client = Client(headers={"host": HOST})
    client.force_login(user, backend=PASSWORDS)
    return client


def text_of(response: Any) -> str:
    """Return what a page shows: its text without tags, and with single spaces."""
    text = unescape(re.sub(r"<[^>]*>", "", response.content.decode()))
    return re.sub(r"\s+", " ", text)


def asked_for(authorize_url: str) -> set[str]:
    return set(parse_qs(urlsplit(authorize_url).query)["scope"][0].split())
