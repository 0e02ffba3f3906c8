"""*Sign in again* repairs the connection it is about, or a page says who came instead, and nothing
changes.
"""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model
from django.core import mail

from sipgate_provider import background
from sipgate_provider.models import Ending, Reason, SipgateToken, State
from sipgate_provider.ops import notices
from tests.journey import Browser, text_of

User = get_user_model()
ROSE, SCREW = "Rosenduft Gartenbau GmbH", "Schraube & Mutter KG"


class TestWhoIsSignedIn:
    @pytest.mark.parametrize("place", ["/account", "/accounts/email/"])
    def test_is_told_that_somebody_else_came(self, both, place):
        action = next(one for one in actions(both.site.get(place)) if "repair=" in one)
        before = list(SipgateToken.objects.order_by("pk").values())
        is_of_the_wrong_account(both, press(both, action))
        assert list(SipgateToken.objects.order_by("pk").values()) == before
        background.errands.wait_idle(10)
        alive = both.sandbox.control.state()["sessions_alive"]
        assert alive == 2, "the living connection of the other is not ended"

    def test_the_right_person_repairs_it(self, both):
        action = actions(both.site.get("/account"))[1]
        page = is_of_the_wrong_account(both, press(both, action))
        both.sipgate.cookies.clear()
        (again,) = actions(page)
        assert "prompt=login" in both.site.post(again).headers["Location"]
        response = press(both, again, person="1000000w0")
        assert response.headers["Location"] == "/account"
        assert states() == {"1000000w0": State.ACTIVE, "2000000w0": State.ACTIVE}

    def test_an_unknown_identity_is_not_connected_and_its_grant_ends(
        self, browser, another_browser
    ):
        browser.sign_in()
        browser.site.get("/account")
        action = actions(browser.site.get(f"/account/{end('1000000w0').pk}"))[0]
        another_browser.site = browser.site
        is_of_the_wrong_account(another_browser, press(another_browser, action))
        background.errands.wait_idle(10)
        assert [row.uid for row in SocialAccount.objects.all()] == ["1000000w0"]
        assert not Ending.objects.exists()
        assert browser.sandbox.control.state()["sessions_alive"] == 1

    def test_ended_access_is_allowed_again_by_the_same_person_only(self, browser, another_browser):
        browser.sign_in()
        browser.site.get("/account")
        browser.site.post(f"/account/{SocialAccount.objects.get().pk}/end-access")
        action = actions(browser.site.get("/account"))[1]
        assert f"You use {ROSE} only to sign in." in text_of(browser.site.get(action))
        another_browser.site = browser.site
        is_of_the_wrong_account(another_browser, press(another_browser, action))
        assert SipgateToken.objects.get().reason == Reason.ENDED_BY_USER

    def test_a_denied_repair_can_be_tried_again_and_is_still_one(self, both):
        begun = both.site.post(actions(both.site.get("/account"))[1]).headers["Location"]
        state = re.search(r"state=([^&]+)", begun)[1]
        page = both.site.get(f"/oauth?error=access_denied&state={state}")
        (again,) = actions(page)
        assert (page.status_code, "next=%2Faccount" in again) == (401, True)
        is_of_the_wrong_account(both, press(both, again))


class TestWhoFollowsTheMail:
    def test_is_asked_by_name_and_repairs_it(self, browser, link):
        assert f"The connection {ROSE} needs you" in text_of(browser.site.get(link))
        response = press(browser, link, person="1000000w0")
        assert (response.status_code, response.headers["Location"]) == (302, "/account")
        assert states() == {"1000000w0": State.ACTIVE}

    @pytest.mark.parametrize("is_known", [False, True])
    def test_nobody_else_is_signed_up_or_in(self, another_browser, link, is_known):
        if is_known:
            another_browser.sign_in(person="2000000w0")
            another_browser.site.get("/account")
            another_browser.site.post("/accounts/logout/")
        page = is_of_the_wrong_account(another_browser, press(another_browser, link))
        assert SocialAccount.objects.count() == User.objects.count() == 1 + is_known
        assert "_auth_user_id" not in another_browser.site.session
        another_browser.sipgate.cookies.clear()
        press(another_browser, actions(page)[-1], person="1000000w0")
        assert states()["1000000w0"] == State.ACTIVE

    @pytest.mark.parametrize("is_back", [False, True], ids=["before", "while at sipgate"])
    def test_a_connection_that_is_gone_is_not_made_anew(self, browser, link, is_back):
        begun = browser.site.post(link).headers["Location"]
        SocialAccount.objects.all().delete()
        background.errands.wait_idle(10)
        response = browser.site.get(browser.consent(begun) if is_back else link)
        assert response.headers["Location"] == "/accounts/login/"
        page = browser.site.get("/accounts/login/")
        assert "a connection that no longer exists" in text_of(page)
        assert not SocialAccount.objects.exists()

    @pytest.mark.parametrize("value", ["1", "1:forged", "", "x" * 3000])
    def test_a_forged_link_leads_nowhere(self, browser, value):
        response = browser.site.post(f"/accounts/sipgate/login/?repair={value}")
        assert response.headers["Location"] == "/accounts/login/"


def test_a_page_or_program_that_needs_it_asks_for_the_same_person(both):
    way = both.site.get("/account/numbers").headers["Location"]
    (again,) = actions(is_of_the_wrong_account(both, press(both, way)))
    assert "next=%2Faccount%2Fnumbers" in again
    document = both.site.get("/account/numbers", headers={"accept": "application/json"}).json()
    assert f"repair={SocialAccount.objects.get(uid='1000000w0').pk}%3A" in document["action"]


@pytest.mark.parametrize("method", ["get", "post"])
def test_another_account_is_explained_before_one_leaves(browser, method):
    browser.sign_in()
    page = getattr(browser.site, method)("/accounts/sipgate/login/?process=connect&another=1")
    assert "sign out of sipgate first" in text_of(page)
    logout = browser.sandbox.oidc_url.partition("/auth?")[0] + "/logout"
    assert f'href="{logout}"' in page.content.decode()
    (again,) = actions(page)
    assert "prompt=login" in browser.site.post(again).headers["Location"]


@pytest.fixture
def both(browser: Browser, another_browser: Browser) -> Browser:
    """Somebody with two connections; the first ended, and this browser is signed in at sipgate as
    the second.
    """
    browser.sign_in()
    browser.site.get("/account")
    another_browser.site = browser.site
    another_browser.sign_in(process="connect", person="2000000w0")
    another_browser.site.get("/account")
    end("1000000w0")
    return another_browser


@pytest.fixture
def link(browser: Browser) -> str:
    """The link in the mail of somebody whose connection ended, and who is signed out."""
    browser.sign_in()
    browser.site.get("/account")
    addresses = User.objects.get().emailaddress_set
    addresses.create(email="rosa@example.org", verified=True, primary=True)
    assert notices.tell_user(end("1000000w0").pk)
    browser.site.post("/accounts/logout/")
    return re.search(r"http://localhost:8080(\S+)", mail.outbox[-1].body)[1]


def is_of_the_wrong_account(browser: Browser, response: Any) -> Any:
    """Follow the answer of the callback to the page that names both; return that page."""
    assert response.status_code == 302
    page = browser.site.get(response.headers["Location"])
    assert page.status_code == 200
    text = f"You signed in at sipgate as {SCREW}; {ROSE} still needs you to sign in."
    assert f"{text} Nothing was changed." in text_of(page)
    return page


def actions(response: Any) -> list[str]:
    page = html.unescape(response.content.decode())
    return re.findall(r'action="(/accounts/sipgate/login/[^"]*)"', page)


def states() -> dict[str, str]:
    return dict(SipgateToken.objects.values_list("connection__uid", "state"))


def end(uid: str) -> SocialAccount:
    SipgateToken.objects.filter(connection__uid=uid).update(
        state=State.NEEDS_SIGN_IN, reason=Reason.EXPIRED_IDLE
    )
    return SocialAccount.objects.get(uid=uid)


def press(browser: Browser, action: str, *, person: str = "2000000w0") -> Any:
    begun = browser.site.post(action)
    return browser.site.get(browser.consent(begun.headers["Location"], person=person))
