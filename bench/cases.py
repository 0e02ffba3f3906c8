"""The cases: this project's way beside a bare one. Times are milliseconds."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import requests
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.db import connection as database
from django.db import connections
from django.http import HttpRequest, JsonResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path
from django.utils import timezone

from sipgate_project import urls
from sipgate_provider import tokens
from sipgate_provider.models import SipgateToken
from sipgate_provider.tokens import rows
from sipgate_sandbox.launch import Running, sign_in

CALLERS = 32
Work = Callable[[], object]


def valid_token(_sandbox: Running, number: int) -> None:
    """A valid token, beside objects.get() of its row"""
    keys = [person(f"{index}000000w0").pk for index in (1, 2, 3, 4)]
    ours, _bare = compare(
        10 * number,
        lambda: tokens.token(random.choice(keys)),
        lambda: SipgateToken.objects.get(pk=random.choice(keys)),
    )
    with CaptureQueriesContext(database) as captured:
        tokens.token(keys[0])
    promise("queries", len(captured), 1)
    promise("p50 in ms", statistics.median(ours), 0.6)


def refresh(_sandbox: Running, number: int) -> None:
    """A refresh, beside a bare POST to the token endpoint, in processor time of this process"""
    connection, bare = person("1000000w0"), bare_refresh(person("2000000w0"))
    compare(number, lambda: tokens.refresh(connection), bare, clock=time.process_time)


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


def page(_sandbox: Running, number: int) -> None:
    """/account.json with data of the last minute, beside a view that asks sipgate"""
    connection = person("1000000w0")
    headers = {"Authorization": f"Bearer {tokens.token(connection).value}"}

    def plain(request: HttpRequest) -> JsonResponse:
        SipgateToken.objects.get(connection__user=request.user.pk)
        url = f"{settings.SIPGATE_API_URL}/account"
        return JsonResponse(requests.get(url, headers=headers, timeout=60).json())

    urls.urlpatterns.append(path("plain.json", plain))
    browser = Client(headers={"host": "localhost:8080"})
    browser.force_login(connection.user, backend="django.contrib.auth.backends.ModelBackend")

    def get(address: str) -> None:
        assert browser.get(address).status_code == 200, address

    ours, bare = compare(number, lambda: get("/account.json"), lambda: get("/plain.json"))
    promise("times the bare view", statistics.median(ours) / statistics.median(bare), 1)


def compare(
    number: int, ours: Work, bare: Work, *, clock: Callable[[], float] = time.perf_counter
) -> tuple[list[float], list[float]]:
    """Do both, in turns; print and return how long each call took by ``clock``."""
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(2 * number + 2):
        work = (ours, bare)[turn % 2]
        began = clock()
        work()
        if turn > 1:  # the first of each fills caches and opens connections
            taken[turn % 2].append((clock() - began) * 1000)
    for name, samples in zip(("ours", "bare"), taken, strict=True):
        p99 = sorted(samples)[int(len(samples) * 0.99)]
        print(f"  {name:7} p50 {statistics.median(samples):7.2f} ms   p99 {p99:7.2f} ms")
    return taken


def promise(what: str, value: float, limit: float) -> None:
    print(f"  {'kept' if value <= limit else 'MISSED':7} {what}: {value:.2g}, at most {limit:g}")


def person(uid: str) -> SocialAccount:
    """Return the connection of one of the sandbox's people, who has just signed in at the site."""
    browser = Client(headers={"host": "localhost:8080"})
    with requests.Session() as at_sipgate:
        started = browser.post("/accounts/sipgate/login/")
        browser.get(sign_in(at_sipgate, started["Location"], person=uid))
    return SocialAccount.objects.get(uid=uid)


def bare_refresh(connection: SocialAccount) -> Work:
    """Return a function that refreshes a person's tokens and keeps the new ones in a variable."""
    row = SipgateToken.objects.get(pk=connection.pk)
    held_by_row = rows.opened(row)
    session, held = requests.Session(), str(held_by_row.refresh_token)
    app = settings.SOCIALACCOUNT_PROVIDERS["sipgate"]["APPS"][0]
    client = {"client_id": app["client_id"], "client_secret": app["secret"]}

    def ask() -> None:
        nonlocal held
        form = {"grant_type": "refresh_token", "refresh_token": held, **client}
        answer = session.post(settings.SIPGATE_TOKEN_URL, data=form, timeout=60)
        answer.raise_for_status()
        held = answer.json()["refresh_token"]

    return ask
