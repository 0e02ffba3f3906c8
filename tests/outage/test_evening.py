"""An evening on which everything goes away, one thing after the other, and comes back.

The site runs under gunicorn with PostgreSQL, Redis and the keepalive, and real Prometheus reads it, with the rules of
docs/alerts.yml. Ten people keep looking at their accounts, whose access tokens live for ten seconds. The table of what
everybody was told goes to ``artifacts/evening.txt``; its essence is in docs/monitoring.md.

Each outage lasts two minutes. Prometheus asks every two seconds and takes a tenth of each time in the rules, so that
two minutes are twenty for them.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from sipgate_sandbox.launch import Running, launch, sign_in
from sipgate_sandbox.people import PEOPLE
from tests import postgres
from tests.outage.test_probes import ROOT, TOKEN, Served, served
from tests.project.test_metrics_docs import ALERTS

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not (shutil.which("prometheus") and shutil.which("redis-server") and os.geteuid() == 0),
        reason="needs Prometheus, Redis, and root to mount a small disk",
    ),
]

OUTAGE, REST, ROW = 120, 40, 30
"""Seconds that something is away, that all is well in between, and that a row of the table stands for."""
HEADERS = {"Host": "crm.example.org", "X-Forwarded-Proto": "https"}
CSRF = "c" * 32


@dataclass(frozen=True)
class Answer:
    at: float
    path: str
    status: int
    """0: there was none."""
    seconds: float
    body: str = field(repr=False)


class Visitor:
    """A browser behind the proxy that ends TLS."""

    def __init__(self, port: int, address: str) -> None:
        self.port, self.cookies = port, {"csrftoken": CSRF, "sipgate_csrf": CSRF}
        self.address = address

    def ask(self, path: str, *, form: str | None = None) -> tuple[Answer, str]:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {
            **HEADERS,
            "Cookie": cookies,
            "X-Forwarded-For": self.address,
            "Accept-Language": "en",
        }
        if form is not None:
            headers |= {"X-CSRFToken": CSRF, "Referer": "https://crm.example.org/"}
            headers |= {"Content-Type": "application/x-www-form-urlencoded"}
        began, status, body, location = time.monotonic(), 0, b"", ""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            contextlib.closing(connection),
        ):
            connection.request("GET" if form is None else "POST", path, body=form, headers=headers)
            with connection.getresponse() as answer:
                body, status, location = (
                    answer.read(),
                    answer.status,
                    answer.headers.get("Location", ""),
                )
                for line in answer.headers.get_all("Set-Cookie") or []:
                    name, _, value = line.partition(";")[0].partition("=")
                    self.cookies[name] = value
        place = path.partition("?")[0]
        return Answer(
            began, place, status, time.monotonic() - began, body.decode(errors="replace")
        ), location

    def sign_in(self, person: str) -> None:
        _, there = self.ask("/accounts/sipgate/login/", form="")
        with requests.Session() as at_sipgate:
            back = urlsplit(sign_in(at_sipgate, there, person=person))
        assert self.ask(f"{back.path}?{back.query}")[0].status == 302


class Evening:
    """Everything that was told, and when."""

    def __init__(self, site: Served, prometheus: int) -> None:
        self.site, self.prometheus = site, prometheus
        self.answers: list[Answer] = []
        self.firing: list[tuple[float, set[str]]] = []
        self.phases: list[tuple[float, str]] = []
        self.over = threading.Event()

    def phase(self, name: str, seconds: float, change: Callable[[], object] = lambda: None) -> None:
        """Let ``change`` happen, and the evening go on for a while."""
        self.phases.append((time.monotonic(), name))
        change()
        time.sleep(seconds)  # what is measured is what happens meanwhile

    def visit(self, visitor: Visitor) -> None:
        while not self.over.wait(1):
            self.answers.append(visitor.ask("/account")[0])

    def guess(self) -> None:
        """Try passwords, under another name and from another address each time: no limit is met."""
        for turn in range(10_000):
            if self.over.wait(4):
                return
            stranger = Visitor(self.site.port, f"10.1.{turn // 250}.{turn % 250}")
            answer, _ = stranger.ask("/accounts/login/", form=f"login=nobody{turn}&password=wrong")
            self.answers.append(answer)

    def probe(self, path: str) -> None:
        while not self.over.wait(2):
            began = time.monotonic()
            try:
                told = self.site.get(path)
                self.answers.append(
                    Answer(began, path, told.status_code, time.monotonic() - began, told.text)
                )
            except requests.RequestException:
                self.answers.append(Answer(began, path, 0, time.monotonic() - began, ""))

    def watch(self) -> None:
        while not self.over.wait(2):
            with contextlib.suppress(requests.RequestException):
                told = requests.get(
                    f"http://127.0.0.1:{self.prometheus}/api/v1/alerts", timeout=10
                ).json()
                found = {
                    a["labels"]["alertname"]
                    for a in told["data"]["alerts"]
                    if a["state"] == "firing"
                }
                self.firing.append((time.monotonic(), found))

    def during(self, name: str, *paths: str, skip: float = 0) -> list[Answer]:
        """Return what was asked and answered in a phase, but for its first ``skip`` seconds."""
        index = next(i for i, (_, one) in enumerate(self.phases) if one == name)
        began, ended = self.phases[index][0] + skip, self.phases[index + 1][0]
        return [
            answer
            for answer in self.answers
            if answer.path in paths and began <= answer.at < ended - answer.seconds
        ]

    def fired(self, name: str) -> set[str]:
        index = next(i for i, (_, one) in enumerate(self.phases) if one == name)
        began, ended = self.phases[index][0], self.phases[index + 1][0]
        return set().union(*(found for at, found in self.firing if began <= at < ended))

    def table(self) -> str:
        began, rows = self.phases[0][0], []
        logged = _log(self.site.log)
        clock = time.time() - time.monotonic()
        for start in range(0, int(self.phases[-1][0] - began), ROW):
            low, high = began + start, began + start + ROW
            name = next(name for at, name in reversed(self.phases) if at <= low + ROW / 2)
            here = [answer for answer in self.answers if low <= answer.at < high]
            alerts = set().union(*(found for at, found in self.firing if low <= at < high))
            lines = Counter(text for at, text in logged if low <= at - clock < high)
            told = "; ".join(f"{text} ×{number}" for text, number in lines.most_common(4))
            cells = [
                _summary(here, path)
                for path in ("/livez", "/readyz", "/metrics", "/account", "/accounts/login/")
            ]
            rows.append(
                [
                    f"{start // 60}:{start % 60:02}",
                    name,
                    *cells,
                    ", ".join(sorted(alerts)) or "–",
                    told or "–",
                ]
            )
        head = [
            "time",
            "what is away",
            "/livez",
            "/readyz",
            "/metrics",
            "/account",
            "wrong password",
            "alerts",
            "log",
        ]
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head) - 1)]
        return "\n".join(
            "  ".join(
                [*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]
            )
            for row in [head, *rows]
        )


def _summary(answers: list[Answer], path: str) -> str:
    mine = [answer for answer in answers if answer.path == path]
    counted = " ".join(
        f"{status}×{number}" for status, number in sorted(Counter(a.status for a in mine).items())
    )
    return f"{counted} ≤{max((a.seconds for a in mine), default=0):.1f}s"


def _log(path: Path) -> list[tuple[float, str]]:
    from datetime import datetime

    found = []
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError, KeyError):
            record = json.loads(line)
            if record["level"] in {"WARNING", "ERROR", "CRITICAL"}:
                text = re.sub(
                    r"[0-9a-f]{8,}|\d+", "…", f"{record['level']} {record['message'][:90]}"
                )
                found.append((datetime.fromisoformat(record["time"]).timestamp(), text))
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running(
    *command: str, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(80)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(b"x" * 1000)


def prometheus(folder: Path, site: Served) -> tuple[int, list[str]]:
    """Return the port and the command of a Prometheus for which time passes ten times as fast."""

    def tenth(found: re.Match[str]) -> str:
        return f"{int(found[1]) * (6 if found[2] == 'm' else 360)}s"

    (folder / "alerts.yml").write_text(re.sub(r"\b(\d+)([mh])\b", tenth, ALERTS))
    config = {
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "2s"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [
            {
                "job_name": "sipgate",
                "authorization": {"credentials": TOKEN},
                "static_configs": [{"targets": [f"127.0.0.1:{site.port}"]}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    return port, [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]


@contextmanager
def threads(over: threading.Event, *works: Callable[[], None]) -> Iterator[None]:
    started = [threading.Thread(target=work) for work in works]
    for thread in started:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in started:
            thread.join(90)


def variables(folder: Path, sandbox: Running, redis: int) -> dict[str, str]:
    return {
        "AUTH_URL": f"{sandbox.oidc_url}/auth",
        "TOKEN_URL": f"{sandbox.oidc_url}/token",
        "TEST_API_ENDPOINT": f"{sandbox.api_url}/account",
        "REDIS_URL": f"redis://127.0.0.1:{redis}/0",
        "BEHIND_PROXY": "on",
        "LOG_FORMAT": "json",
        "SIPGATE_ACCOUNT_MAX_AGE_SECONDS": "0",
        "PROMETHEUS_MULTIPROC_DIR": str(folder / "counters"),
        "SIPGATE_JOURNAL_DIR": str(folder / "disk" / "journal"),
    }


@pytest.fixture(scope="module")
def evening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evening]:
    folder, redis_port = tmp_path_factory.mktemp("evening"), free_port()
    redis = ("redis-server", "--port", str(redis_port), "--save", "", "--bind", "127.0.0.1")
    with ExitStack() as stack:
        client = (
            "--client-id=1234567-1-abc:third-party",
            "--client-secret=tests-only",
            "--access-lifetime=10",
        )
        sandbox = stack.enter_context(
            launch(*client, "--redirect-uri=https://crm.example.org/oauth")
        )
        disk = stack.enter_context(small_disk(folder / "disk"))
        server = stack.enter_context(postgres.server())
        in_redis = stack.enter_context(running(*redis))
        site = stack.enter_context(
            served(folder, server.url, **variables(folder, sandbox, redis_port))
        )
        manage = (sys.executable, "manage.py")
        subprocess.run(
            [*manage, "migrate", "--verbosity", "0"], cwd=ROOT, env=site.environment, check=True
        )
        loop = (*manage, "sipgate_keepalive", "--loop", "--interval", "5")
        stack.enter_context(running(*loop, environment=site.environment))
        port, command = prometheus(folder, site)
        stack.enter_context(running(*command))
        told, visitors = Evening(site, port), []
        for number, person in enumerate(PEOPLE):
            visitors.append(Visitor(site.port, f"10.0.0.{number}"))
            visitors[-1].sign_in(person.uid)
        works = [
            *(lambda v=v: told.visit(v) for v in visitors),
            *(lambda p=p: told.probe(p) for p in PROBES),
        ]
        with threads(told.over, told.watch, told.guess, *works):
            told.phase("all is well", REST)
            told.phase("the database", OUTAGE, server.stop)
            told.phase("nothing (1)", REST, server.start)
            told.phase(
                "sipgate (503)", OUTAGE, lambda: sandbox.control.fault("unavailable", times=None)
            )
            sandbox.control.clear()
            told.phase(
                "sipgate (silent)",
                OUTAGE,
                lambda: sandbox.control.fault("hang", times=None, seconds=60),
            )
            told.phase("nothing (2)", REST, sandbox.control.clear)
            told.phase("Redis", OUTAGE, lambda: in_redis.send_signal(signal.SIGSTOP))
            told.phase("nothing (3)", REST, lambda: in_redis.send_signal(signal.SIGCONT))
            told.phase("space for the journal", OUTAGE, lambda: fill(disk))
            told.phase("nothing (4)", REST, (disk / "ballast").unlink)
            told.phase("", 0)
        (ROOT / "artifacts").mkdir(exist_ok=True)
        (ROOT / "artifacts" / "evening.txt").write_text(told.table() + "\n")
        yield told


PROBES = ("/livez", "/readyz", "/metrics")
SIPGATE = ("sipgate (503)", "sipgate (silent)")
PASSES_BY = (*SIPGATE, "Redis", "space for the journal")


def test_the_process_is_alive_all_evening(evening: Evening) -> None:
    answers = [answer for answer in evening.answers if answer.path in {"/livez", "/metrics"}]
    assert {answer.status for answer in answers} == {200}
    # Once, all threads wait for the database, until the first page has waited in vain.
    moment = evening.phases[1][0]
    slow = [answer for answer in answers if answer.seconds > 2.5]
    assert all(moment - 1 < answer.at < moment + 7 and answer.seconds < 7 for answer in slow)


def test_only_the_database_makes_it_unready(evening: Evening) -> None:
    for phase in ("all is well", *PASSES_BY):
        assert {answer.status for answer in evening.during(phase, "/readyz")} == {200}, phase
    assert {answer.status for answer in evening.during("the database", "/readyz", skip=5)} == {503}
    assert {answer.status for answer in evening.during("nothing (1)", "/readyz", skip=20)} == {200}


def test_nobody_meets_a_server_error_but_for_the_database(evening: Evening) -> None:
    for phase in ("all is well", *PASSES_BY):
        answers = evening.during(phase, "/account", "/accounts/login/")
        assert answers
        assert {answer.status for answer in answers} == {200}, phase
        assert max(answer.seconds for answer in answers) < 8, phase
    assert {
        a.status for a in evening.during("the database", "/account", "/accounts/login/", skip=12)
    } == {503}
    assert {a.status for a in evening.during("nothing (1)", "/account", skip=15)} == {200}
    assert max(answer.seconds for answer in evening.answers) < 15


def test_the_alerts_are_those_that_say_what_is_away(evening: Evening) -> None:
    assert evening.fired("all is well") == set()
    assert "SipgateIsNotCounted" in evening.fired("the database")
    for phase in SIPGATE:
        assert "SipgateRefreshesFail" in evening.fired(phase)
    assert evening.fired("Redis") <= {"SipgateRefreshesFail"}, (
        "which goes on for a moment; none of its own"
    )
    assert "SipgateJournalCannotWrite" in evening.fired("space for the journal")
    fired = set().union(*(found for _, found in evening.firing))
    assert "SipgateSiteIsDown" not in fired
    assert "SipgateManyNeedSignIn" not in fired


def test_all_connections_work_at_the_end(evening: Evening) -> None:
    last = evening.during("nothing (4)", "/account", skip=20)
    assert {answer.status for answer in last} == {200}
    assert not [answer for answer in last if "Sign-in needed" in answer.body]
