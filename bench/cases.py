"""The cases. Each takes a place and returns what it measured: this project first, then its bare baselines."""

from __future__ import annotations

import base64
import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import django
import requests
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection as sql
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from sipgate_provider import accounts, errors
from sipgate_provider.client import SipgateClient
from sipgate_provider.models import SipgateToken
from sipgate_provider.ops import reseal as key_change
from sipgate_provider.remote import oauth
from sipgate_provider.tokens import gate, sealing, store
from sipgate_provider.tokens.refresh import RefreshRequest, refresh_connection
from sipgate_sandbox.launch import Running, sign_in

from . import over_http
from .measure import Case, Contender, Samples, Target, in_turns, spent, timed

HOST = "localhost:8080"
LIFETIME = timedelta(seconds=300)


@dataclass(frozen=True)
class Place:
    """Where is measured: the sandbox, new databases by name, how much (``quick`` only shows that it runs)."""

    sandbox: Running
    database: Callable[[str], str]
    quick: bool

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full


# --- what is there ----------------------------------------------------------------------------------------------------


def person(uid: str) -> SocialAccount:
    """Return the connection of a person of the sandbox, who has just signed in at the site."""
    browser = Client(headers={"host": HOST})
    with requests.Session() as at_sipgate:
        started = browser.post("/accounts/sipgate/login/")
        browser.get(sign_in(at_sipgate, started["Location"], person=uid))
    return SocialAccount.objects.get(uid=uid)


def fill(number: int) -> list[int]:
    """Make connections with invented pairs, for what does not ask sipgate; return their keys."""
    first = SocialAccount.objects.count()
    keys = []
    for index in range(first, first + number):
        user = get_user_model().objects.create(username=f"person{index}")
        connection = SocialAccount.objects.create(
            user=user, provider="sipgate", uid=f"{20_000_000 + index}w0"
        )
        answer = {
            "access_token": "a" * 800,
            "refresh_token": "r" * 600,
            "expires_in": 86_400,
            "token_type": "Bearer",
        }
        grant = oauth.Grant.parse(answer, issued_at=datetime.now(UTC))
        store.consent(connection, grant, requested_scope=["account:read"], now=datetime.now(UTC))
        keys.append(connection.pk)
    return keys


def age(connection: int, seconds: float) -> None:
    """Let a connection's access token be ``seconds`` old."""
    issued = datetime.now(UTC) - timedelta(seconds=seconds)
    SipgateToken.objects.filter(pk=connection).update(
        issued_at=issued, expires_at=issued + LIFETIME
    )


# --- the cases --------------------------------------------------------------------------------------------------------


def token(place: Place) -> Case:
    """A valid token is handed out."""
    keys = fill(place.size(500, 50))
    number = place.size(500, 100)

    def bare() -> None:
        with sql.cursor() as cursor:
            cursor.execute(
                "SELECT sealed FROM sipgate_provider_sipgatetoken WHERE connection_id = %s",
                [random.choice(keys)],
            )
            cursor.fetchone()

    taken = in_turns(
        place.size(9, 2),
        {
            "gate.usable: one query, a look at the deadline, the pair opened": lambda: timed(
                lambda: gate.usable(random.choice(keys)), number
            ),
            "baseline: the same row by the ORM, nothing opened": lambda: timed(
                lambda: SipgateToken.objects.get(pk=random.choice(keys)), number
            ),
            "baseline: one column by the driver": lambda: timed(bare, number),
        },
    )
    with CaptureQueriesContext(sql) as captured:
        gate.usable(keys[0])
    targets = [
        Target("valid token: queries", len(captured), 1, ""),
        Target("valid token: p50", taken[0].median, 0.6),
        Target("valid token: p99", taken[0].at(0.99), 1.0),
    ]
    return Case("valid token", taken, targets)


def call(place: Place) -> Case:
    """GET /account with a valid token: the client against a bare request on a kept connection."""
    connection = person("1000000w0")
    client, kept, number = SipgateClient(connection), requests.Session(), place.size(100, 20)
    headers = {"Authorization": f"Bearer {gate.usable(connection).value}"}
    url = f"{settings.SIPGATE_API_URL}/account"
    taken = in_turns(
        place.size(7, 2),
        {
            "SipgateClient.get": lambda: timed(lambda: client.get("/account"), number),
            "baseline: requests.get, connection kept": lambda: timed(
                lambda: kept.get(url, headers=headers), number
            ),
        },
    )
    overhead = taken[0].median - taken[1].median
    return Case(
        "GET /account",
        taken,
        [Target("SipgateClient.get, more than a bare request: p50", overhead, 2.0)],
    )


def refresh(place: Place) -> Case:
    """A refresh: claimed, asked for, journaled and stored, against a bare request to the token endpoint."""
    ours, number = person("1000000w0"), place.size(40, 8)
    bare = _bare_refresh(person("2000000w0"))
    taken = in_turns(
        place.size(7, 2),
        {
            "gate.refresh": lambda: timed(lambda: gate.refresh(ours), number),
            "baseline: a bare POST to the token endpoint, nothing stored": lambda: timed(
                bare, number
            ),
        },
    )
    overhead = taken[0].median - taken[1].median
    processor = in_turns(
        place.size(7, 2),
        {
            "processor: a refresh, in its own thread": lambda: spent(_refreshes(ours.pk), number),
            "processor: the bare POST": lambda: spent(bare, number),
        },
    )
    own = processor[0].median - processor[1].median
    targets = [
        Target("refresh, more than a bare request: p50", overhead, 15.0),
        Target("refresh, processor time more than a bare request: p50", own, 1.5),
    ]
    return Case("refresh", taken + processor, targets)


def _refreshes(connection: int) -> Callable[[], None]:
    """Return a function that refreshes as the threads behind ``gate.refresh`` do."""
    row = store.load(connection)

    def refresh_once() -> None:
        nonlocal row
        assert row is not None
        request = RefreshRequest(
            connection_id=connection, seen_generation=row.generation, patience=0, force=True
        )
        row = refresh_connection(request)

    return refresh_once


def _bare_refresh(connection: SocialAccount) -> Callable[[], None]:
    """Return a function that refreshes a person's pair and keeps the new one in a variable; the row's is spent then."""
    row = SipgateToken.objects.get(pk=connection.pk)
    pair = sealing.open_pair(row.sealed, connection_id=row.pk, generation=row.generation)
    session, held = requests.Session(), str(pair.refresh_token)
    app = settings.SOCIALACCOUNT_PROVIDERS["sipgate"]["APPS"][0]
    form = {
        "grant_type": "refresh_token",
        "client_id": app["client_id"],
        "client_secret": app["secret"],
    }

    def ask() -> None:
        nonlocal held
        answer = session.post(
            settings.SIPGATE_TOKEN_URL, data={**form, "refresh_token": held}, timeout=60
        )
        answer.raise_for_status()
        held = answer.json()["refresh_token"]

    return ask


def contention(place: Place) -> Case:
    """One token that has ended, many callers in several processes: one refresh, and nobody fails."""
    latency, processes, callers = 0.05, place.size(4, 2), 8
    connection, bare = person("1000000w0").pk, _bare_refresh(person("2000000w0"))
    place.sandbox.control.fault("slow", on="refresh", times=None, seconds=latency)
    rotated, waits, alone, failed = 0, [], [], 0
    rounds = place.size(10, 2)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=django.setup) as crew:
        list(crew.map(crowd, [(connection, callers, 0.0)] * processes))  # a start costs a second
        for _ in range(rounds):
            alone += timed(bare, 1)
            age(connection, 400)
            before = place.sandbox.control.state()
            start = time.monotonic() + 0.2
            outcomes = [
                one
                for many in crew.map(crowd, [(connection, callers, start)] * processes)
                for one in many
            ]
            rotated += place.sandbox.control.state()["rotations"] - before["rotations"]
            waits += [took for took, _ in outcomes]
            failed += sum(1 for _, error in outcomes if error)
    place.sandbox.control.clear()
    reuses = place.sandbox.control.state()["reuses"]
    taken = [
        Contender(
            f"{processes} processes × {callers} threads ask for one token that has ended", waits
        ),
        Contender("baseline: a bare POST to the token endpoint", alone),
    ]
    targets = [
        Target("contention: refreshes per token that has ended", rotated / rounds, 1, ""),
        Target("contention: failed callers, and spent tokens sent", failed + reuses, 0, ""),
        Target(
            "contention: longer than a bare request: p99", taken[0].at(0.99) - taken[1].median, 100
        ),
    ]
    return Case(f"contention, {latency * 1000:.0f} ms of latency", taken, targets)


def crowd(order: tuple[int, int, float]) -> list[tuple[float, str]]:
    """Let threads of this process ask for one token at a moment; return how long each waited, and its error."""
    connection, number, start = order

    def ask(_: int) -> tuple[float, str]:
        time.sleep(max(start - time.monotonic(), 0))
        began, error = time.perf_counter(), ""
        try:
            gate.usable(connection)
        except errors.SipgateError as failure:
            error = type(failure).__name__
        finally:
            connections.close_all()
        return (time.perf_counter() - began) * 1000, error

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(ask, range(number)))


def slow(place: Place) -> Case:
    """Pages while sipgate hangs: four web threads, four visitors who keep reloading /account."""
    seconds = place.size(10, 2)
    visitors = [person(f"{number}000000w0") for number in range(1, 5)]
    for connection in visitors:
        accounts.fetch(accounts.connections_of(connection.user)[0])  # something last known
    taken: list[Contender] = []
    few = ("--workers", "1", "--threads", "4")
    with over_http.serving("sipgate_project.wsgi", {"DATABASE_POOL": "4"}, *few) as port:
        browsers = [_browser(connection, port) for connection in visitors]
        for name, hang in (
            ("other pages while sipgate hangs", True),
            ("baseline: other pages, all is well", False),
        ):
            if hang:
                place.sandbox.control.fault("slow", times=None, seconds=30)
                for connection in visitors[::2]:
                    age(connection.pk, 400)  # half of them need a refresh, half only the API
            with _reloading("/account", browsers):
                time.sleep(1)
                taken.append(Contender(name, probe(browsers[0], seconds)))
            place.sandbox.control.clear()
    return Case(
        "sipgate hangs",
        taken,
        [Target("other pages while sipgate hangs: p99", taken[0].at(0.99), 50)],
    )


def _browser(connection: SocialAccount, port: int) -> over_http.Visitor:
    browser = Client(headers={"host": HOST})
    browser.force_login(connection.user)
    return over_http.Visitor(port, {name: cookie.value for name, cookie in browser.cookies.items()})


def probe(browser: over_http.Visitor, seconds: float) -> Samples:
    """Ask for other pages at a fixed pace, whatever the answers take.

    The time counts from when the request was due: a pause of the site is seen by all who would have come in it.
    """
    began, pace = time.perf_counter(), 20

    def ask(turn: int) -> float:
        due = began + turn / pace
        time.sleep(max(due - time.perf_counter(), 0))
        if turn % 2:
            over_http.Visitor(browser.port).ask("/accounts/login/")
        else:
            browser.ask("/")
        return (time.perf_counter() - due) * 1000

    with ThreadPoolExecutor(32) as pool:
        return list(pool.map(ask, range(int(seconds * pace))))


@contextmanager
def _reloading(path: str, browsers: list[over_http.Visitor]) -> Iterator[None]:
    """People who ask for a page, and again about a second after its answer."""
    stop = threading.Event()

    def visit(browser: over_http.Visitor) -> None:
        while not stop.wait(random.uniform(0.5, 1.5)):
            try:
                browser.ask(path)
            except OSError:
                return

    for browser in browsers:
        threading.Thread(target=visit, args=(browser,), daemon=True).start()
    try:
        yield
    finally:
        stop.set()


def reseal(place: Place) -> Case:
    """Every token is sealed with another key while tokens are used."""
    keys = fill(place.size(5_000, 200))
    rows, seconds, during, wrong = SipgateToken.objects.count(), 0.0, [], 0
    for _ in range(place.size(3, 1)):
        new = base64.urlsafe_b64encode(os.urandom(32)).decode()
        settings.SIPGATE_TOKEN_KEYS = [new, *settings.SIPGATE_TOKEN_KEYS[:1]]
        with ThreadPoolExecutor(1) as aside:
            running = aside.submit(_reseal)
            while not running.done():
                during += timed(lambda: gate.usable(random.choice(keys)), 10)
            left, took = running.result()
        settings.SIPGATE_TOKEN_KEYS = [new]
        wrong += left + sum(1 for key in keys if not _opens(key))
        seconds = max(seconds, took)
    title = f"{rows} tokens are sealed with another key, in at most {seconds:.1f} s"
    targets = [
        Target(f"{rows} tokens sealed with another key", seconds, rows / 1000, "s"),
        Target("another key: tokens left or lost", wrong, 0, ""),
    ]
    return Case(title, [Contender("gate.usable meanwhile, in the same process", during)], targets)


def _reseal() -> tuple[int, float]:
    try:
        report = key_change.reseal()
        return report.left + report.unreadable, report.seconds
    finally:
        connections.close_all()


def _opens(connection: int) -> bool:
    try:
        return bool(gate.usable(connection).value)
    except errors.SipgateError:
        return False


def pages(place: Place) -> Case:
    """Pages over HTTP, beside a plain allauth site with a refresh written by hand."""
    return over_http.measure(
        place.sandbox,
        place.database,
        rounds=place.size(7, 1),
        number=place.size(60, over_http.AT_ONCE),
    )
