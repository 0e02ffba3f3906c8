"""Two machines on one database, and a record of what became of every token that they sent."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.chaos.proxy import Proxy
from tests.postgres import Server
from tests.rotator import Rotator

LEASE, ANSWER = 8.0, 3.0
"""The promises' times, in seconds, shortened as far as they go: connecting stays at 5 s."""
WINDOW_KILLED = "killed between sending and journal"
WINDOW_ANSWER = "the answer was lost on its way"
WINDOW_WENT_BACK = "the database lost commits"
WINDOW_DISK = "killed with a full disk"
UNEXPLAINED = "UNEXPLAINED"


@dataclass(slots=True)
class Sending:
    """One token that was sent: when, by which process, and what is known of it since."""

    at: float
    pid: int
    known: list[str] = field(default_factory=list)
    killed_at: float | None = None


class Record:
    """What the workers tell, put together by token."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sendings: dict[tuple[int, str, int], list[Sending]] = defaultdict(list)
        self.errors: Counter[str] = Counter()
        self.crashes: list[str] = []
        """What ended a thread of a worker that should have gone on."""
        self.figures: dict[int, dict[str, Any]] = {}
        self.went_back: set[int] = set()
        """Connections whose newest tokens the database had lost at some time."""

    def take(self, pid: int, told: dict[str, Any]) -> None:
        with self.lock:
            what = told["what"]
            if what == "error":
                self.errors[told["kind"]] += 1
            elif what == "crashed":
                self.crashes.append(told["trace"])
            elif what == "figures":
                self.figures[pid] = told
            elif "connection" in told:
                token = (told["connection"], told["consent"], told["number"])
                if what == "sent":
                    self.sendings[token].append(Sending(told["at"], pid))
                else:
                    for one in [one for one in self.sendings[token] if one.pid == pid][-1:]:
                        one.known.append(what)

    def killed(self, pid: int, at: float) -> None:
        with self.lock:
            for sendings in self.sendings.values():
                for one in sendings:
                    if one.pid == pid and not one.known:
                        one.killed_at = at

    def doubled(self) -> list[str]:
        """Return which tokens were sent again although the first one was kept, or was still under
        way."""
        found = []
        for token, sendings in self.sendings.items():
            for first, second in pairwise(sorted(sendings, key=lambda one: one.at)):
                was_over = first.killed_at is not None or set(first.known) & {
                    "unanswered",
                    "rejected",
                    "answered",
                }
                if token[0] not in self.went_back and ("kept" in first.known or not was_over):
                    found.append(
                        f"connection {token[0]}, number {token[2]}: {first}, then {second}"
                    )
        return found

    def why(self, connection: int) -> str:
        """Return the window in which a connection was lost."""
        sendings = [
            one
            for (pk, _, _), all_of in self.sendings.items()
            if pk == connection
            for one in all_of
        ]
        if any(one.killed_at is not None and not one.known for one in sendings):
            return WINDOW_KILLED
        if any(one.known and one.known[0] == "unanswered" for one in sendings):
            return WINDOW_ANSWER
        if any("not journaled" in one.known and "kept" not in one.known for one in sendings):
            return WINDOW_DISK
        return WINDOW_WENT_BACK if connection in self.went_back else UNEXPLAINED


class Worker:
    """One process of ``tests.chaos.worker``."""

    def __init__(self, machine: Machine, **order: Any) -> None:
        self.machine = machine
        self.told: list[dict[str, Any]] = []
        self.is_ready = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=machine.log,
            text=True,
            env=machine.environment(),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.order(**order, seconds={"lease": LEASE, "answer": ANSWER})

    def order(self, **what: Any) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(what) + "\n")
            self.process.stdin.flush()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            told = json.loads(line)
            if told["what"] == "ready":
                self.is_ready.set()
            elif told["what"] in {"lost", "recovered", "prepared", "verified"}:
                self.told.append(told)
            else:
                self.machine.record.take(self.process.pid, told)

    def kill(self, at: float) -> None:
        assert self.process.poll() is None, self.machine.tail()
        self.process.send_signal(signal.SIGKILL)
        self._gone()
        self.machine.record.killed(self.process.pid, at)

    def stop(self) -> None:
        """Stop it as an operator does; it ends what it has sent."""
        self.process.send_signal(signal.SIGTERM)
        self._gone()
        assert self.process.returncode == 0 or not self.is_ready.is_set(), self.machine.tail()

    def _gone(self) -> None:
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGUSR1)  # tells where its threads are
            time.sleep(1)
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"a worker does not end:\n{self.machine.tail()}") from None
        finally:
            self._reader.join(60)
            assert not self._reader.is_alive(), (
                "what a worker told is not read yet: nothing can be said about it"
            )
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            self.process.stdout.close()

    def finish(self) -> list[dict[str, Any]]:
        """Wait for a worker that ends by itself; return what it told."""
        self.process.wait(600)
        self._reader.join(10)
        assert self.process.returncode == 0, self.machine.tail()
        self._gone()
        return self.told


class Machine:
    """A folder for the journal, a network of its own to database and sipgate, and workers."""

    def __init__(
        self, name: str, folder: Path, server: Server, rotator: Rotator, record: Record
    ) -> None:
        self.name, self.folder, self.record = name, folder / name, record
        self.workers: list[Worker] = []
        self.ahead = 0.0
        self.log = (folder / f"{name}.log").open("w")
        place = parse_qs(urlsplit(server.url).query)["host"][0]
        to = urlsplit(rotator.url)
        self.to_database = Proxy(lambda: _unix(f"{place}/.s.PGSQL.5432"))
        self.to_sipgate = Proxy(
            lambda: socket.create_connection((to.hostname or "", to.port or 0), 5)
        )

    def environment(self) -> dict[str, str]:
        # By name: somebody has to resolve it.
        url = f"http://localhost:{self.to_sipgate.port}"
        settings = {
            "SIPGATE_WAIT_SECONDS": 4,
            "SIPGATE_TOKEN_URL": f"{url}/auth/realms/third-party/protocol/openid-connect/token",
            "SIPGATE_API_URL": f"{url}/v2",
            "SIPGATE_JOURNAL_DIR": str(self.folder),
            "SIPGATE_NOTICES": False,
        }
        return {
            **os.environ,
            "SIPGATE_TEST_DATABASE_URL": f"postgresql://postgres:@127.0.0.1:{self.to_database.port}/postgres",
            "SIPGATE_WORKER": json.dumps({"database": "postgres", "settings": settings}),
            "DJANGO_SETTINGS_MODULE": "tests.worker_settings",
        }

    def start(self, threads: int, pause: float) -> Worker:
        worker = Worker(self, do="work", ahead=self.ahead, threads=threads, pause=pause)
        self.workers.append(worker)
        return worker

    def run(self, what: str, **more: Any) -> list[dict[str, Any]]:
        """Have something done by a worker that ends by itself."""
        return Worker(self, do=what, **more).finish()

    def tail(self) -> str:
        return Path(self.log.name).read_text()[-6000:]

    def tell_all(self, **order: Any) -> None:
        for worker in self.workers:
            worker.order(**order)

    def close(self) -> None:
        for worker in self.workers:
            worker.stop()
        self.workers = []
        self.log.close()
        self.to_database.close()
        self.to_sipgate.close()


def _unix(path: str) -> socket.socket:
    one = socket.socket(socket.AF_UNIX)
    one.connect(path)
    return one
