"""The deployed site, several worker processes, against the sandbox."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from allauth.socialaccount.models import SocialAccount

from sipgate_provider.models import SipgateToken
from tests.conftest import make_stale, session_of
from tests.journey import Browser, visitor
from tests.processes import site
from tests.waiting import wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


def test_a_site_told_to_stop_stores_what_it_asked_for(browser, session):
    with site(processes=2, threads=4) as running, ThreadPoolExecutor(1) as people:
        make_stale()
        browser.sandbox.control.fault("slow", on="refresh", seconds=2)
        answer = people.submit(running.get, "/account.json", session=session)
        wait_for(lambda: SipgateToken.objects.get().lease_holder)
        running.stop()
        assert answer.result().json()["connections"][0]["fresh"]
    assert SipgateToken.objects.get().number == 2
    assert browser.sandbox.control.state()["reuses"] == 0


@pytest.mark.long
def test_a_site_told_to_stop_does_not_work_off_its_queue(connect, rotator, settings):
    """100 connections need a refresh, 32 are asked for: the rest would take three answers' time."""
    settings.SIPGATE_PAGE_WAIT_SECONDS = 0.2
    rotator.set(latency=10)
    user = connect(age=400).user
    for _ in range(99):
        SocialAccount.objects.filter(pk=connect(age=400).pk).update(user=user)
    session = session_of(visitor(user))
    with site(processes=1, threads=4) as running:
        assert running.get("/account.json", session=session).status_code == 200
        wait_for(lambda: rotator.counts()["arrived"] == 32)
        started = time.monotonic()
        running.stop()
        assert time.monotonic() - started < 20
    counts = rotator.counts()
    assert (counts["arrived"], counts["rotated"], counts["reuse"]) == (32, 32, 0)
    rows = SipgateToken.objects.values_list("number", "state", "lease_holder")
    assert Counter(rows) == {(2, "active", ""): 32, (1, "active", ""): 68}


@pytest.mark.long
def test_other_pages_stay_quick_while_sipgate_hangs(browser, session, settings):
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
        for path in ("/accounts/email/", "/readyz"):
            answer = running.get(path, session=session)
            assert (answer.status_code, answer.elapsed.total_seconds() < 1) == (200, True)
        browser.sandbox.control.clear()


@pytest.fixture
def session(browser: Browser, settings: Any) -> str:
    """The session of a person who has signed in with sipgate."""
    settings.SIPGATE_PAGE_WAIT_SECONDS = 20
    browser.sign_in()
    return session_of(browser.site)
