"""The site with Keycloak and the sandbox's REST API in sipgate's place, and people who use it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client

from sipgate_sandbox.launch import Running
from tests.facts.keycloak_server import KeycloakBrowser, KeycloakServer
from tests.facts.server import ROSA
from tests.journey import HOST, Browser
from tests.keycloak import site
from tests.keycloak.server import Keycloak


@pytest.fixture(scope="session")
def rest_api(keycloak: Keycloak) -> Iterator[Running]:
    with site.rest_api(keycloak) as sandbox:
        yield sandbox


@pytest.fixture
def server(
    keycloak: Keycloak, rest_api: Running, settings: Any, transactional_db: None
) -> Iterator[KeycloakServer]:
    """Keycloak, as new, with the settings pointing at it."""
    settings.SIPGATE_AUTH_URL = f"{keycloak.oidc_url}/auth"
    settings.SIPGATE_TOKEN_URL = f"{keycloak.oidc_url}/token"
    settings.SIPGATE_API_URL = rest_api.api_url
    settings.SIPGATE_PAGE_WAIT_SECONDS = 20
    app = {"client_id": site.CLIENT_ID, "secret": site.CLIENT_SECRET}
    settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {"APPS": [app], "SCOPE": ["account:read"]}}
    one = KeycloakServer(keycloak)
    yield one
    one.reset()


@pytest.fixture
def new_visitor(server: KeycloakServer) -> Iterator[Callable[[], Visitor]]:
    made: list[Visitor] = []

    def make() -> Visitor:
        made.append(Visitor())
        return made[-1]

    yield make
    for one in made:
        one.keycloak.close()


@pytest.fixture
def visitor(new_visitor: Callable[[], Visitor]) -> Visitor:
    return new_visitor()


@pytest.fixture
def signed_in(visitor: Visitor) -> Visitor:
    assert visitor.sign_in().status_code == 302
    return visitor


class Visitor(Browser):
    """One person's browser: cookies at the site and at Keycloak."""

    def __init__(self) -> None:
        self.site = Client(headers={"host": HOST})
        self.keycloak = KeycloakBrowser()

    def consent(self, authorize_url: str, *, person: str = ROSA, allow: bool = True) -> str:
        """Sign in at Keycloak; return path and query of the callback."""
        self.keycloak.walk(authorize_url, person=person, allow=allow)
        assert self.keycloak.page is not None
        back = urlsplit(str(self.keycloak.page.response.headers["Location"]))
        return f"{back.path}?{back.query}"

    def connection(self) -> dict[str, Any] | None:
        """Return what ``/account.json`` says about the only connection, or ``None``.

        ``None`` stands for a problem document. A server error of the site fails the test.
        """
        response = self.site.get("/account.json")
        if response.status_code == 200:
            return dict(response.json()["connections"][0])
        assert response.headers["Content-Type"] == "application/problem+json"
        return None

    def sees_its_account(self) -> bool:
        """Ask sipgate now; tell whether it answers with the account."""
        shown = self.connection()
        return shown is not None and bool(shown["fresh"])

    def company(self) -> str:
        shown = self.connection()
        assert shown is not None
        assert shown["fresh"], shown["problem"]
        return str(shown["account"]["company"])
