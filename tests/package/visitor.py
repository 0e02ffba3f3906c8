"""A person's browser at a foreign site: follows links, fills forms, keeps cookies."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import requests

from sipgate_sandbox.launch import sign_in

PASSWORD = "correct horse battery"


class Visitor:
    def __init__(self, origin: str) -> None:
        self.origin = origin
        self._session = requests.Session()
        self._session.headers["Accept"] = "text/html,application/xhtml+xml,*/*;q=0.8"
        self._sipgate = requests.Session()

    def get(self, path: str, **options: Any) -> requests.Response:
        return self._session.get(urljoin(self.origin, path), timeout=60, **options)

    def post(self, path: str, form: dict[str, str], **options: Any) -> requests.Response:
        """Send a form as the page at hand would, with its CSRF token."""
        form = {**form, "csrfmiddlewaretoken": self._session.cookies.get("csrftoken", "")}
        return self._session.post(urljoin(self.origin, path), data=form, timeout=60, **options)

    def start(self, path: str = "/accounts/sipgate/login/?process=login") -> str:
        """Press the only button of a page, which leads to sipgate; return sipgate's address."""
        page = self.get(path)
        assert page.status_code == 200, page.text
        forms = re.findall(r"<form([^>]*)>(.*?)</form>", page.text, re.DOTALL)
        [(attributes, form)] = [one for one in forms if "csrfmiddlewaretoken" in one[1]]
        action = re.search(r'action="([^"]*)"', attributes)
        address = urljoin(page.url, unescape(action[1])) if action else page.url
        assert "/accounts/sipgate/login/" in address, page.text
        fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form))
        return self._leads(self.post(address, fields, allow_redirects=False))

    def start_headless(self) -> str:
        """Start as a single-page application does: a form, posted to allauth's endpoint."""
        self.get("/app/")  # its page sets the CSRF cookie
        form = {
            "provider": "sipgate",
            "callback_url": f"{self.origin}/app/after",
            "process": "login",
        }
        place = "/_allauth/browser/v1/auth/provider/redirect"
        return self._leads(self.post(place, form, allow_redirects=False))

    def _leads(self, answer: requests.Response) -> str:
        assert answer.status_code == 302, answer.text
        return answer.headers["Location"]

    def consent(self, authorize_url: str, *, person: str = "1000000w0", allow: bool = True) -> str:
        """Sign in at the sandbox; return the address that leads back."""
        return sign_in(self._sipgate, authorize_url, person=person, allow=allow)

    def sign_in(self, *path: str, person: str = "1000000w0") -> requests.Response:
        """Go the whole way; return the page that it ends on."""
        return self.get(self.consent(self.start(*path), person=person))

    def ends_at(self, address: str) -> tuple[str, dict[str, list[str]]]:
        """Follow the callback; return path and query of the frontend's address that it leads to."""
        while urlsplit(address).path == "/accounts/sipgate/login/callback/":
            address = self._leads(self.get(address, allow_redirects=False))
        where = urlsplit(address)
        return where.path, parse_qs(where.query)

    def disconnect(self) -> None:
        """Leave as a person does who signed up with sipgate: set a password, then disconnect."""
        self.get("/accounts/password/set/")
        self.post("/accounts/password/set/", {"password1": PASSWORD, "password2": PASSWORD})
        (account,) = re.findall(
            r'name="account"[^>]*value="([^"]+)"', self.get("/accounts/3rdparty/").text
        )
        answer = self.post("/accounts/3rdparty/", {"account": unescape(account)})
        assert answer.status_code == 200, answer.text

    def enter_admin(self) -> None:
        self.get("/admin/login/")
        form = {"username": "boss@b.example", "password": PASSWORD}
        assert self.post("/admin/login/?next=/admin/", form).status_code == 200

    def close(self) -> None:
        self._session.close()
        self._sipgate.close()
