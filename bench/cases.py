"""The cases: this project's way beside a bare one. Times are milliseconds."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import requests
from allauth.socialaccount.models import SocialAccount
from allauth.socialaccount.providers import registry
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.db import connection as database
from django.db import connections
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from sipgate_project import urls
from sipgate_provider import background, errors, tokens
from sipgate_provider.models import SipgateToken
from sipgate_provider.tokens import rows
from sipgate_sandbox.launch import Running, sign_in

from . import plain

CALLERS = 32
Work = Callable[[], object]
Taken = tuple[list[float], list[float]]
"""Milliseconds of our way, and of the bare one."""

registry.provider_map["plain"] = plain.PlainProvider
settings.SOCIALACCOUNT_PROVIDERS["plain"] = settings.SOCIALACCOUNT_PROVIDERS["sipgate"]
urls.urlpatterns += plain.urlpatterns


def valid_token(_sandbox: Running, number: int) -> None:
    """A valid token, beside objects.get() of its row"""
    keys = [person(f"{index}000000w0").pk for index in (1, 2, 3, 4)]
    taken = compare(
        10 * number,
        lambda: tokens.token(random.choice(keys)),
        lambda: SipgateToken.objects.get(pk=random.choice(keys)),
    )
    with CaptureQueriesContext(database) as captured:
        tokens.token(keys[0])
    promise("queries", len(captured), 1)
    promise("times objects.get()", ratio(taken), 1.6)
    promise("p50 in ms", statistics.median(taken[0]), 0.6)


def refresh(_sandbox: Running, number: int) -> None:
    """A refresh, beside a bare POST to the token endpoint, in processor time of this process"""
    connection, bare = person("1000000w0"), bare_refresh(person("2000000w0"))
    taken = compare(number, lambda: tokens.refresh(connection), bare, clock=time.process_time)
    promise("times requests.post()", ratio(taken), 3)


def contention(sandbox: Running, number: int) -> None:
    """32 callers who need the same new token, beside one bare POST"""
    connection, bare = person("1000000w0").pk, bare_refresh(person("2000000w0"))
    rotations = []

    def ask(_caller: int) -> None:
        tokens.token(connection)
        connections.close_all()

    def crowd() -> None:
        SipgateToken.objects.filter(pk=connection).update(expires_at=timezone.now())
        before = sandbox.control.state()["rotations"]
        with ThreadPoolExecutor(CALLERS) as pool:
            list(pool.map(ask, range(CALLERS)))
        rotations.append(sandbox.control.state()["rotations"] - before)

    compare(number // 10, crowd, bare)
    promise("refreshes per token that has ended", max(rotations), 1)


def page_asking(_sandbox: Running, number: int) -> None:
    """/account.json that asks sipgate each time, beside a plain view that does"""
    _pages(number, max_age=0, limit=1.1)


def page_known(_sandbox: Running, number: int) -> None:
    """/account.json with data of the last minute, beside a plain view that asks sipgate"""
    _pages(number, max_age=60, limit=0.5)


def _pages(number: int, *, max_age: int, limit: float) -> None:
    browser, plain_browser = Browser("1000000w0"), Browser("2000000w0", at_plain_site=True)
    for one in (browser, plain_browser):
        one.arrive(one.consent())
    with override_settings(SIPGATE_ACCOUNT_MAX_AGE_SECONDS=max_age):
        taken = compare(
            number,
            lambda: browser.show("/account.json"),
            lambda: plain_browser.show("/plain/account.json"),
        )
    promise("times the plain view", ratio(taken), limit)


def callback(_sandbox: Running, number: int) -> None:
    """A known person's callback, beside that of allauth's own OAuth 2.0 provider"""
    browser, plain_browser = Browser("1000000w0"), Browser("2000000w0", at_plain_site=True)
    UserSession.objects.all().delete()  # allauth asks for each, and other cases left us more

    def coming_back(browser: Browser) -> Work:
        address = browser.consent()
        return lambda: browser.arrive(address)

    taken = compare(
        number, lambda: coming_back(browser), lambda: coming_back(plain_browser), prepares=True
    )
    promise("times the plain callback", ratio(taken), 1.25)


def silence(sandbox: Running, number: int) -> None:
    """Tokens and pages of a person with a usable token, before sipgate is silent and while it is"""
    browser, key = Browser("1000000w0"), person("1000000w0").pk
    waiting = [person(f"{index}000000w0") for index in (2, 3, 4)]
    browser.arrive(browser.consent())

    def use() -> None:
        tokens.token(key)
        browser.show("/account.json")

    def p95() -> float:
        return statistics.quantiles([timed(use) for _ in range(number)], n=20)[-1]

    with override_settings(SIPGATE_ACCOUNT_MAX_AGE_SECONDS=600):
        p95()
        before = p95()
        sandbox.control.fault("slow", on="refresh", times=None, seconds=20)
        for connection in waiting:
            with suppress(errors.SipgateUnavailable):
                tokens.refresh(connection, wait=0.1)
        during, held = p95(), _connections_held()
        sandbox.control.clear()
        background.refreshes.wait_idle(60)
    print(f"  before  p95 {before:7.2f} ms\n  during  p95 {during:7.2f} ms")
    promise("times before", during / before, 1.2)
    promise("database connections held", held, 0)


def _connections_held() -> int:
    connections.close_all()
    pool = getattr(database, "pool", None)
    if pool is None:  # SQLite
        return 0
    statistics_of_pool = pool.get_stats()
    return int(statistics_of_pool["pool_size"] - statistics_of_pool["pool_available"])


def compare(
    number: int,
    ours: Callable[[], Any],
    bare: Callable[[], Any],
    *,
    clock: Callable[[], float] = time.perf_counter,
    prepares: bool = False,
) -> Taken:
    """Do both, in turns; print and return how long each call took by ``clock``.

    ``prepares``: each returns what is to be measured.
    """
    taken: Taken = ([], [])
    for turn in range(2 * number + 2):
        work = (ours, bare)[turn % 2]
        milliseconds = timed(work() if prepares else work, clock)
        if turn > 1:  # the first of each fills caches and opens connections
            taken[turn % 2].append(milliseconds)
    for name, samples in zip(("ours", "bare"), taken, strict=True):
        p99 = sorted(samples)[int(len(samples) * 0.99)]
        print(f"  {name:7} p50 {statistics.median(samples):7.2f} ms   p99 {p99:7.2f} ms")
    return taken


def timed(work: Work, clock: Callable[[], float] = time.perf_counter) -> float:
    began = clock()
    work()
    return (clock() - began) * 1000


def ratio(taken: Taken) -> float:
    ours, bare = taken
    return statistics.median(ours) / statistics.median(bare)


def promise(what: str, value: float, limit: float) -> None:
    print(f"  {'kept' if value <= limit else 'MISSED':7} {what}: {value:.2g}, at most {limit:g}")


class Browser(Client):
    """A browser of somebody who is signed in at sipgate, at this site or at the plain one."""

    def __init__(self, uid: str, *, at_plain_site: bool = False) -> None:
        super().__init__(headers={"host": "localhost:8080"})
        self.uid, self.at_sipgate, self.at_plain_site = uid, requests.Session(), at_plain_site
        self.login = "/plain/login" if at_plain_site else "/accounts/sipgate/login/"
        self.callback = "/plain/callback" if at_plain_site else "/oauth"

    def consent(self) -> str:
        """Go to sipgate; return the address that leads back."""
        started = self.post(self.login)
        back = sign_in(self.at_sipgate, started["Location"], person=self.uid)
        return f"{self.callback}?{urlsplit(back).query}"

    def arrive(self, address: str) -> None:
        settings.SOCIALACCOUNT_STORE_TOKENS = self.at_plain_site
        answer = self.get(address)
        assert answer.status_code == 302, answer.content.decode()

    def show(self, address: str) -> None:
        assert self.get(address).status_code == 200, address


def person(uid: str) -> SocialAccount:
    """Return the connection of one of the sandbox's people, who has just signed in at the site."""
    browser = Browser(uid)
    browser.arrive(browser.consent())
    return SocialAccount.objects.get(uid=uid, provider="sipgate")


def bare_refresh(connection: SocialAccount) -> Work:
    """Return a function that refreshes a person's tokens and keeps the new ones in a variable."""
    row = SipgateToken.objects.get(pk=connection.pk)
    held_by_row = rows.opened(row)
    held = str(held_by_row.refresh_token)
    app = settings.SOCIALACCOUNT_PROVIDERS["sipgate"]["APPS"][0]
    client = {"client_id": app["client_id"], "client_secret": app["secret"]}

    def ask() -> None:
        nonlocal held
        form = {"grant_type": "refresh_token", "refresh_token": held, **client}
        answer = requests.post(settings.SIPGATE_TOKEN_URL, data=form, timeout=60)
        answer.raise_for_status()
        held = answer.json()["refresh_token"]

    return ask


ALL = (valid_token, refresh, contention, page_asking, page_known, callback, silence)
