"""Whatever goes wrong on the way: a page that says what to do, a reference in the log, no half-made
user.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.account.signals import user_signed_up
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError

from sipgate_provider.models import SipgateToken
from sipgate_provider.sign_in import oauth
from tests.journey import Browser

User = get_user_model()


class TestCallback:
    def test_consent_denied(self, browser, failed):
        page = failed(browser.site.get(browser.consent(browser.start(), allow=False)), "denied")
        assert "Sign in with sipgate" in page

    def test_no_state_of_ours(self, browser, failed):
        failed(browser.site.get("/oauth"), "state")
        failed(browser.site.get("/oauth?error=access_denied"), "denied")
        failed(browser.site.get("/oauth?error=access_denied&state=unknown"), "denied")

    def test_error_codes(self, browser, failed):
        for error, kind in [
            ("invalid_scope", "misconfigured"),
            ("unauthorized_client", "misconfigured"),
            ("server_error", "unavailable"),
            ("temporarily_unavailable", "unavailable"),
            ("login_required", "needs_sign_in"),
            ("something_new", "unexpected"),
        ]:
            state = parse_qs(urlsplit(browser.start()).query)["state"][0]
            url = f"/oauth?state={state}&error={error}&error_description=%3Cb%3Ewhy%3C/b%3E%0Anot"
            page = failed(browser.site.get(url), kind)
            assert "&lt;b&gt;why&lt;/b&gt;" in page
            assert "<b>why" not in page

    def test_an_api_that_is_elsewhere(self, browser, failed, settings):
        for place in ("/wrong", "/v2/account", "/auth"):
            settings.SIPGATE_API_URL = f"{browser.sandbox.url}{place}"
            page = failed(browser.site.get(browser.consent(browser.start())), "misconfigured")
            assert "check SIPGATE_API_URL." in page

    def test_answer_of_another_issuer(self, browser, failed, caplog, settings):
        callback = browser.consent(browser.start())
        forged = re.sub(r"iss=[^&]*", "iss=https://evil.example/auth<b>", callback)
        page = failed(browser.site.get(forged), "misconfigured")
        expected = browser.sandbox.oidc_url.partition("/protocol/")[0]
        assert "check SIPGATE_AUTH_URL." in page
        for part in ("https://evil.example/auth", expected, "SIPGATE_AUTH_URL"):
            assert part in caplog.text
        assert "evil" not in page
        assert browser.asked("token") == 0
        settings.SIPGATE_ISSUER = "https://login.example.org/realm"
        page = failed(browser.site.get(browser.consent(browser.start())), "misconfigured")
        assert "SIPGATE_ISSUER" in page

    def test_a_parameter_that_comes_twice(self, browser, failed):
        callback = browser.consent(browser.start())
        query = parse_qs(urlsplit(callback).query)
        for name in ("code", "state", "iss"):
            first = callback.replace("?", f"?{name}=other&")
            for forged in (first, f"{callback}&{name}={query[name][0]}"):
                failed(browser.site.get(forged), "state")
        assert browser.site.get(callback).headers["Location"] == "/account", "its state is unused"

    def test_a_known_id_from_another_region_is_a_user_of_its_own(self, browser, another_browser):
        browser.sign_in()
        SocialAccount.objects.update(extra_data={"domain": "sipgate.co.uk"})
        for _ in range(2):
            assert another_browser.sign_in().headers["Location"] == "/account"
        uids = dict(SocialAccount.objects.values_list("uid", "user"))
        assert set(uids) == {"1000000w0", "1000000w0@sipgate.de"}
        assert len(set(uids.values())) == 2
        assert SipgateToken.objects.get(connection__uid="1000000w0").number == 1


def test_trouble_at_the_token_endpoint(browser, failed):
    for fault, kind in [
        ("too-many", "unavailable"),
        ("lose-answer", "unavailable"),
        ("change", "unexpected"),
        ("invalid-grant", "expired"),
        ("unauthorized-client", "misconfigured"),
    ]:
        callback = browser.consent(browser.start())
        browser.sandbox.control.fault(fault, on="token", value={"access_token": None})
        failed(browser.site.get(callback), kind)


def test_trouble_with_the_identity(browser, failed):
    for fault, kind in [
        ("unauthorized", "needs_sign_in"),
        ("forbidden", "missing_permission"),
        ("unknown-error", "unavailable"),
        ("malformed-json", "unexpected"),
        ("change", "unexpected"),
    ]:
        callback = browser.consent(browser.start())
        browser.sandbox.control.fault(fault, on="userinfo", times=None, value={"masterSipId": None})
        failed(browser.site.get(callback), kind)
        browser.sandbox.control.clear()


def test_what_is_odd_but_usable_is_used(browser):
    for value in (
        {"refresh_token": None},
        {"scope": None},
        {"expires_in": "soon"},
        {"expires_in": -1},
    ):
        callback = browser.consent(browser.start())
        browser.sandbox.control.fault("change", on="token", value=value)
        assert browser.site.get(callback).headers["Location"] == "/account", value
        row = SipgateToken.objects.get()
        assert row.scope == "account:read"
        assert 299 < (row.expires_at - row.issued_at).total_seconds() < 301, value


class TestConfiguration:
    def test_no_client(self, browser, settings):
        settings.SOCIALACCOUNT_PROVIDERS = {}
        for response in (
            browser.site.post("/accounts/sipgate/login/"),
            browser.site.get("/oauth?code=x&state=y"),
        ):
            assert response.status_code == 503
            assert "client_id" in response.content.decode()

    def test_no_key(self, browser, failed, settings):
        callback = browser.consent(browser.start())
        settings.SIPGATE_TOKEN_KEYS, settings.DEBUG = (), False
        assert "SIPGATE_TOKEN_KEYS" in failed(browser.site.get(callback), "misconfigured")


class TestAccountPage:
    def test_trouble_is_told_with_the_last_known_data(self, browser, caplog):
        browser.sign_in()
        browser.site.get("/account")
        for fault, kind in [
            ("forbidden-text", "not_available"),
            ("malformed-json", "unexpected"),
            ("too-many", "unavailable"),
        ]:
            browser.sandbox.control.fault(fault, on="account", times=None, seconds=30)
            response = browser.site.get("/account")
            page, card = response.content.decode(), response.context["views"][0]
            assert (response.status_code, card.problem.kind) == (200, kind), fault
            assert (card.is_fresh, card.is_pending) == (False, False)
            assert "Rosenduft Gartenbau GmbH" in page
            assert card.problem.reference in page
            assert f"[{card.problem.reference}]" in caplog.text
            browser.sandbox.control.clear()

    def test_hanging_sipgate_does_not_hang_the_page(self, browser):
        browser.sign_in()
        browser.site.get("/account")
        browser.sandbox.control.fault("slow", on="account", seconds=4)
        response = browser.site.get("/account")
        assert response.context["views"][0].is_pending
        assert "Rosenduft Gartenbau GmbH" in response.content.decode()


def test_a_receiver_that_forbids_a_sign_up_leaves_nothing(browser, failed):
    def forbid(**_kwargs):
        raise PermissionDenied

    user_signed_up.connect(forbid)
    try:
        failed(browser.sign_in(), "unexpected")
    finally:
        user_signed_up.disconnect(forbid)


def test_two_tabs_that_sign_up_at_once(browser, another_browser, monkeypatch):
    """The loser begins again, and finds the winner's user."""
    real = oauth.SipgateOAuth2Adapter.complete_login

    def racing(self, *args, **kwargs):
        monkeypatch.setattr(oauth.SipgateOAuth2Adapter, "complete_login", real)
        another_browser.sign_in()
        raise IntegrityError

    monkeypatch.setattr(oauth.SipgateOAuth2Adapter, "complete_login", racing)
    begun = browser.sign_in(next_url="/?x=1").headers["Location"]
    assert browser.site.get(browser.consent(begun)).headers["Location"] == "/?x=1"
    assert User.objects.count() == 1


class TestWayOut:
    """Who is signed in here connects sipgate to this user; a sign-in would find or make another
    one.
    """

    def test_of_a_connection_that_ended(self, browser):
        browser.sign_in()
        browser.sandbox.control.kill_session()
        problem = browser.site.get("/account.json").json()
        action = problem.get("action") or problem["connections"][0]["problem"]["action"]
        assert "process=connect" in action
        begun = browser.site.post(action).headers["Location"]
        assert browser.site.get(browser.consent(begun)).status_code == 302
        assert SipgateToken.objects.get().state == "active"

    def test_of_an_old_callback_for_somebody_who_is_signed_in(self, browser):
        browser.sign_in()
        page = browser.site.get("/oauth?code=old&state=old")
        text = page.content.decode()
        assert page.status_code == 401
        assert "/accounts/sipgate/login/" not in text
        assert re.search(r'href="/account"[^>]*>\s*Continue\s*<', text)

    def test_of_a_sign_in_that_failed(self, browser):
        browser.sandbox.control.fault("unavailable", on="token", times=1)
        page = browser.sign_in().content.decode()
        assert "sipgate cannot be reached" in page
        [action] = set(re.findall(r'action="(/accounts/sipgate/login/[^"]*)"', page))
        begun = browser.site.post(action.replace("&amp;", "&")).headers["Location"]
        assert browser.site.get(browser.consent(begun)).headers["Location"] == "/account"


@pytest.fixture
def failed(browser: Browser, caplog: Any) -> Any:
    """Check an answer: our page, its reference is in the log, nothing was made."""

    def check(response: Any, kind: str) -> str:
        page = str(response.content.decode())
        assert response.status_code == 401, (kind, page)
        found = re.search(r"Reference: <code>([2-9A-HJ-NP-Z]{8})</code>", page)
        assert found, page
        assert f"[{found[1]}]: {kind}" in caplog.text
        for model in (User, SocialAccount, SipgateToken):
            assert model.objects.count() == 0
        return page

    return check
