"""Facts about an authorization server like sipgate's, each asserted of the sandbox and of a real Keycloak.

``make test`` runs the sandbox's column, ``make test-keycloak`` Keycloak's. Where the sandbox differs on purpose, or has
no such thing, the test says why. What is certain, likely and unknown about sipgate itself: ``docs/sipgates-server.md``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
import requests

from tests.facts.server import (
    OTTO,
    REDIRECT_URI,
    AuthorizationServer,
    Browser,
    granted,
    scopes,
)

Grant = dict[str, Any]
NewBrowser = Callable[[], Browser]


def error(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]


def now() -> int:
    return int(time.time())


class TestAuthorizationEndpoint:
    def test_callback(self, server: AuthorizationServer, browser: Browser) -> None:
        query = browser.walk(server.authorize_url(state="a b&c"))
        assert set(query) == {"code", "state", "session_state", "iss"}
        assert (query["state"], query["iss"]) == ("a b&c", server.issuer)

    def test_refused_consent(self, server: AuthorizationServer, browser: Browser) -> None:
        query = browser.walk(server.authorize_url(), allow=False)
        assert (query["error"], query["state"], query["iss"]) == (
            "access_denied",
            "the state",
            server.issuer,
        )
        assert "code" not in query

    @pytest.mark.parametrize(
        "changes",
        [
            {"client_id": "unknown"},
            {"redirect_uri": f"{REDIRECT_URI}/"},
            {"redirect_uri": "http://127.0.0.1:8080/oauth"},
        ],
    )
    def test_unknown_client_or_redirect_uri_is_a_page_and_no_redirect(
        self, server: AuthorizationServer, browser: Browser, changes: dict[str, str]
    ) -> None:
        response = browser.open(server.authorize_url(**changes)).response
        assert (response.status_code, response.headers.get("Location")) == (400, None)
        assert response.headers["Content-Type"].startswith("text/html")

    def test_disabled_client_is_a_page_and_no_redirect(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        server.set_client_enabled(False)
        response = browser.open(server.authorize_url()).response
        assert (response.status_code, response.headers.get("Location")) == (400, None)

    @pytest.mark.parametrize("prompt", [None, "none"])
    def test_scope_that_does_not_exist(
        self, server: AuthorizationServer, browser: Browser, prompt: str | None
    ) -> None:
        query = browser.open(
            server.authorize_url(scope="account:read nonsense", prompt=prompt)
        ).query
        assert (query["error"], query["state"], query["iss"]) == (
            "invalid_scope",
            "the state",
            server.issuer,
        )
        assert (
            "account:read" in query["error_description"]
        )  # the whole list is named, not the scope that is wrong
        assert "nonsense" in query["error_description"]

    @pytest.mark.parametrize("prompt", [None, "none"])
    @pytest.mark.parametrize("signed_in", [False, True])
    def test_scope_the_client_may_not_ask_for(
        self, server: AuthorizationServer, browser: Browser, prompt: str | None, signed_in: bool
    ) -> None:
        if signed_in:
            server.grant(browser)
        server.set_client_scopes(["account:read"])
        query = browser.open(
            server.authorize_url(scope="account:read offline_access", prompt=prompt)
        ).query
        assert (query["error"], query["state"], query["iss"]) == (
            "invalid_scope",
            "the state",
            server.issuer,
        )

    def test_consent_is_asked_once_for_each_scope(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        server.grant(browser)
        assert browser.open(server.authorize_url()).kind == "callback"
        more = server.authorize_url(scope="account:read balance:read")
        assert browser.open(more).kind == "consent"
        assert browser.answer_consent(True).kind == "callback"
        assert browser.open(more).kind == "callback"
        query = browser.open(server.authorize_url(scope="balance:read")).query
        assert scopes(granted(server.exchange(query["code"]))) == {"balance:read"}


class TestPrompt:
    def test_none_without_a_session(self, server: AuthorizationServer, browser: Browser) -> None:
        query = browser.open(server.authorize_url(prompt="none")).query
        assert (query["error"], query["state"], query["iss"]) == (
            "login_required",
            "the state",
            server.issuer,
        )

    def test_none_gives_all_that_was_consented_to_before(
        self, server: AuthorizationServer, browser: Browser, new_browser: NewBrowser
    ) -> None:
        server.grant(new_browser(), scope="account:read balance:read")
        assert scopes(server.grant(browser, scope="account:read")) == {"account:read"}
        query = browser.open(
            server.authorize_url(scope="account:read balance:read", prompt="none")
        ).query
        assert scopes(granted(server.exchange(query["code"]))) == {"account:read", "balance:read"}

    def test_none_for_a_scope_nobody_consented_to(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        grant = server.grant(browser)
        query = browser.open(
            server.authorize_url(scope="account:read balance:read", prompt="none")
        ).query
        assert (query["error"], query["state"], query["iss"]) == (
            "interaction_required",
            "the state",
            server.issuer,
        )
        assert not server.is_refused(grant)

    def test_consent_shows_the_consent_again(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        server.grant(browser)
        assert browser.open(server.authorize_url(prompt="consent")).kind == "consent"

    @pytest.mark.parametrize("changes", [{"login_hint": OTTO}, {"prompt": "select_account"}])
    def test_hints_change_nothing_while_somebody_is_signed_in(
        self, server: AuthorizationServer, browser: Browser, changes: dict[str, str]
    ) -> None:
        first = server.grant(browser)
        query = browser.open(server.authorize_url(**changes)).query
        assert query["session_state"] == first["session_state"]

    def test_login_asks_the_same_person_again(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        first = server.grant(browser)
        assert browser.open(server.authorize_url(prompt="login")).kind == "re-authentication"
        query = browser.sign_in(OTTO).query
        assert query["session_state"] == first["session_state"]
        assert not server.is_refused(first)

    def test_restart_login_lets_another_person_in_and_ends_the_first_session(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        first = server.grant(browser)
        browser.open(server.authorize_url(prompt="login"))
        assert browser.restart_login().kind == "sign-in"
        assert server.is_refused(first)
        browser.sign_in(OTTO)
        query = browser.answer_consent(True).query
        assert query["session_state"] != first["session_state"]


class TestTokenEndpoint:
    def test_grant(self, server: AuthorizationServer, browser: Browser) -> None:
        response = server.exchange(browser.walk(server.authorize_url())["code"])
        grant = granted(response)
        assert set(grant) == {
            *("access_token", "expires_in", "refresh_expires_in", "refresh_token"),
            *("token_type", "not-before-policy", "session_state", "scope"),
        }
        assert (grant["token_type"], grant["scope"]) == ("Bearer", "account:read")
        assert type(grant["not-before-policy"]) is int
        assert "no-store" in response.headers["Cache-Control"]

    def test_id_token_with_openid_only(self, server: AuthorizationServer, browser: Browser) -> None:
        assert "id_token" in server.grant(browser, scope="openid account:read")

    def test_expires_in_may_be_a_second_short(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        assert server.grant(browser)["expires_in"] in {299, 300}

    def test_lifetimes_shrink_near_the_end_of_the_session(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        server.set_lifetimes(access=300, session=60)
        grant = server.grant(browser)
        assert 50 <= grant["expires_in"] <= 60
        assert 50 <= grant["refresh_expires_in"] <= 60

    @pytest.mark.parametrize(
        ("changes", "answer"),
        [
            ({"client_secret": "wrong"}, (401, "unauthorized_client")),
            ({"client_id": "unknown"}, (401, "invalid_client")),
        ],
    )
    def test_wrong_credentials_spend_nothing(
        self,
        server: AuthorizationServer,
        browser: Browser,
        changes: dict[str, str],
        answer: tuple[int, str],
    ) -> None:
        grant = server.grant(browser)
        assert error(server.refresh(grant, **changes)) == answer
        assert not server.is_refused(grant)

    def test_disabled_client(self, server: AuthorizationServer, browser: Browser) -> None:
        grant = server.grant(browser)
        server.set_client_enabled(False)
        assert error(server.refresh(grant)) == (401, "invalid_client")
        server.set_client_enabled(True)
        assert not server.is_refused(grant)

    def test_secret_changed_at_the_server(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        grant = server.grant(browser)
        server.set_client_secret("another")
        assert error(server.refresh(grant)) == (401, "unauthorized_client")
        assert server.refresh(grant, client_secret="another").status_code == 200

    @pytest.mark.parametrize(("encoded", "status"), [(True, 200), (False, 401)])
    def test_basic_needs_a_percent_encoded_id(
        self, server: AuthorizationServer, browser: Browser, encoded: bool, status: int
    ) -> None:
        grant = server.grant(browser)
        client_id = quote(server.client.id, safe="") if encoded else server.client.id
        form = {"grant_type": "refresh_token", "refresh_token": grant["refresh_token"]}
        response = requests.post(
            f"{server.oidc_url}/token",
            data=form,
            auth=(client_id, server.client.secret),
            timeout=30,
        )
        assert response.status_code == status

    @pytest.mark.parametrize(
        "changes", [{"code_verifier": "w" * 50}, {"redirect_uri": f"{REDIRECT_URI}/other"}]
    )
    def test_code_is_bound_to_verifier_and_redirect_uri(
        self, server: AuthorizationServer, browser: Browser, changes: dict[str, str]
    ) -> None:
        code = browser.walk(server.authorize_url())["code"]
        assert error(server.exchange(code, **changes)) == (400, "invalid_grant")

    def test_refresh_rotates(self, server: AuthorizationServer, browser: Browser) -> None:
        first = server.grant(browser)
        second = server.refreshed(first)
        assert second["refresh_token"] != first["refresh_token"]
        assert second["session_state"] == first["session_state"]
        assert server.is_active(second["access_token"])
        # sipgate's documentation says that a refresh invalidates the earlier set. Keycloak lets the older access token
        # live until it expires; the sandbox does what is said of sipgate.
        assert server.is_active(first["access_token"]) == (server.name == "keycloak")

    def test_narrower_scope_is_for_one_refresh(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        first = server.grant(browser, scope="account:read balance:read")
        second = server.refreshed(first, scope="account:read")
        assert scopes(second) == {"account:read"}
        assert scopes(server.refreshed(second)) == {"account:read", "balance:read"}

    def test_wider_scope_is_not_granted_and_no_error(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        grant = server.grant(browser)
        assert scopes(server.refreshed(grant, scope="account:read balance:read")) == {
            "account:read"
        }

    def test_client_loses_a_scope_and_gets_it_again(
        self, server: AuthorizationServer, browser: Browser
    ) -> None:
        first = server.grant(browser)
        server.set_client_scopes(["balance:read"])
        second = server.refreshed(first)
        assert second["scope"] == ""
        server.set_client_scopes(None)
        assert scopes(server.refreshed(second)) == {"account:read"}

    def test_discovery(self, server: AuthorizationServer) -> None:
        found = requests.get(f"{server.issuer}/.well-known/openid-configuration", timeout=30).json()
        assert found["issuer"] == server.issuer
        addresses = {
            "authorization": "auth",
            "token": "token",
            "revocation": "revoke",
            "end_session": "logout",
        }
        for name, path in (addresses | {"introspection": "token/introspect"}).items():
            assert found[f"{name}_endpoint"] == f"{server.oidc_url}/{path}"
        assert set(found["prompt_values_supported"]) >= {"none", "login", "consent"}
        assert "S256" in found["code_challenge_methods_supported"]
        assert found["authorization_response_iss_parameter_supported"] is True
        assert requests.get(found["jwks_uri"], timeout=30).json()["keys"]
