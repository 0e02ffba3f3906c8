"""Starts processes that use the same database and counterpart as the test.

A worker is forked from a server that has imported everything: that takes a twentieth of the time of
a new process. A program that has to be executed gets the test's settings by ``environment`` and
``tests.worker_settings``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import requests
from django.conf import settings
from django.db import connections

from tests.ports import free_port
from tests.waiting import wait_until_served

PREPARED = multiprocessing.get_context("forkserver")
PREPARED.set_forkserver_preload(["tests.prepared", "tests.concurrency.caller"])

PASSED_ON = (
    "SIPGATE_TOKEN_URL",
    "SIPGATE_AUTH_URL",
    "SIPGATE_API_URL",
    "SIPGATE_TOKEN_KEYS",
    "SIPGATE_JOURNAL_DIR",
    "SIPGATE_WAIT_SECONDS",
    "SIPGATE_LOGOUT_URL",
    "SIPGATE_PAGE_WAIT_SECONDS",
)


def order_of(**told: Any) -> dict[str, Any]:
    """Return what a process has to be told so that it sees what the test sees."""
    values = {name: getattr(settings, name) for name in PASSED_ON if hasattr(settings, name)}
    values |= told.pop("settings", {})
    return {
        "database": str(connections["default"].settings_dict["NAME"]),
        "settings": values,
        **told,
    }


def environment(**told: Any) -> dict[str, str]:
    """Return the environment of a program that shall see what the test sees."""
    return {
        **os.environ,
        "SIPGATE_WORKER": json.dumps(order_of(**told), default=str),
        "DJANGO_SETTINGS_MODULE": "tests.worker_settings",
        "PYTHONUNBUFFERED": "1",
    }


def run_program(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program with the settings of the tests."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Worker:
    """A process of ``tests.concurrency.caller``: is told what to do, and answers."""

    def __init__(self, **told: Any) -> None:
        from tests.concurrency import caller

        self._line, its_end = PREPARED.Pipe()
        self.process = PREPARED.Process(target=caller.serve, args=(its_end, order_of(**told)))
        self.process.start()
        its_end.close()

    def tell(self, **order: Any) -> None:
        self._line.send(order)

    def read(self) -> Any:
        """Return its answer; None if it ended without one."""
        try:
            return self._line.recv()
        except EOFError:  # before its exit code can be had
            self.process.join(20)
            return None

    def ask(self, **order: Any) -> Any:
        self.tell(**order)
        return self.read()

    def die_at(self, point: str, **order: Any) -> None:
        """Let it do what it is told, and be killed at a point of ``tests.concurrency.points``."""
        self.tell(**order, stop_at=point)
        self.process.join(60)
        self.check_killed()

    def check_killed(self) -> None:
        """Fail unless it was killed: a worker that ended by an error tried nothing."""
        assert self.process.exitcode == -signal.SIGKILL, self.process.exitcode

    @property
    def has_died(self) -> bool:
        return self.process.exitcode is not None

    @property
    def is_stopped(self) -> bool:
        try:
            told = Path(f"/proc/{self.process.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return told.rpartition(")")[2].split()[0] == "T"

    @property
    def is_finished(self) -> bool:
        """Whether it has answered, or died."""
        return self.has_died or self._line.poll()

    def send_signal(self, number: int) -> None:
        if self.process.pid and not self.has_died:
            with suppress(ProcessLookupError):  # it dies at this moment
                os.kill(self.process.pid, number)

    def resume(self) -> None:
        self.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.resume()
        self._line.close()
        self.process.join(20)
        if not self.has_died:
            self.process.kill()
            self.process.join()
        self.process.close()


@contextmanager
def workers(number: int, **told: Any) -> Iterator[list[Worker]]:
    started = [Worker(**told) for _ in range(number)]
    try:
        yield started
    finally:
        for worker in started:
            worker.close()


def die_at(point: str, **order: Any) -> None:
    """Let a process do what it is told, and be killed at a point (``tests.concurrency.points``)."""
    with workers(1) as [worker]:
        worker.die_at(point, **order)


class Site:
    """The site as it is deployed: where it is, and how a browser asks it."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path | None) -> None:
        self.process, self.url, self.log = process, url, log

    def get(self, path: str, *, session: str = "", **headers: str) -> requests.Response:
        """Ask for a page as a browser would that knows the site as ``localhost:8080``."""
        headers.setdefault("Host", "localhost:8080")
        if session:
            headers["Cookie"] = f"{settings.SESSION_COOKIE_NAME}={session}"
        address = f"{self.url}{path}"
        return requests.get(address, headers=headers, timeout=60, allow_redirects=False)

    def stop(self) -> None:
        """Stop as an operator does: SIGTERM, and what runs is finished."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(80)


@contextmanager
def site(
    *,
    processes: int = 3,
    threads: int = 16,
    application: str = "sipgate_project.wsgi",
    server: Sequence[str] = (),
    env: dict[str, str] | None = None,
    log: Path | None = None,
    **variables: str,
) -> Iterator[Site]:
    """Serve it by gunicorn, or by the Python arguments of another ``server`` with ``{port}``.

    It sees what the test sees, unless an environment (``env``) says otherwise.
    """
    port = free_port()
    gunicorn = ["-m", "gunicorn", application, "--bind", "127.0.0.1:{port}"]
    gunicorn += ["--workers", str(processes), "--threads", str(threads)]
    if log is None:
        gunicorn += ["--log-level", "error", "--access-logfile", "/dev/null"]
    command = [sys.executable, *(word.format(port=port) for word in server or gunicorn)]
    env = {**(env or environment()), **variables}
    with log.open("ab") if log else nullcontext() as file:
        process = subprocess.Popen(
            command, cwd=settings.BASE_DIR, env=env, stdout=file, stderr=file
        )
    running = Site(process, f"http://127.0.0.1:{port}", log)
    try:
        wait_until_served(process, f"{running.url}/livez", log.read_text if log else str)
        yield running
    finally:
        running.stop()
