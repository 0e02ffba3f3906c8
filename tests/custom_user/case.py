"""Run by ``test_custom_user`` in a process with its own settings: a user without a name uses what needs sipgate."""

from __future__ import annotations

from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth import get_user_model

from sipgate_provider.client import SipgateClient
from tests.journey import Browser, asked_for, go_through, press
from tests.sample_site import SMS

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def person(browser: Browser) -> Any:
    person = get_user_model().objects.create(email="someone@custom.example")
    browser.site.force_login(person, backend="django.contrib.auth.backends.ModelBackend")
    return person


def test_connects_widens_and_uses(browser: Browser, person: Any) -> None:
    assert get_user_model()._meta.label == "custom_user.Person"
    _, back = go_through(browser, browser.site.get("/company?a=1"))
    assert back.headers["Location"] == "/company?a=1"
    assert browser.site.get("/company").json()["company"] == "Rosenduft Gartenbau GmbH"
    assert SocialAccount.objects.get().user == person
    authorize, _ = press(browser, "", browser.site.get("/tags").content.decode())
    assert SMS in asked_for(authorize)
    assert browser.site.get("/sms").content == b"sent"
    assert repr(SipgateClient.for_user(person)) == "<SipgateClient 1000000w0>"
    assert next(SipgateClient.all_for_user(person)).account().verified is True
