"""The journey in Chromium through Keycloak's own pages, which are the pages that sipgate's customers see."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, expect

from sipgate_sandbox.launch import Running
from tests.browser.conftest import DESKTOP, PHONE, Visitor, chromium
from tests.browser.stand import Stand, stand
from tests.facts.keycloak_server import KeycloakServer
from tests.facts.server import OTTO, ROSA
from tests.keycloak import site
from tests.keycloak.server import PASSWORD, Keycloak

__all__ = ["chromium"]

pytestmark = [pytest.mark.keycloak, pytest.mark.browser, pytest.mark.timeout(600)]

ROSAS_COMPANY, OTTOS_COMPANY = "Rosenduft Gartenbau GmbH", "Schraube & Mutter KG"


class Customer(Visitor):
    """Somebody who signs in at Keycloak with a password."""

    def at_keycloak(self, person: str = ROSA, *, allow: bool = True) -> None:
        if self.page.locator("#username").count():
            self.picture("keycloak-sign-in")
            self.page.fill("#username", person)
            self.page.fill("#password", PASSWORD)
            self.press(self.page.locator("#kc-login"))
        if self.page.locator("[name=accept]").count():
            self.picture("keycloak-consent")
            self.press(self.page.locator("[name=accept]" if allow else "[name=cancel]"))
        self.page.wait_for_url(f"{self.project.url}/**")

    def sign_in(self, person: str = ROSA, *, allow: bool = True, button: str = "") -> None:
        self.press(self.page.locator("form[action*='/sipgate/login/'] button").first)
        self.at_keycloak(person, allow=allow)


@pytest.fixture(scope="module")
def project(keycloak: Keycloak, rest_api: Running) -> Iterator[Stand]:
    variables = site.variables(keycloak, rest_api, redirect_uri="")
    del variables["REDIRECT_URI"]  # the stand knows its port
    with stand(**variables) as running:
        keycloak.administrator.change_client(site.CLIENT_ID, redirectUris=[f"{running.url}/oauth"])
        yield running
        keycloak.administrator.change_client(
            site.CLIENT_ID, redirectUris=["http://localhost:8080/oauth"]
        )


@pytest.fixture
def server(keycloak: Keycloak) -> Iterator[KeycloakServer]:
    one = KeycloakServer(keycloak)
    yield one
    one.reset()


@pytest.fixture
def customer(
    chromium: Browser, project: Stand, server: KeycloakServer, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Customer]]:
    """Open a window; at the end of the test no window may have complained about the site's pages."""
    made: list[Customer] = []

    def open_window(
        *, language: str = "en-GB", phone: bool = False, dark: bool = False
    ) -> Customer:
        context = chromium.new_context(
            locale=language,
            viewport=PHONE if phone else DESKTOP,  # type: ignore[arg-type]  # a plain dict will do
            color_scheme="dark" if dark else "light",
        )
        name = f"keycloak-{request.node.originalname.removeprefix('test_')}-{language[:2]}"
        made.append(Customer(context, project, f"{name}-{'phone' if phone else 'desktop'}"))
        made[-1].hosts.add(server.keycloak.url.partition("//")[2])
        return made[-1]

    yield open_window
    for one in made:
        one.context.close()
    assert not [complaint for one in made for complaint in one.complaints]


@pytest.mark.parametrize(
    ("language", "phone", "dark"), [("en-GB", False, False), ("de-DE", True, True)]
)
def test_whole_journey(
    customer: Callable[..., Customer], project: Stand, language: str, phone: bool, dark: bool
) -> None:
    """Sign up, refresh, allow more, go back, sign out and in again, connect a second account."""
    rosa = customer(language=language, phone=phone, dark=dark)
    page = rosa.go("/")
    rosa.sign_in()
    expect(page).to_have_url(f"{project.url}/account")
    expect(page.get_by_role("heading", name=ROSAS_COMPANY)).to_be_visible()
    rosa.look("account")

    page.locator(".technical summary").click()
    page.locator("form[action='/account/refresh'] button").click()
    expect(page.locator(".trace li")).to_have_count(3)

    rosa.go("/account/numbers")
    rosa.look("numbers-not-allowed")
    rosa.press(page.locator("main form button[type=submit]"))
    rosa.at_keycloak()
    rosa.look("numbers")
    expect(page.get_by_role("row")).to_have_count(26)

    page.go_back()
    page.go_back()
    expect(page.locator("main")).to_be_visible()
    assert "error" not in page.title().lower()

    rosa.go("/account")
    rosa.press(page.locator("form[action='/accounts/logout/'] button"))
    rosa.go("/")
    rosa.sign_in()  # Keycloak's session answers without a page
    expect(page.get_by_role("heading", name=ROSAS_COMPANY)).to_be_visible()


def test_refused_consent_and_another_person(
    customer: Callable[..., Customer], project: Stand
) -> None:
    otto = customer()
    page = otto.go("/")
    otto.sign_in(OTTO, allow=False)
    otto.look("refused")
    otto.go("/")
    otto.sign_in(OTTO)
    expect(page.get_by_role("heading", name=OTTOS_COMPANY)).to_be_visible()
    otto.press(page.get_by_role("button", name="Connect another account"))
    otto.look("another-account")
    expect(page.get_by_role("button", name="Stay connected")).to_be_visible()


def test_ended_at_keycloak_and_repaired(
    customer: Callable[..., Customer], project: Stand, server: KeycloakServer
) -> None:
    server.set_lifetimes(access=3)
    rosa = customer(phone=True)
    page = rosa.go("/")
    rosa.sign_in()
    expect(page.get_by_role("heading", name=ROSAS_COMPANY)).to_be_visible()
    server.end_sessions(ROSA)
    button = page.locator(".alert form[action*='/sipgate/login/'] button")
    for _ in range(20):
        rosa.go("/account")
        if button.count():
            break
        page.wait_for_timeout(500)  # until the access token of three seconds has ended
    rosa.look("ended")
    rosa.press(button.first)
    rosa.at_keycloak()
    expect(page).to_have_url(f"{project.url}/account")
    expect(button).to_have_count(0)
