"""Facts about the endpoints of a server like sipgate's.

``make test`` asks the sandbox, ``make test-keycloak`` asks Keycloak. Where the sandbox differs on
purpose, the test says why. ``docs/how-it-works.md`` says what is certain, likely and unknown about
sipgate itself.
"""

from __future__ import annotations

from urllib.parse import quote

import requests

from sipgate_sandbox.scopes import SCOPES
from tests.facts.server import (
    OTTO,
    REDIRECT_URI,
    AuthorizationServer,
    Page,
    error,
    granted,
    scopes,
)


class TestAuthorization:
    def test_callback(self, server, browser):
        query = browser.walk(server.authorize_url(state="a b&c"))
        assert set(query) == {"code", "state", "session_state", "iss"}
        assert (query["state"], query["iss"]) == ("a b&c", server.issuer)

    def test_denied_consent(self, server, browser):
        query = browser.walk(server.authorize_url(), allow=False)
        assert "code" not in query
        assert (query["error"], query["state"]) == ("access_denied", "the state")
        assert query["iss"] == server.issuer

    def test_unknown_client_or_redirect_uri_is_a_page_and_no_redirect(self, server, browser):
        for changes in (
            {"client_id": "unknown"},
            {"redirect_uri": f"{REDIRECT_URI}/"},
            {"redirect_uri": "http://127.0.0.1:8080/oauth"},
        ):
            assert is_problem_page(browser.open(server.authorize_url(**changes))), changes
        server.set_client_enabled(False)
        assert is_problem_page(browser.open(server.authorize_url()))

    def test_a_scope_that_does_not_exist(self, server, browser):
        for prompt in (None, "none"):
            url = server.authorize_url(scope="account:read nonsense", prompt=prompt)
            query = browser.open(url).query
            assert_error(query, "invalid_scope", server)
            # The description names all scopes, not only the wrong one.
            assert {"account:read", "nonsense"} <= set(query["error_description"].split())

    def test_a_scope_that_the_client_may_not_ask_for(self, server, browser, new_browser):
        server.grant(browser)
        server.set_client_scopes(set(SCOPES) - {"offline_access"})
        for visitor in (browser, new_browser()):
            for prompt in (None, "none"):
                url = server.authorize_url(scope="account:read offline_access", prompt=prompt)
                assert_error(visitor.open(url).query, "invalid_scope", server)

    def test_consent_is_asked_once_for_each_scope(self, server, browser):
        server.grant(browser)
        assert browser.open(server.authorize_url()).kind == "callback"
        more = server.authorize_url(scope="account:read balance:read")
        assert browser.open(more).kind == "consent"
        assert browser.answer_consent(True).kind == "callback"
        assert browser.open(more).kind == "callback"
        query = browser.open(server.authorize_url(scope="balance:read")).query
        assert scopes(granted(server.exchange(query["code"]))) == {"balance:read"}


class TestPrompt:
    def test_none_without_a_session(self, server, browser):
        query = browser.open(server.authorize_url(prompt="none")).query
        assert_error(query, "login_required", server)

    def test_none_gives_every_scope_with_an_earlier_consent(self, server, browser, new_browser):
        server.grant(new_browser(), scope="account:read balance:read")
        assert scopes(server.grant(browser, scope="account:read")) == {"account:read"}
        url = server.authorize_url(scope="account:read balance:read", prompt="none")
        grant = granted(server.exchange(browser.open(url).query["code"]))
        assert scopes(grant) == {"account:read", "balance:read"}

    def test_none_for_a_scope_without_consent(self, server, browser):
        grant = server.grant(browser)
        url = server.authorize_url(scope="account:read balance:read", prompt="none")
        assert_error(browser.open(url).query, "interaction_required", server)
        assert not server.rejects(grant)

    def test_consent_shows_the_consent_again(self, server, browser):
        server.grant(browser)
        assert browser.open(server.authorize_url(prompt="consent")).kind == "consent"

    def test_hints_change_nothing_while_somebody_is_signed_in(self, server, browser):
        first = server.grant(browser)
        for hint in ({"login_hint": OTTO}, {"prompt": "select_account"}):
            query = browser.open(server.authorize_url(**hint)).query
            assert query["session_state"] == first["session_state"], hint

    def test_login_asks_the_same_person_again(self, server, browser):
        first = server.grant(browser)
        assert browser.open(server.authorize_url(prompt="login")).kind == "re-authentication"
        query = browser.sign_in(OTTO).query
        assert query["session_state"] == first["session_state"]
        assert not server.rejects(first)

    def test_restart_login_lets_another_person_in_and_ends_the_first_session(self, server, browser):
        first = server.grant(browser)
        browser.open(server.authorize_url(prompt="login"))
        assert browser.restart_login().kind == "sign-in"
        assert server.rejects(first)
        browser.sign_in(OTTO)
        query = browser.answer_consent(True).query
        assert query["session_state"] != first["session_state"]


class TestToken:
    def test_grant(self, server, browser):
        response = server.exchange(browser.walk(server.authorize_url())["code"])
        grant = granted(response)
        assert set(grant) == {
            *("access_token", "expires_in", "refresh_expires_in", "refresh_token"),
            *("token_type", "not-before-policy", "session_state", "scope"),
        }
        assert (grant["token_type"], grant["scope"]) == ("Bearer", "account:read")
        assert grant["expires_in"] in {299, 300}, "it may be a second short"
        assert type(grant["not-before-policy"]) is int
        assert "no-store" in response.headers["Cache-Control"]

    def test_id_token_with_openid_only(self, server, browser):
        assert "id_token" in server.grant(browser, scope="openid account:read")

    def test_lifetimes_shrink_near_the_end_of_the_session(self, server, browser):
        server.set_lifetimes(access=300, session=60)
        grant = server.grant(browser)
        assert 50 <= grant["expires_in"] <= 60
        assert 50 <= grant["refresh_expires_in"] <= 60

    def test_wrong_client_spends_nothing(self, server, browser):
        grant = server.grant(browser)
        assert error(server.refresh(grant, client_secret="no")) == (401, "unauthorized_client")
        assert error(server.refresh(grant, client_id="unknown")) == (401, "invalid_client")
        assert error(server.refresh(grant, server.other_client)) == (400, "invalid_grant")
        server.set_client_enabled(False)
        assert error(server.refresh(grant)) == (401, "invalid_client")
        server.set_client_enabled(True)
        assert not server.rejects(grant)

    def test_secret_changed_at_the_server(self, server, browser):
        grant = server.grant(browser)
        server.set_client_secret("another")
        assert error(server.refresh(grant)) == (401, "unauthorized_client")
        assert server.refresh(grant, client_secret="another").status_code == 200

    def test_basic_needs_a_percent_encoded_id(self, server, browser):
        grant, client = server.grant(browser), server.client
        form = {"grant_type": "refresh_token", "refresh_token": grant["refresh_token"]}
        for client_id, status in ((client.id, 401), (quote(client.id, safe=""), 200)):
            credentials = (client_id, client.secret)
            url = f"{server.oidc_url}/token"
            response = requests.post(url, data=form, auth=credentials, timeout=30)
            assert response.status_code == status

    def test_code_is_bound_to_verifier_and_redirect_uri(self, server, browser):
        for changes in ({"code_verifier": "w" * 50}, {"redirect_uri": f"{REDIRECT_URI}/other"}):
            code = browser.walk(server.authorize_url())["code"]
            assert error(server.exchange(code, **changes)) == (400, "invalid_grant"), changes

    def test_nonsense(self, server):
        assert server.rejects({"refresh_token": "nonsense"})
        assert error(server.exchange("nonsense")) == (400, "invalid_grant")

    def test_refresh_rotates(self, server, browser):
        first = server.grant(browser)
        second = server.refreshed(first)
        assert second["refresh_token"] != first["refresh_token"]
        assert second["session_state"] == first["session_state"]
        assert server.is_active(second["access_token"])
        # According to sipgate's documentation, a refresh ends the earlier access token. The sandbox
        # does so; Keycloak lets the token expire.
        assert server.is_active(first["access_token"]) == (server.name == "keycloak")

    def test_refresh_with_other_scopes(self, server, browser):
        grant = server.grant(browser, scope="account:read balance:read")
        narrow = server.refreshed(grant, scope="account:read")
        assert scopes(narrow) == {"account:read"}
        whole = server.refreshed(narrow)
        assert scopes(whole) == {"account:read", "balance:read"}, "narrow for one refresh"
        wide = server.refreshed(whole, scope="account:read balance:read users:read")
        assert scopes(wide) == {"account:read", "balance:read"}, "no more, and no error"

    def test_client_loses_a_scope_and_gets_it_again(self, server, browser):
        first = server.grant(browser)
        server.set_client_scopes(set(SCOPES) - {"account:read"})
        second = server.refreshed(first)
        assert second["scope"] == ""
        server.set_client_scopes(None)
        assert scopes(server.refreshed(second)) == {"account:read"}


def test_discovery(server):
    found = requests.get(f"{server.issuer}/.well-known/openid-configuration", timeout=30).json()
    assert found["issuer"] == server.issuer
    for name, path in {
        "authorization": "auth",
        "token": "token",
        "revocation": "revoke",
        "end_session": "logout",
        "introspection": "token/introspect",
    }.items():
        assert found[f"{name}_endpoint"] == f"{server.oidc_url}/{path}"
    assert set(found["prompt_values_supported"]) >= {"none", "login", "consent"}
    assert "S256" in found["code_challenge_methods_supported"]
    assert found["authorization_response_iss_parameter_supported"] is True
    assert requests.get(found["jwks_uri"], timeout=30).json()["keys"]


def is_problem_page(page: Page) -> bool:
    headers = page.response.headers
    is_page = headers["Content-Type"].startswith("text/html") and "Location" not in headers
    return page.response.status_code == 400 and is_page


def assert_error(query: dict[str, str], name: str, server: AuthorizationServer) -> None:
    """Assert that the browser came back with this error."""
    found = query["error"], query["state"], query["iss"]
    assert found == (name, "the state", server.issuer)
