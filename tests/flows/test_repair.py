"""*Sign in again* repairs the connection it stands on, or says that it could not: card, banner, mail, decorator."""

from __future__ import annotations

import html
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.core import mail

from sipgate_provider import problems, tokens
from sipgate_provider.models import Reason, Revocation, SipgateToken, State
from sipgate_provider.ops import notices
from tests.journey import Browser

User = get_user_model()
ROSE, SCREW = "Rosenduft Gartenbau GmbH", "Schraube & Mutter KG"


def text_of(response: Any) -> str:
    return re.sub(r"\s+", " ", html.unescape(response.content.decode()))


def plain(response: Any) -> str:
    return re.sub(r"<[^>]*>", "", text_of(response))


def actions(response: Any) -> list[str]:
    return re.findall(r'action="(/accounts/sipgate/login/[^"]*)"', text_of(response))


def states() -> dict[str, str]:
    return dict(SipgateToken.objects.values_list("connection__uid", "state"))


def end(uid: str) -> SocialAccount:
    SipgateToken.objects.filter(connection__uid=uid).update(
        state=State.NEEDS_SIGN_IN, reason=Reason.EXPIRED_IDLE
    )
    return SocialAccount.objects.get(uid=uid)


def connect_second(browser: Browser, another_browser: Browser) -> None:
    another_browser.site.cookies = browser.site.cookies
    another_browser.sign_in(process="connect", person="2000000w0")
    another_browser.site.get("/account")


@pytest.fixture
def both(browser: Browser, another_browser: Browser) -> Browser:
    """Somebody with two connections; the first ended, and this browser is signed in at sipgate as the second."""
    browser.sign_in()
    browser.site.get("/account")
    connect_second(browser, another_browser)
    another_browser.site = browser.site
    end("1000000w0")
    return another_browser


def press(browser: Browser, action: str, *, person: str = "2000000w0") -> Any:
    begun = browser.site.post(action)
    return browser.site.get(browser.consent(begun.headers["Location"], person=person))


def of_the_wrong_account(browser: Browser, response: Any, *, met: str = SCREW) -> Any:
    """Follow the answer of the callback to the page that names both; return that page."""
    assert response.status_code == 302
    page = browser.site.get(response.headers["Location"])
    assert page.status_code == 200
    assert (
        f"You signed in at sipgate as {met}; {ROSE} still needs you. Nothing was changed."
        in plain(page)
    )
    return page


class TestWhoIsSignedIn:
    @pytest.mark.parametrize("place", ["/account", "/", "/accounts/email/"])
    def test_is_told_that_somebody_else_came(self, both: Browser, place: str) -> None:
        action = next(action for action in actions(both.site.get(place)) if "repair=" in action)
        before = list(SipgateToken.objects.order_by("pk").values())
        response = press(both, action)
        of_the_wrong_account(both, response)
        assert list(SipgateToken.objects.order_by("pk").values()) == before
        tokens.errands.wait_idle(10)
        assert both.sandbox.control.state()["sessions_alive"] == 2, (
            "the living connection of the other is not ended"
        )

    def test_the_right_person_repairs_it(self, both: Browser) -> None:
        page = of_the_wrong_account(both, press(both, actions(both.site.get("/account"))[1]))
        both.sipgate.cookies.clear()
        response = press(both, actions(page)[-1], person="1000000w0")
        assert response.headers["Location"] == "/account"
        assert states() == {"1000000w0": State.ACTIVE, "2000000w0": State.ACTIVE}
        assert SocialAccount.objects.count() == 2

    def test_what_signing_out_of_sipgate_ended_is_found_out(self, both: Browser) -> None:
        page = of_the_wrong_account(both, press(both, actions(both.site.get("/account"))[1]))
        assert f"also ends what was connected in this browser: {SCREW}" in text_of(page)
        both.sandbox.control.kill_session("2000000w0")
        press(both, actions(page)[-1], person="1000000w0")
        assert states() == {"1000000w0": State.ACTIVE, "2000000w0": State.NEEDS_SIGN_IN}
        assert f"sipgate has ended the connection {SCREW}" in text_of(both.site.get("/account"))

    def test_a_reload_and_an_old_tab_are_no_error(self, both: Browser) -> None:
        action = actions(both.site.get("/account"))[1]
        begun = both.site.post(action).headers["Location"]
        callback = both.consent(begun, person="2000000w0")
        page = both.site.get(callback).headers["Location"]
        bare = f"/oauth?{'&'.join(part for part in urlsplit(callback).query.split('&') if part.startswith('state='))}"
        assert both.site.get(callback).headers["Location"] == bare
        assert both.site.get(bare).headers["Location"] == page
        assert both.site.get(page).status_code == 200

    def test_an_unknown_identity_is_not_connected(
        self, browser: Browser, another_browser: Browser
    ) -> None:
        browser.sign_in()
        browser.site.get("/account")
        action = actions(browser.site.get(f"/account/{end('1000000w0').pk}"))[0]
        another_browser.site = browser.site
        of_the_wrong_account(browser, press(another_browser, action))
        tokens.errands.wait_idle(10)
        assert [row.uid for row in SocialAccount.objects.all()] == ["1000000w0"]
        assert Revocation.objects.get().sealed == b"", "what nobody uses was ended"
        assert browser.sandbox.control.state()["sessions_alive"] == 1

    def test_an_ended_consent_is_allowed_again_by_the_same_person_only(
        self, browser: Browser, another_browser: Browser
    ) -> None:
        browser.sign_in()
        browser.site.get("/account")
        pk = SocialAccount.objects.get().pk
        browser.site.post(f"/account/{pk}/end-access")
        another_browser.site = browser.site
        action = actions(browser.site.get("/account"))[1]
        assert (
            f"You use {ROSE} only to sign in. If you continue, this site may use it again."
            in plain(browser.site.get(action))
        )
        of_the_wrong_account(browser, press(another_browser, action))
        assert SipgateToken.objects.get().reason == Reason.ENDED_BY_PERSON

    def test_a_denied_repair_can_be_tried_again_and_is_still_one(self, both: Browser) -> None:
        begun = both.site.post(actions(both.site.get("/account"))[1]).headers["Location"]
        state = re.search(r"state=([^&]+)", begun)[1]
        page = both.site.get(f"/oauth?error=access_denied&state={state}")
        assert page.status_code == 401
        (again,) = actions(page)
        assert "next=%2Faccount" in again
        of_the_wrong_account(both, press(both, again))


class TestWhoFollowsTheMail:
    @pytest.fixture
    def link(self, browser: Browser) -> str:
        """The link in the mail of somebody whose connection ended, and who is signed out."""
        browser.sign_in()
        browser.site.get("/account")
        user = User.objects.get()
        user.emailaddress_set.create(email="rosa@example.org", verified=True, primary=True)
        connection = end("1000000w0")
        assert notices.tell_person(connection.pk)
        browser.site.post("/accounts/logout/")
        return re.search(r"http://localhost:8080(\S+)", mail.outbox[-1].body)[1]

    def test_is_asked_by_name_and_repairs_it(self, browser: Browser, link: str) -> None:
        assert f"The connection {ROSE} needs you" in plain(browser.site.get(link))
        response = press(browser, link, person="1000000w0")
        assert (response.status_code, response.headers["Location"]) == (302, "/account")
        assert states() == {"1000000w0": State.ACTIVE}
        assert browser.site.get("/account").status_code == 200

    def test_nobody_else_is_signed_up(
        self, browser: Browser, another_browser: Browser, link: str
    ) -> None:
        page = of_the_wrong_account(another_browser, press(another_browser, link))
        assert (User.objects.count(), SocialAccount.objects.count()) == (1, 1)
        assert "_auth_user_id" not in another_browser.site.session
        assert states() == {"1000000w0": State.NEEDS_SIGN_IN}
        another_browser.sipgate.cookies.clear()
        press(another_browser, actions(page)[-1], person="1000000w0")
        assert states() == {"1000000w0": State.ACTIVE}

    def test_nobody_else_is_signed_in(
        self, browser: Browser, another_browser: Browser, link: str
    ) -> None:
        another_browser.sign_in(person="2000000w0")
        another_browser.site.get("/account")
        another_browser.site.post("/accounts/logout/")
        of_the_wrong_account(another_browser, press(another_browser, link))
        assert "_auth_user_id" not in another_browser.site.session

    @pytest.mark.parametrize("is_back", [False, True], ids=["before", "while at sipgate"])
    def test_a_connection_that_is_gone_is_not_made_anew(
        self, browser: Browser, link: str, is_back: bool
    ) -> None:
        begun = browser.site.post(link).headers["Location"]
        SocialAccount.objects.all().delete()
        tokens.errands.wait_idle(10)
        if is_back:
            link = browser.site.get(browser.consent(begun)).headers["Location"]
        response = browser.site.get(link)
        assert response.headers["Location"] == "/accounts/login/"
        assert "a connection that no longer exists" in text_of(browser.site.get("/accounts/login/"))
        assert browser.site.post(link).headers["Location"] == "/accounts/login/"
        assert not SocialAccount.objects.exists()

    @pytest.mark.parametrize("value", ["1", "1:forged", "", "x" * 3000])
    def test_a_forged_one_is_refused(self, browser: Browser, value: str) -> None:
        response = browser.site.post(f"/accounts/sipgate/login/?repair={value}")
        assert response.headers["Location"] == "/accounts/login/"


class TestDecorator:
    def test_an_ended_connection_is_what_is_asked_for(self, both: Browser) -> None:
        way = both.site.get("/account/numbers").headers["Location"]
        page = of_the_wrong_account(both, press(both, way))
        assert "next=%2Faccount%2Fnumbers" in actions(page)[-1]

    def test_a_missing_permission_is_asked_of_the_same_person(self, both: Browser) -> None:
        SipgateToken.objects.update(state=State.ACTIVE, reason="")
        way = both.site.get("/account/numbers").headers["Location"]
        assert "read your telephone numbers" in text_of(both.site.get(way))
        of_the_wrong_account(both, press(both, way))
        assert "numbers:read" not in SipgateToken.objects.get(connection__uid="2000000w0").scope

    def test_the_problem_page_names_it_too(self, both: Browser) -> None:
        for _ in range(3):
            both.site.get("/account/numbers")
        page = both.site.get("/account/numbers")
        assert page.status_code == 403
        of_the_wrong_account(both, press(both, actions(page)[-1]))


def test_a_program_is_given_the_address_that_names_it(both: Browser) -> None:
    document = both.site.get("/account/numbers", headers={"accept": "application/json"}).json()
    assert f"repair={SocialAccount.objects.get(uid='1000000w0').pk}%3A" in document["action"]
    assert document["action"].startswith(
        problems.sign_in_url("/account/numbers", process="connect")[:40]
    )
