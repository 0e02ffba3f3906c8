"""Starts processes that use the same database and counterpart as the test."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from django.conf import settings
from django.db import connections

PASSED_ON = (
    "SIPGATE_TOKEN_URL",
    "SIPGATE_AUTH_URL",
    "SIPGATE_API_URL",
    "SIPGATE_TOKEN_KEYS",
    "SIPGATE_LEASE_SECONDS",
    "SIPGATE_ANSWER_SECONDS",
    "SIPGATE_GRACE_SECONDS",
    "SIPGATE_JOURNAL_DIR",
    "SIPGATE_WAIT_SECONDS",
    "SIPGATE_LOGOUT_URL",
    "SIPGATE_PAGE_WAIT_SECONDS",
)


def environment(**told: Any) -> dict[str, str]:
    """Return the environment of a process that shall see what the test sees."""
    values = {name: getattr(settings, name) for name in PASSED_ON if hasattr(settings, name)}
    values |= told.pop("settings", {})
    order = {
        "database": str(connections["default"].settings_dict["NAME"]),
        "settings": values,
        **told,
    }
    return {
        **os.environ,
        "SIPGATE_WORKER": json.dumps(order, default=str),
        "DJANGO_SETTINGS_MODULE": "tests.worker_settings",
        "PYTHONUNBUFFERED": "1",
    }


class Worker:
    """One process of ``tests.concurrency.caller``: is told what to do by lines of JSON, answers by lines of JSON."""

    def __init__(self, **told: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.concurrency.caller"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(**told),
        )
        assert self.read() == {"ready": True}

    def tell(self, **order: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def ask(self, **order: Any) -> Any:
        self.tell(**order)
        return self.read()

    @property
    def _status(self) -> int:
        if self.process.returncode is not None:
            return os.CLD_EXITED
        # Without WNOWAIT the process would be forgotten here, and Popen not know how it ended.
        try:
            found = os.waitid(
                os.P_PID, self.process.pid, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT
            )
        except ChildProcessError:  # it has been waited for
            return os.CLD_EXITED
        return 0 if found is None else found.si_code

    @property
    def has_died(self) -> bool:
        return self._status in {os.CLD_KILLED, os.CLD_EXITED, os.CLD_DUMPED}

    @property
    def is_stopped(self) -> bool:
        return self._status == os.CLD_STOPPED

    @property
    def is_finished(self) -> bool:
        """Whether it has answered, or died."""
        assert self.process.stdout is not None
        return self.has_died or bool(select.select([self.process.stdout], [], [], 0)[0])

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.is_stopped:
            self.resume()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@contextmanager
def workers(number: int, **told: Any) -> Iterator[list[Worker]]:
    started = [Worker(**told) for _ in range(number)]
    try:
        yield started
    finally:
        for worker in started:
            worker.close()


class Site:
    """The site as it is deployed: gunicorn with several processes."""

    def __init__(
        self,
        *,
        processes: int,
        threads: int,
        application: str = "sipgate_project.wsgi",
        **told: Any,
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "gunicorn",
                application,
                "--bind",
                f"127.0.0.1:{port}",
                "--workers",
                str(processes),
                "--threads",
                str(threads),
                "--log-level",
                "error",
                "--access-logfile",
                "/dev/null",
            ],
            env=environment(**told),
        )
        self._wait()

    def _wait(self) -> None:
        give_up = time.monotonic() + 30
        while time.monotonic() < give_up:
            try:
                if self.get("/readyz").status_code == 200:
                    return
            except requests.ConnectionError:
                time.sleep(0.05)
        raise RuntimeError("The site did not start.")

    def get(self, path: str, *, session: str = "", timeout: float = 60) -> requests.Response:
        """Ask for a page as a browser would that knows the site as ``localhost:8080``."""
        headers = {"Host": "localhost:8080"}
        if session:
            headers["Cookie"] = f"{settings.SESSION_COOKIE_NAME}={session}"
        return requests.get(
            f"{self.url}{path}", headers=headers, timeout=timeout, allow_redirects=False
        )

    def stop(self) -> None:
        """Stop as an operator does: SIGTERM, and what runs is finished."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(80)


@contextmanager
def site(*, processes: int = 3, threads: int = 16, **told: Any) -> Iterator[Site]:
    running = Site(processes=processes, threads=threads, **told)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()
