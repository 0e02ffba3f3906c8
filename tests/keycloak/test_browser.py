"""The journey in Chromium through Keycloak's own pages, which are the pages that sipgate's customers see."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from sipgate_sandbox.launch import Running
from tests.browser.conftest import chromium
from tests.browser.stand import Stand, stand
from tests.browser.visitor import Visitor
from tests.facts.keycloak_server import KeycloakServer
from tests.facts.server import ROSA
from tests.keycloak import site
from tests.keycloak.server import PASSWORD, Keycloak

__all__ = ["chromium"]

pytestmark = [
    pytest.mark.keycloak,
    pytest.mark.browser,
    pytest.mark.long,
    pytest.mark.timeout(600),
]


def test_whole_journey(rosa: Customer, server: KeycloakServer) -> None:
    """Deny, sign up, refresh, allow more, sign out and in again, repair what was ended at Keycloak."""
    page, company = rosa.page, rosa.page.get_by_role("heading", name="Rosenduft Gartenbau GmbH")
    rosa.go("/")
    rosa.sign_in(ROSA, allow=False)
    rosa.go("/")
    rosa.sign_in(ROSA)
    expect(company).to_be_visible()
    page.locator(".technical summary").click()
    rosa.press(rosa.button_to("/account/refresh"))
    expect(page.locator(".trace li")).to_have_count(3)

    rosa.go("/account/numbers")
    rosa.press(page.locator("main form button[type=submit]"))
    rosa.at_sipgate(ROSA)
    expect(page.get_by_role("row")).to_have_count(26)
    page.go_back()
    page.go_back()
    expect(page.locator("main")).to_be_visible()

    rosa.go("/account")
    rosa.press(rosa.button_to("/accounts/logout/"))
    rosa.go("/")
    rosa.press(rosa.button_to("/sipgate/login/").first)  # Keycloak's session answers without a page
    expect(company).to_be_visible()

    server.end_sessions(ROSA)
    page.locator(".technical summary").click()
    rosa.press(rosa.button_to("/account/refresh"))
    rosa.press(page.locator(".alert").locator(rosa.button_to("/sipgate/login/")).first)
    rosa.at_sipgate(ROSA)
    expect(page.locator(".alert").locator(rosa.button_to("/sipgate/login/"))).to_have_count(0)
    assert rosa.complaints == []


class Customer(Visitor):
    """Somebody who signs in at Keycloak with a password."""

    def at_sipgate(self, person: str, *, allow: bool = True) -> None:
        if self.page.locator("#username").count():
            self.page.fill("#username", person)
            self.page.fill("#password", PASSWORD)
            self.press(self.page.locator("#kc-login"))
        if self.page.locator("[name=accept]").count():
            self.press(self.page.locator("[name=accept]" if allow else "[name=cancel]"))
        self.page.wait_for_url(f"{self.project.url}/**")


@pytest.fixture
def rosa(chromium: Browser, project: Stand, keycloak: Keycloak) -> Iterator[Customer]:
    context = chromium.new_context(locale="en-GB")
    one = Customer(context, project, "keycloak")
    one.hosts.add(keycloak.url.partition("//")[2])
    yield one
    context.close()


@pytest.fixture(scope="module")
def project(keycloak: Keycloak, rest_api: Running) -> Iterator[Stand]:
    """The site with Keycloak in sipgate's place; it chooses its port, so Keycloak is told afterwards."""
    variables = site.variables(keycloak, rest_api, redirect_uri="")
    del variables["REDIRECT_URI"]
    with stand(**variables) as running:
        change = keycloak.administrator.change_client
        change(site.CLIENT_ID, redirectUris=[f"{running.url}/oauth"])
        yield running
        change(site.CLIENT_ID, redirectUris=["http://localhost:8080/oauth"])


@pytest.fixture
def server(keycloak: Keycloak) -> Iterator[KeycloakServer]:
    one = KeycloakServer(keycloak)
    yield one
    one.reset()
