"""Sign-up, sign-in, connect and disconnect, against the sandbox."""

from __future__ import annotations

import base64
import json
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount, SocialToken
from django.contrib.auth import get_user_model
from django.db import connections
from django.utils import timezone

from sipgate_provider import background, tokens
from sipgate_provider.adapter import SipgateSocialAccountAdapter
from sipgate_provider.client import TokenClient
from sipgate_provider.models import SipgateToken, TokenEvent
from sipgate_provider.remote import oauth
from sipgate_provider.sign_in.oauth import SipgateOAuth2Adapter
from tests.flows.conftest import AskFor
from tests.journey import Browser
from tests.raw_server import of_json, serving

User = get_user_model()


class TestAuthorizationRequest:
    def test_carries_state_pkce_scope_and_the_exact_redirect_uri(self, browser):
        query = parse_qs(urlsplit(browser.start()).query)
        assert query["redirect_uri"] == ["http://localhost:8080/oauth"]
        assert query["scope"] == ["account:read"]
        assert query["code_challenge_method"] == ["S256"]
        assert query["response_type"] == ["code"]
        assert query["state"]
        assert "client_secret" not in query

    def test_a_crafted_link_cannot_widen_it(self, browser):
        url = browser.start(query="&scope=all&auth_params=redirect_uri%3Dhttp://evil.example")
        query = parse_qs(urlsplit(url).query)
        assert query["scope"] == ["account:read"]
        assert query["redirect_uri"] == ["http://localhost:8080/oauth"]

    def test_another_host_name_is_sent_to_the_one_of_the_redirect_uri(self, browser):
        response = browser.site.get("/accounts/login/?x=1", headers={"host": "127.0.0.1:8080"})
        assert response.headers["Location"] == "http://localhost:8080/accounts/login/?x=1"
        response = browser.site.post("/accounts/sipgate/login/", headers={"host": "127.0.0.1:8080"})
        assert response.headers["Location"] == "http://localhost:8080/accounts/sipgate/login/"


class TestSignUp:
    def test_creates_user_connection_and_sealed_token(self, browser):
        response = browser.sign_in()
        assert (response.status_code, response.headers["Location"]) == (302, "/account")
        user = User.objects.get()
        assert (user.username, user.email) == ("sipgate-1000000w0", "")
        assert not user.has_usable_password()
        connection = SocialAccount.objects.get()
        assert (connection.uid, connection.user) == ("1000000w0", user)
        row = SipgateToken.objects.get()
        assert (row.number, row.state, row.scope) == (1, "active", "account:read")
        assert row.product_line == "CLASSIC_PBX"
        assert row.refresh_expires_at is not None
        assert row.issuer.endswith("/realms/third-party")
        assert SocialToken.objects.count() == 0
        assert tokens.token(connection).value not in row.sealed
        assert list(TokenEvent.objects.values_list("kind", flat=True)) == ["connected"]

    def test_a_mail_server_that_is_away_stops_nobody(self, browser, settings, caplog):
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
        words = "correct horse battery"
        form = {
            "username": "rosa",
            "email": "r@example.org",
            "password1": words,
            "password2": words,
        }
        assert browser.site.post("/accounts/signup/", form).headers["Location"] == "/account"
        assert background.errands.wait_idle(10)
        assert "ConnectionRefusedError" in caplog.text

    def test_tables_of_allauth_hold_no_token_either(self, browser, settings):
        settings.SOCIALACCOUNT_STORE_TOKENS = True
        browser.sign_in()
        access = tokens.token(SocialAccount.objects.get()).value
        stored = SocialToken.objects.get()
        assert stored.token
        assert access not in stored.token + stored.token_secret

    def test_a_form_that_waits_while_the_key_is_lost(self, browser, settings):
        settings.SOCIALACCOUNT_AUTO_SIGNUP = False
        form = browser.sign_in().headers["Location"]
        settings.SIPGATE_TOKEN_KEYS = [base64.urlsafe_b64encode(b"another key".ljust(32)).decode()]
        assert browser.site.post(form, {"username": "rosa"}).headers["Location"] == "/account"
        assert "Sign in again" in browser.site.get("/account").content.decode()
        browser.sign_in()
        assert SipgateToken.objects.get().state == "active"

    def test_the_language_that_was_chosen_here_is_remembered(self, browser):
        browser.site.post("/i18n/setlang/", {"language": "en"})
        browser.sign_in()
        assert SocialAccount.objects.get().extra_data["language"] == "en"

    def test_openid_connect_may_say_that_the_address_is_verified(self, browser, ask_for):
        ask_for("account:read", "openid", "email")
        browser.sign_in()
        assert EmailAddress.objects.get().verified
        assert browser.asked("token") == 1
        assert browser.asked("GET v2/users/<user_id>") == 0

    def test_who_is_found_by_email_only_connects_nothing(self, browser, ask_for, settings):
        ask_for("account:read", "openid", "email")
        settings.SOCIALACCOUNT_EMAIL_AUTHENTICATION = True
        user = User.objects.create_user("rosa", email="rosa@rosenduft.example")
        user.emailaddress_set.create(email=user.email, verified=True, primary=True)
        assert browser.sign_in().headers["Location"] == "/account"
        assert not SocialAccount.objects.exists()
        assert background.errands.wait_idle(10)
        assert browser.sandbox.control.state()["sessions_alive"] == 0, "what was granted is ended"

    def test_nothing_but_true_means_verified(self, settings, rf):
        """With email authentication of allauth's, it opens the account that has the address."""
        with serving(of_json({"sub": "w0", "masterSipId": 1})) as server:
            settings.SIPGATE_API_URL = server.url
            for said in ("false", "true", 1, None):
                claims = {"email": "rosa@rosenduft.example", "email_verified": said}
                payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
                new = oauth.Tokens(
                    access_token="at",
                    id_token=f"e30.{payload}.x",
                    scope=("openid",),
                    issued_at=timezone.now(),
                )
                identity = SipgateOAuth2Adapter(rf.get("/oauth")).identity(new)
                assert "email_verified" not in identity, said

    @pytest.mark.parametrize("atomic", [True, False])
    def test_no_transaction_or_connection_is_held_while_sipgate_is_asked(
        self, browser, monkeypatch, atomic
    ):
        database, seen = connections["default"], []

        def watched(real):
            def ask(*args, **kwargs):
                # SQLite's connection stays: nobody waits for it.
                is_returned = database.connection is None or database.vendor == "sqlite"
                seen.append(is_returned and not database.in_atomic_block)
                return real(*args, **kwargs)

            return ask

        for owner, name in ((oauth, "exchange_code"), (TokenClient, "identity")):
            monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
        callback = browser.consent(browser.start())
        for options in (database.settings_dict, connections.settings["default"]):
            monkeypatch.setitem(options, "ATOMIC_REQUESTS", atomic)
            monkeypatch.setitem(options, "CONN_MAX_AGE", 0)
        assert browser.site.get(callback).headers["Location"] == "/account"
        assert seen == [True, True]

    def test_a_colleague_without_rights_signs_in_without_a_name(self, browser, ask_for):
        ask_for("account:read", "users:read")
        browser.sandbox.control.fault("forbidden", on="users")
        browser.sign_in(person="1000000w1")
        assert User.objects.get().username == "sipgate-1000000w1"


class TestSecondSignIn:
    def test_is_the_same_user_with_new_tokens_and_ends_nothing(self, browser, another_browser):
        browser.sign_in()
        first = SipgateToken.objects.get()
        browser.site.post("/accounts/logout/")
        for number, one in ((2, browser), (3, another_browser)):  # one session at sipgate, or two
            one.sign_in()
            row = SipgateToken.objects.get()
            assert (User.objects.count(), row.number) == (1, number)
            assert row.consent != first.consent
            assert background.errands.wait_idle(10)
            assert not {"revoke", "logout"} & set(browser.sandbox.control.state())
            assert one.site.get("/account.json").json()["connections"][0]["fresh"]

    def test_several_tabs_can_be_open(self, browser):
        one, other = browser.start(), browser.start()
        assert browser.site.get(browser.consent(other)).status_code == 302
        assert browser.site.get(browser.consent(one)).status_code == 302
        assert User.objects.count() == 1


class TestNothingIsNarrowed:
    """A sign-in asks for the configured scopes; the user had allowed more."""

    @pytest.fixture
    def wide(self, browser: Browser, ask_for: AskFor) -> Browser:
        ask_for("account:read", "numbers:read")
        browser.sign_in()
        ask_for("account:read")
        return browser

    def test_a_living_connection_keeps_its_tokens(self, wide):
        for process in ("login", "connect"):
            assert wide.sign_in(process=process).status_code == 302
            row = SipgateToken.objects.get()
            assert (row.number, set(row.scopes)) == (1, {"account:read", "numbers:read"})
        assert tokens.refresh(row.connection).state == "active"

    def test_one_that_needs_a_sign_in_takes_what_comes(self, wide):
        SipgateToken.objects.update(state="needs_sign_in", reason="rejected")
        wide.sign_in()
        row = SipgateToken.objects.get()
        assert (row.state, row.scope) == ("active", "account:read")

    def test_what_was_asked_for_and_not_granted_is_denied(self, wide, ask_for):
        ask_for("account:read", "numbers:read")
        callback = wide.consent(wide.start())
        wide.sandbox.control.fault("change", on="token", value={"scope": "account:read"})
        wide.site.get(callback)
        assert SipgateToken.objects.get().number == 2


class TestClosedSignUp:
    @pytest.fixture(autouse=True)
    def _closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(SipgateSocialAccountAdapter, "is_open_for_signup", lambda *_args: False)

    def test_what_a_stranger_granted_is_ended(self, browser):
        answer = browser.sign_in()
        assert "account/signup_closed.html" in [one.name for one in answer.templates]
        assert not User.objects.exists()
        assert background.errands.wait_idle(10)
        assert browser.sandbox.control.state()["sessions_alive"] == 0

    def test_a_known_user_signs_in(self, local):
        local.sign_in(process="connect")
        local.site.post("/accounts/logout/")
        assert local.sign_in().headers["Location"] == "/account"


class TestConnect:
    def test_one_user_with_several(self, local, another_browser):
        local.sign_in(process="connect")
        another_browser.site = local.site
        another_browser.sign_in(process="connect", person="2000000w0")
        connections = SocialAccount.objects.filter(user=User.objects.get())
        assert {one.uid for one in connections} == {"1000000w0", "2000000w0"}
        assert len(local.site.get("/account.json").json()["connections"]) == 2

    def test_an_anonymous_redirect_changes_nothing(self, browser, another_browser):
        browser.sign_in()
        another_browser.sign_in(process="redirect", next_url="/")
        assert SipgateToken.objects.get().number == 1

    def test_a_disconnect_forgets_the_tokens_and_ends_access_at_sipgate(self, local):
        local.sign_in(process="connect")
        local.site.post("/accounts/3rdparty/", {"account": SocialAccount.objects.get().pk})
        assert not SipgateToken.objects.exists()
        assert background.errands.wait_idle(10)
        assert local.asked("revoke") == 1
        kinds = TokenEvent.objects.order_by("id").values_list("kind", flat=True)
        assert [*kinds] == ["connected", "disconnected", "ending"]


def test_without_a_connection_the_account_page_says_so(browser):
    assert browser.site.get("/account.json").status_code == 401
    browser.log_in(User.objects.create_user("nobody"))
    response = browser.site.get("/account.json")
    assert response.status_code == 403
    assert response.headers["Content-Type"] == "application/problem+json"
    assert browser.site.get("/account").status_code == 200
