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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import requests
from django.conf import settings
from django.db import connections

from tests.concurrency import caller
from tests.concurrency.points import KILL
from tests.ports import free_port
from tests.waiting import wait_until_served

PREPARED = multiprocessing.get_context("forkserver")
PREPARED.set_forkserver_preload(["tests.prepared", "tests.concurrency.caller"])


def what_the_test_sees(**own: Any) -> dict[str, Any]:
    """Return its database and its settings, of which some may be a process's ``own``."""
    ours = {name: getattr(settings, name) for name in dir(settings) if name.startswith("SIPGATE_")}
    return {
        "database": str(connections["default"].settings_dict["NAME"]),
        "settings": {**ours, **own},
    }


def environment(**own: Any) -> dict[str, str]:
    """Return the environment of a program that shall see what the test sees."""
    return {
        **os.environ,
        "SIPGATE_WORKER": json.dumps(what_the_test_sees(**own), default=str),
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

    def __init__(self, *, url: str = "", **own: Any) -> None:
        """Start it, with the test's database or that of a ``url``, and with settings of its own."""
        self._line, its_end = PREPARED.Pipe()
        told = (its_end, {**what_the_test_sees(**own), "url": url})
        self.process = PREPARED.Process(target=caller.serve, args=told)
        self.process.start()
        its_end.close()

    def tell(
        self,
        do: Callable[..., Any] = caller.use,
        *,
        stop_at: Sequence[str] = (),
        how: str = KILL,
        **order: Any,
    ) -> None:
        """Let it call a function with what is in the order, and be killed or pause at points."""
        self._line.send((do, order, stop_at, how))

    def read(self) -> Any:
        """Return its answer; None if it ended without one."""
        try:
            return self._line.recv()
        except EOFError:  # before its exit code can be had
            self.process.join(20)
            return None

    def ask(self, do: Callable[..., Any] = caller.use, **order: Any) -> Any:
        self.tell(do, **order)
        return self.read()

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


def die_at(point: str, do: Callable[..., Any] = caller.use, **order: Any) -> None:
    """Let a process do something, and be killed at a point (``tests.concurrency.points``)."""
    with workers(1) as [worker]:
        worker.tell(do, stop_at=[point], **order)
        worker.process.join(60)
        worker.check_killed()


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
