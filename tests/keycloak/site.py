"""The variables of a site whose sipgate is Keycloak (authorization) and the sandbox (REST API)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sipgate_sandbox.launch import Running, launch
from tests.keycloak.server import Keycloak

CLIENT_ID, CLIENT_SECRET = "1000000-1-keycloak:third-party", "keycloak-secret"
"""As in ``realm.json``, where the REST API is another client."""


@contextmanager
def rest_api(keycloak: Keycloak) -> Iterator[Running]:
    """Yield a sandbox whose REST API accepts Keycloak's access tokens."""
    variables = {
        "SANDBOX_CLIENT_ID": "rest-api",
        "SANDBOX_CLIENT_SECRET": "rest-api-secret",
        "SANDBOX_INTROSPECT_URL": f"{keycloak.oidc_url}/token/introspect",
    }
    with launch(variables=variables) as sandbox:
        yield sandbox


def variables(keycloak: Keycloak, sandbox: Running, *, redirect_uri: str) -> dict[str, str]:
    """Return what would be in the site's ``.env``."""
    return {
        "CLIENT_ID": CLIENT_ID,
        "CLIENT_SECRET": CLIENT_SECRET,
        "AUTH_URL": f"{keycloak.oidc_url}/auth",
        "TOKEN_URL": f"{keycloak.oidc_url}/token",
        "TEST_API_ENDPOINT": f"{sandbox.api_url}/account",
        "SIPGATE_API_URL": sandbox.api_url,
        "REDIRECT_URI": redirect_uri,
        "SIPGATE_ACCOUNT_MAX_AGE_SECONDS": "0",  # every page asks, as with the sandbox
    }
