"""Two sipgate accounts in one browser: what is said beforehand, what works, and what is told when one ends."""

from __future__ import annotations

import html
import re
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model

from sipgate_provider import tokens
from sipgate_provider.models import SipgateToken, State
from tests.journey import Browser

User = get_user_model()
ANOTHER = "/accounts/sipgate/login/?process=connect&next=/account&another=1"


@pytest.fixture
def connected(browser: Browser) -> Browser:
    """Somebody with a password here, whose first sipgate account was connected in this browser."""
    user = User.objects.create_user("local", password="correct horse battery")
    browser.site.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    browser.sign_in(process="connect")
    browser.site.get("/account")
    return browser


def page_of(browser: Browser) -> str:
    answer = browser.site.get(ANOTHER)
    assert answer.status_code == 200
    return html.unescape(answer.content.decode())


def actions(page: str) -> list[str]:
    return re.findall(r'action="(/accounts/sipgate/login/[^"]*)"', page)


def sign_out_of_sipgate(browser: Browser, page: str) -> str:
    """Follow the page's link and confirm; return where the browser is then."""
    (link,) = re.findall(r'href="(http[^"]*/logout\?[^"]*)"', page)
    asked = browser.sipgate.get(link, timeout=5)
    form = re.search(r'<form[^>]*action="([^"]*)"', asked.text)
    fields = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', asked.text))
    target = urljoin(asked.url, html.unescape(form[1])) if form else asked.url
    done = browser.sipgate.post(
        target, fields, headers={"Referer": asked.url}, allow_redirects=False, timeout=5
    )
    return done.headers.get("Location", "")


def states() -> dict[str, str]:
    return dict(SipgateToken.objects.values_list("connection__uid", "state"))


@pytest.mark.parametrize("method", ["get", "post"])
def test_says_so_before_it_leaves(connected: Browser, method: str) -> None:
    answer = getattr(connected.site, method)(ANOTHER)
    assert answer.status_code == 200
    page = html.unescape(answer.content.decode())
    assert (
        "Signing out of sipgate also ends what was connected in this browser: Rosenduft Gartenbau GmbH."
        in page
    )


def test_in_this_browser_with_a_way_back(connected: Browser) -> None:
    """The first connection ends; it is found out at once, and this sign-in is named as the likely cause."""
    page = page_of(connected)
    back = urlsplit(sign_out_of_sipgate(connected, page))
    assert (back.path, back.query) == ("/oauth", "")
    here = connected.site.get(back.path).headers["Location"]
    assert here == ANOTHER
    begun = connected.site.post(
        actions(html.unescape(connected.site.get(here).content.decode()))[-1]
    )
    answer = connected.site.get(connected.consent(begun.headers["Location"], person="2000000w0"))
    assert answer.headers["Location"] == "/account"
    assert states() == {"1000000w0": State.NEEDS_SIGN_IN, "2000000w0": State.ACTIVE}
    told = html.unescape(connected.site.get("/account").content.decode())
    assert (
        "sipgate has ended the connection Rosenduft Gartenbau GmbH, probably because you have just signed in"
        in told
    )
    assert connected.site.get("/oauth").status_code == 401, "the way back leads here once"


def test_offline_access_keeps_both(connected: Browser) -> None:
    keep, *_others = actions(page_of(connected))
    begun = connected.site.post(keep).headers["Location"]
    assert "offline_access" in parse_qs(urlsplit(begun).query)["scope"][0].split()
    assert connected.site.get(connected.consent(begun)).headers["Location"] == ANOTHER
    page = page_of(connected)
    assert "also ends" not in page
    sign_out_of_sipgate(connected, page)
    begun = connected.site.post(actions(page)[-1])
    connected.site.get(connected.consent(begun.headers["Location"], person="2000000w0"))
    assert states() == {"1000000w0": State.ACTIVE, "2000000w0": State.ACTIVE}
    for connection in SocialAccount.objects.all():
        assert tokens.refresh(connection).state == State.ACTIVE


def test_a_client_without_offline_access_is_offered_a_private_window(connected: Browser) -> None:
    scopes = connected.sandbox.control.state().get("client", {}).get("scopes", None)
    assert scopes is None or "offline_access" in scopes
    connected.sandbox.control.change_client(scopes=["account:read"])
    page = page_of(connected)
    assert "Stay connected" not in page
    assert "private window, sign in to this site there with your password" in page


def test_in_a_private_window_both_live(connected: Browser, another_browser: Browser) -> None:
    another_browser.site.force_login(
        User.objects.get(), backend="django.contrib.auth.backends.ModelBackend"
    )
    another_browser.sign_in(process="connect", person="2000000w0")
    assert states() == {"1000000w0": State.ACTIVE, "2000000w0": State.ACTIVE}
    assert "has ended" not in another_browser.site.get("/account").content.decode()


def test_without_a_password_here_one_is_set_first(browser: Browser) -> None:
    browser.sign_in()
    browser.sandbox.control.change_client(scopes=["account:read"])
    assert "set one first" in page_of(browser)


def test_somebody_who_is_not_signed_in_is_told_how(browser: Browser) -> None:
    answer = browser.site.get("/accounts/sipgate/login/?another=1")
    page = html.unescape(answer.content.decode())
    assert "also ends" not in page
    assert "prompt=login" in browser.site.post(actions(page)[-1]).headers["Location"]


def test_a_sipgate_that_does_not_answer_stops_nobody(connected: Browser, settings: Any) -> None:
    settings.SIPGATE_AUTH_URL = "http://127.0.0.1:9/realms/x/protocol/openid-connect/auth"
    page = page_of(connected)
    assert "Its page opens in a new tab" in page
    assert "Stay connected" not in page
