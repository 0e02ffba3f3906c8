"""The sandbox as an authorization server under test."""

from __future__ import annotations

import re
from collections.abc import Iterable

import requests

from sipgate_sandbox.launch import Running
from sipgate_sandbox.scopes import SCOPES
from tests.facts.server import AuthorizationServer, Browser, Client, Kind, Page


class SandboxBrowser(Browser):
    def kind_of(self, response: requests.Response) -> Kind:
        if response.status_code != 200:
            return "error"
        marks: dict[str, Kind] = {
            'name="confirm"': "log-out",
            'name="action"': "consent",
            'name="restart"': "re-authentication",
            'name="person"': "sign-in",
        }
        return next((kind for mark, kind in marks.items() if mark in response.text), "error")

    def sign_in(self, person: str) -> Page:
        assert self.page is not None
        if self.page.kind == "re-authentication":
            offered = re.findall(r'name="person" value="([^"]+)"', self.page.response.text)
            assert len(offered) == 1  # Keycloak has no field for a name here
            return self.submit(person=offered[0])
        return self.submit(person=person)

    def answer_consent(self, allow: bool) -> Page:
        return self.submit(action="grant" if allow else "deny")

    def confirm_log_out(self) -> Page:
        return self.submit(confirm="1")

    def restart_login(self) -> Page:
        return self.submit(restart="1")


class SandboxServer(AuthorizationServer):
    name = "sandbox"
    client = Client(id="1000000-1-sandbox:third-party", secret="sandbox-secret")
    other_client = Client(id="1000000-2-other:third-party", secret="other-secret")

    def __init__(self, sandbox: Running) -> None:
        self.control = sandbox.control
        self.issuer = f"{sandbox.url}/auth/realms/third-party"
        self.oidc_url = sandbox.oidc_url

    def browser(self) -> Browser:
        return SandboxBrowser()

    def let_time_pass(self) -> None:
        """Do nothing: the sandbox counts microseconds."""

    def reset(self) -> None:
        self.control.reset()

    def set_enabled(self, person: str, enabled: bool) -> None:
        self.control.change_realm(disabled=[] if enabled else [person])

    def end_sessions(self, person: str) -> None:
        self.control.kill_session(person)

    def withdraw_consent(self, person: str) -> None:
        self.control.withdraw_consent(person)

    def set_not_before(self, moment: int) -> None:
        self.control.change_realm(not_before=moment)

    def set_lifetimes(self, *, access: int = 300, session: int = 31_536_000) -> None:
        self.control.change_realm(access_lifetime=access, session_lifetime=session)

    def set_client_enabled(self, enabled: bool) -> None:
        self.control.change_realm(client_enabled=enabled)

    def set_client_secret(self, secret: str) -> None:
        self.control.change_realm(client_secret=secret)

    def set_client_scopes(self, scopes: Iterable[str] | None) -> None:
        self.control.change_realm(client_scopes=list(SCOPES if scopes is None else scopes))

    def set_consent_required(self, required: bool) -> None:
        self.control.change_realm(consent_required=required)
