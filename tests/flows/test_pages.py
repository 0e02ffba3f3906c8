"""The pages: nobody meets an error by going back, names instead of numbers, ways out."""

import html
import json
import re
from urllib.parse import quote

import pytest
from allauth.account.models import EmailAddress
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.contrib.auth import get_user_model
from django.urls import get_resolver, reverse

from sipgate_provider import background, connections
from sipgate_provider.models import Ending, Reason, SipgateToken, State, TokenEvent
from tests.journey import text_of, visitor


class TestNames:
    def test_people_are_greeted_by_their_name(self, browser, ask_for):
        ask_for("account:read", "users:read")
        page = text_of(browser.site.get(browser.sign_in().headers["Location"]))
        assert "You are signed in as Rosa Gärtner." in page
        assert browser.site.get("/").headers["Location"] == "/account"
        assert "Hello, Rosa" in text_of(browser.site.get("/account"))

    def test_a_made_up_user_name_is_shown_to_nobody(self, browser):
        first = browser.sign_in().headers["Location"]
        others = ("/account", "/accounts/3rdparty/", "/accounts/email/", "/accounts/settings/")
        for path in (first, *others):
            page = text_of(browser.site.get(path))
            assert "sipgate-1000000w0" not in page, path
            assert "Rosenduft Gartenbau GmbH" in page, path

    def test_name_is_the_company_then_the_person_then_a_readable_id(self, browser):
        browser.sign_in(person="3000000w0")  # has no company
        connection = SocialAccount.objects.get()
        assert connections.name_of(connection) == "sipgate account 3000000w0"
        connection.extra_data |= {"firstname": "Petra", "lastname": "Privat"}
        assert connections.name_of(connection) == "Petra Privat"

    def test_no_message_greets_anybody_by_a_number(self, browser):
        first = text_of(browser.site.get(browser.sign_in(person="3000000w0").headers["Location"]))
        assert " You are signed in. " in first
        browser.sign_in(person="3000000w0", process="connect")
        again = text_of(browser.site.get("/accounts/settings/"))
        assert " sipgate is connected. " in again
        header = browser.site.get("/").content.decode().partition("<main")[0]
        assert "3000000w0" not in again + header

    def test_a_message_names_what_was_connected(self, browser):
        browser.sign_in(person="2000000w0")
        browser.site.get("/account")
        browser.sign_in(person="2000000w0", process="connect")
        assert "Schraube & Mutter KG is connected." in text_of(browser.site.get("/account"))

    def test_no_python_on_a_page(self, browser):
        browser.sign_in(person="8000000w0")  # has fields that are newer than this code
        page = text_of(browser.site.get("/account"))
        assert " new " in page
        assert "['" not in page


class TestComingBack:
    def test_an_address_for_a_form_leads_to_its_page(self, browser):
        browser.sign_in()
        here = f"/account/{SocialAccount.objects.get().pk}"
        for path, page in (
            ("/account/refresh", "/account"),
            ("/account/try", "/account"),
            (f"{here}/end-access", here),
        ):
            assert browser.site.get(path).headers["Location"] == page

    @pytest.mark.parametrize("is_signed_in", [True, False])
    def test_every_address_can_be_opened(self, browser, is_signed_in):
        """Whatever is bookmarked or restored: a page or the way to one, never an empty answer."""
        if is_signed_in:
            browser.sign_in()
        known = get_resolver().reverse_dict
        plain = [name for name in known if isinstance(name, str) and not known[name][0][0][1]]
        addresses = {reverse(name) for name in plain}
        assert {"/account/refresh", "/account/try", "/i18n/setlang/", "/oauth"} <= addresses
        for address in sorted(addresses - {"/livez", "/readyz", "/metrics"}):
            answer = browser.site.get(address)
            assert answer.status_code in {200, 302, 401, 403, 404, 429}, address
            assert answer.status_code == 302 or b"".join(answer), address

    def test_who_had_to_sign_in_comes_back_to_the_page(self, browser):
        for query, where in (("", "/account"), ("?next=/admin/", "/admin/")):
            page = browser.site.get(f"/accounts/login/{query}").content.decode()
            assert f'/sipgate/login/?process=login&amp;next={quote(where, safe="")}"' in page

    def test_refresh_answers_with_a_redirect_and_tells_once(self, browser):
        browser.sign_in()
        pk = SocialAccount.objects.get().pk
        response = browser.site.post("/account/refresh", {"connection": pk})
        assert response.headers["Location"] == f"/account#connection-{pk}"
        assert "version 1 → 2" in text_of(browser.site.get("/account"))
        assert "version 1 → 2" not in text_of(browser.site.get("/account"))

    def test_somebody_elses_connection_is_not_there(self, browser, another_browser):
        browser.sign_in()
        another_browser.sign_in(person="2000000w0")
        pk = SocialAccount.objects.get(uid="1000000w0").pk
        assert another_browser.site.get(f"/account/{pk}").status_code == 404
        for path in (f"/account/{pk}/end-access", "/account/refresh"):
            assert another_browser.site.post(path, {"connection": pk}).status_code == 404
        assert SipgateToken.objects.get(pk=pk).state == State.ACTIVE


class TestTrouble:
    def test_the_action_is_in_the_alert_and_refresh_is_not_offered(self, browser):
        browser.sign_in()
        browser.site.get("/account")
        SipgateToken.objects.update(state=State.NEEDS_SIGN_IN, reason=Reason.REJECTED)
        page = browser.site.get("/account").content.decode()
        alert = page.split('class="alert alert-error"')[1].split("</dl>")[0]
        assert "Sign in again" in alert
        assert "Reason: sipgate rejected it." in alert
        assert "/account/refresh" not in page

    def test_refresh_now_reaches_sipgate_six_times_a_minute(self, browser):
        browser.sign_in()
        form = {"connection": SocialAccount.objects.get().pk}
        answers = [browser.site.post("/account/refresh", form) for _ in range(8)]
        assert [answer.status_code for answer in answers] == [302] * 6 + [429] * 2
        assert "Too many attempts" in text_of(answers[-1])
        assert SipgateToken.objects.get().number == 7


class TestLeaving:
    def test_choices_are_told_beforehand(self, browser):
        browser.sign_in()
        page = text_of(browser.site.get(f"/account/{SocialAccount.objects.get().pk}"))
        for choice in (
            "Set a password and disconnect",
            "End access, and keep",
            "Delete your account",
        ):
            assert choice in page
        assert "Disconnect now" not in page, "it would be rejected"

    def test_the_list_of_connections_says_why_it_removes_none(self, browser):
        browser.sign_in()
        nothing, last = {}, {"account": SocialAccount.objects.get().pk}
        for form, why in ((nothing, "This field is required."), (last, "has no password.")):
            assert why in text_of(browser.site.post("/accounts/3rdparty/", form))
        assert SocialAccount.objects.exists()

    def test_ended_access_stays_ended_at_the_next_sign_in(self, browser):
        browser.sign_in()
        browser.site.get("/account")
        pk = SocialAccount.objects.get().pk
        assert browser.site.post(f"/account/{pk}/end-access").status_code == 302
        background.errands.wait_idle(10)
        assert browser.sandbox.control.state()["sessions_alive"] == 0
        browser.site.post("/accounts/logout/")
        browser.sign_in()
        background.errands.wait_idle(10)
        row = SipgateToken.objects.get()
        assert (row.sealed, row.reason) == ("", Reason.ENDED_BY_USER)
        assert browser.sandbox.control.state()["sessions_alive"] == 0, "a sign-in keeps no grant"
        page = text_of(browser.site.get("/account"))
        assert "You use this connection only to sign in." in page
        assert "needs you to sign in again" not in text_of(browser.site.get("/accounts/email/"))

    def test_export_tells_everything_and_no_secret(self, browser):
        browser.sign_in()
        browser.site.get("/account")
        response = browser.site.get("/accounts/export")
        assert response.headers["Content-Disposition"].startswith("attachment")
        data = response.json()
        assert data["accounts"][0]["data"]["company"] == "Rosenduft Gartenbau GmbH"
        assert data["sessions"][0]["ip"] == "127.0.0.1"
        assert [event["kind"] for event in data["history"]] == ["connected"]
        written = json.dumps(data)
        assert browser.site.session.session_key not in written

    def test_delete_asks_first(self, browser):
        browser.sign_in()
        assert browser.site.get("/accounts/delete").status_code == 200
        assert browser.site.post("/accounts/delete").status_code == 200
        assert get_user_model().objects.count() == 1

    def test_delete_removes_everything_and_ends_the_grant(self, browser, another_browser):
        browser.sign_in()
        another_browser.sign_in()
        browser.site.get("/account")
        response = browser.site.post("/accounts/delete", {"sure": "on"})
        assert (response.status_code, response.headers["Location"]) == (302, "/")
        assert "Your account was deleted." in text_of(browser.site.get("/"))
        assert another_browser.site.get("/account").status_code == 302, "all sessions ended"
        background.errands.wait_idle(10)
        for model in (get_user_model(), SocialAccount, SipgateToken, UserSession, EmailAddress):
            assert not model.objects.exists(), model
        kinds = list(TokenEvent.objects.values_list("kind", flat=True))
        assert {"connected", "disconnected"} <= set(kinds)
        assert set(TokenEvent.objects.values_list("uid", "user")) == {("", None)}
        assert "ending" in kinds

    def test_who_has_a_password_is_asked_for_it(self, db):
        client = visitor(get_user_model().objects.create_user("erika", password="right"))
        for password, status in (("wrong", 200), ("right", 302)):
            answer = client.post("/accounts/delete", {"sure": "on", "password": password})
            assert answer.status_code == status
        assert not Ending.objects.exists()


class TestAnotherAccount:
    def test_a_further_connection_needs_another_account_at_sipgate(self, browser):
        """Who is signed in at sipgate would come back with the account that is connected."""
        for title in ("Connect sipgate", "Use another sipgate account"):
            browser.log_in(get_user_model().objects.get_or_create(username="somebody")[0])
            page = browser.site.get("/accounts/3rdparty/").content.decode()
            [address] = re.findall(r'action="(/accounts/sipgate/login/[^"]*)"', page)
            assert title in text_of(browser.site.get(html.unescape(address)))
            browser.sign_in(process="connect")


class TestBelongsToAnotherUser:
    def test_names_the_company_and_offers_two_ways(self, browser, another_browser):
        browser.sign_in(person="2000000w0")
        browser.site.get("/account")
        another_browser.sign_in()
        begun = another_browser.start(process="connect", next_url="/account", query="&prompt=login")
        response = another_browser.site.get(another_browser.consent(begun, person="2000000w0"))
        assert response.status_code == 409
        assert "Schraube & Mutter KG is connected to another account" in text_of(response)
        assert len({*SocialAccount.objects.values_list("user", flat=True)}) == 2
        assert {*SipgateToken.objects.values_list("number", flat=True)} == {1}, "as it was"
        out, over = re.findall(
            r'action="(/accounts/sipgate/login/[^"]*)"', html.unescape(response.content.decode())
        )
        assert "Sign out of sipgate" in text_of(another_browser.site.post(out))
        begun = another_browser.site.post(over).headers["Location"]
        another_browser.site.get(another_browser.consent(begun, person="2000000w0"))
        page = text_of(another_browser.site.get("/account"))
        assert "Schraube & Mutter KG" in page, "signed in as that user"


class TestReachable:
    def test_asks_while_no_address_is_verified(self, browser):
        browser.sign_in()
        assert "How can we reach you?" in text_of(browser.site.get("/account"))
        EmailAddress.objects.create(
            user=get_user_model().objects.get(), email="r@example.org", verified=False
        )
        assert "We sent an email to r@example.org." in text_of(browser.site.get("/account"))
        EmailAddress.objects.update(verified=True)
        assert "How can we reach you?" not in text_of(browser.site.get("/account"))
