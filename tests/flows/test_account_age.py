"""A page shows sipgate's last answer, dated, for ``SIPGATE_ACCOUNT_MAX_AGE_SECONDS``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.utils import timezone

from sipgate_provider.models import LastKnownAccount, SipgateToken, State
from tests.journey import Browser, text_of


@pytest.mark.parametrize("path", ["/account", "/account.json"])
def test_young_data_is_shown_without_asking(person, path):
    age(30)
    SipgateToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    before = person.asked("GET v2/account")
    response = person.site.get(path)
    assert "Rosenduft Gartenbau GmbH" in response.content.decode()
    assert (person.asked("GET v2/account"), SipgateToken.objects.get().number) == (before, 1)
    if path == "/account":
        assert "30 seconds ago" in text_of(response)
        assert "Just fetched" not in text_of(response)
    else:
        shown = response.json()["connections"][0]
        assert (shown["fresh"], shown["pending"], shown["problem"]) == (False, False, None)
        assert shown["fetched_at"]


def test_older_data_is_asked_for_and_dated_anew_though_unchanged(person):
    for seconds in (-30, 61):
        age(seconds)
        before = person.asked("GET v2/account")
        assert "Just fetched" in text_of(person.site.get("/account")), seconds
        assert person.asked("GET v2/account") == before + 1
        assert timezone.now() - LastKnownAccount.objects.get().fetched_at < timedelta(seconds=30)
    person.site.get("/account")
    assert person.asked("GET v2/account") == before + 1


def test_a_refresh_and_a_new_consent_ask_at_once(person):
    before = person.asked("GET v2/account")
    person.site.post("/account/refresh", {"connection": SocialAccount.objects.get().pk})
    assert person.asked("GET v2/account") == before + 2, "with the old token, and with the new one"
    person.sign_in(process="connect")
    person.site.get("/account")
    assert person.asked("GET v2/account") == before + 3


@pytest.mark.parametrize("state", [State.FAILING, State.NEEDS_SIGN_IN, State.MISCONFIGURED])
def test_a_connection_in_trouble_is_asked_about(person, state):
    SipgateToken.objects.update(state=state)
    page = person.site.get("/account")
    view = page.context["views"][0]
    assert view.is_fresh or view.error is not None


@pytest.fixture
def person(browser: Browser, settings: Any) -> Browser:
    """Somebody who signed in and looked at their account."""
    settings.SIPGATE_ACCOUNT_MAX_AGE_SECONDS = 60
    browser.sign_in()
    browser.site.get("/account")
    return browser


def age(seconds: float) -> None:
    """Let sipgate's last answer, and the consent before it, be ``seconds`` old."""
    then = timezone.now() - timedelta(seconds=seconds)
    LastKnownAccount.objects.update(fetched_at=then)
    SipgateToken.objects.update(consented_at=then - timedelta(seconds=1))
