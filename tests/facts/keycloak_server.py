"""Keycloak as an authorization server under test."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from html import unescape
from urllib.parse import urljoin

import requests

from sipgate_sandbox.scopes import SCOPES
from tests.facts.server import OTTO, ROSA, AuthorizationServer, Browser, Client, Kind, Page
from tests.keycloak.server import PASSWORD, Keycloak


class KeycloakBrowser(Browser):
    def kind_of(self, response: requests.Response) -> Kind:
        if response.status_code != 200:
            return "error"
        marks: dict[str, Kind] = {
            'id="kc-logout"': "log-out",
            'name="accept"': "consent",
            'id="kc-attempted-username"': "re-authentication",
            'id="username"': "sign-in",
        }
        return next((kind for mark, kind in marks.items() if mark in response.text), "error")

    def sign_in(self, person: str) -> Page:
        assert self.page is not None
        if self.page.kind == "re-authentication":
            return self.submit(password=PASSWORD)
        return self.submit(username=person, password=PASSWORD)

    def answer_consent(self, allow: bool) -> Page:
        return self.submit(**({"accept": "Yes"} if allow else {"cancel": "No"}))

    def confirm_log_out(self) -> Page:
        return self.submit(confirmLogout="Logout")

    def restart_login(self) -> Page:
        assert self.page is not None
        link = re.search(r"location.href='([^']+/restart[^']+)'", self.page.response.text)
        assert link is not None
        return self.open(urljoin(self.page.response.url, unescape(link[1])))


class KeycloakServer(AuthorizationServer):
    name = "keycloak"
    password = PASSWORD
    client = Client(id="1000000-1-keycloak:third-party", secret="keycloak-secret")
    other_client = Client(id="1000000-2-other:third-party", secret="other-secret")

    def __init__(self, keycloak: Keycloak) -> None:
        self.keycloak = keycloak
        self.issuer = keycloak.issuer
        self.oidc_url = keycloak.oidc_url
        self._administrator = keycloak.administrator
        self._changed: set[str] = set()

    def browser(self) -> Browser:
        return KeycloakBrowser()

    def clients_in_use(self, person: str) -> set[str]:
        return self._administrator.clients_in_use(person)

    def let_time_pass(self) -> None:
        """Wait until the clock shows a later time: Keycloak counts seconds and forgives one."""
        time.sleep(2.01)

    def reset(self) -> None:
        for person in (ROSA, OTTO):
            self._administrator.log_out(person)
            for client_id in self._administrator.consents(person):
                self._administrator.withdraw_consent(person, client_id)
        if "people" in self._changed:
            self._administrator.change_user(ROSA, enabled=True)
        if "realm" in self._changed:
            self.set_not_before(0)
            self.set_lifetimes()
        if "client" in self._changed:
            self._administrator.change_client(
                self.client.id, enabled=True, secret=self.client.secret, consentRequired=True
            )
        if "scopes" in self._changed:
            self.set_client_scopes(None)
        self._changed = set()

    def set_enabled(self, person: str, enabled: bool) -> None:
        self._changed.add("people")
        self._administrator.change_user(person, enabled=enabled)

    def end_sessions(self, person: str) -> None:
        self._administrator.log_out(person)

    def withdraw_consent(self, person: str) -> None:
        self._administrator.withdraw_consent(person, self.client.id)

    def set_not_before(self, moment: int) -> None:
        """Reject all tokens issued before ``moment`` (seconds since 1970; 0: none)."""
        self._changed.add("realm")
        self._administrator.set_not_before(moment)

    def set_lifetimes(self, *, access: int = 300, session: int = 31_536_000) -> None:
        self._changed.add("realm")
        self._administrator.change_realm(accessTokenLifespan=access, ssoSessionMaxLifespan=session)

    def set_client_enabled(self, enabled: bool) -> None:
        self._changed.add("client")
        self._administrator.change_client(self.client.id, enabled=enabled)

    def set_client_secret(self, secret: str) -> None:
        self._changed.add("client")
        self._administrator.change_client(self.client.id, secret=secret)

    def set_client_scopes(self, scopes: Iterable[str] | None) -> None:
        self._changed.add("scopes")
        self._administrator.allow_scopes(self.client.id, SCOPES if scopes is None else scopes)

    def set_consent_required(self, required: bool) -> None:
        self._changed.add("client")
        self._administrator.change_client(self.client.id, consentRequired=required)
