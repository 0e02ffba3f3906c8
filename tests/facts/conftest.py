"""The servers under test, which each test leaves as new."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.facts.keycloak_server import KeycloakServer
from tests.facts.sandbox_server import SandboxServer
from tests.facts.server import AuthorizationServer, Browser, NewBrowser

ON_KEYCLOAK = (pytest.mark.keycloak, pytest.mark.timeout(600))
"""The first test waits until Keycloak has started, which takes minutes on a busy machine."""


@pytest.fixture(params=["sandbox", pytest.param("keycloak", marks=ON_KEYCLOAK)])
def server(request: pytest.FixtureRequest) -> Iterator[AuthorizationServer]:
    # Requested by name, so that only the server of this run starts.
    one: AuthorizationServer = (
        SandboxServer(request.getfixturevalue("sandbox"))
        if request.param == "sandbox"
        else KeycloakServer(request.getfixturevalue("keycloak"))
    )
    yield one
    one.reset()


@pytest.fixture
def new_browser(server: AuthorizationServer) -> Iterator[NewBrowser]:
    made: list[Browser] = []

    def make() -> Browser:
        made.append(server.browser())
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def browser(new_browser: NewBrowser) -> Browser:
    return new_browser()
