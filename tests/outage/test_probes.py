"""What probes and Prometheus are told while the database is away, hangs and comes back; asked of a real gunicorn."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests import postgres

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-of-the-tests-only"
KEYS = "dGVzdHMtb25seS10ZXN0cy1vbmx5LXRlc3RzLW9ubHk="


class Served:
    """The site behind gunicorn, as it is deployed, asked by address."""

    def __init__(self, folder: Path, database: str, **variables: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.environment = {
            "PATH": os.environ["PATH"],
            "SECRET_KEY": "tests-only-" * 4,
            "SIPGATE_TOKEN_KEYS": KEYS,
            "CLIENT_ID": "1234567-1-abc:third-party",
            "CLIENT_SECRET": "tests-only",
            "REDIRECT_URI": "https://crm.example.org/oauth",
            "SIPGATE_JOURNAL_DIR": str(folder / "journal"),
            "STATIC_ROOT": str(folder / "static"),
            "METRICS_TOKEN": TOKEN,
            "DATABASE_URL": database,
            **variables,
        }
        self.log = folder / "log"
        with self.log.open("ab") as log:
            # One worker: each remembers what it counted for itself, and any of them may answer the next question.
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "sipgate_project.wsgi"),
                    *("--workers", "1", "--bind", f"127.0.0.1:{self.port}"),
                ],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
            )

    def get(self, path: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {TOKEN}"} if path == "/metrics" else {}
        return requests.get(
            f"http://127.0.0.1:{self.port}{path}",
            headers=headers,
            timeout=30,
            allow_redirects=False,
        )

    def metric(self, name: str) -> list[str]:
        return [line for line in self.get("/metrics").text.splitlines() if line.startswith(name)]

    def wait_until(self, holds: Callable[[], bool], seconds: float = 60) -> None:
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up and self.process.poll() is None:
            try:
                if holds():
                    return
            except requests.ConnectionError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"It never came to hold. {self.log.read_text()[-2000:]}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(80)


@contextmanager
def served(folder: Path, database: str, **variables: str) -> Iterator[Served]:
    site = Served(folder, database, **variables)
    try:
        site.wait_until(lambda: site.get("/livez").status_code == 200)
        yield site
    finally:
        if site.process.poll() is None:
            site.stop()


def in_time(site: Served, path: str) -> requests.Response:
    answer = site.get(path)
    assert answer.elapsed.total_seconds() < 2.0, path
    return answer


def test_an_evening_with_the_database(tmp_path: Path) -> None:
    with postgres.server() as server:
        with served(tmp_path, server.url, BEHIND_PROXY="on") as site:
            # Before the migrations: alive, not ready.
            assert (in_time(site, "/livez").status_code, in_time(site, "/readyz").status_code) == (
                200,
                503,
            )
            assert site.get("/readyz").json()["database"] == "migrations pending"
            migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
            subprocess.run(migrate, cwd=ROOT, env=site.environment, check=True, timeout=120)
            assert site.get("/readyz").json() == {"status": "ok", "database": "ok", "keys": "ok"}
            site.wait_until(
                lambda: site.metric("sipgate_statistics_up") == ["sipgate_statistics_up 1.0"]
            )

            # It freezes: connections stand, and nothing answers.
            frozen = server.processes()
            for number in frozen:
                os.kill(number, signal.SIGSTOP)
            try:
                for _ in range(3):
                    assert in_time(site, "/livez").status_code == 200
                    assert in_time(site, "/readyz").json()["database"] == "no answer within 1.5 s"
                    assert in_time(site, "/metrics").status_code == 200
                # What was counted 15 s ago is shown no longer.
                site.wait_until(
                    lambda: site.metric("sipgate_statistics_up") == ["sipgate_statistics_up 0.0"],
                    40,
                )
                assert in_time(site, "/metrics").status_code == 200
                assert site.metric("sipgate_journal_entries") == ["sipgate_journal_entries 0.0"]
                assert site.metric("sipgate_connections{") == []
            finally:
                for number in reversed(frozen):
                    os.kill(number, signal.SIGCONT)
            site.wait_until(lambda: site.get("/readyz").status_code == 200)

            # It is gone: connections are refused.
            server.stop()
            site.wait_until(lambda: in_time(site, "/readyz").json()["database"] != "ok")
            assert (in_time(site, "/livez").status_code, in_time(site, "/readyz").status_code) == (
                200,
                503,
            )
            assert in_time(site, "/metrics").status_code == 200
            # A page that waited in vain lets all others be answered at once, by the same reference.
            site.wait_until(lambda: page(site).status_code == 503)
            pages = [page(site) for _ in range(3)]
            assert {answer.status_code for answer in pages} == {503}
            assert max(answer.elapsed.total_seconds() for answer in pages) < 1
            assert len({reference_on(answer) for answer in pages}) == 1
            assert site.log.read_text().count(reference_on(pages[0])) == 1, (
                "an incident is logged once"
            )
            assert "Service Unavailable" not in site.log.read_text()

            # It is back, and so is the site, by itself.
            server.start()
            site.wait_until(lambda: site.get("/readyz").status_code == 200)
            site.wait_until(lambda: page(site).status_code == 200)
            site.wait_until(
                lambda: site.metric("sipgate_statistics_up") == ["sipgate_statistics_up 1.0"], 40
            )


def page(site: Served) -> requests.Response:
    """Ask for a page as somebody whose session has to be looked up."""
    headers = {
        "Host": "crm.example.org",
        "X-Forwarded-Proto": "https",
        "Cookie": "sipgate_session=" + "a" * 32,
    }
    return requests.get(
        f"http://127.0.0.1:{site.port}/", headers=headers, timeout=60, allow_redirects=False
    )


def reference_on(answer: requests.Response) -> str:
    found = re.search(r"<code>(\w{8})</code>", answer.text)
    assert found, answer.text
    return found[1]


def test_pages_while_the_database_hangs(tmp_path: Path) -> None:
    """Its connections stand, so no network time-out ends them. A page fails, and the thread that served it is free."""
    with (
        postgres.server() as server,
        served(tmp_path, server.url, BEHIND_PROXY="on", GUNICORN_CMD_ARGS="--threads 2") as site,
    ):
        migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
        subprocess.run(migrate, cwd=ROOT, env=site.environment, check=True, timeout=120)
        assert page(site).status_code == 200
        frozen = server.processes()
        for number in frozen:
            os.kill(number, signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(2) as people:
                pages = list(people.map(lambda _: page(site), range(2)))
            assert [answer.status_code for answer in pages] == [500, 500]
            assert max(answer.elapsed.total_seconds() for answer in pages) < 45
            assert in_time(site, "/livez").status_code == 200
        finally:
            for number in reversed(frozen):
                os.kill(number, signal.SIGCONT)
        site.wait_until(lambda: page(site).status_code == 200, 20)
        assert "A page failed [" in site.log.read_text()


def test_a_database_that_is_away_from_the_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        database = f"postgres://site@127.0.0.1:{silent.getsockname()[1]}/site"
        with served(tmp_path, database) as site:
            for _ in range(2):
                assert in_time(site, "/livez").status_code == 200
                assert in_time(site, "/readyz").status_code == 503
                assert in_time(site, "/metrics").status_code == 200
            assert site.metric("sipgate_statistics_up") == ["sipgate_statistics_up 0.0"]


def test_a_cache_that_is_away_costs_no_gauge_and_no_readiness(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (
        postgres.running() as url,
        served(tmp_path, url, REDIS_URL=f"redis://127.0.0.1:{port}/0", BEHIND_PROXY="on") as site,
    ):
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
            cwd=ROOT,
            env=site.environment,
            check=True,
            timeout=120,
        )
        assert in_time(site, "/readyz").status_code == 200
        assert site.metric("sipgate_statistics_up") == ["sipgate_statistics_up 1.0"]
        # A wrong password is a wrong password, and no server error; each process counts it for itself.
        browser = requests.Session()
        headers = {"Host": "crm.example.org", "X-Forwarded-Proto": "https"}
        address = f"http://127.0.0.1:{site.port}/accounts/login/"
        token = re.search(
            r'name="csrfmiddlewaretoken" value="([^"]+)"',
            browser.get(address, headers=headers).text,
        )
        assert token
        answer = browser.post(
            address,
            data={"csrfmiddlewaretoken": token[1], "login": "erika", "password": "wrong"},
            headers={
                **headers,
                "Referer": "https://crm.example.org/accounts/login/",
                "Cookie": "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies),
            },
            timeout=30,
        )
        assert (answer.status_code, "not correct" in answer.text) == (200, True)
        assert "Redis does not answer (ConnectionError)" in site.log.read_text()


def test_what_a_keepalive_counted_outlives_a_restart_of_the_site(tmp_path: Path) -> None:
    """Both count in one folder. A restart of the site begins anew with its own numbers only."""
    shared = tmp_path / "metrics"
    shared.mkdir()
    (shared / "counter_999999999.db").write_bytes(b"")  # of a process that ended
    runs = 'sipgate_keepalive_runs_total{outcome="finished"}'
    with postgres.running() as url:
        keepalive = None
        with served(tmp_path, url, PROMETHEUS_MULTIPROC_DIR=str(shared)) as site:
            assert not (shared / "counter_999999999.db").exists()
            manage = [sys.executable, "manage.py"]
            subprocess.run(
                [*manage, "migrate", "--verbosity", "0"], cwd=ROOT, env=site.environment, check=True
            )
            keepalive = subprocess.Popen(
                [*manage, "sipgate_keepalive", "--loop", "--interval", "0.2"],
                cwd=ROOT,
                env=site.environment,
                stdout=subprocess.DEVNULL,
            )
        try:
            with served(tmp_path, url, PROMETHEUS_MULTIPROC_DIR=str(shared)) as site:
                site.wait_until(
                    lambda: any(float(line.split()[-1]) > 2 for line in site.metric(runs))
                )
        finally:
            keepalive.send_signal(signal.SIGTERM)
            keepalive.wait(60)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
@pytest.mark.parametrize("host", ["10.1.2.3:8000", "probe.invalid", "crm.example.org"])
def test_any_host_name_and_plain_http_will_do(site_away: Served, path: str, host: str) -> None:
    headers = {"Host": host, "Authorization": f"Bearer {TOKEN}"}
    answer = requests.get(
        f"http://127.0.0.1:{site_away.port}{path}",
        headers=headers,
        timeout=30,
        allow_redirects=False,
    )
    assert answer.status_code == (503 if path == "/readyz" else 200)
    assert "no-store" in answer.headers["Cache-Control"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_they_only_answer_questions(site_away: Served, path: str) -> None:
    assert requests.post(f"http://127.0.0.1:{site_away.port}{path}", timeout=30).status_code == 405


def test_gunicorns_lines_are_json_when_the_sites_are(site_away: Served) -> None:
    import json

    assert site_away.get("/livez?code=unmistakable").status_code == 200
    lines = [json.loads(line) for line in site_away.log.read_text().splitlines()]
    assert {"gunicorn.error", "gunicorn.access"} <= {line["logger"] for line in lines}
    assert all(set(line) >= {"time", "level", "message"} for line in lines)
    assert "unmistakable" not in site_away.log.read_text()


@pytest.fixture(scope="module")
def site_away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("away")
    with served(folder, f"postgres://site@127.0.0.1:{port}/site", LOG_FORMAT="json") as site:
        yield site
