"""The comparisons. Each takes a place and a size, and returns what was measured; the first contender is ours."""

from __future__ import annotations

import random
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .measure import MS, PER_SECOND, Case, Contender, Target, in_turns, number, percentile
from .workers import KEYS, Place, Worker, workers


@dataclass(frozen=True)
class Size:
    """How much is measured: ``quick`` only shows that everything runs."""

    quick: bool

    def __call__(self, full: int, quick: int) -> int:
        return quick if self.quick else full


CASES: dict[str, Callable[[Place, Size], list[Case]]] = {}


def case(work: Callable[[Place, Size], list[Case]]) -> Callable[[Place, Size], list[Case]]:
    CASES[work.__name__] = work
    return work


@case
def gate(place: Place, size: Size) -> list[Case]:
    """A valid token, handed out."""
    place.counterpart.set()
    with workers(place) as (worker,):
        pks = worker.do("populate", number=size(500, 100), clear=True)
        ways = {
            "tokens.usable: a query, a look at the deadline, the pair opened": "usable",
            "the row by the ORM, nothing opened": "orm",
            "a token in the clear, by the ORM, as the peers keep it": "clear",
            "one column by the driver: the floor": "raw",
        }
        taken = in_turns(
            size(9, 3),
            {name: _do(worker, "hand_out", how=how, pks=pks, number=size(800, 150)) for name, how in ways.items()},
        )
        queries = worker.do("queries_of_gate", connection=pks[0])
    made = Case("gate", "valid token", place.database, taken)
    made.targets = [
        Target("valid token: queries", queries, 1, "query"),
        Target("valid token: p50", taken[0].at(0.5), 0.6, MS),
        Target("valid token: p99", taken[0].at(0.99), 1.0, MS),
    ]
    return [made]


def _do(worker: Worker, job: str, **arguments: Any) -> Callable[[], Any]:
    return lambda: worker.do(job, **arguments)


@case
def calls(place: Place, size: Size) -> list[Case]:
    """GET /account with a valid token: our client and page against a bare request."""
    place.counterpart.set(lifetime=86_400)
    secure = f"{place.counterpart.secure_url}/v2"
    with (
        workers(place) as (plain,),
        workers(place, SIPGATE_API_URL=secure) as (tls,),
        workers(place, SIPGATE_API_URL=secure, REQUESTS_CA_BUNDLE=place.counterpart.only_ca) as (small,),
    ):
        pk = plain.do("populate", number=1)[0]

        def turns(worker: Worker, number: int, ways: dict[str, str]) -> list[Contender]:
            return in_turns(
                size(9, 3),
                {name: _do(worker, "calls", how=how, connection=pk, number=number) for name, how in ways.items()},
            )

        requests_made = turns(
            plain,
            size(300, 40),
            {
                CLIENT: "client",
                "SipgateClient.for_user(user).get": "for_user",
                KEPT: "kept",
                "bare requests.get, new connection": "new",
            },
        )
        pages = turns(
            plain, size(60, 10), {"page /account.json": "json", "page /account": "page", HOME: "home", KEPT: "kept"}
        )
        over_tls = turns(
            tls, size(200, 20), {CLIENT: "client", "bare requests.get, TLS connection kept": "kept", EXAMPLE: "new"}
        )
        over_tls += turns(small, size(200, 20), {SMALL: "new"})
    one = Case("calls", "GET /account, in clear text", place.database, requests_made)
    two = Case("calls_tls", "GET /account, over TLS", place.database, over_tls)
    three = Case("pages", "the site's pages, by Django's handler, without web server", place.database, pages)
    two.notes = [
        "on loopback a new TLS connection has no way to go: two round trips to sipgate come on top for the example",
        "the CA bundle is certifi's with the counterpart's certificate, as the example reads it anew for each call",
    ]
    overhead = statistics.median(a - b for a, b in zip(one[CLIENT].medians, one[KEPT].medians, strict=True))
    one.targets = [Target("SipgateClient.get over a bare kept request: p50", overhead, 1.0, MS)]
    two.targets = [
        Target(f"SipgateClient.get against {other}", two.ratio(other).median, 3.0, "×", at_most=False)
        for other in (EXAMPLE, SMALL)
    ]
    return [one, two, three]


CLIENT = "SipgateClient.get"
KEPT = "bare requests.get, connection kept"
HOME = "page / (nothing is asked of sipgate)"
EXAMPLE = "a new TLS connection per call, as in sipgate's example"
SMALL = "the same with a CA bundle of one certificate"


@case
def bulk(place: Place, size: Size) -> list[Case]:
    """Many expired tokens, 50 ms of latency."""
    threads = 64
    place.counterpart.set(latency=0.05)
    extras: dict[str, list[dict[str, Any]]] = {}
    # The peers hold a connection while they wait for the server: with a pool as small as ours they would wait for it.
    with workers(place) as (worker,), workers(place, DATABASE_POOL="70") as (other,):
        names = worker.do("peer_names")
        worker.do("populate", number=size(1000, 192), clear=True)

        def way(name: str, job: str, **arguments: Any) -> tuple[str, Callable[[], list[float]]]:
            def run() -> list[float]:
                answer = (other if job == "bulk_peer" else worker).do(job, **arguments)
                extras.setdefault(name, []).append(answer)
                return [answer["rate"]]

            return name, run

        few, many = size(40, 10), size(1000, 192)
        bare = {f"bare {library}, {threads} threads, nothing stored": library for library in ("urllib3", "requests")}
        taken = in_turns(
            size(4, 1),
            dict(
                [
                    way(f"the keeper, {threads} threads", "bulk_ours", threads=threads),
                    way(FLOOR, "bulk_floor", threads=threads),
                    *(
                        way(name, "bulk_bare", how=library, number=many, threads=threads)
                        for name, library in bare.items()
                    ),
                    *(way(f"{names[how]}, one at a time", "bulk_peer", how=how, number=few) for how in names),
                    *(
                        way(f"{names[how]}, in {threads} threads", "bulk_peer", how=how, number=many, threads=threads)
                        for how in names
                    ),
                ]
            ),
            unit=PER_SECOND,
            warm_up=not size.quick,
        )
        lost, counts = worker.do("lost"), place.counterpart.counts()
    for one in taken:
        one.extra["cpu_ms_per_token"] = statistics.median(answer["cpu_ms"] for answer in extras[one.name])
    made = Case("bulk", f"refresh of {many} expired tokens, 50 ms", place.database, taken)
    made.notes = [
        "client CPU per token: " + ", ".join(f"{one.name} {one.extra['cpu_ms_per_token']:.2f} ms" for one in taken),
        f"reuse seen by the counterpart: {counts['reuse']}; of {lost['rows']} connections lost: {lost['dead'] + lost['unreadable']}",
        f"with 50 ms and {threads} at once nothing can exceed {threads / 0.05:,.0f}/s",
    ]
    ours = taken[0]
    limits = {name: 1 / made.ratio(name).median if (made.ratio(name).median) else 0 for name in bare}
    made.targets = [
        Target("bulk refresh, 50 ms, 64 at once", ours.median, 600, PER_SECOND, at_most=False),
        Target(
            "bulk refresh against django-esi's shape",
            made.ratio(f"{names['esi']}, one at a time").median,
            30,
            "×",
            at_most=False,
        ),
        *(
            Target(f"bulk refresh, share of {name}", 100 / limit, 80, "%", at_most=False)
            for name, limit in limits.items()
        ),
        Target("bulk refresh: connections lost", lost["dead"] + lost["unreadable"] + counts["reuse"], 0, ""),
    ]
    return [made]


FLOOR = "the floor: urllib3, pair opened and sealed, one UPDATE by the driver"


@case
def windows(place: Place, size: Size) -> list[Case]:
    """What a refresh that is due costs those who ask meanwhile."""
    place.counterpart.set(latency=0.05)
    with workers(place) as (worker,):
        pks = worker.do("populate", number=size(60, 12))
        taken: dict[str, list[list[float]]] = {"advisory": [], "behind": [], "fresh": []}
        for turn in range(size(7, 2) + 1):
            # 15 % of the life left is inside the advisory window, 90 % far outside.
            for share in (0.9, 0.15) if turn % 2 else (0.15, 0.9):
                answer = worker.do("window", pks=pks, share_left=share, behind=4)
                if turn == 0:
                    continue
                if share > 0.5:
                    taken["fresh"].append(answer["first"] + answer["behind"])
                else:
                    taken["advisory"].append(answer["first"])
                    taken["behind"].append(answer["behind"])
        refreshed = place.counterpart.counts()["rotated"]
        waits = _mandatory(worker, pks, place, size)
    one = Case(
        "advisory",
        "a caller in the advisory window",
        place.database,
        [
            Contender("the caller that starts the refresh", MS, taken["advisory"]),
            Contender("callers while it runs", MS, taken["behind"]),
            Contender("a fresh token", MS, taken["fresh"]),
        ],
        notes=[f"refreshes behind the callers: {refreshed}"],
    )
    fresh = one.contenders[2]
    one.targets = [
        Target(
            f"advisory window, {who.name}: more than with a fresh token, {label}",
            who.at(share) - fresh.at(share),
            1.0,
            MS,
        )
        for who in one.contenders[:2]
        for label, share in (("p50", 0.5), ("p99", 0.99))
    ]
    return [one, waits]


def _mandatory(worker: Worker, pks: list[int], place: Place, size: Size) -> Case:
    contenders, targets = [], []
    for latency, rounds in ((0.05, size(20, 2)), (1.0, size(3, 1))):
        place.counterpart.set(latency=latency)
        samples = []
        for turn in range(rounds):
            worker.do("age", seconds=290, connection=pks[turn])  # 10 s left: inside the mandatory window
            outcomes = worker.do("crowd", how="gate", connection=pks[turn], threads=64)
            if {kind for kind, _ in outcomes} != {"ok"}:
                raise RuntimeError(f"callers failed: {Counter(kind for kind, _ in outcomes)}")
            samples.append([took for _, took in outcomes])
        contenders.append(Contender(f"64 threads of one process, latency {latency * 1000:.0f} ms", MS, samples))
        targets.append(
            Target(
                f"mandatory window, 64 callers in one process, latency {latency * 1000:.0f} ms: p99",
                contenders[-1].at(0.99),
                latency * 1000 + 100,
                MS,
            )
        )
    return Case("mandatory", "a caller in the mandatory window", place.database, contenders, targets)


@case
def contention(place: Place, size: Size) -> list[Case]:
    """Many processes and threads on one stale token, by the strict rule: any reuse ends the connection."""
    processes, threads = size(8, 2), 8
    plan = [(0.05, 1)] if size.quick else [(0.0, 10), (0.05, 10), (1.0, 3), (5.0, 1)]
    cases = []
    with workers(place, processes) as crew:
        pk = crew[0].do("populate", number=1, clear=True)[0]
        _crowd(crew, "gate", pk, threads)
        for latency, rounds in plan:
            place.counterpart.set(latency=latency)
            ours = _Tally("the gate")
            naive = _Tally("django-esi's shape: no lock, no condition")
            for turn in range(rounds):
                for tally in (ours, naive) if turn % 2 == 0 else (naive, ours):
                    _contend(tally, crew, pk, threads, place)
            cases.append(_contention_case(place, latency, (ours, naive), processes, threads))
    return cases


class _Tally:
    def __init__(self, name: str) -> None:
        self.name = name
        self.samples: list[list[float]] = []
        self.kinds: Counter[str] = Counter()
        self.refreshes = self.reuse = self.lost = 0


def _crowd(crew: list[Worker], how: str, pk: int, threads: int) -> list[tuple[str, float]]:
    for worker in crew:
        worker.tell("crowd", how=how, connection=pk, threads=threads)
    return [(kind, took) for worker in crew for kind, took in worker.read()]


def _contend(tally: _Tally, crew: list[Worker], pk: int, threads: int, place: Place) -> None:
    gate = tally.name == "the gate"
    if gate:
        crew[0].do("age", seconds=400, connection=pk)
    else:
        crew[0].do("unguarded_again", connection=pk)
    before = place.counterpart.counts()
    outcomes = _crowd(crew, "gate" if gate else "naive", pk, threads)
    after = place.counterpart.counts()
    tally.samples.append([took for _, took in outcomes])
    tally.kinds.update(kind for kind, _ in outcomes)
    tally.refreshes += after["refresh"] - before["refresh"]
    tally.reuse += after["reuse"] - before["reuse"]
    dead = crew[0].do("lost") if gate else {}
    tally.lost += dead["dead"] + dead["unreadable"] if gate else crew[0].do("unguarded_lost", connection=pk)


def _contention_case(
    place: Place, latency: float, tallies: tuple[_Tally, _Tally], processes: int, threads: int
) -> Case:
    text = f"{latency * 1000:.0f} ms"
    made = Case(
        "contention",
        f"{processes} processes × {threads} threads, one stale token, {text}",
        place.database,
        [
            Contender(
                tally.name,
                MS,
                tally.samples,
                {"refreshes": tally.refreshes, "reuse": tally.reuse, "lost": tally.lost, "outcomes": dict(tally.kinds)},
            )
            for tally in tallies
        ],
    )
    rounds = len(tallies[0].samples)
    for tally in tallies:
        failed = sum(tally.kinds.values()) - tally.kinds["ok"]
        made.notes.append(
            f"{tally.name}: {tally.refreshes} refresh requests in {rounds} rounds, {tally.reuse} reuses, {failed} of "
            f"{sum(tally.kinds.values())} callers failed, {tally.lost} of {rounds} connections lost"
        )
    ours = tallies[0]
    failed = sum(ours.kinds.values()) - ours.kinds["ok"]
    made.targets = [
        Target(f"contention, {text}: refreshes per stale token", ours.refreshes / rounds, 1, ""),
        Target(f"contention, {text}: reuses, failed callers, lost connections", ours.reuse + failed + ours.lost, 0, ""),
        Target(
            f"mandatory window, {processes * threads} callers in {processes} processes, {text}: p99",
            made.contenders[0].at(0.99),
            latency * 1000 + 100,
            MS,
        ),
    ]
    return made


@case
def sign_in(place: Place, size: Size) -> list[Case]:
    """A sign-in, from the button to the landing: ours against a minimal plain allauth provider."""
    place.counterpart.set()
    people = {"sipgate": 2_000_000, "plain": 3_000_000}
    per_round = size(20, 4)

    def fresh(worker: Worker, provider: str) -> list[float]:
        people[provider] += per_round
        return list(worker.do("sign_ins", provider=provider, first=people[provider], number=per_round))

    with workers(place) as (ours,), workers(place, BENCH_FLAVOUR="plain") as (plain,):
        ours.do("populate", number=1)
        first = in_turns(
            size(5, 2),
            {
                "this project: PKCE, sealed pair, history": lambda: fresh(ours, "sipgate"),
                "a minimal plain allauth provider, tokens in the clear": lambda: fresh(plain, "plain"),
            },
        )
        again = in_turns(
            size(7, 2),
            {
                name: _do(worker, "sign_ins", provider=provider, first=people[provider], number=per_round)
                for name, worker, provider in (
                    (first[0].name, ours, "sipgate"),
                    (first[1].name, plain, "plain"),
                )
            },
        )
    return [
        Case("sign_up", "first sign-in of a person", place.database, first),
        Case("sign_in", "sign-in of a known person", place.database, again),
    ]


@case
def hanging(place: Place, size: Size) -> list[Case]:
    """sipgate hangs for 30 s; the site has four web threads and, on PostgreSQL, four database connections."""
    hang = size(30, 3)
    seconds, crowds = size(12, 1), ((4,) if size.quick else (2, 4, 8))
    place.counterpart.set()
    with workers(place) as (worker,):
        pks = worker.do("populate", number=16, clear=True)
        worker.do("remember_accounts", pks=pks)
        cookies = worker.do("sessions", pks=pks)
        # Half of the visitors wait for a page with a valid token, half for a refresh.
        taken: dict[str, Contender] = {}
        quiet = "other pages, all well"

        def measure(name: str, path: str, visitors: int, *, hangs: bool) -> None:
            for pk in pks[::2]:
                worker.do("age", seconds=400 if hangs else 1, connection=pk)
            with _site(place) as url:
                probe(url, cookies[-1], size(10, 3) / 10)
                place.counterpart.set(latency=hang if hangs else 0, api_latency=hang if hangs else 0)
                with _visitors(url + path, cookies[:visitors]) as answers:
                    time.sleep(size(20, 7) / 10)
                    samples = probe(url, cookies[-1], seconds)
                taken[name] = Contender(name, MS, samples, {"visits_answered": len(answers), "visit_ms": answers})
            place.counterpart.set()

        for visitors in crowds:
            measure(f"other pages while {visitors} visitors keep reloading /account", "/account", visitors, hangs=True)
        measure(quiet, "/account", crowds[0], hangs=False)
        naive = "the same with 4 visitors, /account asked in the visitor's own thread"
        measure(naive, "/naive/account", 4, hangs=True)
    made = Case("hanging", f"sipgate hangs for {hang} s, four web threads", place.database, list(taken.values()))
    for one in made.contenders:
        visits = one.extra.pop("visit_ms")
        if visits:
            made.notes.append(f"{one.name}: {len(visits)} visits answered, p50 {number(percentile(visits, 0.5))} ms")
    if place.database == "postgresql" or size.quick:
        made.targets = [
            Target(f"{one.name}: p99", one.at(0.99), 50, MS)
            for one in made.contenders
            if one.name not in {quiet, naive}
        ]
    return [made]


PAGES = ("/", "/healthz", "/accounts/login/")
PROBES_PER_SECOND = 20
THINK = 1.0
"""Seconds until an impatient person presses *reload*, on average."""


def probe(url: str, cookie: str, seconds: float) -> list[list[float]]:
    """Ask for other pages at a fixed pace, whatever the answers take; return a list per page.

    The time counts from when the request was due: a pause of the site is seen by all who would have come in it.
    """
    samples: list[list[float]] = [[] for _ in PAGES]
    began = time.perf_counter()

    def ask(turn: int, due: float) -> None:
        page = turn % len(PAGES)
        _get(f"{url}{PAGES[page]}", cookie if PAGES[page] == "/" else "")
        samples[page].append((time.perf_counter() - due) * 1000)

    with ThreadPoolExecutor(64) as pool:
        for turn in range(int(seconds * PROBES_PER_SECOND)):
            due = began + turn / PROBES_PER_SECOND
            time.sleep(max(due - time.perf_counter(), 0))
            pool.submit(ask, turn, due)
    return samples


def _get(url: str, cookie: str) -> None:
    request = urllib.request.Request(url, headers={"Host": "localhost:8080", "Cookie": f"sipgate_session={cookie}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        answer.read()


@contextmanager
def _visitors(url: str, cookies: list[str]) -> Iterator[list[float]]:
    """People who ask for a page, and again ``THINK`` seconds after the answer; yields how long their visits took, ms."""
    stop = threading.Event()
    took: list[float] = []

    def visit(cookie: str) -> None:
        while not stop.wait(random.uniform(0.5, 1.5) * THINK):
            began = time.perf_counter()
            try:
                _get(url, cookie)
            except OSError:
                return
            took.append((time.perf_counter() - began) * 1000)

    crew = [threading.Thread(target=visit, args=(cookie,), daemon=True) for cookie in cookies]
    for thread in crew:
        thread.start()
    try:
        yield took
    finally:
        stop.set()


@contextmanager
def _site(place: Place) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (place.folder / "site.log").open("a") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "gunicorn",
                "--worker-class",
                "gthread",
                "--threads",
                "4",
                "--workers",
                "1",
                "--bind",
                f"127.0.0.1:{port}",
                "--timeout",
                "60",
                "--graceful-timeout",
                "1",
                "bench.wsgi",
            ],
            env=place.environment(DATABASE_POOL="4"),
            stdout=log,
            stderr=log,
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/healthz")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()  # it would wait for refreshes that hang
                process.wait()


def _wait_for(url: str) -> None:
    give_up = time.monotonic() + 30
    while True:
        try:
            return _get(url, "")
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)


@case
def reseal(place: Place, size: Size) -> list[Case]:
    """Another key for every token, while they are used and refreshed."""
    rows = size(10_000, 500)
    place.counterpart.set(lifetime=86_400)
    seconds, notes, missing, during = [], [], 0, []
    with workers(place) as (worker,), workers(place) as (traffic,):
        pks = worker.do("populate", number=rows)
        for turn in range(size(3, 1)):
            ring = [KEYS[(turn + 1) % 2], KEYS[turn % 2]]
            for one in (worker, traffic):
                one.do("keys", texts=ring)
            traffic.do("traffic_start", pks=pks, pause=0.005)
            report = worker.do("reseal")
            flow = traffic.do("traffic_stop")
            seconds.append([report["seconds"] * 1000])
            during.append(flow["uses"] or [0.0])
            lost = worker.do("lost")
            missing += lost["unreadable"] + lost["dead"] + report["left"] + report["unreadable"] + len(flow["failures"])
            notes.append(
                f"round {turn + 1}: {report['done']} sealed anew, {report['changed_meanwhile']} changed meanwhile, "
                f"{report['left']} left, {lost['unreadable'] + lost['dead']} of {lost['rows']} lost; traffic: "
                f"{len(flow['uses'])} uses, {flow['refreshes']} refreshes, {len(flow['failures'])} failures "
                f"in {flow['seconds']:.1f} s {flow['failures'][:1]}"
            )
    made = Case(
        "reseal",
        f"{rows} tokens sealed with another key, online",
        place.database,
        [Contender("keeping.reseal", MS, seconds), Contender("tokens.usable meanwhile, another process", MS, during)],
        notes=notes,
    )
    made.targets = [
        Target(f"re-seal {rows} tokens during traffic", max(one[0] for one in seconds) / 1000, 10 * rows / 10_000, "s"),
        Target("re-seal: lost, left or failed", missing, 0, ""),
    ]
    return [made]
