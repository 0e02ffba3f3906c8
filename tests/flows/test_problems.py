"""Whatever goes wrong on the way: a page that says what to do, a reference in the log, no half-made user."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model

from sipgate_provider.models import SipgateToken
from tests.journey import Browser

User = get_user_model()


def reference_of(page: str) -> str:
    found = re.search(r"Reference: <code>([2-9A-HJ-NP-Z]{8})</code>", page)
    assert found, page
    return found[1]


@pytest.fixture
def failed(browser: Browser, caplog):
    """Check an answer: our page, its reference is in the log, nothing was made."""

    def check(response, *, kind: str, status: int = 401) -> str:
        page = response.content.decode()
        assert response.status_code == status, page
        assert f"[{reference_of(page)}]: {kind}" in caplog.text
        assert User.objects.count() == 0
        assert SocialAccount.objects.count() == 0
        assert SipgateToken.objects.count() == 0
        return page

    return check


def test_the_api_is_elsewhere_since(
    browser: Browser, settings, caplog: pytest.LogCaptureFixture
) -> None:
    browser.sign_in()
    settings.SIPGATE_API_URL = f"{browser.sandbox.url}/wrong"
    page = browser.site.get("/account").content.decode()
    assert "check SIPGATE_API_URL." in page
    assert f"[{reference_of(page)}]: misconfigured" in caplog.text


class TestCallback:
    def test_consent_denied(self, browser: Browser, failed) -> None:
        page = failed(
            browser.site.get(browser.consent(browser.start(), allow=False)), kind="denied"
        )
        assert "Sign in with sipgate" in page

    def test_state_of_another_browser(
        self, browser: Browser, another_browser: Browser, failed
    ) -> None:
        failed(another_browser.site.get(browser.consent(browser.start())), kind="state")

    def test_bare_callback(self, browser: Browser, failed) -> None:
        failed(browser.site.get("/oauth"), kind="state")

    def test_slash_is_not_added(self, browser: Browser) -> None:
        assert browser.site.get("/oauth/").status_code == 404

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            ("invalid_scope", "misconfigured"),
            ("unauthorized_client", "misconfigured"),
            ("server_error", "unavailable"),
            ("temporarily_unavailable", "unavailable"),
            ("login_required", "needs_sign_in"),
            ("something_new", "unexpected"),
        ],
    )
    def test_error_codes(self, browser: Browser, failed, error: str, kind: str) -> None:
        state = parse_qs(urlsplit(browser.start()).query)["state"][0]
        url = f"/oauth?state={state}&error={error}&error_description=%3Cb%3Ewhy%3C/b%3E%0Anot"
        page = failed(browser.site.get(url), kind=kind)
        assert "&lt;b&gt;why&lt;/b&gt;" in page
        assert "<b>why" not in page

    @pytest.mark.parametrize("place", ["/wrong", "/v2/account", "/auth"])
    def test_an_api_that_is_elsewhere(
        self, browser: Browser, failed, settings, caplog: pytest.LogCaptureFixture, place: str
    ) -> None:
        settings.SIPGATE_API_URL = f"{browser.sandbox.url}{place}"
        page = failed(browser.site.get(browser.consent(browser.start())), kind="misconfigured")
        assert "check SIPGATE_API_URL." in page
        assert "SIPGATE_API_URL is not the API&#x27;s address" not in page
        assert caplog.text.count("SIPGATE_API_URL is not the API's address") == 1

    def test_unknown_scope_comes_back_from_sipgate(
        self, browser: Browser, failed, settings
    ) -> None:
        app = settings.SOCIALACCOUNT_PROVIDERS["sipgate"]["APPS"]
        settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {"APPS": app, "SCOPE": ["no:such:scope"]}}
        location = requests.get(browser.start(), allow_redirects=False, timeout=5).headers[
            "Location"
        ]
        if "/login" in location:
            browser.sipgate.get(f"{browser.sandbox.url}{location}", timeout=5)
            location = browser.consent(browser.start())
        page = failed(browser.site.get(location), kind="misconfigured")
        assert "SIPGATE_SCOPE" in page

    def test_answer_of_another_issuer(self, browser: Browser, failed, caplog) -> None:
        callback = browser.consent(browser.start())
        answer = browser.site.get(
            re.sub(r"iss=[^&]*", "iss=https://evil.example/auth<b>", callback)
        )
        page = failed(answer, kind="misconfigured")
        expected = browser.sandbox.oidc_url.partition("/protocol/")[0]
        for text in (page, caplog.text):
            assert "https://evil.example/auth" in text
            assert expected in text
            assert "SIPGATE_AUTH_URL" in text
        assert "<b>" not in page
        assert browser.sandbox.control.state().get("token", 0) == 0

    def test_a_set_issuer_is_what_is_named(self, browser: Browser, failed, settings) -> None:
        settings.SIPGATE_ISSUER = "https://login.example.org/realm"
        page = failed(browser.site.get(browser.consent(browser.start())), kind="misconfigured")
        assert "SIPGATE_ISSUER" in page

    @pytest.mark.parametrize("state", ["", "&state=unknown"])
    def test_a_cancelled_sign_in_is_one_even_if_its_state_is_unknown(
        self, browser: Browser, failed, state
    ) -> None:
        failed(browser.site.get(f"/oauth?error=access_denied{state}"), kind="denied")

    def test_known_id_from_another_region(self, browser: Browser, another_browser: Browser) -> None:
        browser.sign_in()
        SocialAccount.objects.update(extra_data={"domain": "sipgate.co.uk"})
        response = another_browser.sign_in()
        assert response.status_code == 401
        assert SocialAccount.objects.get().extra_data == {"domain": "sipgate.co.uk"}
        assert SipgateToken.objects.get().generation == 1


TOKEN_FAULTS = [
    ("unknown-error", "unavailable"),
    ("bad-gateway", "unavailable"),
    ("unavailable", "unavailable"),
    ("too-many", "unavailable"),
    ("lose-answer", "unavailable"),
    ("malformed-json", "unexpected"),
    ("json-list", "unexpected"),
    ("null-access-token", "unexpected"),
    ("huge", "unexpected"),
    ("redirect", "misconfigured"),
    ("invalid-grant", "expired"),
    ("invalid-client", "misconfigured"),
    ("unauthorized-client", "misconfigured"),
]


class TestTokenEndpoint:
    @pytest.mark.parametrize(("fault", "kind"), TOKEN_FAULTS)
    def test_trouble_becomes_a_page(self, browser: Browser, failed, fault: str, kind: str) -> None:
        callback = browser.consent(browser.start())
        browser.sandbox.control.fault(fault, on="token")
        failed(browser.site.get(callback), kind=kind)

    @pytest.mark.parametrize(
        "fault",
        ["null-refresh-token", "no-refresh-token", "no-scope-field"],
    )
    def test_what_is_odd_but_usable_is_used(self, browser: Browser, fault: str) -> None:
        callback = browser.consent(browser.start())
        browser.sandbox.control.fault(fault, on="token")
        assert browser.site.get(callback).headers["Location"] == "/account"
        assert SipgateToken.objects.get().scope == "account:read"

    @pytest.mark.parametrize("value", ["300.5", "soon", -1, 0, None, True])
    def test_odd_lifetimes_are_taken_as_unknown(self, browser: Browser, value) -> None:
        callback = browser.consent(browser.start())
        browser.sandbox.control.fault("odd-expires", on="token", value=value)
        assert browser.site.get(callback).headers["Location"] == "/account"
        row = SipgateToken.objects.get()
        assert 299 < (row.expires_at - row.issued_at).total_seconds() < 301


IDENTITY_FAULTS = [
    ("unauthorized", "needs_sign_in"),
    ("forbidden", "missing_permission"),
    ("forbidden-text", "not_available"),
    ("unknown-error", "unavailable"),
    ("bad-gateway", "unavailable"),
    ("malformed-json", "unexpected"),
    ("json-list", "unexpected"),
    ("missing-sub", "unexpected"),
    ("missing-master", "unexpected"),
    ("huge", "unexpected"),
]


class TestIdentity:
    @pytest.mark.parametrize(("fault", "kind"), IDENTITY_FAULTS)
    def test_trouble_becomes_a_page(self, browser: Browser, failed, fault: str, kind: str) -> None:
        callback = browser.consent(browser.start())
        browser.sandbox.control.fault(fault, on="userinfo", times=None)
        failed(browser.site.get(callback), kind=kind)


class TestConfiguration:
    def test_no_client(self, browser: Browser, settings) -> None:
        settings.SOCIALACCOUNT_PROVIDERS = {}
        response = browser.site.post("/accounts/sipgate/login/")
        assert response.status_code == 503
        assert "client_id" in response.content.decode()

    def test_wrong_secret(self, browser: Browser, failed, settings) -> None:
        app = {**settings.SOCIALACCOUNT_PROVIDERS["sipgate"]["APPS"][0], "secret": "wrong"}
        settings.SOCIALACCOUNT_PROVIDERS = {"sipgate": {"APPS": [app]}}
        page = failed(browser.site.get(browser.consent(browser.start())), kind="misconfigured")
        assert "secret in SOCIALACCOUNT_PROVIDERS" in page

    def test_unknown_client_and_redirect_uri_are_told_by_sipgate(self, browser: Browser) -> None:
        url = browser.start()
        wrong = requests.get(url.replace("1000000-1-sandbox", "0000000-0-nobody"), timeout=5)
        assert (wrong.status_code, "Client not found" in wrong.text) == (400, True)
        wrong = requests.get(url.replace("%2Foauth", "%2Foauth%2F"), timeout=5)
        assert (wrong.status_code, "redirect_uri" in wrong.text) == (400, True)


class TestAccountPage:
    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            ("forbidden", "not_available"),
            ("forbidden-text", "not_available"),
            ("unknown-error", "unavailable"),
            ("malformed-json", "unexpected"),
            ("json-list", "unexpected"),
            ("bad-gateway", "unavailable"),
            ("too-many", "unavailable"),
        ],
    )
    def test_trouble_is_told_with_the_last_known_data(
        self, browser: Browser, fault: str, kind: str
    ) -> None:
        browser.sign_in()
        browser.site.get("/account")
        # a Retry-After beyond the deadline: the answer is taken as it is
        browser.sandbox.control.fault(fault, on="account", times=None, seconds=30)
        response = browser.site.get("/account")
        page = response.content.decode()
        assert response.status_code == 200
        card = response.context["cards"][0]
        assert (card.problem.kind, card.view.is_fresh, card.view.is_pending) == (kind, False, False)
        assert "Rosenduft Gartenbau GmbH" in page
        assert card.problem.reference in page

    def test_hanging_sipgate_does_not_hang_the_page(self, browser: Browser) -> None:
        import time

        browser.sign_in()
        browser.site.get("/account")
        browser.sandbox.control.fault("slow", on="account", seconds=4)
        started = time.monotonic()
        response = browser.site.get("/account")
        assert time.monotonic() - started < 1.5
        assert response.context["cards"][0].view.is_pending
        assert "Rosenduft Gartenbau GmbH" in response.content.decode()

    def test_ended_session_asks_for_one_click(self, browser: Browser) -> None:
        browser.sign_in()
        browser.sandbox.control.kill_session()
        assert browser.site.get("/account").context["cards"][0].view.needs_sign_in
        assert SipgateToken.objects.get().state == "needs_sign_in"
        browser.sign_in(process="connect")
        row = SipgateToken.objects.get()
        assert (row.state, row.generation) == ("active", 2)

    def test_json_errors_are_problem_documents(self, browser: Browser) -> None:
        browser.sign_in()
        browser.sandbox.control.fault("unknown-error", on="account", times=None)
        response = browser.site.get("/account.json")
        assert (response.status_code, response.headers["Content-Type"]) == (
            503,
            "application/problem+json",
        )
        assert response.json()["type"].endswith(":unavailable")


class TestConcurrentFirstSignIn:
    def test_lost_race_ends_as_a_sign_in(
        self, browser: Browser, another_browser: Browser, monkeypatch
    ) -> None:
        """Two tabs make the same user at once: the loser finds the winner's on its second look."""
        from django.db import IntegrityError

        from sipgate_provider.sign_in import views

        callback = browser.consent(browser.start())
        racing = _once_racing(
            views.complete_social_login, another_browser, IntegrityError, monkeypatch, views
        )
        monkeypatch.setattr(views, "complete_social_login", racing)
        assert browser.site.get(callback).headers["Location"] == "/account"
        assert User.objects.count() == 1


def _once_racing(real, other: Browser, error: type[Exception], monkeypatch, module):
    def first(request, login):
        monkeypatch.setattr(module, "complete_social_login", real)
        other.sign_in()
        raise error

    return first


class TestWayOut:
    """Who is signed in here links sipgate to this user; a sign-in would find or make another one."""

    def test_of_a_user_without_a_connection(self, browser: Browser) -> None:
        user = User.objects.create_user("local", password="correct horse battery")
        browser.site.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
        action = browser.site.get("/account.json").json()["action"]
        assert (
            browser.site.get(
                browser.consent(browser.site.post(action).headers["Location"])
            ).status_code
            == 302
        )
        assert SocialAccount.objects.get().user == user
        assert User.objects.count() == 1

    def test_of_a_connection_that_ended(self, browser: Browser) -> None:
        browser.sign_in()
        browser.sandbox.control.kill_session()
        problem = browser.site.get("/account.json").json()
        action = problem.get("action") or problem["connections"][0]["problem"]["action"]
        assert "process=connect" in action
        assert (
            browser.site.get(
                browser.consent(browser.site.post(action).headers["Location"])
            ).status_code
            == 302
        )
        assert SipgateToken.objects.get().state == "active"


def test_an_old_callback_leads_somebody_who_is_signed_in_to_their_page(browser: Browser) -> None:
    browser.sign_in()
    page = browser.site.get("/oauth?code=old&state=old")
    assert page.status_code == 401
    assert "/accounts/sipgate/login/" not in page.content.decode()
    assert re.search(r'href="/account"[^>]*>Continue<', re.sub(r"\s+", " ", page.content.decode()))


def test_a_failed_sign_in_can_be_tried_again_with_one_click(browser: Browser) -> None:
    browser.sandbox.control.fault("unavailable", on="token", times=1)
    page = browser.sign_in().content.decode()
    assert "sipgate cannot be reached" in page
    [action] = set(re.findall(r'action="(/accounts/sipgate/login/[^"]*)"', page))
    callback = browser.consent(browser.site.post(action.replace("&amp;", "&")).headers["Location"])
    assert browser.site.get(callback).headers["Location"] == "/account"


class TestReference:
    """Somebody who meets the same trouble again reads the same reference, and the log has it."""

    def test_of_a_page_that_is_reloaded(self, browser: Browser, caplog) -> None:
        browser.sign_in()
        browser.sandbox.control.fault("unavailable", on="account", times=None)
        SipgateToken.objects.update(scope="account:read numbers:read")
        browser.sandbox.control.fault("unavailable", on="api", times=None)
        found = {
            reference_of(browser.site.get("/account/numbers").content.decode()) for _ in range(3)
        }
        assert len(found) == 1
        (reference,) = found
        assert caplog.text.count(f"[{reference}]") == 1
        page = browser.site.get("/account")
        assert reference_of(page.content.decode()) == reference, (
            "of one connection, so it is the same incident"
        )
        assert browser.site.get("/account.json").json()["reference"] == reference
        assert caplog.text.count(f"[{reference}]") == 2, "once for each cause"

    def test_is_another_one_when_it_was_over(self, browser: Browser) -> None:
        browser.sign_in()
        found = []
        for _ in range(2):
            browser.sandbox.control.fault("unavailable", on="account", times=None)
            found.append(reference_of(browser.site.get("/account").content.decode()))
            browser.sandbox.control.clear()
            browser.site.get("/account")
        assert found[0] != found[1]

    def test_of_a_request_that_is_refused_outlives_an_account_that_works(
        self, browser: Browser
    ) -> None:
        browser.sign_in()
        SipgateToken.objects.update(scope="account:read numbers:read")
        found = set()
        for _ in range(2):
            browser.sandbox.control.fault("forbidden", on="api")
            found.add(reference_of(browser.site.get("/account/numbers").content.decode()))
            browser.site.get("/account")
        assert len(found) == 1

    @pytest.mark.parametrize(
        "callback", ["/oauth", "/oauth?code=old&state=old", "/oauth?error=access_denied&state=x"]
    )
    def test_of_a_callback_that_nobody_began(
        self, browser: Browser, another_browser: Browser, callback: str
    ) -> None:
        found = [reference_of(browser.site.get(callback).content.decode()) for _ in range(2)]
        assert found[0] == found[1]
        somebody = another_browser.site.get(callback, headers={"user-agent": "another browser"})
        assert reference_of(somebody.content.decode()) != found[0]

    def test_of_a_sign_in_that_is_tried_again(self, browser: Browser, caplog) -> None:
        browser.sandbox.control.fault("unavailable", on="token", times=None)
        found = {reference_of(browser.sign_in().content.decode()) for _ in range(2)}
        assert len(found) == 1
        assert caplog.text.count(f"[{found.pop()}]") == 2
