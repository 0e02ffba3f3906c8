"""What the doctor finds out at a real Keycloak without a person, one wrong setting at a time."""

from __future__ import annotations

from typing import Any

import pytest

from sipgate_provider.ops import doctor
from sipgate_provider.ops.findings import Finding, Severity
from sipgate_sandbox.scopes import SCOPES
from tests.facts.keycloak_server import KeycloakServer
from tests.facts.server import ROSA
from tests.keycloak import site

pytestmark = [pytest.mark.keycloak, pytest.mark.timeout(600)]


def findings() -> dict[str, Finding]:
    """Return what is not fine about sipgate, by name."""
    found = [finding for finding in doctor.diagnose() if finding.severity is not Severity.OK]
    return {finding.check: finding for finding in found if finding.check.startswith("sipgate.")}


def use_client(settings: Any, client_id: str, secret: str) -> None:
    app = {"client_id": client_id, "secret": secret}
    settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {"APPS": [app], "SCOPE": ["account:read"]}}


@pytest.fixture(autouse=True)
def _without_offline_access(server: KeycloakServer) -> None:
    server.set_client_scopes(SCOPES)


def test_nothing_is_wrong_and_nobody_was_signed_in(server: KeycloakServer) -> None:
    assert findings() == {}
    assert server.clients_in_use(ROSA) == set()


def test_the_client_is_unknown(server: KeycloakServer, settings: Any) -> None:
    use_client(settings, "2000000-1-unknown:third-party", site.CLIENT_SECRET)
    found = findings()
    assert "client_id" in found["sipgate.authorization"].cure
    assert "client_id" in found["sipgate.token"].cure


def test_the_secret_is_wrong(server: KeycloakServer, settings: Any) -> None:
    use_client(settings, site.CLIENT_ID, "another")
    found = findings()
    assert list(found) == ["sipgate.token"]
    assert found["sipgate.token"].cure.startswith("Compare secret in SOCIALACCOUNT_PROVIDERS")


def test_the_redirect_uri_is_not_registered(server: KeycloakServer, settings: Any) -> None:
    settings.SIPGATE_REDIRECT_URI = "http://127.0.0.1:8080/elsewhere"
    found = findings()
    assert "SIPGATE_REDIRECT_URI" in found["sipgate.authorization"].found
    assert "http://127.0.0.1:8080/elsewhere" in found["sipgate.authorization"].cure


def test_a_scope_is_unknown(server: KeycloakServer, settings: Any) -> None:
    settings.SIPGATE_SCOPE = ["account:read", "nonsense:read"]
    found = findings()
    assert list(found) == ["sipgate.scopes"]
    assert "nonsense:read" in found["sipgate.scopes"].found


def test_a_scope_is_not_allowed_to_this_client(server: KeycloakServer, settings: Any) -> None:
    server.set_client_scopes([scope for scope in SCOPES if scope != "balance:read"])
    settings.SIPGATE_SCOPE = ["account:read", "balance:read"]
    found = findings()
    assert "may not ask for balance:read" in found["sipgate.scopes"].found


@pytest.mark.parametrize(
    ("name", "path", "check", "setting"),
    [
        (
            "SIPGATE_AUTH_URL",
            "/realms/elsewhere/protocol/openid-connect/auth",
            "sipgate.authorization",
            "SIPGATE_AUTH_URL",
        ),
        (
            "SIPGATE_AUTH_URL",
            "/realms/third-party/protocol/openid-connect/authx",
            "sipgate.authorization",
            "SIPGATE_AUTH_URL",
        ),
        (
            "SIPGATE_TOKEN_URL",
            "/realms/elsewhere/protocol/openid-connect/token",
            "sipgate.token",
            "SIPGATE_TOKEN_URL",
        ),
        (
            "SIPGATE_TOKEN_URL",
            "/realms/third-party/protocol/openid-connect/tokens",
            "sipgate.token",
            "SIPGATE_TOKEN_URL",
        ),
    ],
)
def test_an_address_is_wrong(
    server: KeycloakServer, settings: Any, name: str, path: str, check: str, setting: str
) -> None:
    setattr(settings, name, f"{server.keycloak.url}{path}")
    found = findings()[check]
    assert found.severity is Severity.ERROR
    assert setting in found.cure


def test_the_client_is_disabled(server: KeycloakServer) -> None:
    server.set_client_enabled(False)
    found = findings()
    assert {finding.severity for finding in found.values()} == {Severity.ERROR}
    assert "sipgate.token" in found
