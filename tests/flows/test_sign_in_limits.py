"""What strangers and a slow sipgate may cost: failing sign-ins, callbacks that wait, sessions of
passers-by.
"""

from __future__ import annotations

import threading
from urllib.parse import parse_qs, urlsplit

from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.utils import timezone

from sipgate_provider.models import UsedState
from sipgate_provider.sign_in import limits
from tests.journey import Browser

User = get_user_model()


def test_invented_codes_reach_sipgate_only_so_often(browser, monkeypatch):
    monkeypatch.setattr(limits, "MOST_FAILURES", 3)
    answers = [browser.site.get(invented(browser)).status_code for _ in range(5)]
    assert answers == [401, 401, 401, 429, 429]
    assert browser.asked("token") == 3
    elsewhere = {"REMOTE_ADDR": "192.0.2.7"}
    callback = browser.consent(browser.start())
    assert browser.site.get(callback).status_code == 429
    assert browser.site.get(callback, **elsewhere).headers["Location"] == "/account", "not used"


def test_sign_ins_that_succeed_are_not_counted(browser, monkeypatch):
    monkeypatch.setattr(limits, "MOST_FAILURES", 1)
    for _ in range(3):
        assert browser.sign_in().headers["Location"] == "/account"


def test_ipv6_is_counted_by_network(browser, monkeypatch):
    monkeypatch.setattr(limits, "MOST_FAILURES", 1)
    found = [
        browser.site.get(invented(browser), REMOTE_ADDR=address).status_code
        for address in ("2001:db8::1", "2001:db8::2", "2001:db8:1::1", "unix")
    ]
    assert found == [401, 429, 401, 401]


def test_a_slow_sipgate_does_not_take_every_thread(browser, another_browser, monkeypatch):
    monkeypatch.setattr(limits, "places", threading.BoundedSemaphore(1))
    first, callback = (
        one.consent(one.start(), person=person)
        for one, person in ((browser, "1000000w0"), (another_browser, "2000000w0"))
    )
    browser.sandbox.control.fault("slow", on="token", seconds=0.8)
    waiting = browser.follow_in_thread(first)
    while not UsedState.objects.exists():
        assert waiting.is_alive()
    told = another_browser.site.get(callback)
    assert waiting.is_alive(), "told at once"
    assert (told.status_code, told.headers["Refresh"]) == (503, "3")
    assert "Too many sign-ins at once" in told.content.decode()
    assert parse_qs(urlsplit(callback).query)["code"][0] not in told.content.decode()
    waiting.join(10)
    assert another_browser.site.get(callback).headers["Location"] == "/account", "not used"
    for _ in range(2):  # every way out gives the place back
        assert browser.site.get(invented(browser)).status_code == 401


def test_a_visitor_who_only_begins_gets_a_short_session(browser):
    browser.start()
    assert seconds_left() <= 3600
    browser.sign_in()
    assert seconds_left() > 86_400
    browser.site.logout()
    browser.start()
    browser.log_in(User.objects.get())
    assert seconds_left() > 86_400, "as after a password"


def invented(browser: Browser) -> str:
    """Return a callback with a state of this browser and a code of nobody."""
    return f"/oauth?code=invented&state={parse_qs(urlsplit(browser.start()).query)['state'][0]}"


def seconds_left() -> float:
    return (Session.objects.get().expire_date - timezone.now()).total_seconds()
