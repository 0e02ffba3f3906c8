"""A site without allauth's pages (``HEADLESS_ONLY``): problem documents lead on, and wished scopes
are asked for.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.urls import include, path

from sipgate_provider.models import SipgateToken, State
from tests.journey import HOST, Browser, asked_for
from tests.sample_site import SMS
from tests.sample_site import urlpatterns as sample

pytestmark = pytest.mark.urls(__name__)

JSON = {"accept": "application/json", "referer": f"http://{HOST}/app"}
START = "/_allauth/browser/v1/auth/provider/redirect"
urlpatterns = [path("_allauth/", include("allauth.headless.urls")), *sample]


def test_an_action_leads_to_sipgate_and_back_to_the_application(signed_in):
    action = signed_in.site.get("/sms", headers=JSON).json()["action"]
    begun = signed_in.site.get(action).headers["Location"]
    assert asked_for(begun) == {"account:read", SMS}
    assert signed_in.site.get(signed_in.consent(begun)).headers["Location"] == "/app"
    assert signed_in.site.get("/sms", headers=JSON).content == b"sent"


def test_an_action_repairs_a_connection(signed_in):
    SipgateToken.objects.update(state=State.NEEDS_SIGN_IN)
    action = signed_in.site.get("/company", headers=JSON).json()["action"]
    signed_in.site.get(signed_in.consent(signed_in.site.get(action).headers["Location"]))
    assert SipgateToken.objects.get().state == State.ACTIVE


def test_scopes_go_through_allauths_own_endpoint(signed_in):
    action = signed_in.site.get("/sms", headers=JSON).json()["action"]
    wish = parse_qs(urlsplit(action).query)["sipgate_scopes"][0]
    form = {"provider": "sipgate", "process": "connect", "callback_url": "/app"}
    begun = signed_in.site.post(START, {**form, "sipgate_scopes": wish}).headers["Location"]
    assert asked_for(begun) == {"account:read", SMS}
    assert asked_for(signed_in.site.post(START, form).headers["Location"]) == {"account:read"}


def test_nobody_elses_link_begins_anything(signed_in, another_browser):
    action = signed_in.site.get("/sms", headers=JSON).json()["action"]
    sign_in(another_browser, person="2000000w0")
    for browser, address in [
        (another_browser, action),
        (signed_in, "/accounts/sipgate/login/?process=connect"),
    ]:
        assert browser.site.get(address).status_code == 404


def test_who_is_not_signed_in_is_not_led_to_a_page_that_is_not_there(browser, settings):
    settings.LOGIN_URL = "/nowhere/login"
    assert "action" not in browser.site.get("/sms", headers=JSON).json()
    settings.LOGIN_URL = "https://app.example.org/login"
    document = browser.site.get("/sms", headers=JSON).json()
    assert document["action"] == "https://app.example.org/login"


def test_a_callback_of_nobody_ends_at_the_page_for_sign_ins_that_failed(browser, settings):
    page = "https://app.example.org/login-error"
    settings.HEADLESS_FRONTEND_URLS = {"socialaccount_login_error": page}
    answer = browser.site.get("/oauth?state=of-yesterday&code=x")
    assert answer.headers["Location"].startswith(page)


@pytest.fixture(autouse=True)
def _headless(settings: Any) -> None:
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "allauth.headless"]
    settings.HEADLESS_ONLY = True


@pytest.fixture
def signed_in(browser: Browser) -> Browser:
    sign_in(browser)
    return browser


def sign_in(browser: Browser, *, person: str = "1000000w0") -> None:
    """Sign in with sipgate as a headless application does."""
    form = {"provider": "sipgate", "process": "login", "callback_url": "/app"}
    begun = browser.site.post(START, form).headers["Location"]
    back = browser.site.get(browser.consent(begun, person=person))
    assert back.headers["Location"] == "/app"
