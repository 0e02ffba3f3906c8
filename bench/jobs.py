"""What a worker process can be told to do. Times are milliseconds, rates are per second, unless a name says otherwise."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import requests
import urllib3
from allauth.socialaccount.models import SocialAccount
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection as sql
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from bench import counterpart, peers
from bench.models import ClearJson, ClearToken
from sipgate_provider import accounts, errors
from sipgate_provider.client import SipgateClient
from sipgate_provider.keeper import database, gate, sealing, store, threads
from sipgate_provider.models import SipgateToken, State
from sipgate_provider.ops import keepalive
from sipgate_provider.ops.reseal import reseal as reseal_all
from sipgate_provider.remote import oauth

JOBS: dict[str, Callable[..., Any]] = {}
LIFETIME = 300.0


def job(work: Callable[..., Any]) -> Callable[..., Any]:
    JOBS[work.__name__] = work
    return work


def timed(work: Callable[[], object], number: int) -> list[float]:
    """Return how long each of ``number`` calls took."""
    samples = []
    for _ in range(number):
        began = time.perf_counter()
        work()
        samples.append((time.perf_counter() - began) * 1000)
    return samples


def issue(number: int) -> list[dict[str, Any]]:
    pairs: list[dict[str, Any]] = []
    while len(pairs) < number:
        pairs += counterpart.control(settings.BENCH_COUNTERPART, issue=min(number - len(pairs), 500))
    return pairs


# --- rows -------------------------------------------------------------------------------------------------------------


@job
def prepare() -> dict[str, str]:
    """Make the tables; return what is worth knowing of the database."""
    call_command("migrate", verbosity=0)
    with sql.schema_editor() as editor:  # after the migrations that they refer to, which syncdb is not
        for model in (ClearToken, ClearJson):
            editor.create_model(model)
    with sql.cursor() as cursor:
        if sql.vendor == "postgresql":
            cursor.execute(
                "SELECT current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit')"
            )
            version, fsync, synchronous = cursor.fetchone()
            return {"version": version, "fsync": fsync, "synchronous_commit": synchronous}
        cursor.execute("SELECT sqlite_version()")
        version = cursor.fetchone()[0]
        cursor.execute("PRAGMA journal_mode")
        mode = cursor.fetchone()[0]
        cursor.execute("PRAGMA synchronous")
        return {"version": version, "journal_mode": mode, "synchronous": str(cursor.fetchone()[0])}


@job
def populate(number: int, clear: bool = False) -> list[int]:
    """Make ``number`` users with a connection and a fresh token, instead of those there are; return the connections.

    ``clear``: also rows of the peers' shapes, with pairs of their own.
    """
    get_user_model().objects.all().delete()
    now = datetime.now(UTC)
    users = get_user_model().objects.bulk_create(get_user_model()(username=f"person{i}") for i in range(number))
    made = SocialAccount.objects.bulk_create(
        SocialAccount(user=user, provider="sipgate", uid=f"{1_000_000 + i}w0") for i, user in enumerate(users)
    )
    rows = []
    for connection, answer in zip(made, issue(number), strict=True):
        grant = oauth.Grant.parse(answer, issued_at=now)
        pair = sealing.Pair(access_token=grant.access_token, refresh_token=grant.refresh_token)
        # One statement for all rows; consents one by one would take longer than what is measured.
        columns = store._columns(grant, pair, connection_id=connection.pk, generation=1)
        rows.append(SipgateToken(connection_id=connection.pk, consented_at=now, state_since=now, **columns))
    SipgateToken.objects.bulk_create(rows, batch_size=500)
    if clear:
        for user, connection, one, two in zip(users, made, issue(number), issue(number), strict=True):
            ClearToken(
                user=user,
                uid=connection.uid,
                access_token=one["access_token"],
                refresh_token=one["refresh_token"],
                created=now,
            ).save()
            ClearJson(user=user, uid=connection.uid, extra_data=two).save()
            peers.add_social(user, connection.uid, issue(1)[0])
    if sql.vendor == "postgresql":
        with sql.cursor() as cursor:
            cursor.execute("ANALYZE")
    return [connection.pk for connection in made]


@job
def age(seconds: float, connection: int | None = None) -> None:
    """Let tokens be ``seconds`` old; those in a failed state get well."""
    moment = datetime.now(UTC) - timedelta(seconds=seconds)
    rows = SipgateToken.objects.all() if connection is None else SipgateToken.objects.filter(pk=connection)
    rows.update(
        issued_at=moment,
        expires_at=moment + timedelta(seconds=LIFETIME),
        lease_owner="",
        lease_until=None,
        state=State.ACTIVE,
        reason="",
        next_attempt_at=None,
        failing_since=None,
    )


@job
def peer_names() -> dict[str, str]:
    return peers.names()


@job
def states() -> dict[str, int]:
    return {state: SipgateToken.objects.filter(state=state).count() for state in State.values}


# --- valid token ------------------------------------------------------------------------------------------------------


@job
def queries_of_gate(connection: int) -> int:
    with CaptureQueriesContext(sql) as captured:
        gate.usable(connection)
    return len(captured)


@job
def hand_out(how: str, pks: list[int], number: int) -> list[float]:
    """Hand out valid tokens: ``usable``, or what of it the ORM and the driver take."""

    clear = list(ClearToken.objects.values_list("pk", flat=True))

    def raw() -> None:
        with sql.cursor() as cursor:
            cursor.execute(
                "SELECT sealed FROM sipgate_provider_sipgatetoken WHERE connection_id = %s", [random.choice(pks)]
            )
            cursor.fetchone()

    ways: dict[str, Callable[[], object]] = {
        "usable": lambda: gate.usable(random.choice(pks)),
        "orm": lambda: SipgateToken.objects.filter(pk=random.choice(pks)).first(),
        "clear": lambda: peers.valid_token(random.choice(clear)),
        "raw": raw,
    }
    return timed(ways[how], number)


# --- calls ------------------------------------------------------------------------------------------------------------

KEPT: dict[str, Any] = {}


@job
def calls(how: str, connection: int, number: int) -> list[float]:
    """GET /account with a valid token."""
    if how not in KEPT:
        KEPT[how] = _caller(how, SocialAccount.objects.get(pk=connection))
    return timed(KEPT[how], number)


def _caller(how: str, connection: SocialAccount) -> Callable[[], object]:
    url = f"{settings.SIPGATE_API_URL}/account"
    headers = {"Authorization": f"Bearer {gate.usable(connection).value}"}
    kept = requests.Session()
    browser = Client(headers={"host": "localhost:8080"})
    browser.force_login(connection.user)

    def client() -> object:
        return SipgateClient(connection).get("/account")

    def for_user() -> object:
        return SipgateClient.for_user(connection.user).get("/account")

    def page() -> None:
        assert b"Bench GmbH" in browser.get("/account").content

    def page_json() -> None:
        assert browser.get("/account.json").json()["connections"][0]["fresh"]

    return {
        "client": client,
        "for_user": for_user,
        "page": page,
        "json": page_json,
        "home": lambda: browser.get("/"),
        "kept": lambda: kept.get(url, headers=headers).json(),
        "new": lambda: requests.get(url, headers=headers).json(),
    }[how]


# --- bulk -------------------------------------------------------------------------------------------------------------


@job
def bulk_ours(threads: int) -> dict[str, Any]:
    age(LIFETIME + 100)
    began, cpu = time.perf_counter(), time.process_time()
    report = keepalive.run(rate=0, threads=threads, everything=True)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    if report.stopped or report.failed or report.needs_sign_in:
        raise RuntimeError(f"the keeper did not finish: {report.as_dict()}")
    return {"rate": report.refreshed / seconds, "number": report.refreshed, "cpu_ms": cpu * 1000 / report.refreshed}


@job
def bulk_floor(threads: int) -> dict[str, Any]:
    """The least that storing a refreshed pair takes: claim in batches, ask by urllib3, one UPDATE per pair.

    No journal, no log, no history, no second look, statements written by hand. What ``bulk_ours`` could come near to.
    """
    age(LIFETIME + 100)
    pool = urllib3.PoolManager(maxsize=threads)
    url = settings.SIPGATE_TOKEN_URL
    form = {"grant_type": "refresh_token", "client_id": settings.CLIENT_ID, "client_secret": settings.CLIENT_SECRET}
    update = (
        "UPDATE sipgate_provider_sipgatetoken SET sealed = %s, issued_at = %s, expires_at = %s, refresh_expires_at = %s, "
        "generation = generation + 1, refresh_count = refresh_count + 1, last_refreshed_at = %s, lease_owner = '', "
        "lease_until = NULL, access_fingerprint = %s, refresh_fingerprint = %s "
        "WHERE connection_id = %s AND generation = %s AND lease_owner = %s"
    )

    def one(job: tuple[SipgateToken, store.Claim]) -> None:
        row, claim = job
        pair = sealing.open_pair(row.sealed, connection_id=row.pk, generation=row.generation)
        fields = {**form, "refresh_token": pair.refresh_token}
        grant = oauth.Grant.parse(
            pool.request("POST", url, fields=fields, encode_multipart=False).json(), issued_at=datetime.now(UTC)
        )
        new = sealing.Pair(access_token=grant.access_token, refresh_token=grant.refresh_token)
        now = grant.issued_at
        values = [
            sealing.seal_pair(new, connection_id=row.pk, generation=row.generation + 1),
            now,
            now + timedelta(seconds=grant.expires_in or 0),
            now + timedelta(seconds=grant.refresh_expires_in or 0),
            now,
            sealing.fingerprint(new.access_token),
            sealing.fingerprint(new.refresh_token),
            row.pk,
            row.generation,
            claim.owner,
        ]
        with sql.cursor() as cursor:
            cursor.execute(update, values)

    started = datetime.now(UTC)
    began, cpu, number = time.perf_counter(), time.process_time(), 0
    with ThreadPoolExecutor(threads) as crew:
        free = threading.Semaphore(threads * 2)

        def run(job: tuple[SipgateToken, store.Claim]) -> None:
            try:
                one(job)
            finally:
                database.release_connections()
                free.release()

        futures = []
        while batch := keepalive.claim_batch(64, started_at=started, everything=True):
            database.release_connections()
            for each in batch:
                free.acquire()
                futures.append(crew.submit(run, each))
        for future in futures:
            future.result()
            number += 1
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"rate": number / seconds, "number": number, "cpu_ms": cpu * 1000 / number}


@job
def bulk_peer(how: str, number: int, threads: int = 1) -> dict[str, Any]:
    """Refresh ``number`` expired tokens in a peer's way."""
    refresh, keys = peers.bulk(how, number)
    began, cpu = time.perf_counter(), time.process_time()
    _spread(refresh, keys, threads)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"rate": len(keys) / seconds, "number": len(keys), "cpu_ms": cpu * 1000 / len(keys)}


@job
def bulk_bare(how: str, number: int, threads: int) -> dict[str, Any]:
    """Refresh and store nothing: how fast the client library and the counterpart are."""
    old = [pair["refresh_token"] for pair in issue(number)]
    form = {"grant_type": "refresh_token", "client_id": settings.CLIENT_ID, "client_secret": settings.CLIENT_SECRET}
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=threads))
    pool = urllib3.PoolManager(maxsize=threads)

    def with_requests(token: str) -> None:
        response = session.post(settings.SIPGATE_TOKEN_URL, data={**form, "refresh_token": token})
        assert response.json()["access_token"]

    def with_urllib3(token: str) -> None:
        fields = {**form, "refresh_token": token}
        response = pool.request("POST", settings.SIPGATE_TOKEN_URL, fields=fields, encode_multipart=False)
        assert response.json()["access_token"]

    began, cpu = time.perf_counter(), time.process_time()
    _spread(with_requests if how == "requests" else with_urllib3, old, threads)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"rate": number / seconds, "number": number, "cpu_ms": cpu * 1000 / number}


def _spread(work: Callable[[Any], object], things: list[Any], threads: int) -> None:
    if threads == 1:
        for thing in things:
            work(thing)
        return

    def run(thing: Any) -> None:
        try:
            work(thing)
        finally:
            database.release_connections()

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(run, things):
            pass


# --- windows and contention -------------------------------------------------------------------------------------------


@job
def crowd(how: str, connection: int, threads: int) -> list[tuple[str, float]]:
    """Let ``threads`` threads ask for one token at once; return what each got, and after how long."""
    outcomes: list[tuple[str, float]] = []
    start = threading.Barrier(threads)
    ask: Callable[[int], object] = gate.usable if how == "gate" else peers.ask_unguarded

    def one() -> None:
        start.wait()
        began = time.perf_counter()
        try:
            ask(connection)
            kind = "ok"
        except (errors.SipgateError, peers.Failed) as error:
            kind = type(error).__name__
        finally:
            took = (time.perf_counter() - began) * 1000
            connections.close_all()
        outcomes.append((kind, took))

    crew = [threading.Thread(target=one) for _ in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return outcomes


@job
def unguarded_again(connection: int) -> None:
    """Give the peers' row of a connection a new expired pair."""
    peers.renew_pair(connection)


@job
def unguarded_lost(connection: int) -> bool:
    """Tell whether the peers' row of a connection is unusable now."""
    return peers.is_lost(connection)


@job
def window(pks: list[int], share_left: float, behind: int) -> dict[str, list[float]]:
    """Ask once per connection with ``share_left`` of its token's life left, then ``behind`` times more.

    ``first``: the caller that starts a refresh, if one is due; ``behind``: those that come while it runs.
    """
    age(LIFETIME * (1 - share_left))
    first, later = [], []
    for pk in pks:
        first += timed(lambda: gate.usable(pk), 1)  # noqa: B023  # used at once
        later += timed(lambda: gate.usable(pk), behind)  # noqa: B023  # used at once
        threads.refreshes.wait_idle(10)
    return {"first": first, "behind": later}


# --- changing keys ----------------------------------------------------------------------------------------------------


@job
def keys(texts: list[str]) -> None:
    settings.SIPGATE_TOKEN_KEYS = texts


@job
def reseal() -> dict[str, Any]:
    began = time.perf_counter()
    report = reseal_all().as_dict()
    return {**report, "seconds": time.perf_counter() - began}


TRAFFIC: dict[str, Any] = {}


@job
def traffic_start(pks: list[int], pause: float) -> None:
    """Use tokens in four threads, every tenth time with a refresh, until told to stop."""
    TRAFFIC.update(stop=threading.Event(), uses=[], refreshes=0, failures=[], threads=[], began=time.perf_counter())

    def visit(number: int) -> None:
        count = number
        while not TRAFFIC["stop"].wait(pause):
            count += 1
            pk = random.choice(pks)
            began = time.perf_counter()
            try:
                if count % 10:
                    gate.usable(pk)
                    TRAFFIC["uses"].append((time.perf_counter() - began) * 1000)
                else:
                    gate.refresh(pk)
                    TRAFFIC["refreshes"] += 1
            except errors.SipgateError as error:
                TRAFFIC["failures"].append(repr(error))
        connections.close_all()

    TRAFFIC["threads"] = [threading.Thread(target=visit, args=(number,)) for number in range(4)]
    for thread in TRAFFIC["threads"]:
        thread.start()


@job
def traffic_stop() -> dict[str, Any]:
    TRAFFIC["stop"].set()
    for thread in TRAFFIC["threads"]:
        thread.join()
    threads.refreshes.wait_idle(40)
    return {
        "uses": TRAFFIC["uses"],
        "refreshes": TRAFFIC["refreshes"],
        "failures": TRAFFIC["failures"],
        "seconds": time.perf_counter() - TRAFFIC["began"],
    }


@job
def lost() -> dict[str, int]:
    """Open every pair and ask the counterpart which refresh tokens are still good."""
    unreadable, alive, held = 0, 0, []
    for row in SipgateToken.objects.iterator(chunk_size=1000):
        try:
            pair = sealing.open_pair(row.sealed, connection_id=row.pk, generation=row.generation)
        except errors.Misconfigured:
            unreadable += 1
        else:
            held.append(str(pair.refresh_token))
    for start in range(0, len(held), 1000):
        alive += counterpart.control(settings.BENCH_COUNTERPART, alive=held[start : start + 1000])
    return {"rows": unreadable + len(held), "unreadable": unreadable, "dead": len(held) - alive}


# --- sign-in, pages ---------------------------------------------------------------------------------------------------


@job
def sign_ins(provider: str, first: int, number: int) -> list[float]:
    """Sign in ``number`` people, from the button to the page they land on; the time at the counterpart counts, too."""
    samples = []
    for person in range(first, first + number):
        browser = Client(headers={"host": "localhost:8080"})
        began = time.perf_counter()
        answer = browser.post(f"/accounts/{provider}/login/")
        state = answer.headers["Location"].partition("state=")[2].partition("&")[0]
        callback = "/oauth" if provider == "sipgate" else "/accounts/plain/login/callback/"
        answer = browser.get(callback, {"code": f"p{person}", "state": state})
        samples.append((time.perf_counter() - began) * 1000)
        if answer.status_code != 302 or "_auth_user_id" not in browser.session:
            raise RuntimeError(f"sign-in answered {answer.status_code}: {answer.content[:500]!r}")
    return samples


@job
def sessions(pks: list[int]) -> list[str]:
    """Sign the users of connections in; return their session cookies."""
    cookies = []
    for pk in pks:
        browser = Client(headers={"host": "localhost:8080"})
        browser.force_login(SocialAccount.objects.get(pk=pk).user)
        cookies.append(browser.cookies[settings.SESSION_COOKIE_NAME].value)
    return cookies


@job
def remember_accounts(pks: list[int]) -> None:
    """Fetch the accounts once, so that there is something last known."""
    for pk in pks:
        accounts.fetch(accounts.connections_of(SocialAccount.objects.get(pk=pk).user)[0])


@job
def profile(work: str, **arguments: Any) -> str:
    """Run a job under cProfile; return where the time went."""
    import cProfile
    import io
    import pstats

    profiler = cProfile.Profile()
    profiler.runcall(JOBS[work], **arguments)
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).sort_stats("tottime").print_stats(45)
    return text.getvalue()
