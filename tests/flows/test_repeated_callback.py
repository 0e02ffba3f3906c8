"""A callback that comes more than once: its code is sent once, and the person ends signed in."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from allauth.socialaccount.models import SocialAccount
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.test import Client
from django.utils import timezone

from sipgate_provider.models import UsedState
from sipgate_provider.sign_in import once
from tests.journey import HOST, Browser

User = get_user_model()


@pytest.mark.parametrize("engine", ["db", "cache", "cached_db", "signed_cookies"])
def test_the_first_answer_was_dropped(browser, settings, engine):
    """F5 on a slow page: the first answer never arrives, and its session has replaced that of the
    browser.
    """
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    callback = browser.consent(browser.start(next_url="/?here=1"))
    reloaded = as_it_is(browser)
    assert browser.site.get(callback).headers["Location"] == "/?here=1"
    begun = reloaded.get(callback).headers["Location"]
    assert begun.startswith(django_settings.SIPGATE_AUTH_URL)
    assert browser.asked("token") == 1
    assert reloaded.get(browser.consent(begun)).headers["Location"] == "/?here=1"
    assert reloaded.get("/account.json").status_code == 200
    assert (User.objects.count(), browser.asked("token")) == (1, 2)


def test_the_first_is_under_way(browser):
    """F5 and double click: whichever of the two cookies arrives last, the person is signed in."""
    session = browser.site.session
    session["cart"] = "of a visitor"
    session.save()
    callback = browser.consent(browser.start())
    reloaded = as_it_is(browser)
    browser.sandbox.control.fault("slow", on="token", seconds=0.8)
    first = browser.follow_in_thread(callback)
    while not UsedState.objects.exists():
        assert first.is_alive()
    begun = reloaded.get(callback).headers["Location"]
    assert first.is_alive(), "nobody waits for it"
    first.join(10)
    again = browser.consent(begun)
    for client in (browser.site, reloaded):
        assert client.get(again).headers["Location"] == "/account"
        assert client.get("/account.json").status_code == 200
        assert client.session["cart"] == "of a visitor"
    assert browser.asked("token") == 2


def test_once_per_state(browser):
    callback = browser.consent(browser.start())
    reloaded, late = as_it_is(browser), as_it_is(browser)
    browser.site.get(callback)
    assert reloaded.get(callback).status_code == 302
    assert_not_ours(late.get(callback))


def test_back_after_success(browser):
    callback = browser.consent(browser.start(next_url="/?here=1"))
    for _ in range(3):
        assert browser.site.get(callback).headers["Location"] == "/?here=1"
    assert browser.asked("token") == 1


def test_back_after_connecting(local):
    callback = local.consent(local.start(process="connect", next_url="/account"))
    for _ in range(2):
        assert local.site.get(callback).headers["Location"] == "/account"
    assert local.asked("token") == 1


def test_a_connect_under_way_begins_again_as_one(local):
    callback = local.consent(local.start(process="connect", next_url="/account"))
    local.sandbox.control.fault("unavailable", on="token")
    assert local.site.get(callback).status_code == 401
    begun = local.site.get(callback).headers["Location"]
    assert local.site.get(local.consent(begun)).headers["Location"] == "/account"
    assert SocialAccount.objects.get().user.username == "local"


def test_back_to_a_sign_up_that_waits(browser, settings):
    settings.SOCIALACCOUNT_AUTO_SIGNUP = False
    callback = browser.consent(browser.start())
    browser.site.get(callback)
    begun = browser.site.get(callback).headers["Location"]
    form = browser.site.get(browser.consent(begun)).headers["Location"]
    assert browser.site.post(form, {"username": "rosa"}).headers["Location"] == "/account"


def test_of_another_browser(browser, another_browser):
    callback = browser.consent(browser.start())
    another_browser.start()  # it has a cookie and a session too
    for _ in range(2):  # before and after the first
        assert_not_ours(another_browser.site.get(callback))
        browser.site.get(callback)
    assert browser.asked("token") == 1
    assert another_browser.site.get("/account.json").status_code == 401


def test_two_at_the_same_moment(local, monkeypatch):
    """Both find the state in the session, which a connect leaves as it is; the INSERT decides."""
    callback = local.consent(local.start(process="connect", next_url="/account"))
    other, real = as_it_is(local), once.begun

    def begun(request, state_id):
        monkeypatch.setattr(once, "begun", real)
        found = real(request, state_id)
        assert other.get(callback).headers["Location"] == "/account"
        return found

    monkeypatch.setattr(once, "begun", begun)
    assert local.site.get(callback).headers["Location"] == "/account"
    assert local.asked("token") == 1


def test_only_get(browser):
    callback = browser.consent(browser.start())
    assert {getattr(browser.site, name)(callback).status_code for name in ("head", "post")} == {405}
    assert browser.site.get(callback).status_code == 302


def test_the_row_tells_nothing_and_goes(browser):
    callback = browser.consent(browser.start())
    cookie = browser.site.cookies[django_settings.SESSION_COOKIE_NAME].value
    browser.site.get(callback)
    row, query = repr(UsedState.objects.values().get()), parse_qs(urlsplit(callback).query)
    for secret in (cookie, *query["code"], *query["state"]):
        assert secret not in row
    UsedState.objects.update(used_at=timezone.now() - timedelta(hours=2))
    browser.start()
    assert not UsedState.objects.exists()


def test_strict_session_cookie(browser, settings):
    """The session's cookie does not come along from another site: a page of ours asks once more."""
    settings.SESSION_COOKIE_SAMESITE = "Strict"
    callback = browser.consent(browser.start())
    without = Client(headers={"host": HOST})
    page = without.get(callback)
    assert page.status_code == 200
    assert callback.replace("&", "&amp;") in page.content.decode()
    assert browser.site.get(f"{callback}&_redir=").headers["Location"] == "/account"
    assert without.get(f"{callback}&_redir=").status_code == 401


def as_it_is(browser: Browser) -> Client:
    """Return the browser as it is now: what it is told from here on does not arrive there."""
    client = Client(headers={"host": HOST})
    client.cookies.load({name: morsel.value for name, morsel in browser.site.cookies.items()})
    return client


def assert_not_ours(answer: Any) -> None:
    assert answer.status_code == 401
    assert "does not belong to this browser session" in answer.content.decode()
