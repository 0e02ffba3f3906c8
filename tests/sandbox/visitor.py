"""A client of the sandbox in plain HTTP, as any language would write it."""

from __future__ import annotations

import base64
import hashlib
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import requests

from sipgate_sandbox.launch import Running, sign_in

CLIENT_ID, CLIENT_SECRET = "1000000-1-sandbox:third-party", "sandbox-secret"
REDIRECT_URI = "http://localhost:8080/oauth"
VERIFIER = "v" * 50
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
)


class Visitor:
    """One person's browser and the client that asks for access."""

    def __init__(self, sandbox: Running) -> None:
        self.sandbox = sandbox
        self.browser = requests.Session()

    def authorize_url(self, **changes: Any) -> str:
        query = {
            "client_id": CLIENT_ID,
            "redirect_uri": REDIRECT_URI,
            "response_type": "code",
            "scope": "account:read",
            "state": "st",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        } | changes
        sent = {name: value for name, value in query.items() if value is not None}
        return f"{self.sandbox.oidc_url}/auth?{urlencode(sent)}"

    def back(
        self, *, person: str = "1000000w0", allow: bool = True, **changes: Any
    ) -> dict[str, str]:
        """Sign in and answer the consent; return the query that leads back to the client."""
        url = sign_in(self.browser, self.authorize_url(**changes), person=person, allow=allow)
        assert url.startswith(f"{REDIRECT_URI}?")
        return {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}

    def token(self, **form: str) -> requests.Response:
        whole = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET} | form
        return requests.post(
            f"{self.sandbox.oidc_url}/token", data=whole, timeout=10, allow_redirects=False
        )

    def exchange(self, code: str, /, **changes: str) -> requests.Response:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT_URI,
            "code_verifier": VERIFIER,
        }
        return self.token(**form | changes)

    def grant(self, *, person: str = "1000000w0", scope: str = "account:read") -> dict[str, Any]:
        response = self.exchange(self.back(person=person, scope=scope)["code"])
        assert response.status_code == 200, response.text
        return dict(response.json())

    def refresh(self, token: str, **changes: str) -> requests.Response:
        return self.token(**{"grant_type": "refresh_token", "refresh_token": token} | changes)

    def end(self, endpoint: str, **form: str) -> requests.Response:
        whole = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET} | form
        return requests.post(f"{self.sandbox.oidc_url}/{endpoint}", data=whole, timeout=10)

    def get(self, path: str, token: str = "", **more: Any) -> requests.Response:
        return self.ask("GET", path, token, **more)

    def ask(self, method: str, path: str, token: str, **more: Any) -> requests.Response:
        """Send a request to the REST API."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"{self.sandbox.api_url}{path}"
        return requests.request(
            method, url, headers=headers, timeout=10, allow_redirects=False, **more
        )

    def close(self) -> None:
        self.browser.close()
