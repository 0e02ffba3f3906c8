"""Whole journeys with a real Keycloak: what people, code and administrators do to a connection."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.db import connections
from django.test import Client

from sipgate_provider.models import SipgateToken
from tests import raw_server
from tests.conftest import make_stale
from tests.facts.server import ROSA
from tests.journey import HOST
from tests.keycloak import site
from tests.waiting import wait_for

pytestmark = [pytest.mark.keycloak, pytest.mark.timeout(600)]

User = get_user_model()
ROSAS_COMPANY = "Rosenduft Gartenbau GmbH"


class TestSignIn:
    def test_further_scopes_are_asked_for_once(self, signed_in, settings):
        ask_for(settings, "account:read", "balance:read")
        assert signed_in.keycloak.open(signed_in.start(process="connect")).kind == "consent"
        signed_in.sign_in(process="connect")
        shown = signed_in.connection()
        assert shown is not None
        assert set(shown["token"]["scope"]) == {"account:read", "balance:read"}
        assert signed_in.keycloak.open(signed_in.start(process="connect")).kind == "callback"

    def test_a_narrower_sign_in_keeps_what_was_allowed(self, visitor, settings):
        """Two grants of one session rotate side by side, so the kept one lives on."""
        ask_for(settings, "account:read", "balance:read")
        visitor.sign_in()
        ask_for(settings, "account:read")
        visitor.site.post("/accounts/logout/")
        assert visitor.sign_in().headers["Location"] == "/account"
        make_stale()
        assert visitor.sees_its_account()
        assert set(SipgateToken.objects.get().scopes) >= {"account:read", "balance:read"}

    def test_of_six_requests_for_one_callback_one_sends_the_code(self, visitor):
        """Keycloak would end the session if it received the code twice."""
        for _ in range(3):
            callback = visitor.consent(visitor.start())
            tabs = [Client(headers={"host": HOST}) for _ in range(6)]
            for tab in tabs:
                tab.cookies.load({name: one.value for name, one in visitor.site.cookies.items()})
            with ThreadPoolExecutor(6) as people:
                answers = people.map(partial(ask, path=callback), tabs)
                assert {answer.status_code for answer in answers} <= {302, 401, 503}
            signed_in = [tab for tab in tabs if tab.get("/account.json").status_code == 200]
            assert len(signed_in) == 1, (
                "the one that sent the code; the others begin again or have to wait"
            )
            assert signed_in[0].get("/account.json").json()["connections"][0]["fresh"]


class TestRefresh:
    def test_reloads_with_tokens_that_live_three_seconds(self, server, visitor):
        server.set_lifetimes(access=3)
        visitor.sign_in()
        until = time.monotonic() + 7
        while time.monotonic() < until:
            assert visitor.company() == ROSAS_COMPANY
            time.sleep(0.05)  # a person, not a load test
        assert SipgateToken.objects.get().number >= 2

    def test_lost_answer_ends_the_connection_and_one_sign_in_repairs_it(
        self, server, visitor, settings
    ):
        def relay(asked):
            answer = ask_keycloak(asked)
            kind = answer.headers["Content-Type"]
            asked.socket.sendall(
                raw_server.message(
                    f"{answer.status_code} {answer.reason}", answer.content, content_type=kind
                )
            )
            return True

        def lose(asked):
            assert ask_keycloak(asked).status_code == 200
            return False

        def ask_keycloak(asked):
            return requests.post(f"{server.oidc_url}/token", data=asked.form, timeout=30)

        with raw_server.serving(relay, lose, relay) as between:
            path = urlsplit(server.oidc_url).path
            settings.SIPGATE_TOKEN_URL = f"{between.url}{path}/token"
            visitor.sign_in()
            make_stale()
            wait_for(lambda: not visitor.sees_its_account() and rejects())
            visitor.sign_in(process="connect")
            assert visitor.company() == ROSAS_COMPANY


class TestEnds:
    @pytest.mark.parametrize("how", ["log_out", "withdraw_consent"])
    def test_one_sign_in_repairs_what_the_server_has_ended(self, server, signed_in, how):
        if how == "log_out":
            server.end_sessions(ROSA)
        else:
            server.withdraw_consent(ROSA)
        make_stale()
        assert not signed_in.sees_its_account()
        assert rejects()
        signed_in.sign_in(process="connect")
        assert signed_in.company() == ROSAS_COMPANY
        assert User.objects.count() == 1

    def test_a_disconnect_ends_the_grant_and_a_sign_in_makes_a_new_one(self, server, visitor):
        user = User.objects.create_user("local", password="correct horse battery")
        visitor.site.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        visitor.sign_in(process="connect")
        assert site.CLIENT_ID in server.clients_in_use(ROSA)
        visitor.site.post("/accounts/3rdparty/", {"account": SocialAccount.objects.get().pk})
        assert not SipgateToken.objects.exists()
        wait_for(lambda: site.CLIENT_ID not in server.clients_in_use(ROSA))
        visitor.sign_in(process="connect")
        assert visitor.company() == ROSAS_COMPANY


def ask_for(settings: Any, *scopes: str) -> None:
    ours = settings.SOCIALACCOUNT_PROVIDERS["sipgate"]
    settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {**ours, "SCOPE": [*scopes]}}


def ask(tab: Client, path: str) -> Any:
    """Open a page in a thread, which closes its database connections at the end."""
    try:
        return tab.get(path)
    finally:
        connections.close_all()


def rejects() -> bool:
    return SipgateToken.objects.get().state == "needs_sign_in"
