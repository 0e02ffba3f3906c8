"""A person's browser, a client that asks for access, and its requests to the REST API."""

from __future__ import annotations

from typing import Any

import requests

from sipgate_sandbox.launch import Running
from tests.facts.sandbox_server import SandboxServer
from tests.facts.server import ROSA, granted


class Visitor(SandboxServer):
    def __init__(self, sandbox: Running) -> None:
        super().__init__(sandbox)
        self.sandbox, self._browser = sandbox, self.browser()

    def grant(self, *, person: str = ROSA, scope: str = "account:read") -> dict[str, Any]:
        query = self._browser.walk(self.authorize_url(scope=scope), person=person)
        return granted(self.exchange(query["code"]))

    def get(self, path: str, token: str = "") -> requests.Response:
        return self.ask("GET", path, token)

    def ask(self, method: str, path: str, token: str, **more: Any) -> requests.Response:
        """Send a request to the REST API."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"{self.sandbox.api_url}{path}"
        return requests.request(
            method, url, headers=headers, timeout=10, allow_redirects=False, **more
        )

    def close(self) -> None:
        self._browser.close()
