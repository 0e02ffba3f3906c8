"""Pages over HTTP: this site beside a plain one, both under gunicorn (4 workers × 8 threads), in the same rounds.

The site is set up as in production. It stands here twice: once asking sipgate for every page, and once showing what
sipgate answered within the last minute.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import urlsplit

import requests

from sipgate_sandbox.launch import Running, sign_in
from sipgate_sandbox.people import PEOPLE

from .measure import Case, Samples, Target, in_turns, timed

HOST = "localhost:8080"
AT_ONCE = 16
CSRF = "c" * 32
AGE = "SIPGATE_ACCOUNT_MAX_AGE_SECONDS"
CLIENT = {"CLIENT_ID": "1000000-1-sandbox:third-party", "CLIENT_SECRET": "sandbox-secret"}


@dataclass(frozen=True)
class Visitor:
    """A browser: cookies, and a new connection for each request, as nginx makes them by default."""

    port: int
    cookies: dict[str, str] = field(default_factory=dict)
    csrf: str = "sipgate_csrf"
    """Name of the cookie whose value a form brings along."""

    def ask(self, path: str, *, method: str = "GET") -> tuple[int, str]:
        """Return status and ``Location``; raise for a page that is out of order."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {
            "Host": HOST,
            "Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()),
        }
        if method == "POST":
            headers |= {"X-CSRFToken": self.cookies[self.csrf], "Content-Length": "0"}
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if answer.status not in {200, 302}:
            raise RuntimeError(f"{path} was answered with {answer.status}")
        for line in answer.headers.get_all("Set-Cookie") or []:
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer.status, answer.headers.get("Location", "")


@dataclass(frozen=True)
class Site:
    name: str
    port: int
    login: str
    csrf: str
    visitors: list[Visitor] = field(default_factory=list)

    def begin(self) -> tuple[Visitor, str]:
        """Begin a sign-in; return the browser, and where at sipgate it goes on."""
        visitor = Visitor(self.port, {self.csrf: CSRF}, csrf=self.csrf)
        return visitor, visitor.ask(self.login, method="POST")[1]

    def one_at_a_time(self, path: str, number: int, *, signed_in: bool = True) -> Samples:
        visitor = self.visitors[0] if signed_in else Visitor(self.port)
        return timed(lambda: visitor.ask(path), number)

    def at_once(self, path: str, number: int) -> Samples:
        """Return milliseconds per page, as all visitors together get them: 1000 / the rate."""

        def visit(index: int) -> None:
            visitor = self.visitors[index % len(self.visitors)]
            for _ in range(number // AT_ONCE):
                visitor.ask(path)

        began = time.perf_counter()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(visit, range(AT_ONCE)))
        return [(time.perf_counter() - began) * 1000 / (number // AT_ONCE * AT_ONCE)]

    def callbacks(self, number: int) -> Samples:
        """Return how long the callback of a known person takes; sipgate's own pages are not counted."""
        samples = []
        with requests.Session() as at_sipgate:
            for _ in range(number):
                visitor, there = self.begin()
                back = urlsplit(sign_in(at_sipgate, there))
                samples += timed(partial(visitor.ask, f"{back.path}?{back.query}"), 1)
                visitor.ask(
                    "/accounts/logout/", method="POST"
                )  # else the person's sessions pile up
        return samples


@contextmanager
def serving(application: str, variables: dict[str, str], *options: str) -> Iterator[int]:
    """Run a site under gunicorn with a database of its own; yield its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, **variables}
    subprocess.run(
        [sys.executable, "-m", "django", "migrate", "--verbosity", "0"], env=environment, check=True
    )
    options = (
        "--worker-class",
        "gthread",
        "--graceful-timeout",
        "1",
        "--log-level",
        "error",
        *options,
    )
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        *options,
        "--bind",
        f"127.0.0.1:{port}",
        "--access-logfile",
        "-",
    ]
    process = subprocess.Popen([*command, application], env=environment, stdout=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()  # it would wait for refreshes that hang
            process.wait()


def _wait_for(port: int) -> None:
    give_up = time.monotonic() + 60
    while True:
        try:
            Visitor(port).ask("/")
            return
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)


@contextmanager
def sites(sandbox: Running, database: Callable[[str], str]) -> Iterator[list[Site]]:
    """Run the site twice and the plain one, with all people of the sandbox signed in at each."""
    oidc = {"AUTH_URL": f"{sandbox.oidc_url}/auth", "TOKEN_URL": f"{sandbox.oidc_url}/token"}
    ours = {
        **CLIENT,
        **oidc,
        "TEST_API_ENDPOINT": f"{sandbox.api_url}/account",
        "PYTHONUNBUFFERED": "1",
    }
    size = ("--workers", "4", "--threads", "8")
    plain = {**CLIENT, "DJANGO_SETTINGS_MODULE": "bench.plain.settings"}
    wanted = [
        ("asking sipgate", "sipgate_project.wsgi", "sipgate", {**ours, AGE: "0"}),
        ("data of the last minute", "sipgate_project.wsgi", "sipgate", {**ours, AGE: "60"}),
        ("plain site", "django.core.wsgi:get_wsgi_application()", "plain", plain),
    ]
    with contextlib.ExitStack() as stack:
        running = []
        for index, (name, application, provider, variables) in enumerate(wanted):
            variables["DATABASE_URL"] = database(f"pages{index}")
            config = ("--config", "python:bench.plain") if provider == "plain" else ()
            port = stack.enter_context(serving(application, variables, *config, *size))
            csrf = "csrftoken" if provider == "plain" else "sipgate_csrf"
            running.append(Site(name, port, f"/accounts/{provider}/login/", csrf))
            _sign_everybody_in(running[-1])
        yield running


def _sign_everybody_in(site: Site) -> None:
    for person in PEOPLE:
        visitor, there = site.begin()
        with requests.Session() as at_sipgate:
            back = urlsplit(sign_in(at_sipgate, there, person=person.uid))
        visitor.ask(f"{back.path}?{back.query}")
        visitor.ask("/account")
        site.visitors.append(visitor)


def measure(sandbox: Running, database: Callable[[str], str], *, rounds: int, number: int) -> Case:
    """Compare the sites page by page. Limits are times of the plain site: asking sipgate, and showing what it said."""
    sandbox.control.lifetimes(access=3600)
    json, page, home, login = "/account.json", "/account", "/", "/accounts/login/"
    scenarios: list[tuple[str, Callable[[Site], Samples], float, float | None]] = [
        (f"{json}, one at a time", lambda site: site.one_at_a_time(json, number), 1.0, None),
        (f"{json}, {AT_ONCE} at once", lambda site: site.at_once(json, 4 * number), 1.0, 0.5),
        (f"{page}, one at a time", lambda site: site.one_at_a_time(page, number), 1.0, None),
        (f"{page}, {AT_ONCE} at once", lambda site: site.at_once(page, 4 * number), 1.0, 0.5),
        ("home, one at a time", lambda site: site.one_at_a_time(home, number), 1.1, None),
        (
            "sign-in page, one at a time",
            lambda site: site.one_at_a_time(login, number, signed_in=False),
            1.1,
            None,
        ),
        ("callback of a known person", lambda site: site.callbacks(max(number // 8, 2)), 1.1, None),
    ]
    shown, targets = [], []
    with sites(sandbox, database) as running:
        for site in running:
            for path in (home, page, json):
                site.at_once(path, 8 * AT_ONCE)  # every worker has seen every page
        for what, work, *limits in scenarios:
            taken = in_turns(
                rounds, {f"{what}: {site.name}": partial(work, site) for site in running}
            )
            shown += taken
            for one, limit in zip(taken, limits, strict=False):
                if limit is not None:
                    ratio = one.median / taken[2].median
                    targets.append(
                        Target(f"{one.name}: time by that of the plain site", ratio, limit, "×")
                    )
    return Case("one page over HTTP", shown, targets)
