"""Facts that the sandbox has no counterpart for: it knows no passwords, no default scopes, and deletes nobody."""

from __future__ import annotations

import pytest

from tests.facts.keycloak_server import KeycloakServer
from tests.facts.server import ROSA, Browser, granted, scopes

pytestmark = [pytest.mark.keycloak, pytest.mark.timeout(600)]

GUEST = "9999999w9"


@pytest.fixture
def browser(server: KeycloakServer) -> Browser:
    return server.browser()


def test_refresh_works_while_the_password_must_be_changed(
    server: KeycloakServer, browser: Browser
) -> None:
    administrator = server.keycloak.administrator
    grant = server.grant(browser)
    administrator.change_user(ROSA, requiredActions=["UPDATE_PASSWORD"])
    try:
        grant = server.refreshed(grant)
    finally:
        administrator.change_user(ROSA, requiredActions=[])
    administrator.set_password(ROSA, server.password)
    assert not server.rejects(grant)


@pytest.mark.parametrize("shown", [False, True])
def test_new_default_scope_that_nobody_consented_to(
    server: KeycloakServer, browser: Browser, shown: bool
) -> None:
    """One that the consent page would show stops every refresh of the client until people consent, or it goes again."""
    administrator, name = server.keycloak.administrator, "a-new-scope"
    grant = server.grant(browser)
    administrator.create_scopes([name], on_consent_page=shown)
    administrator.add_default_scope(server.client.id, name)
    try:
        answer = server.refresh(grant)
    finally:
        administrator.delete_scope(name)
    if shown:
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")
        assert not server.rejects(grant)
    else:
        assert "account:read" in scopes(granted(answer))


def test_deleted_person_rejects(server: KeycloakServer, browser: Browser) -> None:
    server.keycloak.create_person(GUEST)
    grant = server.grant(browser, person=GUEST)
    server.keycloak.administrator.delete_user(GUEST)
    assert server.rejects(grant)
