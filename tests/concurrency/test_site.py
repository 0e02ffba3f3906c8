"""The deployed site, several worker processes, against the sandbox."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount
from django.conf import settings as django_settings
from django.test import Client
from django.utils import timezone

from sipgate_provider import tokens
from sipgate_provider.models import SipgateToken
from tests.conftest import Connect
from tests.journey import Browser
from tests.processes import site
from tests.rotator import Rotator

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


def test_a_site_told_to_stop_stores_what_it_asked_for(browser: Browser, session: str) -> None:
    with site(processes=2, threads=4) as running, ThreadPoolExecutor(1) as people:
        make_stale()
        browser.sandbox.control.fault("slow", on="refresh", seconds=2)
        answer = people.submit(running.get, "/account.json", session=session)
        wait_for(lambda: SipgateToken.objects.get().lease_holder)
        running.stop()
        assert answer.result().json()["connections"][0]["fresh"]
    assert (SipgateToken.objects.get().number, browser.sandbox.control.state()["reuses"]) == (
        2,
        0,
    )


@pytest.mark.long
def test_a_site_told_to_stop_does_not_work_off_its_queue(
    connect: Connect, rotator: Rotator, settings: Any
) -> None:
    """100 connections need a refresh, 32 are asked for: the rest would take three answers' time."""
    settings.SIPGATE_PAGE_WAIT_SECONDS = 0.2
    rotator.set(latency=4)
    user = connect(age=400).user
    for _ in range(99):
        SocialAccount.objects.filter(pk=connect(age=400).pk).update(user=user)
    person = Client()
    person.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    session = str(person.cookies[django_settings.SESSION_COOKIE_NAME].value)
    with site(processes=1, threads=4) as running:
        assert running.get("/account.json", session=session).status_code == 200
        wait_for(lambda: rotator.counts()["arrived"] == 32)
        started = time.monotonic()
        running.stop()
        assert time.monotonic() - started < 8
    counts = rotator.counts()
    assert (counts["arrived"], counts["rotated"], counts["reuse"]) == (
        32,
        32,
        0,
    )
    rows = SipgateToken.objects.values_list("number", "state", "lease_holder")
    assert Counter(rows) == {
        (2, "active", ""): 32,
        (1, "active", ""): 100 - 32,
    }


@pytest.mark.long
def test_a_browser_that_goes_away_loses_nothing(browser: Browser, session: str) -> None:
    with site(processes=1, threads=2) as running:
        make_stale()
        browser.sandbox.control.fault("slow", on="refresh", seconds=1)
        host, _, port = running.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as tab:
            cookie = f"{django_settings.SESSION_COOKIE_NAME}={session}"
            tab.sendall(
                "GET /account HTTP/1.1\r\nHost: localhost:8080\r\n"
                f"Cookie: {cookie}\r\n\r\n".encode()
            )
            wait_for(lambda: tokens.load(SipgateToken.objects.get().pk).lease_holder)
        wait_for(lambda: tokens.load(SipgateToken.objects.get().pk).number == 2)
        assert running.get("/account.json", session=session).json()["connections"][0]["fresh"]
    assert browser.sandbox.control.state()["reuses"] == 0


@pytest.mark.long
def test_other_pages_stay_quick_while_sipgate_hangs(
    browser: Browser, session: str, settings: Any
) -> None:
    """Four threads, four people who wait for sipgate: a page without it comes at once."""
    settings.SIPGATE_PAGE_WAIT_SECONDS = 0.8
    with site(processes=1, threads=4) as running, ThreadPoolExecutor(4) as people:
        make_stale()
        running.get("/account.json", session=session)  # the last known data is there
        make_stale()
        browser.sandbox.control.fault("slow", on="all", times=None, seconds=6)
        pages = [people.submit(running.get, "/account", session=session) for _ in range(4)]
        answers = [page.result() for page in pages]
        assert {answer.status_code for answer in answers} == {200}
        assert max(answer.elapsed.total_seconds() for answer in answers) < 3
        for path in ("/", "/readyz"):
            answer = running.get(path, session=session)
            assert (answer.status_code, answer.elapsed.total_seconds() < 1) == (200, True)
        browser.sandbox.control.clear()


@pytest.mark.long
def test_tokens_of_five_seconds_for_a_minute(browser: Browser, settings: Any) -> None:
    settings.SIPGATE_PAGE_WAIT_SECONDS = 20
    browser.sandbox.control.lifetimes(access=5)
    session, answers = signed_in(browser), []
    browser.sandbox.control.reset()
    with site() as running:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            answers.append(running.get("/account.json", session=session))
            time.sleep(0.05)  # a person, not a load test
    assert {answer.status_code for answer in answers} == {200}
    connections = [answer.json()["connections"][0] for answer in answers]
    assert {one["problem"] for one in connections if not one["fresh"]} == set()
    state = browser.sandbox.control.state()
    assert state["reuses"] == 0
    assert 10 <= state["rotations"] <= 30


@pytest.fixture
def session(browser: Browser, settings: Any) -> str:
    """The session of a person who has signed in with sipgate."""
    settings.SIPGATE_PAGE_WAIT_SECONDS = 20
    return signed_in(browser)


def signed_in(browser: Browser) -> str:
    browser.sign_in()
    return str(browser.site.cookies[django_settings.SESSION_COOKIE_NAME].value)


def make_stale() -> None:
    moment = timezone.now() - timedelta(seconds=400)
    SipgateToken.objects.update(issued_at=moment, expires_at=moment + timedelta(seconds=300))


def wait_for(happened: Callable[[], Any]) -> None:
    give_up = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.02)
