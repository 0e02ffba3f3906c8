"""An authorization server under test, and what clients and browsers do at any such server."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import unescape
from typing import Any, Literal
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

import requests

REDIRECT_URI = "http://localhost:8080/oauth"
VERIFIER = "v" * 50
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
)

ROSA, OTTO = "1000000w0", "2000000w0"
"""Two people whom every server knows."""

Kind = Literal["sign-in", "re-authentication", "consent", "log-out", "error", "callback"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """An application that is registered with the server."""

    id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Where a browser has arrived: a page of the server, or the callback with its query."""

    kind: Kind
    response: requests.Response
    query: dict[str, str] = field(default_factory=dict)


class Browser:
    """One browser: its cookies at the server, and the page it shows.

    Subclasses know the pages of their server, and how to answer them.
    """

    def __init__(self) -> None:
        self.session = requests.Session()
        self.page: Page | None = None

    def open(self, url: str, **form: str) -> Page:
        """Go to ``url`` (with ``form``: by POST) and follow redirects within the server."""
        response = self._send("POST" if form else "GET", url, form)
        while location := response.headers.get("Location", ""):
            target = urljoin(response.url, location)
            if urlsplit(target).netloc != urlsplit(url).netloc:
                query = {key: values[0] for key, values in parse_qs(urlsplit(target).query).items()}
                self.page = Page(kind="callback", response=response, query=query)
                return self.page
            response = self._send("GET", target, {})
        self.page = Page(kind=self.kind_of(response), response=response)
        return self.page

    def _send(self, method: str, url: str, form: dict[str, str]) -> requests.Response:
        headers = {"Referer": self.page.response.url} if self.page and form else {}
        response = self.session.request(
            method, url, data=form or None, headers=headers, allow_redirects=False, timeout=30
        )
        for cookie in self.session.cookies:
            cookie.secure = False  # a browser sends secure cookies to localhost, requests does not
        return response

    def submit(self, **fields: str) -> Page:
        """Send the form of the present page."""
        assert self.page is not None
        text = self.page.response.text
        action = re.search(r'<form[^>]* action="([^"]+)"', text)
        target = urljoin(self.page.response.url, unescape(action[1]) if action else "")
        hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', text)
        return self.open(target, **{name: unescape(value) for name, value in hidden}, **fields)

    def walk(self, url: str, *, person: str = ROSA, allow: bool = True) -> dict[str, str]:
        """Go to ``url``, sign in, answer the consent, and return the query of the callback."""
        page = self.open(url)
        while page.kind != "callback":
            assert page.kind in {"sign-in", "re-authentication", "consent"}, page.response.text
            page = self.answer_consent(allow) if page.kind == "consent" else self.sign_in(person)
        return page.query

    def close(self) -> None:
        self.session.close()


class AuthorizationServer:
    """A server as a client sees it. Subclasses know how to administer theirs.

    ``reset`` ends all sessions, withdraws all consents, and sets everything back.
    """

    name: str
    issuer: str
    oidc_url: str
    client: Client
    other_client: Client

    def authorize_url(self, client: Client | None = None, **changes: str | None) -> str:
        query: dict[str, str | None] = {
            "client_id": (client or self.client).id,
            "redirect_uri": REDIRECT_URI,
            "response_type": "code",
            "scope": "account:read",
            "state": "the state",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
        chosen = {key: value for key, value in (query | changes).items() if value is not None}
        return f"{self.oidc_url}/auth?{urlencode(chosen)}"

    def post(self, endpoint: str, client: Client | None = None, **form: str) -> requests.Response:
        """Send a form with the client's credentials, which ``form`` may replace."""
        chosen = client or self.client
        credentials = {"client_id": chosen.id, "client_secret": chosen.secret}
        return requests.post(
            f"{self.oidc_url}/{endpoint}",
            data=credentials | form,
            allow_redirects=False,
            timeout=30,
        )

    def exchange(
        self, code: str, client: Client | None = None, **changes: str
    ) -> requests.Response:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT_URI}
        return self.post("token", client, **(form | {"code_verifier": VERIFIER} | changes))

    def refresh(
        self, grant: dict[str, Any], client: Client | None = None, **changes: str
    ) -> requests.Response:
        form = {"grant_type": "refresh_token", "refresh_token": grant["refresh_token"]}
        return self.post("token", client, **(form | changes))

    def refreshed(
        self, grant: dict[str, Any], client: Client | None = None, **changes: str
    ) -> dict[str, Any]:
        """Refresh successfully; return the new grant."""
        return granted(self.refresh(grant, client, **changes))

    def grant(
        self,
        browser: Browser,
        *,
        person: str = ROSA,
        client: Client | None = None,
        **changes: str | None,
    ) -> dict[str, Any]:
        """Sign in and consent in ``browser``; return the grant."""
        query = browser.walk(self.authorize_url(client, **changes), person=person)
        grant = granted(self.exchange(query["code"], client))
        assert self.is_active(grant["access_token"], client)
        return grant

    def revoke(self, grant: dict[str, Any]) -> requests.Response:
        return self.post("revoke", token=grant["refresh_token"], token_type_hint="refresh_token")

    def log_out(self, grant: dict[str, Any]) -> requests.Response:
        """End the session as an application does, without a browser."""
        return self.post("logout", refresh_token=grant["refresh_token"])

    def is_active(self, access_token: str, client: Client | None = None) -> bool:
        """Ask whether an access token is valid (RFC 7662)."""
        answer = self.post("token/introspect", client, token=access_token)
        assert answer.status_code == 200
        return bool(answer.json()["active"])

    def rejects(self, grant: dict[str, Any]) -> bool:
        """Refresh; tell whether the server answers ``invalid_grant``. Other errors raise."""
        answer = self.refresh(grant)
        if answer.status_code == 200:
            return False
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
        return True

    @property
    def log_out_url(self) -> str:
        """The address of the page on which people log out."""
        query = {"client_id": self.client.id, "post_logout_redirect_uri": REDIRECT_URI}
        return f"{self.oidc_url}/logout?{urlencode(query)}"


Grant = dict[str, Any]
NewBrowser = Callable[[], Browser]


def error(response: requests.Response) -> tuple[int, str]:
    """Return the status and the error code of an answer."""
    return response.status_code, response.json()["error"]


def granted(response: requests.Response) -> dict[str, Any]:
    """Return the grant in a successful answer of the token endpoint."""
    assert response.status_code == 200, response.text
    return dict(response.json())


def scopes(grant: dict[str, Any]) -> set[str]:
    return set(grant["scope"].split())
