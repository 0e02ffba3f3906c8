"""What an administrator of the realm can do, through Keycloak's Admin REST API."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import requests

JSON = Any


class Administrator:
    """Signed in to the Keycloak at ``url``, for one realm.

    Every method raises ``requests.HTTPError`` if Keycloak rejects the call.
    """

    def __init__(self, url: str, *, password: str, realm: str) -> None:
        self._url, self._realm = url, realm
        self._credentials = {"username": "admin", "password": password}
        self._session = requests.Session()
        self._signed_in_at = float("-inf")

    def call(self, method: str, path: str, body: JSON = None) -> JSON:
        """Send one request below ``/admin/realms``; return the answer's JSON, or ``None``."""
        self._sign_in()
        response = self._session.request(
            method, f"{self._url}/admin/realms{path}", json=body, timeout=60
        )
        response.raise_for_status()
        return response.json() if response.content else None

    def _sign_in(self) -> None:
        if time.monotonic() - self._signed_in_at < 30:  # the token lives for a minute
            return
        response = self._session.post(
            f"{self._url}/realms/master/protocol/openid-connect/token",
            data={"grant_type": "password", "client_id": "admin-cli", **self._credentials},
            timeout=60,
        )
        response.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {response.json()['access_token']}"
        self._signed_in_at = time.monotonic()

    # --- the realm --------------------------------------------------------------------------------

    def create_realm(self, realm: JSON) -> None:
        self.call("POST", "", {**realm, "realm": self._realm})

    def change_realm(self, **settings: JSON) -> None:
        """Change fields of Keycloak's representation of the realm."""
        self.call("PUT", f"/{self._realm}", settings)

    def set_not_before(self, moment: int) -> None:
        """Reject every token issued before ``moment`` (seconds since 1970; 0: none)."""
        self.change_realm(notBefore=moment)

    def create_scopes(self, names: Iterable[str]) -> None:
        """Create client scopes that the consent page shows."""
        attributes = {"display.on.consent.screen": "true", "include.in.token.scope": "true"}
        for name in names:
            scope = {"name": name, "protocol": "openid-connect", "attributes": attributes}
            self.call("POST", f"/{self._realm}/client-scopes", scope)

    def scope_ids(self) -> dict[str, str]:
        return {
            scope["name"]: scope["id"]
            for scope in self.call("GET", f"/{self._realm}/client-scopes")
        }

    # --- clients ----------------------------------------------------------------------------------

    def create_client(self, **client: JSON) -> None:
        """Create a client from fields of Keycloak's representation of clients."""
        self.call("POST", f"/{self._realm}/clients", client)

    def client(self, client_id: str) -> JSON:
        found = self.call(
            "GET", f"/{self._realm}/clients?clientId={requests.utils.quote(client_id, safe='')}"
        )
        return found[0]

    def change_client(self, client_id: str, **settings: JSON) -> None:
        """Change fields of Keycloak's representation of a client (``secret``, ``enabled`` …)."""
        client = self.client(client_id)
        self.call("PUT", f"/{self._realm}/clients/{client['id']}", client | settings)

    def allow_scopes(self, client_id: str, names: Iterable[str]) -> None:
        """Let a client ask for these scopes and no others."""
        place = f"/{self._realm}/clients/{self.client(client_id)['id']}/optional-client-scopes"
        ids, wanted = self.scope_ids(), set(names)
        allowed = {scope["name"] for scope in self.call("GET", place)}
        for name in allowed - wanted:
            self.call("DELETE", f"{place}/{ids[name]}")
        for name in (wanted & set(ids)) - allowed:
            self.call("PUT", f"{place}/{ids[name]}")

    # --- people -----------------------------------------------------------------------------------

    def user(self, username: str) -> JSON:
        return self.call("GET", f"/{self._realm}/users?exact=true&username={username}")[0]

    def create_user(self, **user: JSON) -> None:
        """Create a person from fields of Keycloak's representation of users."""
        self.call("POST", f"/{self._realm}/users", user)

    def change_user(self, username: str, **settings: JSON) -> None:
        user = self.user(username)
        self.call("PUT", f"/{self._realm}/users/{user['id']}", user | settings)

    def clients_in_use(self, username: str) -> set[str]:
        """Return the ids of the clients that take part in a session of a person."""
        sessions = self.call("GET", f"/{self._realm}/users/{self.user(username)['id']}/sessions")
        return {client_id for session in sessions for client_id in session["clients"].values()}

    def log_out(self, username: str) -> None:
        """End all sessions of a person, as *Sign out* in the admin console does."""
        self.call("POST", f"/{self._realm}/users/{self.user(username)['id']}/logout")

    def consents(self, username: str) -> list[str]:
        """Return the ids of the clients to which a person has given consent."""
        found = self.call("GET", f"/{self._realm}/users/{self.user(username)['id']}/consents")
        return [str(consent["clientId"]) for consent in found]

    def withdraw_consent(self, username: str, client_id: str) -> None:
        quoted = requests.utils.quote(client_id, safe="")
        self.call("DELETE", f"/{self._realm}/users/{self.user(username)['id']}/consents/{quoted}")

    def close(self) -> None:
        self._session.close()
